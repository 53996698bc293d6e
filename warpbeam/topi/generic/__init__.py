"""Schedules that say nothing about a machine: injective stages inlined, loops as they are.

Each takes the tensor or tensors to compute and gives a te.Schedule.
"""

from __future__ import annotations

from typing import Any

from warpbeam.topi.scheduling import begin, inline_injective, stages
from warpbeam.topi.tag import SOFTMAX, of


def default_schedule(outs: Any, auto_inline: bool = False) -> Any:
    """The loops as the computation gives them; auto_inline inlines injective stages and fuses the output's loops."""
    s, tensors = begin(outs)
    if auto_inline:
        inline_injective(s)
        for t in tensors:
            if len(s[t].op.axis) > 1 and not s[t].op.reduce_axis:
                s[t].fuse(*s[t].op.axis)
    return s


def schedule_injective(outs: Any) -> Any:
    """Injective stages inlined, the output's loops fused into one."""
    return default_schedule(outs, True)


def schedule_injective_from_existing(sch: Any, out: Any) -> Any:
    """The loops of `out` in a schedule that exists fused into one."""
    if len(sch[out].op.axis) > 1:
        sch[out].fuse(*sch[out].op.axis)
    return sch


def schedule_extern(outs: Any) -> Any:
    """Injective stages inlined around an external computation."""
    return default_schedule(outs)


def _inlined(outs: Any) -> Any:
    s, _ = begin(outs)
    inline_injective(s)
    return s


def schedule_softmax(outs: Any) -> Any:
    """Stages one after the other; the exponentials are kept, not computed twice."""
    s, _ = begin(outs)
    rows = [op for op in stages(s) if of(op) == SOFTMAX]
    inline_injective(s, keep=[t.op for op in rows for t in op.input_tensors])
    return s


def _make(name: str, what: str) -> Any:
    def schedule(outs: Any) -> Any:
        return _inlined(outs)

    schedule.__name__ = schedule.__qualname__ = name
    schedule.__doc__ = f"Plain loops for {what}; injective stages are inlined."
    return schedule


schedule_reduce = _make("schedule_reduce", "a reduction")
schedule_dense = _make("schedule_dense", "a dense layer")
schedule_matmul = _make("schedule_matmul", "a matrix product")
schedule_batch_matmul = _make("schedule_batch_matmul", "a batched matrix product")
schedule_conv1d_ncw = _make("schedule_conv1d_ncw", "a convolution")
schedule_conv1d_nwc = _make("schedule_conv1d_nwc", "a convolution")
schedule_conv2d_nchw = _make("schedule_conv2d_nchw", "a convolution")
schedule_conv2d_nhwc = _make("schedule_conv2d_nhwc", "a convolution")
schedule_conv2d_hwcn = _make("schedule_conv2d_hwcn", "a convolution")
schedule_conv2d_NCHWc = _make("schedule_conv2d_NCHWc", "a blocked convolution")
schedule_conv2d_transpose_nchw = _make("schedule_conv2d_transpose_nchw", "a transposed convolution")
schedule_conv3d_ncdhw = _make("schedule_conv3d_ncdhw", "a convolution")
schedule_depthwise_conv2d_nchw = _make("schedule_depthwise_conv2d_nchw", "a depthwise convolution")
schedule_depthwise_conv2d_nhwc = _make("schedule_depthwise_conv2d_nhwc", "a depthwise convolution")
schedule_group_conv2d_nchw = _make("schedule_group_conv2d_nchw", "a grouped convolution")
schedule_lrn = _make("schedule_lrn", "a local response normalisation")


def schedule_pool(outs: Any, layout: str = "NCHW") -> Any:
    """Plain loops for pooling (the layout makes no difference to them)."""
    return _inlined(outs)


def schedule_adaptive_pool(outs: Any, layout: str = "NCHW") -> Any:
    """Plain loops for adaptive pooling (the layout makes no difference to them)."""
    return _inlined(outs)
