"""Every message of topi, with a computation that is refused with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from message_cases import Case, refused

from warpbeam import te, topi
from warpbeam.tir.expr import minimum
from warpbeam.topi import nn
from warpbeam.topi.nn.winograd import matrices
from warpbeam.topi.utils import get_const_float, get_const_int


def t(*shape: Any, dtype: str = "float32") -> te.Tensor:
    """A tensor of a shape, N standing for a symbolic size."""
    return te.placeholder(shape, dtype, name="x")


def on(fn: Callable[..., Any], *args: Any, **keys: Any) -> Callable[[], Any]:
    return lambda: fn(*args, **keys)


N, M = te.size_var("n"), te.size_var("m")
X, IMAGE, BYTES = t(4, 6), t(1, 4, 8, 8), t(4, 6, dtype="int8")
KERNEL, INDEX = t(8, 4, 3, 3), t(4, dtype="int64")
LEFT, RIGHT, FEW = t(N, 4), t(M, 4), t(minimum(N, 3), 4)

CASES: list[Case] = [
    # shapes
    ("has more dimensions than", on(topi.broadcast_to, X, (6,))),
    ("does not broadcast to", on(topi.broadcast_to, X, (4, 5))),
    ("do not broadcast", on(topi.add, X, t(4, 5))),
    ("operator add", on(topi.add, LEFT, RIGHT)),
    ("need that one of them is 1", on(topi.add, FEW, t(6, 4))),
    ("need the first to be 1", on(topi.broadcast_to, FEW, (6, 4))),
    ("axis 2 of a tensor with 2 dimensions", on(topi.sum, X, axis=2)),
    ("axes (0, 0) name an axis twice", on(topi.sum, X, axis=(0, 0))),
    ("do not agree: 6 and 4", on(nn.dense, X, t(3, 4))),
    ("has more than one -1", on(topi.reshape, X, (-1, -1))),
    ("has a negative dimension", on(topi.reshape, X, (-2, 12))),
    ("does not have as many elements as", on(topi.reshape, X, (5, 5))),
    ("are no permutation of 2 dimensions", on(topi.transpose, X, (0, 0))),
    ("dimension 0 is 4, not 1", on(topi.squeeze, X, 0)),
    ("concatenate: takes at least one operand", on(topi.concatenate, [])),
    ("operand 1 is int8 with 2 dimensions, operand 0 is float32 with 2", on(topi.concatenate, [X, BYTES])),
    ("dimension 1 of operand 1 is 5, of operand 0 6", on(topi.concatenate, [X, t(4, 5)])),
    ("operator stack, dimension 0", on(topi.stack, [LEFT, RIGHT])),
    ("0 sections", on(topi.split, X, 0)),
    ("6 does not divide into 4 equal sections", on(topi.split, X, 4, axis=1)),
    ("cuts (5, 3) of a dimension of 6", on(topi.split, X, (5, 3), axis=1)),
    ("1 begins, 2 ends, 1 axes, 1 strides", on(topi.strided_slice, X, [0], [1, 2])),
    ("axis 0 is named twice", on(topi.strided_slice, X, [0, 0], [1, 1], axes=[0, 0])),
    ("a stride of 0", on(topi.strided_slice, X, [0], [1], strides=[0])),
    ("slice_mode 'middle'", on(topi.strided_slice, X, [0], [1], slice_mode="middle")),
    ("layout 'N?'", on(topi.layout_transform, X, "N?", "NC")),
    ("layout 'NCc': c", on(topi.layout_transform, IMAGE, "NCHW", "NCc")),
    ("layout 'NN' names an axis twice", on(topi.layout_transform, X, "NN", "NC")),
    ("NCHW with 2 dimensions to NHWC", on(topi.layout_transform, X, "NCHW", "NHWC")),
    # elements
    ("topi.exp: takes floats, got int8", on(topi.exp, BYTES)),
    ("float32 and int8 have different sizes", on(topi.reinterpret, X, "int8")),
    ("elemwise_sum: takes at least one tensor", on(topi.elemwise_sum, [])),
    ("shapes (4, 6) and (4, 5) differ", on(topi.elemwise_sum, [X, t(4, 5)])),
    ("topi.sum: takes number tensors, got bool", on(topi.sum, t(4, dtype="bool"))),
    ("get_const_int: n is not a constant", on(get_const_int, N)),
    ("get_const_float: n is not a constant", on(get_const_float, N)),
    # indices
    ("unknown mode 'far'", on(topi.take, X, INDEX, mode="far")),
    ("indices must have the data's 2 dimensions, got 1", on(topi.gather, X, 0, INDEX)),
    ("tuples of 3 after 0 batch dimensions do not fit 2", on(topi.gather_nd, X, t(3, 5, dtype="int64"))),
    ("axis 2 of 2 dimensions", on(topi.sequence_mask, X, INDEX, axis=2)),
    ("a step of 0", on(topi.arange, 0, 4, 0)),
    ("indexing 'ab'", on(topi.meshgrid, [t(2), t(3)], "ab")),
    ("the shape must have a known length", on(topi.unravel_index, INDEX, t(N, dtype="int64"))),
    # products
    ("2 axes of a, 1 of b", on(topi.tensordot, X, X, axes=((0, 1), (0,)))),
    ("for 2 operands", on(topi.einsum, "ij->ij", X, X)),
    ("term 'ijk' for 2 dimensions", on(topi.einsum, "ijk->i", X)),
    ("result 'q' of terms 'ij'", on(topi.einsum, "ij->q", X)),
    ("bias must have one dimension, got 2", on(nn.bias_add, X, X)),
    ("takes data (…, K) and weight (N, K), got 2 and 1 dimensions", on(nn.dense, X, t(6))),
    ("operands must have at least one dimension", on(nn.matmul, t(), X)),
    ("takes two tensors of 3 dimensions, got 2 and 2", on(nn.batch_matmul, X, X)),
    ("dense of 2 and sparse of 2 dimensions", on(nn.sparse_dense, X, X, INDEX, INDEX)),
    ("dense is float32, sparse is int8", on(nn.sparse_dense, X, t(4, dtype="int8"), INDEX, INDEX)),
    # windows
    ("layout 'NCXY' is not a permutation of", on(nn.conv2d, IMAGE, KERNEL, 1, 0, 1, data_layout="NCXY")),
    ("padding (1, 1, 1) does not fit 2 spatial dimensions", on(nn.conv2d_nchw, IMAGE, KERNEL, 1, (1, 1, 1), 1)),
    ("strides (0, 0) and dilation (1, 1) must be 2 positive numbers", on(nn.conv2d_nchw, IMAGE, KERNEL, 0, 0, 1)),
    ("window of 3 (dilation 5) does not fit a dimension of 8", on(nn.conv2d_nchw, IMAGE, KERNEL, 1, 0, 5)),
    ("8 output channels do not divide into 3 groups", on(
        nn.group_conv2d_nchw, t(1, 12, 8, 8), KERNEL, 1, 0, 1, groups=3)),
    ("takes data and kernel of 3 to 5 dimensions, got 2 and 2", on(nn.conv, X, X, 1, 0, 1)),
    ("leaves no output along H", on(
        nn.conv2d_transpose_nchw, t(1, 4, 1, 1), t(4, 8, 3, 3), 1, (4, 4), "float32", (0, 0))),
    ("padding 'HALF'", on(nn.conv2d_nchw, IMAGE, KERNEL, 1, "HALF", 1)),
    ("pool_size, strides and dilation must be positive", on(
        nn.pool2d, IMAGE, (0, 0), (1, 1), (1, 1), (0, 0, 0, 0), "max")),
    ("data must have 4 dimensions, got 2", on(nn.pool2d, X, (2, 2), (1, 1), (1, 1), (0, 0, 0, 0), "max")),
    ("nn.pool2d: pool_type 'sum'", on(nn.pool2d, IMAGE, (2, 2), (1, 1), (1, 1), (0, 0, 0, 0), "sum")),
    ("nn.global_pool: pool_type 'sum'", on(nn.global_pool, IMAGE, "sum")),
    ("nn.adaptive_pool: pool_type 'sum'", on(nn.adaptive_pool, IMAGE, (2, 2), "sum")),
    ("1 and 1 widths for 2 dimensions", on(nn.pad, X, [1])),
    ("mode 'CIRCULAR'", on(nn.mirror_pad, X, [1, 1], mode="CIRCULAR")),
    ("1 strides for 2 dimensions", on(nn.dilate, X, [2])),
    ("there is no F(3, 3) with stride 1 here", on(matrices, 3)),
    ("there is no F(4, 3) with stride 2 here", on(matrices, 4, 2)),
    # the rest of nn
    ("slope must have one dimension, got 2", on(nn.prelu, IMAGE, X)),
    ("nn.flatten: takes a tensor of at least one dimension", on(nn.flatten, t())),
    ("axes (2,) with channel axis 1", on(nn.group_norm, IMAGE, None, None, 2, 1, (2,))),
    ("4 channels do not divide into 3 groups", on(nn.group_norm, IMAGE, None, None, 3, 1, (2, 3))),
    ("size must be positive, got 0", on(nn.lrn, IMAGE, 0)),
    ("takes a tensor with 4 dimensions, got 2", on(nn.depth_to_space, X, 2)),
    ("layout 'CHWN'", on(nn.depth_to_space, IMAGE, 2, "CHWN")),
    ("4 channels do not divide by 3 squared", on(nn.depth_to_space, IMAGE, 3)),
    ("8 x 8 does not divide into blocks of 3", on(nn.space_to_depth, IMAGE, 3)),
    ("a fractional scale of a symbolic size", on(nn.upsampling, t(1, 4, N, M), 1.5, 1.5)),
    ("method 'cubic'", on(nn.upsampling, IMAGE, 2, 2, method="cubic")),
]  # fmt: skip


test_the_message_comes = refused(CASES)
