"""Test helpers: kernels printed as C, compiled by gcc with the sanitizer of undefined behaviour."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warpbeam import target
from warpbeam.codegen import c
from warpbeam.runtime.abi import HEADER_PATH, Context
from warpbeam.target import Target
from warpbeam.tir.stmt import PrimFunc

FLAGS = ["-std=c11", "-O1", "-Wall", "-Werror", "-Wno-maybe-uninitialized", "-Wno-psabi", f"-I{HEADER_PATH.parent}"]
SERIAL = """
#include "warpbeam.h"
int32_t wb_serial_parallel_for(wb_ctx* ctx, wb_loop_fn fn, void* closure, int64_t n) {
  return n > 0 ? fn(ctx, closure, 0, n) : 0;
}
"""


@functools.cache
def gcc() -> str:
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("needs gcc")
    return found


@functools.cache
def _sanitizer() -> tuple[str, ...]:
    """Flags of the sanitizer, if its library is installed."""
    flags = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "x.c")
        source.write_text("int f(int x) { return x + 1; }")
        made = subprocess.run(
            [gcc(), *flags, "-shared", "-fPIC", source, "-o", Path(folder, "x.so")], capture_output=True
        )
    return flags if made.returncode == 0 else ()


def compile_shared(text: str, *flags: str) -> ctypes.CDLL:
    folder = tempfile.TemporaryDirectory()
    source, code = Path(folder.name, "k.c"), Path(folder.name, "k.so")
    source.write_text(text)
    subprocess.run([gcc(), *FLAGS, *_sanitizer(), *flags, "-shared", "-fPIC", source, "-o", code], check=True)
    lib = ctypes.CDLL(str(code))
    folder.cleanup()
    return lib


def build_all(funcs: list[PrimFunc], tgt: Target | None = None) -> list[Callable[..., Context]]:
    """For each kernel a function of arrays and ints that runs it, as `cg_native.build`; one compilation for all."""
    tgt = tgt or target.get("c")
    lib = compile_shared(c.print_kernels(funcs, tgt) + SERIAL, *(["-mfma"] if tgt.fma else []))
    serial = ctypes.cast(lib.wb_serial_parallel_for, ctypes.c_void_p).value

    def caller(name: str) -> Callable[..., Context]:
        code = lib[name]
        code.restype = ctypes.c_int32

        def run(*args: Any) -> Context:
            ctx = Context(abi_version=1, num_threads=1, parallel_for=serial)
            passed = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int64(a) for a in args]
            if code(ctypes.byref(ctx), *passed) != 0:
                raise AssertionError(ctx.message.decode())
            return ctx

        return run

    return [caller(f.name) for f in funcs]


def build(func: PrimFunc, tgt: Target | None = None) -> Callable[..., Context]:
    """One kernel."""
    return build_all([func], tgt)[0]
