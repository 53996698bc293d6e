"""Operands of contractions that are easily made again are made while compiling all the same: weights are packed."""

from __future__ import annotations

import numpy as np
import pytest

import warpbeam
from warpbeam import relay
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Call, Constant
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name

SHAPE = (256, 128, 1, 3)  # 384 KiB: more than is made just so


def _weights() -> relay.Expr:
    column = relay.const(np.arange(256, dtype=np.float32).reshape(256, 1, 1, 1))
    return relay.transpose(relay.broadcast_to(column, shape=(256, 128, 3, 1)), axes=(0, 1, 3, 2))


def _module(body) -> relay.IRModule:
    x = relay.var("x", shape=(1, 128, 8, 8), dtype="float32")
    mod = relay.IRModule.from_expr(relay.Function([x], body(x)))
    return passes.InferType()(mod)


def _calls(mod: relay.IRModule) -> list[Call]:
    return [n for n in post_order(mod["main"].body) if isinstance(n, Call)]


def _convolved(x: relay.Expr) -> relay.Expr:
    return relay.nn.conv2d(x, _weights(), padding=(0, 1), channels=256, kernel_size=(1, 3))


def test_weights_become_a_constant() -> None:
    (conv,) = _calls(passes.FoldConstant()(_module(_convolved)))
    assert op_name(conv) == "nn.conv2d" and isinstance(conv.args[1], Constant)
    want = np.broadcast_to(np.arange(256, dtype=np.float32).reshape(256, 1, 1, 1), SHAPE)
    np.testing.assert_array_equal(conv.args[1].numpy(), want)


def test_what_is_shared_is_made_once() -> None:
    def twice(x: relay.Expr) -> relay.Expr:
        w = _weights()
        a, b = (relay.nn.conv2d(v, w, padding=(0, 1), channels=256, kernel_size=(1, 3)) for v in (x, relay.exp(x)))
        return relay.add(a, b)

    convs = [n for n in _calls(passes.FoldConstant()(_module(twice))) if op_name(n) == "nn.conv2d"]
    assert len(convs) == 2 and convs[0].args[1] is convs[1].args[1]


def test_elsewhere_it_stays() -> None:
    before = _module(lambda x: relay.add(x, relay.broadcast_to(relay.const(np.float32(2)), shape=(512, 128, 8, 8))))
    assert "broadcast_to" in {op_name(n) for n in _calls(passes.FoldConstant()(before))}


@pytest.mark.parametrize(("limit", "made"), [(98304, True), (98303, False)])
def test_all_of_them_together_have_a_limit(limit: int, made: bool) -> None:
    """393,216 bytes before they are turned, and as many after: within four times twice the limit."""
    with PassContext(config={"relay.FoldConstant.max_bytes": 2 * limit}):
        found = {op_name(n) for n in _calls(passes.FoldConstant()(_module(_convolved)))}
    assert (found == {"nn.conv2d"}) == made


def test_the_weights_are_right() -> None:
    module = warpbeam.compile(_module(_convolved), cache=False)
    x = np.random.default_rng(0).standard_normal((1, 128, 8, 8)).astype(np.float32)
    (got,) = module.run({"x": x}).values()
    padded = np.pad(x.astype(np.float64).sum(1)[0], ((0, 0), (1, 1)))
    sums = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    want = np.arange(256)[:, None, None] * sums
    sizes = np.pad(np.abs(x).astype(np.float64).sum(1)[0], ((0, 0), (1, 1)))
    terms = 128 * 3
    bound = terms * 2.0**-24 * np.arange(256)[:, None, None] * (sizes[:, :-2] + sizes[:, 1:-1] + sizes[:, 2:])
    assert (np.abs(np.asarray(got)[0] - want) <= bound).all()


def test_work_is_not_done_while_compiling_only_because_its_operands_are_fixed() -> None:
    def product(x: relay.Expr) -> relay.Expr:
        full = relay.broadcast_to(relay.const(np.int32(2)), shape=(512, 512))
        return relay.nn.matmul(relay.cast(x, "int32"), relay.nn.matmul(full, full, out_dtype="int32"))

    x = relay.var("x", shape=(8, 512), dtype="float32")
    mod = passes.InferType()(relay.IRModule.from_expr(relay.Function([x], product(x))))
    assert [op_name(n) for n in _calls(passes.FoldConstant()(mod))].count("nn.matmul") == 2


def test_the_limit_holds_for_all_rounds_of_a_function() -> None:
    """A let of a constant begins another round."""
    x = relay.var("x", shape=(8, 256), dtype="float32")
    body, names = x, [relay.var(f"c{k}", shape=(), dtype="float32") for k in range(4)]
    for name in names:
        body = relay.nn.dense(body, relay.broadcast_to(name, shape=(256, 256)))
    for k, name in reversed(list(enumerate(names))):
        value = relay.const(np.float32(1)) if k == 0 else relay.add(names[k - 1], relay.const(np.float32(1)))
        body = relay.Let(name, value, body)
    mod = passes.InferType()(relay.IRModule.from_expr(relay.Function([x], body)))
    with PassContext(config={"relay.FoldConstant.max_bytes": 150_000}):  # two of 262,144 bytes in four times that
        found = _calls(passes.FoldConstant()(mod))
    made = [isinstance(n.args[1], Constant) for n in found if op_name(n) == "nn.dense"]
    assert len(made) == 4 and sum(made) == 2
