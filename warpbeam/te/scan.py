"""Recurrences: tensors whose row t is computed from the rows before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.ir.node import EMPTY, Attrs
from warpbeam.te.errors import TEError
from warpbeam.te.operation import PlaceholderOp, ScanOp, Tensor
from warpbeam.te.tag import tag_of
from warpbeam.tir.expr import Var, sub
from warpbeam.tir.stmt import IterVar


def _tensors(value: Any, what: str) -> tuple[Tensor, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else (value,)
    for t in found:
        if not isinstance(t, Tensor):
            raise TEError(f"{what} of a scan holds {t!r}, which is no tensor")
    return found


def scan(
    init: Any,
    update: Any,
    state_placeholder: Any,
    inputs: Sequence[Tensor] | None = None,
    name: str = "scan",
    tag: str = "",
    attrs: dict[str, Any] | None = None,
) -> Any:
    """The states' values at all times, given how they start and how a row follows from earlier ones.

    init: first rows of each state, shape (first, …). state_placeholder: te.placeholder of the whole state (T, …).
    update: te.compute of shape (T, …) that reads the state at earlier times: row t is stored for first <= t < T.
    Each is a tensor or a list of them, for several states that advance together. Returns a tensor, or a list of them.

        s = te.placeholder((T, n))
        start = te.compute((1, n), lambda _, i: X[0, i])
        step = te.compute((T, n), lambda t, i: s[t - 1, i] + X[t, i])
        total = te.scan(start, step, s, inputs=[X])
    """
    starts, steps, states = _tensors(init, "init"), _tensors(update, "update"), _tensors(state_placeholder, "state")
    given = _tensors(inputs, "inputs") if inputs is not None else ()
    if not states or not len(starts) == len(steps) == len(states):
        raise TEError(
            f"scan {name} has {len(starts)} init, {len(steps)} update and {len(states)} state tensors",
            hint="one of each per state",
        )
    for first, step, state in zip(starts, steps, states, strict=True):
        _check(name, first, step, state)
    first_rows, total = starts[0].shape[0], states[0].shape[0]
    for first, state in zip(starts, states, strict=True):
        if not (_same(first.shape[0], first_rows) and _same(state.shape[0], total)):
            raise TEError(f"the states of scan {name} do not advance together", hint="give them the same times")
    axis = IterVar(Var(f"{name}.idx"), sub(total, first_rows), "ordered", first_rows)
    spatial = tuple(
        IterVar(Var(f"{name}.out{k}.i{d}"), t.shape[d], "opaque")
        for k, t in enumerate(states)
        for d in range(1, t.ndim)
    )
    tag = tag_of(tag)
    notes = Attrs({**(attrs or {}), **({"tag": tag} if tag else {})}) if (attrs or tag) else EMPTY
    op = ScanOp(name, starts, steps, states, given, axis, spatial, notes)
    outs = [op.output(k) for k in range(len(states))]
    return outs[0] if len(outs) == 1 else outs


def _check(name: str, first: Tensor, step: Tensor, state: Tensor) -> None:
    if not isinstance(state.op, PlaceholderOp):
        raise TEError(f"state {state.name} of scan {name} is computed", hint="states are made with te.placeholder")
    if not state.ndim == step.ndim == first.ndim or not state.ndim:
        raise TEError(f"init, update and state {state.name} of scan {name} differ in their number of dimensions")
    if not first.dtype == step.dtype == state.dtype:
        raise TEError(f"scan {name}: init is {first.dtype}, update {step.dtype}, state {state.dtype}")
    for d in range(state.ndim):
        if not _same(step.shape[d], state.shape[d]) or (d and not _same(first.shape[d], state.shape[d])):
            raise TEError(
                f"dimension {d} of scan {name}: init {first.shape[d]}, update {step.shape[d]}, state {state.shape[d]}",
                hint="update has the state's shape; init too, but for its first dimension",
            )


def _same(a: Any, b: Any) -> bool:
    from warpbeam.tir.arith import simplify

    return a is b or bool(a == b) or simplify(sub(a, b)) is simplify(sub(0, 0))
