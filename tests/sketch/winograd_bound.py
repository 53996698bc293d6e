"""The bound on the error of Winograd convolution that topi/nn/winograd.py states, as numbers."""

import numpy as np

from warpbeam.topi.nn.winograd import matrices


def padded(x, borders, beyond=0):
    """x [N, H, W, C] in float64 with its border of zeros (top, left, bottom, right), and more behind."""
    top, left, bottom, right = borders
    p = x.astype(np.float64)
    return np.pad(p, [(0, 0), (top, bottom + beyond), (left, right + beyond), (0, 0)])


def results(x, w, borders, steps):
    """Rows and columns of the result."""
    top, left, bottom, right = borders
    sizes = (x.shape[1] + top + bottom, x.shape[2] + left + right)
    return tuple((n - taps) // s + 1 for n, taps, s in zip(sizes, w.shape[:2], steps, strict=True))


def steps_of(w, stride):
    """The stride of rows and of columns: there is none where there is one tap."""
    return tuple(1 if taps == 1 else stride for taps in w.shape[:2])


def direct(x, w, borders, stride=1):
    """The convolution in float64: x [N, H, W, C], w [3, 3, C, O], or with one tap along rows or columns."""
    p, (sy, sx) = padded(x, borders), steps_of(w, stride)
    h, v = ((n - 1) * s + 1 for n, s in zip(results(x, w, borders, (sy, sx)), (sy, sx), strict=True))
    return sum(p[:, i : i + h : sy, j : j + v : sx] @ w[i, j].astype(np.float64) for i, j in np.ndindex(w.shape[:2]))


def dilated(fn, x, w, borders, apart):
    """What `fn` (`direct`, `error_bound`) says of a convolution by taps that lie `apart`: of each part of the map."""
    p, (high, across) = padded(x, borders), apart
    rows, columns = w.shape[:2]
    y = np.empty((len(x), p.shape[1] - (rows - 1) * high, p.shape[2] - (columns - 1) * across, w.shape[-1]))
    for a in range(min(high, y.shape[1])):
        for b in range(min(across, y.shape[2])):
            y[:, a::high, b::across] = fn(p[:, a::high, b::across], w, (0, 0, 0, 0))
    return y


def slices(x, w, borders):
    """Three dimensions as sums of two: x [N, D, H, W, C] in pieces that meet one outer tap each, and that tap's
    weights, of w [K, 3, 3, C, O]; borders (front, top, left, back, bottom, right).
    """
    x = np.pad(x, [(0, 0), (borders[0], borders[3]), (0, 0), (0, 0), (0, 0)])
    count = x.shape[1] - len(w) + 1
    return [(x[:, k : k + count].reshape(-1, *x.shape[2:]), w[k]) for k in range(len(w))], count


def direct_3d(x, w, borders):
    """The convolution in float64."""
    parts, count = slices(x, w, borders)
    y = sum(direct(a, b, (*borders[1:3], *borders[4:])) for a, b in parts)
    return y.reshape(len(x), count, *y.shape[1:])


def error_bound_3d(x, w, borders):
    """The same bound, with K C numbers in each sum over channels and outer taps."""
    parts, count = slices(x, w, borders)
    y = sum(error_bound(a, b, (*borders[1:3], *borders[4:])) for a, b in parts)
    channels, more = x.shape[-1], roundings(2)
    return (y * (len(w) * channels + more) / (channels + more)).reshape(len(x), count, *y.shape[1:])


def roundings(tile, stride=1, dimensions=2):
    """Of a result, through the transforms and in its weights."""
    bt, _, at = matrices(tile, stride)
    return dimensions * (worst(bt) + worst(at)) + 1


def error_bound(x, w, borders, tile=2, stride=1):
    """For each result (C + n) u |A^T| [ sum of (|G| |g| |G^T|) * (|B^T| |d| |B|) ] |A|."""
    tiles, steps = [1 if taps == 1 else tile for taps in w.shape[:2]], steps_of(w, stride)
    (bt, g, at), (bt2, g2, at2) = ([np.abs(np.asarray(m, float)) for m in matrices(t, stride)] for t in tiles)
    high, across = results(x, w, borders, steps)
    rows, columns = -(-high // tiles[0]), -(-across // tiles[1])
    down, right = (t * s for t, s in zip(tiles, steps, strict=True))
    p = np.abs(padded(x, borders, len(bt) + len(bt2) + tile * stride))
    d = np.empty((len(bt), len(bt2), p.shape[0], rows, columns, p.shape[3]))
    for r, s in np.ndindex(d.shape[:2]):
        d[r, s] = p[:, r : r + rows * down : down, s : s + columns * right : right][:, :rows, :columns]
    u = np.einsum("ir,js,rsco->ijco", g, g2, np.abs(w.astype(np.float64)))
    v = np.einsum("ir,js,rsnpqc->ijnpqc", bt, bt2, d)
    y = np.einsum("ai,bj,ijnpqo->npaqbo", at, at2, np.einsum("ijnpqc,ijco->ijnpqo", v, u), optimize=True)
    y = y.reshape(x.shape[0], rows * tiles[0], columns * tiles[1], -1)
    more = roundings(tile, stride, sum(t > 1 for t in tiles))
    return (x.shape[3] + more) * 2.0**-24 * y[:, :high, :across]


def worst(matrix):
    """Most roundings through one row of a product: its additions, and one where a factor is no power of two."""
    return max(
        sum(c != 0 for c in row) - 1 + any(c != 0 and not np.log2(abs(c)).is_integer() for c in row) for row in matrix
    )
