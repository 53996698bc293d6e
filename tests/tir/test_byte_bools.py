"""Bools that are moved and combined as bytes: results are those of bools, whatever bytes for true callers pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pass_check import becomes, native, program

from warpbeam.ir.rewrite import post_order
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir import expr as e
from warpbeam.tir.expr import SizeVar, if_then_else
from warpbeam.tir.interp import run
from warpbeam.tir.transform.byte_bools import byte_bools
from warpbeam.tir.transform.pipeline import lower

CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "and": (lambda a, b, c: e.land(a, b), lambda a, b, c: a & b),
    "or": (lambda a, b, c: e.lor(a, b), lambda a, b, c: a | b),
    "xor": (lambda a, b, c: e.NE(a, b), lambda a, b, c: a ^ b),
    "same": (lambda a, b, c: e.EQ(a, b), lambda a, b, c: a == b),
    "not": (lambda a, b, c: e.lnot(a), lambda a, b, c: ~a),
    "copy": (lambda a, b, c: a, lambda a, b, c: a),
    "chosen": (lambda a, b, c: e.select(c, a, b), lambda a, b, c: np.where(c, a, b)),
    "lazily": (lambda a, b, c: if_then_else(c, a, e.const(1, "bool")), lambda a, b, c: np.where(c, a, True)),
    "logic": (lambda a, b, c: e.lor(e.land(a, e.lnot(b)), e.NE(b, c)), lambda a, b, c: (a & ~b) | (b ^ c)),
    "chosen logic": (lambda a, b, c: e.select(a, e.land(b, c), b), lambda a, b, c: np.where(a, b & c, b)),
}


def flags(rng: np.random.Generator, shape: int) -> np.ndarray:
    """Bools of which true ones are any byte but 0."""
    return rng.choice(np.array([0, 0, 1, 2, 128, 255], np.uint8), shape).view(bool)


@pytest.mark.parametrize("size", [600, 7, 130, 0])
@pytest.mark.parametrize("name", CASES)
def test_moves_and_logic(name: str, size: int) -> None:
    made, reference = CASES[name]
    n = SizeVar("n")
    a, b, c = (te.placeholder((n,), "bool", x) for x in "abc")
    y = te.compute((n,), lambda i: made(a[i], b[i], c[i]), name="y")
    low = lower(schedule([a, b, c], [y], get("native")).func, get("native"))
    assert low.attrs["dtypes"][:4] == ("bool",) * 4 and low.buffers[3].dtype == "uint8"
    rng = np.random.default_rng(1)
    given = [flags(rng, size) for _ in "abc"]
    plain = [g.view(np.uint8) != 0 for g in given]
    want = reference(*plain).astype(np.uint8)
    for call in (lambda *x: run(low, *x), native(low)):
        out = np.full(size, True)
        call(*given, out, size)
        np.testing.assert_array_equal(out.view(np.uint8), want)
    out = np.full(size, True)
    run(lower(schedule([a, b, c], [y], get("c")).func, get("c")), *plain, out, size)
    np.testing.assert_array_equal(out.view(np.uint8), want)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_bytes_as_bools(dtype: str) -> None:
    x = te.placeholder((777,), dtype, "x")
    y = te.compute((777,), lambda i: x[i].astype("bool"), name="y")
    low = lower(schedule([x], [y], get("native")).func, get("native"))
    assert "uint8" in [p.dtype for p in low.buffers]
    given = np.arange(777).astype(np.uint8).view(dtype)
    for call in (lambda *z: run(low, *z), native(low)):
        out = np.zeros(777, bool)
        call(given, out)
        np.testing.assert_array_equal(out.view(np.uint8), given != 0)


def test_what_is_kept_between_needs_no_limit() -> None:
    """Memory that the program itself fills holds 0 and 1."""
    got = becomes(
        byte_bools,
        """
        def f(A: bool[64], B: bool[64]):
            alloc t: bool[64] @local
            for i in range(64):
                t[i] = not A[i]
            for i in range(64):
                B[i] = t[63 - i]
        """,
        """
        def f(A: uint8[64], B: uint8[64]) {"dtypes": ("bool", "bool")}:
            alloc t: uint8[64] @local
            for i in range(64):
                t[i] = bitwise_xor(min(A[i], uint8(1)), uint8(1))
            for i in range(64):
                B[i] = t[63 - i]
        """,
    )
    assert [p.dtype for p in got.params] == ["uint8", "uint8"] and got.attrs["dtypes"] == ("bool", "bool")


@pytest.mark.parametrize(
    "text",
    [
        """
        def f(A: float32[64], B: bool[64]):
            for i in range(64):
                B[i] = A[i] > 0.0
        """,
        """
        def f(A: bool[64], B: float32[64], C: bool[64]):
            for i in range(64):
                C[i] = A[i] and B[i] > 0.0
        """,
        """
        def f(A: bool[64], B: bool[1]):
            B[0] = False
            for i in range(64):
                B[0] = B[0] or A[i]
        """,
        """
        def f(A: bool[64], B: float32[64]):
            for i in range(64):
                B[i] = select(A[i], 1.0, 2.0)
        """,
    ],
)
def test_left_alone(text: str) -> None:
    """Comparisons of other numbers, reductions, and bools that only choose."""
    func = program(text)
    assert byte_bools(func) is func


def test_long_chains() -> None:
    """As many choices as there are tensors in a join: no recursion."""
    x = te.placeholder((4000,), "bool", "x")

    def chain(i: Any) -> Any:
        out: Any = x[0]
        for k in range(1, 2000):
            out = if_then_else(i < k, x[k], out)
        return out

    func = create_prim_func([x], [te.compute((4000,), chain, name="y")], "chain")
    new = byte_bools(lower(func))
    assert new.buffers[0].dtype == "uint8" and not any(
        isinstance(n, e.Cast) and n.dtype == "bool" for n in post_order(new.body)
    )
