"""Laying out and writing an ELF shared library. Used by `linker` only."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import elf

if TYPE_CHECKING:
    from .linker import Output

_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK, _PT_GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
_R, _RW, _RX = 4, 6, 5
_PHDRS = 8  # five loads, dynamic, stack, relro
_BLOB = ".rodata.constants"
_DT = {
    "SONAME": 14, "HASH": 4, "STRTAB": 5, "SYMTAB": 6, "STRSZ": 10, "SYMENT": 11, "RELA": 7, "RELASZ": 8,
    "RELAENT": 9, "RELACOUNT": 0x6FFFFFF9, "REL": 17, "RELSZ": 18, "RELENT": 19, "RELCOUNT": 0x6FFFFFFA,
    "FLAGS": 30, "FLAGS_1": 0x6FFFFFFB,
}  # fmt: skip


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


@dataclass(slots=True)
class Blob:
    """Read-only data for a segment of its own at the end of the file; `symbol` stands for its first byte."""

    symbol: str
    data: memoryview
    address: int = 0


class Names:
    """The dynamic symbols: exports, then imports; and the library's own name."""

    def __init__(self, exports: list[str], imports: list[str], soname: str) -> None:
        self.exports = exports
        self.imports = imports
        words = [*exports, *imports, *([soname] if soname else [])]
        self.strings = b"\0" + b"".join(name.encode() + b"\0" for name in words)
        self.soname_offset = len(self.strings) - len(soname.encode()) - 1 if soname else 0
        self.count = 1 + len(exports) + len(imports)

    def index_of(self, number: int) -> int:
        """The place in the symbol table of the import with a number."""
        return 1 + len(self.exports) + number

    def offset(self, name: str) -> int:
        """Where a name starts among the strings."""
        return self.strings.index(b"\0" + name.encode() + b"\0") + 1

    def hash_table(self) -> bytes:
        """DT_HASH of the exports; imports have places in the chains only, since nobody looks them up here."""
        buckets = [0] * max(len(self.exports), 1)
        chains = [0] * self.count
        for index, name in enumerate(self.exports, 1):
            bucket = elf.sysv_hash(name.encode()) % len(buckets)
            chains[index], buckets[bucket] = buckets[bucket], index
        return struct.pack(f"<{2 + len(buckets) + len(chains)}I", len(buckets), len(chains), *buckets, *chains)


class Layout:
    """Addresses of everything in the library; file offsets equal addresses up to the end of `.data`."""

    def __init__(
        self, form: elf.Format, page: int, outputs: dict[str, Output], names: Names, relocations: tuple[int, int],
        blob: Blob | None,
    ) -> None:  # fmt: skip
        self.form = form
        self.page = page
        self.outputs = outputs
        self.names = names
        self.blob = blob
        self.strings = names.strings
        self.soname_offset = names.soname_offset
        self.relative_count = relocations[0]
        self.rela_count = sum(relocations)
        self.dynsym = form.ehdr.size + _PHDRS * form.phdr.size
        self.dynstr = self.dynsym + form.sym.size * names.count
        self.hash = _up(self.dynstr + len(self.strings), 8)
        self.rela = _up(self.hash + len(names.hash_table()), 8)
        at = self.rela + form.rel.size * self.rela_count
        at = self._put(".rodata", at)
        self.read_end = at
        self.text_start = _up(at, page)
        at = self._put(".text", self.text_start)
        self.text_end = at
        self.relro_start = _up(at, page)
        at = self._put(".data.rel.ro", self.relro_start)
        at = self._put(".got", _up(at, 8))
        self.dynamic = _up(at, 8)
        self.relro_end = _up(self.dynamic + form.dyn.size * (len(self._tags()) + 1), page)
        self.data_start = self.relro_end
        at = self._put(".data", self.data_start)
        self.data_end = at
        self.bss_end = self._put(".bss", at)
        self.blob_offset = 0  # where it is in the file: known when everything before it is made
        if blob is not None:
            blob.address = _up(self.bss_end, page)

    def _put(self, name: str, at: int) -> int:
        output = self.outputs[name]
        output.address = _up(at, output.align)
        return output.address + output.size

    def _tags(self) -> list[tuple[str, int]]:
        tags = [("SONAME", self.soname_offset)] if self.soname_offset else []
        tags += [
            ("HASH", self.hash), ("STRTAB", self.dynstr), ("SYMTAB", self.dynsym), ("STRSZ", len(self.strings)),
            ("SYMENT", self.form.sym.size),
        ]  # fmt: skip
        if self.rela_count:
            size = self.form.rel.size
            name = "RELA" if self.form.explicit else "REL"
            tags += [(name, self.rela), (f"{name}SZ", size * self.rela_count), (f"{name}ENT", size),
                     (f"{name}COUNT", self.relative_count)]  # fmt: skip
        return [*tags, ("FLAGS", 8), ("FLAGS_1", 1)]  # bind now

    def dynamic_bytes(self) -> bytes:
        """The dynamic section."""
        dyn = self.form.dyn
        return b"".join(dyn.pack(_DT[tag], value) for tag, value in self._tags()) + dyn.pack(0, 0)

    def program_headers(self) -> bytes:
        """The program headers."""
        dynamic_size = self.form.dyn.size * (len(self._tags()) + 1)
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
        used = [(*row[:3], *row[2:]) for row in rows if row[0] != _PT_LOAD or row[4]]
        if self.blob is not None and self.blob.data.nbytes:
            size = self.blob.data.nbytes  # after the other loads, which are sorted by address
            last = max(i for i, row in enumerate(used) if row[0] == _PT_LOAD)
            used.insert(last + 1, (_PT_LOAD, _R, self.blob_offset, self.blob.address, size, size, self.page))
        return b"".join(self.form.program(*row) for row in used)


def write(
    layout: Layout,
    like: elf.Object,
    exports: Sequence[tuple[str, int, int, int]],
    rela: Sequence[tuple[int, int, int, int]],
) -> list[bytes | memoryview]:
    """The library's bytes, in pieces.

    Args:
        like: an object for the same machine.
        exports: name, address, size, symbol type of each exported symbol, in the order of `layout.names`.
        rela: place, symbol, kind and addend of each load-time relocation.
    """
    form = layout.form
    outputs, known = layout.outputs, layout.names
    sections = _Sections(layout)
    image = bytearray(layout.data_end)
    for name in (".rodata", ".text", ".data.rel.ro", ".got", ".data"):
        image[outputs[name].address : outputs[name].address + outputs[name].size] = outputs[name].image
    dynsym = bytearray(form.sym.size)
    for name, address, size, kind in exports:
        place = sections.index_of(address)
        dynsym += form.symbol(known.offset(name), elf.STB_GLOBAL << 4 | kind, place, address, size)
    for name in known.imports:
        dynsym += form.symbol(known.offset(name), elf.STB_WEAK << 4, elf.SHN_UNDEF, 0, 0)
    names_at = _up(len(image), 8)
    table_size = sections.names_size()
    shoff = _up(names_at + table_size, 8)
    count = len(sections.rows) + 2
    end = shoff + count * form.shdr.size
    if layout.blob is not None and layout.blob.data.nbytes:
        layout.blob_offset = _up(end, layout.page)
    names, headers = sections.tables(names_at)
    phdrs = layout.program_headers()
    pieces = (
        (layout.dynsym, bytes(dynsym)), (layout.dynstr, layout.strings), (layout.hash, known.hash_table()),
        (layout.rela, b"".join(form.relocation(*row) for row in rela)), (layout.dynamic, layout.dynamic_bytes()),
        (form.ehdr.size, phdrs),
    )  # fmt: skip
    for at, piece in pieces:
        image[at : at + len(piece)] = piece
    counts = len(phdrs) // form.phdr.size, count, count - 1
    image[: form.ehdr.size] = form.header(elf.ET_DYN, like.machine, like.flags, form.ehdr.size, shoff, counts)
    image += bytes(names_at - len(image)) + names
    image += bytes(shoff - len(image)) + headers
    out: list[bytes | memoryview] = [bytes(image)]
    if layout.blob_offset and layout.blob is not None:
        out += [bytes(layout.blob_offset - end), layout.blob.data]
    return out


class _Sections:
    """The section headers: not needed to load, but debuggers and binutils read them."""

    def __init__(self, layout: Layout) -> None:
        o = layout.outputs
        form = layout.form
        dynamic_size = len(layout.dynamic_bytes())
        rela_size = form.rel.size * layout.rela_count
        rw, alloc = elf.SHF_WRITE | elf.SHF_ALLOC, elf.SHF_ALLOC
        code = alloc | elf.SHF_EXECINSTR
        # name, type, flags, address, size, link, info, align, entry size
        rows = [
            (".dynsym", elf.SHT_DYNSYM, alloc, layout.dynsym, layout.dynstr - layout.dynsym, 2, 1, 8, form.sym.size),
            (".dynstr", elf.SHT_STRTAB, alloc, layout.dynstr, len(layout.strings), 0, 0, 1, 0),
            (".hash", elf.SHT_HASH, alloc, layout.hash, len(layout.names.hash_table()), 1, 0, 8, 4),
            (".rela.dyn" if form.explicit else ".rel.dyn", elf.SHT_RELA if form.explicit else elf.SHT_REL, alloc,
             layout.rela, rela_size, 1, 0, 8, form.rel.size),
            (".rodata", elf.SHT_PROGBITS, alloc, o[".rodata"].address, o[".rodata"].size, 0, 0, o[".rodata"].align, 0),
            (".text", elf.SHT_PROGBITS, code, o[".text"].address, o[".text"].size, 0, 0, o[".text"].align, 0),
            (".data.rel.ro", elf.SHT_PROGBITS, rw, o[".data.rel.ro"].address, o[".data.rel.ro"].size, 0, 0,
             o[".data.rel.ro"].align, 0),
            (".got", elf.SHT_PROGBITS, rw, o[".got"].address, o[".got"].size, 0, 0, 8, form.word),
            (".dynamic", elf.SHT_DYNAMIC, rw, layout.dynamic, dynamic_size, 2, 0, 8, form.dyn.size),
            (".data", elf.SHT_PROGBITS, rw, o[".data"].address, o[".data"].size, 0, 0, o[".data"].align, 0),
            (".bss", elf.SHT_NOBITS, rw, o[".bss"].address, o[".bss"].size, 0, 0, o[".bss"].align, 0),
        ]  # fmt: skip
        fixed = {".dynsym", ".dynstr", ".hash"}
        self.rows = [row for row in rows if row[4] or row[0] in fixed]
        self.layout = layout
        if layout.blob is not None and layout.blob.data.nbytes:
            size = layout.blob.data.nbytes
            self.rows.append((_BLOB, elf.SHT_PROGBITS, alloc, layout.blob.address, size, 0, 0, layout.page, 0))

    def index_of(self, address: int) -> int:
        """Index of the section that contains `address`; SHN_ABS if none does."""
        for index, row in enumerate(self.rows, 1):
            if row[3] <= address < row[3] + row[4]:
                return index
        return elf.SHN_ABS

    def names_size(self) -> int:
        """Bytes of the section name table."""
        return 1 + sum(len(row[0]) + 1 for row in self.rows) + len(".shstrtab") + 1

    def tables(self, names_offset: int) -> tuple[bytes, bytes]:
        """The section name table and the section headers."""
        names = bytearray(b"\0")
        pack = self.layout.form.shdr.pack
        headers = bytearray(self.layout.form.shdr.size)
        for name, kind, flags, address, size, link, info, align, entry in self.rows:
            offset = self.layout.blob_offset if name == _BLOB else address
            headers += pack(len(names), kind, flags, address, offset, size, link, info, align, entry)
            names += name.encode() + b"\0"
        headers += pack(len(names), elf.SHT_STRTAB, 0, 0, names_offset, len(names) + len(".shstrtab") + 1, 0, 0, 1, 0)
        return bytes(names + b".shstrtab\0"), bytes(headers)
