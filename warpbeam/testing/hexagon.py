"""Running an exported model on Hexagon under qemu-hexagon, without a C library: the program is LLVM IR and makes
system calls."""

from __future__ import annotations

import string
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from warpbeam.codegen.machine import emit
from warpbeam.runtime import elf
from warpbeam.runtime.ar import read_archive
from warpbeam.runtime.compiled import CompiledModel
from warpbeam.runtime.linker import link_parsed
from warpbeam.testing.static_elf import executable

Array = npt.NDArray[Any]
MACHINE = {"triple": "hexagon-unknown-elf", "cpu": "hexagonv66", "features": "", "abi": ""}
_ALIGN = 128
# { r6 = r0; r0 = r1; r1 = r2; r2 = r3 } trap0(#1); jumpr r31
_STUB = "".join(f"\\{b:02x}" for b in struct.pack(
    "<6I", 0x70604006, 0x70614000, 0x70624001, 0x7063C002, 0x5400C004, 0x529FC000))  # fmt: skip

#: `call`, a system call, and `move`, which reads (63) or writes (64) all bytes of `data`
PROGRAM_START = string.Template(
    """
target triple = "hexagon-unknown-elf"
@data = internal global [$BYTES x i8] zeroinitializer, align 128

define weak hidden i32 @call(i32 %nr, i32 %a, i32 %b, i32 %c) noinline nounwind prologue [24 x i8] c"$STUB" {
  ret i32 -1
}

; Reads (63) or writes (64) all bytes; ends the program where that fails.
define internal void @move(i32 %nr, i32 %file, ptr %data, i32 %bytes) noinline nounwind {
entry:
  %start = ptrtoint ptr %data to i32
  br label %loop
loop:
  %at = phi i32 [ 0, %entry ], [ %next, %on ]
  %more = icmp ult i32 %at, %bytes
  br i1 %more, label %step, label %done
step:
  %here = add i32 %start, %at
  %left = sub i32 %bytes, %at
  %moved = call i32 @call(i32 %nr, i32 %file, i32 %here, i32 %left)
  %good = icmp sgt i32 %moved, 0
  br i1 %good, label %on, label %bad
on:
  %next = add i32 %at, %moved
  br label %loop
bad:
  %r = call i32 @call(i32 93, i32 3, i32 0, i32 0)
  br label %done
done:
  ret void
}
""".replace("$STUB", _STUB)
)
_PROGRAM = string.Template("""
@context = internal global [$CONTEXT x i8] zeroinitializer, align 128
@create = internal global ptr @net_create_in
@run = internal global ptr @net_run
@error = internal global ptr @net_error
declare extern_weak ptr @net_create_in(ptr, i64)
declare extern_weak ptr @net_error(ptr)
declare extern_weak i32 @net_run(...)

define void @_start() noreturn nounwind {
  call void @move(i32 63, i32 0, ptr @data, i32 $INPUTS)
  %make = load ptr, ptr @create
  %c = call ptr %make(ptr @context, i64 $CONTEXT)
  %f = load ptr, ptr @run
  %status = call i32 %f(ptr %c$ARGUMENTS)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %bad, label %good
bad:
  %e = load ptr, ptr @error
  %text = call ptr %e(ptr %c)
  call void @move(i32 64, i32 2, ptr %text, i32 176)
  br label %end
good:
  call void @move(i32 64, i32 1, ptr getelementptr (i8, ptr @data, i32 $INPUTS), i32 $OUTPUTS)
  br label %end
end:
  %r = call i32 @call(i32 93, i32 %status, i32 0, i32 0)
  unreachable
}
""")


def _padded(size: int) -> int:
    return -(-max(size, 1) // _ALIGN) * _ALIGN


def run_hexagon(
    model: CompiledModel,
    form: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[Array],
    folder: Path,
    emulator: Sequence[str] = ("qemu-hexagon",),
) -> list[Array]:
    """What a program around an exported model computes.

    Args:
        model: compiled for Hexagon; its sizes must be numbers.
        form: "so", "a" or "o".
        inputs: arrays by the inputs' names.
        outputs: arrays of the outputs' shapes and types, in order.
        folder: where everything is written.
        emulator: what runs the program, with its arguments.

    Raises:
        RuntimeError: with what was printed, if the program fails.
    """
    model.export_library(folder / f"net.{form}", name="net", freestanding=True)
    arrays = [*(np.ascontiguousarray(inputs[s.name]) for s in model.inputs), *outputs]
    first = len(model.inputs)
    places = np.cumsum([0, *(_padded(a.nbytes) for a in arrays)]).tolist()
    header = (folder / "net.h").read_text(encoding="utf-8")
    size = next(int(line.split()[2]) for line in header.splitlines() if line.startswith("#define NET_CONTEXT_BYTES"))
    pointers = "".join(f", ptr getelementptr (i8, ptr @data, i32 {p})" for p in places[:-1])
    text = PROGRAM_START.substitute(BYTES=places[-1])
    text += _PROGRAM.substitute(CONTEXT=size + 64, INPUTS=places[first],
                               OUTPUTS=places[-1] - places[first], ARGUMENTS=pointers)  # fmt: skip
    start = elf.parse_object(emit(text, MACHINE, 1), "start")
    exported = (folder / f"net.{form}").read_bytes()
    if form != "so":
        files = read_archive(exported) if form == "a" else {"net.o": exported}
        members = [elf.parse_object(data, name) for name, data in files.items() if name[:1] != "/"]
        program = executable([b"".join(link_parsed([start, *members], ["_start"]))], "_start")
    else:
        imports = ("net_create_in", "net_run", "net_error")
        program = executable([b"".join(link_parsed([start], ["_start"], imports=imports)), exported], "_start")
    (folder / "main").write_bytes(program)
    (folder / "main").chmod(0o755)
    given = b"".join(a.tobytes().ljust(_padded(a.nbytes), b"\0") for a in arrays[:first])
    done = subprocess.run([*emulator, "./main"], cwd=folder, input=given, capture_output=True)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(emulator)} gave {done.returncode}: {done.stderr.decode(errors='replace')[:3000]}"
        )
    rows = zip(arrays[first:], places[first:-1], strict=True)
    return [np.frombuffer(done.stdout, a.dtype, a.size, p - places[first]).reshape(a.shape) for a, p in rows]
