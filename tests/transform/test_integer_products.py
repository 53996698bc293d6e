"""Products of dequantised bytes in integers: the same numbers, and only what fits is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import op, target
from warpbeam.ir.rewrite import post_order
from warpbeam.op.integer_products import integer_conv
from warpbeam.relay.expr import Call, Constant, Function, IRModule, Var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.types import TensorType
from warpbeam.tir.expr import SizeVar
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name
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


@pytest.mark.parametrize("zeros", [0, 2])
def test_zero_points_of_nothing_take_no_sums(zeros: int) -> None:
    """One for each output, as quantisers write them; reshaped for a convolution."""
    x, w = Var("x", TensorType((1, 6, 7, 7), "uint8")), constant(RNG.integers(-128, 128, (5, 6, 3, 3)), "int8")
    scale, zero = constant(RNG.uniform(0.01, 0.02, (5, 1, 1, 1)), "float32"), constant([zeros] * 5, "int8")
    zero = op.get("reshape")(zero, newshape=(5, 1, 1, 1))
    y = op.get("nn.conv2d")(dequantised(x, constant(0.1, "float32"), constant(7, "uint8")), dequantised(w, scale, zero))
    after = passes.IntegerProducts()(IRModule({"main": Function((x,), y)}))
    convolutions = [n for n in post_order(after["main"].body) if op_name(n) == "nn.conv2d"]
    assert len(convolutions) == 1 + (zeros != 0)  # that of the windows' sums


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("sizes, kernel", [((9,), (4,)), ((5, 8), (3, 2)), ((4, 5, 3), (2, 2, 3))])
def test_sums_of_windows_take_channels_first(groups: int, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    x, w = RNG.integers(0, 256, (2, 6, *sizes)), RNG.integers(-128, 128, (12, 6 // groups, *kernel))
    zeros = RNG.integers(-9, 9, 12)
    var = Var("x", TensorType(x.shape, "uint8"))
    attrs = {"strides": 2, "dilation": 1, "groups": groups}
    total = integer_conv(
        var, constant(w, "int8"), constant(3, "uint8"), constant(zeros, "int8"), (1,) * 2 * len(sizes), attrs
    )
    have = evaluate(Function((var,), total), [x.astype(np.uint8)])
    padded = np.pad(x - 3, [(0, 0), (0, 0), *[(1, 1)] * len(sizes)])
    wide = Var("x", TensorType(padded.shape, "int64"))
    exact = w - zeros.reshape(12, *[1] * (w.ndim - 1))
    plain = op.get(f"nn.conv{len(sizes)}d")(wide, constant(exact, "int64"), padding=0, **attrs)
    np.testing.assert_array_equal(have, evaluate(Function((wide,), plain), [padded]))


def test_sums_of_windows_of_an_open_number_of_channels() -> None:
    x, w = RNG.integers(0, 256, (2, 6, 9)).astype(np.uint8), RNG.integers(-128, 128, (4, 3, 2))
    var = Var("x", TensorType((2, SizeVar("c"), 9), "uint8"))
    attrs = {"strides": 1, "dilation": 1, "groups": 2}
    total = integer_conv(var, constant(w, "int8"), None, constant(5, "int8"), (0, 0), attrs)
    wide = Var("x", TensorType(x.shape, "int64"))
    plain = op.get("nn.conv1d")(wide, constant(w - 5, "int64"), padding=0, **attrs)
    module = warpbeam.compile(IRModule.from_expr(Function((var,), total)), cache=False)
    np.testing.assert_array_equal(np.asarray(module(x)), evaluate(Function((wide,), plain), [x.astype(np.int64)]))


@pytest.mark.parametrize("zero", [None, 0, 4])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("sizes, kernel", [((40,), (13,)), ((9, 10), (3, 3)), ((9, 10), (2, 4))])
def test_taps_of_one_channel_are_neighbours(
    zero: int | None, dilation: int, sizes: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    """With zeros behind them for whole groups; what they would meet there must not count, either."""
    x, w = RNG.integers(0, 256, (2, 1, *sizes)), RNG.integers(-128, 128, (5, 1, *kernel))
    var, rank = Var("x", TensorType(x.shape, "uint8")), len(sizes)
    attrs = {"strides": 3, "dilation": dilation, "groups": 1}
    zeros = None if zero is None else constant(zero, "int8")
    total = integer_conv(var, constant(w, "int8"), constant(3, "uint8"), zeros, (1, 2)[:rank] * 2, attrs)
    first = next(n for n in post_order(total) if op_name(n) == f"nn.conv{rank}d" and n.args[1].ty.shape[0] == 5)
    assert (first.args[1].ty.shape[1] == 1) == (dilation == 1 and not zero)
    before = (1, 2)[:rank]
    padded = np.pad(x - 3, [(0, 0), (0, 0), *zip(before, before, strict=True)])
    wide = Var("x", TensorType(padded.shape, "int64"))
    plain = op.get(f"nn.conv{rank}d")(wide, constant(w - (zero or 0), "int64"), padding=0, **attrs)
    want = evaluate(Function((wide,), plain), [padded])
    np.testing.assert_array_equal(evaluate(Function((var,), total), [x.astype(np.uint8)]), want)
    module = warpbeam.compile(IRModule.from_expr(Function((var,), total)), cache=False)
    np.testing.assert_array_equal(np.asarray(module(x.astype(np.uint8))), want)


def test_what_is_not_of_bytes_stays() -> None:
    x = Var("x", TensorType((4, 6), "int16"))
    y = dequantised(x, constant(0.1, "float32"), constant(7, "int16"))
    assert steps(y) is None


def test_only_for_targets_with_the_instruction() -> None:
    assert has_dots(target.get("cascadelake"))
    assert not has_dots(target.get("haswell"))
