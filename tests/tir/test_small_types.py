"""Floats of 8, 6 and 4 bits and integers of 4 and 2: the interpreter, what it lowers to, and compiled code agree."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import te
from warpbeam.driver.te_build import build
from warpbeam.ir import dtype as dt
from warpbeam.te.create import create_prim_func
from warpbeam.tir import interp
from warpbeam.tir.transform import lower

pytest.importorskip("ml_dtypes")


def converted(x: np.ndarray, to: str, how: str) -> np.ndarray:
    """`x` as dtype `to`."""
    a = te.placeholder(x.shape, dt.from_numpy(x.dtype), "A")
    func = create_prim_func([a], [te.compute(x.shape, lambda i: a[i].astype(to), "C")], "convert")
    out = np.zeros(x.shape, dt.to_numpy(to))
    if how == "interpreter":
        interp.run(func, x, out)
    elif how == "lowered":
        interp.run(lower(func), x, out)
    else:
        build(func, target="llvm")(x, out)
    return out


def floats() -> np.ndarray:
    """Every upper half of a float32, with lower halves around a rounding."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    with np.errstate(all="ignore"):
        return np.concatenate([upper, upper | 0x8000, upper | 0x8001, upper - 1]).view(np.float32)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", sorted(dt.SMALL_FLOATS))
def test_short_floats(dtype: str) -> None:
    x = floats()
    wanted = x.astype(dt.to_numpy(dtype)).view(np.uint8)
    codes = np.arange(1 << dt.bits(dtype), dtype=np.uint8).view(dt.to_numpy(dtype))
    for how in ("interpreter", "lowered", "compiled"):
        np.testing.assert_array_equal(converted(x, dtype, how).view(np.uint8), wanted, how)
        back = converted(codes, "float32", how)
        np.testing.assert_array_equal(back, codes.astype(np.float32), how)
        kept = ~np.isnan(back)
        np.testing.assert_array_equal(np.signbit(back[kept]), np.signbit(codes.astype(np.float32)[kept]))


@pytest.mark.parametrize("dtype", dt.SMALL_INTS)
def test_short_integers(dtype: str) -> None:
    low, high = dt.int_range(dtype)
    whole = np.arange(-300, 300, dtype=np.int32)
    real = np.concatenate([np.arange(-30, 30, 0.25), [np.nan, np.inf, -np.inf]]).astype(np.float32)
    clamped = np.where(np.isnan(real), 0, np.clip(np.trunc(np.nan_to_num(real, posinf=99, neginf=-99)), low, high))
    for how in ("interpreter", "lowered", "compiled"):
        wrapped = (whole - low) % (high - low + 1) + low
        np.testing.assert_array_equal(converted(whole, dtype, how).astype(np.int32), wrapped, how)
        np.testing.assert_array_equal(converted(real, dtype, how).astype(np.int32), clamped, how)
        every = np.arange(low, high + 1).astype(dt.to_numpy(dtype))
        np.testing.assert_array_equal(converted(every, "float32", how), np.arange(low, high + 1), how)


def test_arithmetic_is_done_wider() -> None:
    a = te.placeholder((16,), "int4", "A")
    func = create_prim_func([a], [te.compute((16,), lambda i: a[i] + a[i], "C")], "double")
    x = np.arange(16, dtype=np.uint8).view(dt.to_numpy("int4"))
    out = np.zeros(16, dt.to_numpy("int4"))
    interp.run(lower(func), x, out)
    np.testing.assert_array_equal(out.astype(np.int8), [(2 * v + 8) % 16 - 8 for v in x.astype(np.int8)])


def test_c_agrees() -> None:
    a = te.placeholder((256,), "float8_e5m2", "A")
    b = te.compute((256,), lambda i: (a[i].astype("float32") * 3).astype("float8_e4m3fn"), "B")
    x = np.arange(256, dtype=np.uint8).view(dt.to_numpy("float8_e5m2"))
    out = np.zeros(256, dt.to_numpy("float8_e4m3fn"))
    build(create_prim_func([a], [b], "scale"), target="c")(x, out)
    with np.errstate(all="ignore"):
        wanted = (x.astype(np.float32) * np.float32(3)).astype(out.dtype)
    kept = ~np.isnan(wanted.astype(np.float32))
    np.testing.assert_array_equal(out.view(np.uint8)[kept], wanted.view(np.uint8)[kept])
    assert np.isnan(out.astype(np.float32)[~kept]).all()
