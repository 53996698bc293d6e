"""Passes over neighbouring rows in one loop: the values are those of rows one by one, for all numbers of rows."""

import numpy as np
import pytest
from tolerance import close

from warpbeam import topi
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch import row_stages
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.analysis.overwrite import may_overwrite, overwriting
from warpbeam.tir.expr import call
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import For
from warpbeam.tir.text import to_text

TARGET = get("native").replace(
    l1=48 << 10, l2=1 << 20, l3=1 << 25, cores=2, vector_bits=512, vector_registers=32, fma=True
)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    return x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))


def layer_norm(x, g, b):
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5) * g + b


def _planned(shape, operator=topi.nn.softmax, target=TARGET):
    x = te.placeholder(shape, name="x")
    return schedule([x], [operator(x, -1)], target)


def _stages(plan):
    """The stages of the loop over rows; none where a row is done before the next one begins."""
    found = [f.annotations for f in post_order(plan.func.body) if isinstance(f, For)]
    return next((a["software_pipeline_stage"] for a in found if "software_pipeline_stage" in a), ())


@pytest.mark.parametrize(("rows", "columns"), [(16, 512), (19, 1000), (13, 300), (29, 257), (197, 208), (64, 1037)])
def test_softmax_in_stages(rows, columns):
    plan = _planned((rows, columns))
    assert plan.sketch == "rows" and _stages(plan)[:4] == (0, 2, 2, 3)
    x = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    for func in (plan.func, plan.lowered):
        y = np.full_like(x, 7)
        run(func, x, y)
        close(y, softmax(x.astype(np.float64)), terms=columns + 3)


@pytest.mark.parametrize("shape", [(4, 8, 320), (12, 197, 208), (4, 5, 7, 240)])
def test_rows_in_several_dimensions(shape):
    x, m = te.placeholder(shape, name="x"), te.placeholder(shape[-2:], name="m")
    masked = te.compute(shape, lambda *i: x[i] + m[i[-2:]], name="masked")
    plan = schedule([x, m], [topi.nn.softmax(masked, -1)], TARGET)
    assert plan.sketch == "rows" and max(_stages(plan)) == 3
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in (shape, shape[-2:]))
    y = np.zeros_like(a)
    operands = [v.reshape(p.shape) for v, p in zip((a, b, y), plan.func.params, strict=True)]
    run(plan.lowered, *operands)
    close(y, softmax(a.astype(np.float64) + b), terms=shape[-1] + 4)


@pytest.mark.parametrize("rows", [16, 27])
def test_statistics_that_live_for_two_rows(rows):
    """The maximum and the mean are needed in both passes that follow: there are several of each at once."""
    plan = _planned((rows, 480), topi.nn.log_softmax)
    assert max(_stages(plan)) == 4 and "row_max: float32[4] @local" in to_text(plan.lowered)
    x = np.random.default_rng(0).standard_normal((rows, 480)).astype(np.float32)
    y = np.zeros_like(x)
    run(plan.lowered, x, y)
    close(y, log_softmax(x.astype(np.float64)), terms=480 + 5, scale=16.0)

    p, g, b = te.placeholder((rows, 480), name="x"), te.placeholder((480,), name="g"), te.placeholder((480,), name="b")
    plan = schedule([p, g, b], [topi.nn.layer_norm(p, g, b, -1)], TARGET)
    assert max(_stages(plan)) == 2
    scale, shift = np.linspace(0.5, 2, 480, dtype=np.float32), np.linspace(-1, 1, 480, dtype=np.float32)
    run(plan.lowered, x, scale, shift, y)
    close(y, layer_norm(x.astype(np.float64), scale, shift), terms=480 + 8, scale=16.0)


def test_a_statistic_of_the_second_pass_as_the_result():
    rows, columns = 24, 512
    x = te.placeholder((rows, columns), name="x")
    k, k2 = te.reduce_axis(columns, "k"), te.reduce_axis(columns, "k2")
    top = te.compute((rows,), lambda i: te.max(x[i, k], axis=[k]), name="top")
    total = te.compute((rows,), lambda i: te.sum(call("exp", x[i, k2] - top[i]), axis=[k2]), name="total")
    plan = schedule([x], [total], TARGET)
    assert plan.sketch == "rows" and max(_stages(plan)) == 2
    a = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    y = np.zeros(rows, np.float32)
    run(plan.lowered, a, y)
    close(y, np.exp(a.astype(np.float64) - a.max(1, keepdims=True)).sum(1), terms=columns + 3)


def test_all_passes_are_in_one_loop_and_a_row_of_values_is_there_once():
    text = to_text(_planned((512, 1024)).lowered)
    steady = text[text.index("for i0_4_1 in range(61)") :]
    assert steady.count("for ") == 5  # rows and columns; what is left of the last three rows
    assert "row_exp: float32[1024] @local" in text and "row_sum: float32[] @register" in text


@pytest.mark.parametrize(("columns", "passes"), [(1024, (0, 2, 2, 3)), (1536, (0, 1, 1, 2))])
def test_exponentials_wait_for_a_statistic_where_there_is_room(columns, passes):
    """Seven rows of 4 KiB of a cache of 48, but not of 6 KiB."""
    assert _stages(_planned((128, columns))) == passes


@pytest.mark.parametrize(("rows", "columns"), [(4, 1024), (512, 64), (64, 50000)])
def test_few_rows_and_rows_that_registers_hold_or_caches_do_not_are_taken_one_by_one(rows, columns):
    assert not _stages(_planned((rows, columns)))


@pytest.mark.parametrize(("size", "staged"), [(256, True), (64, False)])
def test_exponentials_of_long_rows_work_in_the_second_cache(size, staged):
    """Seven rows of 12 KiB."""
    plan = _planned((64, 3072), target=TARGET.replace(l2=size << 10))
    assert bool(_stages(plan)) == staged
    x = np.random.default_rng(0).standard_normal((64, 3072)).astype(np.float32)
    y = np.full_like(x, 7)
    run(plan.lowered, x, y)
    close(y, softmax(x.astype(np.float64)), terms=3075)


@pytest.mark.parametrize("shape", [(64, 1), (3000, 1), ()])
def test_an_operand_of_one_value_per_row_is_not_read_again(shape):
    """Of the rows that pass by it takes next to nothing, however many they are; so does one value for all."""
    for rows in [shape[0]] if shape else [64, 3000]:
        x, a = te.placeholder((rows, 2560), name="x"), te.placeholder(shape, name="a")
        at = (lambda i: a[i, 0]) if shape else (lambda i: a[()])  # noqa: B023
        scaled = te.compute((rows, 2560), lambda i, j: x[i, j] * at(i), name="scaled")  # noqa: B023
        plan = schedule([x, a], [topi.nn.layer_norm(scaled, None, None, -1)], TARGET.replace(l3=1 << 27))
        assert _stages(plan)


@pytest.mark.parametrize(
    ("columns", "affine", "staged"), [(2560, False, True), (2560, True, False), (3328, False, False)]
)
def test_cheap_passes_work_in_the_nearest_cache(columns, affine, staged):
    """Three rows and the result's of 10 KiB, not of 13; nothing else that each row reads."""
    sizes = [(64, columns), *[(columns,)] * (2 * affine)]
    x, *scales = (te.placeholder(s, name=f"x{k}") for k, s in enumerate(sizes))
    gamma, beta = scales or (None, None)
    plan = schedule([x, *scales], [topi.nn.layer_norm(x, gamma, beta, -1)], TARGET)
    assert bool(_stages(plan)) == staged and "prefetch" not in to_text(plan.lowered)
    values = [np.random.default_rng(k).standard_normal(s).astype(np.float32) for k, s in enumerate(sizes)]
    y = np.full((64, columns), 7, np.float32)
    run(plan.lowered, *values, y)
    one, none = np.ones(columns), np.zeros(columns)
    wide = [v.astype(np.float64) for v in values]
    close(y, layer_norm(*(wide if affine else (*wide, one, none))), terms=columns + 3)


def test_cheap_passes_that_wait_for_memory_are_taken_one_by_one():
    """With exponentials there is time for all of it to come."""
    for operator, staged in ((topi.nn.softmax, True), (lambda x, axis: topi.nn.layer_norm(x, None, None, axis), False)):
        assert bool(_stages(_planned((8192, 1024), operator))) == staged
        assert _stages(_planned((512, 1024), operator))


def test_exponentials_without_fused_multiply_adds_are_taken_one_by_one():
    plain = TARGET.replace(fma=False)
    assert not _stages(_planned((512, 512), target=plain))
    assert _stages(_planned((512, 512), lambda x, axis: topi.nn.layer_norm(x, None, None, axis), plain))


def test_one_pass_needs_no_stages():
    x, k = te.placeholder((64, 1024), name="x"), te.reduce_axis(1024, "k")
    assert not _stages(schedule([x], [te.compute((64,), lambda i: te.sum(x[i, k], axis=[k]), name="y")], TARGET))


@pytest.mark.parametrize(
    ("lead", "cores", "rows"),
    [
        ((512,), 2, 64),
        ((197,), 2, 33),
        ((12, 197), 2, 197),
        ((64,), 16, 0),
        ((128,), 16, 8),
        ((64,), 1, 16),
        ((6,), 2, 0),
        ((64,), 0, 64),
    ],
)
def test_rows_of_a_thread(lead, cores, rows):
    """As many for each core; of rows in two dimensions all of the inner one; 0: too few."""
    assert row_stages._chunk(lead, cores, 2) == rows


@pytest.mark.parametrize("rows", [16, 64, 197])
def test_results_may_take_the_place_of_operands(rows):
    """A row is read for the last time before its result is stored, and other rows are elsewhere."""
    plan = _planned((rows, 512))
    func, (source, result) = plan.lowered, plan.lowered.buffers[:2]
    assert max(_stages(plan)) == 3 and may_overwrite(func, source, result)
    x = np.random.default_rng(0).standard_normal((rows, 512)).astype(np.float32)
    want, y = np.zeros_like(x), x.copy()
    run(func, x, want)
    run(overwriting(func, source, result), y, y)
    np.testing.assert_array_equal(y, want)
