"""Pointwise work: transposes run in square blocks; what conditions of the innermost axis tell apart, in parts."""

import numpy as np
import pytest

import warpbeam
from warpbeam import relay
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.expr import if_then_else
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import BufferStore
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import lower
from warpbeam.topi.nn.padding import pad_mirrored

MACHINE = "generic-x86-64-v4"  # choices must not depend on the machine that tests


@pytest.mark.parametrize("shape", [(3, 32, 48), (2, 17, 33), (1, 9, 8)])
def test_transpose(shape):
    b, m, n = shape
    x = te.placeholder(shape, name="x")
    y = te.compute((b, n, m), lambda i, j, k: x[i, k, j], name="y")
    plan = schedule([x], [y], get(MACHINE))
    assert "blocks of" in plan.notes[0]
    a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for func in (plan.func, lower(plan.func, get(MACHINE))):
        out = np.zeros((b, n, m), np.float32)
        run(func, *[v.reshape([int(d) for d in p.shape]) for v, p in zip((a, out), func.params, strict=False)])
        np.testing.assert_array_equal(out, a.transpose(0, 2, 1))


def test_what_is_done_to_a_transposed_value_is_done_in_blocks_too():
    x = te.placeholder((3, 32, 48), name="x")
    y = te.compute((3, 48, 32), lambda i, j, k: x[i, k, j], name="y")
    z = te.compute((3, 48, 32), lambda i, j, k: y[i, j, k] * 0.5, name="z")
    plan = schedule([x], [z], get(MACHINE))
    assert "blocks of" in plan.notes[0] and "lane_79" in to_text(plan.lowered)  # 16 rows, 4 rounds of 16 shuffles
    a, out = np.random.default_rng(0).standard_normal((3, 32, 48)).astype(np.float32), np.zeros((3, 48, 32), np.float32)
    run(plan.lowered, a, out)
    np.testing.assert_array_equal(out, a.transpose(0, 2, 1) * np.float32(0.5))


def test_a_transposed_part_of_a_concatenation_leaves_the_parts_whole():
    x, y = te.placeholder((32, 48), name="x"), te.placeholder((48, 20), name="y")
    t = te.compute((48, 32), lambda i, j: x[j, i], name="t")
    z = te.compute((48, 52), lambda i, j: if_then_else(j < 32, t[i, j], y[i, j - 32]), name="z")
    plan = schedule([x, y], [z], get(MACHINE))
    assert "blocks of" not in plan.notes[0]


def test_parts_of_a_concatenation_are_loops_of_their_own():
    """Conditions of the innermost variable cut its loop; what is left has none, and goes in vectors."""
    a, b = te.placeholder((7, 36), name="a"), te.placeholder((7, 20), name="b")
    y = te.compute((7, 56), lambda i, j: if_then_else(j < 36, a[i, j], b[i, j - 36]), name="y")
    plan = schedule([a, b], [y], get("generic-x86-64-v4"))
    text = to_text(plan.lowered)
    assert plan.sketch == "pointwise" and "if_then_else" not in text and "ramp(" in text
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((7, n)).astype(np.float32) for n in (36, 20))
    got = np.zeros((7, 56), np.float32)
    run(plan.func, left, right, got)
    np.testing.assert_array_equal(got, np.concatenate([left, right], axis=1))


@pytest.mark.parametrize(
    "condition,inside",
    [
        (lambda j: j < 5, range(5)),
        (lambda j: j <= 5, range(6)),
        (lambda j: j > 5, range(6, 40)),
        (lambda j: j >= 5, range(5, 40)),
        (lambda j: 9 - j > 0, range(9)),
        (lambda j: 9 - j >= 0, range(10)),
        (lambda j: 9 - j < 0, range(10, 40)),
        (lambda j: 9 - j <= 0, range(9, 40)),
        (lambda j: E.land(j + 3 >= 6, j < 37), range(3, 37)),
    ],
)
def test_every_comparison_cuts_where_it_changes(condition, inside):
    a = te.placeholder((3, 40), name="a")
    y = te.compute((3, 40), lambda i, j: if_then_else(condition(j), a[i, j] * 2.0, 0.0), name="y")
    plan = schedule([a], [y], get("generic-x86-64-v4"))
    assert "if_then_else" not in to_text(plan.lowered)
    given = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    got = np.zeros((3, 40), np.float32)
    run(plan.func, given, got)
    want = np.zeros((3, 40), np.float32)
    want[:, list(inside)] = given[:, list(inside)] * 2
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "condition,cut",
    [
        (lambda j, w: E.land(j >= 2, j < w + 2), True),
        (lambda j, w: j < w, True),
        (lambda j, w: E.land(j >= 2, j < w), False),  # which comes first is not known
        (lambda j, w: j < w * 2, False),  # perhaps outside
    ],
)
def test_open_places_cut_where_their_order_is_known(condition, cut):
    w = E.SizeVar("w")
    a = te.placeholder((3, w + 4), name="a")
    y = te.compute((3, w + 4), lambda i, j: if_then_else(condition(j, w), a[i, j] * 2.0, 0.0), name="y")
    text = to_text(schedule([a], [y], get(MACHINE)).lowered)
    assert ("if_then_else" not in text) == cut


@pytest.mark.parametrize("shape", [(6, 40), (40,), (40000,)])
@pytest.mark.parametrize("mode", ["reflect", "symmetric", "edge", "wrap"])
def test_borders_are_loops_beside_a_copy(mode, shape):
    """The middle is read in order; no remainders, no elements by themselves. A loop that is alone is cut too."""
    x = te.placeholder(shape, name="x")
    y = pad_mirrored(x, [(2, 3)] * len(shape), mode)
    plan = schedule([x], [y], get(MACHINE))
    text = to_text(plan.lowered)
    assert "shuffle" not in text and "%" not in text.replace("%x", "").replace("%pad", "")
    assert to_text(plan.func).count("parallel") == (len(shape) == 1 and shape[0] > 20000)
    a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = np.zeros([n + 5 for n in shape], np.float32)
    run(plan.lowered, a, got)
    np.testing.assert_array_equal(got, np.pad(a, (2, 3), mode=mode))


def test_borders_and_parts_of_open_sizes():
    """As for known ones, with sizes of less than the borders too."""
    rows, columns = relay.Any(), relay.Any()
    x, z = relay.var("x", shape=(rows, columns)), relay.var("z", shape=(rows, 5))
    joined = relay.concatenate(
        (
            relay.nn.pad(x, pad_width=((1, 0), (2, 20)), pad_value=3.0),
            relay.nn.pad(z, pad_width=((1, 0), (0, 0)), pad_value=4.0),
        ),
        axis=1,
    )
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([x, z], joined)), cache=False)
    rng = np.random.default_rng(0)
    for n, m in ((1, 3), (3, 2), (2, 1), (7, 16), (5, 70)):
        a, b = (rng.standard_normal(s).astype(np.float32) for s in ((n, m), (n, 5)))
        (got,) = module.run({"x": a, "z": b}).values()
        left = np.pad(a, ((1, 0), (2, 20)), constant_values=3)
        want = np.concatenate([left, np.pad(b, ((1, 0), (0, 0)), constant_values=4)], axis=1)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("shape", "axis"), [((1, 3000, 1), 0), ((3, 70, 5, 1), 3), ((1, 5), 0)])
def test_the_place_of_an_extreme_among_one(shape: tuple[int, ...], axis: int) -> None:
    """Two results of one nest without a reduction: there is nothing to cut it at."""
    x = relay.var("x", shape=shape)
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([x], relay.argmax(x, axis=axis))), cache=False)
    (got,) = module.run({"x": np.ones(shape, np.float32)}).values()
    assert got.shape == tuple(d for k, d in enumerate(shape) if k != axis) and not got.any()


@pytest.mark.parametrize(
    ("dtype", "made", "lanes"),
    [
        ("uint8", lambda x: x, 64),
        ("bool", lambda x: x, 64),
        ("int8", lambda x: x + E.const(1, "int8"), 64),
        ("float16", lambda x: E.select(x > E.const(0, "float16"), x, E.const(0, "float16")), 32),
        ("float16", lambda x: x + x, 16),
        ("uint8", lambda x: x.astype("float32"), 16),
        ("uint8", lambda x: E.FloorDiv(x, x), 16),
        ("int64", lambda x: x, 16),
    ],
)
def test_vectors_are_as_wide_as_the_widest_number_on_the_way(dtype, made, lanes):
    x = te.placeholder((5, 1024), dtype, "x")
    y = te.compute((3, 1024), lambda i, j: made(x[i + 1, j]), name="y")
    plan = schedule([x], [y], get(MACHINE))
    assert f"vectors of {lanes}" in plan.notes[0] and f", 1, {lanes})" in to_text(plan.lowered)


@pytest.mark.parametrize("size", [600, 599, 514, 100, 63])
def test_a_rest_is_a_shorter_vector(size):
    x = te.placeholder((5, 700), "uint8", "x")
    y = te.compute((3, size), lambda i, j: x[i + 1, j + 1], name="y")
    plan = schedule([x], [y], get(MACHINE))
    assert f", 1, {size % 64})" in to_text(plan.lowered)
    a, out = np.random.default_rng(0).integers(0, 256, (5, 700)).astype(np.uint8), np.zeros((3, size), np.uint8)
    run(plan.lowered, a, out)
    np.testing.assert_array_equal(out, a[1:4, 1 : size + 1])


def test_rows_of_few_elements_share_vectors():
    """Loops over a few channels are joined with what is around them."""
    x, b = te.placeholder((2, 3, 100), "uint8", "x"), te.placeholder((3,), "uint8", "b")
    y = te.compute((2, 100, 3), lambda i, j, k: x[i, k, j] + b[k], name="y")
    plan = schedule([x, b], [y], get(MACHINE))
    assert "range(64)" not in to_text(plan.lowered)
    rng = np.random.default_rng(0)
    a, c = (rng.integers(0, 256, s).astype(np.uint8) for s in ((2, 3, 100), (3,)))
    out = np.zeros((2, 100, 3), np.uint8)
    run(plan.lowered, a, c, out)
    np.testing.assert_array_equal(out, a.transpose(0, 2, 1) + c)


@pytest.mark.parametrize("rows, few", [(7, 7), (8, 5), (31, 7), (16, 7), (31, 3), (33, 3), (9, 6)])
def test_rows_of_few_elements_that_fill_no_round_of_vectors_have_their_own(rows: int, few: int) -> None:
    """No element goes by itself: a round of vectors whose lanes are known, and rows one by one."""
    x, b = te.placeholder((3, rows, few), "int16", "x"), te.placeholder((rows,), "int16", "b")
    y = te.compute((3, rows, few), lambda i, j, k: x[i, j, k] + b[j], name="y")
    plan = schedule([x, b], [y], get(MACHINE))
    stores = [n for n in post_order(plan.lowered.body) if isinstance(n, BufferStore)]
    assert all(dt.lanes(n.value.dtype) > 1 for n in stores)
    rng = np.random.default_rng(0)
    a, c = (rng.integers(-99, 99, s).astype(np.int16) for s in ((3, rows, few), (rows,)))
    out = np.zeros((3, rows, few), np.int16)
    run(plan.lowered, a, c, out)
    np.testing.assert_array_equal(out, a + c[:, None])


def test_rows_of_few_elements_that_data_says_stay_apart():
    """Rows of a table, and parts of a join."""
    t, i = te.placeholder((50, 3), "float32", "t"), te.placeholder((200,), "int64", "i")
    rows = schedule([t, i], [te.compute((200, 3), lambda a, b: t[i[a], b], name="y")], get(MACHINE))
    assert "ramp(0, 1, 3)" in to_text(rows.lowered)
    a, b = te.placeholder((200, 2), "float32", "a"), te.placeholder((200, 3), "float32", "b")
    y = te.compute((200, 5), lambda p, q: if_then_else(q < 2, a[p, q], b[p, q - 2]), name="y")
    assert "ramp(0, 1, 2)" in to_text(schedule([a, b], [y], get(MACHINE)).lowered)


def test_channels_are_taken_in_turn_while_their_pixels_are_near():
    x = te.placeholder((2, 1024, 3), "float32", "x")
    y = te.compute((2, 3, 1024), lambda i, j, k: x[i, k, j], name="y")
    text = to_text(schedule([x], [y], get(MACHINE)).func)
    assert text.index("range(16)") < text.index("range(3)") < text.index("range(4)")
