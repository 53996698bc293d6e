"""What Winograd's tiles lose beside the plain sum, measured: float32 arithmetic on normal data, against float64."""

from __future__ import annotations

import numpy as np

from warpbeam.topi.nn.winograd import TAPS, matrices

_PLACES = 16  # tiles of data
_RESULTS = 16  # output channels


def measured_errors(taps: np.ndarray, tile: int, stride: int = 1) -> tuple[float, float]:
    """(error of F(tile x tile, 3 x 3), error of the plain sum): the largest of some thousand results of standard normal
    data, as a share of the largest result.

    taps: (3, 3, C, O), of which the first output channels are taken. All is rounded to float32 where the kernels round,
    weights once after their transform in float64, and sums run over one channel (and tap) after the other.
    """
    taps = np.asarray(taps[..., :_RESULTS], np.float32)
    bt, g, at = (np.asarray(m) for m in matrices(tile, stride))
    size = len(bt)
    reach = (tile - 1) * stride + TAPS
    rng = np.random.default_rng(0)
    data = np.zeros((_PLACES, size, size, taps.shape[2]), np.float32)
    data[:, :reach, :reach] = rng.standard_normal((_PLACES, reach, reach, taps.shape[2]), np.float32)
    exact = _plain(data.astype(np.float64), taps.astype(np.float64), tile, stride)
    weights = np.einsum("ir,rsco,js->ijco", g, taps.astype(np.float64), g).astype(np.float32)
    short = [np.asarray(m, np.float32) for m in (bt, at)]
    planes = np.einsum("js,tisc->tijc", short[0], np.einsum("ir,trsc->tisc", short[0], data))
    products = _summed(planes, weights)
    tiled = np.einsum("bj,tajo->tabo", short[1], np.einsum("ai,tijo->tajo", short[1], products))
    largest = float(np.abs(exact).max()) or 1.0
    plain = _plain(data, taps, tile, stride)
    return float(np.abs(tiled - exact).max()) / largest, float(np.abs(plain - exact).max()) / largest


def _plain(data: np.ndarray, taps: np.ndarray, tile: int, stride: int) -> np.ndarray:
    """The plain sums of tiles, in the dtype of data and taps: (places, tile, tile, O)."""
    span = (tile - 1) * stride + 1
    windows = [data[:, y : y + span : stride, x : x + span : stride] for y in range(TAPS) for x in range(TAPS)]
    return _summed(np.concatenate(windows, -1), taps.reshape(-1, taps.shape[-1]))


def _summed(data: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum over c of data[…, c] * weights[…, c, :], one c after the other."""
    total = np.zeros((*data.shape[:-1], weights.shape[-1]), data.dtype)
    for c in range(data.shape[-1]):
        total += data[..., c, None] * weights[..., c, :]
    return total
