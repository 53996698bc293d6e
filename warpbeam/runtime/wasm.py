"""A small linker for WebAssembly: relocatable objects of LLVM in, one module out that imports nothing.

Types, functions and data of the objects are merged; what the exports do not reach is left out. The memory holds, from
address 0: the stack, which grows down, so that an overflow leaves the memory and traps; the objects' data, read-only
data first; zeroed data; data that the caller gives, such as a model's weights. Behind it, from the exported global
`__heap_base` on, the memory is the embedder's, who may grow it. Functions whose addresses are taken stand in the table
from 1 on; null is 0 and traps.

Left out on purpose: threads, exceptions, constructors, debug information, position-independent code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from . import wasm_object as wo
from .errors import LinkError
from .wasm_object import Chunk, Object, Relocation, Symbol

Piece = bytes | bytearray | memoryview
PAGE = 1 << 16
STACK_BYTES = 1 << 20
_DATA_ALIGN = 64
_STACK_POINTER, _HEAP_BASE = "__stack_pointer", "__heap_base"
MEMORY_NAME, TABLE_NAME = "memory", "__indirect_function_table"


def unsigned(value: int) -> bytes:
    """LEB128 of a number that is not negative."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def signed(value: int) -> bytes:
    """LEB128 of a number with its sign."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        done = value == (-1 if low & 64 else 0)
        out.append(low | (0 if done else 128))
        if done:
            return bytes(out)


def _padded(value: int) -> bytes:
    """LEB128 in five bytes of the low 35 bits of a number, which is signed or unsigned."""
    return bytes([value >> shift & 127 | 128 for shift in (0, 7, 14, 21)] + [value >> 28 & 127])


def _vector(rows: Sequence[bytes]) -> bytes:
    return unsigned(len(rows)) + b"".join(rows)


def _text(text: str) -> bytes:
    data = text.encode()
    return unsigned(len(data)) + data


def _section(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + unsigned(len(content)) + content


def _constant(value: int) -> bytes:
    """A constant expression: i32.const value; end."""
    value &= 0xFFFFFFFF
    return b"\x41" + signed(value - (value >> 31 << 32)) + b"\x0b"


@dataclass(eq=False, slots=True)
class _Placed:
    """A chunk that is part of the module: a function with its number, or a segment with its address."""

    owner: Object
    chunk: Chunk
    number: int = -1


@dataclass(slots=True)
class _Memory:
    """Segments with bytes, zeroed ones, and where all of it ends."""

    filled: list[_Placed] = field(default_factory=list)
    zeroed: list[_Placed] = field(default_factory=list)
    end: int = STACK_BYTES


def link_module(
    objects: Sequence[bytes], exports: Mapping[str, str], data: Mapping[str, Piece] | None = None,
    custom: Mapping[str, bytes] | None = None,
) -> list[Piece]:  # fmt: skip
    """Links relocatable objects into a module.

    Args:
        objects: objects for wasm32, not position-independent.
        exports: exported name -> the symbol of a function. `memory`, `__indirect_function_table` and the global
            `__heap_base`, the first byte that the module does not use, are exported as well.
        data: bytes of symbols that no object defines, aligned to 64.
        custom: custom sections to add.

    Returns:
        The module in pieces; the same input gives the same bytes.

    Raises:
        LinkError: for undefined or doubly defined symbols, for what the module's docstring leaves out, and for damaged
            objects.
    """
    if not objects:
        raise LinkError("nothing to link", hint="pass at least one object")
    parsed = [wo.parse_object(bytes(o), f"object {i}") for i, o in enumerate(objects)]
    return _Linker(parsed, data or {}).link(exports, custom or {})


class _Linker:
    def __init__(self, objects: list[Object], data: Mapping[str, Piece]) -> None:
        self.objects = objects
        self.globals: dict[str, tuple[Object, Symbol]] = {}
        self.data = dict(data)
        self.data_at: dict[str, int] = {}
        self.types: dict[bytes, int] = {}
        self.table: dict[int, int] = {}  # number of a function -> its place in the table
        self.placed: dict[int, _Placed] = {}  # by the identity of the chunk
        self.functions: list[_Placed] = []
        self.memory = _Memory()

    def link(self, exports: Mapping[str, str], custom: Mapping[str, bytes]) -> list[Piece]:
        self._collect()
        missing = [s for s in exports.values() if self._function(s) is None]
        if missing:
            raise LinkError(f"exported functions are not defined: {', '.join(missing)}",
                            hint="define them in one of the objects, or do not export them")  # fmt: skip
        self._reach(exports.values())
        self._place()
        bodies = [self._patched(f) for f in self.functions]
        filled = [(p.number, self._patched(p)) for p in self.memory.filled]
        return self._write(exports, custom, bodies, filled)

    # ------------------------------------------------------------------------------------------------------- symbols

    def _collect(self) -> None:
        for obj in self.objects:
            for symbol in obj.symbols:
                if symbol.undefined or symbol.flags & wo.LOCAL or symbol.kind == wo.SYM_SECTION:
                    continue
                if symbol.kind not in (wo.SYM_FUNCTION, wo.SYM_DATA):
                    raise LinkError(f"symbol {symbol.name!r} is a global or a table of its own", obj.name)
                known = self.globals.get(symbol.name)
                if known is None or (known[1].flags & wo.WEAK and not symbol.flags & wo.WEAK):
                    self.globals[symbol.name] = (obj, symbol)
                elif not symbol.flags & wo.WEAK:
                    raise LinkError(f"symbol {symbol.name!r} is defined twice", f"{known[0].name} and {obj.name}",
                                    hint="give the symbols different names, or make one of them internal")  # fmt: skip

    def _function(self, name: str) -> _Placed | None:
        """An exported function."""
        found = self.globals.get(name)
        if found is None or found[1].kind != wo.SYM_FUNCTION:
            return None
        return self._chunk_of(*found)

    def _definition(self, obj: Object, symbol: Symbol) -> tuple[Object, Symbol] | None:
        return (obj, symbol) if not symbol.undefined and symbol.flags & wo.LOCAL else self.globals.get(symbol.name)

    def _chunk_of(self, obj: Object, symbol: Symbol) -> _Placed:
        """The function or segment that a defined symbol is (in)."""
        function = symbol.kind == wo.SYM_FUNCTION
        chunk = obj.functions[symbol.index - len(obj.imported)] if function else obj.segments[symbol.index]
        return self.placed.setdefault(id(chunk), _Placed(obj, chunk))

    def _target(self, owner: Object, r: Relocation) -> tuple[Symbol, _Placed | None]:
        """The symbol of a relocation and the function or segment behind it, if an object defines one."""
        if r.index >= len(owner.symbols):
            raise LinkError("damaged object file", owner.name, f"a relocation names symbol {r.index}")
        symbol = owner.symbols[r.index]
        if symbol.kind not in (wo.SYM_FUNCTION, wo.SYM_DATA):
            return symbol, None
        found = self._definition(owner, symbol)
        if found is None:
            return symbol, None
        if found[1].kind != symbol.kind:
            raise LinkError(f"{symbol.name!r} is a function here and data there", f"{owner.name}, {found[0].name}")
        return found[1], self._chunk_of(*found)

    def _reach(self, roots: Iterable[str]) -> None:
        """Finds the functions and segments that are used, in the order in which the objects hold them."""
        todo = [p for p in map(self._function, roots) if p is not None]
        seen = {id(p.chunk) for p in todo}
        missing: dict[str, str] = {}
        while todo:
            placed = todo.pop()
            for r in placed.chunk.relocations:
                if r.kind == _TYPE_INDEX:
                    continue
                symbol, target = self._target(placed.owner, r)
                if target is not None and id(target.chunk) not in seen:
                    seen.add(id(target.chunk))
                    todo.append(target)
                known = symbol.kind not in (wo.SYM_FUNCTION, wo.SYM_DATA) or symbol.name in self.data
                weak = symbol.kind == wo.SYM_DATA and symbol.flags & wo.WEAK
                if target is None and not known and not weak:
                    missing.setdefault(symbol.name, placed.owner.name)
        if missing:
            text = ", ".join(f"{name!r} (used in {where})" for name, where in missing.items())
            raise LinkError(f"undefined symbols: {text}", why="a module imports nothing",
                            hint="link the object that defines them, or avoid what calls them")  # fmt: skip
        for obj in self.objects:
            self.functions += [self.placed[id(f)] for f in obj.functions if id(f) in seen]
            for segment in obj.segments:
                if id(segment) in seen:
                    zero = segment.name.startswith(".bss")
                    (self.memory.zeroed if zero else self.memory.filled).append(self.placed[id(segment)])

    def _place(self) -> None:
        for number, function in enumerate(self.functions):
            function.number = number
        self.memory.filled.sort(key=lambda p: not p.chunk.name.startswith(".rodata"))
        at = STACK_BYTES
        for placed in (*self.memory.filled, *self.memory.zeroed):
            at = _up(at, placed.chunk.align)
            placed.number = at
            at += len(placed.chunk.data)
        for name, content in self.data.items():
            at = _up(at, _DATA_ALIGN)
            self.data_at[name] = at
            at += memoryview(content).nbytes
        self.memory.end = _up(at, _DATA_ALIGN)
        if self.memory.end > (1 << 32) - PAGE:
            raise LinkError("the module's data does not fit its memory", why=f"{at} bytes of at most 4 GiB",
                            hint="choose a smaller model, or smaller number formats")  # fmt: skip

    # --------------------------------------------------------------------------------------------------- relocations

    def _patched(self, placed: _Placed) -> bytes:
        """The bytes of a function or segment."""
        image = bytearray(placed.chunk.data)
        for r in placed.chunk.relocations:
            value = self._value(placed.owner, r)
            encode, width = self._encoding(placed, r)
            if r.offset + width > len(image):
                raise LinkError("a relocation lies outside its section", placed.owner.name, f"kind {r.kind}")
            image[r.offset : r.offset + width] = encode(value)
        return bytes(image)

    def _encoding(self, placed: _Placed, r: Relocation) -> tuple[Callable[[int], bytes], int]:
        if r.kind not in _ENCODINGS:
            raise LinkError(f"relocation type {r.kind} of WebAssembly is not supported", placed.owner.name,
                            hint="generate code that is not position-independent, for wasm32")  # fmt: skip
        return _ENCODINGS[r.kind]

    def _value(self, owner: Object, r: Relocation) -> int:
        if r.kind == _TYPE_INDEX:
            return self._type(owner, r.index)
        symbol, target = self._target(owner, r)
        if r.kind in _WANT.get(symbol.kind, ()):
            if symbol.kind == wo.SYM_TABLE:
                return 0
            if symbol.kind == wo.SYM_GLOBAL and symbol.name == _STACK_POINTER:
                return 0
            if symbol.kind == wo.SYM_FUNCTION and target is not None:
                self._check_type(owner, r, target)
                tabled = r.kind in (_TABLE_INDEX, _TABLE_POINTER)
                return self._tabled(target.number) if tabled else target.number
            if symbol.kind == wo.SYM_DATA:
                if target is not None:
                    return target.number + symbol.offset + r.addend
                return self.data_at.get(symbol.name, 0) + r.addend
        raise LinkError(f"relocation type {r.kind} does not fit symbol {symbol.name!r}", owner.name,
                        hint="generate code that is not position-independent")  # fmt: skip

    def _type(self, owner: Object, index: int) -> int:
        if index >= len(owner.types):
            raise LinkError("damaged object file", owner.name, f"type {index} of {len(owner.types)}")
        return self.types.setdefault(owner.types[index], len(self.types))

    def _tabled(self, function: int) -> int:
        return self.table.setdefault(function, len(self.table) + 1)

    def _check_type(self, owner: Object, r: Relocation, target: _Placed) -> None:
        """A function is called as what it is: engines refuse modules that do otherwise."""
        symbol = owner.symbols[r.index]
        if symbol.undefined:
            expected = owner.types[owner.imported[symbol.index]]
            if expected != target.owner.types[target.chunk.type]:
                where = f"{owner.name} and {target.owner.name}"
                raise LinkError(f"function {symbol.name!r} is called with another type than it has", where,
                                hint="declare it as it is defined")  # fmt: skip

    # -------------------------------------------------------------------------------------------------------- output

    def _write(
        self, exports: Mapping[str, str], custom: Mapping[str, bytes], bodies: Sequence[bytes],
        filled: Sequence[tuple[int, bytes]],
    ) -> list[Piece]:  # fmt: skip
        kinds = [unsigned(self._type(f.owner, f.chunk.type)) for f in self.functions]
        entries = [unsigned(f) for f in self.table]
        size = unsigned(len(entries) + 1)
        head = [
            wo.HEADER,
            _section(wo.TYPE, _vector(list(self.types))),
            _section(wo.FUNCTION, _vector(kinds)),
            _section(wo.TABLE, _vector([bytes([wo.FUNCREF, 1]) + size + size])),
            _section(wo.MEMORY, _vector([b"\0" + unsigned(_up(self.memory.end, PAGE) // PAGE)])),
            _section(wo.GLOBAL, _vector([bytes([wo.I32, 1]) + _constant(STACK_BYTES),
                                         bytes([wo.I32, 0]) + _constant(self.memory.end)])),
            _section(wo.EXPORT, self._exports(exports)),
        ]  # fmt: skip
        if entries:
            head.append(_section(wo.ELEMENT, _vector([b"\0" + _constant(1) + _vector(entries)])))
        head.append(_section(wo.CODE, _vector([unsigned(len(b)) + b for b in bodies])))
        large = [(self.data_at[name], memoryview(d).cast("B")) for name, d in self.data.items()]
        tail = [_section(wo.CUSTOM, _text(name) + content) for name, content in custom.items()]
        tail.append(_section(wo.CUSTOM, self._names()))
        return [*head, *_data_section([*((at, memoryview(d)) for at, d in filled), *large]), *tail]

    def _exports(self, exports: Mapping[str, str]) -> bytes:
        rows = [
            _text(MEMORY_NAME) + b"\2\0",
            _text(TABLE_NAME) + b"\1\0",
            _text(_HEAP_BASE) + b"\3\1",
        ]
        for name, symbol in exports.items():
            function = self._function(symbol)
            assert function is not None
            rows.append(_text(name) + b"\0" + unsigned(function.number))
        return _vector(rows)

    def _names(self) -> bytes:
        """The section `name`: what functions are called, for messages of engines."""
        known = {id(f.chunk): "" for f in self.functions}
        for obj in self.objects:
            for s in obj.symbols:
                if s.kind == wo.SYM_FUNCTION and not s.undefined:
                    chunk = obj.functions[s.index - len(obj.imported)]
                    known[id(chunk)] = known.get(id(chunk)) or s.name
        rows = [unsigned(f.number) + _text(known[id(f.chunk)]) for f in self.functions]
        content = _vector(rows)
        return _text("name") + b"\1" + unsigned(len(content)) + content


def _data_section(rows: Sequence[tuple[int, memoryview]]) -> list[Piece]:
    """The data section in pieces: active segments at their addresses; empty ones are left out."""
    used = [(at, data) for at, data in rows if data.nbytes]
    pieces: list[Piece] = [unsigned(len(used))]
    for at, data in used:
        pieces += [b"\0" + _constant(at) + unsigned(data.nbytes), data]
    size = sum(memoryview(p).nbytes for p in pieces)
    return [bytes([wo.DATA]) + unsigned(size), *pieces]


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


def _word(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def _padded_signed(value: int) -> bytes:
    """LEB128 in five bytes of a signed number of 32 bits; an address above 2 GiB is a negative one."""
    value &= 0xFFFFFFFF
    return _padded(value - (value >> 31 << 32))


_TABLE_INDEX, _TABLE_POINTER, _TYPE_INDEX = 1, 2, 6
#: kind -> how the value is written and how many bytes it takes
_ENCODINGS: dict[int, tuple[Callable[[int], bytes], int]] = {
    0: (_padded, 5), _TABLE_INDEX: (_padded_signed, 5), _TABLE_POINTER: (_word, 4), 3: (_padded, 5),
    4: (_padded_signed, 5), 5: (_word, 4), _TYPE_INDEX: (_padded, 5), 7: (_padded, 5), 20: (_padded, 5),
}  # fmt: skip
#: kinds of relocations that a symbol's kind allows
_WANT = {
    wo.SYM_FUNCTION: (0, _TABLE_INDEX, _TABLE_POINTER), wo.SYM_DATA: (3, 4, 5), wo.SYM_GLOBAL: (7,),
    wo.SYM_TABLE: (20,),
}  # fmt: skip
