"""Schedules of reductions in which the threads of a block share a row's elements and combine their parts."""

from __future__ import annotations

from math import gcd, prod
from typing import Any

from warpbeam import te
from warpbeam.topi.cuda.injective import bind_elements
from warpbeam.topi.scheduling import begin, extent, inline_injective, is_compute, reducing, stages
from warpbeam.topi.tag import SOFTMAX, of
from warpbeam.topi.x86.rows import kept_axes, row_stages

ROW_THREADS, ALL_THREADS, ROWS = 32, 256, 8


def _count(axes: list[Any]) -> int | None:
    """The number of iterations of some axes, where it is known."""
    sizes = [extent(a) for a in axes]
    return None if None in sizes else prod(s for s in sizes if s is not None)


def _threads(ks: list[Any], most: int) -> int:
    """Threads for a reduction: a power of two, no more than its elements ask for."""
    count, out = _count(ks), 1
    while out < most and (count is None or out * 2 <= count):
        out *= 2
    return out


def share_row(s: Any, op: Any, threads: int) -> tuple[Any, Any]:
    """The reduction cut over `threads` threads by rfactor: (the operation that combines, its thread loop)."""
    ks = list(op.reduce_axis)
    fused = s[op].fuse(*ks) if len(ks) > 1 else ks[0]
    _, inner = s[op].split(fused, factor=threads)
    parts = s.rfactor(op.output(0), inner)
    part = parts[0] if isinstance(parts, list | tuple) else parts
    whole = s[op].op
    thread = whole.reduce_axis[0]
    s[whole].bind(thread, te.thread_axis((0, threads), "threadIdx.x"))
    s[part].compute_at(s[whole], thread)
    return whole, thread


def reduce_rows(s: Any, op: Any) -> None:
    """A reduction as a kernel of its own: some rows per block, a row's threads along x."""
    rows = list(op.axis)
    threads = _threads(list(op.reduce_axis), ROW_THREADS if rows else ALL_THREADS)
    whole, _ = share_row(s, op, threads)
    axes = list(whole.axis)
    fused = s[whole].fuse(*axes) if len(axes) != 1 else axes[0]
    if not rows:
        s[whole].bind(fused, te.thread_axis("blockIdx.x"))
        return
    count = _count(axes)
    block, row = s[whole].split(fused, factor=1 if count is None else gcd(count, ROWS))
    s[whole].bind(block, te.thread_axis("blockIdx.x"))
    s[whole].bind(row, te.thread_axis("threadIdx.y"))


def schedule_reduce(outs: Any) -> Any:
    """Reductions: the threads of a warp share a row (of a block: everything, where all is reduced); the rest injective.

    Injective stages are inlined into what reads them; an injective output is a kernel of its own.
    """
    s, tensors = begin(outs)
    inline_injective(s)
    for op in list(stages(s)):
        if reducing(op):
            reduce_rows(s, op)
    for t in tensors:
        if is_compute(t.op) and not reducing(s[t].op):
            bind_elements(s, s[t].op)
    return s


def schedule_softmax(outs: Any) -> Any:
    """A block per row: its threads share the row for maximum and sum, then each scales its elements.

    The exponentials are computed where they are read. Softmax over other axes than the last: kernels one by one.
    """
    s, tensors = begin(outs)
    out = s[tensors[0]].op
    soft = [op for op in stages(s) if of(op) in (SOFTMAX, "log_softmax_output")]
    kept = kept_axes(soft[-1]) if soft else []
    if not kept or kept != list(range(len(out.axis) - 1)):
        return schedule_reduce(outs)
    rows = row_stages(soft[-1], len(kept))
    inline_injective(s, keep=[op for op in rows if not reducing(op) and len(op.axis) == len(kept)])
    fused = s[out].fuse(*list(out.axis)[:-1]) if len(kept) > 1 else out.axis[0]
    threads = _threads([out.axis[-1]], ALL_THREADS)
    s[out].bind(fused, te.thread_axis("blockIdx.x"))
    _, thread = s[out].split(out.axis[-1], factor=threads)
    s[out].bind(thread, te.thread_axis((0, threads), "threadIdx.x"))
    for op in rows:
        if reducing(op):
            whole, _ = share_row(s, op, threads)
            s[whole].set_scope("shared")
            s[whole].compute_at(s[out], fused)
        elif len(op.axis) == len(kept):
            s[op].set_scope("shared")
            s[op].compute_at(s[out], fused)
    return s
