"""float32 to bfloat16 by the machine's instruction: the same bits from interpreter, LLVM and C, on every machine."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from cg_gcc import build_all
from cg_native import build

from warpbeam import target
from warpbeam.codegen import llvm
from warpbeam.tir import expr as e
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import BufferStore, PrimFunc
from warpbeam.tir.transform import lower

SPECIAL = [0.0, -0.0, 1e-40, -1e-40, 2.0**-126, -(2.0**-126), 1.00390625, 1.01171875, 3.4e38, np.inf, -np.inf, np.nan]


def kernel(lanes: int) -> PrimFunc:
    a, b = e.Buffer("a", (lanes,), "float32"), e.Buffer("b", (lanes,), "bfloat16")
    at = e.Ramp(e.const(0), e.const(1), lanes) if lanes > 1 else e.const(0)
    kind = f"bfloat16x{lanes}" if lanes > 1 else "bfloat16"
    return PrimFunc("k", (a, b), BufferStore(b, e.call("to_bfloat16", e.BufferLoad(a, (at,)), dtype=kind), (at,)))


def data(lanes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 32, lanes, np.uint64).astype(np.uint32).view(np.float32)
    bits[: min(lanes, len(SPECIAL))] = rng.permutation(np.array(SPECIAL, np.float32))[: min(lanes, len(SPECIAL))]
    return bits


def rounded(x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x).astype(ml_dtypes.bfloat16)


def same(got: np.ndarray, want: np.ndarray) -> bool:
    both = np.isnan(got.astype(np.float32)) & np.isnan(want.astype(np.float32))
    return bool(((got.view(np.uint16) == want.view(np.uint16)) | both).all())


@pytest.mark.parametrize("lanes", [1, 3, 8, 15, 16, 32])
def test_every_way_gives_the_same_bits(lanes: int) -> None:
    native = target.get("native")
    for tgt in (native, native.replace(intrinsics=())):
        func = lower(kernel(lanes), tgt)
        compiled = build(func, tgt)
        (printed,) = build_all([func])
        for seed in range(50):
            x = data(lanes, seed)
            want = rounded(x)
            for way in (compiled, printed):
                got = np.zeros(lanes, ml_dtypes.bfloat16)
                way(x, got.view(np.uint16))
                assert same(got, want)
            got = np.zeros(lanes, ml_dtypes.bfloat16)
            run(kernel(lanes), x, got)
            assert same(got, want)


def test_the_instruction_is_used_where_it_is() -> None:
    tgt = target.get("sapphirerapids")
    assert "vcvtneps2bf16" in llvm.assembly_text(llvm.print_kernel(lower(kernel(16), tgt), tgt), tgt)
    plain = target.get("generic-x86-64-v3")
    assert "bf16" not in llvm.assembly_text(llvm.print_kernel(lower(kernel(8), plain), plain), plain)
