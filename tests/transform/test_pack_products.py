"""Products of the same rows by several weights: which are packed, by the graph before and after and by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerance import close

import warpbeam
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Expr, Function, IRModule, Tuple, const, var
from warpbeam.relay.interp import evaluate
from warpbeam.runtime.program import CallKernel
from warpbeam.target import get
from warpbeam.transform import passes
from warpbeam.transform.graph import call, op_name

RNG = np.random.default_rng(9)
M, K, N = 24, 48, 32
TARGET = get("native").replace(cores=2, fork_cycles=4000, l2=1 << 20)


def weights(rows: int = K, columns: int = N) -> Expr:
    return const((RNG.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32))


def bias(n: int = N) -> Expr:
    return const(RNG.standard_normal(n).astype(np.float32))


def turned(x: Expr) -> Expr:
    return call("transpose", x, axes=(1, 0))


def packed(params: list[Any], *results: Expr, target: Any = TARGET) -> tuple[list[tuple[int, ...]], IRModule]:
    """Shapes of the products after the pass; values are as before it."""
    before = IRModule.from_expr(Function(params, Tuple(results)))
    after = passes.PackProducts(target)(before)
    arrays = [RNG.standard_normal(p.ty.shape).astype(np.float32) for p in params]
    for g, w in zip(evaluate(after, arrays), evaluate(before, arrays), strict=True):
        close(g, w, terms=max(n for p in params for n in p.ty.shape))
    kinds = ("nn.dense", "nn.matmul")
    return [n.ty.shape for n in post_order(after["main"].body) if op_name(n) in kinds], after


def test_products_of_the_same_rows_are_one() -> None:
    x = var("x", shape=(M, K))
    shapes, _ = packed([x], *[turned(call("nn.matmul", x, weights())) for _ in range(3)])
    assert shapes == [(3, M, N)]


def test_weights_either_way_and_more_dimensions() -> None:
    x = var("x", shape=(2, M, K))
    ways = [
        call("nn.dense", x, weights(N, K)),
        call("nn.matmul", x, weights(N, K), transpose_b=True),
        call("nn.matmul", x, weights()),
    ]
    shapes, _ = packed([x], *[call("transpose", y, axes=(0, 2, 1)) for y in ways])
    assert shapes == [(3, 2 * M, N)]


def test_constants_of_columns_come_along() -> None:
    """On either side; a product without one, or with another operation, stays by itself."""
    x = var("x", shape=(M, K))
    ys = [call("nn.matmul", x, weights()) for _ in range(6)]
    ends = [
        call("add", ys[0], bias()),
        call("add", ys[1], const(np.float32(2))),
        call("subtract", bias(), ys[2]),
        call("subtract", bias(), ys[3]),
        call("subtract", ys[4], bias()),
        ys[5],
    ]
    shapes, _ = packed([x], *[turned(e) for e in ends])
    assert sorted(shapes) == [(2, M, N), (2, M, N), (M, N), (M, N)]


@pytest.mark.parametrize("follow", ["tanh", "result", "joined", "product", "apart"])
def test_what_has_its_place_where_a_product_stores_stays(follow: str) -> None:
    x = var("x", shape=(M, K))
    ys = [call("nn.matmul", x, weights()) for _ in range(2)]
    ends = {
        "tanh": [call("tanh", y) for y in ys],
        "result": ys,
        "joined": [call("concatenate", *ys, axis=1)],
        "product": [call("nn.matmul", y, weights(N, 3 + k)) for k, y in enumerate(ys)],
        "apart": [turned(call("nn.matmul", x, weights())), turned(call("nn.matmul", x, weights(K, N + 1)))],
    }[follow]
    shapes, _ = packed([x], *ends)
    assert all(len(s) == 2 for s in shapes)


def test_one_layer_after_the_other() -> None:
    """Rows of later packs are made of earlier ones, and nothing is computed twice."""
    x = top = var("x", shape=(K, K))
    for _ in range(3):
        a, b = (turned(call("nn.matmul", top, weights(K, K))) for _ in range(2))
        top = call("nn.softmax", call("add", a, b), axis=-1)
    shapes, _ = packed([x], top)
    assert shapes == [(2, K, K)] * 3


def test_large_products_stay_apart() -> None:
    x = var("x", shape=(M, K))
    ends = [turned(call("nn.matmul", x, weights())) for _ in range(2)]
    small, _ = packed([x], *ends)
    cheap, _ = packed([x], *ends, target=TARGET.replace(fork_cycles=1))
    assert small == [(2, M, N)] and cheap == [(M, N)] * 2


def test_results_wait_in_the_caches() -> None:
    """Portions of what fits there; and where many weights are read between two products, they stay apart."""
    x = var("x", shape=(M, K))
    ends = [turned(call("nn.matmul", x, weights())) for _ in range(5)]
    room = TARGET.replace(l2=M * N * 4 * 2, cores=1)
    assert sorted(packed([x], *ends, target=room)[0]) == [(2, M, N), (2, M, N), (M, N)]
    between = turned(call("nn.matmul", var("z", shape=(4, 1024)), weights(1024, 300)))
    first, second = (turned(call("nn.matmul", x, weights())) for _ in range(2))
    z = between.args[0].args[0]
    assert sorted(packed([x, z], first, between, second)[0]) == [(4, 300), (M, N), (M, N)]
    assert sorted(packed([x, z], first, second, between)[0]) == [(2, M, N), (4, 300)]


def test_results_are_views() -> None:
    """One kernel makes all products, and their readers' are the only others; "pairs" is without it."""
    x = var("x", shape=(64, 128))
    body = Tuple(tuple(turned(call("add", call("nn.matmul", x, weights(128, 64)), bias(64))) for _ in range(3)))
    calls = {}
    array = RNG.standard_normal((64, 128)).astype(np.float32)
    got = {}
    for mode in ("regions", "pairs"):
        with PassContext(config={"relay.FuseOps.mode": mode}):
            module = warpbeam.compile(IRModule.from_expr(Function([x], body)), cache=False)
        calls[mode] = sum(isinstance(i, CallKernel) for i in module.artifact.program().body)
        got[mode] = list(module.run({"x": array}).values())
    assert calls == {"regions": 4, "pairs": 6}
    for a, b in zip(*got.values(), strict=True):
        close(a, b, terms=128)
