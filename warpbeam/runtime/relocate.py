"""Applying relocations, by machine. Each function patches `image` at `place` and refuses what would not fit.

Names follow the psABIs: S = value of the symbol, A = addend, P = place.
Sources: x86-64 psABI 1.0 section 4.4; AArch64 ELF ABI (AAELF64) section 5.7; RISC-V ELF psABI 1.0 section 8.4; ELF
for the Arm Architecture (AAELF32) section 5.6; Qualcomm Hexagon Application Binary Interface, relocation types.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .elf import EM_AARCH64, EM_ARM, EM_HEXAGON, EM_RISCV, EM_X86_64
from .errors import LinkError


@dataclass(slots=True)
class Site:
    """Where and what to relocate.

    Attributes:
        image: the section's bytes.
        offset: index of the place in `image`.
        place: its address (P).
        value: S + A, or for GOT relocations the address of the GOT entry + A.
        where: for messages.
    """

    image: bytearray
    offset: int
    place: int
    value: int
    where: str

    def signed(self, value: int, bits: int, kind: str) -> int:
        """`value` if it fits `bits` signed bits."""
        if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
            raise LinkError(f"relocation {kind} out of range", self.where, f"{value:#x} does not fit in {bits} bits")
        return value

    def word(self) -> int:
        """The instruction word at the place (AArch64, RISC-V)."""
        return int(struct.unpack_from("<I", self.image, self.offset)[0])

    def put_word(self, keep: int, bits: int) -> None:
        """Replaces all but the `keep` bits of the instruction word by `bits`."""
        struct.pack_into("<I", self.image, self.offset, self.word() & keep | bits)


def _pc32(site: Site) -> None:
    struct.pack_into("<i", site.image, site.offset, site.signed(site.value - site.place, 32, "PC32"))


def _pc64(site: Site) -> None:
    struct.pack_into("<q", site.image, site.offset, site.value - site.place)


def _aarch64_branch26(site: Site) -> None:
    distance = site.signed(site.value - site.place, 28, "CALL26")
    site.put_word(0xFC000000, distance >> 2 & 0x3FFFFFF)


def _aarch64_branch19(site: Site) -> None:
    distance = site.signed(site.value - site.place, 21, "CONDBR19")
    site.put_word(0xFF00001F, (distance >> 2 & 0x7FFFF) << 5)


def _aarch64_branch14(site: Site) -> None:
    distance = site.signed(site.value - site.place, 16, "TSTBR14")
    site.put_word(0xFFF8001F, (distance >> 2 & 0x3FFF) << 5)


def _adr(site: Site, value: int) -> None:
    site.put_word(0x9F00001F, (value & 3) << 29 | (value >> 2 & 0x7FFFF) << 5)


def _aarch64_adr(site: Site) -> None:
    _adr(site, site.signed(site.value - site.place, 21, "ADR_PREL_LO21"))


def _aarch64_page(site: Site) -> None:
    pages = (site.value & ~0xFFF) - (site.place & ~0xFFF)
    _adr(site, site.signed(pages, 33, "ADR_PREL_PG_HI21") >> 12)


def _aarch64_low12(shift: int) -> Callable[[Site], None]:
    def apply(site: Site) -> None:
        if site.value & ((1 << shift) - 1):
            raise LinkError("relocation to a misaligned address", site.where, f"{site.value:#x}, {1 << shift} bytes")
        site.put_word(0xFFC003FF, (site.value & 0xFFF) >> shift << 10)

    return apply


def _arm_branch(site: Site) -> None:
    """bl and b of the ARM instruction set; the addend that the object holds counts the pipeline's 8 bytes."""
    distance = site.signed(site.value - site.place, 26, "CALL")
    site.put_word(0xFF000000, distance >> 2 & 0xFFFFFF)


def _riscv_branch(site: Site) -> None:
    at = site.signed(site.value - site.place, 13, "BRANCH")
    bits = (at >> 12 & 1) << 31 | (at >> 5 & 63) << 25 | (at >> 1 & 15) << 8 | (at >> 11 & 1) << 7
    site.put_word(0x01FFF07F, bits)


def _riscv_jump(site: Site) -> None:
    at = site.signed(site.value - site.place, 21, "JAL")
    bits = (at >> 20 & 1) << 31 | (at >> 1 & 1023) << 21 | (at >> 11 & 1) << 20 | (at >> 12 & 255) << 12
    site.put_word(0xFFF, bits)


def _riscv_high20(site: Site) -> None:
    """auipc: rounded, since the low 12 bits that another instruction adds are signed."""
    at = site.signed(site.value - site.place + 0x800, 32, "PCREL_HI20")
    site.put_word(0xFFF, at & 0xFFFFF000)


def _riscv_call(site: Site) -> None:
    """auipc and the jalr behind it."""
    _riscv_high20(site)
    low = Site(site.image, site.offset + 4, site.place, site.value - site.place, site.where)
    _riscv_low12_load(low)


def _riscv_low12_load(site: Site) -> None:
    site.put_word(0xFFFFF, (site.value & 0xFFF) << 20)


def _riscv_low12_store(site: Site) -> None:
    site.put_word(0x01FFF07F, (site.value >> 5 & 127) << 25 | (site.value & 31) << 7)


def _riscv_short_branch(site: Site) -> None:
    at = site.signed(site.value - site.place, 9, "RVC_BRANCH")
    bits = (at >> 8 & 1) << 12 | (at >> 3 & 3) << 10 | (at >> 6 & 3) << 5 | (at >> 1 & 3) << 3 | (at >> 5 & 1) << 2
    _put_half(site, 0xE383, bits)


def _riscv_short_jump(site: Site) -> None:
    at = site.signed(site.value - site.place, 12, "RVC_JUMP")
    bits = (at >> 11 & 1) << 12 | (at >> 4 & 1) << 11 | (at >> 8 & 3) << 9 | (at >> 10 & 1) << 8
    _put_half(site, 0xE003, bits | (at >> 6 & 1) << 7 | (at >> 7 & 1) << 6 | (at >> 1 & 7) << 3 | (at >> 5 & 1) << 2)


def _put_half(site: Site, keep: int, bits: int) -> None:
    word = struct.unpack_from("<H", site.image, site.offset)[0]
    struct.pack_into("<H", site.image, site.offset, word & keep | bits)


def _change(code: str, sign: int) -> Callable[[Site], None]:
    """Adds the value to what stands at the place, or (sign 0) replaces it: differences of labels come as such pairs."""

    def apply(site: Site) -> None:
        old = struct.unpack_from(code, site.image, site.offset)[0] if sign else 0
        mask = (1 << 8 * struct.calcsize(code)) - 1
        struct.pack_into(code, site.image, site.offset, (old + (sign or 1) * site.value) & mask)

    return apply


Apply = Callable[[Site], None]


def _scattered(value: int, mask: int) -> int:
    """The low bits of a value at the places of a mask's ones, lowest first."""
    out = 0
    for bit in range(32):
        if mask >> bit & 1:
            out |= (value & 1) << bit
            value >>= 1
    return out


def _hexagon_branch(mask: int, bits: int, name: str) -> Callable[[Site], None]:
    def apply(site: Site) -> None:
        distance = site.signed(site.value - site.place, bits, name)
        site.put_word(~mask & 0xFFFFFFFF, _scattered(distance >> 2, mask))

    return apply


def _hexagon_extender(site: Site) -> None:
    """immext: all but the low six bits of a distance, which another instruction of the packet has."""
    mask = 0x0FFF3FFF
    distance = site.signed(site.value - site.place, 32, "B32_PCREL_X")
    site.put_word(~mask & 0xFFFFFFFF, _scattered(distance >> 6, mask))


def _hexagon_low6(mask: int) -> Callable[[Site], None]:
    """The low six bits of a branch's distance that an extender begins; unlike without one, they count bytes."""

    def apply(site: Site) -> None:
        site.put_word(~mask & 0xFFFFFFFF, _scattered(site.value - site.place & 63, mask))

    return apply


def _hexagon_add_pc(site: Site) -> None:
    """The low six bits of a distance in add(pc, #u6), the one instruction that takes them; the addend says where the
    packet starts."""
    if site.word() & 0xFFFF0000 != 0x6A490000:
        raise LinkError("relocation 6_PCREL_X of an unknown instruction", site.where, f"{site.word():#010x}",
                        "link what LLVM made")  # fmt: skip
    site.put_word(0xFFFFE07F, (site.value - site.place & 63) << 7)


@dataclass(frozen=True, slots=True)
class Machine:
    """The relocations of one machine.

    Attributes:
        absolute: the kind of an absolute address of the machine's width.
        relative: the dynamic relocation "load base + addend".
        got: kinds that want the address of a GOT entry instead of the symbol's.
        apply: kind -> function that patches the place.
        page: alignment of segments, the largest page the machine may use.
        high: kinds of instructions that hold the high part of a distance.
        low: kinds that name such an instruction in place of a symbol, and hold the low part of its distance.
        ignored: kinds that ask for nothing but what a linker may do to save space.
        widths: bytes that a kind patches, where not 4.
    """

    name: str
    absolute: int
    relative: int
    none: int
    got: frozenset[int]
    apply: dict[int, Apply]
    page: int
    high: frozenset[int] = frozenset()
    low: frozenset[int] = frozenset()
    ignored: frozenset[int] = frozenset()
    widths: Mapping[int, int] = field(default_factory=dict)


MACHINES: dict[int, Machine] = {
    EM_X86_64: Machine(
        "x86-64",
        absolute=1,
        relative=8,
        none=0,
        got=frozenset({9, 41, 42}),
        apply={2: _pc32, 4: _pc32, 9: _pc32, 41: _pc32, 42: _pc32, 24: _pc64},
        page=0x1000,
    ),
    EM_AARCH64: Machine(
        "AArch64",
        absolute=257,
        relative=1027,
        none=0,
        got=frozenset({311, 312}),
        apply={
            260: _pc64,
            261: _pc32,
            273: _aarch64_branch19,  # LD_PREL_LO19
            274: _aarch64_adr,
            275: _aarch64_page,
            276: _aarch64_page,
            277: _aarch64_low12(0),
            278: _aarch64_low12(0),
            279: _aarch64_branch14,
            280: _aarch64_branch19,
            282: _aarch64_branch26,
            283: _aarch64_branch26,
            284: _aarch64_low12(1),
            285: _aarch64_low12(2),
            286: _aarch64_low12(3),
            299: _aarch64_low12(4),
            311: _aarch64_page,
            312: _aarch64_low12(3),
        },
        page=0x10000,
    ),
    EM_ARM: Machine(
        "ARM",
        absolute=2,
        relative=23,
        none=0,
        got=frozenset({96}),
        apply={3: _pc32, 28: _arm_branch, 29: _arm_branch, 96: _pc32},
        page=0x1000,
        ignored=frozenset({40}),
    ),
    EM_HEXAGON: Machine(
        "Hexagon",
        absolute=6,
        relative=35,
        none=0,
        got=frozenset(),
        apply={
            1: _hexagon_branch(0x01FF3FFE, 24, "B22_PCREL"),
            2: _hexagon_branch(0x00DF20FE, 17, "B15_PCREL"),
            16: _hexagon_extender,
            18: _hexagon_low6(0x01FF3FFE),
            19: _hexagon_low6(0x00DF20FE),
            31: _pc32,
            36: _hexagon_branch(0x01FF3FFE, 24, "PLT_B22_PCREL"),
            65: _hexagon_add_pc,
        },
        page=0x10000,
    ),
    EM_RISCV: Machine(
        "RISC-V",
        absolute=2,
        relative=3,
        none=0,
        got=frozenset({20}),
        apply={
            16: _riscv_branch,
            17: _riscv_jump,
            18: _riscv_call,
            19: _riscv_call,
            20: _riscv_high20,
            23: _riscv_high20,
            24: _riscv_low12_load,
            25: _riscv_low12_store,
            **{33 + i: _change(f"<{code}", 1) for i, code in enumerate("BHIQ")},
            **{37 + i: _change(f"<{code}", -1) for i, code in enumerate("BHIQ")},
            44: _riscv_short_branch,
            45: _riscv_short_jump,
            **{54 + i: _change(f"<{code}", 0) for i, code in enumerate("BHI")},
            57: _pc32,
        },
        page=0x1000,
        high=frozenset({20, 23}),
        low=frozenset({24, 25}),
        ignored=frozenset({51}),
        widths={18: 8, 19: 8, 33: 1, 34: 2, 36: 8, 37: 1, 38: 2, 40: 8, 44: 2, 45: 2, 51: 0, 54: 1, 55: 2},
    ),
}
X86_ABSOLUTE_32 = {10: "R_X86_64_32", 11: "R_X86_64_32S"}
_GOTPCRELX = (41, 42)


def relax_x86(site: Site, kind: int) -> bool:
    """Turns an x86-64 access through the GOT into a direct one where the instruction allows it (psABI B.2).

    `site.value` is S + A. Patches instruction and displacement; returns False if the instruction is of another form.
    """
    if kind not in _GOTPCRELX or site.offset < 2:
        return False
    opcode, modrm = site.image[site.offset - 2], site.image[site.offset - 1]
    if opcode == 0x8B:  # mov foo@GOTPCREL(%rip), reg  ->  lea foo(%rip), reg
        site.image[site.offset - 2] = 0x8D
    elif opcode == 0xFF and modrm == 0x15:  # call *foo@GOTPCREL(%rip)  ->  addr32 call foo
        site.image[site.offset - 2 : site.offset] = b"\x67\xe8"
    elif opcode == 0xFF and modrm == 0x25:  # jmp *foo@GOTPCREL(%rip)  ->  jmp foo; nop
        site.image[site.offset - 2] = 0xE9
        distance = site.signed(site.value + 1 - site.place, 32, "GOTPCRELX")
        struct.pack_into("<iB", site.image, site.offset - 1, distance, 0x90)
        return True
    else:
        return False
    _pc32(site)
    return True
