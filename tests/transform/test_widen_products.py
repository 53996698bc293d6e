"""Half floats on their way into products: which are widened there, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import warpbeam
from warpbeam import relay as r
from warpbeam.driver.pipeline import graph_passes
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Constant, Expr
from warpbeam.target import get
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name

WITHOUT, WITH = get("generic-x86-64-v3"), get("znver4")  # an instruction for pairs of bfloat16
F16, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)


def drawn(*shape: int, dtype: Any = F16, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) / 4).astype(dtype)


def widened(body: Expr, params: list[Any], target: Any = WITHOUT) -> Expr:
    mod = passes.WidenProducts(target)(r.IRModule.from_expr(r.Function(params, body)))
    assert mod["main"].body.ty == body.ty
    return mod["main"].body  # type: ignore[no-any-return]


def operands(body: Expr, name: str) -> list[str]:
    """Types of what the one operator of that name reads and gives."""
    (found,) = [n for n in post_order(body) if op_name(n) == name]
    assert isinstance(found, Call)
    return [*(a.ty.dtype for a in found.args), found.ty.dtype]


def x_of(*shape: Any, dtype: str = "float16") -> Any:
    return r.var("x", r.TensorType(shape, dtype))


def test_weights_of_a_convolution_are_widened_too() -> None:
    x = x_of(1, 4, 8, 8)
    body = r.nn.conv2d(x, r.const(drawn(6, 4, 3, 3)), padding=(1, 1))
    assert operands(widened(body, [x]), "nn.conv2d") == ["float32"] * 3


def test_those_of_a_matrix_product_stay() -> None:
    x = x_of(5, 16)
    for body in (r.nn.dense(x, r.const(drawn(8, 16))), r.nn.matmul(x, r.const(drawn(16, 8)))):
        assert operands(widened(body, [x]), op_name(body)) == ["float32", "float16", "float32"]


def test_what_is_used_once_stays() -> None:
    one, maps = x_of(1, 16), x_of(1, 4, 8, 8)
    row = r.nn.dense(one, r.const(drawn(8, 16)))
    assert widened(row, [one]) is row
    depthwise = r.nn.conv2d(maps, r.const(drawn(4, 1, 3, 3)), groups=4)
    assert widened(depthwise, [maps]) is depthwise
    w = r.var("w", r.TensorType((8, 16), "float16"))
    few = r.nn.dense(x_of(4, 16), w)
    assert widened(few, [few.args[0], w]) is few
    many = r.nn.dense(x_of(9, 16), w)
    assert operands(widened(many, [many.args[0], w]), "nn.dense") == ["float32"] * 3


@pytest.mark.parametrize("target, wide", [(WITHOUT, True), (WITH, False)], ids=["without", "with"])
def test_pairs_of_bfloat16_stay_where_an_instruction_takes_them(target: Any, wide: bool) -> None:
    x, w = x_of(12, 16, dtype="bfloat16"), r.var("w", r.TensorType((8, 16), "bfloat16"))
    constant = r.nn.dense(x, r.const(drawn(8, 16, dtype=BF16)))
    assert (widened(constant, [x], target) is not constant) == wide
    assert operands(widened(r.nn.dense(x, w), [x, w], target), "nn.dense") == ["float32"] * 3  # no constant: no pairs


def test_float32_stays() -> None:
    x = x_of(5, 16, dtype="float32")
    body = r.nn.dense(x, r.const(drawn(8, 16, dtype=np.float32)))
    assert widened(body, [x]) is body


def test_is_a_pass_of_processors() -> None:
    found = {t: "WidenProducts" in [p.info.name for p in graph_passes(get(t))] for t in ("generic-x86-64-v4", "cuda")}
    assert found == {"generic-x86-64-v4": True, "cuda": False}


def exact(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) @ w.astype(np.float64)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 33, "open"])
@pytest.mark.parametrize("constant", [True, False], ids=["weights", "operand"])
def test_products_round_once(dtype: Any, rows: Any, constant: bool) -> None:
    name, count = ("bfloat16" if dtype == BF16 else "float16"), 21 if rows == "open" else rows
    x = r.var("x", r.TensorType((r.Any() if rows == "open" else rows, 48), name))
    xv, wv = drawn(count, 48, dtype=dtype), drawn(48, 40, dtype=dtype, seed=1)
    w = r.const(wv) if constant else r.var("w", r.TensorType(wv.shape, name))
    module = warpbeam.compile(
        r.IRModule.from_expr(r.Function([x] if constant else [x, w], r.nn.matmul(x, w))), cache=False
    )
    got = np.asarray(module(xv) if constant else module(xv, wv))
    assert got.dtype == dtype
    want = exact(xv, wv)
    unit = 2.0 ** (-8 if dtype == BF16 else -11)
    bound = unit * np.abs(want) + 48 * 2.0**-24 * exact(np.abs(xv), np.abs(wv)) + 2.0**-24
    assert (np.abs(got.astype(np.float64) - want) <= bound).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_round_once(groups: int) -> None:
    xv, wv = drawn(2, 4, 9, 7), drawn(8, 4 // groups, 3, 3, seed=1)
    x = x_of(2, 4, 9, 7)
    body = r.nn.conv2d(x, r.const(wv), padding=(1, 1), groups=groups)
    got = np.asarray(warpbeam.compile(r.IRModule.from_expr(r.Function([x], body)), cache=False)(xv), np.float64)
    wide = r.var("x", r.TensorType(xv.shape, "float64"))
    reference = r.nn.conv2d(wide, Constant(wv.astype(np.float64)), padding=(1, 1), groups=groups)
    module = warpbeam.compile(r.IRModule.from_expr(r.Function([wide], reference)), cache=False)
    want = np.asarray(module(xv.astype(np.float64)))
    assert np.abs(got - want).max() <= 2.0**-11 * np.abs(want).max() + 36 * 2.0**-21
