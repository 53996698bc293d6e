"""Converters of losses."""

from __future__ import annotations

from typing import Any

from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_nn_norm import wanted
from warpbeam.op import get
from warpbeam.relay.expr import Expr

Result = Expr | list[Expr]

_NEVER = -(1 << 62)


def nll_loss(node: NodeView, x: Expr, target: Expr, weight: Expr | None = None) -> Result:
    operands = [x, target] if weight is None else [x, target, weight]
    return get("nn.nll_loss")(
        *operands,
        reduction=node.attr("reduction", "mean"),
        ignore_index=int(node.attr("ignore_index", _NEVER)),
    )


def softmax_cross_entropy(node: NodeView, x: Expr, target: Expr, weight: Expr | None = None) -> Result:
    """Loss of the log softmax over axis 1; the second output is that log softmax."""
    log_prob = get("nn.log_softmax")(x, axis=1)
    loss = nll_loss(node, log_prob, target, weight)
    assert isinstance(loss, Expr)
    return [loss, log_prob] if wanted(node, 1) else loss


TABLE: dict[str, dict[int, Any]] = {
    "NegativeLogLikelihoodLoss": {12: nll_loss},
    "SoftmaxCrossEntropyLoss": {12: softmax_cross_entropy},
}
