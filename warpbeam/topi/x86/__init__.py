"""Schedules for CPUs with vectors: rows in parallel, the contiguous axis in vectors, sums in registers.

Each takes the tensor or tensors to compute and gives a te.Schedule. Computations are those of `topi.nn`.
"""

from warpbeam.topi.x86.contraction import (
    schedule_batch_matmul,
    schedule_conv2d_hwcn,
    schedule_conv2d_nchw,
    schedule_conv2d_NCHWc,
    schedule_conv2d_nhwc,
    schedule_dense,
    schedule_depthwise_conv2d_nchw,
    schedule_depthwise_conv2d_nhwc,
    schedule_group_conv2d_nchw,
    schedule_matmul,
)
from warpbeam.topi.x86.rows import (
    schedule_adaptive_pool,
    schedule_concatenate,
    schedule_extern,
    schedule_injective,
    schedule_injective_from_existing,
    schedule_pool,
    schedule_reduce,
    schedule_softmax,
)

__all__ = [
    "schedule_adaptive_pool", "schedule_batch_matmul", "schedule_concatenate", "schedule_conv2d_NCHWc",
    "schedule_conv2d_hwcn", "schedule_conv2d_nchw", "schedule_conv2d_nhwc", "schedule_dense",
    "schedule_depthwise_conv2d_nchw", "schedule_depthwise_conv2d_nhwc", "schedule_extern", "schedule_group_conv2d_nchw",
    "schedule_injective", "schedule_injective_from_existing", "schedule_matmul", "schedule_pool", "schedule_reduce",
    "schedule_softmax",
]  # fmt: skip
