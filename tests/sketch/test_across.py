"""In which order transposes take their blocks: by where rows of the source and of the result lie in a cache."""

import numpy as np
import pytest

from warpbeam.ir.rewrite import post_order
from warpbeam.sketch.base import Plan
from warpbeam.sketch.select import schedule
from warpbeam.target import Target, get
from warpbeam.te import tensor as te
from warpbeam.tir.expr import const_int
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import For

ORDERS = ("by way of a buffer", "along the source", "on diagonals")


def machine(**facts: int) -> Target:
    """One with 16 lanes, which fill a line."""
    return get("generic-x86-64-v4").replace(**{"cores": 2, "l1": 48 << 10, **facts})


def turned(shape: tuple[int, ...], target: Target, dtype: str = "float32") -> Plan:
    """The last two axes change places."""
    b, m, n = shape
    x = te.placeholder(shape, dtype, name="x")
    return schedule([x], [te.compute((b, n, m), lambda i, j, k: x[i, k, j], name="y")], target)


def order(plan: Plan) -> str:
    return next((o for o in ORDERS if o in plan.notes[0]), "")


def check(plan: Plan, shape: tuple[int, ...], dtype: str = "float32") -> None:
    a = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    out = np.zeros((shape[0], shape[2], shape[1]), dtype)
    args = zip((a, out), plan.lowered.params, strict=False)
    run(plan.lowered, *[v.reshape([int(d) for d in p.shape]) for v, p in args])
    np.testing.assert_array_equal(out, a.transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 40, 1024), "along the source"),  # rows of the result share no places
        ((2, 24, 1008), "along the source"),
        ((1, 128, 600), "along the source"),
        ((1, 256, 256), "on diagonals"),  # 1 KiB apart: too near for rows of several blocks
        ((1, 512, 1024), "on diagonals"),  # 2 KiB, and the source's are crowded
        ((2, 512, 256), "on diagonals"),
        ((1, 512, 240), ""),  # the source's are not
        ((1, 512, 70), ""),
        ((1, 256, 40), ""),  # no larger block is whole
        ((1, 1024, 70), "by way of a buffer"),  # rows of one block share a place
        ((1, 1024, 1024), "by way of a buffer"),
        ((1, 300, 64), ""),  # cores would be left without work
    ],
)
def test_order(shape: tuple[int, ...], expected: str) -> None:
    plan = turned(shape, machine())
    assert order(plan) == expected
    if shape[0] * shape[1] * shape[2] < 1 << 17:
        check(plan, shape)


@pytest.mark.parametrize(
    ("lanes", "dtype", "shape", "expected"),
    [
        (16, "float16", (1, 512, 256), "on diagonals"),
        (16, "float16", (1, 512, 1024), "on diagonals"),
        (16, "float16", (1, 1024, 512), "by way of a buffer"),
        (16, "float16", (1, 40, 1280), "along the source"),
        (16, "float16", (1, 40, 640), ""),
        (8, "float32", (1, 256, 256), "on diagonals"),
        (8, "float32", (1, 512, 256), "by way of a buffer"),
        (8, "float32", (1, 40, 640), "along the source"),
        (8, "float32", (1, 40, 320), ""),
        (16, "int8", (1, 1024, 512), ""),  # quarters
        (16, "int8", (1, 24, 1280), ""),
    ],
)
def test_order_where_blocks_store_parts_of_lines(lanes: int, dtype: str, shape: tuple[int, ...], expected: str) -> None:
    """The rest is stored by the next block along the result."""
    assert order(turned(shape, machine(vector_bits=32 * lanes), dtype)) == expected


def test_no_buffer_where_operands_fill_the_last_cache() -> None:
    """Waiting for what is read, and then for what is written, takes longer there than rows that push each other out."""
    size = 2 * 1024 * 1024 * 4
    assert order(turned((1, 1024, 1024), machine(l3=size * 3 // 2))) == "by way of a buffer"
    assert order(turned((1, 1024, 1024), machine(l3=size * 3 // 2 - 1))) == "on diagonals"
    assert order(turned((1, 1024, 70), machine(l3=size // 16))) == ""


@pytest.mark.parametrize(
    ("shape", "l3", "expected"),
    [
        ((1, 160, 640), 160 * 640 * 8 * 4, (2, 2)),
        ((1, 160, 640), 160 * 640 * 8 * 4 - 1, (4, 1)),  # fills too much of the last cache
        ((1, 160, 640), 0, (4, 1)),  # nobody knows
        ((1, 96, 640), 1 << 25, (4, 1)),  # a rest would be too large a part
    ],
)
def test_squares_along_the_source(shape: tuple[int, ...], l3: int, expected: tuple[int, int]) -> None:
    plan = turned(shape, machine(l3=l3))
    assert order(plan) == "along the source"
    loops = [n for n in post_order(plan.func.body) if isinstance(n, For)]
    counts = {n.var.name: const_int(n.extent) for n in loops}
    assert (counts["j_1"], counts["k_1"]) == expected
    shared = next(n for n in loops if n.kind == "parallel")
    assert "either_way" in shared.annotations, "what fetches ahead by itself is all that does"
    check(plan, shape)


@pytest.mark.parametrize("cores,blocks", [(2, 8), (4, 4), (8, 2), (64, 1)])
def test_diagonals_leave_work_for_all_cores(cores: int, blocks: int) -> None:
    plan = turned((1, 512, 1024), machine(cores=cores))
    loops = [n for n in post_order(plan.func.body) if isinstance(n, For)]
    assert const_int(next(n for n in loops if n.kind == "parallel").extent) == 1024 // (16 * blocks)


@pytest.mark.parametrize(
    ("shape", "l1", "blocks"),
    [((2, 1024, 130), 32 << 10, "32 x 128"), ((1, 1024, 17), 48 << 10, "64 x 128"), ((1, 1024, 15), 48 << 10, None),
     ((1, 1056, 70), 48 << 10, None), ((1, 1120, 70), 48 << 10, None)],
)  # fmt: skip
def test_blocks_that_go_by_way_of_a_buffer(shape: tuple[int, ...], l1: int, blocks: str | None) -> None:
    """As large as fits the nearest cache; where rows of the result are whole blocks, and there are enough of them."""
    plan = turned(shape, machine(l1=l1))
    assert (order(plan) == "by way of a buffer") == (blocks is not None)
    assert blocks is None or f"blocks of {blocks} " in plan.notes[0]
    check(plan, shape)


@pytest.mark.parametrize(
    ("shape", "cores", "expected", "counts"),
    [
        ((1, 256, 1024), 2, "some each way", (8, 4)),
        ((1, 256, 1024), 4, "some each way", (4, 4)),
        ((1, 256, 1024), 64, "some each way", (1, 4)),
        ((1, 512, 250), 2, "some each way, along the source", (4, 4)),
        ((1, 256, 250), 4, "some each way, along the source", (4, 1)),
        ((3, 256, 100), 2, "some each way, along the source", (4, 4)),
        ((1, 257, 1024), 2, None, ()),  # no whole lines
    ],
)
def test_past_the_caches(shape: tuple[int, ...], cores: int, expected: str | None, counts: tuple[int, ...]) -> None:
    """Several blocks each way together: lines of each row, of the source and of the result; fewer where cores would be
    left without work. They go along the source's rows, unless these crowd few places.
    """
    plan = turned(shape, machine(l1=2048, l2=8192, l3=16384, cores=cores))
    assert plan.notes[0].endswith(expected or "blocks of 16 x 16 along the source")
    check(plan, shape)
    if expected is not None:
        loops = [n for n in post_order(plan.func.body) if isinstance(n, For)]
        asks = next(n for n in loops if "prefetch" in n.annotations)
        assert tuple(const_int(f.extent) or const_int(f.extent.a) for f in (asks.body, asks.body.body)) == counts


def test_what_some_cache_holds_is_not_taken_together() -> None:
    for l3 in (1 << 25, 0):
        assert "some each way" not in turned((1, 256, 1024), machine(l1=2048, l2=8192, l3=l3)).notes[0]


def asked(plan: Plan) -> list[tuple[str, object]]:
    """Names of buffers that loops ask for, and how far ahead."""
    loops = [n for n in post_order(plan.func.body) if isinstance(n, For)]
    return [(name, ahead) for n in loops for name, ahead, *_ in n.annotations.get("prefetch", ())]


@pytest.mark.parametrize(
    ("dtype", "shape", "l2", "names"),
    [
        ("float32", (1, 256, 256), 2 * 256 * 256 * 4 - 1, ["x", "y"]),  # on diagonals
        ("float32", (1, 256, 256), 2 * 256 * 256 * 4, []),  # all of it is near
        ("float32", (1, 256, 256), 0, []),  # not known
        ("float16", (1, 512, 256), 1 << 16, []),  # half lines: as much to ask for as to do
        ("float32", (1, 1024, 128), 1 << 18, ["x"]),  # by way of a buffer: its rows are stored one after the other
        ("float32", (1, 1024, 128), 1 << 20, []),
        ("float32", (1, 40, 1024), 1 << 16, []),  # along the source
    ],
)
def test_asks_ahead_beyond_the_second_cache(dtype: str, shape: tuple[int, ...], l2: int, names: list[str]) -> None:
    plan = turned(shape, machine(l2=l2), dtype)
    assert [name for name, _ in asked(plan)] == names
    if names and np.prod(shape) < 1 << 17:
        check(plan, shape, dtype)


def test_blocks_that_are_left_without_diagonals_ask_for_nothing() -> None:
    plan = turned((1, 512, 1024), machine(l2=1 << 18, cores=64))
    assert "on diagonals" not in plan.notes[0] and asked(plan) == []


def test_what_is_computed_on_the_way_is_not_asked_for() -> None:
    x = te.placeholder((256, 256), name="x")
    twice = te.compute((256, 256), lambda i, j: x[i, j] * 2.0, name="twice")
    out = te.compute((256, 256), lambda i, j: twice[j, i], name="y")
    plan = schedule([x], [twice, out], machine(l2=1 << 16))
    assert any("on diagonals" in note for note in plan.notes)
    assert asked(plan) == []
