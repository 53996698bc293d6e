"""Scans are one loop over time with everything in it, whatever they compute, and give the right values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tolerance import close

from warpbeam.ir.rewrite import post_order
from warpbeam.op import get as get_op
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.te.scan import scan
from warpbeam.tir.expr import Call, SizeVar, call, if_then_else
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import For


def echo(steps: Any, rows: Any, units: int, gates: int = 2, groups: int = 1) -> tuple[list[Any], list[Any]]:
    """state[t] = tanh(product 0) + 0.5 * product 1 + x[t]: products of the last state with weights."""
    x = te.placeholder((steps, groups, rows, units), name="x")
    w = te.placeholder((groups, units, gates, units), name="w")
    shape = (steps, groups, rows, units)
    state = te.placeholder(shape, name="state")
    k = te.reduce_axis((0, units), "k")
    before = te.compute(shape, lambda t, d, b, j: if_then_else(t > 0, state[t - 1, d, b, j], 0.0), "before")
    acc = te.compute(
        (steps, groups, rows, gates, units),
        lambda t, d, b, g, j: te.sum(before[t, d, b, k] * w[d, k, g, j], axis=[k]),
        "acc",
    )

    def step(t: Any, d: Any, b: Any, j: Any) -> Any:
        rest = sum((acc[t, d, b, g, j] * 0.5 for g in range(1, gates)), x[t, d, b, j])
        return call("tanh", acc[t, d, b, 0, j]) + rest

    none = te.compute((0, groups, rows, units), lambda t, d, b, j: x[t, d, b, j], "none")
    out = scan(none, te.compute(shape, step, "step"), state)
    last = te.compute((groups, rows, units), lambda d, b, j: out[steps - 1, d, b, j], "last")
    return [x, w], [out, last]


def values(steps: int, rows: int, units: int, gates: int, groups: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([steps, rows, units])
    x = rng.standard_normal((steps, groups, rows, units)).astype(np.float32)
    w = (rng.standard_normal((groups, units, gates, units)) * 0.2).astype(np.float32)
    h, y = np.zeros((groups, rows, units)), np.zeros(x.shape)
    for t in range(steps):
        acc = np.einsum("dbk,dkgj->dbgj", h, w)
        h = y[t] = np.tanh(acc[:, :, 0]) + 0.5 * acc[:, :, 1:].sum(axis=2) + x[t]
    return x, w, y, h


def packed(func: Any, w: np.ndarray) -> np.ndarray:
    """Weights as the kernel wants them."""
    from warpbeam.tir.schedule import apply_layout

    layout = func.attrs.get("layouts", {}).get("w")
    return w if layout is None else apply_layout(w, layout)


def check(plan: Any, sizes: tuple[int, ...], symbolic: tuple[int, ...] = ()) -> None:
    x, w, y, h = values(*sizes)
    out, last = np.zeros(y.shape, np.float32), np.zeros(h.shape, np.float32)
    run(plan.lowered, x, packed(plan.func, w), out, last, *symbolic)
    np.testing.assert_allclose(out, y, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(last, h, rtol=1e-4, atol=1e-4)


def loops(plan: Any, kind: str) -> list[For]:
    return [n for n in post_order(plan.lowered.body) if isinstance(n, For) and n.kind == kind]


@pytest.mark.parametrize(
    "sizes",
    [(4, 1, 32, 2, 1), (3, 5, 36, 3, 1), (3, 2, 17, 1, 2), (2, 19, 16, 4, 1), (3, 1, 7, 2, 1), (1, 3, 80, 2, 2)],
)
@pytest.mark.parametrize("constant", [True, False])
def test_sizes(sizes: tuple[int, ...], constant: bool) -> None:
    plan = schedule(*echo(*sizes), get("native"), frozenset({"w"} if constant else ()))
    assert plan.sketch == "scan"
    assert ("w" in plan.func.attrs.get("layouts", {})) == constant
    check(plan, sizes)


@pytest.mark.parametrize(("steps", "rows"), [(4, 1), (2, 8), (3, 13)])
def test_symbolic_sizes(steps: int, rows: int) -> None:
    t, b = SizeVar("t"), SizeVar("b")
    plan = schedule(*echo(t, b, 20), get("native"), frozenset({"w"}))
    assert plan.sketch == "scan"
    check(plan, (steps, rows, 20, 2, 1), (steps, rows))


@pytest.mark.parametrize("sizes", [(20, 64, 128, 2, 1), (60, 1, 128, 2, 2)])
def test_whole_sequences_run_in_parallel(sizes: tuple[int, ...]) -> None:
    """Threads are started once, around the loop over time: over parts of the batch or over independent groups."""
    plan = schedule(*echo(*sizes), replace(get("generic-x86-64-v3"), cores=2), frozenset({"w"}))
    (outer,) = loops(plan, "parallel")
    inner = [n for n in post_order(outer.body) if isinstance(n, For)]
    assert any(str(n.extent) == str(sizes[0]) or getattr(n.extent, "value", None) == sizes[0] for n in inner)


def test_small_scans_start_no_threads() -> None:
    plan = schedule(*echo(4, 4, 16), get("native"), frozenset({"w"}))
    assert not loops(plan, "parallel")


def test_a_scan_without_products() -> None:
    x, state = te.placeholder((9, 40), name="x"), te.placeholder((9, 40), name="state")
    start = te.compute((1, 40), lambda t, i: x[0, i], "start")
    step = te.compute((9, 40), lambda t, i: state[t - 1, i] + x[t, i], "step")
    plan = schedule([x], [scan(start, step, state)], get("native"))
    a = np.random.default_rng(0).standard_normal((9, 40)).astype(np.float32)
    out = np.zeros_like(a)
    run(plan.lowered, a, out)
    close(out, a.cumsum(axis=0), terms=9)


@pytest.mark.parametrize(("steps", "rows"), [(3, 1), (2, 9)])
def test_products_of_bytes_take_the_instruction(steps: int, rows: int) -> None:
    """An LSTM that rounds its state to bytes multiplies whole numbers, four at a time, packed as that needs it."""
    units, batch, attrs = 20, SizeVar("b"), {"operands": ("z", "r", "rs", "rsum"), "state_steps": 255}
    shapes: list[tuple[Any, str]] = [
        ((steps, batch, 1, 4, units), "float32"), ((1, units, 4, units), "int8"), ((1, 4, units), "float32"),
        ((1, 4, units), "int32"),
    ]  # fmt: skip
    ins = [te.placeholder(s, d, n) for (s, d), n in zip(shapes, ("z", "w", "rs", "rsum"), strict=True)]
    op = get_op("nn.lstm")
    full = {**op.defaults, **attrs}
    plan = schedule(ins, list(op.compute(full, ins, None)), get("cascadelake"), frozenset({"w"}))
    assert plan.sketch == "scan"
    assert any(isinstance(n, Call) and n.op.startswith("dot4") for n in post_order(plan.lowered.body))
    rng = np.random.default_rng([steps, rows])
    z = rng.standard_normal((steps, rows, 1, 4, units)).astype(np.float32)
    w = rng.integers(-128, 128, (1, units, 4, units)).astype(np.int8)
    rs = rng.uniform(0.001, 0.01, (1, 4, units)).astype(np.float32)
    sums = w.sum(axis=1, dtype=np.int32)
    want = op.numpy(full, z, w, rs, sums)
    got = [np.zeros_like(a) for a in want]
    run(plan.lowered, z, packed(plan.func, w), rs, sums, *got, rows)
    for a, b in zip(got, want, strict=True):
        close(
            a, b, terms=units * steps
        )  # sums of `units` products in every step; a byte more or less would be 100 times that


def narrow(**facts: Any) -> Any:
    """A machine with 8 lanes on which small scans are large."""
    usual = {"cores": 1, "l1": 512, "l2": 1024, "fork_cycles": 20}
    return replace(get("generic-x86-64-v3"), **{**usual, **facts})


@pytest.mark.parametrize("sizes", [(5, 1, 132, 2, 1), (4, 3, 128, 1, 1), (3, 1, 136, 2, 2)])
def test_weights_that_outgrow_a_cache_are_walked_to_and_fro(sizes: tuple[int, ...]) -> None:
    """The panels of a step begin where those of the step before ended; a target with room for them walks on."""
    ins, outs = echo(*sizes)
    plan = schedule(ins, outs, narrow(l2=sizes[2] ** 2 * sizes[3] * 4 // 2), frozenset({"w"}))
    assert plan.sketch == "scan" and "panels to and fro" in plan.notes
    assert [n for n in loops(plan, "serial") if n.var.name.endswith("_turn")]
    check(plan, sizes)
    for room in (1 << 20, 64):  # all fit; so few fit that it would not help
        other = schedule(ins, outs, narrow(l2=room), frozenset({"w"}))
        assert "panels to and fro" not in other.notes


@pytest.mark.parametrize("sizes", [(5, 1, 128, 2, 1), (4, 2, 192, 1, 1)])
def test_threads_share_the_panels_of_a_step_that_is_long_enough(sizes: tuple[int, ...]) -> None:
    ins, outs = echo(*sizes)
    plan = schedule(ins, outs, narrow(cores=2, l2=1 << 15), frozenset({"w"}))
    assert "the panels of a step in parallel" in plan.notes
    (panels,) = loops(plan, "parallel")
    assert panels.annotations.get("alternate")  # each thread walks its own to and fro
    assert panels.extent.value % 2 == 0
    check(plan, sizes)
    short = schedule(ins, outs, narrow(cores=2, fork_cycles=1 << 20), frozenset({"w"}))
    assert not loops(short, "parallel")


@pytest.mark.parametrize("cores", [2, 3, 5])
def test_a_thread_turns_at_the_end_of_all_panels_that_are_its_own(cores: int) -> None:
    """Not at each one: of those that it takes one by one, it would always begin with the same."""
    sizes = (3, 1, 384, 1, 1)
    ins, outs = echo(*sizes)
    plan = schedule(ins, outs, narrow(cores=cores, l2=1 << 16), frozenset({"w"}))
    (shares,) = loops(plan, "parallel")
    assert shares.annotations.get("alternate") and 1 < shares.extent.value <= cores
    assert [n for n in loops(plan, "serial") if n.var.name.endswith("_turn")]  # the panels of a thread
    check(plan, sizes)
    roomy = schedule(ins, outs, narrow(cores=cores, l2=1 << 19), frozenset({"w"}))  # what is a thread's own stays there
    assert not [n for n in loops(roomy, "serial") if n.var.name.endswith("_turn")]


def test_sequences_side_by_side_do_not_share_panels_too() -> None:
    ins, outs = echo(40, 1, 128, 2, 2)
    plan = schedule(ins, outs, narrow(cores=2), frozenset({"w"}))
    assert "independent sequences in parallel" in plan.notes
    assert "the panels of a step in parallel" not in plan.notes and len(loops(plan, "parallel")) == 1


@pytest.mark.parametrize("units", [7, 72, 130])
def test_extremes_of_the_state_are_taken_lane_by_lane(units: int) -> None:
    """state[t] = x[t] / (1 + the largest of the last state): a reduction of its own in each step."""
    shape = (6, 1, units)
    x, state = te.placeholder(shape, name="x"), te.placeholder(shape, name="state")
    k = te.reduce_axis((0, units), "k")
    before = te.compute(shape, lambda t, d, j: if_then_else(t > 0, state[t - 1, d, j], 1.0), "before")
    top = te.compute((6, 1), lambda t, d: te.max(before[t, d, k], axis=[k]), "top")
    none = te.compute((0, 1, units), lambda t, d, j: x[t, d, j], "none")
    step = te.compute(shape, lambda t, d, j: x[t, d, j] / (1.0 + top[t, d]), "step")
    plan = schedule([x], [scan(none, step, state)], get("generic-x86-64-v3"))
    assert plan.sketch == "scan"
    assert all(n.extent.value <= max(units // 8 + 1, 7) for n in loops(plan, "serial"))
    a = np.random.default_rng(units).uniform(0.5, 2, shape).astype(np.float32)
    out, last, want = np.zeros_like(a), np.float32(1), []
    run(plan.lowered, a, out)
    for row in a:
        want.append(row / (1 + last))
        last = want[-1].max()
    np.testing.assert_allclose(out, np.stack(want), rtol=1e-6)
