"""Several reductions over the same axes, wherever these stand: in vectors, and right."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tolerance import close

from warpbeam import relay
from warpbeam.driver.api import compile_with_report

RNG = np.random.default_rng(0)


def run(body, x: np.ndarray, threads: int = 1, shape: tuple = ()) -> tuple[np.ndarray, list[str]]:
    given = relay.var("x", shape=shape or x.shape, dtype=str(x.dtype))
    mod = relay.IRModule.from_expr(relay.Function([given], body(given)))
    module, report = compile_with_report(mod, cache=False)
    module.num_threads = threads
    (got,) = module.run({"x": x}).values()
    return np.asarray(got), [row["sketch"] for row in report.rows]


def logsumexp(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    x = x.astype(np.float64)
    with np.errstate(all="ignore"):
        top = x.max(axis, keepdims=True, initial=-np.inf)
        top = np.where(np.isfinite(top), top, 0)
        out = np.log(np.exp(x - top).sum(axis, keepdims=True)) + top
    return out if keepdims else out.squeeze(axis)


SHAPES = [
    ((33, 70), (0,), "columns"),
    ((5, 9, 48), (1,), "columns"),
    ((5, 9, 6, 40), (0, 2), "columns"),
    ((3, 7, 37), (0, 2), "rows"),
    ((4, 3, 5, 6, 33), (0, 2, 4), "rows"),
    ((4, 6, 3), (0, 2), "rows"),
    ((3, 5, 70), (2,), "rows"),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(("shape", "axis", "sketch"), SHAPES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_statistics(shape: tuple, axis: tuple, sketch: str, keepdims: bool, dtype: str) -> None:
    x = (RNG.standard_normal(shape) * 4).astype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    terms = int(np.prod([shape[a] for a in axis]))
    wants = {
        "logsumexp": logsumexp(x, axis, keepdims),
        "variance": x.astype(np.float64).var(axis, keepdims=keepdims),
    }
    for name, want in wants.items():
        got, sketches = run(lambda v, name=name: getattr(relay, name)(v, axis=axis, keepdims=keepdims), x)
        assert sketches == [sketch]
        close(got, want, terms=terms)


@pytest.mark.parametrize(("shape", "axis", "sketch"), SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_work_for_each_element(shape: tuple, axis: tuple, sketch: str, threads: int) -> None:
    """What becomes of each element is stored where it stood, whatever the order in which rows are taken."""
    x = RNG.standard_normal(shape).astype(np.float32)
    wide = x.astype(np.float64)
    e = np.exp(wide - wide.max(axis, keepdims=True))
    centred = wide - wide.mean(axis, keepdims=True)
    wants = {
        "softmax": e / e.sum(axis, keepdims=True),
        "log_softmax": wide - logsumexp(x, axis, True),
        "l2_normalize": wide / np.sqrt((wide * wide).sum(axis, keepdims=True)),
        "mean_variance_norm": centred / centred.std(axis, keepdims=True),
    }
    terms = int(np.prod([shape[a] for a in axis]))
    for name, want in wants.items():
        attrs = {"eps": 1e-12} if name == "l2_normalize" else {}
        got, sketches = run(
            lambda v, name=name, attrs=attrs: getattr(relay.nn, name)(v, axis=axis, **attrs), x, threads
        )
        assert sketches == [sketch]
        close(got, want, terms=terms, scale=np.abs(want).max() * 4)


@pytest.mark.parametrize(("shape", "axis"), [((6, 40), (0,)), ((3, 4, 20), (0, 2)), ((3, 4, 20), (1,))])
def test_what_is_not_finite(shape: tuple, axis: tuple) -> None:
    x = np.zeros(shape, np.float32)
    own = np.moveaxis(x, axis, range(len(axis))).reshape(-1, x.size // np.prod([shape[a] for a in axis]))
    own[:, 0], own[1, 1], own[0, 2], own[0, 3] = -np.inf, np.nan, np.inf, -np.inf
    x = own.reshape([shape[a] for a in axis] + [n for a, n in enumerate(shape) if a not in axis])
    x = np.ascontiguousarray(np.moveaxis(x, range(len(axis)), axis))
    got, _ = run(lambda v: relay.logsumexp(v, axis=axis), x)
    np.testing.assert_allclose(got, logsumexp(x, axis, False), rtol=1e-6)


@pytest.mark.parametrize("open_axis", [0, 1, 2])
@pytest.mark.parametrize("axis", [(0,), (1,), (0, 2), (2,)])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_open_sizes(open_axis: int, axis: tuple, size: int) -> None:
    sizes = [4, 6, 21]
    shape = tuple(relay.Any() if k == open_axis else n for k, n in enumerate(sizes))
    sizes[open_axis] = size
    x = RNG.standard_normal(sizes).astype(np.float32)
    terms = int(np.prod([sizes[a] for a in axis]))
    wide = x.astype(np.float64)
    for name, want in (("logsumexp", logsumexp(x, axis, False)), ("variance", wide.var(axis))):
        got, _ = run(lambda v, name=name: getattr(relay, name)(v, axis=axis), x, shape=shape)
        close(got, want, terms=terms)


def test_nothing() -> None:
    """Of no elements, and no rows."""
    none = np.zeros((0, 3, 5), np.float32)
    got, _ = run(lambda v: relay.logsumexp(v, axis=(0, 2)), none)
    np.testing.assert_array_equal(got, np.full(3, -np.inf))
    assert run(lambda v: relay.logsumexp(v, axis=(1,)), none)[0].shape == (0, 5)
