"""Suppression of overlapping boxes: only boxes above the threshold are queued, results are those of a full sort."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import op, relay
from warpbeam.op.nms import LANES, reference
from warpbeam.relay.types import TensorType
from warpbeam.tir import interp
from warpbeam.tir.expr import SizeVar

F32 = np.float32


def boxes_of(n: int, batch: int = 2, dtype: Any = F32) -> np.ndarray:
    rng = np.random.default_rng(n)
    low, size = rng.random((batch, n, 2)) * 20, rng.random((batch, n, 2)) * 6
    return np.concatenate([low, low + size], 2).astype(dtype)


def scores_of(kind: str, n: int, batch: int = 2, dtype: Any = F32) -> np.ndarray:
    rng = np.random.default_rng(n + 1)
    x = rng.random((batch, 3, n))
    if kind == "ties":
        x = rng.integers(-2, 3, (batch, 3, n)) / 4 * np.where(rng.random((batch, 3, n)) < 0.5, 1.0, -1.0)
    elif kind == "special":
        x[rng.random(x.shape) < 0.2] = np.nan
        x[rng.random(x.shape) < 0.1] = np.inf
        x[0, 1] = np.nan
    elif kind == "few":
        x = x**30
    return x.astype(dtype)


def wanted(boxes: Any, scores: Any, most: int, overlap: float, least: float, center: bool = False) -> np.ndarray:
    return np.array(reference(boxes, scores, most, overlap, least, center), np.int64).reshape(-1, 3)


def function(shapes: list[Any], dtype: str = "float32", **attrs: Any) -> Any:
    kinds = [(s, dtype) for s in shapes] + [((1,), "int64"), ((1,), dtype), ((1,), dtype)]
    variables = [relay.var(f"v{i}", shape=s, dtype=d) for i, (s, d) in enumerate(kinds)]
    return relay.IRModule.from_expr(relay.Function(variables, op.get("vision.nms")(*variables, **attrs)))


def run(model: Any, boxes: Any, scores: Any, most: int, overlap: float, least: float) -> np.ndarray:
    limits = np.array([most]), np.array([overlap], boxes.dtype), np.array([least], boxes.dtype)
    feeds = {f"v{i}": v for i, v in enumerate((boxes, scores, *limits))}
    rows, count = (np.asarray(v) for v in model.run(feeds).values())
    assert not rows[int(count) :].any()
    return rows[: int(count)]  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["random", "ties", "special", "few"])
@pytest.mark.parametrize("center", [False, True])
def test_selection(kind: str, center: bool) -> None:
    for n in (1, 31, 32, 100):
        boxes, scores = boxes_of(n), scores_of(kind, n)
        model = warpbeam.compile(function([boxes.shape, scores.shape], center=center), cache=False)
        for limits in ((5, 0.1, 0.2), (0, 0.5, 0.0), (-1, 0.5, 0.0), (99, 0.0, -np.inf), (3 * LANES, 0.5, 0.5)):
            want = wanted(boxes, scores, *limits, center)
            np.testing.assert_array_equal(run(model, boxes, scores, *limits), want)
        assert not run(model, boxes, scores, 9, 0.5, np.nan).size
        assert not run(model, boxes, scores, 9, 0.5, np.inf).size


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_types(dtype: str) -> None:
    boxes, scores = np.round(boxes_of(70, dtype=dtype)), scores_of("random", 70, dtype=dtype)
    model = warpbeam.compile(function([boxes.shape, scores.shape], dtype), cache=False)
    np.testing.assert_array_equal(run(model, boxes, scores, 40, 0.25, 0.25), wanted(boxes, scores, 40, 0.25, 0.25))


def test_equal_boxes_and_zeros_of_both_signs_come_by_index() -> None:
    scores = np.where(np.arange(50) % 3 == 0, F32(-0.0), F32(0.0)).reshape(1, 1, 50)
    boxes = (np.arange(50, dtype=F32)[:, None] * 3 + np.array([0, 0, 1, 1], F32))[None]
    model = warpbeam.compile(function([boxes.shape, scores.shape]), cache=False)
    np.testing.assert_array_equal(run(model, boxes, scores, 50, 0.5, -1.0)[:, 2], np.arange(50))
    boxes[0, 7] = boxes[0, 3]
    np.testing.assert_array_equal(run(model, boxes, scores, 50, 0.5, -1.0)[:, 2], np.delete(np.arange(50), 7))


def test_open_numbers_and_a_bound() -> None:
    n, b = SizeVar("n"), SizeVar("b")
    model = warpbeam.compile(function([(b, n, 4), (b, 3, n)], at_most=20), cache=False)
    for size in (1, 33, 200):
        boxes, scores = boxes_of(size, 3), scores_of("random", size, 3)
        for most in (7, 20, 50):
            np.testing.assert_array_equal(
                run(model, boxes, scores, most, 0.3, 0.2), wanted(boxes, scores, min(most, 20), 0.3, 0.2)
            )


def test_interpreted() -> None:
    boxes, scores = boxes_of(40, 1), scores_of("special", 40, 1)
    o = op.get("vision.nms")
    limits = np.array([9]), np.array([0.3], F32), np.array([0.2], F32)
    types = [TensorType(v.shape, str(v.dtype)) for v in (boxes, scores, *limits)]
    attrs = o.attrs({"at_most": 9})
    found = [np.ones((27, 3), np.int64), np.zeros((), np.int64)]
    interp.run(o.compute_prim(attrs, types, o.infer(types, attrs)), boxes, scores, *limits, *found)
    want = wanted(boxes, scores, 9, 0.3, 0.2)
    np.testing.assert_array_equal(found[0][: len(want)], want)
    assert found[1] == len(want) and not found[0][len(want) :].any()
