"""How an expression is built again when some of its operands became vectors or numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import map_children
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.lane_offsets import lane_offsets
from warpbeam.tir.expr import Broadcast, Buffer, BufferLoad, IntImm, PrimExpr, Ramp, Shuffle
from warpbeam.tir.intrin import get, is_pure

_MOST_LANES = 16  # of a load of which only some lanes are used


class NotVectorizable(Exception):
    """The loop has to stay a loop; never leaves `expand_loops`."""


class Lanes(Protocol):
    """What building needs of the walk."""

    def scalars(self, node: Any) -> list[Any]:
        """The value of an expression in each lane."""


Done = Mapping[Any, Any]


def is_vector(value: Any) -> bool:
    return "x" in value.dtype


def widen(value: PrimExpr, count: int) -> PrimExpr:
    """A scalar as a vector of equal lanes."""
    return value if is_vector(value) else Broadcast(value, count)


def neighbours(buffer: Buffer, index: Sequence[PrimExpr], count: int) -> bool:
    """Whether lanes that run over several dimensions, such as [(i + ramp) // 4, ramp % 4] in rows of 4, follow each
    other in memory.
    """
    total, step = [0] * count, 1
    for k, i in enumerate(reversed(index), 1):
        found = lane_offsets(i, count)
        if found is None or (step == 0 and any(found[1])):
            return False
        total = [t + step * x for t, x in zip(total, found[1], strict=True)]
        step *= e.const_int(buffer.shape[-k]) or 0
    return total == list(range(count))


def _lanes(*values: Any) -> int:
    for v in values:
        if is_vector(v):
            return dt.lanes(v.dtype)
    return 1


def build(node: Any, done: Done, walk: Lanes) -> Any:
    """`node` over the new values of its children."""
    cls = type(node)
    rule = _RULES.get(cls)
    if rule is not None:
        return rule(node, done, walk)
    if isinstance(node, e.BinaryExpr | e.CmpExpr):
        return _plain_binary(cls, done[node.a], done[node.b])
    if _grown(_operands(node), done):
        raise NotVectorizable
    return map_children(node, lambda c: done[c])


def _grown(nodes: Iterable[Any], done: Done) -> bool:
    """Whether something that was scalar is now a vector (or a vector a wider one)."""
    return any(dt.lanes(done[n].dtype) != dt.lanes(n.dtype) for n in nodes)


def _operands(node: Any) -> list[Any]:
    from warpbeam.ir.node import children

    return [c for c in children(node) if isinstance(c, PrimExpr)]


def _plain_binary(cls: type, a: Any, b: Any) -> Any:
    count = _lanes(a, b)
    if count > 1:
        if type(a) is Broadcast and type(b) is Broadcast:
            return Broadcast(_plain_binary(cls, a.value, b.value), count)
        return cls(widen(a, count), widen(b, count))
    return _SMART.get(cls, lambda x, y: e.binary(cls, x, y))(a, b)


_SMART: dict[type, Any] = {
    e.Add: e.add, e.Sub: e.sub, e.Mul: e.mul, e.FloorDiv: e.floordiv, e.FloorMod: e.floormod,
    e.Min: e.minimum, e.Max: e.maximum, e.And: e.land, e.Or: e.lor,
}  # fmt: skip


def _add(n: Any, done: Done, walk: Lanes) -> Any:
    a, b = done[n.a], done[n.b]
    if type(a) is Ramp and type(b) is Ramp:
        return Ramp(e.add(a.base, b.base), e.add(a.stride, b.stride), a.count)
    if type(b) is Ramp and not is_vector(a):
        a, b = b, a
    if type(a) is Ramp and not is_vector(b):
        return Ramp(e.add(b, a.base), a.stride, a.count)
    return _float_safe(e.Add, a, b)


def _sub(n: Any, done: Done, walk: Lanes) -> Any:
    a, b = done[n.a], done[n.b]
    if type(a) is Ramp and not is_vector(b):
        return Ramp(e.sub(a.base, b), a.stride, a.count)
    if type(b) is Ramp and not is_vector(a):
        return Ramp(e.sub(a, b.base), e.sub(e.const(0, b.stride.dtype), b.stride), b.count)
    return _float_safe(e.Sub, a, b)


def _mul(n: Any, done: Done, walk: Lanes) -> Any:
    a, b = done[n.a], done[n.b]
    if type(b) is Ramp and not is_vector(a):
        a, b = b, a
    if type(a) is Ramp and not is_vector(b):
        if type(b) is IntImm and b.value == 0:
            return b
        return Ramp(e.mul(a.base, b), e.mul(a.stride, b), a.count)
    return _float_safe(e.Mul, a, b)


def _float_safe(cls: type, a: Any, b: Any) -> Any:
    """Operands of floats are kept as they are; integers fold."""
    if dt.is_float(a.dtype) and not is_vector(a) and not is_vector(b):
        return cls(a, b)
    return _plain_binary(cls, a, b)


def _divmod(n: Any, done: Done, walk: Lanes) -> Any:
    a, b = done[n.a], done[n.b]
    if type(a) is Ramp and type(b) is IntImm and type(a.base) is IntImm and type(a.stride) is IntImm and b.value > 0:
        first = e.binary(type(n), a.base, b)
        values = [e.const_int(e.binary(type(n), a.base + a.stride * k, b)) or 0 for k in range(a.count)]
        steps = {y - x for x, y in pairwise(values)}
        if steps == {0}:
            return first
        if len(steps) == 1:
            return Ramp(first, e.const(steps.pop(), a.base.dtype), a.count)
    return _plain_binary(type(n), a, b)


def _load(n: Any, done: Done, walk: Lanes) -> Any:
    index = [done[i] for i in n.indices]
    wide = [k for k, i in enumerate(index) if is_vector(i)]
    if not wide or (wide == [len(index) - 1] and type(index[-1]) is Ramp) or not _grown(n.indices, done):
        return BufferLoad(n.buffer, index)
    if is_vector(n):
        raise NotVectorizable
    values = walk.scalars(n)
    return Shuffle(tuple(values), tuple(range(len(values))))


def _call(n: Any, done: Done, walk: Lanes) -> Any:
    args = [done[a] for a in n.args]
    count = _lanes(*args)
    if n.op == "if_then_else":
        return _choice(n, args, count, walk)
    if count == 1:
        return e.Call(n.type, n.op, tuple(args), n.attrs)
    if not _grown(n.args, done):
        return e.Call(n.type, n.op, tuple(args), n.attrs)  # its own lanes, the same for every lane of the loop
    if get(n.op).across or not is_pure(n.op):
        raise NotVectorizable
    return e.Call(dt.with_lanes(n.type, count), n.op, tuple(widen(a, count) for a in args), n.attrs)


def _choice(n: Any, args: list[Any], count: int, walk: Lanes) -> Any:
    """A lazy choice stays lazy where all lanes agree, also if some lanes are known; else both sides must be safe to
    evaluate.
    """
    cond, a, b = args
    if type(cond) is IntImm:
        return a if cond.value else b
    if count == 1:
        return e.Call(n.type, n.op, (cond, a, b), n.attrs)
    if not is_vector(cond):
        return e.Call(dt.with_lanes(n.type, count), n.op, (cond, widen(a, count), widen(b, count)), n.attrs)
    if any(isinstance(x, BufferLoad) for x in post_order(a, b)):
        return _lane_by_lane(n, widen(a, count), widen(b, count), walk)
    return e.Select(cond, widen(a, count), widen(b, count))


def _lane_by_lane(n: Any, a: Any, b: Any, walk: Lanes) -> Any:
    """A choice whose condition is known in some lanes and the same in all others: a masked load where one side is
    contiguous and the other a value, else lanes are put together.
    """
    if is_vector(n):
        raise NotVectorizable
    conds = walk.scalars(n.args[0])
    count = len(conds)
    open_ones = {c for c in conds if type(c) is not IntImm}
    if len(open_ones) > 1:
        raise NotVectorizable

    def lanes(unknown: bool) -> Any:
        chosen = [bool(c.value) if type(c) is IntImm else unknown for c in conds]
        if any(chosen) and (masked := _masked(n, chosen, a, b)) is not None:
            return masked
        sides = [walk.scalars(x) for x in n.args[1:]]
        values = tuple(x if c else y for c, x, y in zip(chosen, *sides, strict=True))
        return Broadcast(values[0], count) if len(set(values)) == 1 else Shuffle(values, tuple(range(count)))

    if not open_ones:
        return lanes(True)
    return e.Call(dt.with_lanes(n.type, count), n.op, (open_ones.pop(), lanes(True), lanes(False)), n.attrs)


def _masked(n: Any, chosen: list[bool], a: Any, b: Any) -> Any:
    """The choice as a load of the lanes that are chosen, if `a` is a load at one small step and `b` one value for all
    lanes that needs no memory; else None.
    """
    last: Any = a.indices[-1] if isinstance(a, BufferLoad) else None
    step = e.const_int(last.stride) if type(last) is Ramp else None
    count = len(chosen)
    span = (count - 1) * (step or 0) + 1
    if not step or step < 1 or (step > 1 and span > _MOST_LANES) or any(is_vector(i) for i in a.indices[:-1]):
        return None
    if type(b) is not Broadcast or not isinstance(b.value, e.FloatImm | IntImm):
        return None
    if all(chosen):
        return a
    test = [k % step == 0 and chosen[k // step] for k in range(span)]
    mask = Shuffle(tuple(e.const(c, "bool") for c in test), tuple(range(span)))
    near = BufferLoad(a.buffer, (*a.indices[:-1], Ramp(last.base, e.const(1, last.stride.dtype), span)))
    wide = e.Call(near.dtype, n.op, (mask, near, Broadcast(b.value, span)), n.attrs)
    return wide if step == 1 else Shuffle((wide,), tuple(k * step for k in range(count)))


def _select(n: Any, done: Done, walk: Lanes) -> Any:
    cond, a, b = done[n.cond], done[n.a], done[n.b]
    count = _lanes(cond, a, b)
    if count == 1:
        return e.select(cond, a, b)
    return e.Select(widen(cond, count), widen(a, count), widen(b, count))


def _cast(n: Any, done: Done, walk: Lanes) -> Any:
    value = done[n.value]
    if type(value) is Ramp and n.type == "int64":
        return Ramp(e.cast("int64", value.base), e.cast("int64", value.stride), value.count)
    return e.cast(n.type, value)


def _not(n: Any, done: Done, walk: Lanes) -> Any:
    return e.lnot(done[n.a])


_RULES: dict[type, Any] = {
    e.Add: _add,
    e.Sub: _sub,
    e.Mul: _mul,
    e.FloorDiv: _divmod,
    e.FloorMod: _divmod,
    BufferLoad: _load,
    e.Call: _call,
    e.Select: _select,
    e.Cast: _cast,
    e.Not: _not,
}
