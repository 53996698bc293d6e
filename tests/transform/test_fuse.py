"""Groups by structure: what joins, what does not, and that joining never changes a value."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam import op
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Function, Tuple, const, var
from warpbeam.relay.interp import evaluate
from warpbeam.transform.fuse_ops import MAX_GROUP, fuse, primitives


def call(name, *args, **attrs):
    return op.get(name)(*args, **attrs)


def groups(func):
    """Operator names of each group, in order."""
    return [[n.op.name for n in post_order(f.body) if isinstance(n, Call)] for f in primitives(fuse(func))]


def ones(*shape):
    return const(np.ones(shape, np.float32))


def test_a_contraction_takes_bias_residual_and_activation():
    x, r = var("x", shape=(4, 8)), var("r", shape=(4, 16))
    y = call("nn.relu", call("add", call("add", call("nn.dense", x, ones(16, 8)), ones(16)), r))
    assert groups(Function([x, r], y)) == [["nn.dense", "add", "add", "nn.relu"]]


def test_two_contractions_stay_apart():
    x = var("x", shape=(4, 8))
    y = call("add", call("nn.dense", x, ones(16, 8)), call("nn.dense", x, const(np.eye(16, 8, dtype=np.float32))))
    found = groups(Function([x], call("nn.relu", y)))
    assert all(g.count("nn.dense") <= 1 for g in found)


def test_a_decomposed_layer_norm_is_one_pass_over_memory():
    x = var("x", shape=(6, 32))
    centred = call("subtract", x, call("mean", x, axis=(-1,), keepdims=True))
    variance = call("mean", call("multiply", centred, centred), axis=(-1,), keepdims=True)
    y = call("divide", centred, call("sqrt", call("add", variance, const(1e-5))))
    assert len(groups(Function([x], call("add", call("multiply", y, ones(32)), ones(32))))) == 1


def test_a_value_needed_outside_ends_its_group():
    x = var("x", shape=(4, 8))
    y = call("nn.dense", x, ones(8, 8))
    assert groups(Function([x], Tuple((y, call("nn.relu", y))))) == [["nn.dense"], ["nn.relu"]]


def test_groups_are_capped():
    x = y = var("x", shape=(16,))
    for _ in range(3 * MAX_GROUP):
        y = call("nn.relu", call("negative", y))
    found = groups(Function([x], y))
    assert len(found) >= 6 and max(map(len, found)) <= MAX_GROUP


def test_nothing_is_joined_at_level_zero():
    x = var("x", shape=(4,))
    func = fuse(Function([x], call("nn.relu", call("negative", x))), 0)
    assert len(list(primitives(func))) == 2


UNARY = ("negative", "nn.relu", "tanh")
ROWS = ("mean", "max")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=14))
def test_joining_never_changes_a_value(steps):
    x = var("x", shape=(3, 4))
    values = [x]
    for kind, i, j in steps:
        a, b = values[i % len(values)], values[j % len(values)]
        if kind == 0:
            values.append(call(UNARY[j % 3], a))
        elif kind == 1:
            values.append(call("add", a, b))
        elif kind == 2:
            values.append(call("subtract", a, call(ROWS[j % 2], b, axis=(-1,), keepdims=True)))
        elif kind == 3:
            values.append(call("reshape", call("transpose", a, axes=(1, 0)), newshape=(3, 4)))
        elif kind == 4:
            values.append(call("nn.dense", a, const(np.eye(4, dtype=np.float32)[::-1].copy())))
        else:
            values.append(call("nn.softmax", a, axis=-1))
    func = Function([x], Tuple((values[-1], values[len(values) // 2])))
    array = np.random.default_rng(len(steps)).standard_normal((3, 4)).astype(np.float32)
    for got, want in zip(evaluate(fuse(func), [array]), evaluate(func, [array]), strict=True):
        np.testing.assert_array_equal(got, want)
