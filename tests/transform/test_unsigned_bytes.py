"""Products of signed bytes become products of unsigned ones, with the same sums to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from warpbeam import op
from warpbeam.driver.kernels import KernelSet
from warpbeam.driver.pipeline import optimize
from warpbeam.driver.plan_pieces import kernel_calls
from warpbeam.ir.rewrite import add_origins, origins, post_order
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


def made(shape: tuple[int, ...], body: Any) -> IRModule:
    """A program whose bytes are rounded from what it is given."""
    x = Var("x", TensorType(shape))
    return IRModule({"main": Function((x,), body(op.get("cast")(x, dtype="int8")))})


@pytest.mark.parametrize("name", PRODUCTS)
def test_same_sums(name: str) -> None:
    shape, body = PRODUCTS[name]
    before = made(shape, body)
    after = passes.UnsignedBytes()(before)
    assert lefts(after) == {"uint8"}
    for low, high in ((-128, 128), (-128, -127), (127, 128)):
        given = RNG.integers(low, high, shape).astype(np.float32)
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
    bytes_made = [n for n in post_order(after["main"].body) if op_name(n) == "cast" and n.ty.dtype == "uint8"]
    assert len(bytes_made) == 1, "what three read"
    given = RNG.integers(-128, 128, (6, 32)).astype(np.int8)
    np.testing.assert_array_equal(evaluate(after["main"], [given]), evaluate(before["main"], [given]))


def joined(x: Expr) -> Expr:
    """Bytes that go on as bytes, and into a product."""
    both = op.get("concatenate")(x, op.get("maximum")(x, const(3, "int8")), axis=1)
    return op.get("add")(product("nn.matmul", x, weights(32, 16)), product("nn.matmul", both, weights(64, 16)))  # type: ignore[no-any-return]


def pooled(x: Expr) -> Expr:
    small = op.get("nn.max_pool1d")(x, pool_size=2, strides=2)
    parts = [product("nn.conv1d", part, weights(4, 8, 1)) for part in (x, small)]
    return op.get("concatenate")(*parts, axis=2)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "before",
    [residual(), made((6, 32), joined), made((1, 8, 32), pooled),
     made((6, 32), lambda x: op.get("add")(op.get("cast")(padded(x, ((0, 0), (0, 0)), 1), dtype="int32"),
                                           product("nn.matmul", padded(x, ((0, 0), (0, 0)), 1), weights(32, 32))))],
    ids=["residual", "concatenated", "pooled", "borders that others read"],
)  # fmt: skip
def test_no_kernel_more(before: IRModule) -> None:
    counts, rows = [], []
    for disabled in ([], ["UnsignedBytes"]):
        with PassContext(3, disabled_pass=disabled):
            calls = kernel_calls(optimize(before, 3, TARGET))
        kernels = KernelSet(TARGET)
        for c in calls:
            kernels.get(c.op, c.args)
        counts.append(len(calls))
        rows.append(sum(any(op_name(n) == "concatenate" for n in post_order(c.op.body)) for c in calls))
    assert counts[0] <= counts[1] and rows[0] == rows[1]


@pytest.mark.parametrize("other", [3, -128, "given"])
@pytest.mark.parametrize("border", [False, True])
def test_a_program_may_flip_bits_itself(other: Any, border: bool) -> None:
    x, y = Var("x", TensorType((1, 8), "uint8")), Var("y", TensorType((4, 8), "int8"))
    by = y if other == "given" else Constant(np.full((4, 8), other, np.int8))
    signed = op.get("bitwise_xor")(op.get("cast")(x, dtype="int8"), by)
    if border:
        signed = padded(signed, ((0, 0), (0, 0)), 5)
    before = IRModule({"main": Function((x, y), product("nn.matmul", signed, weights(8, 5)))})
    given = RNG.integers(0, 256, (1, 8)).astype(np.uint8), RNG.integers(-128, 128, (4, 8)).astype(np.int8)
    after = passes.UnsignedBytes()(before)
    np.testing.assert_array_equal(evaluate(after["main"], [*given]), evaluate(before["main"], [*given]))


def test_names_of_nodes_stay() -> None:
    before = residual()
    for n in post_order(before["main"].body):
        if isinstance(n, Call):
            add_origins(n, [f"{op_name(n)} {'x'.join(map(str, n.ty.shape))}"])
    after = passes.UnsignedBytes()(before)
    found = [set().union(*(origins(n) for n in post_order(m["main"].body))) for m in (before, after)]
    assert found[0] == found[1]
    assert all(origins(n) for n in post_order(after["main"].body) if op_name(n) in ("nn.matmul", "sum", "clip"))


@pytest.mark.parametrize(
    "body",
    [
        lambda x: product("nn.matmul", x, op.get("transpose")(x)),
        lambda x: product("nn.matmul", op.get("cast")(x, dtype="uint8"), weights(8, 5)),
        lambda x: product("nn.conv1d", op.get("reshape")(x, newshape=(1, 8, 8)), weights(8, 4, 3), groups=2),
        lambda x: op.get("nn.matmul")(op.get("cast")(x, dtype="float32"), Constant(np.ones((8, 5), np.float32))),
        lambda x: product("nn.matmul", op.get("transpose")(x), weights(8, 5)),
    ],
    ids=["no constant", "unsigned", "groups", "floats", "moved"],
)
def test_others_stay(body: Any) -> None:
    before = passes.InferType()(made((8, 8), body))
    assert names(passes.UnsignedBytes()(before)) == names(before)


def test_only_for_targets_that_offset_each_element() -> None:
    assert offsets_bytes(TARGET)
    assert not any(offsets_bytes(get(name)) for name in ("haswell", "cortex-a76", "generic-armv7", "hexagon"))
