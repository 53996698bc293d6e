"""Slices move in front of the products whose results they take: fewer rows are computed, and those are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import relay
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call
from warpbeam.relay.interp import evaluate
from warpbeam.topi import dims
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name

RNG = np.random.default_rng(5)
MATMUL = relay.nn.matmul


def weights(*shape: int) -> Any:
    return relay.const((RNG.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))


def some(x: Any, axis: int, begin: Any, end: Any) -> Any:
    return relay.strided_slice(x, begin=[begin], end=[end], axes=[axis])


def narrowed(body: Any, *shapes: Any) -> tuple[relay.IRModule, relay.IRModule]:
    given = [relay.var(f"x{k}", shape=s, dtype="float32") for k, s in enumerate(shapes)]
    mod = passes.InferType()(relay.IRModule.from_expr(relay.Function(given, body(*given))))
    return mod, passes.NarrowRows()(mod)


def sizes(mod: relay.IRModule, name: str) -> list[tuple[Any, ...]]:
    """The shapes of an operator's results, in order."""
    calls = [n for n in post_order(mod["main"].body) if isinstance(n, Call) and op_name(n) == name]
    return [tuple(d if isinstance(d, int) else str(d) for d in n.ty.shape) for n in calls]


def check_values(before: relay.IRModule, after: relay.IRModule, *shapes: tuple[int, ...]) -> None:
    """The same numbers but for the rounding of sums whose order is the interpreter's."""
    given = [RNG.standard_normal(s).astype(np.float32) for s in shapes]
    results = [evaluate(m, given, dtype="float64") for m in (before, after)]
    both = [r if isinstance(r, tuple | list) else [r] for r in results]
    for old, new in zip(*both, strict=True):
        np.testing.assert_allclose(np.asarray(new), np.asarray(old), rtol=1e-12, atol=1e-12)


def block(x: Any, tokens: Any, width: int = 32, heads: int = 4) -> Any:
    """A layer of a transformer: attention and two products, each added to what went in."""
    one, zero = relay.const(np.ones(width, np.float32)), relay.const(np.zeros(width, np.float32))

    def split(y: Any) -> Any:
        return relay.transpose(relay.reshape(y, (1, tokens, heads, width // heads)), axes=(0, 2, 1, 3))

    n = relay.nn.layer_norm(x, one, zero, axis=-1)
    q, k, v = (split(MATMUL(n, weights(width, width))) for _ in range(3))
    scores = relay.nn.softmax(MATMUL(q, relay.transpose(k, axes=(0, 1, 3, 2))), axis=-1)
    joined = relay.reshape(relay.transpose(MATMUL(scores, v), axes=(0, 2, 1, 3)), (1, tokens, width))
    x = relay.add(x, MATMUL(joined, weights(width, width)))
    n = relay.nn.layer_norm(x, one, zero, axis=-1)
    return relay.add(x, MATMUL(relay.tanh(MATMUL(n, weights(width, 2 * width))), weights(2 * width, width)))


@pytest.mark.parametrize(("begin", "end"), [(0, 1), (-1, 1 << 30), (3, 5)])
def test_a_classifier_needs_one_row_of_the_last_layer(begin: int, end: int) -> None:
    before, after = narrowed(lambda x: some(block(block(x, 9), 9), 1, begin, end), (1, 9, 32))
    check_values(before, after, (1, 9, 32))
    rows = end - begin if 0 <= begin < end <= 9 else 1
    kinds = {(1, 9, 32), (1, 4, 9, 9), (1, 4, 9, 8), (1, 9, 64)}
    assert sorted(sizes(before, "nn.matmul")) == sorted([s for s in sizes(before, "nn.matmul") if s in kinds])
    left = sizes(after, "nn.matmul")
    first = len(left) // 2
    assert left[:first] == sizes(before, "nn.matmul")[:first], "the layer before is read as a whole"
    own = [s for s in left[first:] if rows in s[1:3]]
    assert sorted(own) == sorted(
        [(1, rows, 32), (1, 4, rows, 9), (1, 4, rows, 8), (1, rows, 32), (1, rows, 64), (1, rows, 32)]
    )
    assert left.count((1, 9, 32)) == sizes(before, "nn.matmul").count((1, 9, 32)) - 3


@pytest.mark.parametrize(("begin", "end"), [(0, 1), (-1, 1 << 62)])
def test_rows_of_open_number(begin: int, end: int) -> None:
    product = weights(16, 8)
    before, after = narrowed(
        lambda x: some(relay.tanh(MATMUL(relay.nn.softmax(x), product)), 0, begin, end), (relay.Any(), 16)
    )
    for kind in ("nn.matmul", "tanh", "nn.softmax"):
        ((rows, _),) = sizes(after, kind)
        assert sizes(before, kind) == [("any", 8 if kind != "nn.softmax" else 16)] and rows != "any"
    module = warpbeam.compile(before, cache=False)
    for rows in (1, 2, 30):
        x = RNG.standard_normal((rows, 16)).astype(np.float32)
        (got,) = module.run({"x0": x}).values()
        np.testing.assert_allclose(got, np.asarray(evaluate(before, [x], dtype="float64")), rtol=1e-5, atol=1e-6)


PARTS = {
    "dense": (lambda x: some(relay.nn.dense(x, weights(5, 16)), 0, 2, 4), (12, 16), "nn.dense", (2, 5)),
    "bias": (
        lambda x: some(relay.nn.bias_add(relay.nn.dense(x, weights(5, 16)), weights(5)), 0, 2, 4),
        (12, 16), "nn.bias_add", (2, 5),
    ),
    "columns first": (
        lambda x: some(MATMUL(x, weights(16, 5), transpose_a=True), 0, 2, 4), (16, 12), "nn.matmul", (2, 5),
    ),
    "batch": (lambda x: some(MATMUL(x, weights(16, 5)), 0, 7, 8), (8, 3, 16), "nn.matmul", (1, 3, 5)),
    "batch of both": (
        lambda x: some(MATMUL(x, relay.transpose(x, axes=(0, 2, 1))), 0, 7, 8), (8, 3, 16), "nn.matmul", (1, 3, 3),
    ),
    "mean": (
        lambda x: some(relay.mean(MATMUL(x, weights(16, 5)), axis=[1]), 0, 0, 2), (8, 3, 16), "nn.matmul", (2, 3, 5),
    ),
    "mean, kept": (
        lambda x: some(relay.mean(MATMUL(x, weights(16, 5)), axis=[0], keepdims=True), 1, 0, 2),
        (3, 8, 16), "nn.matmul", (3, 2, 5),
    ),
    "broadcast": (
        lambda x: some(relay.add(MATMUL(x, weights(16, 5)), weights(8, 1)), 1, 1, 3),
        (3, 8, 16), "nn.matmul", (3, 2, 5),
    ),
    "reshaped": (
        lambda x: some(relay.reshape(MATMUL(relay.reshape(x, (8, 16)), weights(16, 6)), (1, 8, 2, 3)), 1, 0, 1),
        (1, 8, 16), "nn.matmul", (1, 6),
    ),
    "residual": (
        lambda x: some(relay.add(x, MATMUL(x, weights(16, 16))), 0, 4, 5), (10, 16), "nn.matmul", (1, 16),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("index", "tokens"), [(0, 7), (-1, 7), (2, 7), (-3, 7), (5, 3), (-5, 3), (0, 1), (-1, 1)])
def test_one_row_of_an_open_number_by_index(index: int, tokens: int) -> None:
    """A token that is indexed, as classifiers and decoders do; out of range is moved to the nearest one as before."""
    t = relay.Any()
    before, after = narrowed(
        lambda x: relay.take(MATMUL(block(x, t), weights(32, 5)), relay.const(np.int64(index)), axis=1), (1, t, 32)
    )
    assert sizes(after, "nn.matmul")[-2:] == [(1, 1, 32), (1, 1, 5)]
    assert sizes(after, "take")[0][1] == 1
    check_values(before, after, (1, tokens, 32))


def test_an_index_into_no_rows_is_refused() -> None:
    t = relay.Any()
    _, after = narrowed(lambda x: relay.take(MATMUL(x, weights(8, 5)), relay.const(np.int64(-1)), axis=0), (t, 8))
    mod = warpbeam.compile(after, cache=False)
    x = RNG.standard_normal((3, 8)).astype(np.float32)
    assert next(iter(mod.run({"x0": x}).values())).shape == (5,)
    with pytest.raises(warpbeam.WarpbeamError, match="no element along the indexed axis"):
        mod.run({"x0": x[:0]})


def test_an_index_and_a_slice_of_the_same_row_keep_the_product() -> None:
    """What two readers ask for in two ways is computed as a whole: neither is known to be the other's."""
    t = relay.Any()

    def both(x: Any) -> Any:
        y = MATMUL(x, weights(8, 5))
        return relay.Tuple([relay.take(y, relay.const(np.int64(1)), axis=0), some(y, 0, 1, 2)])

    before, after = narrowed(both, (t, 8))
    assert sizes(after, "nn.matmul") == [("any", 5)]
    check_values(before, after, (4, 8))


@pytest.mark.parametrize("name", PARTS)
def test_what_goes_by_rows(name: str) -> None:
    body, shape, kind, want = PARTS[name]
    before, after = narrowed(body, shape)
    assert sizes(before, kind) != sizes(after, kind) == [want]
    check_values(before, after, shape)


def pair(x: Any) -> Any:
    y = MATMUL(x, weights(16, 16))
    return relay.add(some(y, 0, 0, 2), some(y, 0, 2, 4))


WHOLE = {
    "columns": (lambda x: some(MATMUL(x, weights(16, 16)), 1, 0, 2), (12, 16)),
    "softmax over them": (lambda x: some(relay.nn.softmax(MATMUL(x, weights(16, 16)), axis=0), 0, 0, 2), (12, 16)),
    "summed": (lambda x: some(relay.cumsum(MATMUL(x, weights(16, 16)), axis=0), 0, 0, 2), (12, 16)),
    "more than half": (lambda x: some(MATMUL(x, weights(16, 16)), 0, 0, 7), (12, 16)),
    "every other one": (
        lambda x: relay.strided_slice(MATMUL(x, weights(16, 16)), begin=[0], end=[12], strides=[3], axes=[0]),
        (12, 16),
    ),
    "both parts": (pair, (12, 16)),
    "no product": (lambda x: some(relay.tanh(x), 0, 0, 2), (12, 16)),
    "heads apart": (
        lambda x: some(relay.reshape(MATMUL(x, weights(16, 16)), (3, 4, 16)), 1, 0, 1), (12, 16),
    ),
    "an output": (
        lambda x: relay.Tuple([some(y := MATMUL(x, weights(16, 16)), 0, 0, 2), y]), (12, 16),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_stays(name: str) -> None:
    body, shape = WHOLE[name]
    before, after = narrowed(body, shape)
    assert before["main"] is after["main"]


def test_operands_that_may_or_may_not_be_repeated_stay() -> None:
    """Sizes found at run time are taken to be equal where operands need it; nothing says which rows are read then."""
    n, m = dims.counted("n"), dims.counted("m")
    before, after = narrowed(lambda x, y: some(relay.add(MATMUL(x, weights(16, 8)), y), 0, 0, 1), (n, 16), (m, 8))
    assert before["main"] is after["main"] and sizes(before, "nn.matmul") == [("n", 8)]


def test_what_is_written_with_results_of_a_product_stays_with_it() -> None:
    """The sum over columns of one product is read in part; the activation stays with the product, sliced after it."""
    first = weights(16, 16)

    def make(x: Any) -> Any:
        y = relay.nn.relu(relay.nn.conv1d(x, relay.const(np.ones((1, 8, 16), np.float32)), data_layout="NWC",
                                          kernel_layout="WIO"))  # fmt: skip
        return some(MATMUL(relay.reshape(y, (12, 16)), first), 0, 0, 1)

    before, after = narrowed(make, (1, 12, 8))
    assert sizes(after, "nn.matmul") == [(1, 16)]
    assert sizes(after, "nn.relu") == sizes(before, "nn.relu") == [(1, 12, 16)]
    check_values(before, after, (1, 12, 8))


@pytest.mark.parametrize("seed", range(20))
def test_random_chains(seed: int) -> None:
    """Chains and joins of what goes by rows and what does not, sliced here and there."""
    rng = np.random.default_rng(seed)
    x = relay.var("x0", shape=(4, 6, 8), dtype="float32")
    values = [x]
    makers = [
        lambda v: relay.tanh(v), lambda v: MATMUL(v, weights(8, 8)), lambda v: relay.nn.softmax(v, axis=-1),
        lambda v: relay.add(v, values[0]), lambda v: relay.cumsum(v, axis=1),
        lambda v: relay.multiply(v, weights(6, 1)),
        lambda v: relay.transpose(relay.transpose(v, axes=(1, 0, 2)), axes=(1, 0, 2)),
        lambda v: relay.reshape(MATMUL(relay.reshape(v, (24, 8)), weights(8, 8)), (4, 6, 8)),
        lambda v: relay.add(v, relay.mean(v, axis=[1], keepdims=True)),
    ]  # fmt: skip
    for _ in range(10):
        v = values[int(rng.integers(max(0, len(values) - 3), len(values)))]
        values.append(makers[int(rng.integers(len(makers)))](v))
    axis = int(rng.integers(0, 2))
    begin = int(rng.integers(0, 3))
    out = [some(values[-1], axis, begin, begin + 1), some(values[-2], axis, 0, 2)]
    mod = passes.InferType()(relay.IRModule.from_expr(relay.Function([x], relay.Tuple(out))))
    check_values(mod, passes.NarrowRows()(mod), (4, 6, 8))
    assert sizes(mod, "strided_slice")
