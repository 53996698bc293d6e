"""Products of signed bytes become products of unsigned ones, with the same sums to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from warpbeam import op
from warpbeam.driver.kernels import KernelSet
from warpbeam.driver.pipeline import optimize
from warpbeam.driver.plan_pieces import kernel_calls
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Call, Constant, Expr, Function, IRModule, Var, const
from warpbeam.relay.interp import evaluate
from warpbeam.relay.types import TensorType
from warpbeam.target import get
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name
from warpbeam.transform.unsigned_bytes import offsets_bytes

RNG = np.random.default_rng(0)
TARGET = get("cascadelake")


def weights(*shape: int) -> Constant:
    return Constant(RNG.integers(-128, 128, shape).astype(np.int8))


def padded(x: Expr, widths: Any, border: int = 0) -> Expr:
    return op.get("nn.pad")(x, const(border, "int8"), pad_width=widths)  # type: ignore[no-any-return]


def product(name: str, x: Expr, w: Expr, **attrs: Any) -> Expr:
    plain = {"padding": 0} if "conv" in name else {}
    return op.get(name)(x, w, out_dtype="int32", **plain, **attrs)  # type: ignore[no-any-return]


PRODUCTS = {
    "conv1d": ((2, 8, 9), lambda x: product("nn.conv1d", x, weights(5, 8, 3), strides=2)),
    "conv2d": ((1, 8, 7, 6), lambda x: product("nn.conv2d", x, weights(5, 8, 3, 3), dilation=2)),
    "conv3d": ((1, 4, 5, 5, 5), lambda x: product("nn.conv3d", x, weights(5, 4, 2, 3, 3))),
    "with borders": (
        (1, 8, 7, 7),
        lambda x: product("nn.conv2d", padded(x, ((0, 0), (0, 0), (1, 2), (3, 1)), 11), weights(5, 8, 3, 3)),
    ),
    "matmul": ((2, 3, 8), lambda x: product("nn.matmul", x, weights(8, 5))),
    "more terms": ((4, 6), lambda x: product("nn.matmul", padded(x, ((0, 0), (0, 2))), weights(8, 5))),
    "dense": ((4, 8), lambda x: product("nn.dense", x, weights(5, 8))),
}


def names(mod: IRModule) -> list[str]:
    return [op_name(n) for n in post_order(mod["main"].body) if isinstance(n, Call)]


def lefts(mod: IRModule) -> set[str]:
    """The types of left operands of products."""
    calls = [n for n in post_order(mod["main"].body) if op_name(n) in ("nn.matmul", "nn.dense") or "conv" in op_name(n)]
    return {n.args[0].ty.dtype for n in calls}


@pytest.mark.parametrize("name", PRODUCTS)
def test_same_sums(name: str) -> None:
    shape, body = PRODUCTS[name]
    x = Var("x", TensorType(shape, "int8"))
    before = IRModule({"main": Function((x,), body(x))})
    after = passes.UnsignedBytes()(before)
    assert lefts(after) == {"uint8"}
    for low, high in ((-128, 128), (-128, -127), (127, 128)):
        given = RNG.integers(low, high, shape).astype(np.int8)
        wanted, have = (evaluate(m["main"], [given]) for m in (before, after))
        np.testing.assert_array_equal(have, wanted)


def rounded(x: Expr) -> Expr:
    """Bytes of what another product made."""
    small = op.get("clip")(op.get("round")(op.get("multiply")(op.get("cast")(x, dtype="float32"), const(0.01))),
                           a_min=-128.0, a_max=127.0)  # fmt: skip
    return op.get("cast")(small, dtype="int8")  # type: ignore[no-any-return]


def residual() -> IRModule:
    x = Var("x", TensorType((6, 32), "int8"))
    a = rounded(product("nn.matmul", x, weights(32, 32)))
    b = rounded(product("nn.matmul", a, weights(32, 32)))
    c = op.get("add")(op.get("cast")(a, dtype="int32"), op.get("cast")(b, dtype="int32"))
    d = product("nn.matmul", a, weights(32, 16))
    return IRModule({"main": Function((x,), op.get("add")(op.get("sum")(c, axis=1, keepdims=True), d))})


def test_elements_are_offset_once_where_they_are_made() -> None:
    before = residual()
    after = passes.UnsignedBytes()(before)
    made = [n for n in post_order(after["main"].body) if op_name(n) == "cast" and n.ty.dtype == "uint8"]
    assert len(made) == 2, "x, and what three read"
    given = RNG.integers(-128, 128, (6, 32)).astype(np.int8)
    np.testing.assert_array_equal(evaluate(after["main"], [given]), evaluate(before["main"], [given]))


def test_no_kernel_more() -> None:
    counts = []
    for disabled in ([], ["UnsignedBytes"]):
        with PassContext(3, disabled_pass=disabled):
            calls = kernel_calls(optimize(residual(), 3, TARGET))
        kernels = KernelSet(TARGET)
        for c in calls:
            kernels.get(c.op, c.args)
        counts.append(len(calls))
    assert counts[0] <= counts[1] + 1, "what the program is given is offset by itself, or in the product"


@pytest.mark.parametrize(
    "body",
    [
        lambda x: product("nn.matmul", x, op.get("transpose")(x)),
        lambda x: product("nn.matmul", op.get("cast")(x, dtype="uint8"), weights(8, 5)),
        lambda x: product("nn.conv1d", op.get("reshape")(x, newshape=(1, 8, 8)), weights(8, 4, 3), groups=2),
        lambda x: op.get("nn.matmul")(op.get("cast")(x, dtype="float32"), Constant(np.ones((8, 5), np.float32))),
    ],
    ids=["no constant", "unsigned", "groups", "floats"],
)
def test_others_stay(body: Any) -> None:
    x = Var("x", TensorType((8, 8), "int8"))
    before = passes.InferType()(IRModule({"main": Function((x,), body(x))}))
    assert names(passes.UnsignedBytes()(before)) == names(before)


def test_only_for_targets_that_offset_each_element() -> None:
    assert offsets_bytes(TARGET)
    assert not any(offsets_bytes(get(name)) for name in ("haswell", "cortex-a76", "generic-armv7", "hexagon"))
