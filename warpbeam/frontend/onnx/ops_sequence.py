"""Operators on sequences and optionals of known length and state: they are decided while importing.

Each function takes the importer, the frame and the node, and gives the values of its outputs, or the frame of a graph
that comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import reshape, shape_of
from warpbeam.frontend.onnx.control import Frame, body_frame, results_of
from warpbeam.frontend.onnx.control_scan import stacked
from warpbeam.frontend.onnx.node import Entry, NodeView, tensor_kind
from warpbeam.frontend.onnx.objects import OptionalEntry, SequenceEntry, declared_kind, is_object
from warpbeam.frontend.onnx.tensors import elem_dtype
from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.op import get
from warpbeam.relay.expr import Constant, Expr, const
from warpbeam.tir.expr import PrimExpr
from warpbeam.topi import dims

Made = list[Entry] | Frame


def sequence(view: NodeView, index: int) -> SequenceEntry:
    """Operand `index` as a sequence of known length."""
    found = view.entry(index)
    if not isinstance(found, SequenceEntry):
        raise view.error(f"input {index} is no sequence")
    return found


def place(view: NodeView, index: int, size: int, end: int = 0) -> int:
    """Operand `index` as a place in a sequence, counted from the front; it must be known."""
    at = view.int_list(index, "the position")
    if len(at) != 1 or not -size <= at[0] < size + end:
        raise view.error(f"position {at[:4]} of a sequence of {size}")
    return at[0] + size if at[0] < 0 else at[0]


def _int(value: Any) -> Entry:
    content = np.empty((), object)
    content[()] = value
    return Entry(content=content, dtype="int64")


def _flag(value: bool) -> Entry:
    return Entry(Constant(np.array(value)), fixed=True)


def _construct(importer: Any, frame: Frame, view: NodeView) -> Made:
    items = [e for e in view.entries if e is not None]
    return [SequenceEntry(items, items[0].kind)]


def _empty(importer: Any, frame: Frame, view: NodeView) -> Made:
    code = view.attr("dtype", 1)
    return [SequenceEntry([], tensor_kind("string" if code == 8 else elem_dtype(code, view.name)))]


def _insert(importer: Any, frame: Frame, view: NodeView) -> Made:
    found, item = sequence(view, 0), view.entry(1)
    assert item is not None
    if item.kind != found.element:
        raise view.error(f"inserts a {item.kind} into a sequence of {found.element}")
    at = place(view, 2, len(found.items), 1) if view.given(2) else len(found.items)
    return [SequenceEntry([*found.items[:at], item, *found.items[at:]], found.element)]


def _erase(importer: Any, frame: Frame, view: NodeView) -> Made:
    found = sequence(view, 0)
    if not found.items:
        raise view.error("erases from an empty sequence")
    at = place(view, 1, len(found.items)) if view.given(1) else len(found.items) - 1
    return [SequenceEntry([*found.items[:at], *found.items[at + 1 :]], found.element)]


def _at(importer: Any, frame: Frame, view: NodeView) -> Made:
    found = sequence(view, 0)
    return [found.items[place(view, 1, len(found.items))]]


def _length(importer: Any, frame: Frame, view: NodeView) -> Made:
    return [_int(len(sequence(view, 0).items))]


def _concat(importer: Any, frame: Frame, view: NodeView) -> Made:
    found, axis = sequence(view, 0), view.attr("axis")
    if not found.items:
        raise view.error("joins an empty sequence")
    parts = [e.expr for e in found.items]
    if view.attr("new_axis", 0):
        parts = [get("expand_dims")(p, axis=axis, num_newaxis=1) for p in parts]
    fixed = all(e.constant for e in found.items)
    joined = parts[0] if len(parts) == 1 else get("concatenate")(*parts, axis=axis)
    return [Entry(joined, fixed=fixed, string=found.element == "tensor(string)")]


def _split(importer: Any, frame: Frame, view: NodeView) -> Made:
    data = view.entry(0)
    assert data is not None
    shape = shape_of(data.expr)
    axis = view.attr("axis", 0)
    if not -len(shape) <= axis < len(shape):
        raise view.error(f"axis {axis} of {len(shape)} dimensions")
    axis %= len(shape)
    sizes = _split_sizes(view, shape[axis])
    keep = bool(view.attr("keepdims", 1)) or view.given(1)
    parts: list[Expr] = []
    at = 0
    for size in sizes:
        part = get("strided_slice")(data.expr, begin=(at,), end=(at + size,), strides=(1,), axes=(axis,))
        at += size
        parts.append(part if keep else reshape(part, [d for a, d in enumerate(shape_of(part)) if a != axis]))
    items = [Entry(p, fixed=data.constant, string=data.string) for p in parts]
    return [SequenceEntry(items, data.kind)]


def _split_sizes(view: NodeView, total: Any) -> list[int]:
    """How many places each part of a split has."""
    if isinstance(total, PrimExpr) and (not view.given(1) or view.entries[1].type.ndim == 0):  # type: ignore[union-attr]
        raise view.unsupported(f"parts of an axis of {dims.shape_text([total])} places, whose number is not known")
    if not view.given(1):
        return [1] * total
    given = view.int_list(1, "the sizes of the parts")
    if view.entries[1].type.ndim == 0:  # type: ignore[union-attr]
        if given[0] < 1:
            raise view.error(f"parts of {given[0]} places")
        return [min(given[0], total - at) for at in range(0, total, given[0])]
    if min(given, default=0) < 0 or (isinstance(total, int) and sum(given) != total):
        raise view.error(f"parts {given[:8]} of {total} places")
    return given


# -------------------------------------------------------------------------------------------------------- optionals


def _optional(importer: Any, frame: Frame, view: NodeView) -> Made:
    value = view.entry(0)
    if value is not None:
        return [OptionalEntry(value, value.kind)]
    return [OptionalEntry(None, declared_kind(view.attr("type"), view.name))]


def _has_element(importer: Any, frame: Frame, view: NodeView) -> Made:
    value = view.entry(0)
    return [_flag(value is not None and not (isinstance(value, OptionalEntry) and value.value is None))]


def _get_element(importer: Any, frame: Frame, view: NodeView) -> Made:
    value = view.entry(0)
    if isinstance(value, OptionalEntry):
        value = value.value
    if value is None:
        raise view.error("takes the element of an empty optional")
    return [value]


def _identity(importer: Any, frame: Frame, view: NodeView) -> Made:
    return [e for e in view.entries if e is not None]


# ------------------------------------------------------------------------------------------------------ SequenceMap


def _map(importer: Any, frame: Frame, view: NodeView) -> Made:
    """The body once for each element of the first sequence; the other sequences go along, tensors stay."""
    graph, first = view.attr("body"), sequence(view, 0)
    count = len(first.items)
    for k, entry in enumerate(view.entries):
        if isinstance(entry, SequenceEntry) and len(entry.items) != count:
            raise view.error(f"input {k} has {len(entry.items)} elements, the first sequence {count}")
    if len(graph.input) != len(view.entries) or len(graph.output) != len(view.outputs):
        raise view.error("its body has other inputs or outputs than the node")
    rows: list[list[Entry]] = []

    def begin(k: int) -> Frame:
        given = {}
        for port, entry in zip(graph.input, view.entries, strict=True):
            if entry is not None:
                given[port.name] = entry.items[k] if isinstance(entry, SequenceEntry) else entry
        body = body_frame(importer, frame, view, graph, given)
        body.finish = done
        return body

    def done(inner: Frame) -> Frame:
        rows.append(results_of(view, inner, graph))
        if len(rows) < count:
            return begin(len(rows))
        columns = list(zip(*rows, strict=True))
        importer.define(frame, view, lambda: [SequenceEntry(c, c[0].kind) for c in columns])
        return frame

    if count:
        return begin(0)
    kinds = [declared_kind(out.type, f"output {out.name[:80]!r}") for out in graph.output]
    return [SequenceEntry([], kind) for kind in kinds]


TABLE: dict[str, Callable[[Any, Frame, NodeView], Made]] = {
    "ConcatFromSequence": _concat,
    "Optional": _optional,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "SequenceMap": _map,
    "SplitToSequence": _split,
}


def _unrolled(importer: Any, frame: Frame, view: NodeView) -> Made:
    """A Loop whose state is no tensor, one iteration after the other; their number must be known."""
    graph = view.attr("body")
    states = [e for e in view.entries[2:] if e is not None]
    if len(graph.input) != 2 + len(states) or len(graph.output) != 1 + len(view.outputs):
        raise view.error("its body has other inputs or outputs than the node")
    count = view.int_list(0, "the number of iterations")[0] if view.given(0) else None
    running = view.entry(1)
    rows: list[list[Entry]] = []
    const_true = Entry(const(True), fixed=True)

    def begin(state: list[Entry], go: Entry) -> Frame | None:
        """The next iteration, or None where there is none."""
        if go.array is None:
            raise view.unsupported("sequences in a loop whose condition is computed from data at run time")
        if not go.array.reshape(-1)[0] or (count is not None and len(rows) >= count):
            return None
        given = {graph.input[0].name: _int(len(rows)), graph.input[1].name: go}
        given |= {p.name: _as_declared(p, e) for p, e in zip(graph.input[2:], state, strict=True)}
        body = body_frame(importer, frame, view, graph, given)
        body.finish = done
        return body

    def done(inner: Frame) -> Frame:
        found = results_of(view, inner, graph)
        if any(e.missing for e in found):
            importer.define(frame, view, lambda: [Entry(missing=True)] * len(view.outputs))
            return frame
        state = found[1 : 1 + len(states)]
        rows.append(found[1 + len(states) :])
        try:
            following = begin(state, found[0])
        except UnsupportedError as e:
            problem = e

            def refused() -> list[Entry]:
                raise problem

            importer.define(frame, view, refused)
            return frame
        if following is not None:
            return following
        importer.define(frame, view, lambda: [*state, *_stacked(view, rows)])
        return frame

    if running is not None:
        view.const(1)
    first = begin(states, running or const_true)
    if first is not None:
        return first
    if len(view.outputs) > len(states):
        raise view.unsupported("rows of a loop on sequences without an iteration")
    return states


def _as_declared(port: Any, entry: Entry) -> Entry:
    """A state as the body takes it: what is given for an optional is one that holds it."""
    if port.type.WhichOneof("value") == "optional_type" and not isinstance(entry, OptionalEntry):
        return OptionalEntry(entry, entry.kind)
    return entry


def _stacked(view: NodeView, rows: list[list[Entry]]) -> list[Entry]:
    """The outputs that have one entry for each iteration."""
    out = []
    for column in zip(*rows, strict=True):
        if any(is_object(e) for e in column):
            raise view.error("gathers sequences")
        out.append(stacked(column))
    return out


#: operators on tensors that take sequences and optionals, too
ON_OBJECTS: dict[str, Callable[[Any, Frame, NodeView], Made]] = {"Identity": _identity, "Loop": _unrolled}
