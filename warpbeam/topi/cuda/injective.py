"""Schedules in which a thread computes an element alone: injective computations, and windows."""

from __future__ import annotations

from typing import Any

from warpbeam import te
from warpbeam.topi.scheduling import begin, each_injective, inline_injective, reducing, stages

THREADS = 256


def bind_elements(s: Any, op: Any, threads: int = THREADS) -> Any:
    """All axes fused and cut into blocks of threads, an element each; the thread's loop."""
    axes = list(op.axis)
    fused = s[op].fuse(*axes) if len(axes) != 1 else axes[0]
    block, thread = s[op].split(fused, factor=threads)
    s[op].bind(block, te.thread_axis("blockIdx.x"))
    s[op].bind(thread, te.thread_axis("threadIdx.x"))
    return thread


def schedule_injective_from_existing(sch: Any, out: Any) -> Any:
    """A thread per element of `out`, in a schedule that exists."""
    bind_elements(sch, sch[out].op)
    return sch


def schedule_injective(outs: Any) -> Any:
    """Injective stages inlined; a thread per element of each output."""
    return each_injective(outs, bind_elements)


def schedule_extern(outs: Any) -> Any:
    """A thread per element of injective outputs; external computations are left as they are."""
    return each_injective(outs, bind_elements, inline=False)


def per_element(s: Any, out: Any) -> None:
    """A thread per element of `out`; what it reads of one reduction (of its shape) it reduces itself, in registers."""
    reduced = [op for op in stages(s) if reducing(op)]
    thread = bind_elements(s, out)
    if reduced and reduced[-1] is not out and len(reduced[-1].axis) == len(out.axis):
        s[reduced[-1]].set_scope("local")
        s[reduced[-1]].compute_at(s[out], thread)
        reduced = reduced[:-1]
    for op in reduced:
        if op is not out:
            bind_elements(s, op)


def schedule_pool(outs: Any, layout: str = "NCHW") -> Any:
    """A thread per window; borders are part of reading."""
    s, tensors = begin(outs)
    inline_injective(s)
    per_element(s, s[tensors[0]].op)
    return s


def schedule_adaptive_pool(outs: Any, layout: str = "NCHW") -> Any:
    """As schedule_pool."""
    return schedule_pool(outs, layout)
