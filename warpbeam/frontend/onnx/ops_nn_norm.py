"""Converters of matrix products, normalisations and softmax-like operators."""

from __future__ import annotations

from typing import Any

from warpbeam.frontend.onnx.node import NodeView
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Expr, const
from warpbeam.topi import dims

Result = Expr | list[Expr]


def shape_of(x: Expr) -> tuple[Any, ...]:
    return x.checked_type.shape  # type: ignore[attr-defined, no-any-return]


def dtype_of(x: Expr) -> str:
    return x.checked_type.dtype  # type: ignore[attr-defined, no-any-return]


def scalar(value: Any, like: Expr) -> Expr:
    """A scalar constant of the dtype of `like`."""
    return const(value, dtype_of(like))


def cast_to(x: Expr, dtype: str) -> Expr:
    return x if dtype_of(x) == dtype else get("cast")(x, dtype=dtype)  # type: ignore[no-any-return]


def wanted(node: NodeView, index: int) -> bool:
    """Whether output `index` is used."""
    return index < len(node.outputs) and bool(node.outputs[index])


def matmul(node: NodeView, a: Expr, b: Expr) -> Result:
    return get("nn.matmul")(a, b)


def _scaled(x: Expr, factor: float) -> Expr:
    """factor * x; integer tensors by way of float64."""
    if factor == 1.0:
        return x
    if dt.is_float(dtype_of(x)):
        return get("multiply")(x, scalar(factor, x))  # type: ignore[no-any-return]
    wide = get("multiply")(cast_to(x, "float64"), const(factor, "float64"))
    return get("cast")(wide, dtype=dtype_of(x))  # type: ignore[no-any-return]


def gemm(node: NodeView, a: Expr, b: Expr, c: Expr | None = None) -> Result:
    """alpha * a' b' + beta * c."""
    alpha, beta = float(node.attr("alpha", 1.0)), float(node.attr("beta", 1.0))
    ta, tb = bool(node.attr("transA", 0)), bool(node.attr("transB", 0))
    y: Expr = get("nn.dense")(a, b) if tb and not ta else get("nn.matmul")(a, b, transpose_a=ta, transpose_b=tb)
    y = _scaled(y, alpha)
    if c is None or beta == 0.0:
        return y
    c = _scaled(c, beta)
    width = shape_of(y)[-1]
    if len(shape_of(c)) == 1 and shape_of(c)[0] != 1 and dims.same(shape_of(c)[0], width) is not False:
        return get("nn.bias_add")(y, c, axis=1)
    return get("add")(y, c)


def batch_norm(node: NodeView, x: Expr, scale: Expr, bias: Expr, mean: Expr, var: Expr) -> Result:
    """BatchNormalization: inference, or training mode with its running statistics."""
    if node.opset < 9 and not node.attr("spatial", 1):
        raise node.unsupported("spatial=0")
    epsilon = float(node.attr("epsilon", 1e-5))
    if not node.attr("training_mode", 0):
        if any(wanted(node, i) for i in range(1, 5)):
            raise node.unsupported("training outputs of an inference node")
        return get("nn.batch_norm")(x, scale, bias, mean, var, axis=1, epsilon=epsilon)
    axes = tuple(a for a in range(len(shape_of(x))) if a != 1)
    here = get("mean")(cast_to(x, dtype_of(mean)), axis=axes)
    spread = get("variance")(cast_to(x, dtype_of(var)), axis=axes)
    momentum = float(node.attr("momentum", 0.9))

    def running(old: Expr, new: Expr) -> Expr:
        kept = get("multiply")(old, scalar(momentum, old))
        return get("add")(kept, get("multiply")(new, scalar(1 - momentum, old)))  # type: ignore[no-any-return]

    y = get("nn.batch_norm")(x, scale, bias, here, spread, axis=1, epsilon=epsilon)
    return [y, running(mean, here), running(var, spread)]


def layer_norm(node: NodeView, x: Expr, scale: Expr, bias: Expr | None = None) -> Result:
    """LayerNormalization with its Mean and InvStdDev outputs."""
    rank, epsilon = len(shape_of(x)), float(node.attr("epsilon", 1e-5))
    first = int(node.attr("axis", -1)) % rank
    axes = tuple(range(first, rank))
    y = _normalised(get("nn.layer_norm"), x, scale, bias, axes, epsilon)
    if not (wanted(node, 1) or wanted(node, 2)):
        return y
    stash = "float32" if int(node.attr("stash_type", 1)) == 1 else dtype_of(x)
    wide = cast_to(x, stash)
    mean = get("mean")(wide, axis=axes, keepdims=True)
    variance = get("variance")(wide, axis=axes, keepdims=True)
    inverse = get("rsqrt")(get("add")(variance, const(epsilon, stash)))
    return [y, mean, inverse]


def _full(have: Any, size: Any) -> bool:
    """Whether a dimension that must broadcast to `size` is `size` itself."""
    same = dims.same(have, size)
    return same is True or (same is None and isinstance(have, int) and have != 1)


def _normalised(op: Any, x: Expr, scale: Expr, bias: Expr | None, axes: tuple[int, ...], epsilon: float) -> Expr:
    """Layer or RMS norm with scale and bias, which usually have the normalised shape but may broadcast."""
    own = [shape_of(x)[a] for a in axes]

    def fits(t: Expr) -> bool:
        have = shape_of(t)
        same = len(have) == len(own) and all(_full(a, b) for a, b in zip(have, own, strict=True))
        return same and dtype_of(t) == dtype_of(x)

    if fits(scale) and (bias is None or fits(bias)):
        operands = [scale] if bias is None else [scale, bias]
        return op(x, *operands, axis=axes, epsilon=epsilon, center=bias is not None)  # type: ignore[no-any-return]
    y = op(x, axis=axes, epsilon=epsilon, center=False, scale=False)
    y = get("multiply")(y, cast_to(scale, dtype_of(x)))
    return y if bias is None else get("add")(y, cast_to(bias, dtype_of(x)))  # type: ignore[no-any-return]


def rms_norm(node: NodeView, x: Expr, scale: Expr) -> Result:
    rank = len(shape_of(x))
    first = int(node.attr("axis", -1)) % rank
    axes = tuple(range(first, rank))
    return _normalised(get("nn.rms_norm"), x, scale, None, axes, float(node.attr("epsilon", 1e-5)))


def instance_norm(node: NodeView, x: Expr, scale: Expr, bias: Expr) -> Result:
    return get("nn.instance_norm")(x, scale, bias, axis=1, epsilon=float(node.attr("epsilon", 1e-5)))


def group_norm(node: NodeView, x: Expr, scale: Expr, bias: Expr) -> Result:
    """GroupNormalization: scale and bias per group (18) or per channel (21)."""
    groups, channels = int(node.attr("num_groups")), shape_of(x)[1]
    if node.opset < 21:
        if not isinstance(channels, int):
            raise node.unsupported("a symbolic number of channels")
        scale = get("repeat")(scale, repeats=channels // groups, axis=0)
        bias = get("repeat")(bias, repeats=channels // groups, axis=0)
    epsilon = float(node.attr("epsilon", 1e-5))
    return get("nn.group_norm")(x, scale, bias, num_groups=groups, axis=1, epsilon=epsilon)


def lrn(node: NodeView, x: Expr) -> Result:
    return get("nn.lrn")(
        x,
        size=int(node.attr("size")),
        axis=1,
        bias=float(node.attr("bias", 1.0)),
        alpha=float(node.attr("alpha", 1e-4)),
        beta=float(node.attr("beta", 0.75)),
    )


def lp_normalization(node: NodeView, x: Expr) -> Result:
    return get("nn.lp_normalize")(x, axis=int(node.attr("axis", -1)), p=int(node.attr("p", 2)))


def mean_variance_norm(node: NodeView, x: Expr) -> Result:
    axes = tuple(int(a) for a in node.attr("axes", (0, 2, 3)))
    return get("nn.mean_variance_norm")(x, axis=axes)


def _rows(name: str) -> tuple[Any, Any]:
    """(converter before opset 13: all axes from `axis` together, converter since)."""

    def flattened(node: NodeView, x: Expr) -> Result:
        rank = len(shape_of(x))
        axis = int(node.attr("axis", 1))
        first = axis % rank if axis < 0 else min(axis, rank)
        axes = tuple(range(first, rank))
        return get(name)(x, axis=axes[0] if len(axes) == 1 else axes)

    def single(node: NodeView, x: Expr) -> Result:
        return get(name)(x, axis=int(node.attr("axis", -1)))

    return flattened, single


def prelu(node: NodeView, x: Expr, slope: Expr) -> Result:
    """PRelu; the slope broadcasts to x."""
    rank, have = len(shape_of(x)), shape_of(slope)
    own = [a for a, d in enumerate(have, rank - len(have)) if not (isinstance(d, int) and d == 1)]
    if len(own) == 1 and len(have) <= rank and dt.is_float(dtype_of(x)):
        size = have[own[0] - rank + len(have)]
        if _full(size, shape_of(x)[own[0]]):
            return get("nn.prelu")(x, get("reshape")(slope, newshape=(size,)), axis=own[0])
    negative = get("less")(x, scalar(0, x))
    return get("where")(negative, get("multiply")(x, slope), x)


def prelu_1(node: NodeView, x: Expr, slope: Expr) -> Result:
    """PRelu before opset 7: one slope, or one per channel."""
    have, rank = shape_of(slope), len(shape_of(x))
    if len(have) == 1 and have[0] != 1 and rank > 2:
        slope = get("reshape")(slope, newshape=(have[0], *(1,) * (rank - 2)))
    return prelu(node, x, slope)


def leaky_relu(node: NodeView, x: Expr) -> Result:
    return get("nn.leaky_relu")(x, alpha=float(node.attr("alpha", 0.01)))


_SOFTMAX, _LOG_SOFTMAX, _HARDMAX = _rows("nn.softmax"), _rows("nn.log_softmax"), _rows("nn.hardmax")

TABLE: dict[str, dict[int, Any]] = {
    "MatMul": {1: matmul},
    "Gemm": {6: gemm},
    "BatchNormalization": {6: batch_norm},
    "LayerNormalization": {17: layer_norm},
    "RMSNormalization": {23: rms_norm},
    "InstanceNormalization": {6: instance_norm},
    "GroupNormalization": {18: group_norm},
    "LRN": {1: lrn},
    "LpNormalization": {1: lp_normalization},
    "MeanVarianceNormalization": {9: mean_variance_norm},
    "Softmax": {1: _SOFTMAX[0], 13: _SOFTMAX[1]},
    "LogSoftmax": {1: _LOG_SOFTMAX[0], 13: _LOG_SOFTMAX[1]},
    "Hardmax": {1: _HARDMAX[0], 13: _HARDMAX[1]},
    "PRelu": {1: prelu_1, 7: prelu},
    "LeakyRelu": {6: leaky_relu},
}

__all__ = ["TABLE", "cast_to", "dtype_of", "scalar", "shape_of", "wanted"]
