"""Positions: row-major numbering of indices, shapes cut into groups that map one onto the other, slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.tir import expr as E
from warpbeam.topi import dims

FAR = (1 << 31) - 1
"""A slice bound from here on means "to the end"."""


def regroup(source: Sequence[Any], target: Sequence[Any]) -> list[tuple[range, range]]:
    """Cuts two shapes of one element count into consecutive groups of equal products, as many as possible.

    Within a group the row-major order maps one onto the other, so that index arithmetic stays inside groups.
    """
    groups: list[tuple[range, range]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        cut = _next_cut(source, target, i, j)
        if cut is None:
            break
        groups.append((range(i, cut[0]), range(j, cut[1])))
        i, j = cut
    if i < len(source) or j < len(target):
        groups.append((range(i, len(source)), range(j, len(target))))
    return groups


def _next_cut(source: Sequence[Any], target: Sequence[Any], i: int, j: int) -> tuple[int, int] | None:
    left: Any = 1
    for a in range(i, len(source)):
        left = dims.prod((left, source[a]))
        if isinstance(left, int) and left == 0:
            return None
        right: Any = 1
        for b in range(j, len(target)):
            right = dims.prod((right, target[b]))
            if left is right or (isinstance(left, int) and left == right):
                rest = (dims.prod(source[a + 1 :]), dims.prod(target[b + 1 :]))
                if dims.same(*rest):
                    return a + 1, b + 1
    return None


def linear_index(shape: Sequence[Any], index: Sequence[Any]) -> Any:
    """Row-major position of an index."""
    out: Any = E.const(0)
    for d, i in zip(shape, index, strict=True):
        out = out * d + i
    return out


def unravel(position: Any, shape: Sequence[Any]) -> list[Any]:
    """Index of a row-major position, which is known to lie within the shape."""
    out: list[Any] = []
    stride: Any = 1
    for k in reversed(range(len(shape))):
        d = shape[k]
        if isinstance(d, int) and d == 1:
            out.append(E.const(0))
            continue
        first = all(isinstance(s, int) and s == 1 for s in shape[:k])
        value = E.floordiv(position, stride)
        out.append(value if first else E.floormod(value, d))
        stride = dims.prod((stride, d))
    return out[::-1]


def static_slice(begin: Any, end: Any, stride: int, size: int) -> tuple[Any, Any, int]:
    """First element, count and stride of a slice of a known size."""
    begin, end = E.simplify_dim(begin), E.simplify_dim(end)
    if isinstance(begin, int) and isinstance(end, int):
        low, high = (0, size) if stride > 0 else (-1, size - 1)
        first = min(max(begin + size if begin < 0 else begin, low), high)
        last = min(max(end + size if end < 0 else end, low), high)
        return first, max(0, -((first - last) // stride) if stride > 0 else -((last - first) // -stride)), stride
    return symbolic_slice(begin, end, stride, size)


def symbolic_slice(begin: Any, end: Any, stride: int, size: Any) -> tuple[Any, Any, int]:
    """First element, count and stride of a slice where the size or a bound is symbolic."""
    low, high = (0, size) if stride > 0 else (-1, dims.dim(E.as_expr(size) - 1))

    def bound(value: Any) -> Any:
        value = E.simplify_dim(value)
        if not isinstance(value, int):
            return value
        if value >= FAR:
            return high
        if value <= -FAR:
            return low
        place = dims.dim(E.as_expr(size) + value) if value < 0 else value
        return dims.dim(E.maximum(E.minimum(E.as_expr(place), E.as_expr(high)), E.as_expr(low)))

    first, last = bound(begin), bound(end)
    gap = E.as_expr(last) - first if stride > 0 else E.as_expr(first) - last
    count = dims.dim(E.maximum(E.ceildiv(gap, abs(stride)), 0))
    return first, count, stride
