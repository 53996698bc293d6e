"""Pointwise work: transposes run in square blocks; what conditions of the innermost axis tell apart, in parts."""

import numpy as np
import pytest

from warpbeam import topi
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.expr import const_int, if_then_else
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import For
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import lower

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


@pytest.mark.parametrize(
    ("shape", "along"),
    [
        ((2, 24, 1024), True),
        ((1, 40, 512), True),
        ((1, 24, 1008), False),
        ((1, 1024, 1024), False),
        ((1, 512, 1024), False),
        ((1, 1024, 40), False),
    ],
)
def test_blocks_follow_rows_of_the_source_where_those_crowd_a_cache(shape, along):
    """Rows 4 KiB apart share the places that their lines have in the nearest cache; those of the result do not."""
    b, m, n = shape
    x = te.placeholder(shape, name="x")
    plan = schedule([x], [te.compute((b, n, m), lambda i, j, k: x[i, k, j], name="y")], get(MACHINE))
    assert ("along the source" in plan.notes[0]) == along
    a = np.arange(b * m * n, dtype=np.float32).reshape(shape)
    if a.size < 1 << 17:
        out = np.zeros((b, n, m), np.float32)
        run(
            plan.lowered,
            *[v.reshape([int(d) for d in p.shape]) for v, p in zip((a, out), plan.lowered.params, strict=False)],
        )
        np.testing.assert_array_equal(out, a.transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("shape", "l1", "blocks"),
    [
        ((1, 512, 70), 48 << 10, "64 x 128"),  # rows of the result 2 KiB apart
        ((2, 1024, 130), 32 << 10, "32 x 128"),
        ((1, 1024, 17), 48 << 10, "64 x 128"),
        ((1, 512, 15), 48 << 10, None),
        ((1, 480, 70), 48 << 10, None),
        ((1, 544, 70), 48 << 10, None),
    ],
)
def test_results_whose_rows_crowd_a_cache_go_by_way_of_a_buffer(shape, l1, blocks):
    """Rows 2 KiB or a multiple apart share places: lines of few of them stay until they are whole."""
    b, m, n = shape
    x = te.placeholder(shape, name="x")
    y = te.compute((b, n, m), lambda i, j, k: x[i, k, j], name="y")
    plan = schedule([x], [y], get(MACHINE).replace(l1=l1))
    assert ("by way of a buffer" in plan.notes[0]) == (blocks is not None)
    assert blocks is None or f"blocks of {blocks} " in plan.notes[0]
    a, out = np.arange(b * m * n, dtype=np.float32).reshape(shape), np.zeros((b, n, m), np.float32)
    run(
        plan.lowered,
        *[v.reshape([int(d) for d in p.shape]) for v, p in zip((a, out), plan.lowered.params, strict=False)],
    )
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


def test_transposes_past_the_caches_take_blocks_together() -> None:
    """Several lines of each row, of the source and of the result, where the result stays in no cache; fewer where cores
    would be left without work.
    """
    base = get("generic-x86-64-v4").replace(l1=2048, l2=8192, l3=16384, cores=2)
    x = te.placeholder((256, 1024), name="x")
    for cores, strips in [(2, 8), (4, 4), (64, 1)]:
        plan = schedule([x], [topi.transpose(x, (1, 0))], base.replace(cores=cores))
        assert "some each way" in plan.notes[0]
        loops = [n for n in post_order(plan.func.body) if isinstance(n, For)]
        asked = next(n for n in loops if "prefetch" in n.annotations)
        assert const_int(asked.body.extent) == strips
    for other in (base.replace(l3=1 << 25), base.replace(l3=0)):
        assert "some each way" not in schedule([x], [topi.transpose(x, (1, 0))], other).notes[0]
    odd = te.placeholder((257, 1024), name="x")
    assert "some each way" not in schedule([odd], [topi.transpose(odd, (1, 0))], base).notes[0]
