"""What random and damaged models have found, minimised; each at every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest

import warpbeam
from warpbeam.ir.diagnostics import WarpbeamError

LEVELS = (0, 1, 2, 3)


def parsed(text: str) -> Any:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')


@pytest.mark.parametrize("level", LEVELS)
def test_a_bias_whose_size_is_open_is_taken_to_fit(level: int) -> None:
    """The bias became an operand of a sum at level 3, and the sum's type rule wanted to know its size."""
    model = parsed("g (float[1, 3, 4] x, float[3, 3, 1] w, float[n] b) => (float[1, 3, 4] y) { y = Conv(x, w, b) }")
    module = warpbeam.compile(model, opt_level=level, workers=1, cache=False)
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((1, 3, 4), (3, 3, 1), (3,)))
    want = np.einsum("oi,nix->nox", w[..., 0], x) + b[None, :, None]
    np.testing.assert_allclose(module.run({"x": x, "w": w, "b": b})["y"], want, rtol=0, atol=1e-5)
    with pytest.raises(WarpbeamError):
        module.run({"x": x, "w": w, "b": np.zeros(1, np.float32)})


@pytest.mark.parametrize("level", LEVELS)
def test_parameters_of_a_batch_norm_whose_sizes_are_open_are_taken_to_fit(level: int) -> None:
    model = parsed(
        "g (float[2, 3, 4] x, float[n] s, float[3] b, float[m] u, float[3] v) => (float[2, 3, 4] y)"
        "{ y = BatchNormalization(x, s, b, u, v) }"
    )
    module = warpbeam.compile(model, opt_level=level, workers=1, cache=False)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    s, b, u, v = (rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))
    along = (slice(None), None)
    want = (x - u[along]) / np.sqrt(v[along] + 1e-5) * s[along] + b[along]
    np.testing.assert_allclose(module.run({"x": x, "s": s, "b": b, "u": u, "v": v})["y"], want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_a_slice_of_at_most_one_row_is_repeated(level: int) -> None:
    """The extent, (min(3, n) + 1 - min(2, n)) // 2, was taken to be n; it is 1 from n = 3 on."""
    model = parsed(
        "g (float[n, 2] x) => (float[n, 2] y) <int64[1] b = {2}, int64[1] e = {3}, int64[1] a = {0}, int64[1] s = {2}>"
        "{ r = Slice(x, b, e, a, s)  y = Mul(x, r) }"
    )
    module = warpbeam.compile(model, opt_level=level, workers=1, cache=False)
    for n in (3, 7):
        x = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
        np.testing.assert_array_equal(module.run({"x": x})["y"], x * x[2:3])
    with pytest.raises(WarpbeamError):
        module.run({"x": np.ones((2, 2), np.float32)})
