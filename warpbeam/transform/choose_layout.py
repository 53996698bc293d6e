"""Chooses which convolutions keep plain maps (N C spatial...) where all else would ask for channels last.

Of known size, those that are as fast over plain maps:

- pointwise: a product whose columns are the positions, if these are many vectors and not few beside the channels;
- of fewer results than a vector has lanes, so that vectors of channels stay partly empty, where the cost model expects
  the plain sum to be clearly faster;
- depthwise, with a window that `sketch.lines` takes.

Others read plain data as it is, if it has few channels, and make a result with channels last.
"""

from __future__ import annotations

import math
from typing import Any

from warpbeam.cost.chain_prior import MOVED_RATE
from warpbeam.cost.tile_prior import cache_rate
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.op.nn_conv import ConvTransposeNd
from warpbeam.relay.expr import Call, Var
from warpbeam.relay.types import TensorType
from warpbeam.sketch.window import MAX_TAPS
from warpbeam.target import Target
from warpbeam.transform.choose_convolution import predicted
from warpbeam.transform.expand_conv_transpose import expand_call
from warpbeam.transform.graph import op_name, same_call
from warpbeam.transform.integer_products import BYTES, has_dots

_VECTORS = 16  # of a map, so that the rest is small beside them
_CLEARLY = 0.9  # of the time with channels last at most: transposes that the rest of a model makes are not known


def plain(n: Any, target: Target, last: str, pairs: int = 0) -> bool:
    """Whether a convolution over plain maps is as fast as one with its channels last.

    n: the call, of plain layout. last: the data layout with channels last. pairs: of how many channels, if they were
    last, one instruction would take the short numbers together; 0: of one.
    """
    data, kernel, out = n.args[0].ty.shape, n.args[1].ty.shape, n.ty.shape
    if not all(isinstance(d, int) for d in (*data, *kernel, *out)):
        return False
    window = [d for c, d in zip(n.attrs["kernel_layout"], kernel, strict=True) if c not in "IO"]
    positions, groups = math.prod(out[2:]), n.attrs["groups"]
    transposed = isinstance(n.op, ConvTransposeNd)
    lanes = max(1, target.vector_bits // dt.bits(n.ty.dtype))
    if groups == data[1] == out[1]:
        return n.ty.ndim == 4 and math.prod(window) <= MAX_TAPS and not transposed
    if n.args[0].ty.dtype in BYTES and has_dots(target):  # sums of neighbours
        return False
    pointwise = math.prod(window) == 1 and data[2:] == out[2:]
    if pointwise and positions >= max(_VECTORS * lanes, data[1] // groups // 4):
        return not (pairs and data[1] // groups % pairs == 0 and _gains(n, target, pairs))
    return groups == 1 and out[1] < lanes and _clearly(n, window, target, last)


def reads_plain(n: Any, target: Target) -> bool:
    """Whether a convolution reads plain data as fast as with channels last: single elements of few maps, which are
    copied anyway, with borders. Where they are not, a transpose is what fetches them from memory in time.
    """
    x = n.args[0].ty
    few = isinstance(x.shape[1], int) and 1 < x.shape[1] <= target.vector_bits // dt.bits(x.dtype) // 2
    if not few or n.attrs["groups"] != 1 or x.dtype != "float32" or isinstance(n.op, ConvTransposeNd):
        return False
    moves = n.op.windows(n.attrs)
    return any(isinstance(p, int) and p > 0 for p in (*moves.begins, *moves.ends))


def _gains(n: Any, target: Target, pairs: int) -> bool:
    """Whether products that take so many channels at once save more than it takes to turn data and result."""
    lanes = max(1, target.vector_bits // dt.bits(n.ty.dtype))
    steps = math.prod(n.ty.shape) * n.args[1].ty.shape[n.attrs["kernel_layout"].index("I")] / lanes
    moved = sum(_bytes(t) for t in (n.args[0].ty, n.ty)) / MOVED_RATE
    return bool(steps / target.fma_rate * (1 - 1 / pairs) > moved)


def _clearly(n: Any, window: list[int], target: Target, last: str) -> bool:
    """Whether the cost model says so. Each way pays for a transpose: of its data, or of its result for the next."""
    there, moved = _turned(n, last), [_bytes(x) / MOVED_RATE if x.shape[1] > 1 else 0.0 for x in (n.args[0].ty, n.ty)]
    ways = [_cycles(x, target) for x in (n, there)]
    if None in ways:
        return False
    here, other = (w or 0.0 for w in ways)
    # a row of results walks through all channels, so that the next one finds few of its rows in the nearest cache
    size = _bytes(n.args[0].ty)
    again = size * (math.prod(window[:-1]) - 1) * cache_rate(size, target)
    return here + again + moved[1] <= _CLEARLY * (other + moved[0])


def _bytes(ty: TensorType) -> int:
    return math.prod(ty.shape) * dt.nbytes(ty.dtype)


def _turned(n: Any, last: str) -> Call:
    """The convolution with its channels last."""
    x, w = n.args
    shape = (x.ty.shape[0], *x.ty.shape[2:], x.ty.shape[1])
    kernel = n.attrs["kernel_layout"]
    wish = last[1:-1] + "IO"
    taps = Var("w", TensorType(tuple(w.ty.shape[kernel.index(c)] for c in wish), w.ty.dtype))
    data = Var("x", TensorType(shape, x.ty.dtype))
    return same_call(n, data, taps, data_layout=last, kernel_layout=wish, out_layout="")


def _cycles(n: Call, target: Target) -> float | None:
    """Cycles of the convolutions that one becomes."""
    whole = expand_call(n, target) or n
    found = [
        predicted(c, target) for c in post_order(whole) if isinstance(c, Call) and op_name(c).startswith("nn.conv")
    ]
    return None if None in found else sum(c or 0.0 for c in found)
