"""Programs for machines without a C library here: shared libraries of our linker, put in place as a loader does it, and
written as one executable."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from warpbeam.runtime import elf
from warpbeam.runtime.relocate import MACHINES

_LOAD, _DYNAMIC, _EXECUTABLE = 1, 2, 2
_HASH, _STRTAB, _SYMTAB, _RELA, _RELASZ = 4, 5, 6, 7, 8


@dataclass(slots=True)
class Image:
    """A library in memory: its bytes from `base` on, segments as (flags, start, end), addresses of its symbols."""

    base: int
    memory: bytearray
    segments: list[tuple[int, int, int]]
    symbols: dict[str, int]
    machine: int
    flags: int
    pending: list[tuple[int, str, int]]


def executable(libraries: Sequence[bytes], entry: str, base: int = 0x100000) -> bytes:
    """An ELF executable of 32-bit libraries: they are placed one after the other and find each other's symbols.

    Args:
        libraries: as `link_shared` writes them, for a machine whose relocations have addends.
        entry: where it starts.

    Raises:
        KeyError: if no library defines the entry.
    """
    images: list[Image] = []
    for data in libraries:
        images.append(_loaded(data, base))
        base += -(-len(images[-1].memory) // 0x10000) * 0x10000
    known = {name: at for image in images for name, at in image.symbols.items()}
    for image in images:
        for place, name, addend in image.pending:
            value = known[name] + addend if name in known else 0
            struct.pack_into("<I", image.memory, place, value)
    return _written(images, known[entry])


def _loaded(data: bytes, base: int) -> Image:
    form = elf.ELF32A
    head = form.ehdr.unpack_from(data)
    machine, phoff, flags, count = head[2], head[5], head[7], head[10]
    rows = [form.phdr.unpack_from(data, phoff + k * form.phdr.size) for k in range(count)]
    loads = [row for row in rows if row[0] == _LOAD]
    memory = bytearray(max(row[2] + row[5] for row in loads))
    for _, offset, at, _, size, _, _, _ in loads:
        memory[at : at + size] = data[offset : offset + size]
    dynamic = next(row for row in rows if row[0] == _DYNAMIC)
    tags = dict(form.dyn.iter_unpack(memory[dynamic[2] : dynamic[2] + dynamic[4]]))
    names = list(_symbols(memory, tags))
    image = Image(base, memory, [(row[6], base + row[2], base + row[2] + row[5]) for row in loads],
                  {name: base + value for name, value, section in names if section}, machine, flags, [])  # fmt: skip
    table = memory[tags.get(_RELA, 0) : tags.get(_RELA, 0) + tags.get(_RELASZ, 0)]
    for place, info, addend in form.rel.iter_unpack(table):
        if info & 255 == MACHINES[machine].relative:
            struct.pack_into("<I", memory, place, base + addend)
        else:
            image.pending.append((place, names[info >> 8][0], addend))
    return image


def _symbols(memory: bytearray, tags: dict[int, int]) -> Iterator[tuple[str, int, int]]:
    """Names, values and sections; DT_HASH says how many there are."""
    count = struct.unpack_from("<I", memory, tags[_HASH] + 4)[0]
    start = tags[_SYMTAB]
    for name, _, section, value, _ in elf.ELF32A.symbols(bytes(memory[start : start + 16 * count])):
        at = tags[_STRTAB] + name
        yield memory[at : memory.index(0, at)].decode(), value, section


def _written(images: Sequence[Image], entry: int) -> bytes:
    """Every segment at a file offset that equals its address within a page."""
    form, page = elf.ELF32A, 0x10000
    rows = [(image, *segment) for image in images for segment in image.segments]
    out = bytearray(form.ehdr.size + form.phdr.size * len(rows))
    programs = b""
    for image, flags, start, end in rows:
        out += bytes((start - len(out)) % page)
        programs += form.program(_LOAD, flags, len(out), start, end - start, end - start, page)
        out += image.memory[start - image.base : end - image.base]
    head = form.header(_EXECUTABLE, images[0].machine, images[0].flags, form.ehdr.size, 0, (len(rows), 0, 0))
    fields = list(form.ehdr.unpack(head))
    fields[4] = entry
    out[: form.ehdr.size] = form.ehdr.pack(*fields)
    out[form.ehdr.size : form.ehdr.size + len(programs)] = programs
    return bytes(out)
