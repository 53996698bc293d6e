"""Converters of Fourier transforms, windows, filter banks, determinants and col2im.

Transforms follow from the structure of the data (`fourier`); their lengths must be constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.frontend.onnx.fourier import Complex, circle, spectrum
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_index import onnx_dtype
from warpbeam.frontend.onnx.ops_nn_norm import dtype_of, shape_of
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Constant, Expr, const
from warpbeam.tir import expr as E
from warpbeam.topi import dims

Result = Expr | list[Expr]


def _matrix(array: np.ndarray, like: Expr) -> Expr:
    return Constant(array.astype(dt.to_numpy(dtype_of(like))))  # type: ignore[no-any-return]


def _parts(x: Expr) -> tuple[Expr, Expr | None]:
    """Real and imaginary part of data whose last axis has 1 or 2 entries."""
    real = get("take")(x, const(0, "int64"), axis=-1)
    return real, get("take")(x, const(1, "int64"), axis=-1) if shape_of(x)[-1] == 2 else None


def _moved(x: Expr, source: int, target: int) -> Expr:
    """x with one axis moved."""
    rank = len(shape_of(x))
    order = [a for a in range(rank) if a != source]
    order.insert(target, source)
    return x if order == list(range(rank)) else get("transpose")(x, axes=tuple(order))  # type: ignore[no-any-return]


def _dft(node: NodeView, x: Expr, axis: int) -> Result:
    rank = len(shape_of(x))
    axis %= rank
    size, inverse, onesided = shape_of(x)[axis], bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    if not isinstance(size, int):
        raise node.unsupported("a signal of symbolic length")
    if axis == rank - 1 or shape_of(x)[-1] not in (1, 2):
        raise node.error("the last axis holds the real and imaginary part and cannot be transformed")
    default = 2 * (size - 1) if inverse and onesided else size
    length = int(node.scalar(1, "dft_length")) if node.given(1) else default
    if length < 1:
        raise node.error(f"dft_length {length}")
    real, imag = (None if p is None else _moved(p, axis, rank - 2) for p in _parts(x))
    assert real is not None
    if inverse and onesided:
        out = _real_inverse(real, imag, length)
        return get("expand_dims")(_moved(out, rank - 2, axis), axis=rank - 1)
    columns = length // 2 + 1 if onesided else length
    factor = 1.0 / length if inverse else 1.0
    y = spectrum(Complex(real, imag), length, columns, 1 if inverse else -1, factor)
    return get("stack")(*[_moved(p, rank - 2, axis) for p in y.pair()], axis=rank - 1)


def _real_inverse(real: Expr, imag: Expr | None, length: int) -> Expr:
    """The real signal of a one-sided spectrum."""
    rows = shape_of(real)[-1]
    k = np.arange(rows)
    cos, sin = circle(np.outer(k, np.arange(length)), length)
    used = k <= length // 2
    twice = np.where((k == 0) | (2 * k == length), 1.0, 2.0) * used / length
    y = get("nn.matmul")(real, _matrix(cos * twice[:, None], real))
    if imag is None:
        return y  # type: ignore[no-any-return]
    odd = np.where((k == 0) | (2 * k == length), 0.0, twice)
    return get("subtract")(y, get("nn.matmul")(imag, _matrix(sin * odd[:, None], real)))  # type: ignore[no-any-return]


def dft_17(node: NodeView, x: Expr, length: Expr | None = None) -> Result:
    return _dft(node, x, int(node.attr("axis", 1)))


def dft_20(node: NodeView, x: Expr, length: Expr | None = None, axis: Expr | None = None) -> Result:
    return _dft(node, x, int(node.scalar(2, "axis")) if axis is not None else -2)


def stft(node: NodeView, x: Expr, step: Expr, window: Expr | None = None, length: Expr | None = None) -> Result:
    """STFT: overlapping frames by a gather, the window, a transform of each."""
    shape = shape_of(x)
    signal = shape[1]
    hop = int(node.scalar(1, "frame_step"))
    if length is not None:
        size = int(node.scalar(3, "frame_length"))
    else:
        size = shape_of(window)[0] if window is not None else signal
    if not isinstance(size, int):
        raise node.unsupported("frames of symbolic length")
    if size < 1 or hop < 1 or (isinstance(signal, int) and size > signal):
        raise node.error(f"frames of {size} every {hop} in a signal of {dims.text(signal)}")
    real, imag = _parts(x) if len(shape) == 3 else (x, None)
    places = _places(node, signal, size, hop)

    def frames(part: Expr | None) -> Expr | None:
        if part is None:
            return None
        cut = get("take")(part, places, axis=1)
        return cut if window is None else get("multiply")(cut, window)  # type: ignore[no-any-return]

    columns = size // 2 + 1 if node.attr("onesided", 1) else size
    framed = frames(real)
    assert framed is not None
    return get("stack")(*spectrum(Complex(framed, frames(imag)), size, columns, -1).pair(), axis=3)


def _places(node: NodeView, signal: Any, size: int, hop: int) -> Expr:
    """Where the elements of each frame are in the signal, (frames, size)."""
    within = const(np.arange(size, dtype=np.int64), "int64")
    count = dims.dim(E.floordiv(E.as_expr(signal) - size, E.as_expr(hop)) + 1)
    if not isinstance(count, int):
        node.assume(E.binary(E.LE, E.as_expr(size), E.as_expr(signal)))
    starts = get("multiply")(get("arange")(start=0, stop=count, step=1, dtype="int64"), const(hop, "int64"))
    return get("add")(get("expand_dims")(starts, axis=1), within)  # type: ignore[no-any-return]


def _window(cosines: tuple[float, ...]) -> Any:
    """A window of alternating cosines: sum (-1)^k · a_k · cos(2πkn/N)."""

    def convert(node: NodeView, size: Expr) -> Result:
        count = int(node.scalar(0, "size"))
        if count < 0:
            raise node.error(f"a window of {count} elements")
        dtype = onnx_dtype(node, node.attr("output_datatype", 1))
        period = count if node.attr("periodic", 1) else count - 1
        n = np.arange(count, dtype=np.float64)
        y = sum((-1) ** k * a * np.cos(2 * np.pi * k * n / max(period, 1)) for k, a in enumerate(cosines))
        return Constant(np.asarray(y).astype(dt.to_numpy(dtype)))  # type: ignore[no-any-return]

    return convert


def mel_weight_matrix(node: NodeView, *_: Expr) -> Result:
    """Triangular filters on the mel scale, 2595·log10(1 + f/700), as a constant."""
    bins, length, rate = (int(node.scalar(i)) for i in range(3))
    low, high = (2595 * np.log10(1 + float(node.scalar(i)) / 700) for i in (3, 4))
    points = low + np.arange(bins + 2) * ((high - low) / (bins + 2))
    hertz = 700 * (10 ** (points / 2595) - 1)
    edges = np.floor((length + 1) * hertz / rate).astype(int)
    out = np.zeros((length // 2 + 1, bins))
    for i in range(bins):
        left, centre, right = edges[i : i + 3]
        if not 0 <= left <= centre <= right <= out.shape[0]:
            raise node.error("a filter lies outside the spectrum")
        if centre == left:
            out[centre, i] = 1
        else:
            out[left : centre + 1, i] = (np.arange(left, centre + 1) - left) / (centre - left)
        if right > centre:
            out[centre:right, i] = (right - np.arange(centre, right)) / (right - centre)
    return Constant(out.astype(dt.to_numpy(onnx_dtype(node, node.attr("output_datatype", 1)))))  # type: ignore[no-any-return]


def det(node: NodeView, x: Expr) -> Result:
    return get("linalg.det")(x)


def col2im(node: NodeView, x: Expr, image_shape: Expr, block_shape: Expr) -> Result:
    image, block = node.int_list(1, "image_shape"), node.int_list(2, "block_shape")
    nd = len(block)
    return get("col2im")(
        x,
        image_shape=tuple(image),
        block_shape=tuple(block),
        strides=tuple(node.attr("strides", (1,) * nd)),
        padding=tuple(node.attr("pads", (0,) * (2 * nd))),
        dilation=tuple(node.attr("dilations", (1,) * nd)),
    )


TABLE: dict[str, dict[int, Any]] = {
    "DFT": {17: dft_17, 20: dft_20},
    "STFT": {17: stft},
    "HannWindow": {17: _window((0.5, 0.5))},
    "HammingWindow": {17: _window((25 / 46, 21 / 46))},
    "BlackmanWindow": {17: _window((0.42, 0.5, 0.08))},
    "MelWeightMatrix": {17: mel_weight_matrix},
    "Det": {11: det},
    "Col2Im": {18: col2im},
}
