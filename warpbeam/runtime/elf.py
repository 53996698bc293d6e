"""Reading ELF64 relocatable objects: just what the linker needs.

Source of the format: System V gABI, chapter 4; processor supplements for x86-64, AArch64 and RISC-V.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .errors import LinkError

EM_X86_64, EM_AARCH64, EM_RISCV = 62, 183, 243
ET_REL, ET_DYN = 1, 3
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_HASH, SHT_DYNAMIC = 1, 2, 3, 4, 5, 6
SHT_NOBITS, SHT_DYNSYM, SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY = 8, 11, 14, 15, 16
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_TLS = 1, 2, 4, 0x400
SHN_UNDEF, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFFF1, 0xFFF2, 0xFFFF
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE, STT_TLS, STT_GNU_IFUNC = 0, 1, 2, 3, 4, 6, 10

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
SHDR = struct.Struct("<IIQQQQIIQQ")
PHDR = struct.Struct("<IIQQQQQQ")
SYM = struct.Struct("<IBBHQQ")
RELA = struct.Struct("<QQq")
DYN = struct.Struct("<QQ")


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
        LinkError: if `data` is not a 64-bit little-endian relocatable ELF object, or is damaged.
    """
    try:
        return _parse(data, name)
    except (struct.error, IndexError, ValueError) as error:
        raise LinkError("damaged object file", where=name, why=str(error)) from error


def _parse(data: bytes, name: str) -> Object:
    if data[:4] != b"\x7fELF":
        raise LinkError("not an ELF object", where=name, why=f"it starts with {data[:4]!r}")
    ident, kind, machine, _, _, _, shoff, flags, _, _, _, shentsize, shnum, shstrndx = EHDR.unpack_from(data)
    if ident[4:6] != b"\x02\x01" or kind != ET_REL or (shnum and shentsize != SHDR.size):
        raise LinkError("not a 64-bit little-endian relocatable object", where=name, why=f"type {kind}")
    _slice(data, shoff, SHDR.size if shoff else 0, name)
    if shoff and shnum == 0:  # more than 0xff00 sections: the numbers are in section 0
        first = SHDR.unpack_from(data, shoff)
        shnum = first[5]
        shstrndx = first[6] if shstrndx == SHN_XINDEX else shstrndx
    _slice(data, shoff, shnum * SHDR.size, name)
    headers = [SHDR.unpack_from(data, shoff + i * SHDR.size) for i in range(shnum)]
    blobs = [b"" if h[1] == SHT_NOBITS else _slice(data, h[4], h[5], name) for h in headers]
    names = blobs[shstrndx] if headers else b""
    sections = [
        Section(_text(names, h[0]), h[1], h[2], blob, h[5], max(h[8], 1))
        for h, blob in zip(headers, blobs, strict=True)
    ]
    symbols: list[Symbol] = []
    for index, h in enumerate(headers):
        if h[1] == SHT_SYMTAB:
            symbols = _symbols(blobs[index], blobs[h[6]], name)
    for index, h in enumerate(headers):
        if h[1] == SHT_RELA:
            entries = RELA.iter_unpack(blobs[index])
            sections[h[7]].relocations += [Relocation(o, i & 0xFFFFFFFF, i >> 32, a) for o, i, a in entries]
        elif h[1] == 9:
            raise LinkError("relocations without addends", where=f"{name}, section {sections[index].name}")
    return Object(name, machine, sections, symbols, flags)


def _symbols(table: bytes, strings: bytes, name: str) -> list[Symbol]:
    symbols = []
    for st_name, info, _other, shndx, value, size in SYM.iter_unpack(table):
        if shndx == SHN_XINDEX:
            raise LinkError("object has too many sections", where=name, why="extended section indices")
        symbols.append(Symbol(_text(strings, st_name), info >> 4, info & 15, shndx, value, size))
    return symbols


def _slice(data: bytes, offset: int, size: int, name: str) -> bytes:
    if offset + size > len(data):
        raise LinkError("damaged object file", where=name, why="a section reaches past the end of the file")
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
