"""Making relocatable ELF objects: several merged into one with few global symbols, and data as an object."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from . import elf
from .elf import Object, Relocation, Section, Symbol
from .errors import LinkError
from .relocate import MACHINES

Piece = bytes | memoryview


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


def merge(objects: Sequence[Object], keep: Collection[str] | None = None, name: str = "module") -> Object:
    """One object with the contents of all: references between them become direct.

    Args:
        keep: the defined symbols that stay global; None: all of them.

    Raises:
        LinkError: if a symbol is defined twice.
    """
    sections = [_nothing()]
    symbols: list[Symbol] = [Symbol("", elf.STB_LOCAL, elf.STT_NOTYPE, elf.SHN_UNDEF, 0, 0)]
    globals_: dict[str, int] = {}
    for obj in objects:
        places: dict[int, int] = {}
        for k, s in enumerate(obj.sections):
            if s.flags & elf.SHF_ALLOC and s.kind in (elf.SHT_PROGBITS, elf.SHT_NOBITS) and _wanted(s):
                places[k] = len(sections)
                sections.append(Section(s.name, s.kind, s.flags, s.data, s.size, s.align))
        numbers = [_place(symbol, places, symbols, globals_, obj.name) for symbol in obj.symbols]
        for k, place in places.items():
            for r in obj.sections[k].relocations:
                sections[place].relocations.append(Relocation(r.offset, r.kind, numbers[r.symbol], r.addend))
    for symbol in symbols[1:]:
        if keep is not None and symbol.section != elf.SHN_UNDEF and symbol.name not in keep:
            symbol.bind = elf.STB_LOCAL
    return _in_order(Object(name, objects[0].machine, sections, symbols, objects[0].flags))


def _nothing() -> Section:
    """The section that every object starts with."""
    return Section("", 0, 0, b"", 0, 1)


def _wanted(section: Section) -> bool:
    return not section.name.startswith(elf.DROPPED)


def _place(symbol: Symbol, places: dict[int, int], symbols: list[Symbol], globals_: dict[str, int], where: str) -> int:
    """The number of a symbol among those of the merged object."""
    if symbol.section == elf.SHN_COMMON:
        raise LinkError(f"symbol {symbol.name!r} is a common block", where, hint="compile with -fno-common")
    section = symbol.section
    if elf.SHN_UNDEF < section < 0xFF00:
        if section not in places:
            return 0  # of a section that is left out
        section = places[section]
    copy = Symbol(symbol.name, symbol.bind, symbol.kind, section, symbol.value, symbol.size)
    if symbol.bind == elf.STB_LOCAL:
        symbols.append(copy)
        return len(symbols) - 1
    known = globals_.get(symbol.name)
    if known is None:
        globals_[symbol.name] = len(symbols)
        symbols.append(copy)
        return len(symbols) - 1
    old = symbols[known]
    if old.section == elf.SHN_UNDEF or (old.bind == elf.STB_WEAK and copy.section and copy.bind == elf.STB_GLOBAL):
        if copy.section != elf.SHN_UNDEF or copy.bind == elf.STB_GLOBAL:
            symbols[known] = copy
    elif copy.section != elf.SHN_UNDEF and copy.bind == old.bind == elf.STB_GLOBAL:
        raise LinkError(f"symbol {symbol.name!r} is defined twice", where)
    return known


def _in_order(obj: Object) -> Object:
    """The same object with local symbols first, as the format wants."""
    order = sorted(range(len(obj.symbols)), key=lambda i: obj.symbols[i].bind != elf.STB_LOCAL)
    number = {old: new for new, old in enumerate(order)}
    for section in obj.sections:
        for r in section.relocations:
            r.symbol = number[r.symbol]
    obj.symbols = [obj.symbols[i] for i in order]
    return obj


def rename(obj: Object, change: Callable[[str], str]) -> None:
    """Renames the global symbols."""
    for symbol in obj.symbols:
        if symbol.bind != elf.STB_LOCAL:
            symbol.name = change(symbol.name)


def defined(obj: Object) -> list[str]:
    """The global symbols that an object defines."""
    return [s.name for s in obj.symbols if s.bind != elf.STB_LOCAL and s.section != elf.SHN_UNDEF and s.name]


def write_object(obj: Object) -> bytes:
    """The bytes of an object."""
    return b"".join(_write(obj, {}))


def data_object(like: Object, symbol: str, data: memoryview) -> list[Piece]:
    """An object that holds one read-only, page-aligned run of bytes under a name; in pieces, `data` one of them."""
    align = MACHINES[like.machine].page
    section = Section(".rodata.constants", elf.SHT_PROGBITS, elf.SHF_ALLOC, b"", data.nbytes, align)
    symbols = [
        Symbol("", elf.STB_LOCAL, elf.STT_NOTYPE, elf.SHN_UNDEF, 0, 0),
        Symbol(symbol, elf.STB_GLOBAL, elf.STT_OBJECT, 1, 0, data.nbytes),
    ]
    return _write(Object(symbol, like.machine, [_nothing(), section], symbols, like.flags), {1: data})


def _write(obj: Object, large: dict[int, memoryview]) -> list[Piece]:
    """Header, contents of sections, relocations, symbols, strings, section headers."""
    form = elf.format_of(obj.machine)
    strings = _Strings()
    names = _Strings()
    out: list[Piece] = [b""]
    at = form.ehdr.size
    headers = [bytes(form.shdr.size)]

    def put(data: Piece, align: int) -> int:
        nonlocal at
        start = _up(at, align)
        out.append(bytes(start - at))
        out.append(data)
        at = start + memoryview(data).nbytes
        return start

    relocated = [k for k, s in enumerate(obj.sections) if s.relocations]
    symtab = len(obj.sections) + len(relocated)
    for k, s in enumerate(obj.sections[1:], 1):
        start = put(large.get(k, s.data) if s.kind != elf.SHT_NOBITS else b"", s.align if s.size else 1)
        headers.append(form.shdr.pack(names.add(s.name), s.kind, s.flags, 0, start, s.size, 0, 0, s.align, 0))
    for k in relocated:
        rows = obj.sections[k].relocations
        data = b"".join(form.relocation(r.offset, r.symbol, r.kind, r.addend) for r in rows)
        name = names.add((".rela" if form.explicit else ".rel") + obj.sections[k].name)
        kind = elf.SHT_RELA if form.explicit else elf.SHT_REL
        headers.append(form.shdr.pack(name, kind, 0x40, 0, put(data, 8), len(data), symtab, k, 8, form.rel.size))
    table = b"".join(
        form.symbol(strings.add(s.name), s.bind << 4 | s.kind, s.section, s.value, s.size) for s in obj.symbols
    )
    local = sum(s.bind == elf.STB_LOCAL for s in obj.symbols)
    headers.append(form.shdr.pack(names.add(".symtab"), elf.SHT_SYMTAB, 0, 0, put(table, 8), len(table), symtab + 1,
                                  local, 8, form.sym.size))  # fmt: skip
    texts = bytes(strings.data)
    headers.append(form.shdr.pack(names.add(".strtab"), elf.SHT_STRTAB, 0, 0, put(texts, 1), len(texts), 0, 0, 1, 0))
    headers.append(form.shdr.pack(names.add(".note.GNU-stack"), elf.SHT_PROGBITS, 0, 0, at, 0, 0, 0, 1, 0))
    own = names.add(".shstrtab")
    texts = bytes(names.data)
    headers.append(form.shdr.pack(own, elf.SHT_STRTAB, 0, 0, put(texts, 1), len(texts), 0, 0, 1, 0))
    shoff = put(b"".join(headers), 8)
    if len(headers) >= 0xFF00:
        raise LinkError("the object has too many sections", obj.name, f"{len(headers)}")
    counts = 0, len(headers), len(headers) - 1
    out[0] = form.header(elf.ET_REL, obj.machine, obj.flags, 0, shoff, counts)
    return out


class _Strings:
    """A string table; equal strings are stored once."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self.known = {"": 0}

    def add(self, text: str) -> int:
        """The offset of a string."""
        if text not in self.known:
            self.known[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self.known[text]
