"""The native entry of a Program, in LLVM and in C: calls, symbols, arena, queries, checks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import cg_gcc
import cg_native
import numpy as np
import pytest

from warpbeam import target
from warpbeam.codegen import c, host, llvm
from warpbeam.ir.diagnostics import LowerError
from warpbeam.runtime.abi import DLPACK_TYPES, QUERY_SHAPES, RESERVE_FN, Context, Tensor
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.loader import Library
from warpbeam.runtime.program import (
    Branch,
    CallExternal,
    CallKernel,
    Check,
    Loop,
    Move,
    Port,
    Program,
    Return,
    SetSymbol,
    Symbol,
    Value,
    View,
)
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import BufferStore, For, PrimFunc

_KEEP: list[Any] = []


def scale_kernel() -> PrimFunc:
    """out[i] = a[i] * 2, i < n."""
    n, i = E.SizeVar("n"), E.Var("i")
    a, out = E.Buffer("a", (n,)), E.Buffer("out", (n,))
    return PrimFunc("twice", (a, out, n), For(i, 0, n, "serial", BufferStore(out, a[i] * 2.0, (i,))))


def symbolic() -> Program:
    """y[n+1, 4] = 4 * x[n, 4] (in the arena in between), its last row the first of a constant; n < 7."""
    values = (
        Value(0, "tensor", "float32", ("n", 4), storage=("input", 0)),
        Value(1, "tensor", "float32", (("add", "n", 1), 4), storage=("output", 0)),
        Value(2, "tensor", "float32", ("n", 4), storage=("arena", ("mul", "n", 0))),
        Value(3, "tensor", "float32", (4,), storage=("const", 16)),
        Value(4, "tensor", "float32", (4,), storage=("view", 1, ("mul", "n", 16))),
        Value(5, "tensor", "float32", (2,), storage=("output", 1)),
        Value(6, "tensor", "float32", (2,), storage=("view", 3, 8)),
    )
    body = (
        Check(("lt", "n", 7), "n must be below 7"),
        CallKernel("twice", (0, 2), (("mul", "n", 4),), writes=(2,)),
        SetSymbol("k", 0),
        Loop("i", ("max", ("sub", "n", 1), 0), 1, (SetSymbol("k", ("add", "k", "i")),)),
        Branch(("ge", "k", 0), (CallKernel("twice", (2, 1), (("mul", "n", 4),), writes=(1,)),), ()),
        View(6, 3, 8),
        Move(4, 3),
        Move(5, 6),
        Return(),
    )
    return Program(
        "m", (Port("x", 0),), (Port("y", 1), Port("z", 5)), values, body,
        symbols=(Symbol("n", ("dim", 0, 0)),), arena_bytes=("mul", "n", 16),
    )  # fmt: skip


def tensor(array: np.ndarray, dtype: str | None = None) -> Tensor:
    code, bits = DLPACK_TYPES[dtype or str(array.dtype)]
    shape = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    strides = (ctypes.c_int64 * max(array.ndim, 1))(*(s // array.itemsize for s in array.strides))
    _KEEP.append((array, shape, strides))
    place = ctypes.addressof(shape), ctypes.addressof(strides)
    return Tensor(array.ctypes.data, 1, 0, array.ndim, code, bits, 1, *place, 0)


def native_entry(program: Program) -> Callable[..., int]:
    tgt = target.get("native")
    objects = [llvm.compile_text(llvm.print_kernel(scale_kernel(), tgt), tgt)]
    objects.append(llvm.compile_text(host.print_entry(program, tgt, "entry"), tgt))
    lib = Library(link_shared(objects, ["entry", "twice"]), "entry")
    _KEEP.append(lib)
    return lib.function("entry")


def c_entry(program: Program) -> Callable[..., int]:
    tgt = target.get("c")
    text = host.print_entry(program, tgt, "entry")
    kernel = c.print_kernel(scale_kernel(), tgt)
    lib = cg_gcc.compile_shared(text + kernel[kernel.index("int32_t twice") :])
    _KEEP.append(lib)
    function = lib["entry"]
    function.restype = ctypes.c_int32
    return function


@pytest.fixture(scope="module", params=[native_entry, c_entry])
def entry(request) -> Callable[..., int]:
    symbolic().validate()
    return request.param(symbolic())


def context(grow: bool = True) -> Context:
    ctx = cg_native.context()
    constants = np.arange(8, dtype=np.float32)
    ctx.constants = constants.ctypes.data

    def reserve(pointer: int, size: int) -> int:
        memory = np.zeros(size, np.uint8)
        _KEEP.append(memory)
        ctx.arena, ctx.arena_bytes = memory.ctypes.data, size
        return 0

    callback = RESERVE_FN(reserve)
    _KEEP.extend((constants, callback))
    if grow:
        ctx.reserve = ctypes.cast(callback, ctypes.c_void_p).value
    return ctx


def call(entry: Callable[..., int], ctx: Context, *tensors: Tensor) -> str:
    """Runs the entry; gives its message, empty for success."""
    pointers = (ctypes.c_void_p * len(tensors))(*(ctypes.addressof(t) for t in tensors))
    status = entry(ctypes.byref(ctx), pointers, ctypes.c_int32(len(tensors)))
    return ctx.message.decode() if status else ""


@pytest.mark.parametrize("n", [0, 1, 5])
def test_runs(entry, n: int) -> None:
    x = np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32)
    y, z = np.zeros((n + 1, 4), np.float32), np.zeros(2, np.float32)
    assert call(entry, context(), tensor(x), tensor(y), tensor(z)) == ""
    np.testing.assert_array_equal(y[:n], x * 4)
    assert y[n].tolist() == [4, 5, 6, 7]
    assert z.tolist() == [6, 7]


def test_query_writes_shapes_only(entry) -> None:
    x, y, z = (
        tensor(np.zeros((3, 4), np.float32)),
        tensor(np.zeros((1, 1), np.float32)),
        tensor(np.zeros(1, np.float32)),
    )
    y.data = z.data = x.data = None
    ctx = context()
    ctx.flags = QUERY_SHAPES
    assert call(entry, ctx, x, y, z) == ""
    assert (ctypes.c_int64 * 2).from_address(y.shape)[:] == [4, 4]
    assert (ctypes.c_int64 * 1).from_address(z.shape)[:] == [2]


def test_wrong_arguments_are_named(entry) -> None:
    def run(x: np.ndarray, y: np.ndarray | None = None, dtype: str | None = None) -> str:
        y = np.zeros((len(x) + 1, 4), np.float32) if y is None else y
        return call(entry, context(), tensor(x, dtype), tensor(y), tensor(np.zeros(2, np.float32)))

    good = np.zeros((3, 4), np.float32)
    assert run(good) == ""
    assert "'x' must be float32" in run(good, dtype="int32")
    assert "'x' must have 2 axes" in run(good.reshape(3, 2, 2))
    assert "'x': axis 1 must be 4" in run(np.zeros((3, 5), np.float32))
    assert "'y': axis 0 must be n + 1" in run(good, np.zeros((3, 4), np.float32))
    assert "'x' must be compact" in run(np.zeros((3, 8), np.float32)[:, ::2])
    assert "n must be below 7" in run(np.zeros((7, 4), np.float32))
    assert "takes 3 tensors" in call(entry, context(), tensor(good))
    old = context()
    old.abi_version = 9
    assert "ABI" in call(
        entry, old, tensor(good), tensor(np.zeros((4, 4), np.float32)), tensor(np.zeros(2, np.float32))
    )
    small = call(
        entry, context(grow=False), tensor(good), tensor(np.zeros((4, 4), np.float32)), tensor(np.zeros(2, np.float32))
    )
    assert "arena is too small" in small


def test_what_only_the_executor_can_do_is_refused() -> None:
    program = symbolic()
    odd = Program("m", program.inputs, program.outputs, program.values, (CallExternal("f", (0,), (1,)),))
    with pytest.raises(LowerError, match="CallExternal"):
        host.print_entry(odd, target.get("native"))


def test_entry_object_asks_only_for_kernels() -> None:
    tgt = target.get("native")
    code = llvm.compile_text(host.print_entry(symbolic(), tgt, "entry"), tgt)
    assert cg_native.undefined_symbols(code) == ["twice"]
