"""Products that follow each other as one kernel: right at every remainder, and only where it fits."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from on_threads import same_bits

from warpbeam import op
from warpbeam.cost.chain_prior import Chain, Product, pays, plan, ranked, separate
from warpbeam.driver.api import compile as build
from warpbeam.relay.expr import Function, IRModule, var
from warpbeam.relay.interp import evaluate
from warpbeam.sketch import chain
from warpbeam.sketch.base import Group
from warpbeam.sketch.collapse import collapse
from warpbeam.sketch.select import schedule, variant
from warpbeam.target import get as target
from warpbeam.tir.analysis.access import as_loop
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.expr import const_int
from warpbeam.tir.interp import run
from warpbeam.tir.schedule.layout import apply_layout
from warpbeam.transform import passes
from warpbeam.transform.fuse_ops import group_tensors

FORMS = ["masked", "scaled operands", "plain", "behind"]
U = 2.0**-24  # half the distance of float32 numbers near 1


def call(name, *args, **attrs):
    return op.get(name)(*args, **attrs)


def attention(batch, queries, keys, heads, size, form, result=(0, 2, 1, 3)):
    """A function of q, k, v [batch, rows, heads, size], a scale and a mask; typed."""
    q, k, v = (var(n, shape=(batch, r, heads, size)) for n, r in (("q", queries), ("k", keys), ("v", keys)))
    c, m = var("c", shape=()), var("m", shape=(batch, 1, 1, keys))
    a, b = call("transpose", q, axes=(0, 2, 1, 3)), call("transpose", k, axes=(0, 2, 3, 1))
    w = call("transpose", v, axes=(0, 2, 1, 3))
    if form == "scaled operands":
        a, b, w = call("multiply", a, c), call("multiply", b, c), call("multiply", w, c)
    s = call("nn.matmul", a, b)
    if form == "masked":
        s = call("add", call("multiply", s, c), m)
    y = call("nn.matmul", call("nn.softmax", s, axis=-1), w)
    if form == "behind":
        y = call("multiply", call("nn.relu", y), c)
    y = call("transpose", y, axes=result) if result else y
    return passes.InferType()(IRModule.from_expr(Function((q, k, v, c, m), y)))


def arrays(mod, seed=0):
    rng = np.random.default_rng(seed)
    found = [rng.standard_normal(p.ty.shape).astype(np.float32) for p in mod["main"].params]
    found[3] = np.array(0.4, np.float32)
    return found


def within_bound(got, q, k, v, c, m, form):
    """Whether a result is as near as rounding allows.

    A score of `size` products is off by d <= (size + 4) u sum |q k| (products, sums, scale, mask); a weight then by a
    factor of e^(2 d) for numerator and denominator, and (keys + 12) u for the sum, the quotient and e^x, which itself
    is right to 4 u; the result by (keys + 2) u more.
    """
    q, k, v = (x.astype(np.float64).transpose(0, 2, 1, 3) for x in (q, k, v))
    scale, outside = (float(c) ** 2, float(c)) if form == "scaled operands" else (1.0, 1.0)
    scale = float(c) if form == "masked" else scale
    s, size = scale * q @ k.swapaxes(-1, -2), scale * np.abs(q) @ np.abs(k).swapaxes(-1, -2)
    if form == "masked":
        s, size = s + m, size + np.abs(m)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    want, spread = outside * p @ v, outside * p @ np.abs(v)
    if form == "behind":
        want, spread = np.maximum(want, 0) * float(c), spread * float(c)
    off = (q.shape[-1] + 4) * U * size.max()
    bound = (np.expm1(2 * off) + (2 * p.shape[-1] + 16) * U) * spread
    return (np.abs(got.transpose(0, 2, 1, 3) - want) <= bound).all()


def kernel(mod, rank=0):
    ins, outs = group_tensors(mod["main"])
    if rank:
        return variant(ins, outs, target("generic-x86-64-v4"), frozenset(), "k", rank)
    return schedule(ins, outs, target("generic-x86-64-v4"), frozenset(), "k")


def results(func, given):
    """What a loop program makes of arrays, each brought into its parameter's shape."""
    shapes = [[const_int(d) for d in b.shape] for b in func.buffers]
    out = [np.full(s, np.nan, np.float32) for s in shapes[len(given) :]]
    run(func, *(a.reshape(s) for a, s in zip(given, shapes[: len(given)], strict=True)), *out)
    return out[0]


SHAPES = [
    (1, 32, 32, 2, 32),  # whole blocks, tiles and vectors
    (1, 37, 29, 3, 24),  # a prime number of rows, columns that are no multiple of the vector
    (2, 9, 40, 2, 17),  # a batch of batches
    (1, 3, 5, 2, 4),  # less than a tile
    (1, 70, 70, 1, 16),  # one pair of products; a last block
    (1, 20, 210, 2, 8),  # rows that do not stay in registers
]


@pytest.mark.parametrize(
    ("shape", "form"), [*((s, "masked") for s in SHAPES), *((SHAPES[1], f) for f in FORMS[1:])], ids=str
)
def test_values(shape, form):
    mod = attention(*shape, form)
    made = kernel(mod)
    assert made.sketch == "chain", made.notes
    given = arrays(mod)
    batch, rows, _, heads, size = shape
    for func in (made.func, made.lowered):
        got = results(func, given).reshape(batch, rows, heads, size)
        assert within_bound(got, *given, form)


def test_the_bound_is_of_the_right_size():
    mod = attention(1, 16, 16, 2, 16, "masked")
    given = arrays(mod)
    wrong = evaluate(mod, given) * np.float32(1 + 1e-4)
    assert not within_bound(wrong, *given, "masked")


def test_a_result_in_the_order_of_the_product():
    mod = attention(1, 12, 20, 2, 16, "plain", result=())
    made = kernel(mod)
    assert made.sketch == "chain"
    got = results(made.lowered, arrays(mod)).reshape(1, 2, 12, 16)
    assert within_bound(got.transpose(0, 2, 1, 3), *arrays(mod), "plain")


def test_the_next_best_decisions_give_the_same_values():
    mod = attention(1, 37, 29, 3, 24, "masked")
    second = kernel(mod, rank=1)
    assert second.decisions["rows"] != kernel(mod).decisions["rows"]
    assert within_bound(results(second.lowered, arrays(mod)).reshape(1, 37, 3, 24), *arrays(mod), "masked")


def test_compiled_results_do_not_depend_on_threads():
    mod = attention(1, 64, 64, 6, 32, "masked")
    given = arrays(mod)
    model = build(mod, cache=False)
    assert len(model.artifact.manifest.kernels) == 1
    got = same_bits(model, dict(zip("qkvcm", given, strict=True)), (1, 2, 3))
    assert within_bound(got, *given, "masked")


def parts(mod):
    """What the sketch makes of a function."""
    return chain.find(Group(*collapse(*group_tensors(mod["main"])), target("generic-x86-64-v4")))


def described(mod):
    """What the prior is told of a function."""
    group = Group(*collapse(*group_tensors(mod["main"])), target("generic-x86-64-v4"))
    return chain.describe(group, chain.find(group))


def test_operands_of_which_only_the_order_changes_are_read_where_they_lie():
    shape = (1, 32, 32, 3, 16)
    plain, scaled = described(attention(*shape, "plain")), described(attention(*shape, "scaled operands"))
    assert (plain.made, plain.moved, plain.row_bytes) == (False, True, 3 * 16 * 4)
    assert [p.made for p in plain.products] == [True, False]  # vectors of keys go along their columns
    assert (scaled.made, scaled.row_bytes) == (True, 0)
    assert [p.made for p in scaled.products] == [True, True]


@pytest.mark.parametrize("form", ["plain", "scaled operands"])
def test_operands_of_the_next_of_the_batch_are_asked_for_ahead(form):
    made = kernel(attention(1, 32, 32, 3, 16, form))
    asked = [f.annotations["prefetch"] for f in map(as_loop, tree_of(made.func).loops.values())
             if "prefetch" in f.annotations]  # fmt: skip
    assert [sorted(name for name, *_ in what) for what in asked] == [["k", "q", "v"]]
    assert all(offset == 1 and through for what in asked for _, offset, through in what)


def test_what_is_the_same_for_all_of_the_batch_is_not_asked_for():
    x, w, v = var("x", shape=(4, 32, 16)), var("w", shape=(16, 24)), var("v", shape=(4, 24, 16))
    s = call("nn.softmax", call("nn.matmul", x, w), axis=-1)
    made = kernel(passes.InferType()(IRModule.from_expr(Function((x, w, v), call("nn.matmul", s, v)))))
    assert made.sketch == "chain"
    asked = [f.annotations.get("prefetch", ()) for f in map(as_loop, tree_of(made.func).loops.values())]
    assert sorted(name for what in asked for name, *_ in what) == ["v", "x"]


def test_what_is_no_such_chain():
    x, w = var("x", shape=(8, 16)), var("w", shape=(16, 24))
    v, u = var("v", shape=(24, 16)), var("u", shape=(16, 24))
    s = call("nn.matmul", x, w)

    def typed(body, *params):
        return passes.InferType()(IRModule.from_expr(Function(params, body)))

    soft = call("nn.softmax", s, axis=-1)
    assert parts(typed(call("nn.matmul", soft, v), x, w, v)) is not None
    assert parts(typed(call("nn.matmul", call("nn.relu", s), v), x, w, v)) is not None  # no reduction
    assert parts(typed(call("nn.matmul", call("nn.softmax", s, axis=0), v), x, w, v)) is None  # of columns
    t = var("t", shape=(5, 8))
    assert parts(typed(call("nn.matmul", t, soft), x, w, t)) is None  # weights on the right
    assert parts(typed(call("nn.matmul", soft, call("transpose", call("nn.matmul", x, u))), x, w, u)) is None  # a tree
    assert parts(typed(call("nn.relu", s), x, w)) is None  # one product, of rows that are there
    assert parts(typed(call("nn.matmul", soft, call("transpose", s)), x, w)) is None  # scores as values


def heads(batch, rows, keys):
    """Attention with heads of 64 elements whose queries and keys are turned."""
    scores, values = Product(64, keys, True, False, True, True), Product(keys, 64, False, False, False, True)
    return Chain(batch, rows, True, (scores, values), 16, moved=True)


def test_the_prior_joins_what_fits_a_stack():
    machine = target("generic-x86-64-v4")
    made = heads(12, 128, 128)
    assert pays(made, machine) is True
    assert plan(heads(12, 128, 4096), machine) is None and pays(heads(12, 128, 4096), machine) is None
    assert plan(made, replace(machine, l2=0)) is None  # a small machine's stack
    found = [b.cycles for b in ranked(made, machine, 3)]
    assert len(found) == 3 and found == sorted(found)


def test_the_prior_counts_a_kernel_for_rows_that_only_a_chain_reads_in_place():
    machine, made = target("generic-x86-64-v4"), heads(12, 128, 128)
    placed = replace(made, made=False, row_bytes=3072)
    assert separate(placed, machine) == separate(made, machine)
    assert plan(placed, machine).cycles < plan(made, machine).cycles


def test_the_prior_does_not_join_where_cores_would_idle():
    machine = replace(target("generic-x86-64-v4"), cores=32)
    joined = plan(heads(1, 512, 256), machine)
    assert joined is not None and joined.cycles > separate(heads(1, 512, 256), machine)


def test_the_prior_keeps_large_layers_apart():
    machine = target("generic-x86-64-v4")
    sizes = (768, 3072, 768)
    layers = tuple(Product(a, b, False, True, False) for a, b in pairwise(sizes))
    made = Chain(1, 128, False, layers, 16)
    assert not pays(made, machine)


def test_the_prior_computes_rows_on_the_way_in_if_that_saves_moving_them():
    machine = target("generic-x86-64-v4")
    layer = Product(64, 64, False, True, False)
    assert pays(Chain(1, 25600, True, (layer,), 16, moved=True), machine)
    assert not pays(Chain(1, 25600, True, (layer,), 16), machine)  # elementwise work goes through memory as fast


def perceptron(batch, rows, sizes, form):
    """Dense layers with sigmoids, of rows that are put together from two or turned; typed. Weights are parameters."""
    if form == "joined":
        x, y = (var(n, shape=(batch, rows, sizes[0] // 2)) for n in "xy")
        made, given = call("concatenate", x, call("subtract", y, x), axis=2), [x, y]
    else:
        x = var("x", shape=(rows, batch, sizes[0]))
        made, given = call("transpose", x, axes=(1, 0, 2)), [x]
    for k, (a, b) in enumerate(pairwise(sizes)):
        w, c = var(f"w{k}", shape=(b, a) if form == "turned" else (a, b)), var(f"b{k}", shape=(b,))
        made = call("nn.dense", made, w) if form == "turned" else call("nn.matmul", made, w)
        made = call("sigmoid", call("add", made, c))
        given += [w, c]
    return passes.InferType()(IRModule.from_expr(Function(tuple(given), made)))


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((5, 37, (18, 21, 9)), "joined"),
        ((1, 64, (32, 32, 16)), "joined"),
        ((3, 40, (24, 20)), "turned"),
        ((2, 12, (8, 16, 16, 5)), "turned"),
    ],
    ids=str,
)
def test_perceptrons(shape, form):
    mod = perceptron(*shape, form)
    params = mod["main"].params
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(p.ty.shape).astype(np.float32) for p in params]
    ins, outs = group_tensors(mod["main"])
    known = frozenset(p.name for p in params if p.name[0] in "wb")
    made = schedule(ins, outs, target("generic-x86-64-v4"), known, "k")
    assert made.sketch == "chain", made.notes
    want = evaluate(mod, [g.astype(np.float32) for g in given])
    layouts = made.func.attrs.get("layouts", {})
    packed = [np.ascontiguousarray(apply_layout(g, layouts[p.name])) if p.name in layouts else g
              for p, g in zip(params, given, strict=True)]  # fmt: skip
    # a sum of k products is off by 2 k u of its size, which sigmoid, no steeper than 1/4, makes less; each layer
    # hands on what its rows are off, times the sums of its weights
    data = given[: len(given) - 2 * (len(shape[2]) - 1)]
    off, rows = 0.0, sum(np.abs(x).max() for x in data)
    for w in given[len(data) :: 2]:
        sums = np.abs(w).sum(1 if form == "turned" else 0).max()
        off = (2 * (max(w.shape) + 4) * U * rows * sums + off * sums) / 4 + 8 * U
        rows = 1.0
    for func in (made.func, made.lowered):
        got = results(func, packed).reshape(want.shape)
        assert np.abs(got - want).max() <= off
