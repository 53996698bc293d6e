"""Random operators (distribution, seeds), optimisers' steps and n-gram counts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parent))

from models import INT64, model, node, value
from test_sequences import onnxruntime

import warpbeam
from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import ImportModelError
from warpbeam.op.random_ops import philox

RNG = np.random.default_rng(4)
TRAINING = "ai.onnx.preview.training"
BOOL = TensorProto.BOOL


def compiled(proto: Any, **given: np.ndarray) -> list[np.ndarray]:
    return list(warpbeam.compile(proto, cache=False).run(given).values())


def test_philox_gives_the_published_words() -> None:
    """The known answers of the authors' own library for ten rounds."""
    full = np.full((4, 1), 0xFFFFFFFF)
    zero = [int(w[0]) for w in philox(np.zeros((4, 1)), 0)]
    assert zero == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert [int(w[0]) for w in philox(full, (1 << 64) - 1)] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def uniformity(u: np.ndarray) -> float:
    """Largest distance of the distribution from the uniform one, times the root of the count (Kolmogorov-Smirnov)."""
    s = np.sort(u.astype(np.float64).reshape(-1))
    place = np.arange(s.size) / s.size
    return float(max(np.abs(s - place).max(), np.abs(s - place - 1 / s.size).max()) * np.sqrt(s.size))


@pytest.mark.parametrize("dtype", [1, 11, 10])
def test_uniform(dtype: int) -> None:
    attrs = {"low": -2.0, "high": 3.0, "seed": 5.0, "shape": [200, 100], "dtype": dtype}
    (y,) = compiled(model([("RandomUniform", "", "y", attrs)], [], [("y", [200, 100], dtype)]))
    assert y.dtype == helper.tensor_dtype_to_np_dtype(dtype) and y.min() >= -2 and y.max() <= 3
    assert uniformity((y + 2) / 5) < 2.2  # of true uniform numbers, 1 in 8,000 samples is further away
    flat = y.astype(np.float64).reshape(-1)
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 4.5 / np.sqrt(flat.size)


@pytest.mark.parametrize("dtype", [1, 11])
def test_normal(dtype: int) -> None:
    from math import erf

    attrs = {"mean": 1.5, "scale": 2.0, "seed": 3.0, "dtype": dtype}
    (y,) = compiled(model([("RandomNormalLike", "x", "y", attrs)], [("x", [20_000])], [("y", [20_000], dtype)]),
                    x=np.zeros(20_000, np.float32))  # fmt: skip
    z = (y.astype(np.float64) - 1.5) / 2
    assert uniformity(np.array([0.5 * (1 + erf(v / 2**0.5)) for v in z])) < 2.2
    assert abs(np.mean(z**4) - 3) < 5 * np.sqrt(96 / z.size)  # five standard errors of the fourth moment


def test_seeds() -> None:
    """Equal seeds give equal numbers, other seeds and other nodes others; each run gives the same."""
    made = [("RandomUniform", "", f"y{k}", {"shape": [64], **({"seed": s} if s is not None else {})})
            for k, s in enumerate([1.0, 1.0, 2.0, None, None])]  # fmt: skip
    module = warpbeam.compile(model(made, [], [(f"y{k}", [64]) for k in range(5)]), cache=False)
    y = list(module.run({}).values())
    assert np.array_equal(y[0], y[1])
    for a in range(1, 5):
        for b in range(a + 1, 5):
            assert not np.array_equal(y[a], y[b])
    for first, second in zip(y, module.run({}).values(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_numbers_are_made_at_run_time() -> None:
    big = model([("RandomUniform", "", "y", {"shape": [1 << 16]})], [], [("y", [1 << 16])])
    module = warpbeam.compile(big, cache=False)
    assert len(module.artifact.data("constants") or b"") < 1024


@pytest.mark.parametrize("kind", [1, 11])
def test_bernoulli(kind: int) -> None:
    proto = model([("Bernoulli", "p", "y", {"seed": 7.0, "dtype": INT64})], [("p", [4, 5000], kind)],
                  [("y", [4, 5000], INT64)])  # fmt: skip
    p = np.repeat([[0.0], [0.25], [0.7], [1.0]], 5000, 1).astype(helper.tensor_dtype_to_np_dtype(kind))
    (y,) = compiled(proto, p=p)
    assert y.dtype == np.int64 and not y[0].any() and y[3].all()
    np.testing.assert_allclose(y.mean(1), [0, 0.25, 0.7, 1], atol=4.5 * np.sqrt(0.25 / 5000))


def test_multinomial() -> None:
    proto = model([("Multinomial", "x", "y", {"sample_size": 8000, "seed": 1.0})], [("x", [2, 4])],
                  [("y", [2, 8000], TensorProto.INT32)])  # fmt: skip
    p = np.array([[0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 0.0, 0.5]])
    with np.errstate(divide="ignore"):
        (y,) = compiled(proto, x=(np.log(p) + 3).astype(np.float32))
    assert y.dtype == np.int32 and y.shape == (2, 8000)
    share = np.stack([(y == k).mean(1) for k in range(4)], 1)
    np.testing.assert_allclose(share, p, atol=4.5 * np.sqrt(0.25 / 8000))
    assert not share[1, [0, 2]].any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_dropout(training: bool, known: bool) -> None:
    ins = [("x", [100, 200]), ("r", [])]
    held = {"t": np.array(training)} if known else None
    proto = model([("Dropout", "x r t", "y m", {"seed": 9})], ins if known else [*ins, ("t", [], BOOL)],
                  [("y", [100, 200]), ("m", [100, 200], BOOL)], held)  # fmt: skip
    x = RNG.standard_normal((100, 200)).astype(np.float32)
    more = {} if known else {"t": np.array(training)}
    y, mask = compiled(proto, x=x, r=np.array(0.25, np.float32), **more)
    if not training:
        assert mask.all() and np.array_equal(x, y)
        return
    assert abs(mask.mean() - 0.75) < 4.5 * np.sqrt(0.25 / x.size)
    np.testing.assert_allclose(y, np.where(mask, x / 0.75, 0), rtol=1e-6)


# -------------------------------------------------------------------------------------------------------- optimisers


def optimiser(kind: str, states: int, attrs: dict[str, Any], step: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(results, operands after rate and step) of one step on two tensors of different shapes."""
    shapes = [(3,), (2, 4)]
    names = [f"{part}{k}" for part in "xgvh"[: 2 + states] for k in range(2)]
    outs = [f"{part}{k}" for part in "xvh"[: 1 + states] for k in range(2)]
    arrays = [np.abs(RNG.standard_normal(shapes[k % 2])).astype(np.float32) for k in range(len(names))]
    op = helper.make_node(kind, ["r", "t", *names], [f"{o}_new" for o in outs], domain=TRAINING, **attrs)
    ins = [value("r", []), value("t", [], INT64), *[value(n, a.shape) for n, a in zip(names, arrays, strict=True)]]
    graph = helper.make_graph([op], "g", ins, [value(f"{o}_new", None) for o in outs])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid(TRAINING, 1)], ir_version=8)
    given = {"r": np.array(0.1, np.float32), "t": np.array(step), **dict(zip(names, arrays, strict=True))}
    return compiled(proto, **given), arrays


@pytest.mark.parametrize("step", [0, 3])
def test_adagrad(step: int) -> None:
    attrs = {"norm_coefficient": 0.01, "decay_factor": 0.1, "epsilon": 1e-3}
    got, a = optimiser("Adagrad", 1, attrs, step)
    for k in range(2):
        g = 0.01 * a[k] + a[2 + k]
        h = a[4 + k] + g * g
        np.testing.assert_allclose(got[2 + k], h, rtol=1e-5)
        np.testing.assert_allclose(got[k], a[k] - 0.1 / (1 + step * 0.1) * g / (np.sqrt(h) + 1e-3), rtol=1e-5)


@pytest.mark.parametrize("step", [0, 3])
def test_adam(step: int) -> None:
    attrs = {"norm_coefficient": 0.01, "alpha": 0.8, "beta": 0.9, "epsilon": 1e-3, "norm_coefficient_post": 0.02}
    got, a = optimiser("Adam", 2, attrs, step)
    for k in range(2):
        g = 0.01 * a[k] + a[2 + k]
        v, h = 0.8 * a[4 + k] + 0.2 * g, 0.9 * a[6 + k] + 0.1 * g * g
        rate = 0.1 * np.sqrt(1 - 0.9**step) / (1 - 0.8**step) if step else 0.1
        for have, want in zip(got[k::2], [0.98 * (a[k] - rate * v / (np.sqrt(h) + 1e-3)), v, h], strict=True):
            np.testing.assert_allclose(have, want, rtol=2e-5)


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("mode", ["standard", "nesterov"])
def test_momentum(step: int, mode: str) -> None:
    got, a = optimiser("Momentum", 1, {"norm_coefficient": 0.01, "alpha": 0.9, "beta": 0.5, "mode": mode}, step)
    for k in range(2):
        g = 0.01 * a[k] + a[2 + k]
        v = 0.9 * a[4 + k] + (0.5 if step else 1.0) * g
        np.testing.assert_allclose(got[2 + k], v, rtol=1e-5)
        np.testing.assert_allclose(got[k], a[k] - 0.1 * (v if mode == "standard" else g + 0.9 * v), rtol=1e-5)


def test_gradient() -> None:
    """Derivatives of the sum of y at other values of w than the graph has; its nodes stand in the wrong order."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"]),
        helper.make_node("Gradient", ["x", "v"], ["dx", "dw"], domain=TRAINING, xs=["x", "w"], y="y"),
    ]  # fmt: skip
    ins = [value("x", [2, 3]), value("w", [3, 4]), value("v", [3, 4])]
    graph = helper.make_graph(nodes[::-1], "g", ins, [value("dx", [2, 3]), value("dw", [3, 4])])
    sets = [helper.make_opsetid("", 17), helper.make_opsetid(TRAINING, 1)]
    proto = helper.make_model(graph, opset_imports=sets, ir_version=8)
    x, w, v = (RNG.standard_normal(s).astype(np.float32) for s in ((2, 3), (3, 4), (3, 4)))
    dx, dw = compiled(proto, x=x, w=w, v=v)
    slope = 1 - np.tanh(x @ v) ** 2
    np.testing.assert_allclose(dx, slope @ v.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(dw, x.T @ slope, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ n-grams


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("texts", [False, True])
def test_tfidf(mode: str, skip: int, texts: bool) -> None:
    numbers = [2, 3, 5, 4, 5, 6, 7, 8, 6, 7, 2, 2, 2, 3, 5]
    attrs = {
        "mode": mode, "min_gram_length": 1, "max_gram_length": 3, "max_skip_count": skip,
        "ngram_counts": [0, 4, 12], "ngram_indexes": [0, 1, 2, 6, 4, 5, 3, 8, 7],
        "weights": [float(k) for k in range(9)],
    }  # fmt: skip
    x = RNG.integers(2, 9, (4, 30))
    word = np.vectorize(lambda v: f"w{v}", otypes=[object])
    attrs |= {"pool_strings": list(word(np.array(numbers)))} if texts else {"pool_int64s": numbers}
    data = word(x) if texts else x
    kind = TensorProto.STRING if texts else INT64
    proto = model([("TfIdfVectorizer", "x", "y", attrs)], [("x", [4, 30], kind)], [("y", [4, 9])])
    (got,) = compiled(proto, x=data)
    np.testing.assert_array_equal(got, onnxruntime(proto, {"x": data})[0])


def test_tfidf_refuses_pools_that_do_not_fit() -> None:
    attrs = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 0, "ngram_counts": [0, 2],
             "ngram_indexes": [0, 1, 2], "pool_int64s": [1, 2, 3]}  # fmt: skip
    with pytest.raises(ImportModelError, match="no 2-grams"):
        import_model(model([node("TfIdfVectorizer", "x", "y", attrs)], [("x", [4], INT64)], [("y", [3])]))


def test_dropout_with_a_seed_keeps_what_the_reference_keeps() -> None:
    held = {"r": np.float32(0.75), "t": np.array(True)}
    nodes = [("Dropout", "x r t", "y m", {"seed": 11})]
    proto = model(nodes, [("x", ["N", 300])], [("y", None), ("m", None, BOOL)], held)
    x = np.random.default_rng(2).standard_normal((5, 300)).astype(np.float32)
    kept = np.random.RandomState(11).uniform(0, 1.0, x.shape) >= 0.75
    y, mask = compiled(proto, x=x)
    np.testing.assert_array_equal(mask, kept)
    np.testing.assert_array_equal(y, np.where(kept, x * 4, 0).astype(np.float32))
