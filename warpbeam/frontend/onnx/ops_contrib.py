"""Converters of com.microsoft's fused operators: products, convolutions and norms with what stands around them."""

from __future__ import annotations

import math
from typing import Any

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, like, rank_of, reshape, shape_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_nn_attention import rotary_embedding
from warpbeam.frontend.onnx.ops_nn_norm import gemm
from warpbeam.frontend.onnx.ops_nn_window import conv
from warpbeam.op import get
from warpbeam.relay.expr import Expr, const
from warpbeam.topi import dims


def _mul(a: Expr, b: Any) -> Expr:
    return get("multiply")(a, like(b, a) if isinstance(b, float) else b)  # type: ignore[no-any-return]


def _add(a: Expr, b: Any) -> Expr:
    return get("add")(a, like(b, a) if isinstance(b, float) else b)  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------------------------------- activations


def gelu(x: Expr) -> Expr:
    return _mul(_mul(x, 0.5), _add(get("erf")(_mul(x, math.sqrt(0.5))), 1.0))


def _gelu(node: NodeView, x: Expr) -> Result:
    return gelu(x)


def _bias_gelu(node: NodeView, x: Expr, bias: Expr) -> Result:
    return gelu(get("add")(x, bias))


def _fast_gelu(node: NodeView, x: Expr, bias: Expr | None = None) -> Result:
    x = x if bias is None else get("add")(x, bias)
    inner = _mul(_add(x, _mul(_mul(_mul(x, x), x), 0.044715)), math.sqrt(2 / math.pi))
    return _mul(_mul(x, 0.5), _add(get("tanh")(inner), 1.0))


def _quick_gelu(node: NodeView, x: Expr) -> Result:
    return _mul(x, get("sigmoid")(_mul(x, float(node.attr("alpha", 1.702)))))


def activated(node: NodeView, x: Expr, name: str, params: list[float]) -> Expr:
    """The activation that a fused operator names, with its parameters in the order of ONNX's attributes."""

    def param(k: int, default: float) -> float:
        return float(params[k]) if k < len(params) else default

    if name in ("", "Linear", "Identity"):
        return x
    if name == "Relu":
        return get("nn.relu")(x)  # type: ignore[no-any-return]
    if name in ("Sigmoid", "Tanh"):
        return get(name.lower())(x)  # type: ignore[no-any-return]
    if name == "LeakyRelu":
        return get("nn.leaky_relu")(x, alpha=param(0, 0.01))  # type: ignore[no-any-return]
    if name == "Clip":
        return get("clip")(x, a_min=param(0, -math.inf), a_max=param(1, math.inf))  # type: ignore[no-any-return]
    if name == "HardSigmoid":
        return get("clip")(_add(_mul(x, param(0, 0.2)), param(1, 0.5)), a_min=0.0, a_max=1.0)  # type: ignore[no-any-return]
    if name == "Gelu":
        return gelu(x)
    raise node.unsupported(f"activation {name[:20]!r}")


# -------------------------------------------------------------------------------------------- products and convolutions


def fused_matmul(node: NodeView, a: Expr, b: Expr) -> Result:
    """alpha * a' b'; transBatch moves the batch dimensions but the first behind the rows."""
    for name, x in (("transBatchA", a), ("transBatchB", b)):
        if node.attr(name, 0):
            rank = rank_of(x)
            moved = get("transpose")(x, axes=(*range(1, rank - 1), 0, rank - 1))
            a, b = (moved, b) if name.endswith("A") else (a, moved)
    ta, tb = (bool(node.attr(n, 0)) for n in ("transA", "transB"))
    y = get("nn.matmul")(a, b, transpose_a=ta and rank_of(a) > 1, transpose_b=tb and rank_of(b) > 1)
    alpha = float(node.attr("alpha", 1.0))
    return y if alpha == 1.0 else _mul(y, alpha)


def fused_gemm(node: NodeView, a: Expr, b: Expr, c: Expr | None = None) -> Result:
    """Gemm and an activation."""
    y = gemm(node, a, b, c)
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    params = [float(node.attr(n)) for n in names if node.has_attr(n)]
    return activated(node, y, node.attr("activation", ""), params)  # type: ignore[arg-type]


def fused_conv(node: NodeView, x: Expr, w: Expr, b: Expr | None = None, z: Expr | None = None) -> Result:
    """Conv, a sum and an activation."""
    y: Any = conv(node, x, w, b)
    y = y if z is None else get("add")(y, z)
    return activated(node, y, node.attr("activation", ""), list(node.attr("activation_params", []) or []))


def nhwc_conv(node: NodeView, x: Expr, w: Expr, b: Expr | None = None) -> Result:
    """NhwcConv: data channels last, weights (outputs, spatial…, inputs)."""
    rank = rank_of(x)
    front = get("transpose")(x, axes=(0, rank - 1, *range(1, rank - 1)))
    kernel = get("transpose")(w, axes=(0, rank - 1, *range(1, rank - 1)))
    y = conv(node, front, kernel, b)
    return get("transpose")(y, axes=(0, *range(2, rank), 1))


# --------------------------------------------------------------------------------------------------------------- norms


def skip_layer_norm(
    node: NodeView, x: Expr, skip: Expr, gamma: Expr, beta: Expr | None = None, bias: Expr | None = None
) -> Result:
    """SkipLayerNormalization: the norm of x + skip (+ bias); outputs Y, Mean, InvStdDev, the sum."""
    total = _skip_sum(x, skip, bias)
    epsilon = float(node.attr("epsilon", 1e-12))
    y = get("nn.layer_norm")(
        total, gamma, *([] if beta is None else [beta]), axis=(-1,), epsilon=epsilon, center=beta is not None
    )
    wide = cast_to(total, "float32")
    mean = get("mean")(wide, axis=(-1,), keepdims=True)
    variance = get("variance")(wide, axis=(-1,), keepdims=True)
    return [y, mean, get("rsqrt")(get("add")(variance, const(epsilon, "float32"))), total]


def skip_rms_norm(node: NodeView, x: Expr, skip: Expr, gamma: Expr, bias: Expr | None = None) -> Result:
    """SkipSimplifiedLayerNormalization."""
    total = _skip_sum(x, skip, bias)
    epsilon = float(node.attr("epsilon", 1e-12))
    y = get("nn.rms_norm")(total, gamma, axis=(-1,), epsilon=epsilon, center=False)
    wide = cast_to(total, "float32")
    power = get("mean")(get("multiply")(wide, wide), axis=(-1,), keepdims=True)
    return [y, power, get("rsqrt")(get("add")(power, const(epsilon, "float32"))), total]


def _skip_sum(x: Expr, skip: Expr, bias: Expr | None) -> Expr:
    total = get("add")(x, skip)
    return total if bias is None else get("add")(total, bias)  # type: ignore[no-any-return]


def embed_layer_norm(
    node: NodeView, ids: Expr, segments: Expr | None, words: Expr, places: Expr, kinds: Expr | None, gamma: Expr,
    beta: Expr, mask: Expr | None = None, position_ids: Expr | None = None,
) -> Result:  # fmt: skip
    """EmbedLayerNormalization: the norm of word, position and segment embeddings; how many each mask holds; the sum."""
    batch, length = shape_of(ids)
    total = get("take")(words, ids, axis=0)
    if position_ids is None:
        position_ids = get("arange")(start=0, stop=length, step=1, dtype="int32")
    total = get("add")(total, get("take")(places, position_ids, axis=0))
    if segments is not None and kinds is not None:
        total = get("add")(total, get("take")(kinds, segments, axis=0))
    epsilon = float(node.attr("epsilon", 1e-12))
    y = get("nn.layer_norm")(total, gamma, beta, axis=(-1,), epsilon=epsilon)
    if mask is not None and node.attr("mask_index_type", 0) in (0, 1):
        index = get("sum")(cast_to(mask, "int32"), axis=(1,))
    else:
        index = get("zeros")(shape=(batch,), dtype="int32")
    return [y, index, total]


def rotary(node: NodeView, x: Expr, positions: Expr, cos: Expr, sin: Expr) -> Result:
    """RotaryEmbedding: one position is where the sequence starts; the tables are (positions, half a head)."""
    if node.attr("is_packed_batching", 0):
        raise node.unsupported("packed batches")
    batch, length = (shape_of(x)[0], shape_of(x)[2 if rank_of(x) == 4 else 1])
    if rank_of(positions) < 2:
        steps = get("arange")(start=0, stop=length, step=1, dtype=dtype_of(positions))
        positions = get("broadcast_to")(get("add")(steps, reshape(positions, (1,))), shape=(batch, length))
    if rank_of(x) == 3 and not node.attr("num_heads", 0):
        return _rotary_unnamed(node, x, positions, cos, sin)
    return rotary_embedding(node, x, cos, sin, positions)


def _rotary_unnamed(node: NodeView, x: Expr, positions: Expr, cos: Expr, sin: Expr) -> Result:
    """Three dimensions without num_heads: the tables say how large a head is."""
    size = dims.dim(shape_of(cos)[1] * 2)
    batch, length, hidden = shape_of(x)
    heads = get("reshape")(x, newshape=(batch, length, dims.exact_div(hidden, size), size))
    four = get("transpose")(heads, axes=(0, 2, 1, 3))
    y = rotary_embedding(node, four, cos, sin, positions)
    return reshape(get("transpose")(y, axes=(0, 2, 1, 3)), shape_of(x))


MS = "com.microsoft::"
TABLE: dict[str, dict[int, Any]] = {
    f"{MS}Gelu": {1: _gelu},
    f"{MS}BiasGelu": {1: _bias_gelu},
    f"{MS}FastGelu": {1: _fast_gelu},
    f"{MS}QuickGelu": {1: _quick_gelu},
    f"{MS}FusedMatMul": {1: fused_matmul},
    f"{MS}TransposeMatMul": {1: fused_matmul},
    f"{MS}FusedGemm": {1: fused_gemm},
    f"{MS}FusedConv": {1: fused_conv},
    f"{MS}NhwcConv": {1: nhwc_conv},
    f"{MS}SkipLayerNormalization": {1: skip_layer_norm},
    f"{MS}SkipSimplifiedLayerNormalization": {1: skip_rms_norm},
    f"{MS}EmbedLayerNormalization": {1: embed_layer_norm},
    f"{MS}RotaryEmbedding": {1: rotary},
}
