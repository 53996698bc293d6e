"""Converters of attention and its companions, as products, masks and softmax of the graph."""

from __future__ import annotations

import math
from typing import Any

from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_index import onnx_dtype
from warpbeam.frontend.onnx.ops_nn_norm import cast_to, dtype_of, scalar, shape_of, wanted
from warpbeam.op import get
from warpbeam.op.base import HALF, accumulation
from warpbeam.relay.expr import Expr, const
from warpbeam.topi import dims

Result = Expr | list[Expr]


def split_heads(node: NodeView, x: Expr, heads: int | None) -> Expr:
    """(B, S, H·D) as (B, H, S, D); four-dimensional data as it is."""
    shape = shape_of(x)
    if len(shape) == 4:
        return x
    if len(shape) != 3 or not heads:
        raise node.error("operands must have 3 dimensions and a number of heads, or 4 dimensions")
    parts = get("reshape")(x, newshape=(shape[0], shape[1], heads, dims.exact_div(shape[2], heads)))
    return get("transpose")(parts, axes=(0, 2, 1, 3))  # type: ignore[no-any-return]


def merge_heads(x: Expr) -> Expr:
    """(B, H, S, D) as (B, S, H·D)."""
    b, h, s, d = shape_of(x)
    return get("reshape")(get("transpose")(x, axes=(0, 2, 1, 3)), newshape=(b, s, dims.prod((h, d))))  # type: ignore[no-any-return]


class Mask:
    """What each query may see: an additive float bias and a boolean, either of them None where nothing is masked."""

    def __init__(self, node: NodeView, queries: Any, keys: Any, dtype: str) -> None:
        self.node, self.queries, self.keys, self.dtype = node, queries, keys, dtype
        self.allowed: Expr | None = None
        self.bias: Expr | None = None
        self.sure = True  # every query sees at least one key

    def allow(self, cond: Expr) -> None:
        self.allowed = cond if self.allowed is None else get("logical_and")(self.allowed, cond)

    def positions(self) -> tuple[Expr, Expr]:
        """(query positions (q, 1), key positions (1, k))."""
        q = get("expand_dims")(get("arange")(start=0, stop=self.queries, step=1, dtype="int64"), axis=1)
        k = get("expand_dims")(get("arange")(start=0, stop=self.keys, step=1, dtype="int64"), axis=0)
        return q, k

    def given(self, mask: Expr) -> None:
        """The operand attn_mask, made as wide as the keys with what masks."""
        self.sure = False
        gap = dims.dim(self.keys - shape_of(mask)[-1])
        boolean = dtype_of(mask) == "bool"
        if not (isinstance(gap, int) and gap <= 0) and not _is_one(shape_of(mask)[-1], self.keys):
            widths = ((0, 0),) * (len(shape_of(mask)) - 1) + ((0, gap),)
            fill = const(False, "bool") if boolean else scalar(-math.inf, mask)
            mask = get("nn.pad")(mask, fill, pad_width=widths)
        if boolean:
            self.allow(mask)
        else:
            self.bias = cast_to(mask, self.dtype)

    def causal(self, offset: Any, left: int, right: int) -> None:
        """Keys j with p - left <= j <= p + right for p = query + offset (an int, an expression or (B, 1, 1, 1))."""
        q, k = self.positions()
        if isinstance(offset, Expr):
            p = get("add")(q, offset)
        elif isinstance(offset, int) and offset == 0:
            p = q
        else:
            shift = const(offset, "int64") if isinstance(offset, int) else _size_tensor(offset)
            p = get("add")(q, shift)
        if right >= 0:
            limit = p if right == 0 else get("add")(p, const(right, "int64"))
            self.allow(get("less_equal")(k, limit))
        if left >= 0:
            self.allow(get("greater_equal")(k, get("subtract")(p, const(left, "int64"))))

    def valid(self, lengths: Expr) -> None:
        """Keys before each batch entry's length."""
        self.sure = False
        _, k = self.positions()
        self.allow(get("less")(k, get("reshape")(lengths, newshape=(shape_of(lengths)[0], 1, 1, 1))))

    def total(self) -> Expr | None:
        """The additive mask of everything, or None."""
        if self.allowed is None:
            return self.bias
        low = const(-math.inf, self.dtype)
        return get("where")(self.allowed, const(0, self.dtype) if self.bias is None else self.bias, low)  # type: ignore[no-any-return]


def _is_one(own: Any, keys: Any) -> bool:
    return isinstance(own, int) and own == 1 and dims.same(keys, 1) is not False


def _size_tensor(value: Any) -> Expr:
    return get("shape_tensor")(values=(value,), shape=(), dtype="int64")  # type: ignore[no-any-return]


def attention(
    node: NodeView,
    q: Expr,
    k: Expr,
    v: Expr,
    mask: Expr | None = None,
    past_key: Expr | None = None,
    past_value: Expr | None = None,
    lengths: Expr | None = None,
) -> Result:
    """Attention 23 and later: grouped heads, caches, masks, causal and windowed bounds, soft cap."""
    flat = len(shape_of(q)) == 3
    q = split_heads(node, q, node.attr("q_num_heads", None))
    k, v = (split_heads(node, t, node.attr("kv_num_heads", None)) for t in (k, v))
    past: Any = 0
    if past_key is not None and past_value is not None:
        past = shape_of(past_key)[2]
        k = get("concatenate")(past_key, k, axis=2)
        v = get("concatenate")(past_value, v, axis=2)
    scores = _scores(node, q, k)
    softcap = float(node.attr("softcap", 0.0) or 0.0)
    shown = {0: scores}
    if softcap > 0:
        capped = get("tanh")(get("divide")(scores, scalar(softcap, scores)))
        scores = get("multiply")(capped, scalar(softcap, scores))
    shown[1] = scores
    total, sure = _mask(node, q, k, mask, past, lengths)
    if total is not None:
        scores = get("add")(scores, total)
    shown[2] = scores
    probabilities = _softmax(node, scores, None if sure else total)
    shown[3] = cast_to(probabilities, dtype_of(q))
    y = cast_to(weighted_values(probabilities, cast_to(v, dtype_of(probabilities))), dtype_of(q))
    if flat:
        y = merge_heads(y)
    if not any(wanted(node, i) for i in (1, 2, 3)):
        return y
    return [y, k, v, shown[int(node.attr("qk_matmul_output_mode", 0))]]


def _mask(
    node: NodeView, q: Expr, k: Expr, mask: Expr | None, past: Any, lengths: Expr | None
) -> tuple[Expr | None, bool]:
    """(additive mask or None, whether every query surely sees a key)."""
    queries = shape_of(q)[2]
    seen = Mask(node, queries, shape_of(k)[2], dtype_of(q))
    if mask is not None:
        seen.given(mask)
    left, right = int(node.attr("left_window_size", -1)), int(node.attr("right_window_size", -1))
    causal = bool(node.attr("is_causal", 0))
    if causal:
        right = 0
    if left >= 0 or right >= 0:
        offset: Any = past
        if lengths is not None and not node.given(4):
            column = get("reshape")(lengths, newshape=(shape_of(lengths)[0], 1, 1, 1))
            count = const(queries, "int64") if isinstance(queries, int) else _size_tensor(queries)
            offset = get("subtract")(cast_to(column, "int64"), count)
        seen.sure = seen.sure and left < 0
        seen.causal(offset, left, right)
    if lengths is not None:
        seen.valid(cast_to(lengths, "int64"))
    return seen.total(), seen.sure


def _grouped(q: Expr, heads: Any) -> tuple[Expr, int]:
    """Query heads as (B, kv heads, group, …), and the group's size (1: unchanged)."""
    b, h, s, d = shape_of(q)
    if not isinstance(h, int) or not isinstance(heads, int) or h == heads or h % heads:
        return q, 1
    return get("reshape")(q, newshape=(b, heads, h // heads, s, d)), h // heads


def _scores(node: NodeView, q: Expr, k: Expr) -> Expr:
    """scale · q kᵀ, (B, H, queries, keys)."""
    size = shape_of(q)[3]
    given = node.attr("scale", None)
    if given is None and not isinstance(size, int):
        raise node.unsupported("a symbolic head size without a scale")
    return attention_scores(q, k, 1.0 / math.sqrt(size) if given is None else float(given))


def attention_scores(q: Expr, k: Expr, scale: float) -> Expr:
    """scale · q kᵀ, (B, H, queries, keys), where keys may have fewer heads; the root of the scale goes to each side."""
    root = math.sqrt(scale) if scale >= 0 else None
    left = get("multiply")(q, scalar(scale if root is None else root, q))
    right = k if root is None else get("multiply")(k, scalar(root, k))
    grouped, count = _grouped(left, shape_of(k)[1])
    if count > 1:
        right = get("expand_dims")(right, axis=2)
    y = get("nn.matmul")(grouped, right, transpose_b=True)
    return _ungrouped(y, count)


def _ungrouped(y: Expr, count: int) -> Expr:
    if count == 1:
        return y
    b, h, g, s, d = shape_of(y)
    return get("reshape")(y, newshape=(b, dims.prod((h, g)), s, d))  # type: ignore[no-any-return]


def _softmax(node: NodeView, scores: Expr, total: Expr | None) -> Expr:
    """Probabilities, of half floats in float32; a row whose mask lets nothing through is zero."""
    precision = node.attr("softmax_precision", None)
    wide = cast_to(scores, onnx_dtype(node, precision) if precision else accumulation(dtype_of(scores)))
    if dtype_of(wide) in HALF:
        wide = cast_to(wide, "float32")
    p = get("nn.softmax")(wide, axis=-1)
    if total is not None:
        top = get("max")(total, axis=(len(shape_of(total)) - 1,), keepdims=True)
        blind = get("equal")(top, scalar(-math.inf, total))
        p = get("where")(blind, scalar(0, p), p)
    return p  # type: ignore[no-any-return]


def weighted_values(p: Expr, v: Expr) -> Expr:
    """Sums of values weighted by probabilities, where values may have fewer heads."""
    grouped, count = _grouped(p, shape_of(v)[1])
    values = get("expand_dims")(v, axis=2) if count > 1 else v
    return _ungrouped(get("nn.matmul")(grouped, values), count)


def rotary_embedding(
    node: NodeView, x: Expr, cos: Expr, sin: Expr, places: Expr | None = None, interleaved: bool | None = None
) -> Result:
    """RotaryEmbedding: pairs of features (halves or neighbours) rotated by position."""
    four, shape = len(shape_of(x)) == 4, shape_of(x)
    if four:
        y = get("transpose")(x, axes=(0, 2, 1, 3))
    else:
        heads = int(node.attr("num_heads", 0))
        if heads < 1:
            raise node.error("num_heads is needed for data of 3 dimensions")
        y = get("reshape")(x, newshape=(shape[0], shape[1], heads, dims.exact_div(shape[2], heads)))
    size = shape_of(y)[3]
    if not isinstance(size, int):
        raise node.unsupported("a symbolic head size")
    turned = int(node.attr("rotary_embedding_dim", 0)) or size
    if places is not None:
        cos, sin = (get("take")(t, places, axis=0) for t in (cos, sin))
    cos, sin = (get("expand_dims")(t, axis=2) for t in (cos, sin))
    near = bool(node.attr("interleaved", 0)) if interleaved is None else interleaved
    step = 2 if near else 1
    starts = ((0, turned), (1, turned)) if near else ((0, turned // 2), (turned // 2, turned))

    def cut(begin: int, end: int, stride: int) -> Expr:
        return get("strided_slice")(y, begin=(begin,), end=(end,), strides=(stride,), axes=(3,))  # type: ignore[no-any-return]

    first, second = (cut(a, b, step) for a, b in starts)
    mul = get("multiply")
    real = get("subtract")(mul(cos, first), mul(sin, second))
    imag = get("add")(mul(sin, first), mul(cos, second))
    if near:
        pairs = get("stack")(real, imag, axis=4)
        out = get("reshape")(pairs, newshape=(*shape_of(real)[:3], turned))
    else:
        out = get("concatenate")(real, imag, axis=3)
    if turned < size:
        out = get("concatenate")(out, cut(turned, size, 1), axis=3)
    return get("transpose")(out, axes=(0, 2, 1, 3)) if four else get("reshape")(out, newshape=shape)


def causal_conv(node: NodeView, x: Expr, w: Expr, b: Expr | None = None, past: Expr | None = None) -> Result:
    """CausalConvWithState: a depthwise convolution that looks back, with the tail as state."""
    taps = shape_of(w)[2]
    batch, channels, size = shape_of(x)
    if not isinstance(taps, int) or not isinstance(channels, int):
        raise node.unsupported("a symbolic kernel or number of channels")
    if past is None:
        past = get("full")(scalar(0, x), shape=(batch, channels, taps - 1), dtype=dtype_of(x))
    whole = get("concatenate")(past, x, axis=2)
    y = get("nn.conv1d")(whole, w, groups=channels)
    y = y if b is None else get("nn.bias_add")(y, b, axis=1)
    kind = node.attr("activation", "none")
    if kind in ("silu", "swish"):
        wide = cast_to(y, "float32") if dtype_of(y) in ("float16", "bfloat16") else y
        y = cast_to(get("multiply")(wide, get("sigmoid")(wide)), dtype_of(x))
    elif kind != "none":
        raise node.error(f"unknown activation {kind!r}")
    state = get("strided_slice")(whole, begin=(size,), end=(dims.dim(size + taps - 1),), axes=(2,))
    return [y, state]


TABLE: dict[str, dict[int, Any]] = {
    "Attention": {23: attention},
    "RotaryEmbedding": {23: rotary_embedding},
    "CausalConvWithState": {27: causal_conv},
}
