"""Laying out and writing an ELF shared library. Used by `linker` only."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import elf

if TYPE_CHECKING:
    from .linker import Output

_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK, _PT_GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
_R, _RW, _RX = 4, 6, 5
_PHDRS = 7  # four loads, dynamic, stack, relro
_DT = {
    "SONAME": 14, "HASH": 4, "STRTAB": 5, "SYMTAB": 6, "STRSZ": 10, "SYMENT": 11, "RELA": 7, "RELASZ": 8,
    "RELAENT": 9, "RELACOUNT": 0x6FFFFFF9, "FLAGS": 30, "FLAGS_1": 0x6FFFFFFB,
}  # fmt: skip


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


class Layout:
    """Addresses of everything in the library; file offsets equal addresses up to the end of `.data`."""

    def __init__(
        self, page: int, outputs: dict[str, Output], exports: list[str], soname: str, relative_count: int
    ) -> None:
        self.page = page
        self.outputs = outputs
        self.exports = exports
        self.strings = b"\0" + b"".join(name.encode() + b"\0" for name in [*exports, *([soname] if soname else [])])
        self.soname_offset = len(self.strings) - len(soname.encode()) - 1 if soname else 0
        self.relative_count = relative_count
        self.dynsym = elf.EHDR.size + _PHDRS * elf.PHDR.size
        self.dynstr = self.dynsym + elf.SYM.size * (len(exports) + 1)
        self.hash = _up(self.dynstr + len(self.strings), 8)
        self.rela = _up(self.hash + 4 * (2 + max(len(exports), 1) + len(exports) + 1), 8)
        at = self.rela + elf.RELA.size * relative_count
        at = self._put(".rodata", at)
        self.read_end = at
        self.text_start = _up(at, page)
        at = self._put(".text", self.text_start)
        self.text_end = at
        self.relro_start = _up(at, page)
        at = self._put(".data.rel.ro", self.relro_start)
        at = self._put(".got", _up(at, 8))
        self.dynamic = _up(at, 8)
        self.relro_end = _up(self.dynamic + elf.DYN.size * (len(self._tags()) + 1), page)
        self.data_start = self.relro_end
        at = self._put(".data", self.data_start)
        self.data_end = at
        self.bss_end = self._put(".bss", at)

    def _put(self, name: str, at: int) -> int:
        output = self.outputs[name]
        output.address = _up(at, output.align)
        return output.address + output.size

    def _tags(self) -> list[tuple[str, int]]:
        tags = [("SONAME", self.soname_offset)] if self.soname_offset else []
        tags += [
            ("HASH", self.hash), ("STRTAB", self.dynstr), ("SYMTAB", self.dynsym), ("STRSZ", len(self.strings)),
            ("SYMENT", elf.SYM.size),
        ]  # fmt: skip
        if self.relative_count:
            size = elf.RELA.size
            tags += [("RELA", self.rela), ("RELASZ", size * self.relative_count), ("RELAENT", size),
                     ("RELACOUNT", self.relative_count)]  # fmt: skip
        return [*tags, ("FLAGS", 8), ("FLAGS_1", 1)]  # bind now

    def dynamic_bytes(self) -> bytes:
        """The dynamic section."""
        return b"".join(elf.DYN.pack(_DT[tag], value) for tag, value in self._tags()) + elf.DYN.pack(0, 0)

    def program_headers(self) -> bytes:
        """The seven program headers."""
        dynamic_size = elf.DYN.size * (len(self._tags()) + 1)
        relro = self.relro_end - self.relro_start
        rows = [
            (_PT_LOAD, _R, 0, self.read_end, self.read_end, self.page),
            (_PT_LOAD, _RX, self.text_start, *[self.text_end - self.text_start] * 2, self.page),
            (_PT_LOAD, _RW, self.relro_start, relro, relro, self.page),
            (
                _PT_LOAD,
                _RW,
                self.data_start,
                self.data_end - self.data_start,
                self.bss_end - self.data_start,
                self.page,
            ),
            (_PT_DYNAMIC, _RW, self.dynamic, dynamic_size, dynamic_size, 8),
            (_PT_GNU_STACK, _RW, 0, 0, 0, 16),
            (_PT_GNU_RELRO, _R, self.relro_start, relro, relro, 1),
        ]
        used = [row for row in rows if row[0] != _PT_LOAD or row[4]]
        return b"".join(
            elf.PHDR.pack(kind, flags, at, at, at, size, mem, align) for kind, flags, at, size, mem, align in used
        )


def _hash_table(names: Sequence[str]) -> bytes:
    buckets = [0] * max(len(names), 1)
    chains = [0] * (len(names) + 1)
    for index, name in enumerate(names, 1):
        bucket = elf.sysv_hash(name.encode()) % len(buckets)
        chains[index], buckets[bucket] = buckets[bucket], index
    return struct.pack(f"<{2 + len(buckets) + len(chains)}I", len(buckets), len(chains), *buckets, *chains)


def write(
    layout: Layout,
    machine: int,
    relative: int,
    exports: Sequence[tuple[str, int, int, int]],
    relatives: Sequence[tuple[int, int]],
) -> bytes:
    """The library's bytes.

    Args:
        exports: name, address, size, symbol type of each exported symbol, in the order of `layout.exports`.
        relatives: place and addend of each load-time relocation.
    """
    outputs = layout.outputs
    sections = _Sections(layout)
    image = bytearray(layout.data_end)
    for name in (".rodata", ".text", ".data.rel.ro", ".got", ".data"):
        image[outputs[name].address : outputs[name].address + outputs[name].size] = outputs[name].image
    dynsym = bytearray(elf.SYM.size)
    for name, address, size, kind in exports:
        offset = layout.strings.index(b"\0" + name.encode() + b"\0") + 1
        dynsym += elf.SYM.pack(offset, elf.STB_GLOBAL << 4 | kind, 0, sections.index_of(address), address, size)
    rela = b"".join(elf.RELA.pack(place, relative, addend) for place, addend in relatives)
    phdrs = layout.program_headers()
    pieces = (
        (layout.dynsym, bytes(dynsym)), (layout.dynstr, layout.strings), (layout.hash, _hash_table(layout.exports)),
        (layout.rela, rela), (layout.dynamic, layout.dynamic_bytes()), (elf.EHDR.size, phdrs),
    )  # fmt: skip
    for at, piece in pieces:
        image[at : at + len(piece)] = piece
    names, headers = sections.tables(_up(len(image), 8))
    shoff = _up(_up(len(image), 8) + len(names), 8)
    count = len(headers) // elf.SHDR.size
    image[: elf.EHDR.size] = elf.EHDR.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9), elf.ET_DYN, machine, 1, 0, elf.EHDR.size, shoff, 0, elf.EHDR.size,
        elf.PHDR.size, len(phdrs) // elf.PHDR.size, elf.SHDR.size, count, count - 1,
    )  # fmt: skip
    image += bytes(_up(len(image), 8) - len(image)) + names
    image += bytes(shoff - len(image)) + headers
    return bytes(image)


class _Sections:
    """The section headers: not needed to load, but debuggers and binutils read them."""

    def __init__(self, layout: Layout) -> None:
        o = layout.outputs
        dynamic_size = elf.DYN.size * (len(layout.dynamic_bytes()) // elf.DYN.size)
        rela_size = elf.RELA.size * layout.relative_count
        rw, alloc = elf.SHF_WRITE | elf.SHF_ALLOC, elf.SHF_ALLOC
        code = alloc | elf.SHF_EXECINSTR
        # name, type, flags, address, size, link, info, align, entry size
        rows = [
            (".dynsym", elf.SHT_DYNSYM, alloc, layout.dynsym, layout.dynstr - layout.dynsym, 2, 1, 8, elf.SYM.size),
            (".dynstr", elf.SHT_STRTAB, alloc, layout.dynstr, len(layout.strings), 0, 0, 1, 0),
            (".hash", elf.SHT_HASH, alloc, layout.hash, len(_hash_table(layout.exports)), 1, 0, 8, 4),
            (".rela.dyn", elf.SHT_RELA, alloc, layout.rela, rela_size, 1, 0, 8, elf.RELA.size),
            (".rodata", elf.SHT_PROGBITS, alloc, o[".rodata"].address, o[".rodata"].size, 0, 0, o[".rodata"].align, 0),
            (".text", elf.SHT_PROGBITS, code, o[".text"].address, o[".text"].size, 0, 0, o[".text"].align, 0),
            (".data.rel.ro", elf.SHT_PROGBITS, rw, o[".data.rel.ro"].address, o[".data.rel.ro"].size, 0, 0,
             o[".data.rel.ro"].align, 0),
            (".got", elf.SHT_PROGBITS, rw, o[".got"].address, o[".got"].size, 0, 0, 8, 8),
            (".dynamic", elf.SHT_DYNAMIC, rw, layout.dynamic, dynamic_size, 2, 0, 8, elf.DYN.size),
            (".data", elf.SHT_PROGBITS, rw, o[".data"].address, o[".data"].size, 0, 0, o[".data"].align, 0),
            (".bss", elf.SHT_NOBITS, rw, o[".bss"].address, o[".bss"].size, 0, 0, o[".bss"].align, 0),
        ]  # fmt: skip
        fixed = {".dynsym", ".dynstr", ".hash"}
        self.rows = [row for row in rows if row[4] or row[0] in fixed]

    def index_of(self, address: int) -> int:
        """Index of the section that contains `address`; SHN_ABS if none does."""
        for index, row in enumerate(self.rows, 1):
            if row[3] <= address < row[3] + row[4]:
                return index
        return elf.SHN_ABS

    def tables(self, names_offset: int) -> tuple[bytes, bytes]:
        """The section name table and the section headers."""
        names = bytearray(b"\0")
        headers = bytearray(elf.SHDR.size)
        for name, kind, flags, address, size, link, info, align, entry in self.rows:
            headers += elf.SHDR.pack(len(names), kind, flags, address, address, size, link, info, align, entry)
            names += name.encode() + b"\0"
        headers += elf.SHDR.pack(
            len(names), elf.SHT_STRTAB, 0, 0, names_offset, len(names) + len(".shstrtab") + 1, 0, 0, 1, 0
        )
        return bytes(names + b".shstrtab\0"), bytes(headers)
