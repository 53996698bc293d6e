"""Converters of com.microsoft's attention operators, as products, masks and softmax of the graph."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, like, rank_of, reshape, shape_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_nn_attention import (
    attention_scores,
    merge_heads,
    rotary_embedding,
    split_heads,
    weighted_values,
)
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Expr, const
from warpbeam.topi import dims

LOWEST = -3.4028234663852886e38


def _add(a: Expr | None, b: Expr) -> Expr:
    return b if a is None else get("add")(a, b)


def cut(x: Expr, begin: Any, end: Any, axis: int) -> Expr:
    """One range of an axis."""
    return get("strided_slice")(x, begin=(begin,), end=(end,), strides=(1,), axes=(axis,))  # type: ignore[no-any-return]


def _steps(count: Any, shape: tuple[Any, ...]) -> Expr:
    return reshape(get("arange")(start=0, stop=count, step=1, dtype="int64"), shape)


def _size(value: Any) -> Expr:
    if isinstance(value, int):
        return const(value, "int64")
    return get("shape_tensor")(values=(value,), shape=(), dtype="int64")  # type: ignore[no-any-return]


@dataclass
class Bias:
    """What is added to scores (batch, heads, queries, keys), in float32; None: nothing."""

    node: NodeView
    batch: Any
    queries: Any
    keys: Any
    total: Expr | None = None

    def hide(self, allowed: Expr, value: float) -> None:
        """Adds `value` where a query may not see a key."""
        self.total = _add(self.total, get("where")(allowed, const(0.0, "float32"), const(value, "float32")))

    def causal(self, past: Any, window: int = -1) -> None:
        """Query s sees keys up to past + s (an int, an expression or a tensor), and of those the last `window`."""
        offset = past if hasattr(past, "checked_type") else _size(past)
        at = get("add")(_steps(self.queries, (self.queries, 1)), offset)
        key = _steps(self.keys, (1, self.keys))
        seen = get("less_equal")(key, at)
        if window >= 0:
            seen = get("logical_and")(seen, get("greater")(key, get("subtract")(at, const(window, "int64"))))
        self.hide(seen, LOWEST)

    def index(self, mask: Expr) -> None:
        """A mask operand: ends (B), ends and starts (2B), or 0 and 1 of shape (B, T), (B, S, T) or (B, 1, M, M)."""
        value, rank = float(self.node.attr("mask_filter_value", -10000.0)), rank_of(mask)
        b, s, t = self.batch, self.queries, self.keys
        if rank == 1:
            size = shape_of(mask)[0]
            key = _steps(t, (1, 1, 1, t))
            twice = dims.same(size, dims.prod((b, 2))) is True and dims.same(size, b) is not True
            if not twice and dims.same(size, b) is False:
                raise self.node.unsupported(f"a mask of {dims.text(size)} elements for {dims.text(b)} rows")
            wide = cast_to(mask, "int64")
            ends = reshape(cut(wide, 0, b, 0) if twice else wide, (b, 1, 1, 1))
            seen = get("less")(key, ends)
            if twice:
                starts = reshape(cut(wide, b, dims.prod((b, 2)), 0), (b, 1, 1, 1))
                seen = get("logical_and")(seen, get("greater_equal")(key, starts))
            self.hide(seen, value)
            return
        if rank == 4:
            mask = cut(cut(mask, dims.dim(t - s), t, 2), 0, t, 3)
        elif rank in (2, 3):
            mask = reshape(mask, (b, 1, 1, t) if rank == 2 else (b, 1, s, t))
        else:
            raise self.node.unsupported(f"a mask of {rank} dimensions")
        self.hide(get("greater")(mask, like(0, mask)), value)


def attended(
    node: NodeView, q: Expr, k: Expr, v: Expr, bias: Expr | None, softcap: float = 0.0, sink: Any = None
) -> Expr:
    """softmax(scale * q k' + bias) v, heads merged: (B, S, H·D)."""
    size = shape_of(q)[3]
    scale = float(node.attr("scale", 0.0) or 0.0)
    if not scale:
        if not isinstance(size, int):
            raise node.unsupported("a symbolic head size without a scale")
        scale = 1 / math.sqrt(size)
    half = dt.is_float(dtype_of(q)) and dtype_of(q) in ("float16", "bfloat16")
    scores = attention_scores(q, k, scale)
    scores = cast_to(scores, "float32") if half else scores
    if softcap > 0:
        capped = get("tanh")(get("divide")(scores, like(softcap, scores)))
        scores = get("multiply")(capped, like(softcap, scores))
    if bias is not None:
        scores = get("add")(scores, cast_to(bias, dtype_of(scores)))
    p = _smooth(scores, sink) if sink is not None else get("nn.softmax")(scores, axis=-1)
    return merge_heads(weighted_values(cast_to(p, dtype_of(q)), v))


def _smooth(scores: Expr, sink: Expr | float) -> Expr:
    """Softmax with one more score per head that stands for nothing: a tensor (heads), or the same for all."""
    b, h, s, _ = shape_of(scores)
    extra = like(sink, scores) if isinstance(sink, float) else reshape(cast_to(sink, dtype_of(scores)), (1, h, 1, 1))
    whole = get("concatenate")(scores, get("broadcast_to")(extra, shape=(b, h, s, 1)), axis=3)
    return cut(get("nn.softmax")(whole, axis=-1), 0, shape_of(scores)[3], 3)


def _appended(past: Expr | None, new: Expr) -> Expr:
    return new if past is None else get("concatenate")(past, new, axis=2)


# ------------------------------------------------------------------------------------------------------- Attention


def attention(
    node: NodeView, x: Expr, w: Expr, b: Expr | None = None, mask: Expr | None = None, past: Expr | None = None,
    bias: Expr | None = None, length: Expr | None = None,
) -> Result:  # fmt: skip
    """Attention: one product for queries, keys and values of one tensor."""
    both = get("nn.matmul")(x, w)
    return project(node, both if b is None else get("add")(both, b), mask, past, bias, length)


def project(
    node: NodeView, both: Expr, mask: Expr | None, past: Expr | None, bias: Expr | None = None,
    length: Expr | None = None,
) -> Result:  # fmt: skip
    """Attention of queries, keys and values that stand side by side, (B, S, all); outputs Y and the keys and values."""
    if length is not None or node.attr("past_present_share_buffer", 0):
        raise node.unsupported("past and present in one buffer")
    if node.attr("do_rotary", 0):
        raise node.unsupported("rotary embedding inside")
    heads, width = int(node.attr("num_heads")), shape_of(both)[2]
    sizes = [int(v) for v in node.attr("qkv_hidden_sizes", ()) or ()] or [dims.exact_div(width, 3)] * 3
    edges = [dims.dim(v) for v in itertools.accumulate([0, *sizes])]
    parts = [cut(both, i, j, 2) for i, j in itertools.pairwise(edges)]
    q, k, v = (split_heads(node, p, heads) for p in parts)
    before: Any = 0
    if past is not None:
        before = shape_of(past)[3]
        old = [get("squeeze")(cut(past, i, i + 1, 0), axis=(0,)) for i in (0, 1)]
        k, v = _appended(old[0], k), _appended(old[1], v)
    y = attended(node, q, k, v, _added(node, q, k, before, mask, bias))
    if len(node.outputs) < 2 or not node.outputs[1]:
        return y
    return [y, get("stack")(k, v, axis=0)]


def multi_head(
    node: NodeView, query: Expr, key: Expr | None = None, value: Expr | None = None, b: Expr | None = None,
    mask: Expr | None = None, bias: Expr | None = None, past_key: Expr | None = None, past_value: Expr | None = None,
    *more: Expr | None,
) -> Result:  # fmt: skip
    """MultiHeadAttention: queries, keys and values apart, or packed per head."""
    if any(m is not None for m in more):
        raise node.unsupported("past and present in one buffer")
    heads = int(node.attr("num_heads"))
    q, k, v = _unpacked(node, query, key, value)
    if b is not None:
        q, k, v = _biased(node, b, q, k, v)
    q, k, v = (split_heads(node, t, heads) for t in (q, k, v))
    before: Any = 0
    if past_key is not None and past_value is not None:
        before = shape_of(past_key)[2]
        k, v = _appended(past_key, k), _appended(past_value, v)
    return [attended(node, q, k, v, _added(node, q, k, before, mask, bias)), k, v]


def _added(node: NodeView, q: Expr, k: Expr, before: Any, mask: Expr | None, bias: Expr | None) -> Expr | None:
    """What is added to the scores of queries and keys (B, H, S, D), `before` of the keys being past."""
    found = Bias(node, shape_of(q)[0], shape_of(q)[2], shape_of(k)[2])
    if mask is not None:
        found.index(mask)
    if node.attr("unidirectional", 0):
        found.causal(before)
    return found.total if bias is None else _add(found.total, cast_to(bias, "float32"))


def _unpacked(node: NodeView, query: Expr, key: Expr | None, value: Expr | None) -> list[Expr]:
    """Queries, keys and values, (B, S, H·D) or (B, H, S, D), from what may be packed as (B, S, H, 3 or 2, D)."""

    def part(x: Expr, k: int) -> Expr:
        b, s, h, _, d = shape_of(x)
        return reshape(cut(x, k, k + 1, 3), (b, s, dims.prod((h, d))))

    if rank_of(query) == 5:
        return [part(query, k) for k in range(3)]
    if key is None:
        raise node.unsupported("queries without keys")
    if rank_of(key) == 5:
        return [query, part(key, 0), part(key, 1)]
    if value is None:
        raise node.error("has keys and no values")
    return [query, key, value]


def _biased(node: NodeView, b: Expr, q: Expr, k: Expr, v: Expr) -> list[Expr]:
    """Queries, keys and values with their parts of one bias; four-dimensional ones have none."""
    widths = [shape_of(t)[2] if rank_of(t) == 3 else 0 for t in (q, k, v)]
    if not widths[1]:
        return [get("add")(q, cut(b, 0, widths[0], 0)), k, v]
    edges = [dims.dim(e) for e in itertools.accumulate([0, *widths])]
    return [get("add")(t, cut(b, i, j, 0)) for t, (i, j) in zip((q, k, v), itertools.pairwise(edges), strict=True)]


# --------------------------------------------------------------------------------------------- GroupQueryAttention


def grouped_query(
    node: NodeView, query: Expr, key: Expr | None, value: Expr | None, past_key: Expr | None, past_value: Expr | None,
    lengths: Expr, total: Expr, cos: Expr | None = None, sin: Expr | None = None, places: Expr | None = None,
    bias: Expr | None = None, sink: Expr | None = None, *more: Expr | None,
) -> Result:  # fmt: skip
    """GroupQueryAttention: causal, groups of query heads share keys; each row has its own length (lengths + 1).

    New keys and values stand behind the row's past ones in present_key and present_value, which are as long as the past
    or the total length, whichever is more.
    """
    if any(m is not None for m in more) or int(node.attr("kv_cache_bit_width", 0) or 0):
        raise node.unsupported("quantised caches")
    heads, shared = int(node.attr("num_heads")), int(node.attr("kv_num_heads"))
    if key is None or value is None:
        size = dims.exact_div(shape_of(query)[2], heads + 2 * shared)
        ends = [dims.dim(size * n) for n in (0, heads, heads + shared, heads + 2 * shared)]
        query, key, value = (cut(query, i, j, 2) for i, j in itertools.pairwise(ends))
    q, k, v = split_heads(node, query, heads), split_heads(node, key, shared), split_heads(node, value, shared)
    batch, _, steps, _ = shape_of(q)
    ends = get("add")(cast_to(reshape(lengths, (batch,)), "int64"), const(1, "int64"))
    before = get("maximum")(get("subtract")(ends, _size(steps)), const(0, "int64"))
    if node.attr("do_rotary", 0):
        q, k = _turned(node, q, k, before, cos, sin, places)
    room = _room(node, past_key, steps)
    if past_key is not None and past_value is not None:
        k, v = (_stored(old, new, before, room) for old, new in ((past_key, k), (past_value, v)))
    added = Bias(node, batch, steps, shape_of(k)[2])
    added.causal(reshape(before, (batch, 1, 1, 1)), int(node.attr("local_window_size", -1)))
    if bias is not None:
        added.total = _add(added.total, cast_to(bias, "float32"))
    extra: Any = sink if sink is not None else 0.0 if node.attr("smooth_softmax", 0) else None
    return [attended(node, q, k, v, added.total, float(node.attr("softcap", 0.0) or 0.0), extra), k, v]


def _room(node: NodeView, past: Expr | None, steps: Any) -> Any:
    """How long present keys are: as the past where the total fits in there, else as past and new ones."""
    if past is None:
        return steps
    total, have = node.known(6), shape_of(past)[2]
    if total is None:
        return dims.dim(have + steps)
    return max(have, int(total.reshape(-1)[0])) if isinstance(have, int) else dims.dim(have + steps)


def _stored(old: Expr, new: Expr, before: Expr, room: Any) -> Expr:
    """(B, H, room, D): each row's first `before` old entries, then the new ones."""
    both = get("concatenate")(old, new, axis=2)
    batch, past = shape_of(old)[0], shape_of(old)[2]
    at, first = _steps(room, (1, room)), reshape(before, (batch, 1))
    behind = get("add")(get("subtract")(at, first), _size(past))
    place = get("where")(get("less")(at, first), at, behind)
    moved = get("take")(get("transpose")(both, axes=(0, 2, 1, 3)), place, axis=1, batch_dims=1, mode="clip")
    return get("transpose")(moved, axes=(0, 2, 1, 3))  # type: ignore[no-any-return]


def _turned(
    node: NodeView, q: Expr, k: Expr, before: Expr, cos: Expr | None, sin: Expr | None, places: Expr | None
) -> tuple[Expr, Expr]:
    if cos is None or sin is None:
        raise node.error("do_rotary needs cos_cache and sin_cache")
    batch, _, steps, _ = shape_of(q)
    if places is None:
        places = get("add")(reshape(before, (batch, 1)), _steps(steps, (1, steps)))
    near = bool(node.attr("rotary_interleaved", 0))
    turned = [rotary_embedding(node, t, cos, sin, places, near) for t in (q, k)]
    return turned[0], turned[1]  # type: ignore[return-value]


MS = "com.microsoft::"
TABLE: dict[str, dict[int, Any]] = {
    f"{MS}Attention": {1: attention},
    f"{MS}MultiHeadAttention": {1: multi_head},
    f"{MS}GroupQueryAttention": {1: grouped_query},
}
