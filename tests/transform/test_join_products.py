"""Products by the same weights: which are joined, by the graph before and after and by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Expr, Function, If, IRModule, Tuple, const, var
from warpbeam.relay.interp import evaluate
from warpbeam.runtime.program import CallKernel
from warpbeam.transform import passes
from warpbeam.transform.graph import call, op_name

RNG = np.random.default_rng(4)
K, N = 96, 128  # 48 KiB


def weights(rows: int = N, columns: int = K) -> Expr:
    return const((RNG.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32))


def inputs(count: int, rows: int = 1, size: int = K) -> list[Any]:
    return [var(f"x{k}", shape=(rows, size)) for k in range(count)]


def joined(params: list[Any], *results: Expr) -> tuple[list[tuple[int, ...]], IRModule]:
    """Shapes of the products after the pass; values are as before it."""
    body = results[0] if len(results) == 1 else Tuple(results)
    before = IRModule.from_expr(Function(params, body))
    after = passes.JoinProducts()(before)
    arrays = [RNG.standard_normal(p.ty.shape).astype(np.float32) for p in params]
    got, want = evaluate(after, arrays), evaluate(before, arrays)
    for g, w in zip(
        got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,), strict=True
    ):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)
    kinds = ("nn.dense", "nn.matmul")
    return [n.ty.shape for n in post_order(after["main"].body) if op_name(n) in kinds], after


def count(mod: IRModule, name: str) -> int:
    return sum(op_name(n) == name for n in post_order(mod["main"].body))


def test_products_of_single_rows_are_one_of_all_rows() -> None:
    w, xs = weights(), inputs(3)
    shapes, after = joined(xs, *[call("nn.dense", x, w) for x in xs])
    assert shapes == [(3, N)] and count(after, "concatenate") == count(after, "split") == 1


@pytest.mark.parametrize("transposed", [False, True])
def test_matmuls_of_different_shapes(transposed: bool) -> None:
    w = weights(N, K) if transposed else weights(K, N)
    xs = [var("a", shape=(2, 3, K)), var("b", shape=(1, K)), var("c", shape=(K,))]
    shapes, _ = joined(xs, *[call("nn.matmul", x, w, transpose_b=transposed) for x in xs])
    assert shapes == [(8, N)]


def test_what_all_go_through_alike_is_done_once() -> None:
    """Bias and activation move; what has a second reader, or differs, stays where it is."""
    w, b, xs = weights(), const(RNG.standard_normal((1, N)).astype(np.float32)), inputs(4)
    ends = [call("tanh", call("add", b, call("nn.dense", x, w))) for x in xs]
    scaled = [call("multiply", e, const(np.float32(k))) for k, e in enumerate(ends)]
    shapes, after = joined(xs, *scaled)
    assert shapes == [(4, N)]
    assert (count(after, "add"), count(after, "tanh"), count(after, "multiply")) == (1, 1, 4)
    plain = [call("nn.dense", x, w) for x in xs]
    _, after = joined(xs, *plain, *[call("tanh", p) for p in plain])
    assert count(after, "tanh") == 4


def test_constants_of_rows_are_not_taken_for_those_of_columns() -> None:
    w, xs = weights(), inputs(2, rows=3)
    c = const(RNG.standard_normal((3, N)).astype(np.float32))
    shapes, after = joined(xs, *[call("add", call("nn.dense", x, w), c) for x in xs])
    assert shapes == [(6, N)] and count(after, "add") == 2


def test_a_chain_of_products_stays_and_its_inputs_are_joined() -> None:
    """An unrolled recurrent layer: inputs by one matrix, states by another."""
    w, u, xs = weights(K, K), weights(K, K), inputs(4)
    h: Any = call("tanh", call("nn.dense", xs[0], w))
    for x in xs[1:]:
        h = call("tanh", call("add", call("nn.dense", x, w), call("nn.dense", h, u)))
    shapes, _ = joined(xs, h)
    assert sorted(shapes) == [(1, K)] * 3 + [(4, K)]


def test_twin_networks_are_joined_layer_by_layer() -> None:
    w, xs = [weights(K, K) for _ in range(3)], inputs(2)
    ends = []
    for x in xs:
        for m in w:
            x = call("tanh", call("nn.dense", x, m))
        ends.append(x)
    shapes, after = joined(xs, *ends)
    assert shapes == [(2, K)] * 3 and count(after, "tanh") == 3


def test_two_groups_that_would_wait_for_each_other_are_not_both_joined() -> None:
    """b1 needs a1, and a2 needs b2."""
    a, b, (x, y) = weights(K, K), weights(K, K), inputs(2)
    a1, b2 = call("nn.dense", x, a), call("nn.dense", y, b)
    b1, a2 = call("nn.dense", call("tanh", a1), b), call("nn.dense", call("tanh", b2), a)
    shapes, _ = joined([x, y], b1, a2)
    assert sorted(shapes) == [(1, K), (1, K), (2, K)]


def test_branches_keep_their_products() -> None:
    """Else all branches would be computed, whichever is taken."""
    w, (x, y) = weights(), inputs(2)
    cond = call("greater", call("sum", x), const(np.float32(0)))
    chosen = If(cond, call("nn.dense", call("exp", x), w), call("nn.dense", call("tanh", y), w))
    shapes, after = joined([x, y], chosen)
    assert shapes == [(1, N)] * 2 and count(after, "concatenate") == 0
    shapes, after = joined([x, y], chosen, call("nn.dense", x, w), call("nn.dense", y, w))
    assert sorted(shapes) == [(1, N), (1, N), (2, N)]


def test_what_is_not_worth_joining() -> None:
    w, xs = weights(), inputs(2, rows=17)
    assert joined(xs, *[call("nn.dense", x, w) for x in xs])[0] == [(17, N)] * 2  # rows enough
    small, ys = weights(16, K), inputs(2)
    assert joined(ys, *[call("nn.dense", y, small) for y in ys])[0] == [(1, 16)] * 2  # few weights
    held, other = var("w", shape=(N, K)), weights()
    assert joined([*ys, held], *[call("nn.dense", y, held) for y in ys])[0] == [(1, N)] * 2  # no constant
    assert joined(ys, call("nn.dense", ys[0], w), call("nn.dense", ys[1], other))[0] == [(1, N)] * 2


def test_a_compiled_model_has_one_kernel_for_them() -> None:
    w, xs = weights(K, K), inputs(6)
    fn = Function(xs, Tuple(tuple(call("nn.relu", call("nn.dense", x, w)) for x in xs)))
    module = warpbeam.compile(fn, cache=False)
    arrays = [RNG.standard_normal((1, K)).astype(np.float32) for _ in xs]
    for got, x in zip(module(*arrays), arrays, strict=True):
        np.testing.assert_allclose(got, np.maximum(x @ w.numpy().T, 0), rtol=1e-4, atol=1e-5)  # type: ignore[attr-defined]
    program = module.artifact.program()
    shapes = {v.id: v.shape for v in program.values}
    assert [shapes[i.writes[0]] for i in program.body if isinstance(i, CallKernel)].count((6, K)) >= 1
