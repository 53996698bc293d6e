"""Long Fourier transforms against NumPy in double precision; error bound u times roundings times the norm."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from models import model, run

from warpbeam.frontend.onnx.fourier import factors


def test_factors_have_the_length_as_product() -> None:
    assert factors(360) == [2, 4, 3, 3, 5]
    assert factors(17) is None
    for n in range(1, 400):
        found = factors(n)
        assert found is None or int(np.prod(found)) == n


@pytest.mark.parametrize(
    "length,size,inverse,onesided,parts",
    [
        (256, 256, 0, 0, 2),
        (250, 250, 1, 0, 2),
        (147, 147, 0, 1, 1),
        (144, 144, 0, 0, 1),
        (143, 150, 0, 0, 2),
        (200, 180, 1, 0, 2),
        (131, 131, 0, 0, 2),  # a prime: a matrix product
    ],
)
def test_dft_equals_numpy(length: int, size: int, inverse: int, onesided: int, parts: int) -> None:
    attrs = {"axis": 1, "inverse": inverse, "onesided": onesided}
    x = np.random.default_rng(0).standard_normal((2, size, parts)).astype(np.float32)
    dft_length = np.array(length, np.int64)
    m = model([("DFT", "x n", "y", attrs)], [("x", list(x.shape))], [("y", None)], {"n": dft_length}, opset=17)
    y = np.asarray(run(m, x))
    c = x[..., 0].astype(np.float64) + (1j * x[..., 1] if parts == 2 else 0)
    want = np.fft.ifft(c, length, axis=1) if inverse else np.fft.fft(c, length, axis=1)
    want = want[:, : length // 2 + 1] if onesided else want
    roundings = length if factors(length) is None else 4 * np.log2(length)
    bound = 2.0**-24 * roundings * np.linalg.norm(want, axis=1).max()
    assert np.abs(y[..., 0] + 1j * y[..., 1] - want).max() <= bound
