"""Mathematical functions: native code against NumPy in a wider type, over all exponents."""

from __future__ import annotations

import math
from typing import Any

import cg_native as native
import numpy as np
import pytest

from warpbeam.tir import expr as E
from warpbeam.tir.mathlib import FUNCTIONS
from warpbeam.tir.stmt import BufferStore, For, PrimFunc
from warpbeam.tir.transform.expand_math import expand_math
from warpbeam.tir.transform.setting import Setting

_ERF = np.vectorize(math.erf, otypes=[float])
_REFERENCE = {
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "erf": lambda x: _ERF(x.astype(float)), "rsqrt": lambda x: 1 / np.sqrt(x), "pow": np.power,
    "atan2": np.arctan2, "exp10": lambda x: np.power(np.asarray(10, x.dtype), x),
    "sigmoid": lambda x: np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x))),
}  # fmt: skip
_OPS = sorted(set(FUNCTIONS) - {"power", "ldexp", "nextafter"})
_PAIRS = ("pow", "atan2", "hypot", "fmod")
_SPECIAL = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, np.inf, -np.inf, np.nan, 88.7,
    88.8, -87.4, -103.9, 709.7, -745.2, 1e-40,
]  # fmt: skip


def kernel(
    op: str, dtype: str, count: int, lanes: int, operands: int = 1, at: Setting | None = None, **known: Any
) -> PrimFunc:
    i = E.Var("i")
    places = (E.Ramp(i * lanes, E.as_expr(1), lanes),)
    sources = [E.Buffer(f"a{k}", (count,), dtype) for k in range(operands)]
    out = E.Buffer("out", (count,), dtype)
    value = E.call(op, *(E.BufferLoad(s, places) for s in sources), **known)
    body = For(i, 0, count // lanes, "serial", BufferStore(out, value, places))
    return expand_math(PrimFunc(f"wb_{op}", (*sources, out), body), at)


def samples(dtype: str, op: str, seed: int) -> np.ndarray:
    """All exponents, usual magnitudes, the function's domain, special values; a multiple of 16 of them."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    word = np.uint32 if dtype == "float32" else np.uint64
    x = rng.integers(0, 1 << info.bits, 40_000, dtype=np.uint64).astype(word).view(dtype)
    edges = [*_SPECIAL, info.max, -info.max, info.tiny, info.smallest_subnormal, -info.smallest_subnormal]
    with np.errstate(over="ignore"):
        y = np.concatenate([rng.uniform(-20, 20, 20_000), rng.uniform(-1, 1, 20_000), edges]).astype(dtype)
    both = np.concatenate([x, y])
    return np.concatenate([both, np.ones(-len(both) % 16, dtype)])


def check(got: np.ndarray, want: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Largest error in ulp; NaNs and infinities must agree."""
    with np.errstate(all="ignore"):
        near = want.astype(got.dtype)
        spacing = np.spacing(np.abs(near)).astype(want.dtype)
        error = np.abs(got.astype(want.dtype) - want) / spacing
    np.testing.assert_array_equal(np.isnan(got), np.isnan(near))
    finite = np.isfinite(near)
    infinite = np.isinf(near)
    with np.errstate(all="ignore"):
        wrong = infinite & (got != near) & (np.abs(got) < np.finfo(got.dtype).max)
    assert not wrong.any()
    use = finite if valid is None else finite & valid
    return float(np.where(use, error, 0).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", _OPS)
def test_error_is_a_few_ulp(op: str, dtype: str) -> None:
    operands = [samples(dtype, op, 0)]
    if op in _PAIRS:
        rng = np.random.default_rng(2)
        operands[0][::3] = rng.uniform(0, 30, len(operands[0][::3]))
        second = np.roll(operands[0], 7)
        second[::2] = np.round(rng.uniform(-9, 9, len(second[::2])))
        operands.append(second)
    lanes = 16 if dtype == "float32" else 8
    out = np.empty_like(operands[0])
    native.build(kernel(op, dtype, len(out), lanes, len(operands)))(*operands, out)
    wide = np.float64 if dtype == "float32" else np.longdouble
    with np.errstate(all="ignore"):
        want = np.asarray(_REFERENCE.get(op, getattr(np, op, None))(*(x.astype(wide) for x in operands)))
    valid = None
    if dtype == "float64" and op in ("sin", "cos", "tan"):
        valid = np.abs(operands[0]) < 2.0**27
        if op != "tan":
            finite = np.isfinite(operands[0])
            assert np.abs(out[finite] - want[finite].astype(float)).max() < 2.0**-48
    error = check(out, want, valid)
    print(f"{op} {dtype}: {error:.2f} ulp")
    assert error < 4.0


@pytest.mark.parametrize("op", ["exp", "log", "tanh", "sin", "pow", "erf"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_floats_are_rounded_once(op: str, dtype: str) -> None:
    import ml_dtypes

    kind = np.dtype(np.float16 if dtype == "float16" else ml_dtypes.bfloat16)
    x = np.arange(1 << 16, dtype=np.uint16).view(kind)
    operands = [x] if op != "pow" else [x, np.full_like(x, 1.5)]
    out = np.empty_like(x)
    native.build(kernel(op, dtype, len(x), 16, len(operands)))(*operands, out)
    with np.errstate(all="ignore"):
        reference = _REFERENCE.get(op, getattr(np, op, None))
        want = np.asarray(reference(*(v.astype(np.float64) for v in operands)))
        near = want.astype(np.float32).astype(kind)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(near))
    use = np.isfinite(near.astype(np.float32))
    steps = np.abs(out.view(np.int16).astype(int) - near.view(np.int16).astype(int))[use]
    assert steps.max() <= 1
    assert (steps > 0).mean() < 0.001


def test_signed_zeros_are_kept() -> None:
    x = np.array([0.0, -0.0] * 8, np.float32)
    for op in ("sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "expm1", "log1p", "erf"):
        out = np.empty_like(x)
        native.build(kernel(op, "float32", 16, 16))(x, out)
        assert np.array_equal(np.signbit(out), np.signbit(x)), op


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_neighbours_are_exact(dtype: str) -> None:
    info = np.finfo(dtype)
    edges = [0.0, -0.0, 1.0, -1.0, info.max, -info.max, info.tiny, -info.smallest_subnormal, np.inf, -np.inf, np.nan]
    x, y = np.repeat(np.array(edges, dtype), len(edges)), np.tile(np.array(edges, dtype), len(edges))
    x, y = (np.concatenate([v, np.ones(-len(v) % 16, dtype)]) for v in (x, y))
    out = np.empty_like(x)
    native.build(kernel("nextafter", dtype, len(x), 16, 2))(x, y, out)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(out, np.nextafter(x, y))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scaling_by_powers_of_two(dtype: str) -> None:
    x = np.resize(np.array([1.5, -3.25, 1e-30, 0.0, np.inf, -np.inf, np.nan, 7e20], dtype), 128)
    k = np.repeat(np.array([0, 3, -3, 100, -100, 127, 5000, -5000] * 2, np.int32), 8)
    a, b, i = E.Buffer("a", (128,), dtype), E.Buffer("b", (128,), "int32"), E.Var("i")
    at = (E.Ramp(i * 16, E.as_expr(1), 16),)
    out = E.Buffer("out", (128,), dtype)
    store = BufferStore(out, E.call("ldexp", E.BufferLoad(a, at), E.BufferLoad(b, at)), at)
    got = np.empty_like(x)
    native.build(expand_math(PrimFunc("wb_ldexp", (a, b, out), For(i, 0, 8, "serial", store))))(x, k, got)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got, np.ldexp(x, k))
