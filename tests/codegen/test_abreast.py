"""Long computations that are stored one after the other are printed side by side; what they give does not change."""

from __future__ import annotations

import re
from collections.abc import Callable

import cg_native as native
import numpy as np
import pytest

from warpbeam import target
from warpbeam.codegen import llvm
from warpbeam.codegen.analysis import abreast
from warpbeam.tir import expr as E
from warpbeam.tir.expr import Broadcast, Buffer, BufferLoad, Ramp
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import BufferStore, PrimFunc, seq

LANES = 16


def at(buffer: Buffer, k: int) -> BufferLoad:
    return BufferLoad(buffer, (Ramp(E.const(k * LANES), E.const(1), LANES),))


def horner(x: E.PrimExpr, terms: int = 16) -> E.PrimExpr:
    """A chain of multiply-adds, each of which waits for the one before."""
    value = x
    for k in range(terms):
        value = E.call("fma", value, x, Broadcast(E.const(1.0 / (k + 1), "float32"), LANES))
    return value


def store(to: Buffer, k: int, value: E.PrimExpr) -> BufferStore:
    return BufferStore(to, value, (Ramp(E.const(k * LANES), E.const(1), LANES),))


def buffers() -> tuple[Buffer, Buffer]:
    return Buffer("x", (128,), "float32"), Buffer("y", (128,), "float32")


def order(stmts: list[BufferStore], params: tuple[Buffer, ...]) -> list[str]:
    """The names of the multiply-adds' first operands, as they are printed."""
    text = llvm.print_kernel(PrimFunc("chains", params, seq(*stmts)), target.get("generic-x86-64-v4"))
    found = re.findall(r"(%\S+) = call <16 x float> @llvm\.fma\.v16f32\(<16 x float> (%\S+),", text)
    assert len(found) == 16 * len(stmts)
    results = {made: k for k, (made, _) in enumerate(found)}
    return ["waits" if results.get(read) == k - 1 else "free" for k, (_, read) in enumerate(found)]


def test_chains_are_printed_in_turn() -> None:
    """No multiply-add follows the one that it waits for, but with one chain alone."""
    x, y = buffers()
    stores = [store(y, k, horner(at(x, k))) for k in range(4)]
    assert [abreast(stores, k) for k in range(4)] == [4, 3, 2, 1]
    assert "waits" not in order(stores, (x, y))
    assert order(stores[:1], (x, y)).count("waits") == 15


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_values_stay_bit_by_bit(count: int) -> None:
    x, y = buffers()
    func = PrimFunc("chains", (x, y), seq(*[store(y, k, horner(at(x, k))) for k in range(count)]))
    given = np.random.default_rng(0).standard_normal(128).astype(np.float32)
    got, want = np.zeros(128, np.float32), np.zeros(128, np.float32)
    native.build(func)(given, got)
    run(func, given, want)
    np.testing.assert_array_equal(got, want)
    assert got[: count * LANES].all()


def first(buffer: Buffer, k: int) -> E.PrimExpr:
    """The first element of a block, in all lanes."""
    return Broadcast(BufferLoad(buffer, (E.const(k * LANES),)), LANES)


@pytest.mark.parametrize("read", [at, first], ids=["vector", "element"])
def test_what_is_read_from_where_one_before_stores_waits_for_it(read: Callable[[Buffer, int], E.PrimExpr]) -> None:
    """y[1] is made of y[0], y[3] of y[2]."""
    x, y = buffers()
    stores = [store(y, k, horner(read(y, k - 1) if k % 2 else read(x, k))) for k in range(4)]
    assert [abreast(stores, k) for k in range(4)] == [1, 2, 1, 1]
    func = PrimFunc("chains", (x, y), seq(*stores))
    given = np.random.default_rng(1).standard_normal(128).astype(np.float32)
    got, want = np.zeros(128, np.float32), np.zeros(128, np.float32)
    native.build(func)(given, got)
    run(func, given, want)
    np.testing.assert_array_equal(got, want)


def test_short_scalar_and_conditional_work_and_other_forms_stay_in_order() -> None:
    x, y = buffers()
    one = E.const(0)
    scalar = [BufferStore(y, BufferLoad(x, (one,)) + E.const(1.0, "float32"), (one,))] * 2
    short = [store(y, k, at(x, k) + at(x, k + 1)) for k in range(2)]
    other = [store(y, 0, horner(at(x, 0))), store(y, 1, horner(at(x, 1), 20))]
    lazy = [
        store(y, k, horner(E.if_then_else(BufferLoad(x, (one,)) > E.const(0.0, "float32"), at(x, k), at(x, k + 1))))
        for k in range(2)
    ]
    for stores in (scalar, short, other, lazy):
        assert abreast(stores, 0) == 1
