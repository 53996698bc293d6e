"""What tests of passes share: loops before and after as text, and both must compute the same, also as native code."""

from __future__ import annotations

import ctypes
import functools
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam import target
from warpbeam.codegen import llvm
from warpbeam.ir import dtype as dt
from warpbeam.ir.structural import structural_equal
from warpbeam.runtime.abi import Context
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.loader import Library
from warpbeam.runtime.pool_ll import pool_ir
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.text import parse, to_text
from warpbeam.tir.transform import lower

_LOADED: list[Any] = []


def program(text: str) -> PrimFunc:
    """A program from indented text."""
    return parse(textwrap.dedent(text).strip() + "\n")


def becomes(
    change: Callable[[PrimFunc], PrimFunc], before: str, after: str, inputs: int | None = None, **sizes: int
) -> PrimFunc:
    """The pass makes the second program of the first, and both compute the same; gives the result.

    inputs: number of leading buffers that are read (default: all but the last).
    """
    func = program(before)
    got = change(func)
    assert structural_equal(got, program(after)), to_text(got)
    agree(func, got, inputs, **sizes)
    return got


def agree(before: PrimFunc, after: PrimFunc, inputs: int | None = None, **sizes: int) -> None:
    """Interpreted before, interpreted after, lowered and interpreted, lowered and run natively: one result."""
    args = arrays(before, sizes, inputs)
    want = [a.copy() for a in args]
    run(before, *want, *sizes.values())
    lowered = lower(after, target.get("native"))
    for call in (functools.partial(run, after), functools.partial(run, lowered), native(lowered)):
        got = [a.copy() for a in args]
        call(*got, *sizes.values())
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=1e-4, atol=1e-4)


def arrays(func: PrimFunc, sizes: dict[str, int], inputs: int | None = None) -> list[Any]:
    """Random contents for what is read, a mark for what is written."""
    rng = np.random.default_rng(0)
    found = []
    count = len(func.buffers) - 1 if inputs is None else inputs
    for k, b in enumerate(func.buffers):
        shape = [s if isinstance(s, int) else sizes[s.name] for s in b.shape]
        if k >= count:
            found.append(np.full(shape, 77).astype(dt.to_numpy(b.dtype)))
        elif dt.is_float(b.dtype):
            found.append(rng.standard_normal(shape).astype(dt.to_numpy(b.dtype)))
        else:
            found.append(rng.integers(0, 5, shape).astype(dt.to_numpy(b.dtype)))
    return found


@functools.cache
def _pool() -> Library:
    host = target.get("native")
    names = ["wb_serial_parallel_for", "wb_pool_parallel_for"]
    return Library(link_shared([llvm.compile_text(pool_ir(host.triple), host)], names), "pool")


def native(lowered: PrimFunc) -> Callable[..., None]:
    """A lowered program as machine code."""
    host = target.get("native")
    code = llvm.compile_text(llvm.print_kernel(lowered, host), host)
    library = Library(link_shared([code], [lowered.name]), lowered.name)
    _LOADED.append(library)
    entry = library.function(lowered.name)
    context = Context(abi_version=1, num_threads=1, parallel_for=_pool().address("wb_serial_parallel_for"))

    def call(*args: Any) -> None:
        given, numbers = [a for a in args if isinstance(a, np.ndarray)], [n for n in args if isinstance(n, int)]
        extra = [
            np.zeros([_size(d, lowered, numbers) for d in b.shape], dt.to_numpy(b.dtype))
            for b in lowered.buffers[len(given) :]
        ]
        passed = [ctypes.c_void_p(a.ctypes.data) for a in (*given, *extra)] + [ctypes.c_int64(n) for n in numbers]
        if entry(ctypes.byref(context), *passed) != 0:
            raise AssertionError(context.message.decode())

    return call


def _size(dim: Any, func: PrimFunc, numbers: list[int]) -> int:
    if isinstance(dim, int):
        return dim
    names = [p for p in func.params if p not in func.buffers]
    from warpbeam.ir.rewrite import substitute
    from warpbeam.tir.arith import simplify
    from warpbeam.tir.expr import const

    value = simplify(substitute(dim, {v: const(n) for v, n in zip(names, numbers, strict=True)}))
    return int(value.value)
