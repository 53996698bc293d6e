"""Values that are parts of others: what a cut takes of a tensor stays where it is, and what is joined is made in place.

An operator says of itself that its results are boxes of its operand (`boxes`), or that its operands stand one after the
other in its result (`joins`). A box without gaps is a view. A joined operand is written into the result by the kernel
that makes it; where rows lie apart there, by a variant of that kernel with a wider result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from warpbeam.driver.plan_walk import is_call, is_host_call, is_view, line, origin
from warpbeam.ir import dtype as dt
from warpbeam.relay.expr import Call, Expr, Function, If, IRModule, Tuple, TupleGetItem
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType


@dataclass(frozen=True, slots=True)
class Piece:
    """Where an operand stands in what is joined: `outer` rows of `run` elements, `pitch` apart, from `start` on."""

    outer: int
    run: int
    pitch: int
    start: int
    total: int

    @property
    def dense(self) -> bool:
        return self.outer == 1

    def strides(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Elements between neighbours along each axis of an operand of a shape; sizes outside of runs may be open."""
        out: list[Any] = []
        step: Any = 1
        within = True
        for extent in reversed(shape):
            if within and step >= self.run:
                step, within = step // self.run * self.pitch, False
            out.append(step)
            step *= extent
        return tuple(reversed(out))


def _only_op(fn: Any) -> Call | None:
    """The call that a primitive function consists of."""
    call = fn.body if isinstance(fn, Function) else None
    if not isinstance(call, Call) or not isinstance(call.op, Op) or tuple(call.args) != tuple(fn.params):
        return None
    return call


def views(fn: Function) -> list[int] | None:
    """Byte offsets of a primitive function's results within its operand, where each is a part without gaps."""
    call = _only_op(fn)
    boxes = getattr(call.op, "boxes", None) if call is not None else None
    if call is None or boxes is None:
        return None
    source = call.args[0].ty
    results = call.ty.fields if not isinstance(call.ty, TensorType) else (call.ty,)
    begins = boxes(call.attrs, [a.ty for a in call.args])
    if begins is None or not all(isinstance(d, int) for t in (source, *results) for d in t.shape):
        return None
    found = [_offset(source.shape, t.shape, b) for t, b in zip(results, begins, strict=True)]
    if any(o is None for o in found):
        return None
    return [o * dt.nbytes(source.dtype) for o in found]


def kernel_calls(mod: IRModule) -> list[Call]:
    """The calls in all functions that surely ask for a kernel, in order: no views, no joins that may need none."""
    main = mod["main"]
    bodies = [f.body for f in (main, *(f for f in mod.functions.values() if f is not main)) if isinstance(f, Function)]
    calls = [n for body in bodies for n in line(body) if isinstance(n, Call) and isinstance(n.op, Function)]
    return [c for c in calls if not (is_view(c.op) or is_host_call(c.op) or views(c.op) or join(c.op))]


def _offset(whole: tuple[int, ...], part: tuple[int, ...], begin: Mapping[int, int]) -> int | None:
    """First element of a box, None where its elements have gaps between them."""
    cut = [d for d in range(len(whole)) if whole[d] != part[d]]
    if prod(part) == 0:
        return None
    if cut and prod(part[: cut[-1]]) != 1:
        return None
    return sum(begin.get(d, 0) * prod(whole[d + 1 :]) for d in range(len(whole)))


def join(fn: Any) -> list[Piece] | None:
    """Where the operands of a primitive function stand in its result, if it only puts them one after the other."""
    call = _only_op(fn)
    joins = getattr(call.op, "joins", None) if call is not None else None
    if call is None or joins is None or len(set(fn.params)) != len(fn.params):
        return None
    axis = joins(call.attrs, [a.ty for a in call.args])
    shapes = [a.ty.shape for a in call.args]
    if not all(isinstance(d, int) and d > 0 for s in shapes for d in s):
        return None
    inner = prod(shapes[0][axis + 1 :])
    pitch = sum(s[axis] for s in shapes) * inner
    pieces, start = [], 0
    for s in shapes:
        pieces.append(Piece(prod(s[:axis]), s[axis] * inner, pitch, start, prod(s[:axis]) * pitch))
        start += s[axis] * inner
    return pieces


def wanted(nodes: list[Any], result: Expr, given: Any) -> dict[Expr, Piece]:
    """The values computed among `nodes` that their makers should write straight into what joins them.

    Each is read by the join alone, or stands there without gaps; together they are at least half of what is joined.
    """
    uses: dict[Expr, int] = {}
    for n in nodes:
        parts = n.args if isinstance(n, Call) else (n.cond,) if isinstance(n, If) else ()
        for a in parts:
            uses[origin(a)] = uses.get(origin(a), 0) + 1
    for r in result.fields if isinstance(result, Tuple) else (result,):
        uses[origin(r)] = uses.get(origin(r), 0) + 2
    found: dict[Expr, Piece] = {}
    for n in nodes:
        pieces = join(n.op) if isinstance(n, Call) else None
        if pieces is None or n in given:
            continue
        some = {
            a: p
            for a, p in zip(n.args, pieces, strict=True)
            if a not in given and becomes_kernel(a) and uses[a] == 1 and n.args.count(a) == 1
        }
        if 2 * sum(p.outer * p.run for p in some.values()) >= pieces[0].total:
            found.update(some)
    return found


def becomes_kernel(node: Expr) -> bool:
    """Whether a value is what a kernel computes: no view, no host call, no part of another value."""
    call = node.tuple_value if isinstance(node, TupleGetItem) else node
    if not isinstance(call, Call) or is_call(call) or not isinstance(call.op, Function):
        return False
    return not (is_view(call.op) or is_host_call(call.op)) and views(call.op) is None and join(call.op) is None
