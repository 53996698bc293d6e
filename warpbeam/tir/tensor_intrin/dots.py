"""Dot products of neighbours: the instructions of quantised and of bfloat16 networks, on every machine by one pattern.

    for i in lanes: for k in group: C[i] += A[k] * B[i, k]

One group of A goes to all lanes, B holds a group for each lane. The template is the call "dot4" or "dot2" (or, on
ARM32, a widening product and "add_pairs"), which code generators turn into the target's instruction or, without it,
into shuffles and products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as e
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr
from warpbeam.tir.stmt import BufferStore
from warpbeam.tir.tensor_intrin.record import TensorIntrin, lanes, reduction, zeros

Step = Callable[[PrimExpr, PrimExpr, PrimExpr], PrimExpr]  # (accumulator, a, b) -> accumulator


@dataclass(frozen=True)
class Dot:
    """The facts of one instruction: lanes of the result, neighbours per lane, dtypes, where it exists, and cycles from
    one sum to the next.
    """

    lanes: int
    group: int
    a: str
    b: str
    result: str
    requires: tuple[str, ...]
    instruction: str
    target: str
    source: str
    step: Step | None = None
    latency: int = 4

    def record(self, name: str) -> TensorIntrin:
        """The intrinsic of that name."""
        n, g = self.lanes, self.group
        operands = [Buffer("A", (g,), self.a), Buffer("B", (n, g), self.b), Buffer("C", (n,), self.result)]
        a, b, c = operands
        meaning = reduction(
            name.replace(".", "_"), (a, b), c, [("i", n)], [("k", g)],
            lambda i, k: e.cast(self.result, a[k]) * e.cast(self.result, b[i, k]),
        )  # fmt: skip
        step = self.step or (lambda acc, x, y: e.call(f"dot{g}", acc, x, y))
        x, y = repeated(a, g, n), BufferLoad(b, (0, lanes(n * g)))
        old = BufferLoad(c, (lanes(n),))

        def store(value: PrimExpr) -> BufferStore:
            return BufferStore(c, value, (lanes(n),))

        start = zeros(self.result, n)
        return TensorIntrin(
            name, meaning, tuple(operands), store(step(start, x, y)), store(start), store(step(old, x, y)),
            self.requires, self.instruction, self.target, source=self.source,
        )  # fmt: skip


def repeated(buffer: Buffer, group: int, count: int) -> PrimExpr:
    """The first `group` elements, `count` times: one broadcast of a wider number."""
    word = f"uint{group * dt.bits(buffer.dtype)}"
    one = e.call("reinterpret", BufferLoad(buffer, (lanes(group),)), dtype=word)
    return e.call("reinterpret", e.Broadcast(one, count), dtype=f"{buffer.dtype}x{group * count}")


def signed_by_offset(acc: PrimExpr, a: PrimExpr, b: PrimExpr) -> PrimExpr:
    """s8 times s8 where only u8 times s8 exists: (a + 128)*b summed, less 128*b summed.

    Flipping the top bit of a two's complement number adds 128. The second sum depends on b alone, so a tile of several
    rows computes it once.
    """
    count = dt.lanes(a.dtype)
    top = e.const(128, f"uint8x{count}")
    moved = e.call("bitwise_xor", e.call("reinterpret", a, dtype=top.dtype), top)
    extra = e.call("dot4", e.const(0, acc.dtype), top, b)
    return e.call("dot4", acc - extra, moved, b)


def widening_pairs(acc: PrimExpr, a: PrimExpr, b: PrimExpr) -> PrimExpr:
    """Products of neighbours in 16 bits (none of two bytes overflows), then added in pairs to 32 bits."""
    wide = f"int16x{dt.lanes(a.dtype)}"
    return e.call("add_pairs", acc, e.cast(wide, a) * e.cast(wide, b))


_SDM = "Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2"
_ARM = "Arm Architecture Reference Manual for A-profile, A64 SIMD instructions"

#: name -> facts. Assembly of each is tested on its `target`.
DOTS: dict[str, Dot] = {
    "avx512vnni.u8s8s32": Dot(
        16, 4, "uint8", "int8", "int32", ("avx512vnni",), "vpdpbusd", "cascadelake",
        f"{_SDM}, VPDPBUSD: multiply and add unsigned and signed bytes, without saturation",
    ),
    "avx512vnni.s8s8s32": Dot(
        16, 4, "int8", "int8", "int32", ("avx512vnni",), "vpdpbusd", "cascadelake",
        f"{_SDM}, VPDPBUSD takes an unsigned first operand: a signed one is offset by 128", signed_by_offset,
    ),
    "avx512bf16.bf16bf16f32": Dot(
        16, 2, "bfloat16", "bfloat16", "float32", ("avx512bf16",), "vdpbf16ps", "sapphirerapids",
        f"{_SDM}, VDPBF16PS: rounds after each of the two products to nearest even, flushes denormals to zero",
        latency=6,
    ),
    "aarch64.s8s8s32": Dot(
        4, 4, "int8", "int8", "int32", ("dotprod",), "sdot", "cortex-a76", f"{_ARM}, SDOT (vector), FEAT_DotProd",
    ),
    "aarch64.u8u8u32": Dot(
        4, 4, "uint8", "uint8", "uint32", ("dotprod",), "udot", "cortex-a76", f"{_ARM}, UDOT (vector), FEAT_DotProd",
    ),
    "arm32.s8s8s32": Dot(
        4, 2, "int8", "int8", "int32", ("neon",), "vpadal.s16", "generic-armv7",
        "Arm Architecture Reference Manual ARMv7-A, A8.8: VMULL.S8 then VPADAL.S16", widening_pairs,
    ),
    "hexagon.u8s8s32": Dot(
        32, 4, "uint8", "int8", "int32", ("hvxv66",), "vrmpy", "hexagon",
        "Qualcomm Hexagon V66 HVX Programmer's Reference Manual: Vx.w+=vrmpy(Vu.ub,Vv.b)",
    ),
    "hexagon.u8u8u32": Dot(
        32, 4, "uint8", "uint8", "uint32", ("hvxv66",), "vrmpy", "hexagon",
        "Qualcomm Hexagon V66 HVX Programmer's Reference Manual: Vx.uw+=vrmpy(Vu.ub,Vv.ub)",
    ),
}  # fmt: skip
