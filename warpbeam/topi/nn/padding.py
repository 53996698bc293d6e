"""Borders around tensors, and elements spread apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller
from warpbeam.topi.nn.common import pad_stage

Widths = Sequence[tuple[Any, Any]]


def pad_constant(x: te.Tensor, widths: Widths, value: Any, name: str = "pad") -> Any:
    """Borders of `value`, (before, after) per axis; negative widths cut. Always a stage of its own."""
    padded = pad_stage(x, [b for b, _ in widths], [a for _, a in widths], value, name)
    return padded if padded is not x else te.compute(x.shape, lambda *i: x[i], name=name, tag=tag.INJECTIVE)


def pad_mirrored(x: te.Tensor, widths: Widths, mode: str, name: str = "pad") -> Any:
    """Borders of the tensor's own elements: "reflect" (without repeating the edge), "symmetric", "edge", "wrap"."""
    shape = [dims.dim(s + b + a) for s, (b, a) in zip(x.shape, widths, strict=True)]

    def element(*idx: Any) -> Any:
        return x[tuple(_source(i, s, *w, mode) for i, s, w in zip(idx, x.shape, widths, strict=True))]

    return te.compute(shape, element, name=name, tag=tag.INJECTIVE)


def _source(i: Any, size: Any, before: Any, after: Any, mode: str) -> Any:
    """Where element i of the padded axis comes from; negative widths cut before the border is made."""
    cut_b = min(before, 0) if isinstance(before, int) else 0
    cut_a = min(after, 0) if isinstance(after, int) else 0
    if before == cut_b and after == cut_a and isinstance(before, int) and isinstance(after, int):
        return i - before
    inner = dims.dim(size + cut_b + cut_a)
    j = i - (before - cut_b)
    if not isinstance(before, int) or not isinstance(after, int):
        return _anywhere(j, E.as_expr(inner), mode) - cut_b
    near = max(before, after) if mode == "edge" else 0  # so wide a border is one turn away
    if isinstance(inner, int):
        near = max(near, inner - 1 if mode == "reflect" else inner)
    place = j
    if after > 0:
        turn = {"edge": inner - 1, "wrap": j - inner, "symmetric": 2 * inner - 1 - j, "reflect": 2 * inner - 2 - j}
        place = E.select(j < inner, j, turn[mode] if after <= near else _anywhere(j, inner, mode))
    if before > 0:
        turn = {"edge": E.const(0), "wrap": j + inner, "symmetric": -1 - j, "reflect": -j}
        place = E.select(j < 0, turn[mode] if before <= near else _anywhere(j, inner, mode), place)
    return place - cut_b


def _anywhere(j: Any, inner: Any, mode: str) -> Any:
    """The element that stands at place j, however far outside."""
    if mode == "edge":
        return E.maximum(E.minimum(j, inner - 1), 0)
    if mode == "wrap":
        return E.floormod(j, inner)
    last = 2 * inner - (1 if mode == "symmetric" else 2)
    m = E.floormod(j, 2 * inner if mode == "symmetric" else last)
    return E.minimum(m, last - m)


def _widths(name: str, data: te.Tensor, before: Sequence[Any], after: Sequence[Any] | None) -> Widths:
    after = before if after is None else after
    if len(before) != data.ndim or len(after) != data.ndim:
        raise Caller(name).error(f"{len(before)} and {len(after)} widths for {data.ndim} dimensions")
    return list(zip(before, after, strict=True))


def pad(
    data: te.Tensor,
    pad_before: Sequence[Any],
    pad_after: Sequence[Any] | None = None,
    pad_value: Any = 0.0,
    name: str = "PadInput",
) -> Any:
    """`pad_value` (a number or an expression) before and after each axis; pad_after of None is pad_before."""
    value = pad_value
    if not isinstance(value, E.PrimExpr):
        value = E.const(value if data.dtype.startswith(("float", "bfloat")) else int(value), data.dtype)
    return pad_constant(data, _widths("nn.pad", data, pad_before, pad_after), E.cast(data.dtype, value), name)


def mirror_pad(
    data: te.Tensor,
    pad_before: Sequence[Any],
    pad_after: Sequence[Any] | None = None,
    mode: str = "SYMMETRIC",
    name: str = "MirrorPadInput",
) -> Any:
    """Borders that mirror the data: "SYMMETRIC" repeats the edge, "REFLECT" does not."""
    if mode not in ("SYMMETRIC", "REFLECT"):
        raise Caller("nn.mirror_pad").error(f"mode {mode!r}", "SYMMETRIC or REFLECT")
    return pad_mirrored(data, _widths("nn.mirror_pad", data, pad_before, pad_after), mode.lower(), name)


def dilate(data: te.Tensor, strides: Sequence[int], dilation_value: Any = 0.0, name: str = "DilatedInput") -> Any:
    """strides[d] - 1 elements of `dilation_value` between neighbours along each axis."""
    if len(strides) != data.ndim:
        raise Caller("nn.dilate").error(f"{len(strides)} strides for {data.ndim} dimensions")
    shape = [dims.dim((s - 1) * st + 1) for s, st in zip(data.shape, strides, strict=True)]

    def element(*idx: Any) -> Any:
        hit = E.land(*[E.binary(E.EQ, i % st, 0) for i, st in zip(idx, strides, strict=True) if st != 1])
        at = tuple(i // st for i, st in zip(idx, strides, strict=True))
        return E.if_then_else(hit, data[at], E.cast(data.dtype, E.as_expr(dilation_value, data.dtype)))

    return te.compute(shape, element, name=name, tag=tag.INJECTIVE)
