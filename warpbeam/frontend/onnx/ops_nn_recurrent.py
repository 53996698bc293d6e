"""Converters of recurrent layers: LSTM, GRU, RNN."""

from __future__ import annotations

from typing import Any

from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_nn_norm import cast_to, dtype_of, shape_of
from warpbeam.op import get
from warpbeam.relay.expr import Expr, TupleGetItem

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


def _layer(operator: str, results: int) -> Any:
    def convert(node: NodeView, x: Expr, w: Expr, r: Expr, *rest: Expr | None) -> list[Expr]:
        attrs = _attributes(node, operator)
        given = dict(zip(_NAMES, (x, w, r, *rest), strict=False))
        if given.get("lens") is not None and _whole(node, x, attrs["layout"]):
            given["lens"] = None
        found = {n: e for n, e in given.items() if e is not None}
        units = shape_of(r)[-1]
        if int(node.attr("hidden_size", units if isinstance(units, int) else 0)) != units:
            raise node.error(f"hidden_size is {node.attr('hidden_size')} and R has {units} columns")
        found = {n: e if n == "lens" else cast_to(e, dtype_of(x)) for n, e in found.items()}
        whole = get(operator)(*found.values(), operands=tuple(found), **attrs)
        return [TupleGetItem(whole, k) for k in range(results)]

    return convert


lstm, gru, rnn = _layer("nn.lstm", 3), _layer("nn.gru", 2), _layer("nn.rnn", 2)

TABLE: dict[str, dict[int, Any]] = {
    "LSTM": {1: lstm, 7: lstm, 14: lstm, 22: lstm},
    "GRU": {1: gru, 3: gru, 7: gru, 14: gru, 22: gru},
    "RNN": {1: rnn, 7: rnn, 14: rnn, 22: rnn},
}
