"""Fourier transforms against NumPy in double precision.

Bounds are on the Euclidean norm of the error relative to that of the result, in units of u = 2^-24. The fast transform
has at most 7·log2(n) (Higham, Accuracy and Stability, theorem 24.2); that needs every rounding at its worst and in the
same direction, so 2·log2(n) is asked. Direct sums have at most n + 2; 2·sqrt(n) is asked, as of random roundings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from models import model, run

from warpbeam.frontend.onnx.fourier import circle, factors


def test_factors_have_the_length_as_product() -> None:
    assert factors(360) == [2, 4, 3, 3, 5]
    assert factors(17) is None
    for n in range(1, 400):
        found = factors(n)
        assert found is None or int(np.prod(found)) == n


def spectrum(x: np.ndarray, length: int, inverse: int = 0, onesided: int = 0) -> np.ndarray:
    """The complex result of a DFT node on data of shape (batch, size, 1 or 2)."""
    attrs = {"axis": 1, "inverse": inverse, "onesided": onesided}
    constants = {"n": np.array(length, np.int64)}
    y = np.asarray(run(model([("DFT", "x n", "y", attrs)], [("x", list(x.shape))], [("y", None)], constants), x))
    return y[..., 0].astype(np.float64) + 1j * y[..., 1]


def data(size: int, parts: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((2, size, parts)).astype(np.float32)


def check(x: np.ndarray, length: int, inverse: int = 0, onesided: int = 0) -> np.ndarray:
    y = spectrum(x, length, inverse, onesided)
    c = x.astype(np.float64) @ ([1, 1j] if x.shape[-1] == 2 else [1])
    want = np.fft.ifft(c, length, axis=1) if inverse else np.fft.fft(c, length, axis=1)
    want = want[:, : length // 2 + 1] if onesided else want
    fast = factors(length) is not None and (x.shape[-1] == 2 or length > 128)
    roundings = 2 * max(1, np.log2(length)) if fast else 2 * np.sqrt(length)
    error = np.linalg.norm(y - want, axis=1) / np.linalg.norm(want, axis=1)
    assert error.max() <= 2.0**-24 * roundings, length
    return y


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
def test_lengths_and_sizes(length: int, size: int, inverse: int, onesided: int, parts: int) -> None:
    check(data(size, parts), length, inverse, onesided)


@pytest.mark.parametrize(
    "first,last", [(1, 17), pytest.param(17, 201, marks=pytest.mark.slow)], ids=["short", "up to 200"]
)
def test_every_length(first: int, last: int) -> None:
    """Complex data forward and back; real data forward, whose spectrum is conjugate to its mirror to the bit."""
    for n in range(first, last):
        check(data(n, 2), n)
        check(data(n, 2), n, inverse=1)
        mirrored(check(data(n, 1), n))


def mirrored(y: np.ndarray) -> None:
    n = y.shape[1]
    assert np.array_equal(y, np.conj(y[:, -np.arange(n) % n]))
    assert not y[:, 0].imag.any() and (n % 2 or not y[:, n // 2].imag.any())


@pytest.mark.parametrize("length", [129, 130, 144, 147, 256])
def test_long_spectra_of_real_data_are_mirrored_to_the_bit(length: int) -> None:
    mirrored(check(data(length, 1), length))


def test_circle_is_exact_where_it_can_be() -> None:
    cos, sin = circle(np.arange(-24, 48), 24)
    assert list(cos[::6]) == [1, 0, -1, 0] * 3 and list(sin[::6]) == [0, 1, 0, -1] * 3
    for n in (3, 10, 24, 56):
        j = np.arange(n)
        (c, s), (cm, sm) = circle(j, n), circle(-j, n)
        assert np.array_equal(c, cm) and np.array_equal(s, -sm)
        rounded = 2**-53 * 8 * np.pi  # of the argument of the exponential, up to 2·pi with three roundings
        np.testing.assert_allclose(c + 1j * s, np.exp(2j * np.pi * j / n), rtol=0, atol=rounded)
