"""Converters of recurrent layers: LSTM, GRU, RNN."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.frontend.onnx.assumed import with_size
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_nn_norm import cast_to, dtype_of, shape_of
from warpbeam.frontend.onnx.ops_quant import dynamic_quantize
from warpbeam.op import get
from warpbeam.op.integer_products import integer_matmul
from warpbeam.op.nn_recurrent import STEPPING
from warpbeam.relay.expr import Expr, TupleGetItem, const
from warpbeam.topi import dims

_NAMES = ("x", "w", "r", "b", "lens", "h0", "c0", "p")


def _attributes(node: NodeView, operator: str) -> dict[str, Any]:
    """The layer's attributes that the node gives, under our names."""
    out: dict[str, Any] = {"direction": _text(node.attr("direction", "forward")), "layout": int(node.attr("layout", 0))}
    out["activations"] = tuple(_text(a) for a in node.attr("activations", ()) or ())
    out["alpha"] = tuple(float(a) for a in node.attr("activation_alpha", ()) or ())
    out["beta"] = tuple(float(a) for a in node.attr("activation_beta", ()) or ())
    out["clip"] = float(node.attr("clip", 0.0) or 0.0)
    for name in ("input_forget", "linear_before_reset"):
        if name in get(operator).defaults:
            out[name] = int(node.attr(name, 0))
    return out


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _whole(node: NodeView, x: Expr, layout: int) -> bool:
    """Whether the lengths are known to be those of all steps, so that they need not be looked at."""
    steps, lengths = shape_of(x)[1 if layout else 0], node.const(4)
    return isinstance(steps, int) and lengths is not None and bool((lengths == steps).all())


def _one_batch(given: dict[str, Expr | None], layout: int) -> None:
    """Where the first states say for how many sequences the layer is, the data gets that size."""
    place = 0 if layout else 1
    for name in ("h0", "c0"):
        state, x = given.get(name), given["x"]
        if state is not None and x is not None and len(shape_of(state)) == len(shape_of(x)) == 3:
            size = shape_of(state)[place]
            given["x"] = with_size(x, place, size) if isinstance(size, int) else x


def _layer(operator: str, results: int) -> Any:
    def convert(node: NodeView, x: Expr, w: Expr, r: Expr, *rest: Expr | None) -> list[Expr]:
        attrs = _attributes(node, operator)
        given = dict(zip(_NAMES, (x, w, r, *rest), strict=False))
        if given.get("lens") is not None and _whole(node, x, attrs["layout"]):
            given["lens"] = None
        _one_batch(given, attrs["layout"])
        found = {n: e for n, e in given.items() if e is not None}
        units = shape_of(r)[-1]
        if int(node.attr("hidden_size", units if isinstance(units, int) else 0)) != units:
            raise node.error(f"hidden_size is {node.attr('hidden_size')} and R has {units} columns")
        found = {n: e if n == "lens" else cast_to(e, dtype_of(x)) for n, e in found.items()}
        whole = get(operator)(*found.values(), operands=tuple(found), **attrs)
        return [TupleGetItem(whole, k) for k in range(results)]

    return convert


def quantised_lstm(node: NodeView, *given: Expr | None) -> list[Expr]:
    """DynamicQuantizeLSTM: weights in bytes, (D, I, 4H) and (D, H, 4H); the input and each step's state are rounded to
    256 values between their extremes before they are multiplied.

    All sums of products are exact, so that results are those of onnxruntime up to what rounds the gates.
    """
    operands = [*given, *[None] * (12 - len(given))]
    x, w, r, b, lens, h0, c0, p, w_scale, w_zero, r_scale, r_zero = operands
    if x is None or w is None or r is None or w_scale is None or r_scale is None:
        raise node.error("X, W, R and the scales of W and R are needed")
    wide, (directions, units, _) = dtype_of(x), shape_of(r)
    if int(node.attr("hidden_size", units)) != units or shape_of(w_scale)[0] != directions:
        raise node.error("sizes of weights, scales and hidden_size differ")
    made: dict[str, Expr | None] = {"x": x, "h0": h0, "c0": c0}
    _one_batch(made, 0)
    assert made["x"] is not None
    columns = dims.dim(4 * units)
    z = _inputs(node, made["x"], w, w_scale, w_zero)
    if b is not None:
        halves = get("reshape")(b, newshape=(directions, 2, columns))
        z = get("add")(z, get("reshape")(get("sum")(halves, axis=(1,)), newshape=(dims.dim(directions * columns),)))
    steps, batch = shape_of(made["x"])[:2]
    found: dict[str, Expr | None] = {"z": get("reshape")(z, newshape=(steps, batch, directions, 4, units))}
    small = _signed(node.const(2), node.const(11) if r_zero is not None else None)
    inner = _real(r, r_scale, r_zero, wide) if small is None else const(small, "int8")
    found["r"] = get("reshape")(inner, newshape=(directions, units, 4, units))
    found.update(lens=lens, h0=h0, c0=c0)
    if small is not None:
        scale = r_scale if len(shape_of(r_scale)) == 2 else get("expand_dims")(r_scale, axis=1)
        scale = get("broadcast_to")(scale, shape=(directions, columns))
        found["rs"] = get("reshape")(cast_to(scale, wide), newshape=(directions, 4, units))
        found["rsum"] = const(small.sum(axis=1, dtype=np.int32).reshape(directions, 4, units), "int32")
    if p is not None:
        found["p"] = get("reshape")(p, newshape=(directions, 3, units))
    kept = {n: found[n] for n in STEPPING if found.get(n) is not None}
    whole = get("nn.lstm")(*kept.values(), operands=tuple(kept), state_steps=255, **_attributes(node, "nn.lstm"))
    return [TupleGetItem(whole, k) for k in range(3)]


def _inputs(node: NodeView, x: Expr, w: Expr, w_scale: Expr, w_zero: Expr | None) -> Expr:
    """The rounded inputs by their weights, (T, B, all columns of all directions)."""
    directions, size, columns = shape_of(w)
    whole = dims.dim(directions * columns)

    def side_by_side(v: Expr) -> Expr:  # of each column, where there is one for each direction
        full = v if len(shape_of(v)) == 2 else get("expand_dims")(v, axis=1)
        return get("reshape")(get("broadcast_to")(full, shape=(directions, columns)), newshape=(whole,))  # type: ignore[no-any-return]

    small, scale, zero = dynamic_quantize(node, x)  # type: ignore[misc]
    weights = get("reshape")(get("transpose")(w, axes=(1, 0, 2)), newshape=(size, whole))
    points = None if w_zero is None else side_by_side(w_zero)
    total = cast_to(integer_matmul(small, weights, zero, points), dtype_of(x))
    return get("multiply")(total, get("multiply")(scale, cast_to(side_by_side(w_scale), dtype_of(x))))  # type: ignore[no-any-return]


def _real(q: Expr, scale: Expr, zero: Expr | None, wide: str) -> Expr:
    """Bytes (D, K, 4H) as the numbers that they stand for; scales and zero points per direction or per column."""

    def along(v: Expr) -> Expr:
        return get("expand_dims")(v, axis=1, num_newaxis=3 - len(shape_of(v)))  # type: ignore[no-any-return]

    value = cast_to(q, wide)
    if zero is not None:
        value = get("subtract")(value, cast_to(along(zero), wide))
    return get("multiply")(value, cast_to(along(scale), wide))  # type: ignore[no-any-return]


def _signed(values: np.ndarray | None, zero: np.ndarray | None) -> np.ndarray | None:
    """Known weights less their zero points as signed bytes; None where they do not fit or are not known."""
    if values is None:
        return None
    shift = 0 if zero is None else zero.astype(np.int16).reshape(zero.shape[0], 1, -1)
    apart = values.astype(np.int16) - shift
    return apart.astype(np.int8) if apart.min() >= -128 and apart.max() <= 127 else None


lstm, gru, rnn = _layer("nn.lstm", 3), _layer("nn.gru", 2), _layer("nn.rnn", 2)

TABLE: dict[str, dict[int, Any]] = {
    "LSTM": {1: lstm, 7: lstm, 14: lstm, 22: lstm},
    "GRU": {1: gru, 3: gru, 7: gru, 14: gru, 22: gru},
    "RNN": {1: rnn, 7: rnn, 14: rnn, 22: rnn},
    "com.microsoft::DynamicQuantizeLSTM": {1: quantised_lstm},
}
