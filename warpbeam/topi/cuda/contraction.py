"""Schedules of sums of products for CUDA: tiles of the output per block, operands through shared memory.

A block computes a tile of the outputs over two axes; each thread a part of it in registers. Along the
first summed axis, `STEP` elements at a time of both operands are fetched into shared memory by all threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam import te
from warpbeam.topi.cuda.injective import bind_elements, per_element
from warpbeam.topi.cuda.reduction import reduce_rows, schedule_reduce
from warpbeam.topi.scheduling import begin, extent, inline_injective, reducing, stages, tagged, tile_of
from warpbeam.topi.x86.contraction import reads_directly

THREADS_M, THREADS_N, PER_M, PER_N, STEP = 8, 8, 4, 2, 8


def _find(s: Any, tags: Sequence[str]) -> Any:
    found = [op for prefix in tags for op in tagged(s, prefix)]
    return found[-1] if found else None


def _thread_tile(s: Any, out: Any, axis: Any, threads: int, per: int) -> tuple[Any, Any, Any, int]:
    """(block loop, thread loop, loop inside the thread, number of threads) of an output axis."""
    size = extent(axis)
    count = threads if size is None else min(threads, size)
    inner_size = per if size is None else tile_of(max(1, -(-size // count)), per)
    block, rest = s[out].split(axis, factor=count * inner_size)
    thread, inner = s[out].split(rest, factor=inner_size)
    return block, thread, inner, count


def _fetch(s: Any, cache: Any, at: Any, loop: Any, axes: tuple[int, int], threads: tuple[int, int]) -> None:
    """A copy into shared memory under a loop, two of its axes dealt out to the block's threads."""
    s[cache].compute_at(s[at], loop)
    loops = list(s[cache].op.axis)
    for d, count, name in zip(axes, threads, ("threadIdx.y", "threadIdx.x"), strict=True):
        _, thread = s[cache].split(loops[d], factor=count)
        s[cache].bind(thread, te.thread_axis((0, count), name))


def tiled(s: Any, out: Any, op: Any, m_axis: int, n_axis: int, fetch: Sequence[tuple[int, int]]) -> None:
    """Tiles of the result's axes m_axis x n_axis per block; `fetch` names the axes of each operand dealt to threads."""
    if op is out:
        sums = s.cache_write(op.output(0), "local").op
        out = s[op].op
    else:
        s[op].set_scope("local")
        sums = s[op].op
    operands = list(sums.input_tensors)
    caches = [s.cache_read(t, "shared", [sums.output(0)]) for t in operands]
    sums = s[sums].op
    axes = list(out.axis)
    bm, tm, im, count_m = _thread_tile(s, out, axes[m_axis], THREADS_M, PER_M)
    bn, tn, inn, count_n = _thread_tile(s, out, axes[n_axis], THREADS_N, PER_N)
    rest = [a for k, a in enumerate(axes) if k not in (m_axis, n_axis)]
    s[out].reorder(*rest, bm, bn, tm, tn, im, inn)
    if rest:
        s[out].bind(s[out].fuse(*rest) if len(rest) > 1 else rest[0], te.thread_axis("blockIdx.z"))
    s[out].bind(bm, te.thread_axis("blockIdx.y"))
    s[out].bind(bn, te.thread_axis("blockIdx.x"))
    s[out].bind(tm, te.thread_axis((0, count_m), "threadIdx.y"))
    s[out].bind(tn, te.thread_axis((0, count_n), "threadIdx.x"))
    s[sums].compute_at(s[out], tn)
    own, ks = list(sums.axis), list(sums.reduce_axis)
    deep = max(range(len(ks)), key=lambda d: extent(ks[d]) or 1 << 30)
    outer, inner = s[sums].split(ks[deep], factor=tile_of(extent(ks[deep]), STEP))
    s[sums].reorder(outer, *[k for d, k in enumerate(ks) if d != deep], inner, *own)
    for cache, pair in zip(caches, fetch, strict=False):
        _fetch(s, cache, sums, outer, pair, (count_m, count_n))


def _contraction(outs: Any, tags: Sequence[str], m_axis: int, n_axis: int, fetch: Sequence[tuple[int, int]]) -> Any:
    """The schedule of an output that is a contraction, or injective in one of the same rank."""
    s, tensors = begin(outs)
    out = s[tensors[0]].op
    op = _find(s, tags)
    if op is None:
        return schedule_reduce(outs)
    inline_injective(s)
    for other in list(stages(s)):
        if reducing(other) and other is not op:
            reduce_rows(s, other)
    if out is op or (not reducing(out) and len(out.axis) == len(op.axis) and reads_directly(s, out, op)):
        tiled(s, out, op, m_axis, n_axis, fetch)
    else:
        bind_elements(s, op)
        if not reducing(out):
            bind_elements(s, out)
    return s


def _depthwise(outs: Any) -> Any:
    s, tensors = begin(outs)
    inline_injective(s)
    per_element(s, s[tensors[0]].op)
    return s


def schedule_conv2d_nchw(outs: Any) -> Any:
    """Convolution, channels first: a block computes channels by columns of an image's row."""
    return _contraction(outs, ["conv2d"], 1, 3, [(1, 3), (0, 1)])


def schedule_group_conv2d_nchw(outs: Any) -> Any:
    """Grouped convolution, channels first: a thread per element."""
    return _depthwise(outs)


def schedule_conv2d_nhwc(outs: Any) -> Any:
    """Convolution, channels last: a block computes columns by channels of an image's row."""
    return _contraction(outs, ["conv2d"], 2, 3, [(2, 3), (2, 3)])


def schedule_conv2d_hwcn(outs: Any) -> Any:
    """Convolution with the batch last: a block computes channels by images at a position."""
    return _contraction(outs, ["conv2d"], 2, 3, [(2, 3), (2, 3)])


def schedule_depthwise_conv2d_nchw(outs: Any) -> Any:
    """Depthwise convolution: a thread per element."""
    return _depthwise(outs)


def schedule_depthwise_conv2d_nhwc(outs: Any) -> Any:
    """Depthwise convolution: a thread per element."""
    return _depthwise(outs)


def schedule_dense(outs: Any) -> Any:
    """Dense layer: a block computes rows by units."""
    return _contraction(outs, ["dense", "matmul"], 0, 1, [(0, 1), (0, 1)])


def schedule_matmul(outs: Any) -> Any:
    """Matrix product: a block computes rows by columns."""
    return _contraction(outs, ["matmul", "dense"], 0, 1, [(0, 1), (0, 1)])


def schedule_batch_matmul(outs: Any) -> Any:
    """Batched matrix product: a block computes rows by columns of one of the batch."""
    return _contraction(outs, ["batch_matmul", "matmul"], 1, 2, [(1, 2), (1, 2)])
