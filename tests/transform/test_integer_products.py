"""Products of dequantised bytes in integers: the same numbers, and only what fits is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from warpbeam import op, target
from warpbeam.relay.expr import Call, Constant, Function, IRModule, Var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.types import TensorType
from warpbeam.transform import passes
from warpbeam.transform.integer_products import has_dots, steps

RNG = np.random.default_rng(3)


def dequantised(values: Any, scale: Any, zero: Any) -> Any:
    wide = op.get("subtract")(op.get("cast")(values, dtype="int32"), op.get("cast")(zero, dtype="int32"))
    return op.get("multiply")(op.get("cast")(wide, dtype="float32"), scale)


def constant(value: Any, dtype: str) -> Constant:
    return Constant(np.asarray(value, dtype))


@pytest.mark.parametrize("name", ["nn.conv2d", "nn.matmul", "nn.dense"])
@pytest.mark.parametrize("per_output", [False, True])
def test_same_numbers(name: str, per_output: bool) -> None:
    shapes = {"nn.conv2d": ((1, 6, 7, 7), (5, 6, 3, 3)), "nn.matmul": ((4, 6), (6, 5)), "nn.dense": ((4, 6), (5, 6))}
    data, kernel = shapes[name]
    each = {"nn.conv2d": (5, 1, 1, 1), "nn.matmul": (1, 5), "nn.dense": (5, 1)}[name] if per_output else ()
    x = Var("x", TensorType(data, "uint8"))
    w = constant(RNG.integers(-128, 128, kernel), "int8")
    attrs = {"padding": 1, "strides": 2} if name == "nn.conv2d" else {}
    scale, zero = constant(RNG.uniform(0.01, 0.02, each), "float32"), constant(RNG.integers(-9, 9, each), "int8")
    y = op.get(name)(
        dequantised(x, constant(0.1, "float32"), constant(7, "uint8")), dequantised(w, scale, zero), **attrs
    )
    before = IRModule({"main": Function((x,), y)})
    after = passes.IntegerProducts()(before)
    body = after["main"].body
    assert isinstance(body, Call) and body.op.name == "multiply"
    given = RNG.integers(0, 256, data).astype(np.uint8)
    wanted, have = (evaluate(m["main"], [given]) for m in (before, after))
    np.testing.assert_allclose(have, wanted, rtol=1e-5, atol=1e-4)


def test_what_is_not_of_bytes_stays() -> None:
    x = Var("x", TensorType((4, 6), "int16"))
    y = dequantised(x, constant(0.1, "float32"), constant(7, "int16"))
    assert steps(y) is None


def test_only_for_targets_with_the_instruction() -> None:
    assert has_dots(target.get("cascadelake"))
    assert not has_dots(target.get("haswell"))
