"""Attention whose rows are taken in parts: right at every remainder, for masks and numbers of any size."""

from dataclasses import replace

import numpy as np
import pytest
from on_threads import same_bits
from test_chain import FORMS, U, arrays, attention, call, results, within_bound

from warpbeam import te
from warpbeam.cost import chain_prior, online_prior
from warpbeam.cost.chain_prior import Chain, Product
from warpbeam.driver.api import compile as build
from warpbeam.relay.expr import Function, IRModule, var
from warpbeam.relay.types import TensorType
from warpbeam.sketch import chain, online
from warpbeam.sketch.base import Group
from warpbeam.sketch.collapse import collapse
from warpbeam.sketch.select import schedule, variant
from warpbeam.target import get as target
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import Var
from warpbeam.tir.transform import lower
from warpbeam.transform import passes
from warpbeam.transform.fuse_ops import group_tensors
from warpbeam.transform.fuse_report import explain, to_text

MACHINE = target("generic-x86-64-v4")
SHAPES = [
    (1, 32, 256, 2, 32),  # whole blocks, tiles and vectors
    (1, 37, 150, 3, 24),  # a prime number of rows, columns that are no multiple of the vector
    (2, 9, 192, 2, 17),  # a batch of batches
    (1, 3, 130, 2, 4),  # less than a tile
    (1, 300, 256, 1, 16),  # one pair of products; a last block
    (1, 120, 197, 2, 8),  # a prime number of columns: the last part begins earlier
]


def group(mod):
    return Group(*collapse(*group_tensors(mod["main"])), MACHINE)


def in_parts(mod):
    """The kernel, also where whole rows would fit."""
    found = group(mod)
    assert online.fits(found)
    return online.build(found)


def attended(mod, given):
    """What the kernel, lowered, makes of arrays: [batch, rows, heads, size]."""
    batch, rows, heads, size = mod["main"].params[0].ty.shape
    return results(lower(in_parts(mod).func, MACHINE), given).reshape(batch, rows, heads, size)


@pytest.mark.parametrize(
    ("shape", "form"), [*((s, "masked") for s in SHAPES), *((SHAPES[1], f) for f in FORMS[1:])], ids=str
)
def test_values(shape, form):
    mod = attention(*shape, form)
    made = in_parts(mod)
    given = arrays(mod)
    batch, rows, _, heads, size = shape
    for func in (made.func, lower(made.func, MACHINE)):
        got = results(func, given).reshape(batch, rows, heads, size)
        assert within_bound(got, *given, form)


@pytest.mark.parametrize(("columns", "count"), [(192, 3), (193, 4)])
@pytest.mark.parametrize("form", ["masked", "plain"])  # without anything that finishes scores, too
def test_the_stages_of_parts_compute_the_same_in_any_order(columns, count, form):
    mod = attention(2, 9, columns, 2, 17, form)
    found = group(mod)
    parts = online.find(found)
    split = online.online_stages.split(found, parts.parts, parts.softmax, 64)
    assert (split.count, split.size) == (count, 64)
    func = create_prim_func(list(found.inputs), [split.out], "plain")
    got = results(func, arrays(mod)).reshape(2, 9, 2, 17)
    assert within_bound(got, *arrays(mod), form)


def masked_by_rows(rows, columns, size):
    """A function of q [rows, size], k, v [columns, size] and a mask [rows, columns]; typed."""
    q, k, v = var("q", shape=(rows, size)), var("k", shape=(columns, size)), var("v", shape=(columns, size))
    m = var("m", shape=(rows, columns))
    s = call("add", call("nn.matmul", q, call("transpose", k)), m)
    y = call("nn.matmul", call("nn.softmax", s, axis=-1), v)
    return passes.InferType()(IRModule.from_expr(Function((q, k, v, m), y)))


def by_rows(mod, given):
    return results(lower(in_parts(mod).func, MACHINE), given)


def want_by_rows(q, k, v, m):
    """(what is right, by how much float32 may be off) as in `within_bound`."""
    q, k, v, m = (x.astype(np.float64) for x in (q, k, v, m))
    with np.errstate(invalid="ignore"):
        s = q @ k.T + m
        p = np.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
    size = np.abs(q) @ np.abs(k).T + np.where(np.abs(m) < 1e30, np.abs(m), 0)  # others weigh nothing
    off = (q.shape[-1] + 4) * U * size.max(-1, keepdims=True)
    return p @ v, (np.expm1(2 * off) + (2 * p.shape[-1] + 16) * U) * (p @ np.abs(v))


def operands(rows=19, columns=192, size=8):
    rng = np.random.default_rng(1)
    return [rng.standard_normal(s).astype(np.float32) for s in ((rows, size), (columns, size), (columns, size))]


@pytest.mark.parametrize("kind", ["causal", "first parts", "last parts", "single", "lowest", "steps"])
def test_masks(kind):
    columns = 192 if kind in ("first parts", "single") else 197
    q, k, v = operands(columns=columns)
    m = np.zeros((19, columns), np.float32)
    if kind == "causal":
        m[np.arange(columns)[None] > 5 + 9 * np.arange(19)[:, None]] = -np.inf
    elif kind == "first parts":
        m[:, :150] = -np.inf
    elif kind == "last parts":
        m[:, 10:] = -np.inf
    elif kind == "single":
        m[...] = -np.inf
        m[np.arange(19), 10 * np.arange(19)] = 0
    elif kind == "lowest":  # what exporters write in place of -inf
        m[:, ::2] = np.finfo(np.float32).min
    else:  # maxima that grow from part to part, and fall
        m += np.linspace(-300, 300, columns, dtype=np.float32) * np.where(np.arange(19) % 2, 1, -1)[:, None]
    got = by_rows(masked_by_rows(19, columns, 8), [q, k, v, m])
    want, bound = want_by_rows(q, k, v, m)
    assert np.isfinite(want).all()
    assert (np.abs(got - want) <= bound).all()


def test_rows_without_any_column_are_no_number_and_others_are_right():
    q, k, v = operands()
    m = np.zeros((19, 192), np.float32)
    m[[0, 7, 18]] = -np.inf
    got = by_rows(masked_by_rows(19, 192, 8), [q, k, v, m])
    want, bound = want_by_rows(q, k, v, m)
    assert np.isnan(want[[0, 7, 18]]).all()
    assert (np.isnan(got) == np.isnan(want)).all()
    rest = ~np.isnan(want)
    assert (np.abs(got - want)[rest] <= bound[rest]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 100, 191])
def test_a_score_that_is_no_number_or_infinite_makes_its_row_none(value, at):
    q, k, v = operands()
    m = np.zeros((19, 192), np.float32)
    m[3, at] = value
    m[4] = -np.inf
    m[4, at] = value
    got = by_rows(masked_by_rows(19, 192, 8), [q, k, v, m])
    want, _ = want_by_rows(q, k, v, m)
    assert (np.isnan(got) == np.isnan(want)).all() and np.isnan(got[3:5]).all() and not np.isnan(got[5]).any()


def test_rows_that_are_all_the_lowest_number_weigh_all_alike():
    q, k, v = operands()
    m = np.full((19, 192), np.finfo(np.float32).min)
    got = by_rows(masked_by_rows(19, 192, 8), [0 * q, k, v, m])
    assert np.allclose(got, v.mean(0), atol=192 * U * np.abs(v).sum(0).max() / 192)


def test_compiled_results_do_not_depend_on_threads():
    for shape, parallel in (((1, 24, 1024, 4, 64), "batch"), ((1, 130, 1024, 1, 64), "rows")):
        mod = attention(*shape, "masked")
        given = arrays(mod)
        model = build(mod, cache=False)
        assert len(model.artifact.manifest.kernels) == 1, parallel
        got = same_bits(model, dict(zip("qkvcm", given, strict=True)), (1, 2, 3))
        assert within_bound(got, *given, "masked")


def test_it_is_taken_where_whole_rows_do_not_fit():
    long, short = attention(1, 64, 2048, 2, 64, "masked"), attention(1, 64, 128, 2, 64, "masked")
    made = [schedule(*group_tensors(m["main"]), MACHINE, frozenset(), "k") for m in (long, short)]
    assert [m.sketch for m in made] == ["online", "chain"]
    assert "parts" in made[0].notes[0]
    assert not chain.fits(group(long)) and chain.fits(group(short))
    other = variant(*group_tensors(long["main"]), MACHINE, frozenset(), "k", 1)
    assert other is not None and other.sketch == "online" and other.decisions != made[0].decisions


def test_memory_does_not_grow_with_scores():
    for columns in (2048, 8192):
        made = in_parts(attention(1, 64, columns, 2, 64, "plain"))
        assert not lower(made.func, MACHINE).attrs.get("workspace")


def test_what_is_no_softmax_between_two_products():
    x, w, v = var("x", shape=(8, 16)), var("w", shape=(16, 192)), var("v", shape=(192, 24))

    def found(middle):
        body = call("nn.matmul", middle(call("nn.matmul", x, w)), v)
        return online.find(group(passes.InferType()(IRModule.from_expr(Function((x, w, v), body)))))

    assert found(lambda s: call("nn.softmax", s, axis=-1)) is not None
    assert found(lambda s: call("nn.relu", s)) is None
    assert found(lambda s: call("nn.log_softmax", s, axis=-1)) is None
    assert found(lambda s: call("nn.l2_normalize", s, axis=(1,))) is None
    assert found(lambda s: call("nn.softmax", call("nn.softmax", s, axis=-1), axis=-1)) is None


def test_open_sizes_are_left_to_other_kernels():
    n = Var("n", "int64")
    q, k, v = (var(name, TensorType((r, 64), "float32")) for name, r in (("q", 16), ("k", n), ("v", n)))
    s = call("nn.softmax", call("nn.matmul", q, call("transpose", k)), axis=-1)
    mod = passes.InferType()(IRModule.from_expr(Function((q, k, v), call("nn.matmul", s, v))))
    assert online.find(group(mod)) is None and online.pays(group(mod)) is None


def heads(batch, rows, columns, size=64):
    """Attention with heads whose keys are turned."""
    scores, values = Product(size, columns, True, False, True, True), Product(columns, size, False, False, False)
    return Chain(batch, rows, False, (scores, values), 16)


def test_the_prior_decides_on_parts_that_fit():
    for columns in (1500, 4096, 4099, 1 << 20):
        for d in online_prior.ranked(heads(2, 1000, columns), MACHINE, 5):
            assert d.size < columns
            rows = d.whole.rows + (1000 % d.whole.rows)
            assert rows * (2 * d.size + 64) * 4 + d.size * 64 * 4 < online_prior.STACK
            assert (d.last is None) == (1000 % d.whole.rows == 0)
    assert online_prior.plan(heads(2, 1000, 64), MACHINE) is None  # too few columns to take them in parts
    assert online_prior.plan(heads(2, 1000, 4096), replace(MACHINE, l2=0)) is None  # a small machine's stack
    assert online_prior.pays(heads(2, 1000, 4096, 2048), MACHINE) is None  # keys that fit no buffer


def test_the_prior_shares_out_what_there_is():
    one = replace(MACHINE, cores=1)
    assert online_prior.plan(heads(4, 1024, 4096), one).parallel == "none"
    many = replace(MACHINE, cores=16)
    assert online_prior.plan(heads(64, 1024, 4096), many).parallel == "batch"
    assert online_prior.plan(heads(1, 4096, 4096), many).parallel in ("rows", "both")
    cycles = [online_prior.plan(heads(4, 1024, 4096), m).cycles for m in (one, many)]
    assert cycles[1] < cycles[0] / 8


def test_the_prior_takes_parts_for_long_rows():
    assert online_prior.pays(heads(8, 2048, 2048), MACHINE)
    assert chain_prior.plan(heads(8, 2048, 2048), MACHINE) is None


def test_the_report_of_fusion_says_so():
    long, short = attention(1, 64, 2048, 2, 64, "masked"), attention(1, 64, 128, 2, 64, "masked")
    found = [explain(m["main"], 3, MACHINE) for m in (long, short)]
    assert [len(groups) for groups in found] == [1, 1]
    assert "rows are taken in parts" in to_text(found[0]) and "parts" not in to_text(found[1])


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_the_maximum_is_that_of_what_is_weighed(times):
    """exp(2s - max s) may be infinite in a part and not in the row: it is no softmax."""
    rows, columns, inner = 40, 256, 16
    q, k, v = (te.placeholder((n, inner), name=name) for n, name in ((rows, "q"), (columns, "k"), (columns, "v")))
    d, j, j1, j2 = (
        te.reduce_axis(n, name) for n, name in ((inner, "d"), (columns, "j"), (columns, "j1"), (columns, "j2"))
    )
    s = te.compute((rows, columns), lambda i, c: te.sum(q[i, d] * k[d, c], axis=d), name="s")
    top = te.compute((rows,), lambda i: te.max(s[i, j], axis=j), name="top")
    weighed = (lambda i, c: s[i, c]) if times == 1.0 else (lambda i, c: s[i, c] * times)
    power = te.compute((rows, columns), lambda i, c: te.exp(weighed(i, c) - top[i]), name="power")
    total = te.compute((rows,), lambda i: te.sum(power[i, j1], axis=j1), name="total")
    ready = te.compute((rows, columns), lambda i, c: power[i, c] / total[i], name="ready")
    out = te.compute((rows, inner), lambda i, c: te.sum(ready[i, j2] * v[j2, c], axis=j2), name="out")
    assert (online.find(Group(*collapse([q, k, v], [out]), MACHINE)) is not None) == (times == 1.0)
