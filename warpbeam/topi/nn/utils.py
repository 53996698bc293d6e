"""Padding as classic scripts write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.topi import dims
from warpbeam.topi.common import Caller, Who
from warpbeam.topi.nn.common import split_padding, tuple_of


def pad_pair(who: Who, padding: Any, kernel: Sequence[Any], dilation: Any = 1) -> Any:
    """Padding as numbers: "VALID" is none, "SAME" what keeps the size at stride 1 (the larger half in front)."""
    if not isinstance(padding, str):
        return padding
    if padding.upper() == "VALID":
        return 0
    if padding.upper() != "SAME":
        raise who.error(f"padding {padding!r}", 'give numbers, "SAME" or "VALID"')
    spread = tuple_of(dilation, len(kernel))
    total = [(k - 1) * d for k, d in zip(kernel, spread, strict=True)]
    begins = [dims.dim((t + 1) // 2) for t in total]
    return (*begins, *(dims.dim(t - b) for t, b in zip(total, begins, strict=True)))


def _flat(padding: Any, kernel: Any, ndim: int) -> tuple[Any, ...]:
    who = Caller("nn.get_pad_tuple")
    begins, ends = split_padding(who, pad_pair(who, padding, tuple_of(kernel, ndim)), ndim)
    return (*begins, *ends)


def get_pad_tuple(padding: Any, kernel: Any) -> tuple[Any, Any, Any, Any]:
    """(top, left, bottom, right) of a padding given as a number, (h, w), four numbers, "SAME" or "VALID"."""
    top, left, bottom, right = _flat(padding, kernel, 2)
    return top, left, bottom, right


def get_pad_tuple1d(padding: Any, kernel: Any) -> tuple[Any, Any]:
    """(left, right) of a padding in one dimension."""
    left, right = _flat(padding, kernel, 1)
    return left, right


def get_pad_tuple3d(padding: Any, kernel: Any) -> tuple[Any, ...]:
    """(front, top, left, back, bottom, right) of a padding in three dimensions."""
    return _flat(padding, kernel, 3)
