"""Products of the same rows by different weights become one product with the weights side by side.

    q = dense(x, wq) + bq; k = dense(x, wk) + bk     ->     y = matmul(x, [wq, wk]) + [bq, bk]; q, k = y[0], y[1]

Weights of one shape are put together along a new first axis, so that each result is a part of the whole without gaps:
a view. What is won is that cores are sent out once instead of once for each product, and that the rows are read once.
Of large products that is nothing to speak of, so only those are packed of which the cost model says otherwise.

Constants of columns that all are added to or multiplied with come along; what is done to single results beyond that
would have been done where the product stores them, so such products stay apart.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import add_origins, origins, post_order, rewrite
from warpbeam.ir.transform import function_pass
from warpbeam.op.base import Elementwise
from warpbeam.relay.expr import Call, Constant, Expr, Function, TupleGetItem
from warpbeam.relay.op import Op
from warpbeam.sketch.base import supposed
from warpbeam.target import Target, get
from warpbeam.topi import dims
from warpbeam.transform.graph import call, constant, op_name

_COLUMNWISE = ("add", "multiply", "subtract", "nn.bias_add")
_VIEWS = ("reshape", "squeeze", "expand_dims")
_LEAST = 0.02  # of their time that packing must save: predictions are no better than that


@function_pass(opt_level=3, name="PackProducts", required=["InferType"])
class PackProducts:
    """Puts products of the same rows by constant weights together, where that pays on `target` (by default this
    machine).
    """

    def __init__(self, target: Target | None = None) -> None:
        self.target = get("native") if target is None else target

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        done: dict[Node, Node] = {}
        graph = _Graph(fn.body)
        for products in graph.alike():
            if not _pays(products[0][0], self.target):
                continue
            for some in graph.portions(products, self.target):
                rows = rewrite(some[0][0].args[0], None, done)
                done.update(_packed(rows, some))
        return fn.replace(body=rewrite(fn.body, None, done)) if done else fn


class _Graph:
    """What reads what in a function body."""

    def __init__(self, body: Expr) -> None:
        self.body = body
        self.users: dict[Node, list[Node]] = {}
        self.order = list(post_order(body, enter=lambda n: not isinstance(n, Function)))
        self.place = {n: k for k, n in enumerate(self.order)}
        self.weights = list(accumulate(_size(n) for n in self.order))  # bytes of constants up to each node
        for n in self.order:
            for c in () if isinstance(n, Function) else children(n):
                self.users.setdefault(c, []).append(n)

    def alike(self) -> list[list[list[Call]]]:
        """Products that can be packed, each with what follows it and comes along; by where their rows are made."""
        groups: dict[tuple[Any, ...], list[list[Call]]] = {}
        for n in self.order:
            key = _key(n)
            if key is None:
                continue
            path = self._followed(n)  # type: ignore[arg-type]
            if self._ends(path[-1]):
                groups.setdefault((*key, _steps(path)), []).append(path)
        return sorted((g for g in groups.values() if len(g) > 1), key=lambda g: self.place[g[0][0].args[0]])

    def portions(self, paths: list[list[Call]], target: Target) -> list[list[list[Call]]]:
        """Products that are packed together: results wait in the caches for their readers, so those of a portion fit
        there, and between products that follow each other no more weights are read than do.
        """
        size = supposed(dims.prod(paths[0][0].ty.shape)) * dt.nbytes(paths[0][0].ty.dtype)
        most, found = target.l2 * target.cores // max(1, size), [[paths[0]]]
        for before, path in pairwise(paths):
            between = self.weights[self.place[path[0]]] - self.weights[self.place[before[0]]]
            if between - _size(path[0].args[1]) > target.l2 or len(found[-1]) >= most:
                found.append([])
            found[-1].append(path)
        return [p for p in found if len(p) > 1]

    def _followed(self, product: Call) -> list[Call]:
        """The product and the operations with constants of columns that it alone goes through."""
        path = [product]
        while True:
            found = self.users.get(path[-1], [])
            user = found[0] if len(found) == 1 else None
            if not isinstance(user, Call) or _columns(user, path[-1]) is None:
                return path
            path.append(user)

    def _ends(self, value: Call) -> bool:
        """Whether a value is read by operators only that would be kernels of their own: nothing that is done where the
        product stores its result, that it is written straight into, or that follows row by row.
        """
        todo: list[Node] = [value]
        while todo:
            n = todo.pop()
            if n is self.body or not self.users.get(n):
                return False
            for u in self.users[n]:
                if not isinstance(u, Call) or not isinstance(u.op, Op):
                    return False
                if op_name(u) in _VIEWS:
                    todo.append(u)
                elif isinstance(u.op, Elementwise) or hasattr(u.op, "joins") or (_is_product(u) and u.args[0] is n):
                    return False
        return True


def _is_product(n: Node) -> bool:
    return op_name(n) in ("nn.dense", "nn.matmul")


def _key(n: Node) -> tuple[Any, ...] | None:
    """What products must have in common to be packed: rows, kind and size of weights; None for others."""
    if not _is_product(n) or not isinstance(n, Call):
        return None
    x, w = n.args
    if not isinstance(w, Constant) or w.ty.ndim != 2 or x.ty.ndim < 2 or n.attrs.get("transpose_a"):
        return None
    return x, n.attrs["out_dtype"], n.ty, w.ty.dtype


def _weights(product: Call) -> np.ndarray:
    """The right operand, summed axis first."""
    w = product.args[1].numpy()  # type: ignore[attr-defined]
    turned = op_name(product) == "nn.dense" or product.attrs["transpose_b"]
    return w.T if turned else w  # type: ignore[no-any-return]


def _columns(step: Call, value: Call) -> np.ndarray | None:
    """The constant of columns that a call adds to a value, or multiplies it with; None if it does something else."""
    if op_name(step) not in _COLUMNWISE or step.ty != value.ty or step.args[0] is step.args[1]:
        return None
    other = step.args[1] if step.args[0] is value else step.args[0]
    if not isinstance(other, Constant) or any(d != 1 for d in other.ty.shape[:-1]):
        return None
    if op_name(step) == "nn.bias_add" and step.attrs["axis"] not in (-1, value.ty.ndim - 1):
        return None
    return other.numpy().reshape(1, -1) if other.ty.ndim else other.numpy().reshape(1, 1)


def _pays(product: Call, target: Target) -> bool:
    """Whether a product is so small that it counts to begin one kernel less: at the best rate of arithmetic, or of
    memory for its weights.
    """
    rows = supposed(dims.prod(product.ty.shape[:-1]))
    lanes = max(1, target.vector_bits // dt.bits(product.ty.dtype))
    work = rows * product.args[1].numpy().size / (target.fma_rate * lanes)  # type: ignore[attr-defined]
    cycles = max(work, _size(product.args[1]) / target.memory_rate) / target.cores
    return target.fork_cycles >= _LEAST * 2 * cycles  # type: ignore[no-any-return]


def _packed(x: Expr, paths: list[list[Call]]) -> dict[Call, Expr]:
    """The new values of the ends of products of the rows `x`."""
    first = paths[0][0]
    rows = dims.prod(first.args[0].ty.shape[:-1])
    left = call("reshape", x, newshape=(rows, first.args[0].ty.shape[-1]))
    weights = constant(np.stack([_weights(p[0]) for p in paths]))
    whole = call("nn.matmul", left, weights, out_dtype=first.attrs["out_dtype"])
    for k, step in enumerate(paths[0][1:], 1):
        own = [_columns(p[k], p[k - 1]) for p in paths]
        other = constant(np.stack([np.broadcast_to(c, (1, first.ty.shape[-1])) for c in own]))  # type: ignore[arg-type]
        name = "add" if op_name(step) == "nn.bias_add" else op_name(step)
        whole = call(name, *((whole, other) if step.args[0] is paths[0][k - 1] else (other, whole)))
    for p in paths:
        add_origins(whole, origins(p[-1]))
    cut = call("split", whole, indices_or_sections=len(paths), axis=0)
    return {p[-1]: call("reshape", TupleGetItem(cut, k), newshape=p[-1].ty.shape) for k, p in enumerate(paths)}


def _size(n: Node) -> int:
    """Bytes of a constant, 0 of anything else."""
    return n.numpy().nbytes if isinstance(n, Constant) else 0


def _steps(path: list[Call]) -> tuple[Any, ...]:
    """What is done to a product, and on which side."""
    return tuple((b.op, b.args[0] is a) for a, b in pairwise(path))
