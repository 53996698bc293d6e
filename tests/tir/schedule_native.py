"""Lowered programs as functions of arrays and sizes: through LLVM one by one, through C and gcc many in one file."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "codegen"))

import cg_gcc
import cg_native

from warpbeam import target
from warpbeam.codegen import c
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import substitute
from warpbeam.runtime.abi import HEADER_PATH
from warpbeam.target import Target
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import Var, const, const_int
from warpbeam.tir.stmt import PrimFunc

FLAGS = ("-O2", "-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")
Call = Callable[..., None]


def number(dim: Any, sizes: dict[str, int]) -> Any:
    """A dimension with numbers for the sizes."""
    if isinstance(dim, int):
        return dim
    at = {v: const(sizes[v.name]) for v in free_vars(dim)}
    return const_int(simplify(substitute(dim, at)))


def with_workspace(lowered: PrimFunc, kernel: Call) -> Call:
    """The kernel as a function of the program's own arguments; its workspaces are made for each call."""
    spare = int(lowered.attrs.get("workspace", 0))
    sizes = [p for p in lowered.params if isinstance(p, Var)]
    space = lowered.buffers[len(lowered.buffers) - spare :]

    def call(*args: Any) -> None:
        arrays = [np.ascontiguousarray(a) for a in args if isinstance(a, np.ndarray)]
        numbers = [a for a in args if not isinstance(a, np.ndarray)]
        at = {v.name: n for v, n in zip(sizes, numbers, strict=True)}
        work = [np.full([number(d, at) for d in b.shape], 99).astype(dt.to_numpy(b.dtype)) for b in space]
        kernel(*arrays, *work, *numbers)
        for given, used in zip(args, arrays, strict=False):
            if used is not given:
                given[...] = used

    return call


def by_llvm(lowered: PrimFunc, tgt: Target | None = None) -> Call:
    return with_workspace(lowered, cg_native.build(lowered, tgt))


def by_c(funcs: list[PrimFunc], tgt: Target | None = None, flags: tuple[str, ...] = FLAGS) -> list[Call]:
    """All programs in one file, compiled once without warnings; CalledProcessError with gcc's words in stderr."""
    tgt = tgt or target.get("c").replace(fma=True)
    text = c.print_kernels([f.replace(name=f"k{k}") for k, f in enumerate(funcs)], tgt) + cg_gcc.SERIAL
    with tempfile.TemporaryDirectory() as folder:
        source, code = Path(folder, "k.c"), Path(folder, "k.so")
        source.write_text(text)
        machine = ["-mfma"] if tgt.fma else []
        command = [cg_gcc.gcc(), *flags, *machine, f"-I{HEADER_PATH.parent}", "-shared", "-fPIC"]
        subprocess.run([*command, str(source), "-o", str(code)], check=True, capture_output=True, text=True)
        lib = ctypes.CDLL(str(code))
    serial = ctypes.cast(lib.wb_serial_parallel_for, ctypes.c_void_p).value
    return [with_workspace(f, _caller(lib[f"k{k}"], serial)) for k, f in enumerate(funcs)]


def _caller(code: Any, serial: int | None) -> Call:
    code.restype = ctypes.c_int32

    def run(*args: Any) -> None:
        ctx = cg_gcc.Context(abi_version=1, num_threads=1, parallel_for=serial)
        passed = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int64(a) for a in args]
        if code(ctypes.byref(ctx), *passed) != 0:
            raise AssertionError(ctx.message.decode())

    return run
