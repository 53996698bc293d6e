"""Groups by structure: what joins, what does not, and that joining never changes a value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam import op
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Call, Function, Tuple, const, var
from warpbeam.relay.interp import evaluate
from warpbeam.target import get
from warpbeam.transform.fuse_ops import MAX_GROUP, fuse, primitives
from warpbeam.transform.fuse_report import explain, to_text

MACHINE = get("generic-x86-64-v4").replace(cores=2)  # choices must not depend on the machine that tests


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


@pytest.mark.parametrize("shape", [(1, 6, 32), (6, 32), (1, 6, 1, 32)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_a_norm_of_everything_is_one_pass_over_memory(shape, keepdims):
    x = var("x", shape=shape)
    square = call("sum", call("multiply", x, x), axis=tuple(range(len(shape))), keepdims=keepdims)
    assert len(groups(Function([x], call("sqrt", square)))) == 1


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


# ------------------------------------------------------------------------------------------------- pairs, and reasons


def in_mode(mode, func, **config):
    with PassContext(config={"relay.FuseOps.mode": mode, **config}):
        return groups(func)


def decomposed_norm(x):
    mean = call("mean", x, axis=(1,), keepdims=True)
    centred = call("subtract", x, mean)
    square = call("mean", call("multiply", centred, centred), axis=(1,), keepdims=True)
    return call("divide", centred, call("sqrt", square))


def test_pairs_stop_at_reductions_where_regions_go_on():
    x = var("x", shape=(4, 8))
    func = Function([x], decomposed_norm(x))
    assert len(in_mode("regions", func)) == 1
    pairs = in_mode("pairs", func)
    assert len(pairs) == 4 and not any("mean" in g[:-1] for g in pairs)


def test_pairs_join_what_follows_an_anchor_and_elementwise_work_into_reductions():
    x = var("x", shape=(4, 8))
    y = call("nn.relu", call("add", call("nn.dense", x, ones(16, 8)), ones(16)))
    y = call("sum", call("exp", call("transpose", y, axes=(1, 0))), axis=(1,))
    assert in_mode("pairs", Function([x], y)) == [["nn.dense", "add", "nn.relu"], ["transpose"], ["exp", "sum"]]


@given(st.integers(0, 40))
@settings(max_examples=10, deadline=None)
def test_pairs_never_change_a_value(seed):
    rng = np.random.default_rng(seed)
    x = var("x", shape=(3, 6))
    pool = [x]
    for _ in range(8):
        a, b = (pool[int(k)] for k in rng.integers(0, len(pool), 2))
        new = [
            lambda a=a, b=b: call("add", a, b),
            lambda a=a: call("tanh", a),
            lambda a=a: call("subtract", a, call("max", a, axis=(1,), keepdims=True)),
            lambda a=a: call("reverse", a, axis=1),
            lambda a=a: call("nn.dense", a, ones(6, 6)),
            lambda a=a: call("nn.softmax", a, axis=-1),
        ][int(rng.integers(0, 6))]()
        pool.append(new)
    func = Function([x], Tuple(tuple(pool[-2:])))
    with PassContext(config={"relay.FuseOps.mode": "pairs"}):
        joined = fuse(func)
    data = [rng.standard_normal((3, 6)).astype(np.float32)]
    for a, b in zip(evaluate(func, data), evaluate(joined, data), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_groups_are_no_larger_than_asked_for():
    x = var("x", shape=(4, 8))
    y = x
    for _ in range(9):
        y = call("tanh", y)
    for mode in ("pairs", "regions"):
        found = in_mode(mode, Function([x], y), **{"relay.FuseOps.max_depth": 3})
        assert max(len(g) for g in found) == 3 and sum(len(g) for g in found) == 9


def test_unknown_rules_are_refused():
    x = var("x", shape=(4, 8))
    with pytest.raises(CompileError, match=r"relay.FuseOps.mode is 'triples'"):
        in_mode("triples", Function([x], call("tanh", x)))


def test_fusion_tells_what_joined_and_why_the_rest_did_not():
    x = var("x", shape=(4, 8))
    a = call("nn.relu", call("add", call("nn.dense", x, ones(16, 8)), ones(16)))
    s = call("nn.softmax", a, axis=-1)
    t = call("nn.dense", s, ones(8, 16))
    u = call("nn.dense", call("reshape", t, newshape=(2, 16)), ones(4, 16))
    found = explain(Function([x], Tuple((u, s))))
    assert [g.operators for g in found] == [
        ("nn.dense", "add", "nn.relu"),
        ("nn.softmax",),
        ("nn.dense",),
        ("nn.dense",),
    ]
    assert found[0].kept == 2 * 4 * 16 * 4 and found[1].kept == 0
    assert [why for g in found for _, why in g.apart] == [
        "a reduction over rows needs the whole result of the contraction or window",
        "the caller reads it",
        "its readers only meet in the results",
        "it is read through a view of another shape",
        "the caller reads it",
    ]
    text = to_text(found)
    assert "0: nn.dense + add + nn.relu; 0.5 kB stay out of memory" in text
    assert "apart -> 1 (nn.softmax): a reduction over rows" in text
    assert text.endswith("6 operators in 4 groups; 0.001 MB of results stay out of memory")


def attention(size=8, queries=12, keys=20, heads=2, reader=None):
    """Attention over heads that lie side by side, with a mask that is computed; `reader` may read the weights too."""
    q, k, v = (var(n, shape=(1, r, heads, size)) for n, r in (("q", queries), ("k", keys), ("v", keys)))
    m = var("m", shape=(1, 1, 1, keys))
    a, b = call("transpose", q, axes=(0, 2, 1, 3)), call("transpose", k, axes=(0, 2, 3, 1))
    s = call("add", call("multiply", call("nn.matmul", a, b), const(np.float32(0.3))), m)
    p = call("nn.softmax", s, axis=-1)
    y = call("nn.matmul", p, call("multiply", call("transpose", v, axes=(0, 2, 1, 3)), const(np.float32(2))))
    y = call("transpose", y, axes=(0, 2, 1, 3))
    return Function([q, k, v, m], y if reader is None else Tuple((y, call(reader, p))))


def chains(func, target=MACHINE):
    """Operator names of each group, in order, where a machine decides."""
    found = primitives(fuse(func, 3, get(target)))
    return [[n.op.name for n in post_order(f.body) if isinstance(n, Call)] for f in found]


def test_attention_is_one_group():
    (group,) = chains(attention())
    assert sorted(set(group)) == ["add", "multiply", "nn.matmul", "nn.softmax", "transpose"]
    assert group.count("transpose") == 4 and group.count("nn.matmul") == 2
    assert len(groups(attention())) > 4  # no machine, no decision


def test_weights_that_others_read_keep_products_apart():
    assert all(g.count("nn.matmul") <= 1 for g in chains(attention(reader="negative")))


def test_operands_that_others_read_stay_outside():
    q, k, v = (var(n, shape=(1, 2, 16, 8)) for n in "qkv")
    turned = call("transpose", k, axes=(0, 1, 3, 2))
    y = call("nn.matmul", call("nn.softmax", call("nn.matmul", q, turned), axis=-1), v)
    assert chains(Function([q, k, v], Tuple((y, turned)))) == [["transpose"], ["nn.matmul", "nn.softmax", "nn.matmul"]]


def test_views_between_movers_join_with_them():
    x, k, v = var("x", shape=(1, 16, 3, 2, 8)), var("k", shape=(1, 2, 8, 16)), var("v", shape=(1, 2, 16, 8))
    part = call("strided_slice", x, begin=[1], end=[2], strides=[1], axes=[2])
    q = call("reshape", call("transpose", part, axes=(2, 0, 3, 1, 4)), newshape=(1, 2, 16, 8))
    y = call("nn.matmul", call("nn.softmax", call("nn.matmul", q, k), axis=-1), v)
    assert len(chains(Function([x, k, v], y))) == 1


def test_what_does_not_fit_a_stack_stays_apart_and_says_why():
    func = attention(size=8192, queries=8, keys=8192)  # even results do not fit
    assert all(g.count("nn.matmul") <= 1 for g in chains(func))
    text = to_text(explain(func, 3, MACHINE))
    assert "products, reductions and what lies between" in text


def test_what_does_not_fit_a_stack_joins_where_rows_can_be_taken_in_parts():
    func = attention(size=64, queries=8, keys=8192)
    assert [g.count("nn.matmul") for g in chains(func)] == [2]
    assert "rows are taken in parts" in to_text(explain(func, 3, MACHINE))


@pytest.mark.parametrize("reader", [None, "negative"])
def test_joined_chains_keep_their_values(reader):
    func = attention(reader=reader)
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(p.ty.shape).astype(np.float32) for p in func.params]
    ref, got = evaluate(func, given), evaluate(fuse(func, 3, MACHINE), given)
    pairs = [(ref, got)] if reader is None else zip(ref, got, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def dense(x, inputs, outputs, seed):
    w = np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32)
    return call("nn.relu", call("add", call("nn.matmul", x, const(w)), ones(outputs)))


def test_small_layers_and_the_rows_they_read_are_one_group():
    x, y = var("x", shape=(4096, 16)), var("y", shape=(4096, 16))
    both = call("concatenate", x, call("multiply", x, y), axis=1)
    (group,) = chains(Function([x, y], dense(dense(both, 32, 32, 0), 32, 16, 1)))
    assert group.count("nn.matmul") == 2 and "concatenate" in group


def test_elementwise_work_ahead_of_a_product_stays_apart():
    x, y = var("x", shape=(4096, 64)), var("y", shape=(4096, 64))
    func = Function([x, y], dense(call("multiply", x, y), 64, 64, 0))
    assert chains(func) == [["multiply"], ["nn.matmul", "add", "nn.relu"]]
    assert "one kernel for all of it would be slower" in to_text(explain(func, 3, MACHINE))


def test_a_norm_over_positions_takes_the_activation_that_follows():
    x, g, b = var("x", shape=(1, 40, 32)), var("g", shape=(32,)), var("b", shape=(32,))
    y = call("nn.instance_norm", x, g, b, axis=2)
    func = Function([x, g, b], call("multiply", y, call("erf", y)))
    assert groups(func) == [["nn.instance_norm", "erf", "multiply"]]
    with PassContext(config={"relay.FuseOps.mode": "pairs"}):
        assert groups(func) == [["nn.instance_norm"], ["erf", "multiply"]]
    given = [np.random.default_rng(k).standard_normal(p.ty.shape).astype(np.float32) for k, p in enumerate(func.params)]
    assert np.array_equal(evaluate(fuse(func), given), evaluate(func, given))


def test_what_reads_sums_over_positions_stays_apart():
    x, y = var("x", shape=(2, 40, 32)), var("y", shape=(2, 1, 32))
    total = call("sum", x, axis=(1,), keepdims=True)
    assert groups(Function([x, y], call("multiply", total, y))) == [["sum"], ["multiply"]]


def test_parts_that_kernels_write_where_they_go_stay_outside():
    x, w = var("x", shape=(4096, 16)), np.zeros((16, 16), np.float32)
    parts = [call("nn.matmul", x, const(w + k)) for k in range(2)]
    func = Function([x], dense(call("concatenate", *parts, axis=1), 32, 16, 0))
    assert ["concatenate"] in chains(func)


def test_a_cut_stays_outside():
    x = var("x", shape=(8192, 32))
    part = call("strided_slice", x, begin=[0], end=[4096], strides=[1], axes=[0])
    assert ["strided_slice"] in chains(Function([x], dense(part, 32, 16, 0)))


def convolution(x, outputs, seed=0):
    """A plain convolution with bias and activation, channels last."""
    inputs = x.ty.shape[-1]
    w = np.random.default_rng(seed).standard_normal((3, 3, inputs, outputs)).astype(np.float32)
    y = call("nn.conv2d", x, const(w), padding=(1, 1, 1, 1), data_layout="NHWC", kernel_layout="HWIO")
    return call("nn.relu", call("add", y, ones(outputs)))


def test_windows_side_by_side_join_the_convolution_that_they_are_over():
    x = var("x", shape=(1, 32, 64, 4))
    pool = {"pool_size": (2, 2), "strides": (2, 2), "layout": "NHWC"}
    func = Function([x], call("nn.max_pool2d", convolution(x, 32), **pool))
    assert chains(func) == [["nn.conv2d", "add", "nn.relu", "nn.max_pool2d"]]
    given = [np.random.default_rng(1).standard_normal(x.ty.shape).astype(np.float32)]
    assert np.array_equal(evaluate(fuse(func, 3, MACHINE), given), evaluate(func, given))
    made = convolution(x, 32)
    func = Function([x], Tuple((made, call("nn.max_pool2d", made, **pool))))  # the maps are wanted too
    assert chains(func)[-1] == ["nn.max_pool2d"]
    overlapping = {**pool, "pool_size": (3, 3)}
    assert len(chains(Function([x], call("nn.max_pool2d", convolution(x, 32), **overlapping)))) == 2


def test_windows_that_leave_blocks_no_room_stay_apart_and_say_why():
    x, w = var("x", shape=(1, 28, 28, 64)), const(np.zeros((6, 6, 64, 64), np.float32))
    attrs = {"tile_size": 4, "padding": (1, 1, 1, 1), "data_layout": "NHWC"}
    made = call("nn.contrib_conv2d_winograd_without_weight_transform", x, w, **attrs)
    func = Function([x], call("nn.max_pool2d", made, pool_size=(2, 2), strides=(2, 2), layout="NHWC"))
    assert chains(func)[-1] == ["nn.max_pool2d"]
    assert "one kernel with the windows that read it would be slower" in to_text(explain(func, 3, MACHINE))


def rows_fetched(reader=None, table=50, count=40):
    """Two readers of rows that are fetched by index, and another one of the first rows."""
    t, u = (const(np.random.default_rng(k).standard_normal((table, 12)).astype(np.float32)) for k in range(2))
    i, j = var("i", shape=(count,), dtype="int64"), var("j", shape=(count,), dtype="int64")
    a, b = call("take", t, i, axis=0), call("take", u, j, axis=0)
    outs = [call("concatenate", a, b, axis=1), call("multiply", a, b)]
    return Function([i, j], Tuple(tuple(outs if reader is None else [*outs, call(reader, a)])))


def test_rows_that_several_fetch_are_fetched_by_each():
    func = rows_fetched()
    assert sorted(map(sorted, chains(func))) == [["concatenate", "take", "take"], ["multiply", "take", "take"]]
    text = to_text(explain(func, 3, MACHINE))
    assert text.count("take + take") == 2 and "in 2 groups" in text
    given = [np.random.default_rng(2).integers(0, 50, 40) for _ in range(2)]
    for a, b in zip(evaluate(func, given), evaluate(fuse(func, 3, MACHINE), given), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_that_a_reader_cannot_fetch_are_fetched_once():
    found = sorted(map(sorted, chains(rows_fetched("nn.softmax"))))  # the other rows are fetched by each all the same
    assert found == [["concatenate", "take"], ["multiply", "take"], ["nn.softmax"], ["take"]]


@pytest.mark.parametrize(("table", "count", "kernels"), [(40000, 40, 2), (50, 40000, 2), (40000, 40000, 4)])
def test_rows_that_are_far_when_they_are_read_again_are_fetched_once(table, count, kernels):
    """Of 2 MB: a table or what is fetched of it."""
    assert len(chains(rows_fetched(None, table, count))) == kernels


def test_one_number_that_several_fetch_is_fetched_once():
    x, i, a, b = var("x", shape=(7,)), var("i", shape=(), dtype="int64"), var("a", shape=(5, 6)), var("b", shape=(3, 9))
    one = call("take", x, i, axis=0)
    out = Tuple(tuple(call("multiply", call("nn.softmax", r), one) for r in (a, b)))
    assert sum("take" in names for names in chains(Function([x, i, a, b], out))) == 1
