"""Converters of operators that move elements: reshape, transpose, slices, joins and repeats."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod
from typing import Any

from warpbeam.frontend.onnx import ops_content
from warpbeam.frontend.onnx.assumed import assumed, with_size
from warpbeam.frontend.onnx.build import Converter, Result, fields, rank_of, reshape, shape_of, transpose
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.op import get
from warpbeam.relay.expr import Expr
from warpbeam.tir import expr as E
from warpbeam.topi import dims

_TOGETHER = 64  # tensors that one kernel joins; more are joined in groups


def _target(node: NodeView, x: Expr, given: list[Any]) -> list[Any]:
    """A shape with 0 (copy) and -1 (what is left) resolved."""
    have = shape_of(x)
    out: list[Any] = []
    for k, d in enumerate(given):
        if isinstance(d, int) and d == 0 and not node.attr("allowzero", 0):
            if k >= len(have):
                raise node.error(f"shape {dims.shape_text(given)} copies dimension {k} of {dims.shape_text(have)}")
            d = have[k]
        elif isinstance(d, int) and d < -1:
            raise node.error(f"shape {dims.shape_text(given)} has a negative dimension")
        out.append(d)
    free = [k for k, d in enumerate(out) if isinstance(d, int) and d == -1]
    if len(free) > 1:
        raise node.error(f"shape {dims.shape_text(given)} has more than one -1")
    if free:
        fixed = [d for k, d in enumerate(out) if k != free[0]]
        if any(isinstance(d, int) and d == 0 for d in fixed):
            raise node.error(f"shape {dims.shape_text(given)} has both 0 and -1")
        out[free[0]] = dims.left_over(have, fixed)
    return _settled(node, have, out)


def _settled(node: NodeView, have: Sequence[Any], want: list[Any]) -> list[Any]:
    """The wanted shape with one symbolic dimension written so that the counts agree; that it is so is assumed."""
    total = dims.prod(have)
    if dims.same(total, dims.prod(want)) is not None:
        return want
    for k, d in enumerate(want):
        if isinstance(d, int):
            continue
        others = [*want[:k], *want[k + 1 :]]
        new = dims.exact_div(total, dims.prod(others))
        if dims.same(total, dims.prod((*others, new))):
            node.assume(E.binary(E.EQ, E.as_expr(d), E.as_expr(new)))
            return [*want[:k], new, *want[k + 1 :]]
    return want


def _divisible(x: Expr, given: Sequence[Any]) -> Expr:
    """`x` with its only open size as a multiple of what a -1 in the shape needs to stand for a whole number."""
    fixed = [d for d in given if isinstance(d, int) and d > 0]
    if len(fixed) != len(given) - 1 or -1 not in given:
        return x
    known = [d for d in shape_of(x) if isinstance(d, int)]
    if len(known) != rank_of(x) - 1 or 0 in known:
        return x
    need = prod(fixed) // gcd(prod(fixed), prod(known))
    return assumed(x, [_multiple(d, need) for d in shape_of(x)])


def _reshaped(node: NodeView, x: Expr, given: Sequence[Any]) -> Result:
    x = _divisible(x, given)
    want = _target(node, x, given)
    have, count = dims.prod(shape_of(x)), dims.prod(want)
    if not dims.counted_in(have, count) and dims.same(have, count) is None:
        x = assumed(reshape(x, (have,)), (count,))  # whether open sizes make as many elements, a call tells
    return reshape(x, want)


def _reshape_1(node: NodeView, x: Expr) -> Result:
    return _reshaped(node, x, node.attr("shape"))


def _reshape_5(node: NodeView, x: Expr, shape: Expr) -> Result:
    if node.value(1) is None:
        return ops_content.reshape_to(node, x, shape)
    return _reshaped(node, x, node.ints(1, "the shape"))


def _transpose(node: NodeView, x: Expr) -> Result:
    perm = node.attr("perm", None)
    if perm is None:
        perm = list(reversed(range(rank_of(x))))
    elif sorted(perm) != list(range(rank_of(x))):
        raise node.error(f"perm {perm[:20]} is no permutation of {rank_of(x)} dimensions")
    return transpose(x, perm)


def _expand(node: NodeView, x: Expr, shape: Expr) -> Result:
    if node.value(1) is None or dims.counted_in(*shape_of(x)):
        return ops_content.expand_to(node, x, shape)
    want, have = node.ints(1, "the shape"), list(shape_of(x))
    if any(isinstance(d, int) and d < 0 for d in want):
        raise node.error(f"shape {dims.shape_text(want)} has a negative dimension")
    ndim = max(len(want), len(have))
    want, have = [1] * (ndim - len(want)) + want, [1] * (ndim - len(have)) + have
    out = [h if isinstance(w, int) and w == 1 else w for w, h in zip(want, have, strict=True)]
    return x if tuple(out) == tuple(shape_of(x)) else get("broadcast_to")(x, shape=tuple(out))


def _tile_1(node: NodeView, x: Expr, tiles: Expr, axis: Expr) -> Result:
    reps: list[Any] = [1] * rank_of(x)
    reps[node.int_list(2, "axis")[0]] = node.ints(1, "tiles")[0]
    return get("tile")(x, reps=tuple(reps))


def _tile_6(node: NodeView, x: Expr, repeats: Expr) -> Result:
    if node.value(1) is None:
        return ops_content.tile_by(node, x, repeats)
    reps = node.ints(1, "repeats")
    if len(reps) != rank_of(x):
        raise node.error(f"{len(reps)} repeats for {rank_of(x)} dimensions")
    return x if all(isinstance(r, int) and r == 1 for r in reps) else get("tile")(x, reps=tuple(reps))


def _concat(node: NodeView, *inputs: Expr) -> Result:
    axis = node.attr("axis", 1) if node.opset < 4 else node.attr("axis")
    parts = list(inputs)
    while len(parts) > _TOGETHER:
        groups = (parts[k : k + _TOGETHER] for k in range(0, len(parts), _TOGETHER))
        parts = [g[0] if len(g) == 1 else get("concatenate")(*g, axis=axis) for g in groups]
    return parts[0] if len(parts) == 1 else get("concatenate")(*parts, axis=axis)


def _split(node: NodeView, x: Expr, sizes: list[Any] | None) -> Result:
    axis = node.attr("axis", 0)
    if not -rank_of(x) <= axis < rank_of(x):
        raise node.error(f"axis {axis} of a tensor with {rank_of(x)} dimensions")
    size = shape_of(x)[axis]
    if sizes is None:
        sizes = _even(node, size, node.attr("num_outputs", len(node.outputs)))
    if any(isinstance(s, int) and s < 0 for s in sizes) or dims.same(_sum(sizes), size) is False:
        raise node.error(f"pieces {dims.shape_text(sizes)} of a dimension of {dims.text(size)}")
    x = with_size(x, axis % rank_of(x), _sum(sizes))
    if len(sizes) == 1:
        return x
    cuts: list[Any] = []
    for s in sizes[:-1]:
        cuts.append(dims.dim(E.as_expr(s) + (cuts[-1] if cuts else 0)))
    return fields(get("split")(x, indices_or_sections=tuple(cuts), axis=axis), len(sizes))


def _sum(values: list[Any]) -> Any:
    return dims.dim(sum(values[1:], values[0])) if values else 0


def _even(node: NodeView, size: Any, count: int) -> list[Any]:
    """Equal pieces; the last one is smaller where the size does not divide."""
    if count < 1:
        raise node.error(f"{count} pieces")
    if isinstance(size, int):
        each = -(-size // count)
        return [max(0, min(each, size - k * each)) for k in range(count)]
    each = dims.exact_div(size, count)
    if not dims.same(dims.prod((each, count)), size):
        raise node.unsupported(f"{count} even pieces of a symbolic dimension {dims.text(size)}")
    return [each] * count


def _split_2(node: NodeView, x: Expr, sizes: Expr | None = None) -> Result:
    return _split(node, x, node.ints(1, "sizes") if sizes is not None else node.attr("split", None))


def _split_13(node: NodeView, x: Expr, sizes: Expr | None = None) -> Result:
    return _split(node, x, None if sizes is None else node.ints(1, "sizes"))


def _given_axes(node: NodeView) -> list[int] | None:
    if len(node.inputs) > 1 and node.given(1):
        return node.int_list(1, "axes")
    return node.attr("axes", None)  # type: ignore[no-any-return]


def _squeeze(node: NodeView, x: Expr, axes: Expr | None = None) -> Result:
    own = _given_axes(node)
    for a in own or ():
        if -rank_of(x) <= a < rank_of(x):
            x = with_size(x, a % rank_of(x), 1)
    out = get("squeeze")(x, axis=None if own is None else tuple(own))
    return x if rank_of(out) == rank_of(x) else out


def _unsqueeze(node: NodeView, x: Expr, axes: Expr | None = None) -> Result:
    own = _given_axes(node) or []
    ndim = rank_of(x) + len(own)
    places = sorted(a + ndim if a < 0 else a for a in own)
    if len(set(places)) != len(places) or any(not 0 <= p < ndim for p in places):
        raise node.error(f"axes {own[:20]} of a result with {ndim} dimensions")
    for p in places:
        x = get("expand_dims")(x, axis=p)
    return x


def _flatten(node: NodeView, x: Expr) -> Result:
    shape, axis = shape_of(x), node.attr("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise node.error(f"axis {axis} of a tensor with {len(shape)} dimensions")
    axis = axis + len(shape) if axis < 0 else axis
    return reshape(x, (dims.prod(shape[:axis]), dims.prod(shape[axis:])))


def _bound(node: NodeView, value: Any, size: Any) -> Any:
    """A slice bound made fit for strided_slice: symbolic ones count from the front and lie within the dimension."""
    if isinstance(value, int):
        return value
    if dims.sign(value) == -1:
        value = dims.dim(value + size)
        if isinstance(value, int):
            return value
    room = dims.sign(dims.dim(E.as_expr(size) - value))
    if room == -1:
        return size
    if room is None:
        node.assume(E.as_expr(value) <= E.as_expr(size))
    if dims.sign(value) is None:
        node.assume(E.as_expr(value) >= 0)
    return value


def _sliced(
    node: NodeView, x: Expr, starts: list[Any], ends: list[Any], axes: list[int] | None, steps: list[Any] | None
) -> Result:
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise node.error(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes and {len(steps)} steps")
    if any(not isinstance(s, int) for s in steps):
        raise node.unsupported("a symbolic step")
    shape = shape_of(x)
    if any(not -len(shape) <= a < len(shape) for a in axes):
        raise node.error(f"axes {axes[:20]} of a tensor with {len(shape)} dimensions")
    begin = [_bound(node, v, shape[a]) for v, a in zip(starts, axes, strict=True)]
    end = [_bound(node, v, shape[a]) for v, a in zip(ends, axes, strict=True)]
    return get("strided_slice")(x, begin=begin, end=end, strides=steps, axes=axes)


def _slice_1(node: NodeView, x: Expr) -> Result:
    return _sliced(node, x, node.attr("starts"), node.attr("ends"), node.attr("axes", None), None)


def _slice_10(node: NodeView, x: Expr, *bounds: Expr | None) -> Result:
    axes = node.int_list(3, "axes") if node.given(3) else None
    if any(node.given(k) and node.value(k) is None for k in (1, 2, 4)):
        return ops_content.slice_at(node, x, bounds[0], bounds[1], axes, bounds[3] if node.given(4) else None)  # type: ignore[arg-type]
    starts, ends = node.ints(1, "starts"), node.ints(2, "ends")
    return _sliced(node, x, starts, ends, axes, node.int_list(4, "steps") if node.given(4) else None)


def _blocks(name: str) -> Converter:
    def convert(node: NodeView, x: Expr) -> Result:
        mode, size = node.attr("mode", "DCR"), node.attr("blocksize")
        if mode not in ("DCR", "CRD") or size < 1:
            raise node.error(f"mode {mode[:20]!r} with blocksize {size}")
        if rank_of(x) == 4:
            parts = (1, size, size) if name == "nn.space_to_depth" else (size * size, 1, 1)
            x = assumed(x, (shape_of(x)[0], *map(_multiple, shape_of(x)[1:], parts)))
        return get(name)(x, block_size=size, mode=mode)  # type: ignore[no-any-return]

    return convert


def _multiple(size: Any, part: int) -> Any:
    """A size that only a call tells, as a multiple of `part`."""
    return dims.prod((dims.exact_div(size, part), part)) if isinstance(size, E.PrimExpr) else size


def _shape(node: NodeView, x: Expr) -> Result:
    raise node.unsupported("the shape of a value without a known rank")


TABLE: dict[str, dict[int, Any]] = {
    "Reshape": {1: _reshape_1, 5: _reshape_5},
    "Transpose": {1: _transpose},
    "Expand": {8: _expand},
    "Tile": {1: _tile_1, 6: _tile_6},
    "Concat": {1: _concat},
    "Split": {1: _split_2, 13: _split_13},
    "Squeeze": {1: _squeeze},
    "Unsqueeze": {1: _unsqueeze},
    "Flatten": {1: _flatten},
    "Slice": {1: _slice_1, 10: _slice_10},
    "DepthToSpace": {1: _blocks("nn.depth_to_space")},
    "SpaceToDepth": {1: _blocks("nn.space_to_depth")},
    "Shape": {1: _shape},
    "Size": {1: _shape},
}
