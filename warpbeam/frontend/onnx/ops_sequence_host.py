"""Sequences whose length is found at run time: numbers of the call's table (`runtime.objects`), on which functions of
the host work. What is done with their elements stays compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.frontend.onnx.objects import HandleEntry, SequenceEntry
from warpbeam.frontend.onnx.ops_string import host_call
from warpbeam.frontend.onnx.tensors import DTYPES, SCHEMA_NAMES
from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.relay.expr import Expr

NUMBER = ((), "int64")
_NAMES = {SCHEMA_NAMES.get(name, name): name for name in DTYPES.values()} | {"string": "int64"}


def as_handle(view: NodeView, entry: Entry | None) -> HandleEntry:
    """A sequence as a number of the table."""
    if isinstance(entry, HandleEntry):
        return entry
    if not isinstance(entry, SequenceEntry):
        raise view.error("takes a sequence")
    if any(isinstance(i, HandleEntry | SequenceEntry) for i in entry.items):
        raise view.unsupported("a sequence of sequences")
    ranks = {i.type.ndim for i in entry.items}
    made = host_call("sequence.of", [i.expr for i in entry.items], [NUMBER])
    return HandleEntry(Entry(made), entry.element, ranks.pop() if len(ranks) == 1 else None, not entry.items)


def joined_rank(a: HandleEntry, b: HandleEntry) -> tuple[int | None, bool]:
    """(rank of the elements, whether there are none) of what is one sequence or the other."""
    if a.empty or b.empty:
        return (b.rank, b.empty) if a.empty else (a.rank, False)
    return (a.rank if a.rank == b.rank else None), False


def state_of(port: Any, start: Entry, value: Expr) -> Entry:
    """A loop's state within its body. One that starts empty has elements of the rank that the body puts in."""
    if not isinstance(start, HandleEntry):
        return Entry(value, string=start.string)
    rank = start.rank
    if port.type.WhichOneof("value") == "sequence_type" and start.empty:
        inner = port.type.sequence_type.elem_type.tensor_type
        rank = len(inner.shape.dim) if inner.HasField("shape") else None
    return HandleEntry(Entry(value), start.element, rank, start.empty and rank is None)


def after(start: Entry | None, end: Entry) -> Entry:
    """What a loop leaves, but for its value: elements of a rank that both the start and an iteration's end have."""
    if not isinstance(start, HandleEntry) or not isinstance(end, HandleEntry):
        return end
    if end.element != start.element:
        raise UnsupportedError(f"a loop whose state is {start.kind} before and {end.kind} after an iteration")
    rank, none = joined_rank(start, end)
    return HandleEntry(end.held, start.element, rank, none)


def _dtype(handle: HandleEntry) -> str:
    return _NAMES[handle.element[len("tensor(") : -1]]


def _options(view: NodeView, handle: HandleEntry) -> dict[str, Any]:
    if handle.rank is None:
        raise view.unsupported("elements of a sequence whose rank is not known")
    return {"rank": handle.rank, "dtype": _dtype(handle)}


def _tensor(importer: Any, view: NodeView, handle: HandleEntry, function: str, args: list[Expr], rank: int,
            options: dict[str, Any]) -> list[Entry]:  # fmt: skip
    """What a function gives whose result has a shape that another one tells."""
    shape = host_call(f"{function}_shape" if function == "sequence.joined" else "sequence.shape", args,
                      [((rank,), "int64")], **options)  # fmt: skip
    sizes = [view.found.size(view.name, shape, k) for k in range(rank)]
    out = host_call(function, args, [(tuple(sizes), _dtype(handle))], **options)
    return [Entry(importer.found.guarded(out, []), string=handle.element == "tensor(string)")]


def _at(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    handle = as_handle(view, view.entry(0))
    options = _options(view, handle)
    return _tensor(importer, view, handle, "sequence.at", [handle.held.expr, view.operand(1)], options["rank"], options)


def _concat(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    handle = as_handle(view, view.entry(0))
    options = _options(view, handle)
    rank = options["rank"] + (1 if view.attr("new_axis", 0) else 0)
    axis = view.attr("axis")
    if not -rank <= axis < rank:
        raise view.error(f"axis {axis} of {rank} dimensions")
    options |= {"axis": axis % rank, "stack": bool(view.attr("new_axis", 0))}
    return _tensor(importer, view, handle, "sequence.joined", [handle.held.expr], rank, options)


def _insert(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    handle, item = as_handle(view, view.entry(0)), view.entry(1)
    if item is None or item.kind != handle.element:
        raise view.error(f"inserts a {item.kind if item else 'nothing'} into a sequence of {handle.element}")
    args = [handle.held.expr, item.expr, *([view.operand(2)] if view.given(2) else [])]
    rank = item.type.ndim if handle.empty or handle.rank == item.type.ndim else None
    return [HandleEntry(Entry(host_call("sequence.insert", args, [NUMBER])), handle.element, rank)]


def _erase(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    handle = as_handle(view, view.entry(0))
    args = [handle.held.expr, *([view.operand(1)] if view.given(1) else [])]
    return [HandleEntry(Entry(host_call("sequence.erase", args, [NUMBER])), handle.element, handle.rank)]


def _length(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    return [Entry(host_call("sequence.length", [as_handle(view, view.entry(0)).held.expr], [NUMBER]))]


TABLE: dict[str, Callable[[Any, Any, NodeView], list[Entry]]] = {
    "ConcatFromSequence": _concat,
    "SequenceAt": _at,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
}
#: the operand that says where, and must be known for a sequence to vanish
PLACES = {"SequenceAt": 1, "SequenceErase": 1, "SequenceInsert": 2}


def find(view: NodeView, allowed: bool) -> Callable[[Any, Any, NodeView], list[Entry]] | None:
    """The function that imports a node on a sequence of unknown length, or at an unknown place; else None."""
    if view.op_type not in TABLE:
        return None
    place = PLACES.get(view.op_type, 99)
    open_place = allowed and view.given(place) and view.known(place) is None
    return TABLE[view.op_type] if open_place or isinstance(view.entry(0), HandleEntry) else None
