"""Reading relocatable WebAssembly objects as LLVM writes them: just what the linker needs.

Sources of the format: the WebAssembly core specification, chapter 5 (binary format), and the tool conventions'
"Linking" (the sections `linking` and `reloc.*`, version 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from .errors import LinkError

MAGIC = b"\0asm"
HEADER = MAGIC + b"\1\0\0\0"
CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, _START, ELEMENT, CODE, DATA, DATA_COUNT = range(13)
I32, FUNCREF = 0x7F, 0x70
#: what a symbol is; in imports: function, table, memory, global
SYM_FUNCTION, SYM_DATA, SYM_GLOBAL, SYM_SECTION, SYM_TAG, SYM_TABLE = range(6)
WEAK, LOCAL, UNDEFINED, _EXPLICIT_NAME, _TLS = 1, 2, 0x10, 0x40, 0x100
_SEGMENTS, _CONSTRUCTORS, _COMDATS, _SYMBOLS = 5, 6, 7, 8
#: kinds of relocations with an addend
_ADDENDS = frozenset({3, 4, 5, 8, 9, 11, 14, 15, 16, 17, 21, 22, 23, 25})

_T = TypeVar("_T")


def is_wasm(data: bytes) -> bool:
    """Whether bytes are a WebAssembly module or object."""
    return data[:4] == MAGIC


@dataclass(frozen=True, slots=True)
class Relocation:
    """A place to patch: `offset` within its chunk, the conventions' `kind`, index of a symbol (or type), addend."""

    offset: int
    kind: int
    index: int
    addend: int


@dataclass(slots=True)
class Chunk:
    """A function's body or a data segment; `start` is where it lies in its section.

    `align`, `name` and `flags` are a segment's, `type` a function's.
    """

    data: bytes
    start: int
    relocations: list[Relocation] = field(default_factory=list)
    name: str = ""
    align: int = 1
    flags: int = 0
    type: int = 0


@dataclass(slots=True)
class Symbol:
    """A symbol: `index` of the function, segment, … that it names; `offset` and `size` within a segment."""

    kind: int
    flags: int
    index: int
    name: str
    offset: int = 0
    size: int = 0

    @property
    def undefined(self) -> bool:
        """Whether another object must define it."""
        return bool(self.flags & UNDEFINED)


@dataclass(slots=True)
class Object:
    """A parsed object; `imported` gives the types of imported functions, which are numbered before the defined ones."""

    name: str
    types: list[bytes] = field(default_factory=list)
    imported: list[int] = field(default_factory=list)
    functions: list[Chunk] = field(default_factory=list)
    segments: list[Chunk] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)


class Reader:
    """Reads numbers and strings from bytes; past the end it raises IndexError."""

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end
        if self.end > len(data):
            raise IndexError("a section reaches past the end of the file")

    def byte(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def take(self, count: int) -> bytes:
        """Some bytes."""
        if count < 0 or self.at + count > self.end:
            raise IndexError("something reaches past the end of its section")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        """An unsigned LEB128 number of up to 64 bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return value
            if shift > 63:
                raise ValueError("a number has too many bytes")

    def signed(self) -> int:
        """A signed LEB128 number of up to 64 bits."""
        start = self.at
        value = self.number()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> bits - 1 else value

    def text(self) -> str:
        """A string."""
        return self.take(self.number()).decode()

    def vector(self, read: Callable[[], _T]) -> list[_T]:
        """A vector of what `read` reads."""
        return [read() for _ in range(self.number())]


def parse_object(data: bytes, name: str) -> Object:
    """Parses one relocatable object.

    Raises:
        LinkError: if `data` is none, is damaged, or has what is not supported (threads, exceptions, constructors).
    """
    if data[:8] != HEADER:
        raise LinkError("not a WebAssembly object", name, f"it starts with {data[:8]!r}")
    try:
        return _Parser(data, name).object
    except (IndexError, ValueError) as error:
        raise LinkError("damaged object file", where=name, why=str(error)) from error


class _Parser:
    def __init__(self, data: bytes, name: str) -> None:
        self.object = Object(name)
        self.chunks: dict[int, list[Chunk]] = {}
        self.names: list[list[str]] = [[] for _ in range(5)]  # of imports, by kind
        relocations, linked = [], False
        reader = Reader(data, 8)
        number = 0
        while reader.at < reader.end:
            kind = reader.byte()
            size = reader.number()
            part = Reader(data, reader.at, reader.at + size)
            reader.at = part.end
            if kind == CUSTOM:
                title = part.text()
                if title.startswith("reloc."):
                    relocations.append(part)
                elif title == "linking":
                    self._linking(part)
                    linked = True
            else:
                self._section(kind, part, number)
            number += 1
        if not linked:
            raise LinkError("a module, not a relocatable object", name, "it has no section 'linking'")
        for part in relocations:
            self._relocations(part)
        self._check()

    def _section(self, kind: int, part: Reader, number: int) -> None:
        start = part.at
        obj = self.object
        if kind == TYPE:
            obj.types = part.vector(lambda: _type(part))
        elif kind == IMPORT:
            part.vector(lambda: self._import(part))
        elif kind == FUNCTION:
            obj.functions = [Chunk(b"", 0, type=t) for t in part.vector(part.number)]
        elif kind == CODE:
            count = part.number()
            if count != len(obj.functions):
                raise ValueError(f"{len(obj.functions)} functions, {count} bodies")
            for chunk in obj.functions:
                size = part.number()
                chunk.start = part.at - start
                chunk.data = part.take(size)
            self.chunks[number] = obj.functions
        elif kind == DATA:
            obj.segments = part.vector(lambda: _segment(part, start))
            self.chunks[number] = obj.segments
        elif kind not in (ELEMENT, DATA_COUNT):
            raise LinkError(f"section {kind} is not supported", obj.name, "relocatable objects have none",
                            "link what the code generator made")  # fmt: skip

    def _import(self, part: Reader) -> None:
        part.text()
        name, kind = part.text(), part.byte()
        if kind == 0:
            self.object.imported.append(part.number())
        elif kind == 3:
            part.take(2)
        elif kind in (1, 2):
            part.take(1 if kind == 1 else 0)
            flags = part.byte()
            if flags > 1:
                raise LinkError("a shared or 64-bit memory", self.object.name)
            part.number()
            if flags:
                part.number()
        else:
            raise LinkError(f"import {name!r} of kind {kind} is not supported", self.object.name)
        self.names[kind].append(name)

    def _linking(self, part: Reader) -> None:
        version = part.number()
        if version != 2:
            raise LinkError(f"linking metadata of version {version}", self.object.name, "version 2 is known")
        while part.at < part.end:
            kind, size = part.byte(), part.number()
            sub = Reader(part.data, part.at, part.at + size)
            part.at = sub.end
            if kind == _SYMBOLS:
                self.object.symbols = sub.vector(lambda sub=sub: self._symbol(sub))  # type: ignore[misc]
            elif kind == _SEGMENTS:
                rows = sub.vector(lambda sub=sub: (sub.text(), sub.number(), sub.number()))  # type: ignore[misc]
                for chunk, (name, align, flags) in zip(self.object.segments, rows, strict=True):
                    chunk.name, chunk.align, chunk.flags = name, 1 << min(align, 32), flags
            elif kind == _CONSTRUCTORS and size > 1:
                raise LinkError("the object holds a constructor", self.object.name)

    def _symbol(self, part: Reader) -> Symbol:
        kind, flags = part.byte(), part.number()
        if flags & _TLS or kind == SYM_TAG:
            raise LinkError("a symbol is thread-local or of an exception", self.object.name)
        if kind == SYM_DATA:
            name = part.text()
            where = (0, 0, 0) if flags & UNDEFINED else (part.number(), part.number(), part.number())
            return Symbol(kind, flags, where[0], name, *where[1:])
        index = part.number()
        if kind == SYM_SECTION:
            return Symbol(kind, flags, index, "")
        if flags & UNDEFINED and not flags & _EXPLICIT_NAME:
            return Symbol(kind, flags, index, self.names[{SYM_GLOBAL: 3, SYM_TABLE: 1}.get(kind, kind)][index])
        return Symbol(kind, flags, index, part.text())

    def _relocations(self, part: Reader) -> None:
        chunks = self.chunks.get(part.number())
        at = 0
        for _ in range(part.number()):
            kind, offset, index = part.byte(), part.number(), part.number()
            addend = part.signed() if kind in _ADDENDS else 0
            if chunks is None:
                continue  # of debug information
            while at + 1 < len(chunks) and chunks[at + 1].start <= offset:
                at += 1
            while at and chunks[at].start > offset:
                at -= 1
            chunks[at].relocations.append(Relocation(offset - chunks[at].start, kind, index, addend))

    def _check(self) -> None:
        """Every number that the linker follows leads somewhere."""
        obj = self.object
        limits = {SYM_FUNCTION: len(obj.imported) + len(obj.functions), SYM_DATA: len(obj.segments)}
        for symbol in obj.symbols:
            limit = limits.get(symbol.kind)
            if limit is not None and symbol.index >= max(limit, symbol.kind == SYM_DATA and symbol.undefined):
                raise ValueError(f"symbol {symbol.name!r} is number {symbol.index} of {limit}")
            if symbol.kind == SYM_FUNCTION and symbol.undefined != (symbol.index < len(obj.imported)):
                raise ValueError(f"function {symbol.name!r} is both imported and defined")
        if any(t >= len(obj.types) for t in (*obj.imported, *(f.type for f in obj.functions))):
            raise ValueError("a function's type is missing")


def _type(part: Reader) -> bytes:
    """The bytes of a function type."""
    start = part.at
    if part.byte() != 0x60:
        raise ValueError("a type that is no function's")
    for _ in range(2):
        part.take(part.number())
    return part.data[start : part.at]


def _segment(part: Reader, start: int) -> Chunk:
    """A data segment; where objects place it says nothing."""
    mode = part.number()
    if mode == 2:
        part.number()
    if mode != 1:
        if part.byte() != 0x41:
            raise ValueError("a data segment at an address that is no constant")
        part.signed()
        if part.byte() != 0x0B:
            raise ValueError("a data segment at an address that is no constant")
    size = part.number()
    return Chunk(part.take(size), part.at - size - start)
