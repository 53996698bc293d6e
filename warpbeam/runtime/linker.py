"""A small linker: our own relocatable objects in, one loadable ELF shared library out.

Generated objects are closed (no undefined symbols outside the set that is linked), so no symbol is ever looked up at
load time and one kind of dynamic relocation is enough: "load base + constant". The result has four segments, each in
pages of its own: headers and read-only data; code; data that is read-only once relocated; data. None is writable and
executable, the stack is not executable. Objects of LLVM and of `gcc -fPIC` link.

Libraries for other programs may have a fifth segment, `Blob`: a model's constants, read-only and page-aligned, so that
the system maps them and copies nothing. They may also name weak symbols (`imports`) whose addresses the system's loader
puts into pointers in writable data: null where the program has no such symbol.

Left out on purpose: merging of string sections, exception tables (`.eh_frame` is dropped), debug information,
constructors, thread-local and indirect symbols. What would need them is refused by name.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import elf, elf_writer
from .elf import Object, Section, Symbol
from .elf_writer import Blob
from .errors import LinkError
from .relocate import MACHINES, X86_ABSOLUTE_32, Machine, Site, relax_x86

_REFUSED = {
    elf.SHT_INIT_ARRAY: "a constructor",
    elf.SHT_FINI_ARRAY: "a destructor",
    elf.SHT_PREINIT_ARRAY: "a constructor",
}
#: the small code model reaches no further
_MAX_BYTES = 1 << 31
#: output sections in file order: name, flags, holds file bytes
OUTPUTS = (".rodata", ".text", ".data.rel.ro", ".got", ".data", ".bss")


@dataclass(slots=True)
class Output:
    """An output section: the input sections in it, its address and bytes."""

    name: str
    parts: list[Section] = field(default_factory=list)
    size: int = 0
    align: int = 1
    address: int = 0
    image: bytearray = field(default_factory=bytearray)


def link_shared(objects: Sequence[bytes], exports: Sequence[str], soname: str = "") -> bytes:
    """Links relocatable objects into a shared library.

    Args:
        objects: objects for x86-64, AArch64, RISC-V, ARM or Hexagon, position-independent code, small code model.
        exports: names of the symbols to export; every other symbol is hidden.
        soname: the library's name for the loader; normally none.

    Returns:
        The bytes of the library; the same input gives the same bytes.

    Raises:
        LinkError: for undefined or doubly defined symbols, for relocations that cannot be resolved statically, for
            constructors, thread-local storage and damaged objects.
    """
    if not objects:
        raise LinkError("nothing to link", hint="pass at least one object")
    parsed = [elf.parse_object(bytes(data), f"object {i}") for i, data in enumerate(objects)]
    return bytes(link_parsed(parsed, exports, soname)[0])


def link_parsed(
    objects: list[Object], exports: Sequence[str], soname: str = "", imports: Sequence[str] = (),
    blob: Blob | None = None,
) -> list[bytes | memoryview]:  # fmt: skip
    """As `link_shared`, of parsed objects, which are changed.

    Args:
        imports: undefined weak symbols that the system's loader looks up.
        blob: read-only data for a segment of its own.

    Returns:
        The file in pieces.

    Raises:
        LinkError: as `link_shared` does; also if an import is used other than by a pointer in writable data.
    """
    return _Linker(objects, imports, blob).link(exports, soname)


class _Linker:
    def __init__(self, objects: list[Object], imports: Sequence[str] = (), blob: Blob | None = None) -> None:
        machines = {o.machine for o in objects}
        if len(machines) > 1 or objects[0].machine not in MACHINES:
            known = ", ".join(m.name for m in MACHINES.values())
            raise LinkError("objects for unknown or different machines", why=f"ELF machines {sorted(machines)}",
                            hint=f"machines known: {known}")  # fmt: skip
        self.objects = objects
        self.machine: Machine = MACHINES[objects[0].machine]
        self.form = elf.format_of(objects[0].machine)
        self.outputs = {name: Output(name) for name in OUTPUTS}
        self.globals: dict[str, tuple[Object, Symbol]] = {}
        self.got: dict[tuple[int, int, str], int] = {}
        self.relatives: dict[int, int] = {}
        #: place of an instruction with the high part of a distance -> that distance
        self.distances: dict[int, int] = {}
        self.blob = blob
        self.imports = sorted(set(imports))
        #: place -> (number of the import, addend)
        self.lookups: dict[int, tuple[int, int]] = {}

    def link(self, exports: Sequence[str], soname: str) -> list[bytes | memoryview]:
        self._collect_globals()
        missing = [name for name in exports if name not in self.globals]
        if missing:
            raise LinkError(f"exported symbols are not defined: {', '.join(missing)}",
                            hint="define them in one of the objects, or do not export them")  # fmt: skip
        self._check_undefined()
        self._place_sections()
        self._plan_got()
        self.outputs[".got"].size = self.form.word * len(self.got)
        names = elf_writer.Names(sorted(set(exports)), self.imports, soname)
        relocations = self._count_relative(), self._count_lookups()
        layout = elf_writer.Layout(self.form, self.machine.page, self.outputs, names, relocations, self.blob)
        for output in self.outputs.values():
            for part in output.parts:
                part.address += output.address
        self._relocate()
        if (len(self.relatives), len(self.lookups)) != relocations:
            raise LinkError("damaged object file", why="two relocations for the same place")
        table = [(name, *self._export(name)) for name in names.exports]
        rela = [(place, 0, self.machine.relative, addend) for place, addend in sorted(self.relatives.items())]
        for place, (number, addend) in sorted(self.lookups.items()):
            rela.append((place, names.index_of(number), self.machine.absolute, addend))
        return elf_writer.write(layout, self.objects[0], table, rela)

    def _export(self, name: str) -> tuple[int, int, int]:
        owner, symbol = self.globals[name]
        return self._address(owner, symbol), symbol.size, symbol.kind

    def _import(self, obj: Object, index: int) -> int | None:
        """The number of the import that a symbol is, if it is one."""
        symbol = _symbol(obj, index)
        if symbol.section != elf.SHN_UNDEF or symbol.name not in self.imports or symbol.name in self.globals:
            return None
        return self.imports.index(symbol.name)

    def _collect_globals(self) -> None:
        if self.blob is not None:  # its address is known last: a symbol of an object without sections stands for it
            size = self.blob.data.nbytes
            symbol = Symbol(self.blob.symbol, elf.STB_GLOBAL, elf.STT_OBJECT, elf.SHN_ABS, -1, size)
            self.globals[symbol.name] = (Object("constants", self.objects[0].machine, [], []), symbol)
        for obj in self.objects:
            for symbol in obj.symbols:
                if symbol.kind in (elf.STT_TLS, elf.STT_GNU_IFUNC):
                    raise LinkError(f"symbol {symbol.name!r} is thread-local or indirect", obj.name)
                if symbol.bind == elf.STB_LOCAL or symbol.section == elf.SHN_UNDEF:
                    continue
                known = self.globals.get(symbol.name)
                common = known is not None and known[1].section == symbol.section == elf.SHN_COMMON
                if known is not None and common:
                    known[1].size = max(known[1].size, symbol.size)
                    known[1].value = max(known[1].value, symbol.value)
                if known is None or _strength(known[1]) < _strength(symbol):
                    self.globals[symbol.name] = (obj, symbol)
                elif _strength(symbol) == _strength(known[1]) == 2:
                    raise LinkError(f"symbol {symbol.name!r} is defined twice", f"{known[0].name} and {obj.name}",
                                    hint="give the symbols different names, or make one of them internal")  # fmt: skip

    def _check_undefined(self) -> None:
        missing: dict[str, str] = {}
        for obj in self.objects:
            used = {r.symbol for s in obj.sections if _kept(s) for r in s.relocations}
            for index in sorted(used):
                symbol = _symbol(obj, index)
                undefined = symbol.section == elf.SHN_UNDEF and index and symbol.bind != elf.STB_WEAK
                if undefined and symbol.name not in self.globals and symbol.name != "_GLOBAL_OFFSET_TABLE_":
                    missing.setdefault(symbol.name, obj.name)
        if missing:
            text = ", ".join(f"{name!r} (used in {where})" for name, where in missing.items())
            raise LinkError(f"undefined symbols: {text}", why="generated code must not need other libraries",
                            hint="link the object that defines them, or avoid what calls them")  # fmt: skip

    def _place_sections(self) -> None:
        for obj in self.objects:
            for section in obj.sections:
                if section.kind in _REFUSED:
                    raise LinkError(f"section {section.name} holds {_REFUSED[section.kind]}", obj.name)
                if section.flags & elf.SHF_TLS:
                    raise LinkError(f"section {section.name} is thread-local", obj.name)
                if _kept(section):
                    self._check_places(obj, section)
                    self._append(self.outputs[_output_of(section)], section)
            for symbol in obj.symbols:
                if symbol.section == elf.SHN_COMMON and self.globals.get(symbol.name, (None, None))[1] is symbol:
                    common = Section(symbol.name, elf.SHT_NOBITS, 3, b"", symbol.size, max(symbol.value, 1))
                    self._append(self.outputs[".bss"], common)
                    obj.sections.append(common)
                    symbol.section, symbol.value = len(obj.sections) - 1, 0

    def _check_places(self, obj: Object, section: Section) -> None:
        for r in section.relocations:
            width = self.form.word if r.kind == self.machine.absolute else self.machine.widths.get(r.kind, 4)
            if section.kind == elf.SHT_NOBITS or r.offset > section.size - width:
                raise LinkError("a relocation lies outside its section", f"{obj.name}, section {section.name}")

    def _append(self, output: Output, section: Section) -> None:
        if section.align & (section.align - 1) or section.align > self.machine.page:
            raise LinkError(f"section {section.name} wants alignment {section.align}", why="more than a page, or odd")
        if section.size > _MAX_BYTES:
            raise LinkError(f"section {section.name} is too large", why=f"{section.size} bytes")
        start = -(-output.size // section.align) * section.align
        section.address = start
        output.size = start + section.size
        output.align = max(output.align, section.align)
        output.parts.append(section)

    def _plan_got(self) -> None:
        """Reserves GOT entries: x86-64 forms that cannot be relaxed, all of AArch64's, undefined weak symbols."""
        for number, obj in enumerate(self.objects):
            for section in obj.sections:
                if section.address < 0:
                    continue
                for r in section.relocations:
                    if r.kind in self.machine.got and not self._direct(obj, section, r):
                        self.got.setdefault(self._got_key(number, obj, r.symbol), len(self.got))

    def _direct(self, obj: Object, section: Section, r: elf.Relocation) -> bool:
        """Whether an access through the GOT can be relaxed to a direct one."""
        if obj.machine != elf.EM_X86_64 or not self._moves(obj, r.symbol):
            return False
        trial = Site(bytearray(section.data[max(r.offset - 2, 0) : r.offset + 4]), min(r.offset, 2), 0, 0, "")
        return relax_x86(trial, r.kind)

    def _got_key(self, number: int, obj: Object, index: int) -> tuple[int, int, str]:
        symbol = _symbol(obj, index)
        return (number, index, "") if symbol.bind == elf.STB_LOCAL else (-1, 0, symbol.name)

    def _count_lookups(self) -> int:
        count = 0
        for obj in self.objects:
            for s in obj.sections:
                for r in s.relocations if s.address >= 0 and self.imports else ():
                    if self._import(obj, r.symbol) is not None:
                        if r.kind != self.machine.absolute or _output_of(s) not in (".data", ".data.rel.ro"):
                            raise LinkError(f"{_symbol(obj, r.symbol).name!r} is used other than by a pointer in data",
                                            f"{obj.name}, section {s.name}", "the system's loader patches only those",
                                            "take its address from a global variable")  # fmt: skip
                        count += 1
        return count

    def _count_relative(self) -> int:
        pointers = sum(
            1
            for obj in self.objects
            for s in obj.sections
            if s.address >= 0
            for r in s.relocations
            if r.kind == self.machine.absolute and self._moves(obj, r.symbol)
        )
        slots = {
            self._got_key(n, obj, r.symbol)
            for n, obj in enumerate(self.objects)
            for s in obj.sections
            if s.address >= 0
            for r in s.relocations
            if r.kind in self.machine.got and self._moves(obj, r.symbol)
        }
        return pointers + len(slots & self.got.keys())

    def _moves(self, obj: Object, index: int) -> bool:
        """Whether the symbol's address depends on where the library is loaded."""
        target = self._resolve(obj, index)
        return target is not None and (target[1].section != elf.SHN_ABS or self._is_blob(target[1]))

    def _is_blob(self, symbol: Symbol) -> bool:
        return self.blob is not None and symbol is self.globals[self.blob.symbol][1]

    def _resolve(self, obj: Object, index: int) -> tuple[Object, Symbol] | None:
        """The definition of a symbol; None for an undefined weak symbol, whose address is 0."""
        symbol = _symbol(obj, index)
        if symbol.bind == elf.STB_LOCAL:
            return obj, symbol
        return self.globals.get(symbol.name)

    def _value(self, obj: Object, index: int) -> int:
        if _symbol(obj, index).name == "_GLOBAL_OFFSET_TABLE_":
            return self.outputs[".got"].address
        target = self._resolve(obj, index)
        return 0 if target is None else self._address(*target)

    def _address(self, obj: Object, symbol: Symbol) -> int:
        if self.blob is not None and self._is_blob(symbol):
            return self.blob.address
        if symbol.section == elf.SHN_ABS or (symbol.section == elf.SHN_UNDEF and not symbol.name):
            return symbol.value
        if symbol.section >= len(obj.sections):
            raise LinkError("damaged object file", obj.name, f"symbol {symbol.name!r} is in section {symbol.section}")
        section = obj.sections[symbol.section]
        if section.address < 0:
            raise LinkError(f"symbol {symbol.name or section.name!r} is in a section that is not loaded",
                            f"{obj.name}, section {section.name}")  # fmt: skip
        return section.address + symbol.value

    def _relocate(self) -> None:
        for output in self.outputs.values():
            output.image = bytearray(0 if output.name == ".bss" else output.size)
            if output.name == ".text" and self.machine.name == "x86-64":
                output.image = bytearray(b"\xcc" * output.size)
            for part in output.parts if output.name != ".bss" else ():
                start = part.address - output.address
                output.image[start : start + len(part.data)] = part.data
        got = self.outputs[".got"]
        for number, obj in enumerate(self.objects):
            for section in obj.sections:
                if section.address >= 0 and section.relocations:
                    output = self.outputs[_output_of(section)]
                    for r in sorted(section.relocations, key=lambda r: r.kind in self.machine.low):
                        self._apply(number, obj, section, output, r, got)

    def _apply(
        self, number: int, obj: Object, section: Section, output: Output, r: elf.Relocation, got: Output
    ) -> None:
        where = f"{obj.name}, section {section.name}, symbol {_symbol(obj, r.symbol).name!r}"
        if r.kind == self.machine.none or r.kind in self.machine.ignored:
            return
        place = section.address + r.offset
        value = self._value(obj, r.symbol) + r.addend
        site = Site(output.image, place - output.address, place, value, where)
        if r.kind == self.machine.absolute:
            self._absolute(obj, r, output, site)
        elif r.kind in X86_ABSOLUTE_32 and obj.machine == elf.EM_X86_64:
            if self._moves(obj, r.symbol):
                raise LinkError(f"{X86_ABSOLUTE_32[r.kind]} needs an absolute address", where,
                                "the code is not position-independent", "compile with -fPIC")  # fmt: skip
            struct.pack_into("<I", site.image, site.offset, value & 0xFFFFFFFF)
        elif r.kind in self.machine.got:
            key = self._got_key(number, obj, r.symbol)
            if self._direct(obj, section, r):
                relax_x86(site, r.kind)
                return
            entry = got.address + self.form.word * self.got[key]
            if self._moves(obj, r.symbol):
                self.relatives[entry] = value - r.addend
            self.form.pointer(got.image, entry - got.address, value - r.addend)
            site.value = entry + r.addend
            self._patch(r.kind, site)
        elif r.kind in self.machine.apply:
            self._patch(r.kind, site)
        else:
            raise LinkError(f"relocation type {r.kind} of {self.machine.name} is not supported", where,
                            hint="compile with -fPIC and the small code model")  # fmt: skip

    def _patch(self, kind: int, site: Site) -> None:
        if kind in self.machine.high:
            self.distances[site.place] = site.value - site.place
        elif kind in self.machine.low:
            if site.value not in self.distances:
                raise LinkError("damaged object file", site.where, "the low part of a distance without its high part")
            site.value = self.distances[site.value]
        self.machine.apply[kind](site)

    def _absolute(self, obj: Object, r: elf.Relocation, output: Output, site: Site) -> None:
        number = self._import(obj, r.symbol)
        if number is not None:
            self.lookups[site.place] = number, r.addend
            return
        if self._moves(obj, r.symbol):
            if output.name in (".text", ".rodata"):
                raise LinkError("an absolute address in a read-only section", site.where,
                                "it would have to be patched at load time",
                                "emit pointer tables as .data.rel.ro (relocation model PIC)")  # fmt: skip
            self.relatives[site.place] = site.value
        self.form.pointer(site.image, site.offset, site.value)


def _strength(symbol: Symbol) -> int:
    """Which definition of a name wins: weak < common < strong."""
    return 0 if symbol.bind == elf.STB_WEAK else 1 if symbol.section == elf.SHN_COMMON else 2


def _symbol(obj: Object, index: int) -> Symbol:
    if index >= len(obj.symbols):
        raise LinkError("damaged object file", obj.name, f"relocation names symbol {index} of {len(obj.symbols)}")
    return obj.symbols[index]


def _kept(section: Section) -> bool:
    """Whether an input section goes into the library."""
    if not section.flags & elf.SHF_ALLOC or section.kind not in (elf.SHT_PROGBITS, elf.SHT_NOBITS, 0x70000001):
        return False
    return not section.name.startswith(elf.DROPPED)


def _output_of(section: Section) -> str:
    if section.flags & elf.SHF_EXECINSTR:
        if section.flags & elf.SHF_WRITE:
            raise LinkError(f"section {section.name} is writable and executable")
        return ".text"
    if not section.flags & elf.SHF_WRITE:
        return ".rodata"
    if section.kind == elf.SHT_NOBITS:
        return ".bss"
    return ".data.rel.ro" if section.name.startswith(".data.rel.ro") else ".data"
