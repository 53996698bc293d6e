"""Computations of neural networks against NumPy: convolutions by their definition, the others by formula."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tolerance import close
from topi_values import floats, ints, value

from warpbeam import te, topi

nn, conv_python = topi.nn, topi.testing.conv_python


@pytest.mark.parametrize(("stride", "pad", "dilation"), [(1, 0, 1), (2, 1, 1), (1, (0, 1, 2, 1), 2), (1, "SAME", 1)])
def test_conv2d(stride, pad, dilation):
    x, w = ints(2, 3, 7, 6), ints(4, 3, 3, 2)
    want = conv_python(x, w, stride, pad, dilation)
    np.testing.assert_array_equal(value(lambda a, b: nn.conv2d_nchw(a, b, stride, pad, dilation), x, w), want)
    last, hwio = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    got = value(lambda a, b: nn.conv2d_nhwc(a, b, stride, pad, dilation), last, hwio)
    np.testing.assert_array_equal(got, want.transpose(0, 2, 3, 1))
    hwcn = np.ascontiguousarray(x.transpose(2, 3, 1, 0))
    got = value(lambda a, b: nn.conv2d_hwcn(a, b, stride, pad, dilation), hwcn, hwio)
    np.testing.assert_array_equal(got, want.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(value(lambda a, b: nn.conv2d(a, b, stride, pad, dilation), x, w), want)


def test_conv_other_ranks_and_groups():
    x, w = ints(2, 3, 9), ints(4, 3, 3)
    np.testing.assert_array_equal(value(lambda a, b: nn.conv1d_ncw(a, b, 2, 1), x, w), conv_python(x, w, 2, 1))
    x, w = ints(1, 2, 4, 5, 4), ints(3, 2, 2, 3, 2)
    np.testing.assert_array_equal(value(lambda a, b: nn.conv3d_ncdhw(a, b, 1, 1), x, w), conv_python(x, w, 1, 1))
    x, w = ints(1, 4, 5, 5), ints(6, 2, 3, 3)
    got = value(lambda a, b: nn.group_conv2d_nchw(a, b, 1, 1, 1, 2), x, w)
    np.testing.assert_array_equal(got, conv_python(x, w, 1, 1, 1, 2))


def test_depthwise():
    x, w = ints(1, 3, 6, 5), ints(3, 2, 3, 3)
    want = conv_python(x, w.reshape(6, 1, 3, 3), 2, 1, 1, 3)
    np.testing.assert_array_equal(value(lambda a, b: nn.depthwise_conv2d_nchw(a, b, 2, 1), x, w), want)
    last, hwcm = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 0, 1))
    got = value(lambda a, b: nn.depthwise_conv2d_nhwc(a, b, 2, 1), last, hwcm)
    np.testing.assert_array_equal(got, want.transpose(0, 2, 3, 1))


def test_conv2d_in_blocks():
    x, w = ints(1, 4, 5, 5), ints(6, 4, 3, 3)
    want = conv_python(x, w, 1, 1)
    data = value(lambda a: topi.layout_transform(a, "NCHW", "NCHW2c"), x)
    kernel = np.ascontiguousarray(w.reshape(2, 3, 2, 2, 3, 3).transpose(0, 2, 4, 5, 3, 1))
    got = value(lambda a, b: nn.conv2d_NCHWc(a, b, 1, 1), data, kernel)
    np.testing.assert_array_equal(got.transpose(0, 1, 4, 2, 3).reshape(want.shape), want)


@pytest.mark.parametrize(("stride", "pad", "extra"), [(1, 0, 0), (2, 1, 1), (3, (0, 1, 1, 0), 0)])
def test_conv2d_transpose(stride, pad, extra):
    x, w = ints(1, 3, 4, 3), ints(3, 2, 3, 2)
    want = topi.testing.conv2d_transpose_nchw_python(x, w, stride, pad, extra)
    got = value(lambda a, b: nn.conv2d_transpose_nchw(a, b, stride, pad, "int32", extra), x, w)
    np.testing.assert_array_equal(got, want)


def test_products():
    x, w, b = floats(3, 5), floats(4, 5), floats(4)
    close(value(nn.dense, x, w, b), x @ w.T + b, terms=5 + 1)
    got = value(lambda a, c: nn.dense(a, c, out_dtype="int32"), ints(2, 3).astype(np.int8), ints(4, 3).astype(np.int8))
    assert got.dtype == np.int32
    p, q = ints(2, 3, 4), ints(2, 5, 4)
    np.testing.assert_array_equal(value(nn.batch_matmul, p, q), p @ q.transpose(0, 2, 1))
    np.testing.assert_array_equal(value(lambda a, c: nn.matmul(a, c, transpose_b=True), p[0], q[0]), p[0] @ q[0].T)
    with pytest.raises(ValueError, match="summed dimensions"):
        nn.dense(te.placeholder((2, 3)), te.placeholder((4, 5)))


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("ceil", [False, True])
def test_pool2d(kind, ceil):
    x = floats(1, 2, 7, 6)
    for kernel, stride, pad, include in [((3, 2), (2, 2), (1, 0, 1, 1), True), ((2, 3), (1, 2), (0, 1, 0, 1), False)]:
        out = [
            -(-(s + pad[i] + pad[i + 2] - k) // st) + 1 if ceil else (s + pad[i] + pad[i + 2] - k) // st + 1
            for i, (s, k, st) in enumerate(zip(x.shape[2:], kernel, stride, strict=True))
        ]
        out = [min(o, (s + pad[i] - 1) // stride[i] + 1) for i, (o, s) in enumerate(zip(out, x.shape[2:]))]
        want = np.zeros((1, 2, *out), np.float32)
        for i, j in itertools.product(*map(range, out)):
            y, z = i * stride[0] - pad[0], j * stride[1] - pad[1]
            window = x[:, :, max(y, 0) : max(y + kernel[0], 0), max(z, 0) : max(z + kernel[1], 0)]
            if kind == "max":
                want[:, :, i, j] = window.max(axis=(2, 3))
            else:
                high = [min(v + k, s + e) for v, k, s, e in zip((y, z), kernel, x.shape[2:], pad[2:])]
                count = (high[0] - y) * (high[1] - z) if include else window.shape[2] * window.shape[3]
                want[:, :, i, j] = window.sum(axis=(2, 3)) / count

        def pooled(t, g=(kernel, stride, (1, 1), pad), c=include):
            return nn.pool2d(t, *g, kind, ceil_mode=ceil, count_include_pad=c)

        close(value(pooled, x), want, terms=kernel[0] * kernel[1] + 1)


def test_global_and_adaptive_pool():
    x = floats(2, 3, 5, 7)
    np.testing.assert_array_equal(value(lambda t: nn.global_pool(t, "max"), x), x.max(axis=(2, 3), keepdims=True))
    got = value(lambda t: nn.global_pool(t, "avg"), x)
    close(got, x.mean(axis=(2, 3), keepdims=True), terms=5 * 7 + 1)
    for kind, ref in (("max", np.max), ("avg", np.mean)):
        want = np.zeros((2, 3, 3, 2), np.float32)
        for i, j in itertools.product(range(3), range(2)):
            part = x[:, :, i * 5 // 3 : -(-(i + 1) * 5 // 3), j * 7 // 2 : -(-(j + 1) * 7 // 2)]
            want[:, :, i, j] = ref(part, axis=(2, 3))
        got = value(lambda t, k=kind: nn.adaptive_pool(t, (3, 2), k), x)
        close(got, want, terms=3 * 4 + 1)


def test_softmax():
    x = floats(3, 5)
    want = topi.testing.softmax_python(x)
    close(value(nn.softmax, x), want, terms=5 + 3)
    close(value(nn.log_softmax, x), np.log(want), terms=5 + 3)
    want = topi.testing.softmax_python(x, 0)
    close(value(lambda t: nn.softmax(t, 0), x), want, terms=3 + 3)


def test_normalisations():
    x, g, b = floats(2, 4, 3, 3), floats(4), floats(4)
    mean, var = floats(4), np.abs(floats(4)) + 0.5
    along = (slice(None), None, None)
    want = (x - mean[along]) / np.sqrt(var[along] + 1e-5) * g[along] + b[along]
    got = value(lambda *t: nn.batch_norm(*t)[0], x, g, b, mean, var)
    close(got, want, terms=5)
    close(value(nn.scale_shift_nchw, x, g, b), x * g[along] + b[along], terms=2)
    row, gr, br = floats(3, 5), floats(5), floats(5)
    want = (row - row.mean(-1, keepdims=True)) / np.sqrt(row.var(-1, keepdims=True) + 1e-5) * gr + br
    close(value(lambda *t: nn.layer_norm(*t, axis=-1), row, gr, br), want, terms=2 * 5 + 5)
    grouped = x.reshape(2, 2, 2, 3, 3)
    axes = (2, 3, 4)
    want = (grouped - grouped.mean(axes, keepdims=True)) / np.sqrt(grouped.var(axes, keepdims=True) + 1e-5)
    want = want.reshape(x.shape) * g[along] + b[along]
    got = value(lambda *t: nn.group_norm(*t, 2, 1, (2, 3)), x, g, b)
    close(got, want, terms=2 * 18 + 5)
    want = topi.testing.lrn_python(x, 3, 1, 2, 0.1, 0.75)
    close(value(lambda t: nn.lrn(t, 3, 1, 0.1, 0.75, 2), x), want, terms=3 + 4)


def test_borders_and_activations():
    x = ints(2, 3)
    got = value(lambda t: nn.pad(t, (1, 0), (0, 2), 7), x)
    np.testing.assert_array_equal(got, np.pad(x, ((1, 0), (0, 2)), constant_values=7))
    for mode in ("SYMMETRIC", "REFLECT"):
        got = value(lambda t, m=mode: nn.mirror_pad(t, (1, 1), (1, 2), m), x)
        np.testing.assert_array_equal(got, np.pad(x, ((1, 1), (1, 2)), mode=mode.lower()))
    spread = topi.testing.dilate_python(x, (2, 2), 4)
    np.testing.assert_array_equal(value(lambda t: nn.dilate(t, (2, 2), 4), x), spread)
    y, slope = floats(2, 3, 2), floats(3)
    np.testing.assert_array_equal(value(nn.relu, y), np.maximum(y, 0))
    np.testing.assert_array_equal(value(lambda t: nn.leaky_relu(t, 0.5), y), np.where(y > 0, y, y * np.float32(0.5)))
    np.testing.assert_array_equal(value(nn.prelu, y, slope), np.where(y > 0, y, y * slope[:, None]))
    np.testing.assert_array_equal(value(nn.flatten, y), y.reshape(2, 6))
    np.testing.assert_array_equal(value(nn.bias_add, y, slope), y + slope[:, None])


def test_space_and_upsampling():
    x = floats(1, 4, 2, 3)
    blocks = x.reshape(1, 2, 2, 1, 2, 3).transpose(0, 3, 4, 1, 5, 2).reshape(1, 1, 4, 6)
    np.testing.assert_array_equal(value(lambda t: nn.depth_to_space(t, 2), x), blocks)
    np.testing.assert_array_equal(value(lambda t: nn.space_to_depth(t, 2), blocks), x)
    np.testing.assert_array_equal(value(lambda t: nn.upsampling(t, 2, 3), x), x.repeat(2, 2).repeat(3, 3))
    got = value(lambda t: nn.upsampling(t, 2, 2, method="bilinear", align_corners=True), x)
    places = [np.linspace(0, s - 1, 2 * s) for s in x.shape[2:]]
    rows = np.stack([np.apply_along_axis(lambda v, p=p: np.interp(p, range(2), v), 2, x) for p in places[0]], 2)
    want = np.stack([np.apply_along_axis(lambda v, p=p: np.interp(p, range(3), v), 3, rows) for p in places[1]], 3)
    close(got, want, terms=8)


def test_sparse_dense():
    x = floats(3, 6)
    w = floats(4, 6) * (floats(4, 6) > 0.5)
    rows, columns = np.nonzero(w)
    indptr = np.searchsorted(rows, np.arange(5)).astype(np.int32)
    data, indices = w[rows, columns], columns.astype(np.int32)
    close(value(nn.sparse_dense, x, data, indices, indptr), x @ w.T, terms=6)
    got = value(lambda *t: nn.sparse_dense(*t, sparse_lhs=True), x, data, indices, indptr)
    close(got, w @ x.T, terms=6)
    blocks, places, starts = floats(3, 2, 3), np.array([1, 0, 1], np.int32), np.array([0, 1, 3], np.int32)
    full = np.zeros((4, 6), np.float32)
    full[0:2, 3:6], full[2:4, 0:3], full[2:4, 3:6] = blocks
    close(value(nn.sparse_dense, x, blocks, places, starts), x @ full.T, terms=6)
