"""Sizes of inputs that are 0 at run time: what is computed of nothing, and what refuses to be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "frontend"))

from models import FLOAT, INT64, model

import warpbeam
from warpbeam import op
from warpbeam.relay.text import parse, to_text
from warpbeam.runtime import RunError
from warpbeam.tir.expr import SizeVar
from warpbeam.topi import dims

F32 = np.float32
RNG = np.random.default_rng(3)


def compiled(*args: Any, **kw: Any) -> Any:
    return warpbeam.compile(model(*args, **kw), cache=False)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(F32)


def attention() -> Any:
    """One step of attention with a cache: what came before, `p` rows, is joined with `t` new ones."""
    nodes = [
        ("Concat", "past x", "keys", {"axis": 1}), ("Transpose", "keys", "turned", {"perm": [0, 2, 1]}),
        ("MatMul", "x turned", "scores"), ("Softmax", "scores", "weights", {"axis": -1}),
        ("MatMul", "weights keys", "y"),
    ]  # fmt: skip
    ins = [("past", ["b", "p", 16]), ("x", ["b", "t", 16])]
    return compiled(nodes, ins, [("y", None), ("keys", None)])


def attended(past: np.ndarray, x: np.ndarray) -> np.ndarray:
    keys = np.concatenate([past, x], 1).astype(np.float64)
    scores = x @ keys.transpose(0, 2, 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    return weights / weights.sum(-1, keepdims=True) @ keys


@pytest.mark.parametrize("threads", [1, 2])
def test_a_cache_begins_empty(threads: int) -> None:
    module = attention()
    module.num_threads = threads
    for b, p, t in [(1, 0, 5), (2, 0, 1), (1, 3, 1), (2, 40, 7), (2, 3, 0), (0, 3, 2), (0, 0, 0)]:
        past, x = random(b, p, 16), random(b, t, 16)
        got = module.run({"past": past, "x": x})
        assert got["y"].shape == (b, t, 16) and got["keys"].shape == (b, p + t, 16)
        np.testing.assert_allclose(got["y"], attended(past, x), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(got["keys"], np.concatenate([past, x], 1))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_of_nothing(threads: int) -> None:
    weight = {"w": random(8, 3, 3, 3), "b": random(8), "m": random(8, 5)}
    nodes = [
        ("Conv", "x w b", "c", {"pads": [1] * 4}), ("Relu", "c", "r"), ("GlobalAveragePool", "r", "g"),
        ("Flatten", "g", "f"), ("MatMul", "f m", "l"), ("Softmax", "l", "y", {"axis": -1}),
    ]  # fmt: skip
    module = compiled(nodes, [("x", ["n", 3, "h", "w_"])], [("y", None)], weight)
    module.num_threads = threads
    assert module.run({"x": random(0, 3, 8, 9)})["y"].shape == (0, 5)
    np.testing.assert_allclose(module.run({"x": random(2, 3, 8, 9)})["y"].sum(-1), 1, rtol=1e-5)
    with pytest.raises(RunError, match=r"a window of 3 does not fit"):
        module.run({"x": random(2, 3, 0, 9)})


REDUCED = {
    "ReduceSum": 0.0,
    "ReduceProd": 1.0,
    "ReduceMax": -np.inf,
    "ReduceMin": np.inf,
    "ReduceMean": np.nan,
    "ReduceLogSumExp": -np.inf,
    "ReduceL2": 0.0,
}


@pytest.mark.parametrize("kind", REDUCED)
def test_reductions_of_nothing(kind: str) -> None:
    module = compiled([(kind, "x axes", "y")], [("x", ["n", 5])], [("y", None)], {"axes": np.array([0])}, opset=18)
    got = module.run({"x": random(0, 5)})["y"]
    np.testing.assert_array_equal(got, np.full((1, 5), REDUCED[kind], F32))
    assert np.isfinite(module.run({"x": np.abs(random(3, 5)) + 1})["y"]).all()


def test_the_mean_of_no_integers() -> None:
    mean = ("ReduceMean", "x axes", "y")
    module = compiled([mean], [("x", ["n", 5], INT64)], [("y", None, INT64)], {"axes": np.array([0])}, opset=18)
    assert (module.run({"x": np.zeros((0, 5), np.int64)})["y"] == 0).all()
    assert (module.run({"x": np.full((3, 5), 7)})["y"] == 7).all()


def test_one_of_nothing_is_refused() -> None:
    """The last element of several: with one there is a program without an open size, so one is asked for."""
    held = {"start": np.array([-1]), "end": np.array([1 << 60]), "axis": np.array([1])}
    last = ("Slice", "x start end axis", "y")
    module = compiled([last], [("x", [2, "n"])], [("y", None)], held)
    assert module.run({"x": random(2, 4)})["y"].shape == (2, 1)
    with pytest.raises(RunError, match="size n is at least 1: the model takes elements out of it"):
        module.run({"x": random(2, 0)})


def test_the_size_that_is_named_first_has_an_element() -> None:
    held = {"start": np.array([-1]), "end": np.array([1 << 60]), "axis": np.array([1])}
    nodes = [("Concat", "past x", "all", {"axis": 1}), ("Slice", "all start end axis", "y")]
    module = compiled(nodes, [("x", [2, "t"]), ("past", [2, "p"])], [("y", None)], held)
    x = random(2, 3)
    np.testing.assert_array_equal(module.run({"x": x, "past": random(2, 0)})["y"], x[:, -1:])
    with pytest.raises(RunError, match="size t is at least 1"):
        module.run({"x": random(2, 0), "past": random(2, 3)})


def gathered(*types: Any, **attributes: Any) -> Any:
    return compiled([("Gather", "x i", "y", attributes)], types, [("y", None)])


def test_an_index_into_nothing_is_refused() -> None:
    module = gathered(("x", ["n", 3]), ("i", ["k"], INT64))
    assert module.run({"x": random(0, 3), "i": np.zeros(0, np.int64)})["y"].shape == (0, 3)
    assert module.run({"x": random(2, 3), "i": np.array([1])})["y"].shape == (1, 3)
    with pytest.raises(RunError, match="no element along the indexed axis"):
        module.run({"x": random(0, 3), "i": np.array([0])})


def test_more_rows_of_indices_than_data_are_refused() -> None:
    """GatherElements reads row i of the data for row i of the indices."""
    gather = ("GatherElements", "x i", "y", {"axis": 1})
    module = compiled([gather], [("x", ["n", 4]), ("i", ["k", 2], INT64)], [("y", None)])
    for n, k in [(3, 3), (3, 2), (0, 0), (3, 0)]:
        x = random(n, 4)
        got = module.run({"x": x, "i": np.full((k, 2), 3)})["y"]
        np.testing.assert_array_equal(got, np.repeat(x[:k, 3:], 2, axis=1))
    for n, k in [(0, 2), (2, 3)]:
        with pytest.raises(RunError, match="indices have k along axis 0, the data only n"):
            module.run({"x": random(n, 4), "i": np.zeros((k, 2), np.int64)})


EMPTY = [
    ([("ArgMax", "x", "y", {"axis": 0})], ("n", 4), {}, "no element to point at"),
    ([("Resize", "x _ _ size", "y")], (1, 1, "n", 4), {"size": np.array([1, 1, 6, 6])}, "cannot go from 0 to 6"),
    ([("Pad", "x pads", "y", {"mode": "edge"})], ("n", 4), {"pads": np.array([1, 0, 0, 0])}, "needs an element"),
    (
        [("GridSample", "x grid", "y")], (1, 1, "n", 4), {"grid": np.zeros((1, 2, 2, 2), F32)},
        "a spatial dimension without elements",
    ),
    (
        [("RoiAlign", "x rois at", "y")], (1, 1, "n", 4),
        {"rois": np.array([[0, 0, 2, 2]], F32), "at": np.array([0])}, "data has no elements",
    ),
    (
        [("LSTM", "x w r", "_ y", {"hidden_size": 2})], ("n", 1, 4),
        {"w": np.zeros((1, 8, 4), F32), "r": np.zeros((1, 8, 2), F32)}, "a sequence has no step",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "shape", "held", "why"), EMPTY, ids=lambda v: v[0][0] if isinstance(v, list) else "")
def test_what_needs_an_element_says_so(nodes: Any, shape: Any, held: Any, why: str) -> None:
    nodes = [(k, i, o.replace("_ ", "rest "), *a) for k, i, o, *a in nodes]
    kind = INT64 if nodes[0][0] == "ArgMax" else FLOAT
    module = compiled(nodes, [("x", list(shape))], [("y", None, kind)], held)
    assert module.run({"x": random(*(3 if d == "n" else d for d in shape))})["y"].size
    with pytest.raises(RunError, match=why):
        module.run({"x": random(*(0 if d == "n" else d for d in shape))})


def test_what_is_known_of_sizes_is_told() -> None:
    n, k, plain = SizeVar("n"), SizeVar("k"), SizeVar("plain")
    dims.counted(k)
    assert dims.sign(n - 1) is None
    dims.take_positive([n])
    assert dims.sign(n - 1) == 1 and dims.is_positive(n) and not dims.is_positive(plain)
    assert dims.told_of([n, k, plain]) == ((k,), (n,))
    dims.tell(((), (plain,)))
    assert dims.sign(plain - 1) == 1


def test_positive_sizes_in_text() -> None:
    source = "dims ?n: int64 positive;\ndef @main(%x: Tensor[(?n, 3), float32]) {\n  abs(%x)\n}\n"
    mod = parse(source, op.get)
    (size,) = [d for d in mod["main"].params[0].ty.shape if not isinstance(d, int)]
    assert dims.is_positive(size)
    assert "dims ?n: int64 positive;" in to_text(mod)


def test_quotients_by_a_size_are_cut() -> None:
    """Integer Div rounds towards zero, also where the divisor is the size of an input and the quotient is negative."""
    held = {"c": np.array([7, -7, 100]), "begin": np.array([0]), "end": np.array([1]), "two": np.array([2])}
    nodes = [
        ("Shape", "x", "s"), ("Slice", "s begin end", "n"), ("Div", "c n", "y"),
        ("Neg", "n", "m"), ("Div", "m two", "z"),
    ]  # fmt: skip
    module = compiled(nodes, [("x", ["n", 3])], [("y", None, INT64), ("z", None, INT64)], held)
    for n in (1, 2, 5):
        got = module.run({"x": random(n, 3)})
        np.testing.assert_array_equal(got["y"], np.trunc(held["c"] / n))
        np.testing.assert_array_equal(got["z"], [-(n // 2)])
