"""Hexagon in the linker: relocations put the distance into the instruction that the encoding says, or are refused; the
functions that LLVM calls from a compiler's library are right when qemu-hexagon executes them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from warpbeam.codegen.machine import emit
from warpbeam.codegen.support import support_ir
from warpbeam.runtime import elf
from warpbeam.runtime.errors import LinkError
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.relocate import MACHINES, Site
from warpbeam.testing.hexagon import MACHINE, PROGRAM_START
from warpbeam.testing.static_elf import executable

_TRIPLE = MACHINE["triple"]


def patched(kind: int, word: int, distance: int) -> int:
    image = bytearray(struct.pack("<I", word))
    MACHINES[elf.EM_HEXAGON].apply[kind](Site(image, 0, 0x2000, 0x2000 + distance, "here"))
    return int(struct.unpack("<I", image)[0])


def bits(word: int, *places: tuple[int, int]) -> int:
    """The number whose bits stand in parts of a word, (highest, lowest) each, the most significant part first."""
    out = 0
    for high, low in places:
        out = out << high - low + 1 | word >> low & (1 << high - low + 1) - 1
    return out


#: kind, instruction, where its distance's bits stand, bits, scale
ENCODINGS = [
    (1, 0x5A00C000, ((24, 16), (13, 1)), 22, 4),  # call #r22:2
    (2, 0x5C00C000, ((23, 22), (20, 16), (13, 13), (7, 1)), 15, 4),  # if (p0) jump:nt #r15:2
    (16, 0x00004000, ((27, 16), (13, 0)), 26, 64),  # immext(#r32:6)
]


@pytest.mark.parametrize(("kind", "word", "places", "width", "scale"), ENCODINGS)
def test_distances_are_where_the_encoding_says(
    kind: int, word: int, places: tuple[tuple[int, int], ...], width: int, scale: int
) -> None:
    limit = scale << width - 1
    for distance in (0, scale, -scale, 0x1234 * scale % limit, -limit, limit - scale):
        out = patched(kind, word, distance)
        value = bits(out, *places)
        assert (value - (value >> width - 1 << width)) * scale == distance
        mask = sum((1 << high + 1) - (1 << low) for high, low in places)
        assert out & ~mask == word & ~mask  # register numbers and the packet's end are as they were
    if kind != 16:  # an extender reaches everything
        for distance in (limit, -limit - scale):
            with pytest.raises(LinkError, match="out of range"):
                patched(kind, word, distance)


def test_the_rest_of_an_extended_distance() -> None:
    out = patched(65, 0x6A49C001, 0x12345678)  # r1 = add(pc, ##0)
    assert bits(out, (12, 7)) == 0x38 and out & ~0x1F80 == 0x6A49C001
    with pytest.raises(LinkError, match="unknown instruction"):
        patched(65, 0x7062C004, 4)


def test_calls_data_and_pointers_link() -> None:
    text = f"""
target triple = "{_TRIPLE}"
@word = internal global i32 7
@pointer = internal global ptr @word
declare i32 @other(i32)
define i32 @f() {{
  %p = load ptr, ptr @pointer
  %x = load i32, ptr %p
  %y = call i32 @other(i32 %x)
  ret i32 %y
}}
"""
    other = f'target triple = "{_TRIPLE}"\ndefine i32 @other(i32 %x) {{ ret i32 %x }}'
    library = link_shared([emit(t, MACHINE, 1) for t in (text, other)], ["f"])
    assert library[4] == 1 and struct.unpack_from("<HH", library, 16) == (elf.ET_DYN, elf.EM_HEXAGON)
    with pytest.raises(LinkError, match="undefined symbols: 'other'"):
        link_shared([emit(text, MACHINE, 1)], ["f"])
    with pytest.raises(LinkError, match="different machines"):
        link_shared([emit(text, MACHINE, 1), emit(other.replace(_TRIPLE, "armv7-none-eabi"), MACHINE | {
            "triple": "armv7-none-eabi", "cpu": "cortex-a15"}, 1)], ["f"])  # fmt: skip


def run(text: str, given: bytes, folder: Path) -> bytes:
    """What a program writes whose `work(ptr data)` changes the data."""
    if shutil.which("qemu-hexagon") is None:
        pytest.skip("needs qemu-hexagon")
    start = (
        PROGRAM_START.substitute(BYTES=len(given))
        + """
define void @_start() noreturn nounwind {
  call void @move(i32 63, i32 0, ptr @data, i32 SIZE)
  call void @work(ptr @data)
  call void @move(i32 64, i32 1, ptr @data, i32 SIZE)
  %r = call i32 @call(i32 93, i32 0, i32 0, i32 0)
  unreachable
}
""".replace("SIZE", str(len(given)))
    )
    parts = [emit(start + text, MACHINE, 1), emit(support_ir(_TRIPLE), MACHINE, 1)]
    (folder / "main").write_bytes(executable([link_shared(parts, ["_start"])], "_start"))
    (folder / "main").chmod(0o755)
    done = subprocess.run(["qemu-hexagon", "./main"], cwd=folder, input=given, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


_EACH = """
define void @work(ptr %data) {{
entry:
  br label %loop
loop:
  %i = phi i32 [ 0, %entry ], [ %n, %loop ]
  {body}
  %n = add i32 %i, 1
  %more = icmp ult i32 %n, {count}
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""


def test_square_roots_are_rounded_correctly(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(0, 1 << 31, 20000, dtype=np.uint32)
    words[:4000] %= 1 << 23  # subnormal numbers
    special = np.array([0, 1, 0x80000000, 0x7F800000, 0x7F7FFFFF, 0x00800000, 0x3F800000, 0x3F7FFFFF], np.uint32)
    words = np.concatenate([special, words])
    values = words.view(np.float32)[words.view(np.float32) == words.view(np.float32)]
    body = """%p = getelementptr float, ptr %data, i32 %i
  %x = load float, ptr %p
  %y = call float @llvm.sqrt.f32(float %x)
  store float %y, ptr %p"""
    text = _EACH.format(body=body, count=values.size) + "declare float @llvm.sqrt.f32(float)"
    found = np.frombuffer(run(text, values.tobytes(), tmp_path), np.float32)
    assert np.array_equal(found.view(np.uint32), np.sqrt(values).view(np.uint32))
    nan = run(_EACH.format(body=body, count=2) + "declare float @llvm.sqrt.f32(float)",
              np.array([-1, np.nan], np.float32).tobytes(), tmp_path)  # fmt: skip
    assert np.isnan(np.frombuffer(nan, np.float32)).all()


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("word", ["sdiv", "udiv", "srem", "urem"])
def test_integer_division(word: str, width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    kind = np.dtype(f"{'i' if word[0] == 's' else 'u'}{width // 8}")
    raw = rng.integers(0, 256, 2000 * 2 * kind.itemsize, dtype=np.uint8).view(kind).reshape(2000, 2).copy()
    raw >>= rng.integers(0, width, raw.shape).astype(kind)  # of all sizes
    raw[:3] = [(np.iinfo(kind).min, 1), (np.iinfo(kind).max, np.iinfo(kind).max), (7, np.iinfo(kind).max)]
    raw[:, 1] += raw[:, 1] == 0
    body = f"""%j = shl i32 %i, 1
  %p = getelementptr i{width}, ptr %data, i32 %j
  %q = getelementptr i{width}, ptr %p, i32 1
  %x = load i{width}, ptr %p
  %y = load i{width}, ptr %q
  %z = {word} i{width} %x, %y
  store i{width} %z, ptr %p"""
    found = np.frombuffer(run(_EACH.format(body=body, count=2000), raw.tobytes(), tmp_path), kind).reshape(2000, 2)
    exact = [abs(int(a)) // abs(int(b)) for a, b in raw]  # C rounds towards zero
    quotients = [q if (a < 0) == (b < 0) else -q for q, (a, b) in zip(exact, raw.tolist(), strict=True)]
    remainders = [a - q * b for q, (a, b) in zip(quotients, raw.tolist(), strict=True)]
    assert found[:, 0].tolist() == (quotients if word[1:] == "div" else remainders)


def test_vector_instructions(tmp_path: Path) -> None:
    """HVX: bytes of 128, and the dot products of four that integer kernels are made of."""
    rng = np.random.default_rng(3)
    a, b, out = (rng.integers(0, 256, 128, dtype=np.uint8) for _ in range(3))
    text = """
define void @work(ptr %data) "target-features"="+hvxv66,+hvx-length128b" {
  %pb = getelementptr i8, ptr %data, i32 128
  %pc = getelementptr i8, ptr %data, i32 256
  %a = load <32 x i32>, ptr %data, align 128
  %b = load <32 x i32>, ptr %pb, align 128
  %c = load <32 x i32>, ptr %pc, align 128
  %r = call <32 x i32> @llvm.hexagon.V6.vrmpybusv.acc.128B(<32 x i32> %c, <32 x i32> %a, <32 x i32> %b)
  store <32 x i32> %r, ptr %pc, align 128
  ret void
}
declare <32 x i32> @llvm.hexagon.V6.vrmpybusv.acc.128B(<32 x i32>, <32 x i32>, <32 x i32>)
"""
    found = run(text, np.concatenate([a, b, out]).tobytes(), tmp_path)[256:]
    products = a.astype(np.int32) * b.view(np.int8).astype(np.int32)
    assert np.array_equal(np.frombuffer(found, np.int32), out.view(np.int32) + products.reshape(32, 4).sum(1))
