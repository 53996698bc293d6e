"""Products by an operand that is no constant, in blocks: right at every remainder, and taken where it has to be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tolerance import close

import warpbeam.te as te
from warpbeam import op
from warpbeam.cost import block_prior
from warpbeam.cost.block_prior import Blocking
from warpbeam.cost.tile_prior import STACK, Shape, held
from warpbeam.driver.api import compile_with_report
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.relay.expr import Function, IRModule, var
from warpbeam.sketch import blocked, tile
from warpbeam.sketch.base import Group
from warpbeam.sketch.select import schedule, variant
from warpbeam.target import get
from warpbeam.tir.interp import run
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import lower

TARGET = get("generic-x86-64-v4").replace(cores=2)
WHOLE = Blocking((4,), 2, 16, 64, 16, True, "none", 0.0)  # 64 steps are all there are
PARTS = replace(WHOLE, depth=24)


def product(rows: int, columns: int, inner: int, form: str = "", batch: int = 0) -> tuple[list[Any], list[Any]]:
    """A product; "turned": by an operand that lies across, "scaled": by one that is scaled and moved; "bias" and
    "exp" follow it.
    """
    lead = (batch,) if batch else ()
    shape = (columns, inner) if "turned" in form else (inner, columns)
    a, b = te.placeholder((*lead, rows, inner), name="a"), te.placeholder((*lead, *shape), name="b")
    ins, right, k = [a, b], b, te.reduce_axis((0, inner), name="k")
    if "turned" in form:
        right = te.compute((*lead, inner, columns), lambda *i: b[(*i[:-2], i[-1], i[-2])], name="right")
    if "scaled" in form:
        right = te.compute((*lead, inner, columns), lambda *i: b[i] * 0.5 + 0.25, name="right")
    out = te.compute((*lead, rows, columns), lambda *i: te.sum(a[(*i[:-1], k)] * right[(*i[:-2], k, i[-1])], axis=k))
    if "bias" in form:
        bias, before = te.placeholder((columns,), name="bias"), out
        ins.append(bias)
        out = te.compute(before.shape, lambda *i: before[i] + bias[i[-1]], name="biased")
    if "exp" in form:
        last = out
        out = te.compute(last.shape, lambda *i: te.exp(last[i]), name="risen")
    return ins, [out]


def given(ins: list[Any]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(0.25 * rng.standard_normal([int(n) for n in t.shape])).astype(np.float32) for t in ins]


def expected(form: str, a: np.ndarray, b: np.ndarray, bias: Any = 0.0) -> np.ndarray:
    b = b.astype(np.float64)
    b = b.swapaxes(-1, -2) if "turned" in form else b * 0.5 + 0.25 if "scaled" in form else b
    want = a.astype(np.float64) @ b + bias
    return np.exp(want) if "exp" in form else want


def results(func: Any, arrays: list[np.ndarray], outs: list[Any]) -> np.ndarray:
    out = np.full([int(n) for n in outs[0].shape], np.nan, np.float32)
    run(func, *arrays, out)
    return out


def forced(ins: list[Any], outs: list[Any], decided: Blocking) -> Any:
    group = Group(ins, outs, TARGET)
    parts = blocked.find(group)
    assert parts is not None
    blocked.apply(group, parts, decided)
    return group.sch.func


SIZES = [(32, 64, 64), (37, 50, 64), (16, 33, 64), (50, 20, 64)]
FORMS = ["", "turned", "scaled", "bias", "turned exp", "bias exp"]


@pytest.mark.parametrize("decided", [WHOLE, PARTS, replace(PARTS, near=False)], ids=["whole", "parts", "in place"])
@pytest.mark.parametrize(("size", "form"), [*((s, "bias") for s in SIZES), *((SIZES[1], f) for f in FORMS)], ids=str)
def test_values_with_remainders_of_blocks_tiles_vectors_and_parts(decided, size, form):
    if not decided.near and ("turned" in form or "scaled" in form):  # what is computed is never in place
        decided = replace(decided, near=True, height=24)
    ins, outs = product(*size, form)
    arrays = given(ins)
    func = forced(ins, outs, decided)
    for each in (func, lower(func, TARGET)):
        close(results(each, arrays, outs), expected(form, *arrays), terms=64 + 10)


@pytest.mark.parametrize(("height", "depth"), [(18, 40), (50, 40), (18, 24), (25, 24)])
def test_every_tile_has_sums_in_registers_whatever_is_left_of_rows(height, depth):
    ins, outs = product(50, 48, 40)
    lowered = lower(forced(ins, outs, Blocking((6,), 2, 16, depth, height, True, "none", 0.0)), TARGET)
    assert "min(" not in "".join(x for x in to_text(lowered).splitlines() if "for " in x and "init" not in x)
    close(results(lowered, given(ins), outs), expected("", *given(ins)), terms=40)


@pytest.mark.parametrize(("parallel", "columns"), [("free", 50), ("rows", 50), ("panels", 64)])
@pytest.mark.parametrize("depth", [32, 64])
def test_values_of_batches_whatever_the_parallel_loop_goes_over(parallel, columns, depth):
    ins, outs = product(32, columns, 64, "turned", 3)
    arrays = given(ins)
    lowered = lower(forced(ins, outs, replace(WHOLE, depth=depth, parallel=parallel)), TARGET)
    assert "parallel(" in to_text(lowered)
    close(results(lowered, arrays, outs), expected("turned", *arrays), terms=64)


@pytest.mark.parametrize("parallel", ["rows", "panels"])
def test_values_of_one_product_shared_by_cores(parallel):
    ins, outs = product(37, 50, 64)
    height = 37 if parallel == "panels" else 16
    lowered = lower(forced(ins, outs, replace(PARTS, height=height, parallel=parallel)), TARGET)
    assert "parallel(" in to_text(lowered)
    close(results(lowered, given(ins), outs), expected("", *given(ins)), terms=64)


@pytest.mark.parametrize("rows", [3, 5, 7])
def test_several_blocks_and_panels_are_shared_whatever_tiles_leave_of_a_block(rows):
    """Blocks of 16 rows, in tiles that do not divide them, together with panels as one parallel loop."""
    ins, outs = product(32, 64, 64)
    decided = replace(PARTS, rows=(rows,), height=16, parallel="panels")
    lowered = lower(forced(ins, outs, decided), TARGET)
    assert "parallel(4)" in to_text(lowered)
    close(results(lowered, given(ins), outs), expected("", *given(ins)), terms=64)


@pytest.mark.parametrize("decided", [WHOLE, PARTS, replace(PARTS, near=False)], ids=["whole", "parts", "in place"])
def test_blocks_add_in_the_order_of_tiles_without_them(decided):
    ins, outs = product(37, 50, 64)
    group = Group(ins, outs, TARGET)
    plain = tile.build(group).func
    arrays = given(ins)
    assert np.array_equal(results(plain, arrays, outs), results(forced(ins, outs, decided), arrays, outs))


def test_reductions_over_several_axes_are_parts_of_the_innermost():
    a, b = te.placeholder((20, 3, 24), name="a"), te.placeholder((3, 24, 40), name="b")
    j, k = te.reduce_axis((0, 3), name="j"), te.reduce_axis((0, 24), name="k")
    c = te.compute((20, 40), lambda x, y: te.sum(a[x, j, k] * b[j, k, y], axis=[j, k]), name="c")
    arrays = given([a, b])
    lowered = lower(forced([a, b], [c], replace(PARTS, depth=8)), TARGET)
    close(results(lowered, arrays, [c]), np.tensordot(arrays[0].astype(np.float64), arrays[1], 2), terms=72)


def shape(rows: int, columns: int, reduce: int) -> Shape:
    return Shape((rows,), columns, reduce, 1, 16, True, False, stride=4 * columns)


@pytest.mark.parametrize(("rows", "columns", "inner", "found"), [
    (256, 1024, 4096, "blocked"),  # lines of a panel share few places of the caches
    (256, 4096, 1024, "blocked"),
    (1024, 64, 4096, "blocked"),  # all of it is more than a cache holds
    (16, 1024, 4096, "tile"),  # too few tiles use a panel
    (256, 64, 64, "tile"),  # it is near anyway
])  # fmt: skip
def test_blocks_are_taken_where_panels_would_not_stay_near(rows, columns, inner, found):
    assert schedule(*product(rows, columns, inner), TARGET).sketch == found


@pytest.mark.parametrize(("l2", "sketch"), [(1 << 20, "blocked"), (8 << 20, "tile")])
def test_rows_pages_apart_that_no_near_cache_holds_are_asked_for_ahead(l2, sketch):
    """Each row of a panel is a page of its own, which only a copy can ask for ahead."""
    assert schedule(*product(64, 20000, 64), TARGET.replace(l2=l2)).sketch == sketch


def test_known_operands_are_packed_and_not_copied():
    assert schedule(*product(256, 1024, 1024), TARGET, frozenset({"b"})).sketch == "tile"


def test_rows_that_begin_near_the_same_place_fill_caches():
    own = 256 * 64 * 4
    assert held(shape(64, 1000, 256), 256, 64, TARGET) == own  # spread over all places
    assert held(shape(64, 4096, 256), 256, 64, TARGET) >= TARGET.l2 > own


@pytest.mark.parametrize("size", [(512, 512, 512), (4096, 4096, 4096), (1000, 1000, 1000), (100000, 768, 3072)])
def test_buffers_fit_a_thread(size):
    for found in block_prior.ranked(shape(*size), size[-1], True, TARGET, 5):
        sums = 0 if found.depth == size[-1] else found.height
        assert (sums + found.depth) * found.vectors * found.lanes * 4 <= STACK


def test_machines_without_threads_or_caches_have_none():
    assert block_prior.choose(shape(256, 1024, 4096), 4096, False, TARGET.replace(threads=False)) is None


def test_the_next_best_decisions_differ_and_are_right():
    ins, outs = product(64, 1024, 512)
    first, second = schedule(ins, outs, TARGET), variant(ins, outs, TARGET, frozenset(), "k", 1)
    assert first.sketch == second.sketch == "blocked" and first.decisions != second.decisions
    arrays = given(ins)
    close(results(second.lowered, arrays, outs), expected("", *arrays), terms=512)
    assert len(first.others(2)) == 2


def test_a_rank_that_is_not_there_is_an_error():
    with pytest.raises(ScheduleError, match="different decisions"):
        blocked.build(Group(*product(64, 1024, 512), TARGET), 10_000)


def test_where_nothing_fits_a_build_says_so():
    with pytest.raises(ScheduleError, match="stack"):
        blocked.build(Group(*product(64, 1024, 512), TARGET.replace(threads=False)))


def test_a_transpose_becomes_part_of_the_product_that_reads_it():
    x, w = var("x", shape=(64, 256)), var("w", shape=(512, 256))
    y = op.get("nn.relu")(op.get("nn.matmul")(x, op.get("transpose")(w, axes=(1, 0))))
    module, report = compile_with_report(IRModule.from_expr(Function([x, w], y)), cache=False)
    assert "blocked" in report.text() and report.text().count("wb_") == 1
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((64, 256), (512, 256)))
    (got,) = module.run({"x": a, "w": b}).values()
    close(got, np.maximum(a.astype(np.float64) @ b.T, 0), terms=257)


def test_a_transpose_of_what_few_rows_are_multiplied_by_stays_apart():
    ins, outs = product(4, 512, 256, "turned")
    assert blocked.pays(Group(ins, outs, TARGET)) is None
    assert blocked.pays(Group(*product(64, 512, 256), TARGET)) is None  # nothing is computed
