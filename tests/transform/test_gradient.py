"""Derivatives of Relay expressions: every rule against central differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.op import get
from warpbeam.relay.expr import Expr, Function, Var, const
from warpbeam.relay.interp import evaluate
from warpbeam.relay.types import TensorType
from warpbeam.transform.gradient import RULES, gradients

RNG = np.random.default_rng(12)


def op(name: str) -> Callable[..., Expr]:
    return lambda *args, **attrs: get(name)(*args, **attrs)


#: operator -> (expression over variables, shapes); every rule has one
CASES: dict[str, list[tuple[Callable[..., Expr], list[tuple[int, ...]]]]] = {
    **{n: [(op(n), [(3, 4)])] for n in ("abs", "cos", "erf", "exp", "negative", "nn.relu", "sigmoid", "sin", "tanh")},
    **{n: [(op(n), [(3, 4), (4,)]), (op(n), [(3, 1), (2, 3, 4)])]
       for n in ("add", "divide", "multiply", "subtract", "maximum", "minimum")},
    "broadcast_to": [(lambda x: op("broadcast_to")(x, shape=(2, 3, 4)), [(3, 1)])],
    "cast": [(lambda x: op("cast")(op("cast")(x, dtype="float64"), dtype="float64"), [(3,)])],
    "concatenate": [(lambda a, b: op("concatenate")(a, b, axis=1), [(2, 3), (2, 4)])],
    "copy": [(op("copy"), [(3,)])],
    "expand_dims": [(lambda x: op("expand_dims")(x, axis=1, num_newaxis=2), [(3, 4)])],
    "log": [(lambda x: op("log")(op("exp")(x)), [(5,)])],
    "sqrt": [(lambda x: op("sqrt")(op("exp")(x)), [(5,)])],
    "power": [(lambda a, b: op("power")(op("exp")(a), b), [(3, 4), (4,)])],
    "mean": [(lambda x: op("mean")(x, axis=(0, 2), keepdims=True), [(2, 3, 4)])],
    "sum": [(lambda x: op("sum")(x, axis=(1,), exclude=True), [(2, 3, 4)])],
    "nn.dense": [(op("nn.dense"), [(2, 3), (5, 3)]), (op("nn.dense"), [(2, 4, 3), (5, 3)])],
    "nn.matmul": [
        (op("nn.matmul"), [(2, 3, 4), (4, 5)]),
        (lambda a, b: op("nn.matmul")(a, b, transpose_a=True, transpose_b=True), [(1, 4, 3), (2, 5, 4)]),
    ],
    "nn.softmax": [(lambda x: op("nn.softmax")(x, axis=0), [(3, 4)])],
    "nn.log_softmax": [(lambda x: op("nn.log_softmax")(x, axis=-1), [(3, 4)])],
    "reshape": [(lambda x: op("reshape")(x, newshape=(4, 3)), [(2, 6)])],
    "squeeze": [(lambda x: op("squeeze")(x, axis=(1,)), [(3, 1, 2)])],
    "transpose": [(lambda x: op("transpose")(x, axes=(2, 0, 1)), [(2, 3, 4)])],
    "where": [(lambda a, b: op("where")(op("greater")(a, b), op("exp")(a), b), [(3, 4), (4,)])],
}  # fmt: skip
PARTS = [(n, k) for n in sorted(CASES) for k in range(len(CASES[n]))]


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == set(RULES)


def check(build: Callable[..., Expr], arrays: list[np.ndarray]) -> None:
    """Derivatives of a weighted sum, so that what arrives is not the same everywhere."""
    xs = [Var(f"x{k}", TensorType(a.shape, "float64")) for k, a in enumerate(arrays)]
    y = build(*xs)
    weights = RNG.standard_normal([int(d) for d in y.ty.shape])
    total = get("sum")(get("multiply")(y, const(weights, "float64")), axis=None)
    exact = [np.asarray(evaluate(Function(tuple(xs), g), arrays)) for g in gradients(total, xs)]
    fn = Function(tuple(xs), total)
    for k, a in enumerate(arrays):
        assert exact[k].shape == a.shape
        for i in np.ndindex(a.shape):
            ends = []
            for h in (1e-5, -1e-5):
                moved = [b.copy() for b in arrays]
                moved[k][i] += h
                ends.append(float(evaluate(fn, moved)))
            assert abs((ends[0] - ends[1]) / 2e-5 - exact[k][i]) < 1e-6 * (1 + abs(exact[k][i]))


@pytest.mark.parametrize(("name", "case"), PARTS)
def test_rules(name: str, case: int) -> None:
    build, shapes = CASES[name][case]
    check(build, [RNG.standard_normal(s) for s in shapes])


def test_a_small_network_with_a_shared_value() -> None:
    def net(x: Expr, w: Expr, v: Expr) -> Any:
        h = op("tanh")(op("nn.dense")(x, w))
        return op("multiply")(op("nn.matmul")(h, v), op("sum")(h, axis=(1,), keepdims=True))

    check(net, [RNG.standard_normal(s) for s in ((2, 3), (4, 3), (4, 2))])


def test_independent_and_unknown() -> None:
    x, z = (Var(n, TensorType((3,), "float32")) for n in "xz")
    (g,) = gradients(get("exp")(x), [z])
    np.testing.assert_array_equal(evaluate(Function((x, z), g), [np.ones(3, np.float32)] * 2), np.zeros(3))
    with pytest.raises(UnsupportedError, match="derivative of operator cumsum"):
        gradients(get("cumsum")(x, axis=0), [x])
