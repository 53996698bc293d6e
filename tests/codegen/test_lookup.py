"""Elements of a vector looked up by the low bits of an index, and the exponentials that are made with them."""

from __future__ import annotations

import numpy as np
import pytest
from cg_gcc import build_all
from cg_native import build
from test_mathlib import check, samples
from test_mathlib import kernel as function

from warpbeam import target
from warpbeam.codegen import llvm
from warpbeam.ir.diagnostics import LowerError
from warpbeam.target import Target
from warpbeam.tir import expr as e
from warpbeam.tir.interp import run
from warpbeam.tir.mathscale import PARTS, nearest, part_power, scale2
from warpbeam.tir.stmt import BufferStore, For, PrimFunc
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import lower
from warpbeam.tir.transform.expand_math import can_look_up, expand_math
from warpbeam.tir.transform.setting import Setting


def native() -> Target:
    found = target.get("native")
    if not can_look_up(found):
        pytest.skip("this processor has no instruction for it")
    return found


def looked_up(lanes: int) -> PrimFunc:
    index, out = e.Buffer("index", (lanes,), "int32"), e.Buffer("out", (lanes,), "float32")
    at = (e.Ramp(e.const(0), e.const(1), lanes) if lanes > 1 else e.const(0),)
    numbers = (e.const(1.5 * k - 3) for k in range(PARTS))
    value = e.call("lookup", e.BufferLoad(index, at), *numbers, dtype=e.BufferLoad(out, at).dtype)
    return PrimFunc("k", (index, out), BufferStore(out, value, at))


@pytest.mark.parametrize("lanes", [1, 3, 8, 16, 17, 20, 32, 33, 48, 64])
def test_every_way_looks_up_the_same(lanes: int) -> None:
    func = looked_up(lanes)
    lowered = lower(func, native())
    index = np.random.default_rng(lanes).integers(-(2**31), 2**31, lanes).astype(np.int32)
    want = (1.5 * (index.astype(np.int64) % PARTS) - 3).astype(np.float32)
    for way in (build(lowered, native()), *build_all([lowered]), lambda *arrays: run(func, *arrays)):
        got = np.zeros(lanes, np.float32)
        way(index, got)
        np.testing.assert_array_equal(got, want)


def test_without_the_instruction_it_cannot_be_printed() -> None:
    plain = target.get("generic-x86-64-v3")
    assert not can_look_up(plain)
    with pytest.raises(LowerError, match="lookup to float32x8 cannot be printed"):
        llvm.print_kernel(looked_up(8), plain)


@pytest.mark.parametrize("within", [(-125, 126), (-151, 0), (-151, 129)])
def test_scaling_rounds_parts_down(within: tuple[int, int]) -> None:
    """2^n of sixteenths n: its two factors, each of which is exact or rounded once."""
    count, lanes = 256, 16
    n, out, i = e.Buffer("n", (count,), "float32"), e.Buffer("out", (count,), "float32"), e.Var("i")
    at = (e.Ramp(i * lanes, e.const(1), lanes),)
    part = nearest(e.BufferLoad(n, at), 1.0, within, PARTS)
    value = scale2(part_power(part), part, within, PARTS)
    func = PrimFunc("k", (n, out), For(i, 0, count // lanes, "serial", BufferStore(out, value, at)))
    x = np.random.default_rng(0).integers(within[0] * PARTS, within[1] * PARTS, count).astype(np.float32) / PARTS
    whole = np.floor(x).astype(np.int32)
    with np.errstate(over="ignore"):
        want = np.ldexp(np.exp2(np.float64(x) - whole).astype(np.float32), whole)
    lowered = lower(func, native())
    for way in (build(lowered, native()), *build_all([lowered]), lambda *arrays: run(func, *arrays)):
        got = np.zeros(count, np.float32)
        way(x, got)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("op", ["exp", "sigmoid"])
def test_error_of_exponentials(op: str) -> None:
    """Machine code, C and interpreter: the same bits, as near to the truth as without the instruction."""
    x = samples("float32", op, 3)
    func = function(op, "float32", len(x), 16, at=Setting(native()))
    assert "lookup[" in to_text(func)
    got = {k: np.empty_like(x) for k in ("machine", "c", "interpreter", "without")}
    with np.errstate(all="ignore"):
        build(func, native())(x, got["machine"])
        build_all([func], native().replace(kind="c"))[0](x, got["c"])
        run(func, x, got["interpreter"])
        build(function(op, "float32", len(x), 16))(x, got["without"])
        wide = x.astype(np.float64)
        want = np.exp(wide) if op == "exp" else 1 / (1 + np.exp(-wide))
    for way in ("c", "interpreter"):
        np.testing.assert_array_equal(got[way], got["machine"])
    assert check(got["machine"], want) < check(got["without"], want) + 0.5


def test_error_of_exponentials_of_rounded_differences() -> None:
    """A twentieth of what rounding the difference may have changed, nothing below e^-87, the same bits in every way."""
    x = np.concatenate([-np.abs(samples("float32", "exp", 5)), np.linspace(-88, 0, 1 << 16).astype(np.float32)])
    func = function("exp", "float32", len(x), 16, at=Setting(native()), most=0.0, rounded=True)
    assert "scale2" not in to_text(func)
    got = {k: np.empty_like(x) for k in ("machine", "c", "interpreter")}
    with np.errstate(all="ignore"):
        build(func, native())(x, got["machine"])
        build_all([func], native().replace(kind="c"))[0](x, got["c"])
        run(func, x, got["interpreter"])
        want = np.exp(x.astype(np.float64))
    for way in ("c", "interpreter"):
        np.testing.assert_array_equal(got[way], got["machine"])
    assert check(got["machine"], want, np.abs(x) < 1) < 1.1
    kept, value = x >= -87, got["machine"]
    error = np.abs(value[kept] - want[kept]) / want[kept] * 2.0**24
    assert (error < 2 + np.abs(x[kept]) / 20).all()
    assert (value[x < -87] == 0).all() and np.isinf(x).any()
    np.testing.assert_array_equal(np.isnan(value), np.isnan(x))


def test_without_lookup_differences_are_as_other_numbers() -> None:
    """Where products are not fused, the constant of few digits is needed."""
    plain = Setting(target.get("generic-x86-64-v3"))
    texts = [to_text(function("exp", "float32", 16, 16, at=plain, most=0.0, rounded=r)) for r in (False, True)]
    assert texts[0] == texts[1]


def test_bfloat16_is_made_of_float32() -> None:
    func = expand_math(function("exp", "float32", 16, 16), Setting(native()))
    assert "lookup[" not in to_text(func)  # what is expanded already stays as it is
    x = e.Buffer("x", (16,), "bfloat16")
    at = (e.Ramp(e.const(0), e.const(1), 16),)
    shortened = PrimFunc("k", (x,), BufferStore(x, e.call("exp", e.BufferLoad(x, at)), at))
    assert "lookup[" in to_text(expand_math(shortened, Setting(native())))
