"""The classic face: operator functions, scopes, binding, analysis."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import relay
from warpbeam.ir.diagnostics import IRError


def test_classic_calls_build_the_same_nodes_as_operators():
    x, w = relay.var("x", shape=(1, 3, 8, 8)), relay.var("w", shape=(4, 3, 3, 3))
    y = relay.nn.conv2d(x, w, channels=4, kernel_size=(3, 3), padding=(1, 1))
    assert y is relay.op.get("nn.conv2d")(x, w, padding=(1, 1))
    parameters = [relay.var(n, shape=(4,)) for n in ("gamma", "beta", "mean", "var")]
    y = relay.nn.relu(relay.nn.batch_norm(y, *parameters)[0])
    y = relay.concatenate(relay.split(relay.add(y, 1), 2, axis=1), axis=1)
    y = relay.nn.max_pool2d(relay.nn.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1))), pool_size=(2, 2), strides=(2, 2))
    y = relay.sum(relay.nn.batch_flatten(y), 1)
    assert y.ty is relay.TensorType((1,))
    z = relay.image.resize2d(x, (4, 6), method="nearest_neighbor")
    assert z.ty is relay.TensorType((1, 3, 4, 6))
    assert relay.analysis.list_op_freqs(relay.Function(relay.analysis.free_vars(y), y))["nn.conv2d"] == 1


def test_operators_are_also_found_under_op():
    x = relay.var("x", shape=(1, 3))
    assert relay.op.nn.relu(x) is relay.nn.relu(x) and relay.op.get("nn.relu").name == "nn.relu"
    with pytest.raises(AttributeError, match="no 'nothing'"):
        _ = relay.op.nothing


def test_wrong_names_and_shapes_are_explained():
    x, w = relay.var("x", shape=(1, 3, 8, 8)), relay.var("w", shape=(4, 3, 3, 3))
    with pytest.raises(AttributeError, match="conv2d"):
        _ = relay.nn.conv2dd
    with pytest.raises(AttributeError, match="did you mean"):
        _ = relay.ad
    with pytest.raises(IRError, match="kernel_size"):
        relay.nn.conv2d(x, w, kernel_size=5)
    with pytest.raises(IRError, match="channels=7"):
        relay.nn.conv2d(x, w, channels=7)


def test_scopes_build_lets_and_branches():
    c = relay.var("c", relay.TensorType((), "bool"))
    sb = relay.ScopeBuilder()
    v = sb.let("v", relay.const(3))
    with sb.if_scope(c):
        sb.ret(v)
    with sb.else_scope():
        sb.ret(relay.multiply(v, v))
    fn = relay.Function([c], sb.get())
    assert [int(relay.evaluate(fn, [flag])) for flag in (True, False)] == [3, 9]


def test_parameters_are_bound_by_name():
    x, w = relay.var("x", shape=(2,)), relay.var("w", shape=(2,))
    fn = relay.bind_params_by_name(relay.Function([x, w], relay.add(x, w)), {"w": np.ones(2, "float32"), "other": 1})
    assert [p.name for p in fn.params] == ["x"]
    assert relay.evaluate(fn, [np.ones(2, "f")]).tolist() == [2, 2]
    with pytest.raises(IRError, match="parameter w"):
        relay.bind_params_by_name(relay.Function([x, w], x), {"w": np.ones(2)})


def test_the_package_face_forwards_after_internal_imports():
    import warpbeam.relay.expr  # an attribute of the package, from now on

    assert warpbeam.relay.var is warpbeam.relay.expr.var
    assert warpbeam.relay.transform.FoldConstant().info.name == "FoldConstant"


def test_well_formed():
    x = relay.var("x", shape=())
    assert relay.analysis.well_formed(relay.Function([x], relay.add(x, x)))
    with pytest.raises(IRError, match="bound nowhere"):
        relay.analysis.well_formed(relay.Function([], x))
    twice = relay.Let(x, relay.const(1.0), relay.Let(x, relay.const(2.0), x))
    assert not relay.analysis.well_formed(twice, strict=False)
