"""What tiles lose, as it is told: measured errors against the bounds of topi/nn/winograd.py."""

import numpy as np
import pytest

from warpbeam.topi.common import TopiError
from warpbeam.topi.nn.winograd import matrices
from warpbeam.topi.nn.winograd_error import measured_errors

_U = 2.0**-24


@pytest.mark.parametrize(("tile", "stride"), [(2, 1), (2, 2), (4, 1)])
@pytest.mark.parametrize("channels", [1, 7, 96])
def test_errors_are_there_and_below_their_bounds(tile: int, stride: int, channels: int) -> None:
    """Data d is below 6 in size, results are above one standard deviation of some result: |w| summed in squares."""
    taps = np.random.default_rng(1).standard_normal((3, 3, channels, 5)).astype(np.float32)
    tiled, plain = measured_errors(taps, tile, stride)
    bt, g, at = (np.abs(np.asarray(m)) for m in matrices(tile, stride))
    sizes = np.einsum("ir,rsco,js->ijo", g, np.abs(taps), g) * 6 * np.outer(bt.sum(1), bt.sum(1))[..., None]
    bound = (channels + 20) * _U * np.einsum("ai,ijo,bj->abo", at, sizes, at).max()
    least = np.sqrt((taps.astype(np.float64) ** 2).sum((0, 1, 2))).min()
    assert 0 < tiled < bound / least
    assert 0 < plain < 9 * channels * 2 * _U * 6 * np.abs(taps).sum((0, 1, 2)).max() / least


@pytest.mark.parametrize(("tile", "stride"), [(2, 1), (2, 2), (4, 1)])
@pytest.mark.parametrize("taps", [(1, 3), (3, 1)])
def test_along_one_dimension(tile: int, stride: int, taps: tuple[int, int]) -> None:
    """As over two, with the transforms of one; which one does not matter to what is lost."""
    w = np.random.default_rng(1).standard_normal((*taps, 96, 5)).astype(np.float32)
    tiled, plain = measured_errors(w, tile, stride)
    bt, g, at = (np.abs(np.asarray(m)) for m in matrices(tile, stride))
    sizes = np.einsum("ir,rco->io", g, np.abs(w.reshape(3, 96, 5))) * 6 * bt.sum(1)[:, None]
    least = np.sqrt((w.astype(np.float64) ** 2).sum((0, 1, 2))).min()
    assert 0 < tiled < (96 + 20) * _U * np.einsum("ai,io->ao", at, sizes).max() / least
    assert 0 < plain < 3 * 96 * 2 * _U * 6 * np.abs(w).sum((0, 1, 2)).max() / least


def test_larger_tiles_lose_more() -> None:
    taps = np.random.default_rng(1).standard_normal((3, 3, 64, 16)).astype(np.float32)
    (small, plain), (large, same) = measured_errors(taps, 2), measured_errors(taps, 4)
    assert large > 2 * small and large > plain and small < 2 * plain and same > 0


def test_weights_of_nothing() -> None:
    assert measured_errors(np.zeros((3, 3, 4, 2), np.float32), 4) == (0.0, 0.0)


def test_there_is_no_tile_of_three() -> None:
    with pytest.raises(TopiError, match="F\\(3, 3\\)"):
        measured_errors(np.zeros((3, 3, 4, 2), np.float32), 3)
