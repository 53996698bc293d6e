"""Quotients and remainders of vectors: integers by way of floats, exact remainders of floats in one step."""

from __future__ import annotations

import re
from typing import Any

import cg_native as native
import numpy as np
import pytest

from warpbeam import target
from warpbeam.codegen import llvm
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import BufferStore, For, PrimFunc

KINDS = {"Div": E.Div, "Mod": E.Mod, "FloorDiv": E.FloorDiv, "FloorMod": E.FloorMod}


def run(kind: Any, a: np.ndarray, b: np.ndarray, lanes: int = 16, machine: Any = None) -> np.ndarray:
    i, dtype = E.Var("i"), str(a.dtype)
    left, right, out = (E.Buffer(n, a.shape, dtype) for n in "abo")
    place = (E.Ramp(i * lanes, E.as_expr(1), lanes),)
    value = kind(E.BufferLoad(left, place), E.BufferLoad(right, place))
    func = PrimFunc("k", (left, right, out), For(i, 0, a.size // lanes, "serial", BufferStore(out, value, place)))
    result = np.zeros(a.size, a.dtype)
    native.build(func, machine)(a, b, result)
    return result


def integers(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of bytes; of others small and large ones, multiples and their neighbours, and the ends of the type."""
    info = np.iinfo(dtype)
    if info.bits == 8:
        every = np.arange(info.min, info.max + 1)
        a, b = (v.ravel() for v in np.meshgrid(every, every))
        return a.astype(dtype), b.astype(dtype)
    rng = np.random.default_rng(info.bits)
    edges = np.array([info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 7, -1 if info.min else 5], object)
    a, b = (v.ravel() for v in np.meshgrid(edges, edges))
    n = 20_000
    wide = np.array([int(v) for v in rng.integers(info.min, info.max, 3 * n, endpoint=True, dtype=dtype)], object)
    shift = rng.integers(0, info.bits - 1, 3 * n)
    wide = np.array([v >> int(s) for v, s in zip(wide, shift, strict=True)], object)
    near = wide[:n] * wide[n : 2 * n] + rng.integers(-1, 2, n)
    near = np.where((near >= info.min) & (near <= info.max), near, wide[2 * n :])
    a = np.concatenate([a, wide[:n], near])
    b = np.concatenate([b, wide[2 * n :], wide[n : 2 * n]])
    size = len(a) // 16 * 16
    return a[:size].astype(dtype), b[:size].astype(dtype)


def exact(kind: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In Python's integers; by 0 both are 0, what does not fit wraps."""
    x, y = a.astype(object), b.astype(object)
    safe = np.where(y == 0, 1, y)
    q = np.array([abs(v) // abs(w) * (1 if (v < 0) == (w < 0) else -1) for v, w in zip(x, safe, strict=True)], object)
    q = x // safe if kind.startswith("Floor") else q
    value = np.where(y == 0, 0, q if kind.endswith("Div") else x - q * safe)
    bits = a.dtype.itemsize * 8
    return np.array([int(v) % (1 << bits) for v in value], f"uint{bits}").view(a.dtype)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
@pytest.mark.parametrize("kind", KINDS)
def test_integers(kind: str, dtype: str) -> None:
    a, b = integers(dtype)
    np.testing.assert_array_equal(run(KINDS[kind], a, b), exact(kind, a, b))


def floats(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All exponents, near ones, multiples and their neighbours, numbers below the least normal one, special values."""
    rng = np.random.default_rng(7)
    info, word = np.finfo(dtype), f"uint{np.finfo(dtype).bits}"
    any_bits = rng.integers(0, 1 << info.bits - 1, (2, 4000), dtype=np.uint64).astype(word).view(dtype)
    any_bits = np.where(rng.random((2, 4000)) < 0.5, any_bits, -any_bits)
    x, y = rng.standard_normal((2, 8000)).astype(dtype) * dtype_of(dtype)(8)
    product = (np.rint(x * 100) * y).astype(dtype)
    beside = np.nextafter(product, rng.choice([-np.inf, np.inf], 8000).astype(dtype))
    tiny = rng.integers(1, 1000, (2, 2000)).astype(dtype) * info.smallest_subnormal
    special = np.array(
        [0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, info.max, -info.tiny, info.smallest_subnormal], dtype
    )
    s, t = (v.ravel() for v in np.meshgrid(special, special))
    with np.errstate(over="ignore"):
        a = np.concatenate([any_bits[0], x, product, beside, x * dtype_of(dtype)(2.0 ** (info.nmant + 1)), tiny[0], s])
    b = np.concatenate([any_bits[1], y, y, y, y, tiny[1], t])
    size = len(a) // 16 * 16
    order = rng.permutation(len(a))[:size]  # what is quick next to what is not
    return a[order].astype(dtype), b[order].astype(dtype)


def dtype_of(dtype: str) -> Any:
    return np.dtype(dtype).type


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("change", [{}, {"fma": False}, {"native_round": False}], ids=str)
def test_float_remainders_are_exact(dtype: str, change: dict[str, bool]) -> None:
    a, b = floats(dtype)
    got = run(E.Mod, a, b, machine=target.get("native").replace(**change))
    with np.errstate(invalid="ignore"):
        want = np.fmod(a, b)
    np.testing.assert_array_equal(got, want)
    number = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


@pytest.mark.parametrize("name", ["generic-x86-64-v2", "generic-aarch64", "wasm32", "generic-riscv64", "generic-armv7"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint16", "int32", "uint32"])
def test_no_library_is_called(name: str, dtype: str) -> None:
    i, machine = E.Var("i"), target.get(name)
    left, right, out = (E.Buffer(n, (64,), dtype) for n in "abo")
    place = (E.Ramp(i * 16, E.as_expr(1), 16),)
    value = E.Mod(E.BufferLoad(left, place), E.BufferLoad(right, place))
    func = PrimFunc("k", (left, right, out), For(i, 0, 4, "serial", BufferStore(out, value, place)))
    code = llvm.assembly_text(llvm.print_kernel(func, machine), machine)
    called = re.findall(r"^\s*(?:call|callq|bl|jal|tail|jmp)\s+([A-Za-z_]\w*)", code, re.M)
    assert all(c.startswith("wb_fmod") for c in called), called
