"""The interpreter against NumPy, and its batched loops against one iteration at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import close

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as e
from warpbeam.tir import intrin
from warpbeam.tir import stmt as s
from warpbeam.tir.interp import InterpError, KernelAssertError, OutOfBoundsError, run

RNG = np.random.default_rng(0)


def nest(variables: Sequence[e.Var], extents: Sequence[Any], body: s.Stmt, kind: str = "serial") -> s.Stmt:
    for v, extent in reversed(list(zip(variables, extents, strict=True))):
        body = s.For(v, 0, extent, kind, body)
    return body


def variables(names: str) -> list[e.Var]:
    return [e.Var(n) for n in names.split()]


def matmul(n: Any, m: Any, k: Any, params: tuple[Any, ...] = ()) -> s.PrimFunc:
    a, b, c = e.Buffer("A", (n, k)), e.Buffer("B", (k, m)), e.Buffer("C", (n, m))
    loops, (i, j, r) = variables("i j k"), variables("vi vj vk")
    axes = (s.IterVar(i, n), s.IterVar(j, m), s.IterVar(r, k, "reduce"))
    update = s.BufferStore(c, c[i, j] + a[i, r] * b[r, j], (i, j))
    block = s.Block("C", axes, tuple(loops), True, s.BufferStore(c, 0.0, (i, j)), update)
    return s.PrimFunc("matmul", (a, b, c, *params), nest(loops, (n, m, k), block))


def both(func: s.PrimFunc, *args: Any) -> list[np.ndarray]:
    """Runs batched and one by one; the results must agree bit for bit."""
    results = []
    for batch in (True, False):
        mine = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
        run(func, *mine, batch=batch)
        results.append([a for a in mine if isinstance(a, np.ndarray)])
    for x, y in zip(*results, strict=True):
        np.testing.assert_array_equal(x, y)
    return results[0]


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_matmul_block_sums_in_loop_order() -> None:
    a, b = f32(5, 33), f32(33, 7)
    out = both(matmul(5, 7, 33), a, b, np.zeros((5, 7), np.float32))[2]
    want = np.zeros((5, 7), np.float32)
    for k in range(33):
        want += a[:, k, None] * b[None, k]
    np.testing.assert_array_equal(out, want)


def test_symbolic_sizes_come_from_shapes_or_arguments() -> None:
    n = e.SizeVar("n")
    func = matmul(n, 4, 6, (n,))
    a, b = f32(3, 6), f32(6, 4)
    out = both(func, a, b, np.zeros((3, 4), np.float32))[2]
    again = both(func, a, b, np.zeros((3, 4), np.float32), 3)[2]
    close(out, a @ b, terms=6)
    np.testing.assert_array_equal(out, again)


def test_a_large_reduction_without_parallelism_is_fast_and_in_order() -> None:
    a, b = f32(1, 50_000), f32(50_000, 1)
    out = np.zeros((1, 1), np.float32)
    run(matmul(1, 1, 50_000), a, b, out)
    want = np.float32(0)
    for x in a[0] * b[:, 0]:
        want += x
    assert out[0, 0] == want


def test_tails_registers_and_vectors_as_lowering_makes_them() -> None:
    """C = relu(A) in tiles of 16 with a short last tile, through a register tile, 4 lanes at a time where whole."""
    n = e.SizeVar("n")
    a, c, acc = e.Buffer("A", (n,)), e.Buffer("C", (n,)), e.Buffer("acc", (16,), "float32", "register")
    o, i, j = variables("o i j")
    tail = e.minimum(16, n - o * 16)
    fill = s.For(i, 0, tail, "serial", s.BufferStore(acc, e.maximum(a[o * 16 + i], 0.0), (i,)))
    drain = s.For(j, 0, tail, "serial", s.BufferStore(c, acc[j], (o * 16 + j,)))
    body = s.For(o, 0, e.ceildiv(n, 16), "parallel", s.Allocate(acc, s.seq(fill, drain)))
    x = f32(37)
    out = both(s.PrimFunc("tiles", (a, c, n), body), x, np.zeros(37, np.float32))[1]
    np.testing.assert_array_equal(out, np.maximum(x, 0))

    a, c = e.Buffer("A", (8, 16)), e.Buffer("C", (8, 16))
    lanes = e.Ramp(j * 4, e.const(1), 4)
    value = e.call("fma", a[i, lanes], e.Broadcast(e.const(2.0), 4), e.Broadcast(e.const(1.0), 4))
    func = s.PrimFunc("vec", (a, c), nest((i, j), (8, 4), s.BufferStore(c, value, (i, lanes))))
    x = f32(8, 16)
    np.testing.assert_array_equal(both(func, x, np.zeros_like(x))[1], x * 2 + 1)


def test_fused_and_gathered_indices() -> None:
    a, c, ind = e.Buffer("A", (6, 10)), e.Buffer("C", (60,)), e.Buffer("I", (4,), "int64")
    (f,) = variables("f")
    func = s.PrimFunc("flat", (a, c), s.For(f, 0, 60, "serial", s.BufferStore(c, a[f // 10, f % 10], (f,))))
    x = f32(6, 10)
    np.testing.assert_array_equal(both(func, x, np.zeros(60, np.float32))[1], x.ravel())
    back = s.PrimFunc("fold", (c, a), s.For(f, 0, 60, "serial", s.BufferStore(a, c[f], (f // 10, f % 10))))
    np.testing.assert_array_equal(both(back, x.ravel(), np.zeros_like(x))[1], x)
    rows = e.Buffer("R", (4, 10))
    i, j = variables("i j")
    take = s.PrimFunc("take", (a, ind, rows), nest((i, j), (4, 10), s.BufferStore(rows, a[ind[i], j], (i, j))))
    pick = np.array([5, 0, 3, 3])
    np.testing.assert_array_equal(both(take, x, pick, np.zeros((4, 10), np.float32))[2], x[pick])


def test_dependent_loops_take_turns() -> None:
    a = e.Buffer("A", (10,), "int64")
    (i,) = variables("i")
    scan = s.PrimFunc("scan", (a,), s.For(i, 1, 9, "serial", s.BufferStore(a, a[i] + a[i - 1], (i,))))
    np.testing.assert_array_equal(both(scan, np.arange(10))[0], np.cumsum(np.arange(10)))
    same = s.PrimFunc("same", (a,), s.For(i, 0, 10, "serial", s.BufferStore(a, i, (i // 3,))))
    np.testing.assert_array_equal(both(same, np.zeros(10, np.int64))[0], [2, 5, 8, 9, 0, 0, 0, 0, 0, 0])
    hist, pos = e.Buffer("H", (3,), "int64"), e.Buffer("P", (10,), "int64")
    count = s.PrimFunc(
        "hist", (pos, hist), s.For(i, 0, 10, "parallel", s.BufferStore(hist, hist[pos[i]] + 1, (pos[i],)))
    )
    np.testing.assert_array_equal(both(count, np.arange(10) % 3, np.zeros(3, np.int64))[1], [4, 3, 3])


def test_swapping_through_a_let_reads_before_it_writes() -> None:
    a, t, (i,) = e.Buffer("A", (4, 2)), e.Var("t", "float32"), variables("i")
    body = s.seq(s.BufferStore(a, a[i, 1], (i, 0)), s.BufferStore(a, t, (i, 1)))
    func = s.PrimFunc("swap", (a,), s.For(i, 0, 4, "serial", s.LetStmt(t, a[i, 0], body)))
    x = f32(4, 2)
    np.testing.assert_array_equal(both(func, x)[0], x[:, ::-1])


def test_padding_by_a_lazy_choice_and_by_branches() -> None:
    a, c, (i,) = e.Buffer("A", (5,)), e.Buffer("C", (9,)), variables("i")
    inside = e.land(i >= 2, i < 7)
    for value in (e.if_then_else(inside, a[i - 2], 0.0), None):
        store = s.BufferStore(c, a[i - 2] if value is None else value, (i,))
        body = store if value is not None else s.IfThenElse(inside, store, s.BufferStore(c, 0.0, (i,)))
        x = f32(5)
        out = both(s.PrimFunc("pad", (a, c), s.For(i, 0, 9, "serial", body)), x, np.ones(9, np.float32))[1]
        np.testing.assert_array_equal(out, np.pad(x, 2))


def test_while_runs_each_iteration_for_its_own_time() -> None:
    a, (i,) = e.Buffer("A", (6,), "int64"), variables("i")
    body = s.While(a[i] > 1, s.BufferStore(a, e.select((a[i] % 2) == 0, a[i] // 2, a[i] * 3 + 1), (i,)))
    func = s.PrimFunc("collatz", (a,), s.For(i, 0, 6, "serial", body))
    np.testing.assert_array_equal(both(func, np.array([1, 2, 3, 7, 9, 27]))[0], np.ones(6))


def test_argmax_as_a_block_with_two_stores() -> None:
    a, v, ix = e.Buffer("A", (4, 50)), e.Buffer("V", (4,)), e.Buffer("I", (4,), "int64")
    loops, (i, k) = variables("i k"), variables("vi vk")
    better = a[i, k] > v[i]
    t = e.Var("t", "float32")
    update = s.LetStmt(
        t,
        e.select(better, a[i, k], v[i]),
        s.seq(s.BufferStore(ix, e.select(better, k, ix[i]), (i,)), s.BufferStore(v, t, (i,))),
    )
    init = s.seq(s.BufferStore(v, float("-inf"), (i,)), s.BufferStore(ix, 0, (i,)))
    block = s.Block("argmax", (s.IterVar(i, 4), s.IterVar(k, 50, "reduce")), tuple(loops), True, init, update)
    x = f32(4, 50)
    func = s.PrimFunc("argmax", (a, v, ix), nest(loops, (4, 50), block))
    out = both(func, x, np.zeros(4, np.float32), np.zeros(4, np.int64))
    np.testing.assert_array_equal(out[2], x.argmax(1))
    np.testing.assert_array_equal(out[1], x.max(1))


def test_predicates_skip_instances() -> None:
    a, loops, (v,) = e.Buffer("A", (10,), "int64"), variables("o i"), variables("v")
    binding = loops[0] * 4 + loops[1]
    block = s.Block("fill", (s.IterVar(v, 10),), (binding,), binding < 10, None, s.BufferStore(a, v * v, (v,)))
    out = both(s.PrimFunc("fill", (a,), nest(loops, (3, 4), block)), np.zeros(10, np.int64))[0]
    np.testing.assert_array_equal(out, np.arange(10) ** 2)


def test_errors_name_buffer_index_and_statement() -> None:
    a, (i,) = e.Buffer("A", (5,)), variables("i")
    func = s.PrimFunc("off", (a,), s.For(i, 0, 6, "serial", s.BufferStore(a, 1.0, (i,))))
    for batch in (True, False):
        with pytest.raises(OutOfBoundsError, match=r"buffer A of shape \(5,\) was accessed at \(5,\)"):
            run(func, np.zeros(5, np.float32), batch=batch)
    with pytest.raises(InterpError, match="declares float32"):
        run(func, np.zeros(5))
    check = s.PrimFunc("check", (a,), s.For(i, 0, 6, "serial", s.AssertStmt(i < 5, "i grew")))
    with pytest.raises(KernelAssertError, match="i grew"):
        run(check, np.zeros(5, np.float32))
    with pytest.raises(InterpError, match="no memory"):
        run(s.PrimFunc("lost", (), s.BufferStore(a, 1.0, (e.const(0),))))


def one(value: e.PrimExpr) -> Any:
    """Value of an expression, computed through a kernel over one element."""
    out = e.Buffer("out", (1,), value.dtype)
    array = np.zeros(1, dt.to_numpy(out.dtype))
    run(s.PrimFunc("one", (out,), s.BufferStore(out, value, (e.const(0),))), array)
    return array[0]


def test_integer_corners() -> None:
    low = e.const(-128, "int8")
    assert one(e.Sub(low, e.const(1, "int8"))) == 127
    assert one(e.Div(e.const(-7), e.const(2))) == -3 and one(e.Mod(e.const(-7), e.const(2))) == -1
    assert one(e.Add(e.const(0), e.FloorDiv(e.const(-7), e.const(2)))) == -4
    for cls in (e.Div, e.Mod, e.FloorDiv, e.FloorMod):
        assert one(cls(e.const(5), e.Sub(e.const(1), e.const(1)))) == 0
    assert one(e.cast("int8", e.const(300.0))) == 127 and one(e.cast("int32", e.const(float("nan")))) == 0
    assert one(e.cast("int32", e.const(3e9))) == 2**31 - 1 and one(e.cast("uint8", e.const(-5.0))) == 0
    assert one(e.Cast("int8", e.Add(e.const(300), e.const(0)))) == 44
    assert one(e.Cast("int64", e.const(1e300, "float64"))) == 2**63 - 1
    assert one(e.call("shift_right", e.const(-5, "int32"), e.const(40, "int32"))) == -1
    assert one(e.call("shift_left", e.const(1, "int32"), e.const(32, "int32"))) == 0
    assert one(e.call("popcount", e.const(-1, "int16"))) == 16
    assert one(e.call("pow", e.const(-2), e.const(3))) == -8 and one(e.call("pow", e.const(2), e.const(-1))) == 0


def test_float_corners() -> None:
    nan = e.const(float("nan"))
    assert np.isnan(one(e.Min(nan, e.const(1.0)))) and np.isnan(one(e.Max(e.const(1.0), nan)))
    assert one(e.call("round", e.const(2.5))) == 2 and one(e.call("round", e.const(-1.5))) == -2
    a, b, c = np.float32(1 + 2**-12), np.float32(1 + 2**-12), np.float32(-1)
    fused = one(e.call("fma", e.const(float(a)), e.const(float(b)), e.const(float(c))))
    assert fused == np.float32(float(a) * float(b) - 1.0)
    wide = one(e.call("fma", e.const(1 + 2**-30, "float64"), e.const(1 - 2**-30, "float64"), e.const(-1.0, "float64")))
    assert wide == -(2.0**-60)
    assert one(e.Cast("float32", e.const(16777217))) == np.float32(16777216)
    assert one(e.call("reinterpret", e.const(1.0), dtype="int32")) == 0x3F800000
    assert one(e.call("sigmoid", e.const(-1000.0))) == 0
    half = one(e.Add(e.const(1.0, "float16"), e.const(2**-11, "float16")))
    assert half == np.float16(1)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 16])
def test_lane_reductions_halve(count: int) -> None:
    a, c = e.Buffer("A", (4, count)), e.Buffer("C", (4,))
    (i,) = variables("i")
    row = a[i, e.Ramp(e.const(0), e.const(1), count)] if count > 1 else a[i, 0]
    func = s.PrimFunc(
        "sum",
        (a, c),
        s.For(i, 0, 4, "serial", s.BufferStore(c, e.Call("float32", "vector_reduce_add", (row,)), (i,))),
    )
    x = f32(4, count)
    close(both(func, x, np.zeros(4, np.float32))[1], x.sum(1), terms=count)


@pytest.mark.parametrize("name", [r.name for r in intrin.INTRINSICS.values() if r.arity == 1 and r.result == "same"])
def test_every_unary_intrinsic_runs_in_its_dtype(name: str) -> None:
    kinds = ["int32"] if name in ("popcount", "clz", "bitwise_not") else ["float32", "float64", "float16", "bfloat16"]
    for dtype in kinds:
        value = one(e.call(name, e.cast(dtype, e.const(0.5 if dtype != "int32" else 5, "float64"))))
        assert str(value.dtype) == dtype


coefs = st.integers(-2, 3)


@settings(max_examples=150, deadline=None)
@given(st.lists(coefs, min_size=8, max_size=8), st.integers(0, 30), st.integers(1, 5), st.booleans())
def test_any_affine_pair_of_accesses_agrees_with_turns(k: list[int], off: int, split: int, nested: bool) -> None:
    """A[f(i,j)] = A[g(i,j)] + 1 over random f, g: overlapping or not, batching must not change the outcome."""
    a, b, (i, j) = e.Buffer("A", (64,), "int64"), e.Buffer("B", (64,), "int64"), variables("i j")
    f = (k[0] * i + k[1] * j + 20 + i // split * k[2]) % 64
    g = (k[3] * i + k[4] * j + off + j % split * k[5]) % 64
    h = e.as_expr(k[6] * i + k[7] * j + 20)
    stores = [s.BufferStore(a, a[g] + 1, (f,)), s.BufferStore(b, a[f] + i, (h,))]
    body = s.For(i, 0, 7, "serial", s.For(j, 0, 5, "parallel", s.seq(*stores)))
    if nested:
        body = s.For(i, 0, 7, "parallel", s.seq(stores[0], s.For(j, 0, 5, "serial", s.seq(*stores[1:]))))
        if any(type(x) is e.Var and x is j for x in _vars(stores[0])):
            return
    lo = min(k[6] * x + k[7] * y + 20 for x, y in itertools.product((0, 6), (0, 4)))
    if lo < 0:
        return
    both(s.PrimFunc("any", (a, b), body), np.arange(64), np.zeros(64, np.int64))


def _vars(root: Any) -> list[Any]:
    from warpbeam.ir.rewrite import post_order

    return list(post_order(root))
