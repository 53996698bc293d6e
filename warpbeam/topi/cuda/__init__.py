"""Computations and schedules for CUDA's model: grids of blocks of threads, memory shared by a block.

Each schedule takes the tensor or tensors to compute and gives a te.Schedule; the computations are those of `topi.nn`.
"""

from warpbeam.topi.cuda.contraction import (
    schedule_batch_matmul,
    schedule_conv2d_hwcn,
    schedule_conv2d_nchw,
    schedule_conv2d_nhwc,
    schedule_dense,
    schedule_depthwise_conv2d_nchw,
    schedule_depthwise_conv2d_nhwc,
    schedule_group_conv2d_nchw,
    schedule_matmul,
)
from warpbeam.topi.cuda.injective import (
    schedule_adaptive_pool,
    schedule_extern,
    schedule_injective,
    schedule_injective_from_existing,
    schedule_pool,
)
from warpbeam.topi.cuda.reduction import schedule_reduce, schedule_softmax
from warpbeam.topi.nn.convolution import conv2d_hwcn, conv2d_nchw, conv2d_nhwc, group_conv2d_nchw
from warpbeam.topi.nn.depthwise import depthwise_conv2d_nchw, depthwise_conv2d_nhwc
from warpbeam.topi.nn.products import batch_matmul, dense, matmul
from warpbeam.topi.nn.rowwise import softmax

__all__ = [
    "batch_matmul", "conv2d_hwcn", "conv2d_nchw", "conv2d_nhwc", "dense", "depthwise_conv2d_nchw",
    "depthwise_conv2d_nhwc", "group_conv2d_nchw", "matmul", "schedule_adaptive_pool", "schedule_batch_matmul",
    "schedule_conv2d_hwcn", "schedule_conv2d_nchw", "schedule_conv2d_nhwc", "schedule_dense",
    "schedule_depthwise_conv2d_nchw", "schedule_depthwise_conv2d_nhwc", "schedule_extern", "schedule_group_conv2d_nchw",
    "schedule_injective", "schedule_injective_from_existing", "schedule_matmul", "schedule_pool", "schedule_reduce",
    "schedule_softmax", "softmax",
]  # fmt: skip
