"""Products with powers of two: the same bits from interpreter, LLVM and C, by the machine's instruction or not."""

from __future__ import annotations

import numpy as np
import pytest
from cg_gcc import build_all
from cg_native import build

from warpbeam import target
from warpbeam.codegen import llvm
from warpbeam.tir import expr as e
from warpbeam.tir.interp import run
from warpbeam.tir.mathscale import less, nearest, scale2
from warpbeam.tir.stmt import BufferStore, PrimFunc
from warpbeam.tir.transform import lower

#: normal results; one factor and 2^-64; two factors
RANGES = {"float32": [(-125, 126), (-151, 0), (-151, 129)], "float64": [(-1021, 1022), (-1077, 0), (-1077, 1025)]}


def kernel(dtype: str, lanes: int, within: tuple[int, int], how: str) -> PrimFunc:
    a, n, out = (e.Buffer(name, (lanes,), dtype) for name in ("a", "n", "out"))
    at = (e.Ramp(e.const(0), e.const(1), lanes) if lanes > 1 else e.const(0),)
    by: e.PrimExpr = e.BufferLoad(n, at)
    if how == "rounded":
        by = nearest(by, 1.0, within)
    elif how == "less":
        by = less(nearest(by + e.const(1.0, by.dtype), 1.0, within), 1)
    return PrimFunc("k", (a, n, out), BufferStore(out, scale2(e.BufferLoad(a, at), by, within), at))


def data(dtype: str, lanes: int, within: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = (rng.uniform(0.5, 2, lanes) * rng.choice([-1, 1], lanes)).astype(dtype)
    n = rng.integers(within[0], within[1], lanes, endpoint=True).astype(dtype)
    x[rng.uniform(size=lanes) < 0.1] = np.nan
    n[np.isnan(x)] = rng.choice([np.nan, 0.0])
    return x, n


@pytest.mark.parametrize("how", ["given", "rounded", "less"])
@pytest.mark.parametrize("lanes", [1, 3, 8, 16, 32])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_way_gives_the_same_bits(dtype: str, lanes: int, how: str) -> None:
    native = target.get("native")
    for within in RANGES[dtype]:
        func = kernel(dtype, lanes, within, how)
        ways = [build(lower(func, t), t) for t in (native, native.replace(intrinsics=()))]
        ways += build_all([lower(func, native)])
        for seed in range(20):
            x, n = data(dtype, lanes, within, seed)
            with np.errstate(all="ignore"):
                want = np.ldexp(x, np.where(np.isnan(n), 0, n).astype(np.int32))
            for way in (*ways, lambda *arrays, func=func: run(func, *arrays)):
                got = np.zeros(lanes, dtype)
                way(x, n, got)
                np.testing.assert_array_equal(got, want)


def assembly(name: str, lanes: int) -> str:
    tgt = target.get(name)
    func = lower(kernel("float32", lanes, (-151, 0), "rounded"), tgt)
    return llvm.assembly_text(llvm.print_kernel(func, tgt), tgt)


def test_the_instruction_is_used_where_it_is() -> None:
    for name, lanes in (("generic-x86-64-v4", 16), ("generic-x86-64-v4", 5), ("sapphirerapids", 1)):
        text = assembly(name, lanes)
        assert "vscalef" in text
        assert "vpslld" not in text
    text = assembly("generic-x86-64-v3", 8)
    assert "vscalef" not in text
    assert text.count("vpslld") == 1  # the number that n was rounded by holds its bits
