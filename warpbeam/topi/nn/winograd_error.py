"""What Winograd's tiles lose beside the plain sum, measured: float32 arithmetic on normal data, against float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from warpbeam.topi.nn.winograd import matrices

_PLACES = 16  # tiles of data
_RESULTS = 16  # output channels


def measured_errors(taps: np.ndarray, tile: int, stride: int = 1) -> tuple[float, float]:
    """(error of F(tile x tile, 3 x 3), error of the plain sum): the largest of some hundred or thousand results of
    standard normal data, as a share of the largest result.

    taps: (3, 3, C, O), or (1, 3, C, O) or (3, 1, C, O) for tiles along one dimension, of which the first output
    channels are taken. All is rounded to float32 where the kernels round,
    weights once after their transform in float64, and sums run over one channel (and tap) after the other.
    """
    taps = np.asarray(taps[..., :_RESULTS], np.float32)
    walks = [(1, 1, 1) if n == 1 else (tile, stride, n) for n in taps.shape[:2]]
    (bt, g, at), (bt2, g2, at2) = ([np.asarray(m) for m in matrices(t, s)] for t, s, _ in walks)
    spans = [(t - 1) * s + 1 for t, s, _ in walks]
    reach = [span + n - 1 for span, (_, _, n) in zip(spans, walks, strict=True)]
    rng = np.random.default_rng(0)
    data = np.zeros((_PLACES, len(bt), len(bt2), taps.shape[2]), np.float32)
    data[:, : reach[0], : reach[1]] = rng.standard_normal((_PLACES, *reach, taps.shape[2]), np.float32)
    steps = [slice(None, None, s) for _, s, _ in walks]
    exact = _plain(data.astype(np.float64), taps.astype(np.float64), spans, steps)
    weights = np.einsum("ir,rsco,js->ijco", g, taps.astype(np.float64), g2).astype(np.float32)
    bt, bt2, at, at2 = (m.astype(np.float32) for m in (bt, bt2, at, at2))
    planes = np.einsum("js,tisc->tijc", bt2, np.einsum("ir,trsc->tisc", bt, data))
    products = _summed(planes, weights)
    tiled = np.einsum("bj,tajo->tabo", at2, np.einsum("ai,tijo->tajo", at, products))
    largest = float(np.abs(exact).max()) or 1.0
    plain = _plain(data, taps, spans, steps)
    return float(np.abs(tiled - exact).max()) / largest, float(np.abs(plain - exact).max()) / largest


def _plain(data: np.ndarray, taps: np.ndarray, spans: Sequence[int], steps: Sequence[slice]) -> np.ndarray:
    """The plain sums of tiles, in the dtype of data and taps: (places, tile, tile, O)."""
    high, across = spans
    windows = [
        data[:, y : y + high, x : x + across][:, steps[0], steps[1]]
        for y in range(taps.shape[0])
        for x in range(taps.shape[1])
    ]
    return _summed(np.concatenate(windows, -1), taps.reshape(-1, taps.shape[-1]))


def _summed(data: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum over c of data[…, c] * weights[…, c, :], one c after the other."""
    total = np.zeros((*data.shape[:-1], weights.shape[-1]), data.dtype)
    for c in range(data.shape[-1]):
        total += data[..., c, None] * weights[..., c, :]
    return total
