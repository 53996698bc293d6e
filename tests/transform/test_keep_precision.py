"""Half-float rows on their way into a product: where the rounding between them is left out, and what that gains."""

from __future__ import annotations

import numpy as np
import pytest

import warpbeam
from warpbeam import op
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Expr, Function, IRModule, Tuple, Var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.types import TensorType
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name


def tensor(name: str, *shape: int, dtype: str = "float16") -> Var:
    return Var(name, TensorType(shape, dtype))


def kept(*params: Var, body: Expr) -> IRModule:
    return passes.KeepPrecision()(IRModule({"main": Function(params, body)}))


def softmaxes(mod: IRModule) -> list[str]:
    return [n.ty.dtype for n in post_order(mod["main"].body) if op_name(n) == "nn.softmax"]


def attention(q: Expr, k: Expr, v: Expr) -> Call:
    matmul = op.get("nn.matmul")
    return matmul(op.get("nn.softmax")(matmul(q, k)), v)


@pytest.mark.parametrize("dtype,inner", [("float16", "float32"), ("bfloat16", "float32"), ("float32", "float32")])
def test_rows_stay_as_they_were_computed(dtype: str, inner: str) -> None:
    q, k, v = tensor("q", 2, 4, 8, dtype=dtype), tensor("k", 2, 8, 4, dtype=dtype), tensor("v", 2, 4, 8, dtype=dtype)
    mod = kept(q, k, v, body=attention(q, k, v))
    assert softmaxes(mod) == [inner]
    assert mod["main"].body.ty == TensorType((2, 4, 8), dtype)


def test_every_layer_of_a_chain_and_what_moves_rows() -> None:
    x, v = tensor("x", 4, 4), tensor("v", 4, 4)
    transpose, reshape = op.get("transpose"), op.get("reshape")
    y: Expr = x
    for _ in range(3):
        rows = reshape(transpose(op.get("nn.softmax")(y), axes=(1, 0)), newshape=(4, 4))
        y = op.get("nn.matmul")(v, rows)
    before = IRModule({"main": Function((x, v), y)})
    after = passes.KeepPrecision()(before)
    assert softmaxes(after) == ["float32"] * 3
    data = [np.random.default_rng(i).standard_normal((4, 4)).astype(np.float16) for i in range(2)]
    want = np.asarray(evaluate(before, data, dtype="float64"))
    once, wide = np.asarray(evaluate(before, data)), np.asarray(evaluate(after, data))
    assert abs(wide - want).max() <= abs(once - want).max()


def test_rows_that_others_read_are_rounded_once_for_all() -> None:
    x, v = tensor("x", 4, 4), tensor("v", 4, 4)
    rows = op.get("nn.softmax")(x)
    product = op.get("nn.matmul")(rows, v)
    assert softmaxes(kept(x, v, body=Tuple((product, rows)))) == ["float16"]
    assert softmaxes(kept(x, body=op.get("nn.matmul")(rows, rows))) == ["float16"]
    assert softmaxes(kept(x, v, body=op.get("add")(rows, v))) == ["float16"]


def test_a_compiled_attention_is_nearer_to_the_exact_one_than_with_every_operator_rounded() -> None:
    q, k, v = tensor("q", 2, 16, 8), tensor("k", 2, 8, 24), tensor("v", 2, 24, 8)
    mod = IRModule({"main": Function((q, k, v), attention(q, k, v))})
    data = [np.random.default_rng(i).random(p.ty.shape).astype(np.float16) for i, p in enumerate((q, k, v))]
    exact, once = np.asarray(evaluate(mod, data, dtype="float64")), np.asarray(evaluate(mod, data))
    got = np.asarray(warpbeam.compile(mod, cache=False)(*data))
    assert got.dtype == np.float16
    assert np.square(got - exact).sum() < np.square(once - exact).sum()
