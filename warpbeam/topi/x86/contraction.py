"""Schedules of sums of products: convolutions and matrix products, in tiles whose sums stay in registers.

The output is cut into tiles of `rows` x `lanes`; a tile's sums are computed in local memory inside the tile's loop,
with the contiguous axis in vectors and the rows unrolled, and then what follows (bias, activation) is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.target import Target, get
from warpbeam.topi.scheduling import (
    begin,
    extent,
    inline_injective,
    is_compute,
    parallel_outer,
    reducing,
    stages,
    tagged,
    tile_of,
)
from warpbeam.topi.x86.rows import injective_loops, reduction_loops, schedule_reduce

ROWS, LANES = 6, 16


def wide_lanes() -> int:
    """Lanes of a tile whose sums fill the vector registers of the current target (this machine's without one)."""
    target = Target.current(allow_none=True) or get("native")
    return target.vector_bits // 32 * max(1, (target.vector_registers - 4) // ROWS)


def _find(s: Any, tags: Sequence[str]) -> Any:
    found = [op for prefix in tags for op in tagged(s, prefix)]
    return found[-1] if found else None


def _bordered(s: Any, op: Any) -> Any:
    """The border around the data that `op` reads, else None."""
    for t in op.input_tensors:
        if is_compute(t.op) and t.op.name in ("padded", "PadInput") and not reducing(t.op):
            return t.op
    return None


def lane_tile(size: int | None, lanes: int) -> int:
    """Lanes of a tile: whole vectors where they divide the axis, else what fits one vector."""
    if size is not None:
        for tile in range(lanes // LANES * LANES, 0, -LANES):
            if size % tile == 0:
                return tile
    return tile_of(size, LANES)


def tiled(s: Any, out: Any, op: Any, row_axis: int, lane_axis: int, lanes: int, packed: Any = None) -> None:
    """Tiles of `out` over the result's axes row_axis x lane_axis, `op`'s sums inside each tile.

    packed: an operand (lanes, depth) to be laid out afresh first, so that a tile's lanes stand side by side.
    """
    axes = list(out.axis)
    if op is out:
        cache = s.cache_write(op.output(0), "local")
        out, sums = s[op].op, cache.op
        axes = list(out.axis)
    else:
        s[op].set_scope("local")
        sums = s[op].op
    if packed is not None and extent(axes[lane_axis]) is not None:
        sums = _packed(s, packed, sums, lane_tile(extent(axes[lane_axis]), lanes))
    row, lane = axes[row_axis], axes[lane_axis]
    ro, ri = s[out].split(row, factor=tile_of(extent(row), ROWS))
    lo, li = s[out].split(lane, factor=lane_tile(extent(lane), lanes))
    rest = [a for k, a in enumerate(axes) if k not in (row_axis, lane_axis)]
    s[out].reorder(*rest, ro, lo, ri, li)
    s[out].vectorize(li)
    s[sums].compute_at(s[out], lo)
    parallel_outer(s, out, [*rest, ro])
    own, ks = list(sums.axis), list(sums.reduce_axis)
    inner = [own[row_axis], own[lane_axis]]
    s[sums].reorder(*[a for a in own if a not in inner], *ks, *inner)
    s[sums].unroll(inner[0])
    s[sums].vectorize(inner[1])


def _packed(s: Any, operand: Any, sums: Any, tile: int) -> Any:
    """A copy of `operand` (lanes, depth) as (lanes // tile, depth, tile); the operation that reads it for `sums`."""
    cache = s.cache_read(operand, "global", [sums.output(0)])
    panel, *_ = s[cache].transform_layout(lambda n, k: [n // tile, k, n % tile])
    s[cache].parallel(panel)
    return s[sums].op


def _contraction(
    outs: Any, tags: Sequence[str], row_axis: int, lane_axis: int, lanes: int = LANES, pack: bool = False
) -> Any:
    """The schedule of an output that is a contraction, or injective in one of the same rank."""
    s, tensors = begin(outs)
    out = s[tensors[0]].op
    op = _find(s, tags)
    if op is None:
        return schedule_reduce(outs)
    border = _bordered(s, op)
    inline_injective(s, keep=[border] if border is not None else [])
    if border is not None:
        injective_loops(s, border)
    for other in stages(s):
        if reducing(other) and other is not op:
            reduction_loops(s, other)
    if out is op or (not reducing(out) and len(out.axis) == len(op.axis) and reads_directly(s, out, op)):
        packed = op.input_tensors[1] if pack and len(op.input_tensors) == 2 else None
        tiled(s, out, op, row_axis, lane_axis, lanes, packed)
    else:
        reduction_loops(s, op)
        if not reducing(out):
            injective_loops(s, out)
    return s


def reads_directly(s: Any, out: Any, op: Any) -> bool:
    """Whether `out` reads `op`, through inlined stages at most, each element at its own place."""
    from warpbeam.te.operation import loads

    current = out
    while current is not op:
        own = tuple(a.var for a in current.axis)
        reads = [load for load in loads(current) if _leads_to(load.tensor.op, op)]
        if len({load.tensor for load in reads}) != 1 or any(
            len(load.indices) != len(own) or any(i is not v for i, v in zip(load.indices, own)) for load in reads
        ):
            return False
        current = reads[0].tensor.op
        if current is not op and reducing(current):
            return False
    return True


def _leads_to(start: Any, op: Any) -> bool:
    seen, stack = {start}, [start]
    while stack:
        current = stack.pop()
        if current is op:
            return True
        for t in current.input_tensors:
            if t.op not in seen:
                seen.add(t.op)
                stack.append(t.op)
    return False


def schedule_conv2d_nchw(outs: Any) -> Any:
    """Convolution, channels first: tiles of channels by columns."""
    return _contraction(outs, ["conv2d"], 1, 3)


def schedule_group_conv2d_nchw(outs: Any) -> Any:
    """Grouped convolution, channels first: tiles of channels by columns."""
    return _contraction(outs, ["group_conv2d"], 1, 3)


def schedule_conv2d_nhwc(outs: Any) -> Any:
    """Convolution, channels last: tiles of columns by channels."""
    return _contraction(outs, ["conv2d", "group_conv2d"], 2, 3, wide_lanes())


def schedule_conv2d_hwcn(outs: Any) -> Any:
    """Convolution with the batch last: tiles of channels by images."""
    return _contraction(outs, ["conv2d"], 2, 3, wide_lanes())


def schedule_conv2d_NCHWc(outs: Any) -> Any:
    """Convolution with channels in blocks: tiles of columns by a block's channels."""
    return _contraction(outs, ["conv2d_NCHWc", "depthwise_conv2d_NCHWc"], 3, 4, wide_lanes())


def schedule_depthwise_conv2d_nchw(outs: Any) -> Any:
    """Depthwise convolution, channels first: tiles of rows by columns."""
    return _contraction(outs, ["depthwise_conv2d"], 2, 3)


def schedule_depthwise_conv2d_nhwc(outs: Any) -> Any:
    """Depthwise convolution, channels last: tiles of columns by channels."""
    return _contraction(outs, ["depthwise_conv2d"], 2, 3)


def schedule_dense(outs: Any) -> Any:
    """Dense layer: tiles of rows by units, the weights laid out for them first."""
    return _contraction(outs, ["dense"], 0, 1, wide_lanes(), pack=True)


def schedule_matmul(outs: Any) -> Any:
    """Matrix product: tiles of rows by columns."""
    return _contraction(outs, ["matmul", "dense"], 0, 1, wide_lanes())


def schedule_batch_matmul(outs: Any) -> Any:
    """Batched matrix product: tiles of rows by columns."""
    return _contraction(outs, ["batch_matmul", "matmul"], 1, 2)
