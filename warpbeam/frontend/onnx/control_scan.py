"""Scan: a loop over the elements of sequences, each of which adds one element to each output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.frontend.onnx.control import (
    SCALAR_INT,
    Body,
    Frame,
    body_frame,
    build,
    check_states,
    results_of,
    size_tensor,
)  # fmt: skip
from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.op import get
from warpbeam.relay.expr import Expr, Var, const


def scan(importer: Any, frame: Frame, view: NodeView) -> Frame:
    """ONNX Scan: operands (states…, sequences…), body (states…, one element of each sequence)."""
    if view.opset < 9:
        return _batches(importer, frame, view)
    entries = [e for e in view.entries if e is not None]

    def done(found: Callable[[], list[Entry]]) -> Frame:
        importer.define(frame, view, found)
        return frame

    return _rows(importer, frame, view, entries, view.attr("scan_input_directions", None), done)


def _batches(importer: Any, frame: Frame, view: NodeView) -> Frame:
    """Scan 8: a first operand with the sequences' lengths, and a first axis of batches, which are run one by one."""
    if view.given(0):
        raise view.unsupported("sequences of different lengths")
    entries = [e for e in view.entries[1:] if e is not None]
    size = entries[0].type.shape[0] if entries and entries[0].type.ndim else None
    if not isinstance(size, int) or any(e.type.ndim == 0 or e.type.shape[0] != size for e in entries):
        raise view.unsupported("a number of batches that is not known")
    rows: list[list[Entry]] = []

    def begin(k: int) -> Frame:
        parts = [Entry(get("take")(e.expr, const(k, "int64"), axis=0), string=e.string) for e in entries]
        return _rows(importer, frame, view, parts, view.attr("directions", None), done)

    def done(found: Callable[[], list[Entry]]) -> Frame:
        try:
            rows.append(found())
        except UnsupportedError as e:
            error = e

            def refused() -> list[Entry]:
                raise error

            importer.define(frame, view, refused)
            return frame
        if len(rows) < size:
            return begin(len(rows))
        columns = list(zip(*rows, strict=True))
        importer.define(frame, view, lambda: [stacked(c) for c in columns])
        return frame

    return begin(0)


def stacked(entries: Sequence[Entry]) -> Entry:
    """Tensors of one shape along a new first axis."""
    if any(e.missing for e in entries):
        return Entry(missing=True)
    parts = [get("expand_dims")(e.expr, axis=0, num_newaxis=1) for e in entries]
    joined = parts[0] if len(parts) == 1 else get("concatenate")(*parts, axis=0)
    return Entry(joined, fixed=all(e.constant for e in entries), string=entries[0].string)


def _rows(
    importer: Any, frame: Frame, view: NodeView, entries: list[Entry], backward: list[int] | None,
    done: Callable[[Callable[[], list[Entry]]], Frame],
) -> Frame:  # fmt: skip
    """The frame of a scan over some operands; `done` takes what gives the results."""
    graph, count = view.attr("body"), view.attr("num_scan_inputs")
    if len(graph.input) != len(entries) or not 0 < count <= len(entries):
        raise view.error(f"its body takes {len(graph.input)} inputs, the node gives {len(entries)}")
    split = len(entries) - count
    axes = [a % entries[split + k].type.ndim for k, a in enumerate(view.attr("scan_input_axes", [0] * count))]
    backward = backward or [0] * count
    length = entries[split].type.shape[axes[0]]
    step = Var("i", SCALAR_INT)
    states = [Var(f"s{k}", e.type) for k, e in enumerate(entries[:split])]
    parts = [
        get("take")(e.expr, _place(step, length, back), axis=a)
        for e, a, back in zip(entries[split:], axes, backward, strict=True)
    ]
    own = zip(graph.input, (*states, *parts), entries, strict=True)
    given = {p.name: Entry(v, string=e.string) for p, v, e in own}
    body = body_frame(importer, frame, view, graph, given)
    plan = Body(step, length, states, [e.expr for e in entries[:split]])

    def finish(inner: Frame) -> Frame:
        found = results_of(view, inner, graph)
        return done(lambda: _scan(importer, view, plan, found))

    body.finish = finish
    return body


def _place(step: Expr, length: Any, back: int) -> Expr:
    if not back:
        return step
    last = const(length - 1, "int64") if isinstance(length, int) else size_tensor(length - 1)
    return get("subtract")(last, step)  # type: ignore[no-any-return]


def _scan(importer: Any, view: NodeView, body: Body, found: list[Entry]) -> list[Entry]:
    if any(e.missing for e in found):
        return [Entry(missing=True)] * len(view.outputs)
    states = len(body.states)
    rows = found[states:]
    backward = view.attr("scan_output_directions", [0] * len(rows))
    axes = view.attr("scan_output_axes", [0] * len(rows))
    body.after = [e.expr for e in found[:states]]
    body.gathered = [(e.expr, _place(body.step, body.count, b)) for e, b in zip(rows, backward, strict=True)]
    check_states(view, body)
    results = build(importer, view, body)
    out = list(results[:states])
    for r, axis in zip(results[states:], axes, strict=True):
        ndim = r.ty.ndim
        order = list(range(1, ndim))
        order.insert(axis % ndim, 0)
        out.append(r if order == list(range(ndim)) else get("transpose")(r, axes=tuple(order)))
    return [Entry(r, string=e.string) for r, e in zip(out, found, strict=True)]
