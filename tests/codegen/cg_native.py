"""Test helpers: print, compile, link and call kernels in this process."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam import target
from warpbeam.codegen import llvm
from warpbeam.runtime.abi import Context
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.loader import Library
from warpbeam.runtime.pool_ll import pool_ir
from warpbeam.target import Target
from warpbeam.tir.stmt import PrimFunc

_LIBRARIES: list[Library] = []


@functools.cache
def _serial() -> Library:
    native = target.get("native")
    code = llvm.compile_text(pool_ir(native.triple), native)
    return Library(link_shared([code], ["wb_serial_parallel_for", "wb_pool_parallel_for"]), "pool")


def context() -> Context:
    """A context that runs parallel loops serially."""
    return Context(abi_version=1, num_threads=1, parallel_for=_serial().address("wb_serial_parallel_for"))


def library(text: str, names: list[str], tgt: Target) -> Library:
    lib = Library(link_shared([llvm.compile_text(text, tgt)], names), names[0])
    _LIBRARIES.append(lib)
    return lib


def build(func: PrimFunc, tgt: Target | None = None) -> Callable[..., Context]:
    """A function of arrays and ints that runs the kernel; raises AssertionError with its message on failure."""
    tgt = tgt or target.get("native")
    lib = library(llvm.print_kernel(func, tgt), [func.name], tgt)
    code = lib.function(func.name)

    def run(*args: Any, ctx: Context | None = None) -> Context:
        ctx = ctx or context()
        passed = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int64(a) for a in args]
        if code(ctypes.byref(ctx), *passed) != 0:
            raise AssertionError(ctx.message.decode())
        return ctx

    return run


def undefined_symbols(code: bytes) -> list[str]:
    """Undefined symbols of a 64-bit ELF object."""
    import struct

    (shoff,) = struct.unpack_from("<Q", code, 40)
    size, count, _ = struct.unpack_from("<HHH", code, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", code, shoff + i * size) for i in range(count)]
    found = []
    for head in heads:
        if head[1] != 2:
            continue
        names = heads[head[6]][4]
        for at in range(head[4] + 24, head[4] + head[5], 24):
            name, _, _, section, _, _ = struct.unpack_from("<IBBHQQ", code, at)
            if section == 0:
                found.append(code[names + name : code.index(b"\0", names + name)].decode())
    return found
