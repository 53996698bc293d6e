"""Choices whose condition holds for all lanes or is known in each: masked loads touch nothing where it does not."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cg_gcc import build as build_c
from cg_native import build as build_native

from warpbeam.codegen import llvm
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.expr import Buffer, BufferLoad, SizeVar, Var, const, if_then_else, land
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import BufferStore, For, PrimFunc
from warpbeam.tir.transform import lower


def window(target: str) -> PrimFunc:
    """A window of three by three over maps of any size, zeros outside."""
    h, w, c = SizeVar("h"), SizeVar("w"), 16
    x, k = te.placeholder((h, w, c), name="x"), te.placeholder((3, 3, c), name="k")
    inside = te.compute(
        (h + 2, w + 2, c),
        lambda i, j, f: if_then_else(land(i >= 1, i < h + 1, j >= 1, j < w + 1), x[i - 1, j - 1, f], 0.0),
    )
    a, b = te.reduce_axis(3, "a"), te.reduce_axis(3, "b")
    y = te.compute((h, w, c), lambda i, j, f: te.sum(inside[i + a, j + b, f] * k[a, b, f], axis=[a, b]))
    lowered = schedule([x, k], [y], replace(get(target), cores=1)).lowered
    assert lowered is not None
    return lowered


@pytest.mark.parametrize(("build", "target"), [(build_native, "native"), (build_c, "generic-x86-64-v4")])
@pytest.mark.parametrize("size", [(1, 1), (2, 17), (5, 8)])
def test_window_over_open_maps(build: Any, target: str, size: tuple[int, int]) -> None:
    run = build(window(target))
    rng = np.random.default_rng(size)
    x, k = rng.standard_normal((*size, 16)).astype(np.float32), rng.standard_normal((3, 3, 16)).astype(np.float32)
    around = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    want = sum(around[a : a + size[0], b : b + size[1]] * k[a, b] for a in range(3) for b in range(3))
    out = np.zeros_like(x)
    run(x, k, out, *size)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


def copied(count: int, step: int, on: list[bool], dtype: str = "float32") -> PrimFunc:
    """Some lanes of a vector, the others zero; lanes that are off lie before or behind the array."""
    a, b = Buffer("a", (sum(on) * step,), dtype), Buffer("b", (count,), dtype)
    i = Var("i")
    first = on.index(True)
    inside = land(i >= first, i < first + sum(on))
    value = if_then_else(inside, BufferLoad(a, ((i - first) * step,)), const(0, dtype))
    return PrimFunc("copied", (a, b), For(i, 0, count, "vectorized", BufferStore(b, value, (i,))))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("edge", [(0, 0), (1, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("count", [3, 5, 7, 8])
def test_lanes_that_are_off_touch_nothing(count: int, edge: tuple[int, int], step: int, dtype: str) -> None:
    on = [edge[0] <= k < count - edge[1] for k in range(count)]
    if not any(on):
        return
    func = lower(copied(count, step, on, dtype), get("native"))
    used = sum(on) * step
    page = np.zeros(4096, dtype)
    x = page[2048 : 2048 + used]
    x[:] = np.arange(1, used + 1)
    want = np.zeros(count, dtype)
    want[on] = x[::step]
    for function in (build_native(func), build_c(func), lambda *arrays: run(func, *arrays)):
        around = np.full(count + 8, 77, dtype)
        function(x, around[4:-4])
        np.testing.assert_array_equal(around[4:-4], want)
        assert (around[:4] == 77).all()
        assert (around[-4:] == 77).all()


def test_one_masked_instruction_for_lanes_that_are_no_power_of_two() -> None:
    v4 = get("generic-x86-64-v4")
    text = llvm.assembly_text(llvm.print_kernel(lower(copied(7, 1, [False, *[True] * 6]), v4), v4), v4)
    assert text.count("vmovups") == 2
    assert "vmovss" not in text
    assert "vinsert" not in text


def test_what_lies_outside_is_zeros_and_no_mask() -> None:
    """A load with all lanes off takes very long where nothing is mapped, as before the first row of an arena."""
    text = llvm.print_kernel(window("generic-x86-64-v4"), get("generic-x86-64-v4"))
    assert "masked.load" not in text
    assert "@wb_zeros.64 = private constant [64 x i8] zeroinitializer" in text
    assert text.count("@wb_zeros.64 =") == 1


def test_data_between_pages_that_cannot_be_read() -> None:
    """The rows before and behind the data are not touched."""
    page, size = mmap.PAGESIZE, (1, mmap.PAGESIZE // 64)
    room = mmap.mmap(-1, 3 * page)
    here = np.frombuffer(room, np.float32)
    libc = ctypes.CDLL(None, use_errno=True)
    for at in (0, 2 * page):
        assert libc.mprotect(ctypes.c_void_p(here.ctypes.data + at), ctypes.c_size_t(page), 0) == 0
    x = here[page // 4 : page // 2].reshape(*size, 16)
    x[...] = np.random.default_rng(0).standard_normal(x.shape)
    k, out = np.ones((3, 3, 16), np.float32), np.zeros(x.shape, np.float32)
    build_native(window("native"))(x, k, out, *size)
    around = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    np.testing.assert_allclose(out, sum(around[:, b : b + size[1]] for b in range(3)), rtol=1e-5, atol=1e-5)
    for at in (0, 2 * page):
        libc.mprotect(ctypes.c_void_p(here.ctypes.data + at), ctypes.c_size_t(page), 3)
