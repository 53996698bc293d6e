"""Running sums and products along an axis that is not the innermost one: neighbours at once."""

from __future__ import annotations

import numpy as np
import pytest

import warpbeam
from warpbeam import relay


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((9, 128), 0), ((5, 3072), 0), ((2, 7, 320), 1), ((3, 5, 12), 1), ((3, 5, 12), 0), ((4, 7), 0), ((2, 9), 1)],
)
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int64", "float16"])
def test_scan(name: str, shape: tuple[int, ...], axis: int, exclusive: bool, reverse: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(1, 3, shape).astype(dtype)  # exact in all types
    var = relay.var("x", shape=shape, dtype=dtype)
    body = getattr(relay, name)(var, axis=axis, exclusive=exclusive, reverse=reverse)
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([var], body)), cache=False)
    (got,) = module.run({"x": x}).values()
    v = np.flip(x, axis) if reverse else x
    want = getattr(np, name)(v.astype(np.float64), axis=axis)
    if exclusive:
        first = np.full_like(np.take(want, [0], axis), 0 if name == "cumsum" else 1)
        want = np.concatenate([first, np.delete(want, -1, axis)], axis)
    np.testing.assert_array_equal(np.asarray(got).astype(np.float64), np.flip(want, axis) if reverse else want)
