"""Products of few rows by the same weights become one product of all their rows, so that the weights are read once.

    y0 = dense(x0, w); y1 = dense(x1, w)     ->     y = dense(concatenate(x0, x1), w); y0, y1 = split(y)

Unrolled recurrent layers are full of them: every step multiplies its own input by the same weights. What is joined
must not depend on each other; of a chain of products by the same weights, which the states of such a layer are, each
stays by itself. An operation with constants that all of them go through alike is done on all rows, too.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import add_origins, origins, post_order, substitute
from warpbeam.ir.transform import function_pass
from warpbeam.op.base import Binary, Unary
from warpbeam.relay.expr import Call, Constant, Expr, Function, If, TupleGetItem
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType
from warpbeam.topi import dims
from warpbeam.transform.graph import call, constant, op_name, same_call

_ROWS = 16  # of a product: of more, weights are used often enough
_WEIGHTS = 1 << 15  # bytes: fewer lie in the nearest cache anyway
_ROUNDS = 64


@function_pass(opt_level=3, name="JoinProducts", required=["InferType"])
class JoinProducts:
    """Joins products of few rows by the same constant weights."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        for _ in range(_ROUNDS):
            found = _independent(fn.body)
            if not found:
                break
            fn = fn.replace(body=substitute(fn.body, _joined(fn.body, found)))
        return fn


def _weights(n: Node) -> tuple[Any, ...] | None:
    """What products must have in common to be joined: operator, attributes, weights, columns; None for others."""
    if op_name(n) not in ("nn.dense", "nn.matmul") or not isinstance(n, Call):
        return None
    x, w = n.args
    if (
        not isinstance(w, Constant)
        or w.ty.ndim != 2
        or not x.ty.is_static
        or x.ty.ndim < 1
        or w.numpy().nbytes < _WEIGHTS
    ):
        return None
    if n.attrs.get("transpose_a") or not 0 < dims.prod(x.ty.shape[:-1]) <= _ROWS:
        return None
    return n.op, n.attrs, w, x.ty.dtype


def _independent(body: Expr) -> list[Call]:
    """Products by the same weights that do not depend on each other: those above which equally many of them stand.
    What only a branch computes stays in it.
    """
    order = list(post_order(body, enter=lambda n: not isinstance(n, Function)))
    groups: dict[tuple[Any, ...], list[Call]] = {}
    for n in post_order(body, enter=lambda n: not isinstance(n, Function | If)):
        key = _weights(n)
        if key is not None:
            groups.setdefault(key, []).append(n)  # type: ignore[arg-type]
    for members in groups.values():
        if len(members) < 2:
            continue
        level: dict[Node, int] = {}
        own = set(members)
        for n in order:
            below = () if isinstance(n, Function) else children(n)
            level[n] = max((level[c] for c in below), default=0) + (n in own)
        for k in range(1, max(level[m] for m in members) + 1):
            found = [m for m in members if level[m] == k]
            if len(found) > 1:
                return found
    return []


def _joined(body: Expr, products: list[Call]) -> dict[Any, Any]:
    """The new values of products, or of what all of them go through."""
    users: dict[Node, list[Node]] = {}
    for n in post_order(body, enter=lambda n: not isinstance(n, Function)):
        for c in () if isinstance(n, Function) else children(n):
            users.setdefault(c, []).append(n)
    rows = [dims.prod(p.args[0].ty.shape[:-1]) for p in products]
    parts = [
        call("reshape", p.args[0], newshape=(r, p.args[0].ty.shape[-1])) for p, r in zip(products, rows, strict=True)
    ]
    whole = same_call(products[0], call("concatenate", *parts, axis=0), products[0].args[1])
    ends: list[Call] = list(products)
    while True:
        after = [_only_user(users, e) for e in ends]
        new = _alike(ends, after, whole)
        if new is None:
            break
        whole, ends = new, after  # type: ignore[assignment]
    for p in ends:
        add_origins(whole, origins(p))
    at = [sum(rows[: k + 1]) for k in range(len(rows) - 1)]
    cut = call("split", whole, indices_or_sections=tuple(at), axis=0)
    return {e: call("reshape", TupleGetItem(cut, k), newshape=e.ty.shape) for k, e in enumerate(ends)}


def _only_user(users: dict[Node, list[Node]], n: Call) -> Call | None:
    found = users.get(n, [])
    return found[0] if len(found) == 1 and isinstance(found[0], Call) and isinstance(found[0].op, Op) else None


def _alike(before: list[Call], after: list[Call | None], whole: Call) -> Call | None:
    """The operation on all rows that each of `after` is on its own; None where they differ or mix rows."""
    first = after[0]
    if first is None or not isinstance(first.op, Unary | Binary) or not isinstance(first.ty, TensorType):
        return None
    place = [a is before[0] for a in first.args]
    rest = [a for a, own in zip(first.args, place, strict=True) if not own]
    if place.count(True) != 1 or not all(isinstance(a, Constant) and _of_columns(a) for a in rest):
        return None
    for b, a in zip(before, after, strict=True):
        if a is None or a.op is not first.op or a.attrs != first.attrs or a.ty.shape != b.ty.shape:
            return None
        if any(
            (x is b) != own or (not own and x is not y) for x, y, own in zip(a.args, first.args, place, strict=True)
        ):
            return None
    args = [whole if own else _flat(a) for a, own in zip(first.args, place, strict=True)]
    return same_call(first, *args)


def _of_columns(c: Constant) -> bool:
    """Whether a constant is the same for all rows."""
    return all(d == 1 for d in c.ty.shape[:-1])


def _flat(c: Any) -> Constant:
    return constant(c.numpy().reshape(-1)) if c.ty.ndim > 1 else c
