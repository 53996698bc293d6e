"""Reading ELF relocatable objects of 64 and 32 bits: just what the linker needs.

Source of the format: System V gABI, chapter 4; processor supplements for x86-64, AArch64, RISC-V, ARM
and Hexagon.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import LinkError

EM_ARM, EM_X86_64, EM_HEXAGON, EM_AARCH64, EM_RISCV = 40, 62, 164, 183, 243
ET_REL, ET_DYN = 1, 3
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_HASH, SHT_DYNAMIC = 1, 2, 3, 4, 5, 6
SHT_REL = 9
SHT_NOBITS, SHT_DYNSYM, SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY = 8, 11, 14, 15, 16
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_TLS = 1, 2, 4, 0x400
SHN_UNDEF, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFFF1, 0xFFF2, 0xFFFF
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE, STT_TLS, STT_GNU_IFUNC = 0, 1, 2, 3, 4, 6, 10

#: sections that neither libraries nor merged objects keep: unwinding tables, notes
DROPPED = (".eh_frame", ".ARM.ex", ".note", ".comment")


@dataclass(frozen=True, slots=True)
class Format:
    """The layout of one class of ELF files.

    Attributes:
        word: bytes of an address.
        code: EI_CLASS.
        rel: a relocation: offset, symbol and kind, and the addend where `explicit`.
        shift: where the symbol stands in a relocation's second word.
        explicit: whether relocations hold their addends; otherwise these stand at the places that are patched.
    """

    word: int
    code: int
    ehdr: struct.Struct
    shdr: struct.Struct
    phdr: struct.Struct
    sym: struct.Struct
    rel: struct.Struct
    dyn: struct.Struct
    shift: int
    explicit: bool

    def header(
        self, kind: int, machine: int, flags: int, phoff: int, shoff: int, counts: tuple[int, int, int]
    ) -> bytes:
        """The file header; `counts`: program headers, section headers, the index of the section names."""
        programs, sections, names = counts
        ident = b"\x7fELF" + bytes((self.code, 1, 1)) + bytes(9)
        sizes = (self.phdr.size if programs else 0, programs, self.shdr.size, sections, names)
        return self.ehdr.pack(ident, kind, machine, 1, 0, phoff, shoff, flags, self.ehdr.size, *sizes)

    def program(self, kind: int, flags: int, offset: int, at: int, size: int, memory: int, align: int) -> bytes:
        """A program header."""
        if self.word == 8:
            return self.phdr.pack(kind, flags, offset, at, at, size, memory, align)
        return self.phdr.pack(kind, offset, at, at, size, memory, flags, align)

    def symbol(self, name: int, info: int, section: int, value: int, size: int) -> bytes:
        """A row of a symbol table."""
        if self.word == 8:
            return self.sym.pack(name, info, 0, section, value, size)
        return self.sym.pack(name, value, size, info, 0, section)

    def symbols(self, table: bytes) -> Iterator[tuple[int, int, int, int, int]]:
        """(name, info, section, value, size) of each row of a symbol table."""
        for row in self.sym.iter_unpack(table):
            if self.word == 8:
                yield row[0], row[1], row[3], row[4], row[5]
            else:
                yield row[0], row[3], row[5], row[1], row[2]

    def relocation(self, offset: int, symbol: int, kind: int, addend: int) -> bytes:
        """A relocation; its addend is lost where they are not explicit."""
        info = symbol << self.shift | kind
        return self.rel.pack(offset, info, addend) if self.explicit else self.rel.pack(offset, info)

    def pointer(self, image: bytearray, offset: int, value: int) -> None:
        """Writes an address."""
        image[offset : offset + self.word] = (value & (1 << 8 * self.word) - 1).to_bytes(self.word, "little")


_S = struct.Struct
ELF64 = Format(
    8, 2, _S("<16sHHIQQQIHHHHHH"), _S("<IIQQQQIIQQ"), _S("<IIQQQQQQ"), _S("<IBBHQQ"), _S("<QQq"), _S("<QQ"), 32, True
)
ELF32 = Format(
    4, 1, _S("<16sHHIIIIIHHHHHH"), _S("<IIIIIIIIII"), _S("<IIIIIIII"), _S("<IIIBBH"), _S("<II"), _S("<II"), 8, False
)


ELF32A = replace(ELF32, rel=_S("<IIi"), explicit=True)


def format_of(machine: int) -> Format:
    """The format of a machine's files."""
    return {EM_ARM: ELF32, EM_HEXAGON: ELF32A}.get(machine, ELF64)


@dataclass(slots=True)
class Relocation:
    """One place to patch: `offset` within its section, machine-specific `kind`, index of the symbol, addend."""

    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(slots=True)
class Section:
    """A section of one object; `address` is where the linker puts it."""

    name: str
    kind: int
    flags: int
    data: bytes
    size: int
    align: int
    relocations: list[Relocation] = field(default_factory=list)
    address: int = -1


@dataclass(slots=True)
class Symbol:
    """A symbol of one object; `section` is an index into the object's sections, or an SHN_ constant."""

    name: str
    bind: int
    kind: int
    section: int
    value: int
    size: int


@dataclass(slots=True)
class Object:
    """A parsed relocatable object; `flags` are the machine's (e_flags: RISC-V's calling convention)."""

    name: str
    machine: int
    sections: list[Section]
    symbols: list[Symbol]
    flags: int = 0


def parse_object(data: bytes, name: str) -> Object:
    """Parses one relocatable object.

    Raises:
        LinkError: if `data` is not a little-endian relocatable ELF object, or is damaged.
    """
    try:
        return _parse(data, name)
    except (struct.error, IndexError, ValueError) as error:
        raise LinkError("damaged object file", where=name, why=str(error)) from error


def exported_data(data: bytes | mmap.mmap, symbol: str, name: str) -> bytes | None:
    """The bytes of a data object that a shared library exports; None if it exports none of this name.

    Raises:
        LinkError: if `data` is no little-endian shared library of a known machine, is cut short, or is damaged.
    """
    try:
        form, _, _, headers, _ = _headers(data, name, ET_DYN)
        phoff, _, _, _, size, count = form.ehdr.unpack_from(data)[5:11]
        for k in range(count):
            segment = form.phdr.unpack_from(data, phoff + k * size)
            start, length = (segment[1], segment[4]) if form is ELF32 else (segment[2], segment[5])
            _slice(data, start + length, 0, name)
        for h in headers:
            if h[1] == SHT_DYNSYM:
                strings = headers[h[6]]
                table, texts = (_slice(data, x[4], x[5], name) for x in (h, strings))
                for s in _symbols(form, table, texts, name):
                    if s.name == symbol and 0 < s.section < len(headers):
                        home = headers[s.section]
                        return _slice(data, home[4] + s.value - home[3], s.size, name)
        return None
    except (struct.error, IndexError, ValueError) as error:
        raise LinkError("damaged library", where=name, why=str(error)) from error


def _headers(data: bytes | mmap.mmap, name: str, wanted: int) -> tuple[Format, int, int, list[Any], int]:
    """(format, machine, flags, section headers, number of the section with their names) of a file of a type."""
    if data[:4] != b"\x7fELF":
        raise LinkError("not an ELF object", where=name, why=f"it starts with {data[:4]!r}")
    form = ELF32 if data[4:5] == b"\x01" else ELF64
    ident, kind, machine, _, _, _, shoff, flags, _, _, _, shentsize, shnum, shstrndx = form.ehdr.unpack_from(data)
    form = format_of(machine)
    fits = ident[4:6] == bytes((form.code, 1))
    if not fits or kind != wanted or (shnum and shentsize != form.shdr.size):
        what = "relocatable object" if wanted == ET_REL else "shared library"
        raise LinkError(f"not a {what} of a known machine", where=name,
                        why=f"type {kind}, class {ident[4]}, machine {machine}")  # fmt: skip
    _slice(data, shoff, form.shdr.size if shoff else 0, name)
    if shoff and shnum == 0:  # more than 0xff00 sections: the numbers are in section 0
        first = form.shdr.unpack_from(data, shoff)
        shnum = first[5]
        shstrndx = first[6] if shstrndx == SHN_XINDEX else shstrndx
    _slice(data, shoff, shnum * form.shdr.size, name)
    headers = [form.shdr.unpack_from(data, shoff + i * form.shdr.size) for i in range(shnum)]
    return form, machine, flags, headers, shstrndx


def _parse(data: bytes, name: str) -> Object:
    form, machine, flags, headers, shstrndx = _headers(data, name, ET_REL)
    blobs = [b"" if h[1] == SHT_NOBITS else _slice(data, h[4], h[5], name) for h in headers]
    names = blobs[shstrndx] if headers else b""
    sections = [
        Section(_text(names, h[0]), h[1], h[2], blob, h[5], max(h[8], 1))
        for h, blob in zip(headers, blobs, strict=True)
    ]
    symbols: list[Symbol] = []
    for index, h in enumerate(headers):
        if h[1] == SHT_SYMTAB:
            symbols = _symbols(form, blobs[index], blobs[h[6]], name)
    for index, h in enumerate(headers):
        if h[1] == (SHT_RELA if form.explicit else SHT_REL):
            low = (1 << form.shift) - 1
            for offset, info, *addend in form.rel.iter_unpack(blobs[index]):
                found = addend[0] if addend else _addend(sections[h[7]], offset, info & low)
                sections[h[7]].relocations.append(Relocation(offset, info & low, info >> form.shift, found))
        elif h[1] in (SHT_REL, SHT_RELA):
            raise LinkError("relocations of another kind than the machine's", f"{name}, section {sections[index].name}")
    return Object(name, machine, sections, symbols, flags)


def _addend(section: Section, offset: int, kind: int) -> int:
    """The addend that stands at an ARM place: in a branch (kinds 28 and 29) words counted in 24 bits, else a word."""
    word = int.from_bytes(section.data[offset : offset + 4], "little")
    bits = 24 if kind in (28, 29) else 32
    value = word & (1 << bits) - 1
    value -= (value >> bits - 1) << bits
    return value * 4 if bits == 24 else value


def _symbols(form: Format, table: bytes, strings: bytes, name: str) -> list[Symbol]:
    symbols = []
    for st_name, info, shndx, value, size in form.symbols(table):
        if shndx == SHN_XINDEX:
            raise LinkError("object has too many sections", where=name, why="extended section indices")
        symbols.append(Symbol(_text(strings, st_name), info >> 4, info & 15, shndx, value, size))
    return symbols


def _slice(data: bytes | mmap.mmap, offset: int, size: int, name: str) -> bytes:
    if offset < 0 or offset + size > len(data):
        raise LinkError("damaged object file", where=name, why="a part reaches past the end of the file")
    return data[offset : offset + size]


def _text(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode() if offset < len(strings) else ""


def sysv_hash(name: bytes) -> int:
    """The hash function of DT_HASH (gABI, chapter 5)."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value
