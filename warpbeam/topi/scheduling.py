"""What the schedules of the library share: finding stages, tiles that fit an extent, parallel and vectorised loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from warpbeam import te
from warpbeam.te.operation import Tensor
from warpbeam.topi import dims, tag


def begin(outs: Any) -> tuple[Any, list[Any]]:
    """(a schedule of `outs`, a tensor or several, and them as a list)."""
    tensors = [outs] if isinstance(outs, Tensor) else list(outs)
    return te.create_schedule([t.op for t in tensors]), tensors


def extent(axis: Any) -> int | None:
    """The constant extent of an axis, else None."""
    value = dims.dim(axis.extent)
    return int(value) if isinstance(value, int) else None


def tile_of(size: int | None, limit: int) -> int:
    """A tile for an axis: its largest divisor up to `limit`; where that is poor (or the size unknown), the limit."""
    if size is None:
        return limit
    best = max((d for d in range(1, limit + 1) if size % d == 0), default=1)
    return best if best * 2 > limit or best == size else limit


def is_compute(op: Any) -> bool:
    """Whether an operation is a te.compute."""
    return isinstance(op, te.ComputeOp)


def reducing(op: Any) -> bool:
    """Whether an operation is a te.compute with a reduction."""
    return is_compute(op) and bool(op.reduce_axis)


def stages(s: Any) -> Iterator[Any]:
    """The computing operations of a schedule, producers first."""
    return (stage.op for stage in list(s.stages) if is_compute(stage.op))


def tagged(s: Any, prefix: str) -> list[Any]:
    """The reducing operations whose tag begins with `prefix`, producers first."""
    return [op for op in stages(s) if reducing(op) and tag.of(op).startswith(prefix)]


def inline_injective(s: Any, keep: Sequence[Any] = ()) -> None:
    """Inlines every stage without a reduction that is no output, is not in `keep` and was not scheduled yet."""
    for op in stages(s):
        if not reducing(op) and op not in s.outputs and op not in keep and op.num_outputs == 1:
            s[op].compute_inline()


def each_injective(outs: Any, loops: Callable[[Any, Any], Any], inline: bool = True) -> Any:
    """A schedule in which `loops(schedule, operation)` places the loops of each injective output.

    Reductions and external computations are left as they are; with `inline`, what is no output is inlined.
    """
    s, tensors = begin(outs)
    if inline:
        inline_injective(s)
    for t in tensors:
        if is_compute(t.op) and not reducing(t.op):
            loops(s, t.op)
    return s


def parallel_outer(s: Any, op: Any, axes: Sequence[Any]) -> Any:
    """`axes` (the outermost loops, in order) fused into one parallel loop; None where there are none."""
    if not axes:
        return None
    fused = axes[0] if len(axes) == 1 else s[op].fuse(*axes)
    s[op].parallel(fused)
    return fused


def vectorized_inner(s: Any, op: Any, axis: Any, lanes: int = 16) -> Any:
    """The axis split by a number of lanes, the inner loop vectorised; the outer loop, or None where there is none."""
    size = extent(axis)
    if size is not None and size <= lanes:
        s[op].vectorize(axis)
        return None
    outer, inner = s[op].split(axis, factor=tile_of(size, lanes))
    s[op].vectorize(inner)
    return outer
