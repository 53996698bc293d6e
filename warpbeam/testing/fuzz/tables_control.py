"""Branches and loops for random models; see `tables`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto, helper

from warpbeam.testing.fuzz.grow import Grower, Value

_FLOATS = ("float32", "float64")


def branch(g: Grower) -> bool | None:
    """An If whose branches compute the same type from values of the outer graph."""
    x = g.pick(_FLOATS, range(1, 5), 1)
    if x is None:
        return None
    conditions = [v for v in g.values if v.dtype == "bool" and not v.shape]
    condition = g.rng.choice(conditions) if conditions else g.input((), "bool")
    bodies = [_body(g, x, g.rng.sample(["Tanh", "Neg", "Abs", "Sigmoid", "Identity"], 2)) for _ in range(2)]
    node = helper.make_node("If", [condition.name], [g.name()], then_branch=bodies[0], else_branch=bodies[1])
    return g.add(node, [condition, x], 4)


def _body(g: Grower, x: Value, kinds: list[str]) -> GraphProto:
    names = [x.name, g.name("b"), g.name("b")]
    nodes = [helper.make_node(k, [names[i]], [names[i + 1]]) for i, k in enumerate(kinds)]
    return helper.make_graph(nodes, g.name("g"), [], [_info(names[-1], x.dtype, list(x.shape))])


def loop(g: Grower) -> bool | None:
    """A Loop that runs a few times: one carried value, one value collected."""
    x = g.pick(_FLOATS, range(1, 4), 1)
    if x is None:
        return None
    trips = g.const(np.asarray(g.rng.randint(1, 4), np.int64))
    i, c, s, n, o, t = (g.name("b") for _ in range(6))
    step = g.rng.choice([("Add", "Tanh"), ("Sub", "Sin"), ("Mul", "Sigmoid")])
    shape = list(x.shape)
    body = helper.make_graph(
        [
            helper.make_node("Identity", [c], [t]),
            helper.make_node(step[1], [s], [o]),
            helper.make_node(step[0], [o, x.name], [n]),
        ],
        g.name("g"),
        [
            _info(i, "int64", []),
            _info(c, "bool", []),
            _info(s, x.dtype, shape),
        ],
        [_info(t, "bool", []), _info(n, x.dtype, shape), _info(o, x.dtype, shape)],
    )
    node = helper.make_node("Loop", [trips.name, "", x.name], [g.name(), g.name()], body=body)
    return g.add(node, [trips, x], 12)


def _info(name: str, dtype: str, shape: list[int]) -> Any:
    kind = {"bool": TensorProto.BOOL, "int64": TensorProto.INT64}.get(dtype)
    kind = kind or (TensorProto.FLOAT if dtype == "float32" else TensorProto.DOUBLE)
    return helper.make_tensor_value_info(name, kind, shape)


OPERATORS: dict[str, tuple[Callable[[Grower], bool | None], int]] = {"branch": (branch, 1), "loop": (loop, 1)}
