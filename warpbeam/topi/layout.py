"""Layouts by letters: "NCHW16c" is (N, C // 16, H, W, 16), small letters being blocks of the axis of that letter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller, Who


def parse_layout(who: Who, layout: str) -> list[tuple[str, int]]:
    """[(letter, block size or 0 for a whole axis)] of a layout."""
    found = re.findall(r"(\d*)([A-Za-z])", layout)
    if "".join(n + c for n, c in found) != layout or not layout:
        raise who.error(f"layout {layout!r}", "letters, and sizes in front of small ones: NCHW, NCHW16c")
    out = []
    for number, letter in found:
        if letter.isupper() == bool(number) or (letter.islower() and letter.upper() not in layout):
            raise who.error(f"layout {layout!r}: {number}{letter}", "a small letter has a size and a capital elsewhere")
        out.append((letter, int(number or 0)))
    if len({c for c, _ in out}) != len(out):
        raise who.error(f"layout {layout!r} names an axis twice")
    return out


def _whole(parts: Sequence[tuple[str, int]], values: Sequence[Any]) -> dict[str, Any]:
    """Letter -> whole index or size, from the parts' indices."""
    blocks = {c.upper(): (n, v) for (c, n), v in zip(parts, values, strict=True) if n}
    out = {}
    for (c, n), v in zip(parts, values, strict=True):
        if not n:
            out[c] = v * blocks[c][0] + blocks[c][1] if c in blocks else v
    return out


def layout_transform(array: te.Tensor, src_layout: str, dst_layout: str) -> Any:
    """`array` in another layout of the same letters; an axis that does not fill its blocks is padded with zeros."""
    who = Caller("layout_transform")
    if src_layout == dst_layout:
        return array
    source, target = parse_layout(who, src_layout), parse_layout(who, dst_layout)
    letters = {c for c, n in source if not n}
    if letters != {c for c, n in target if not n} or len(source) != array.ndim:
        raise who.error(f"{src_layout} with {array.ndim} dimensions to {dst_layout}")
    inner = {c.upper(): n for c, n in source if n}
    sizes = {
        c: dims.dim(s * inner[c]) if c in inner else s for (c, n), s in zip(source, array.shape, strict=True) if not n
    }
    blocks = {c.upper(): n for c, n in target if n}
    shape = [n or (dims.dim(E.ceildiv(sizes[c], blocks[c])) if c in blocks else sizes[c]) for c, n in target]

    def element(*idx: Any) -> Any:
        at = _whole(target, idx)
        own = []
        for c, n in source:
            place = at[c.upper()]
            own.append(place % n if n else place // inner[c] if c in inner else place)
        filled = [at[c] < sizes[c] for c in at if c in blocks and not dims.equal([dims.prod(
            (dims.dim(E.ceildiv(sizes[c], blocks[c])), blocks[c]))], [sizes[c]])]  # fmt: skip
        return E.if_then_else(E.land(*filled), array[tuple(own)], E.const(0, array.dtype))

    return te.compute(shape, element, name="layout_transform", tag=tag.INJECTIVE)
