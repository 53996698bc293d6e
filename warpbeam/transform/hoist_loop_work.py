"""Products that a loop makes of one row after the other are made of all rows before it, as one product.

    loop: z = matmul(take(x, i), w); …        all = matmul(x, w)
                                         ->   loop: z = take(all, i); …

What the rows are taken from and what they are multiplied by must be the same in all iterations, the index may be
anything: a function of single rows of x, at an index, is a row of the function of all of x. Whether it pays is asked of
the numbers of iterations and rows only. Weights are then read once, not in each step. Of loops within loops the product
goes on to the outermost: in the others it is the same in all iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import add_origins, origins, post_order, rewrite, substitute
from warpbeam.ir.transform import PassContext, module_pass
from warpbeam.op.base import Binary, Unary
from warpbeam.relay.expr import Call, Constant, Expr, Function, GlobalVar, If, IRModule, Var
from warpbeam.relay.op import Op
from warpbeam.relay.types import FuncType, TensorType
from warpbeam.topi import dims
from warpbeam.transform.graph import call, op_name, same_call, splat
from warpbeam.transform.loops import Loop, callers

_BYTES = 64 << 20  # of all rows of a result
_PRODUCTS = ("nn.dense", "nn.matmul")


@module_pass(opt_level=2, name="HoistLoopWork", required=["InferType"])
class HoistLoopWork:
    """Products of rows that a loop takes one by one leave the loop."""

    def transform_module(self, mod: IRModule, ctx: PassContext) -> IRModule:
        for name in reversed([g.name for g in mod.functions]):  # what is called stands behind its caller, mostly
            gv = mod.global_var(name)
            fn = mod[gv]
            loop = Loop.of(gv, fn) if isinstance(fn, Function) else None
            if loop is None:
                continue
            found, loose = callers(mod)
            outside = [(c, n) for c, n in found.get(gv, []) if c is not gv]
            if gv not in loose and len(outside) == 1:
                mod = _hoisted(mod, loop, *outside[0])
        return mod


def _hoisted(mod: IRModule, loop: Loop, caller: GlobalVar, called: Call) -> IRModule:
    """The module with what can leave a loop computed by its caller."""
    finder = _Finder(loop, called)
    picked = finder.run()
    if not picked:
        return mod
    params = [Var(f"h{k}", rows.all.ty) for k, rows in enumerate(picked.values())]
    memo: dict[Node, Node] = {}
    for (node, rows), var in zip(picked.items(), params, strict=True):
        memo[node] = var if rows.index is None else call("take", var, rows.index, axis=0, mode=rows.mode)
        add_origins(memo[node], origins(node))
    fn = loop.fn
    ret = fn.ret_type if fn.ret_type is not None else fn.body.ty
    gv = GlobalVar(loop.gv.name, FuncType((*[p.ty for p in fn.params], *[p.ty for p in params]), ret))

    def again(node: Node) -> Node | None:
        return Call(gv, (*node.args, *params), node.attrs) if _calls(node, loop.gv) else None  # type: ignore[attr-defined]

    body = rewrite(fn.body, again, memo)
    outer = [rows.all for rows in picked.values()]
    begun = Call(gv, (*called.args, *outer), called.attrs)
    add_origins(begun, origins(called))
    outside = mod[caller]
    new = {caller: outside.replace(body=substitute(outside.body, {called: begun}))}
    new[loop.gv] = Function((*fn.params, *params), body, ret, fn.type_params, fn.attrs)
    return IRModule({gv if g is loop.gv else g: new.get(g, f) for g, f in mod.functions.items()}, mod.types)


def _calls(node: Node, gv: GlobalVar) -> bool:
    return isinstance(node, Call) and node.op is gv


@dataclass(frozen=True, slots=True)
class _Rows:
    """A value of an iteration as the row at `index` of `all`, a value outside, or all of that if it is the same in all
    iterations. mode: of indices that are too large; product: whether work is saved.
    """

    index: Expr | None
    mode: str
    all: Expr
    product: bool = False

    def beside(self, other: _Rows) -> bool:
        """Whether both are taken at one place, of equally many rows."""
        at = self.index is other.index and self.mode == other.mode
        return at and dims.same(self.all.ty.shape[0], other.all.ty.shape[0]) is True


class _Finder:
    """Finds the values of a loop's body that are rows of what its caller can compute."""

    def __init__(self, loop: Loop, called: Call) -> None:
        self.loop = loop
        self.count = _count(loop, called)
        self.outside: dict[Node, Expr] = {
            p: called.args[k] for k, p in enumerate(loop.fn.params) if loop.fixed(k) and isinstance(p.ty, TensorType)
        }
        self.rows: dict[Node, _Rows] = {}
        self.same: dict[Node, _Rows] = {}  # products that are the same in all iterations: those of a loop within

    def run(self) -> dict[Node, _Rows]:
        """The products that leave the loop, with what follows them row by row."""
        roots = self.loop.again.args
        order = list(post_order(*roots, enter=lambda n: not isinstance(n, If | Function)))
        users: dict[Node, list[Node]] = {}
        for n in order:
            if isinstance(n, Call):
                self._visit(n)
            elif isinstance(n, Constant):
                self.outside[n] = n
            for c in children(n):
                users.setdefault(c, []).append(n)
        ends = {n: rows for n, rows in self.rows.items() if rows.product} | self.same
        return {
            n: ends[n] for n in order if n in ends and (n in roots or any(u not in ends for u in users.get(n, ())))
        }  # fmt: skip

    def _visit(self, n: Call) -> None:
        if (
            not isinstance(n.op, Op)
            or not n.op.pure
            or not isinstance(n.ty, TensorType)
            or dims.counted_in(*n.ty.shape)
        ):
            return
        if all(a in self.outside for a in n.args):
            self.outside[n] = whole = same_call(n, *[self.outside[a] for a in n.args])
            if op_name(n) in _PRODUCTS or any(a in self.same for a in n.args):
                self.same[n] = _Rows(None, "", whole)
            return
        found = self._taken(n) if op_name(n) == "take" else self._apart(n)
        if found is not None and _bytes(found.all.ty) <= _BYTES:
            add_origins(found.all, origins(n))
            self.rows[n] = found

    def _taken(self, n: Call) -> _Rows | None:
        """A row of something that is the same in all iterations."""
        x, index = n.args
        axis, shape = n.attrs["axis"], index.ty.shape
        if (
            x not in self.outside
            or axis is None
            or axis % x.ty.ndim
            or n.attrs["batch_dims"]
            or shape not in ((), (1,))
        ):
            return None
        count, whole = x.ty.shape[0], self.outside[x]
        if not self._pays(count):
            return None
        if shape:
            whole = call("reshape", whole, newshape=(count, *n.ty.shape))
            index = call("reshape", index, newshape=())
        return _Rows(index, n.attrs["mode"], whole)

    def _pays(self, rows: Any) -> bool:
        """Whether about as many rows as there are would be computed in the loop."""
        if isinstance(rows, int) and isinstance(self.count, int):
            return rows <= 2 * self.count
        return self.count is not None and dims.same(rows, self.count) is True

    def _apart(self, n: Call) -> _Rows | None:
        """The call on all rows of an operand, the others being the same in all iterations."""
        given = [self.rows[a] for a in n.args if a in self.rows]
        rule = _RULES.get(op_name(n)) or next((r for kind, r in _KINDS if isinstance(n.op, kind)), None)
        known = all(a in self.rows or a in self.outside for a in n.args)
        if rule is None or not given or not known or not all(g.beside(given[0]) for g in given):
            return None
        args = [self.rows[a].all if a in self.rows else self.outside[a] for a in n.args]
        out = rule(n, [a in self.rows for a in n.args], args)
        if out is None:
            return None
        return replace(given[0], all=out, product=op_name(n) in _PRODUCTS or any(g.product for g in given))


def _count(loop: Loop, called: Call) -> Any:
    """How often a loop runs whose condition is `i < limit` with i counting up by one; None for others."""
    cond: Any = loop.tail.cond
    if loop.tail.then is not loop.again or op_name(cond) != "less" or cond.args[0] not in loop.fn.params:
        return None
    at = loop.fn.params.index(cond.args[0])
    start, limit, step = called.args[at], cond.args[1], cast(Any, loop.again.args[at])
    if op_name(step) != "add" or step.args[0] is not cond.args[0] or splat(step.args[1]) != 1 or splat(start) is None:
        return None
    if limit in loop.fn.params and loop.fixed(loop.fn.params.index(limit)):
        limit = called.args[loop.fn.params.index(limit)]
    if op_name(limit) == "shape_tensor" and len(limit.attrs["values"]) == 1:
        return dims.dim(limit.attrs["values"][0] - splat(start))
    return None if splat(limit) is None else splat(limit) - splat(start)  # type: ignore[operator]


def _bytes(t: TensorType) -> int:
    """Bytes of a tensor; 0 where they are not known."""
    return math.prod(t.shape) * dt.nbytes(t.dtype) if t.is_static else 0


# ---------------------------------------------------------------------------------------- operators on all rows at once

Rule = Callable[[Call, list[bool], list[Expr]], Expr | None]


def _unary(n: Call, rows: list[bool], args: list[Expr]) -> Expr | None:
    return same_call(n, *args)


def _broadcast(n: Call, rows: list[bool], args: list[Expr]) -> Expr | None:
    """Rows get dimensions of 1, so that their numbers stand before all others; the result may not be larger."""
    rank = n.ty.ndim
    if not any(r and dims.equal(a.ty.shape, n.ty.shape) for r, a in zip(rows, n.args, strict=True)):
        return None
    return same_call(n, *[_ranked(a, rank + 1) if r else a for r, a in zip(rows, args, strict=True)])


def _ranked(x: Expr, rank: int) -> Expr:
    first, *rest = x.ty.shape
    shape = (first, *[1] * (rank - 1 - len(rest)), *rest)
    return x if len(shape) == x.ty.ndim else call("reshape", x, newshape=shape)


def _dense(n: Call, rows: list[bool], args: list[Expr]) -> Expr | None:
    return same_call(n, *args) if rows == [True, False] else None


def _matmul(n: Call, rows: list[bool], args: list[Expr]) -> Expr | None:
    a, b = args
    if rows != [True, False] or b.ty.ndim != 2 or n.attrs["transpose_a"]:
        return None
    flat = call("reshape", a, newshape=(dims.prod(a.ty.shape[:-1]), a.ty.shape[-1]))
    return call("reshape", same_call(n, flat, b), newshape=(a.ty.shape[0], *n.ty.shape))


def _bias_add(n: Call, rows: list[bool], args: list[Expr]) -> Expr | None:
    return same_call(n, *args, axis=n.attrs["axis"] % n.ty.ndim + 1) if rows == [True, False] else None


def _reshape(n: Call, rows: list[bool], args: list[Expr]) -> Expr | None:
    return call("reshape", args[0], newshape=(args[0].ty.shape[0], *n.ty.shape))


_RULES: dict[str, Rule] = {
    "nn.dense": _dense,
    "nn.matmul": _matmul,
    "nn.bias_add": _bias_add,
    "reshape": _reshape,
    "expand_dims": _reshape,
    "squeeze": _reshape,
}
_KINDS: tuple[tuple[type, Rule], ...] = ((Unary, _unary), (Binary, _broadcast))
