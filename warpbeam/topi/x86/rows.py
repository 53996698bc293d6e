"""Schedules of computations whose rows are independent: injective, reducing, softmax, pooling."""

from __future__ import annotations

from typing import Any

from warpbeam.topi.scheduling import (
    begin,
    each_injective,
    extent,
    inline_injective,
    is_compute,
    parallel_outer,
    reducing,
    stages,
    vectorized_inner,
)
from warpbeam.topi.tag import SOFTMAX, of

LANES = 16


def injective_loops(s: Any, op: Any) -> None:
    """Outer axes fused and parallel, the innermost in vectors."""
    axes = list(op.axis)
    if not axes:
        return
    inner = vectorized_inner(s, op, axes[-1])
    outer = axes[:-1] or ([inner] if inner is not None else [])
    parallel_outer(s, op, outer)


def schedule_injective_from_existing(sch: Any, out: Any) -> Any:
    """Outer loops of `out` parallel, the innermost in vectors, in a schedule that exists."""
    injective_loops(sch, sch[out].op)
    return sch


def schedule_injective(outs: Any) -> Any:
    """Injective stages inlined; outer loops parallel, the innermost in vectors."""
    return each_injective(outs, injective_loops)


schedule_concatenate = schedule_injective


def schedule_extern(outs: Any) -> Any:
    """Injective outputs as schedule_injective does; external computations are left as they are."""
    return each_injective(outs, injective_loops, inline=False)


def reduction_loops(s: Any, op: Any) -> None:
    """Outer axes parallel; the innermost of the result in vectors inside the reduction, where there is one."""
    op = vector_row(s, op)
    axes, ks = list(op.axis), list(op.reduce_axis)
    if not axes:
        return
    rows = axes
    if _contiguous(op):
        outer = vectorized_inner(s, op, axes[-1])
        vector = s[op].leaf_iter_vars[-1 - len(ks)]
        s[op].reorder(*ks, vector)
        rows = [*axes[:-1], *([outer] if outer is not None else [])]
    parallel_outer(s, op, rows)


def vector_row(s: Any, op: Any) -> Any:
    """A reduction along the contiguous axis as LANES partial ones in a vector; the operation that combines them.

    The operation itself where its rows are no multiple of LANES, or where it reduces tuples or another axis.
    """
    k = op.reduce_axis[-1]
    size = extent(k)
    if size is None or size % LANES or size < 2 * LANES or op.num_outputs > 1 or not _reads_along(op, k.var):
        return op
    _, lanes = s[op].split(k, factor=LANES)
    part = s.rfactor(op.output(0), lanes, factor_axis=len(op.axis))
    whole = s[op].op
    s[part].reorder(*part.op.reduce_axis, part.op.axis[-1])
    s[part].vectorize(part.op.axis[-1])
    if whole.axis:
        s[part].compute_at(s[whole], whole.axis[-1])
    return whole


def _reads_along(op: Any, var: Any) -> bool:
    """Whether an operand is read along `var` as its last index."""
    from warpbeam.te.operation import loads

    return any(load.indices and load.indices[-1] is var for load in loads(op))


def _contiguous(op: Any) -> bool:
    """Whether the last axis of the result also is the last axis of what is reduced."""
    return _reads_along(op, op.axis[-1].var)


def schedule_reduce(outs: Any) -> Any:
    """Reductions: rows in parallel; along the contiguous axis in vectors where that is not the reduced one."""
    s, _ = begin(outs)
    inline_injective(s)
    for op in stages(s):
        if reducing(op):
            reduction_loops(s, op)
        elif op in s.outputs:
            injective_loops(s, op)
    return s


def schedule_softmax(outs: Any) -> Any:
    """Rows in parallel; each row's maximum, exponentials and sum inside the row, the elementwise ones in vectors."""
    s, tensors = begin(outs)
    out = s[tensors[0]].op
    rows = [op for op in stages(s) if of(op) in (SOFTMAX, "log_softmax_output")]
    if not rows:
        return schedule_reduce(outs)
    soft = rows[-1]
    parts = [t.op for t in soft.input_tensors]
    inline_injective(s, keep=[soft, *parts])
    if soft is not out:
        s[soft].compute_inline()
    kept = kept_axes(soft)
    if not kept or kept != list(range(len(out.axis) - 1)):
        for op in stages(s):
            if reducing(op):
                reduction_loops(s, op)
            elif op is out or op in parts:
                injective_loops(s, op)
        return s
    fused = parallel_outer(s, out, [out.axis[k] for k in kept])
    for op in row_stages(soft, len(kept)):
        if reducing(op):
            op = vector_row(s, op)
        s[op].compute_at(s[out], fused)
        if not reducing(op) and len(op.axis) == len(soft.axis):
            vectorized_inner(s, op, op.axis[-1])
    vectorized_inner(s, out, out.axis[-1])
    return s


def kept_axes(soft: Any) -> list[int]:
    """The axes of a softmax that its rows run over: those by which its row statistics are read."""
    from warpbeam.te.operation import loads

    small = [load for load in loads(soft) if len(load.indices) < len(soft.axis)]
    places = {a.var: k for k, a in enumerate(soft.axis)}
    return sorted(places[i] for i in small[0].indices) if small else []


def row_stages(soft: Any, rows: int) -> list[Any]:
    """The stages of a softmax: those below it that reduce rows, or are computed from what was reduced."""
    seen: list[Any] = []
    stack = [t.op for t in soft.input_tensors]
    while stack:
        op = stack.pop()
        if op in seen or not is_compute(op):
            continue
        above = any(reducing(t.op) and len(t.op.axis) == rows for t in op.input_tensors)
        if above or (reducing(op) and len(op.axis) == rows):
            seen.append(op)
            stack += [t.op for t in op.input_tensors]
    return seen


def schedule_pool(outs: Any, layout: str = "NCHW") -> Any:
    """Windows: outer loops parallel, the innermost axis in vectors; borders are part of reading."""
    return schedule_reduce(outs)


def schedule_adaptive_pool(outs: Any, layout: str = "NCHW") -> Any:
    """As schedule_pool."""
    return schedule_reduce(outs)
