"""Values that are no tensors, at run time: strings and sequences.

A compiled program computes on tensors only. A tensor of strings is a tensor of int64 inside: each number is the place
of a string in the call's `Table`. Equal strings have equal numbers within a call, so that whatever moves or compares
strings is compiled like any other operator; what looks into a string is a host call (`host_calls`). The numbers of a
model's own strings are fixed when it is compiled: each call's table starts with them. Sequences whose length is found
at run time are numbers of the same table.

`Layout` says how a model's named inputs and outputs stand in the tensors of its entry.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArtifactError, RunError
from .ndarray import as_numpy

Array = npt.NDArray[Any]
#: entries a call's table may have
MOST = 1 << 24


class Table:
    """Strings and sequences of one call by number; number 0 is the empty string."""

    def __init__(self, strings: Sequence[str] = ()) -> None:
        self.items: list[Any] = [""]
        self.numbers: dict[str, int] = {"": 0}
        for text in strings:
            self.number(text)

    def number(self, text: str) -> int:
        """The number of a string, which is added where it is not there yet."""
        found = self.numbers.get(text)
        if found is None:
            found = self.numbers[text] = self.add(text)
        return found

    def add(self, item: Any) -> int:
        """The number of a new entry.

        Raises:
            RunError: if the call has made more than MOST.
        """
        if len(self.items) >= MOST:
            raise RunError(f"more than {MOST} strings and sequences in one call", hint="give it less data at once")
        self.items.append(item)
        return len(self.items) - 1

    def encode(self, texts: Any) -> Array:
        """Strings as numbers, of the same shape."""
        array = np.asarray(texts)
        if array.dtype.kind not in "OUST" or not all(isinstance(t, str | bytes) for t in array.flat):
            raise RunError(f"strings are expected, not {array.dtype}", hint="pass an array of str (dtype object)")
        flat = [self.number(t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t)) for t in array.flat]
        return np.array(flat, np.int64).reshape(array.shape)

    def decode(self, numbers: Any) -> Array:
        """Numbers as strings (dtype object), of the same shape."""
        array = np.asarray(numbers)
        out = np.empty(array.size, object)
        for i, number in enumerate(array.flat):
            out[i] = self.text(int(number))
        return out.reshape(array.shape)

    def text(self, number: int) -> str:
        """The string of a number."""
        item = self.items[number] if 0 <= number < len(self.items) else None
        if not isinstance(item, str):
            raise RunError(f"{number} is no string of this call", hint="strings are numbers only within one call")
        return item

    def sequence(self, number: int) -> tuple[Array, ...]:
        """The sequence of a number."""
        item = self.items[number] if 0 <= number < len(self.items) else None
        if not isinstance(item, tuple):
            raise RunError(f"{number} is no sequence of this call")
        return item

    @property
    def strings(self) -> list[str]:
        """All strings but the empty one, in order."""
        return [t for t in self.items[1:] if isinstance(t, str)]


_CURRENT: ContextVar[Table | None] = ContextVar("warpbeam_table", default=None)


@contextlib.contextmanager
def using(table: Table) -> Iterator[Table]:
    """Makes a table that of the call in progress."""
    token = _CURRENT.set(table)
    try:
        yield table
    finally:
        _CURRENT.reset(token)


def current() -> Table:
    """The table of the call in progress.

    Raises:
        RunError: outside of one.
    """
    table = _CURRENT.get()
    if table is None:
        raise RunError("strings and sequences exist within a call only", hint="run it inside `objects.using(Table())`")
    return table


@dataclass(frozen=True, slots=True)
class Named:
    """One named input or output.

    kind: "tensor"; "list", whose `count` elements are tensors called name[0], name[1], …; "handle", a sequence by its
    number; "none", nothing. string: whether the tensors hold strings.
    """

    name: str
    kind: str = "tensor"
    string: bool = False
    count: int = 0

    def ports(self) -> list[str]:
        """The names of the entry's tensors."""
        if self.kind == "list":
            return [element_name(self.name, k) for k in range(self.count)]
        return [] if self.kind == "none" else [self.name]


def element_name(name: str, index: int) -> str:
    """The name of the tensor that is an element of a sequence."""
    return f"{name}[{index}]"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's inputs and outputs stand in its entry's tensors; `strings` are the model's own."""

    inputs: tuple[Named, ...] = ()
    outputs: tuple[Named, ...] = ()
    strings: tuple[str, ...] = field(default=())

    @property
    def plain(self) -> bool:
        """Whether all inputs and outputs are tensors of numbers."""
        return all(n.kind == "tensor" and not n.string for n in (*self.inputs, *self.outputs))

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=True)

    @staticmethod
    def from_json(text: str) -> Layout:
        """Reads what `to_json` wrote.

        Raises:
            ArtifactError: if it is something else.
        """
        try:
            data = json.loads(text)
            ins, outs = (tuple(Named(**n) for n in data[key]) for key in ("inputs", "outputs"))
            strings = tuple(data["strings"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ArtifactError("the layout of inputs and outputs is damaged", "manifest", str(error)[:200]) from None
        if not all(isinstance(t, str) for t in strings) or not all(_sound(n) for n in (*ins, *outs)):
            raise ArtifactError("the layout of inputs and outputs is damaged", "manifest")
        return Layout(ins, outs, strings)

    def flat(self, inputs: Mapping[str, Any], table: Table) -> dict[str, Any]:
        """The entry's tensors for named inputs.

        Raises:
            RunError: naming the input that does not fit.
        """
        known = {n.name for n in self.inputs}
        odd = [k for k in inputs if k not in known]
        lacking = [n.name for n in self.inputs if n.name not in inputs and n.kind != "none"]
        if odd or lacking:
            raise RunError(f"inputs {lacking} are missing, {odd} are unknown", hint=f"the inputs: {sorted(known)}")
        out: dict[str, Any] = {}
        for n in self.inputs:
            value = inputs.get(n.name)
            if n.kind in ("tensor", "none") and not isinstance(value, list | tuple):
                if (value is None) != (n.kind == "none"):
                    raise _misfit(n, value)
                if value is not None:
                    out[n.name] = table.encode(value) if n.string else value
                continue
            if not isinstance(value, list | tuple) or (n.kind == "list" and len(value) != n.count):
                raise _misfit(n, value)
            items = [table.encode(v) if n.string else as_numpy(v) for v in value]
            if n.kind == "handle":
                out[n.name] = np.array(table.add(tuple(items)), np.int64)
            else:
                out.update(zip(n.ports(), items, strict=True))
        return out

    def gathered(self, ports: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
        """Named inputs from tensors by their ports' names, such as `name[0]`; what is not there is as in `default`."""
        out: dict[str, Any] = {}
        for n in self.inputs:
            if n.kind == "tensor":
                out[n.name] = ports.get(n.name, default.get(n.name))
            elif n.kind == "list":
                usual = default.get(n.name) or [None] * n.count
                out[n.name] = [ports.get(p, usual[k]) for k, p in enumerate(n.ports())]
            elif n.kind == "handle":
                count = next(k for k in range(len(ports) + 1) if element_name(n.name, k) not in ports)
                given = [ports[element_name(n.name, k)] for k in range(count)]
                out[n.name] = given or default.get(n.name, [])
        return out

    def named(self, results: Mapping[str, Any], table: Table) -> dict[str, Any]:
        """Named outputs from the entry's tensors: arrays, lists of arrays, or None."""
        out: dict[str, Any] = {}
        for n in self.outputs:
            if n.kind == "handle":
                items: list[Any] = list(table.sequence(int(results[n.name])))
            else:
                items = [results[p] for p in n.ports()]
            items = [table.decode(i) if n.string else i for i in items]
            out[n.name] = None if n.kind == "none" else items[0] if n.kind == "tensor" else items
        return out


def scattered(values: Mapping[str, Any]) -> dict[str, Array]:
    """Named values as arrays by name: the elements of a list are `name[0]`, `name[1]`, …; nothing for None."""
    out: dict[str, Array] = {}
    for name, value in values.items():
        if isinstance(value, list | tuple):
            out.update({element_name(name, k): np.asarray(v) for k, v in enumerate(value)})
        elif value is not None:
            out[name] = np.asarray(value)
    return out


def _sound(n: Named) -> bool:
    kinds = ("tensor", "list", "handle", "none")
    fits = isinstance(n.name, str) and n.kind in kinds and isinstance(n.string, bool)
    return fits and isinstance(n.count, int) and 0 <= n.count < 1 << 16


def _misfit(n: Named, value: Any) -> RunError:
    have = f"a sequence of {len(value)}" if isinstance(value, list | tuple) else type(value).__name__
    need = {"list": f"a list of {n.count} arrays", "none": "nothing (None)", "handle": "a list of arrays"}
    return RunError(f"input {n.name!r} is {have}", f"expected {need.get(n.kind, 'an array')}",
                    hint="compile it for these lengths: shapes={name: [shape, …]}")  # fmt: skip
