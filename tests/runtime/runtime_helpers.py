"""Test helpers: machine code from LLVM IR text or C, and small finished artefacts."""

from __future__ import annotations

import functools
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from warpbeam.runtime import Artifact, KernelInfo, Manifest, Program, TensorSpec, link_shared
from warpbeam.runtime.pool_ll import EXPORTS, pool_ir
from warpbeam.runtime.program import CallKernel, Port, Return, Symbol, Value

CONSTANTS = np.arange(10_000, dtype=np.float32).tobytes()


@functools.cache
def _initialise() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@functools.cache
def compile_ir(text: str, triple: str = "", opt: int = 1) -> bytes:
    """Object bytes of LLVM IR text, position-independent, small code model."""
    _initialise()
    triple = triple or llvm.get_default_triple()
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=opt, reloc="pic", codemodel="small")
    return bytes(machine.emit_object(module))


def compile_c(text: str, folder: Path, *flags: str) -> bytes:
    """Object bytes of a C source; skips the test if there is no gcc."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    source, target = folder / "source.c", folder / "source.o"
    source.write_text(text)
    subprocess.run([gcc, "-c", "-O2", "-fPIC", *flags, str(source), "-o", str(target)], check=True)
    return target.read_bytes()


ADD_ENTRY = """
target triple = "TRIPLE"

%tensor = type { ptr, i32, i32, i32, i8, i8, i16, ptr, ptr, i64 }

define i32 @KERNEL(ptr %ctx, ptr noalias %x, ptr %y, ptr %z, i64 %n) {
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %out
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  %xp = getelementptr float, ptr %x, i64 %i
  %yp = getelementptr float, ptr %y, i64 %i
  %zp = getelementptr float, ptr %z, i64 %i
  %a = load float, ptr %xp, align 4
  %b = load float, ptr %yp, align 4
  %c = fadd float %a, %b
  store float %c, ptr %zp, align 4
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %n
  br i1 %more, label %loop, label %out
out:
  ret i32 0
}

define i32 @wb_entry(ptr %ctx, ptr %args, i32 %n) {
  %flags.p = getelementptr i8, ptr %ctx, i64 4
  %flags = load i32, ptr %flags.p
  %query = icmp ne i32 %flags, 0
  %y.pp = getelementptr ptr, ptr %args, i64 1
  %z.pp = getelementptr ptr, ptr %args, i64 2
  %x.t = load ptr, ptr %args
  %y.t = load ptr, ptr %y.pp
  %z.t = load ptr, ptr %z.pp
  %x.sp = getelementptr %tensor, ptr %x.t, i64 0, i32 7
  %z.sp = getelementptr %tensor, ptr %z.t, i64 0, i32 7
  %x.s = load ptr, ptr %x.sp
  %z.s = load ptr, ptr %z.sp
  %extent = load i64, ptr %x.s
  br i1 %query, label %shapes, label %run
shapes:
  store i64 %extent, ptr %z.s
  ret i32 0
run:
  %x = load ptr, ptr %x.t
  %y = load ptr, ptr %y.t
  %z = load ptr, ptr %z.t
  %big = icmp eq i64 %extent, 13
  br i1 %big, label %fail, label %ok
fail:
  %message = getelementptr i8, ptr %ctx, i64 80
  store [9 x i8] c"unlucky!\\00", ptr %message
  ret i32 7
ok:
  %rc = call i32 @KERNEL(ptr %ctx, ptr %x, ptr %y, ptr %z, i64 %extent)
  ret i32 %rc
}
"""


@functools.cache
def add_library(kernel: str = "add_kernel") -> bytes:
    """A shared library with an entry z = x + y over float32 vectors, its kernel and the thread pool."""
    _initialise()
    triple = llvm.get_default_triple()
    text = ADD_ENTRY.replace("KERNEL", kernel).replace("TRIPLE", triple)
    objects = [compile_ir(text), compile_ir(pool_ir(triple))]
    return link_shared(objects, ["wb_entry", kernel, *EXPORTS])


def add_program(extent: int | str = 16) -> Program:
    """The Program of the same model."""
    values = tuple(
        Value(i, "tensor", "float32", (extent,), storage=storage, name=name, origins=("Add_0",))
        for i, (name, storage) in enumerate([("x", ("input", 0)), ("y", ("input", 1)), ("z", ("output", 0))])
    )
    symbols = () if isinstance(extent, int) else (Symbol(extent, ("dim", 0, 0)),)
    body = (CallKernel("add", (0, 1, 2), (extent,), writes=(2,)), Return())
    return Program("add", (Port("x", 0), Port("y", 1)), (Port("z", 2),), values, body, symbols)


def add_artifact(extent: int | str = 16, known: bool = True) -> Artifact:
    """z = x + y as an artefact; with `known` false, the output's extent is only known to the code."""
    inputs = tuple(TensorSpec(name, "float32", (extent,)) for name in ("x", "y"))
    outputs = (TensorSpec("z", "float32", (extent if known else "unknown",)),)
    kernel = KernelInfo(
        "add", "add_kernel", flops=extent, bytes=("mul", extent, 12), origins=("Add_0",), dims=(extent,)
    )
    manifest = Manifest("add", inputs, outputs, target="x86_64-unknown-linux-gnu", kernels=(kernel,))
    return Artifact.build(manifest, add_library(), program=add_program(extent), relay="fn (x, y) { add(x, y) }")


def full_artifact(name: str = "add") -> Artifact:
    """An artefact with sections of every kind but objects."""
    base = add_artifact("n")
    return Artifact.build(
        replace(base.manifest, name=name), add_library(), CONSTANTS, base.program(), "relay text", b"\1\2\3",
        {"b": b"bb", "a": b""},
    )  # fmt: skip
