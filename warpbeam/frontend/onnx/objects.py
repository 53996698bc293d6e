"""Values that are no tensors, while importing: sequences of known length, and optionals of which it is known whether
they hold something. They vanish: what computes on them is decided here, what is left are the tensors inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.node import Entry, tensor_kind
from warpbeam.frontend.onnx.tensors import elem_dtype
from warpbeam.ir.diagnostics import ImportModelError, UnsupportedError
from warpbeam.relay.expr import Expr
from warpbeam.runtime.objects import Layout, Named, Table


class ObjectEntry(Entry):
    """Base of values that are no tensors."""

    __slots__ = ()

    @property
    def expr(self) -> Expr:
        raise UnsupportedError(f"{self.kind} where a tensor is needed")

    @property
    def type(self) -> Any:
        """None: these have no tensor type."""
        return None

    @property
    def constant(self) -> bool:
        """Whether all tensors inside are the same in every call."""
        return all(e.constant for e in leaves([self]))

    @property
    def array(self) -> np.ndarray | None:
        """None: there is no array of it."""
        return None


class SequenceEntry(ObjectEntry):
    """A sequence of known length. items: its elements. element: their kind, such as "tensor(float)"."""

    __slots__ = ("element", "items")

    def __init__(self, items: Sequence[Entry], element: str) -> None:
        super().__init__(missing=any(i.missing for i in items))
        self.items = tuple(items)
        self.element = element

    @property
    def kind(self) -> str:
        """As schemas write it."""
        return f"seq({self.element})"


class HandleEntry(ObjectEntry):
    """A sequence whose length is found at run time. held: its number in the call's table, an int64 scalar.

    element: the kind of its elements; rank: their number of dimensions, None where it is not known or not one. empty:
    whether it is known to have no elements.
    """

    __slots__ = ("element", "empty", "held", "rank")

    def __init__(self, held: Entry, element: str, rank: int | None, empty: bool = False) -> None:
        super().__init__(missing=held.missing)
        self.held = held
        self.element = element
        self.rank = rank
        self.empty = empty

    @property
    def kind(self) -> str:
        """As schemas write it."""
        return f"seq({self.element})"


class OptionalEntry(ObjectEntry):
    """An optional of known state. value: what it holds, or None. element: the kind of that."""

    __slots__ = ("element", "value")

    def __init__(self, value: Entry | None, element: str) -> None:
        super().__init__(missing=value is not None and value.missing)
        self.value = value
        self.element = element

    @property
    def kind(self) -> str:
        """As schemas write it."""
        return f"optional({self.element})"


def is_object(entry: Entry | None) -> bool:
    return isinstance(entry, ObjectEntry)


def leaves(entries: Iterable[Entry]) -> list[Entry]:
    """The tensors in some values, in order."""
    out: list[Entry] = []
    stack = list(reversed(list(entries)))
    while stack:
        entry = stack.pop()
        if isinstance(entry, SequenceEntry):
            stack.extend(reversed(entry.items))
        elif isinstance(entry, HandleEntry):
            out.append(entry.held)
        elif isinstance(entry, OptionalEntry):
            stack.extend([] if entry.value is None else [entry.value])
        else:
            out.append(entry)
    return out


def rebuilt(entry: Entry, parts: Callable[[Entry], Entry]) -> Entry:
    """The same structure with every tensor replaced."""
    if isinstance(entry, SequenceEntry):
        return SequenceEntry([rebuilt(i, parts) for i in entry.items], entry.element)
    if isinstance(entry, HandleEntry):
        return HandleEntry(parts(entry.held), entry.element, entry.rank)
    if isinstance(entry, OptionalEntry):
        return OptionalEntry(None if entry.value is None else rebuilt(entry.value, parts), entry.element)
    return parts(entry)


def outline(entry: Entry) -> Any:
    """What two values must have in common to be the results of two branches, apart from their tensors' types."""
    if isinstance(entry, SequenceEntry):
        return "sequence", tuple(outline(i) for i in entry.items)
    if isinstance(entry, OptionalEntry):
        return "optional", None if entry.value is None else outline(entry.value)
    if isinstance(entry, HandleEntry):
        return "handle"
    return "string" if entry.string else "tensor"


# -------------------------------------------------------------------------------------------------- declared types


def declared_kind(proto: Any, what: str) -> str:
    """A TypeProto as schemas write it: "tensor(float)", "seq(tensor(float))", "optional(seq(tensor(float)))"."""
    around: list[str] = []
    while True:
        case = proto.WhichOneof("value")
        if case == "tensor_type" or case is None:
            code = proto.tensor_type.elem_type
            inner = tensor_kind("string" if code == 8 else elem_dtype(code, what))
            return "".join(f"{a}(" for a in around) + inner + ")" * len(around)
        if case not in ("sequence_type", "optional_type") or len(around) >= 8:
            raise UnsupportedError(f"a value that is a {case.replace('_type', '')}", where=what)
        around.append("seq" if case == "sequence_type" else "optional")
        proto = getattr(proto, case).elem_type


def tensor_code(proto: Any) -> int:
    """The element type of the tensors in a TypeProto."""
    while proto.WhichOneof("value") in ("sequence_type", "optional_type"):
        proto = getattr(proto, proto.WhichOneof("value")).elem_type
    return int(proto.tensor_type.elem_type)


def check_declared(name: str, proto: Any, entry: Entry, where: str) -> None:
    """Refuses an output that is of another kind than the graph declares."""
    if not tensor_code(proto):
        return
    kind = declared_kind(proto, f"output {name[:80]!r}")
    have = entry.kind
    if have != kind and kind != f"optional({have})":
        raise ImportModelError(f"output {name[:80]!r} is declared as {kind}, it is {have}", where=where)


def named(name: str, entry: Entry) -> Named:
    """How an input or output stands in the tensors of the compiled entry."""
    while isinstance(entry, OptionalEntry):
        if entry.value is None:
            return Named(name, "none")
        entry = entry.value
    if isinstance(entry, HandleEntry):
        return Named(name, "handle", entry.element == "tensor(string)")
    if not isinstance(entry, SequenceEntry):
        return Named(name, "tensor", entry.string)
    if any(is_object(i) for i in entry.items):
        raise UnsupportedError(f"{entry.kind} as an input or output", where=name)
    return Named(name, "list", entry.element == "tensor(string)", len(entry.items))


def layout_of(inputs: Mapping[str, Entry], outputs: Mapping[str, Entry], table: Table) -> Layout:
    """How all inputs and outputs stand in the tensors of the compiled entry."""
    groups = [tuple(named(n, e) for n, e in g.items()) for g in (inputs, outputs)]
    return Layout(*groups, tuple(table.strings))
