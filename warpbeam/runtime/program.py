"""The Program: the host side of a compiled model as plain data.

A Program has values (tensors and objects, each with a place in storage) and a body of instructions. It says which
kernels run in which order on which buffers; what the kernels compute is elsewhere. `executor` steps through it in
Python; for the product the compiler lowers it to native code. It can be written as JSON, printed as text
(`program_text`), and checked (`validate`).

    storage of a value             meaning
    ("input", i), ("output", i)    the caller's tensor, number i
    ("const", offset)              at a byte offset of the constants section
    ("param", offset)              at a byte offset of the mutable parameters
    ("arena", expr)                at a byte offset of the arena
    ("view", value, expr)          in the storage of another value, at a byte offset
    ("alloc",)                     allocated by an Alloc instruction at run time
    ("object",)                    not a tensor: a tuple, closure, algebraic value or sequence
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeAlias

from . import shape_expr
from .errors import ArtifactError
from .shape_expr import ShapeExpr

Ids: TypeAlias = tuple[int, ...]
Exprs: TypeAlias = tuple[ShapeExpr, ...]
Names: TypeAlias = tuple[str, ...]
Storage: TypeAlias = tuple[ShapeExpr, ...]
Pair: TypeAlias = tuple[int, int]

VALUE_KINDS = ("tensor", "tuple", "closure", "adt", "sequence")
MAX_NESTING = 64


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a Program; `dtype` and `shape` are those of a tensor. `origins`: names of source nodes.

    `strides`: elements from one index of an axis to the next; () where the tensor is compact.
    """

    id: int
    kind: str = "tensor"
    dtype: str = ""
    shape: Exprs = ()
    device: Pair = (1, 0)
    storage: Storage = ("object",)
    name: str = ""
    origins: Names = ()
    strides: Exprs = ()


@dataclass(frozen=True, slots=True)
class Port:
    """A named input or output."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class CallKernel:
    """Runs a kernel. `args`: buffers in its parameter order; `dims`: its scalar parameters, in order.

    `donates`: args whose storage the kernel may destroy. `writes`: args it writes.
    """

    kernel: str
    args: Ids
    dims: Exprs = ()
    donates: Ids = ()
    writes: Ids = ()


@dataclass(frozen=True, slots=True)
class CallProgram:
    """Runs another Program of `functions`; its outputs are bound to `results`."""

    program: str
    args: Ids
    results: Ids


@dataclass(frozen=True, slots=True)
class CallExternal:
    """Runs something that is not ours: an engine of another vendor, a Python function. `attrs` is its own text."""

    function: str
    args: Ids
    results: Ids
    attrs: str = ""


@dataclass(frozen=True, slots=True)
class Alloc:
    """Gives a value of storage ("alloc",) memory for its dtype and shape, evaluated now."""

    value: int


@dataclass(frozen=True, slots=True)
class Free:
    """Ends the life of an allocated value or object."""

    value: int


@dataclass(frozen=True, slots=True)
class View:
    """`result` is the storage of `source` from `byte_offset` on, with result's own dtype and shape, evaluated now."""

    result: int
    source: int
    byte_offset: ShapeExpr = 0


@dataclass(frozen=True, slots=True)
class Move:
    """`result` becomes `source`: objects are shared, tensors are copied, unless both have one place (`in_place`)."""

    result: int
    source: int


@dataclass(frozen=True, slots=True)
class ShapeOf:
    """`symbol` = extent of `axis` of a tensor, as it is now."""

    symbol: str
    value: int
    axis: int


@dataclass(frozen=True, slots=True)
class SetSymbol:
    """`symbol` = `expr`."""

    symbol: str
    expr: ShapeExpr


@dataclass(frozen=True, slots=True)
class Reserve:
    """Makes the arena at least `size` bytes long; what is in it stays, though it may move."""

    size: ShapeExpr


@dataclass(frozen=True, slots=True)
class Check:
    """Fails with `message` unless `condition` is non-zero."""

    condition: ShapeExpr
    message: str


@dataclass(frozen=True, slots=True)
class MakeObject:
    """A tuple, algebraic value, sequence (by the kind of `result`) of `fields` with constructor `tag`.

    For a closure, `function` names the Program and `fields` are the captured values, its first arguments.
    """

    result: int
    fields: Ids
    tag: int = 0
    function: str = ""


@dataclass(frozen=True, slots=True)
class GetField:
    """`result` = field number `index` of an object."""

    result: int
    source: int
    index: ShapeExpr


@dataclass(frozen=True, slots=True)
class CallClosure:
    """Runs the Program of a closure on its captured values and `args`."""

    closure: int
    args: Ids
    results: Ids


@dataclass(frozen=True, slots=True)
class Branch:
    """Runs `then` if `condition` is non-zero, else `other`."""

    condition: ShapeExpr
    then: Body
    other: Body = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """Runs `body` while `condition` is non-zero, at most `extent` times; `index` counts from 0. -1 = no bound."""

    index: str
    extent: ShapeExpr
    condition: ShapeExpr
    body: Body


@dataclass(frozen=True, slots=True)
class DeviceCopy:
    """Copies a tensor to a value on another device."""

    result: int
    source: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Waits until all work given to a device is done."""

    device: Pair


@dataclass(frozen=True, slots=True)
class Return:
    """Ends the Program."""


Instruction: TypeAlias = (
    CallKernel | CallProgram | CallExternal | Alloc | Free | View | Move | ShapeOf | SetSymbol | Reserve | Check
    | MakeObject | GetField | CallClosure | Branch | Loop | DeviceCopy | Sync | Return
)  # fmt: skip
Body: TypeAlias = tuple[Instruction, ...]
INSTRUCTIONS: dict[str, type[Any]] = {
    c.__name__: c
    for c in (
        CallKernel, CallProgram, CallExternal, Alloc, Free, View, Move, ShapeOf, SetSymbol, Reserve, Check, MakeObject,
        GetField, CallClosure, Branch, Loop, DeviceCopy, Sync, Return,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbolic dimension, computed at entry from `("dim", input, axis)` and earlier symbols."""

    name: str
    expr: ShapeExpr


@dataclass(frozen=True, slots=True)
class Program:
    """The host side of a compiled model; see the module's docstring."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    values: tuple[Value, ...]
    body: Body
    symbols: tuple[Symbol, ...] = ()
    arena_bytes: ShapeExpr = 0
    alignment: int = 64
    functions: tuple[Program, ...] = ()

    def value(self, value_id: int) -> Value:
        """The value with an id; linear, for occasional use."""
        return next(v for v in self.values if v.id == value_id)

    def validate(self) -> None:
        """Checks that the Program is consistent.

        Raises:
            ArtifactError: naming the first thing that is not.
        """
        from .program_check import check_program

        check_program(self)

    def to_json(self) -> str:
        """The Program as JSON; the same Program gives the same text.

        Raises:
            ArtifactError: if a size is computed by more steps inside each other than JSON is written for.
        """
        try:
            return json.dumps(encode(self), separators=(",", ":"), ensure_ascii=False)
        except RecursionError:
            why = "it is computed from other sizes, these from others, and so on, deeper than JSON is written or read"
            hint = "fix sizes with shapes=, or give fewer inner values as outputs"
            raise ArtifactError("a size of the model cannot be stored", "program section", why, hint) from None

    @staticmethod
    def from_json(text: str | bytes) -> Program:
        """Reads and validates what `to_json` wrote.

        Raises:
            ArtifactError: if the text is not a valid Program.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArtifactError("the program is not valid JSON", "program section", str(error)) from error
        program: Program = decode(Program, data)
        program.validate()
        return program

    def __str__(self) -> str:
        from .program_text import program_text

        return program_text(self)


def in_place(move: Move, values: Mapping[int, Value]) -> bool:
    """Whether a move copies nothing, because its result lies where its source does."""
    place = values[move.result].storage
    return place[0] in ("arena", "output") and place == values[move.source].storage


def walk(body: Body) -> Iterator[Instruction]:
    """All instructions of a body, nested ones included, in text order."""
    stack = list(reversed(body))
    while stack:
        instruction = stack.pop()
        yield instruction
        if isinstance(instruction, Branch):
            stack += [*reversed(instruction.other), *reversed(instruction.then)]
        elif isinstance(instruction, Loop):
            stack += reversed(instruction.body)


def encode(node: Any) -> dict[str, Any]:
    """A dataclass of this module as JSON data; fields at their defaults are left out."""
    data: dict[str, Any] = {"op": type(node).__name__} if type(node).__name__ in INSTRUCTIONS else {}
    for f in fields(node):
        value = getattr(node, f.name)
        if f.default is MISSING or value != f.default:
            data[f.name] = _plain(value)
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and value and hasattr(value[0], "__dataclass_fields__"):
        return [encode(item) for item in value]
    return shape_expr.to_json(value) if isinstance(value, tuple) else value


def decode(kind: type[Any], data: Any, depth: int = 0) -> Any:
    """The inverse of `encode`, checking names and types of all fields."""
    if not isinstance(data, dict) or depth > MAX_NESTING:
        raise ArtifactError(f"{kind.__name__} expected", "program", f"got {type(data).__name__} at depth {depth}")
    known = {f.name: f for f in fields(kind)}
    extra = data.keys() - known.keys() - {"op"}
    if extra:
        raise ArtifactError(f"{kind.__name__} has no field {', '.join(sorted(extra))}", "program")
    arguments = {}
    for name, f in known.items():
        where = f"{kind.__name__}.{name}"
        if name in data:
            arguments[name] = _CODECS[str(f.type)](data[name], where, depth + 1)
        elif f.default is MISSING:
            raise ArtifactError(f"{where} is missing", "program")
    return kind(**arguments)


def _int(data: Any, where: str, _: int) -> int:
    if isinstance(data, bool) or not isinstance(data, int):
        raise ArtifactError(f"{where}: an integer is expected, not {data!r}", "program")
    return data


def _str(data: Any, where: str, _: int) -> str:
    if not isinstance(data, str):
        raise ArtifactError(f"{where}: a string is expected, not {data!r}", "program")
    return data


def _list(data: Any, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise ArtifactError(f"{where}: a list is expected, not {type(data).__name__}", "program")
    return data


def _many(item: Callable[[Any, str, int], Any]) -> Callable[[Any, str, int], tuple[Any, ...]]:
    return lambda data, where, depth: tuple(item(x, where, depth) for x in _list(data, where))


def _pair(data: Any, where: str, depth: int) -> Pair:
    if len(_list(data, where)) != 2:
        raise ArtifactError(f"{where}: two integers are expected", "program")
    return _int(data[0], where, depth), _int(data[1], where, depth)


def _instruction(data: Any, where: str, depth: int) -> Any:
    name = data.get("op") if isinstance(data, dict) else None
    if name not in INSTRUCTIONS:
        raise ArtifactError(f"unknown instruction {name!r}", where, hint="the file may need a newer runtime")
    return decode(INSTRUCTIONS[name], data, depth)


def _storage(data: Any, where: str, _: int) -> Any:
    parts = _list(data, where)
    if not parts or not isinstance(parts[0], str):
        raise ArtifactError(f"{where}: {data!r} is not a storage", "program")
    return (parts[0], *(shape_expr.from_json(x, where) for x in parts[1:]))


_CODECS: dict[str, Callable[[Any, str, int], Any]] = {
    "int": _int,
    "str": _str,
    "Ids": _many(_int),
    "Names": _many(_str),
    "Pair": _pair,
    "ShapeExpr": lambda data, where, depth: shape_expr.from_json(data, where),
    "Exprs": _many(lambda data, where, depth: shape_expr.from_json(data, where)),
    "Storage": _storage,
    "Body": _many(_instruction),
    "tuple[Port, ...]": _many(lambda data, where, depth: decode(Port, data, depth)),
    "tuple[Value, ...]": _many(lambda data, where, depth: decode(Value, data, depth)),
    "tuple[Symbol, ...]": _many(lambda data, where, depth: decode(Symbol, data, depth)),
    "tuple[Program, ...]": _many(lambda data, where, depth: decode(Program, data, depth)),
}
