"""Whether a tile does what an intrinsic does: by meaning, not by the order or the names of loops and operands.

Sums, products, minima and maxima may be written either way round (those of integers in any order), casts may stand
inside or outside of operations that do not overflow, dimensions may come in any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.arith import Facts, linear, prove, simplify
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var
from warpbeam.tir.schedule.tensorize_tile import Dim, Tile
from warpbeam.tir.stmt import BufferStore
from warpbeam.tir.tensor_intrin import TensorIntrin
from warpbeam.tir.tensor_intrin.place import Region

Pair = tuple[Any, Any]  # an access or a value of the intrinsic, and what stands for it in the program
_FREE = (e.Add, e.Mul, e.Min, e.Max, e.And, e.Or)
_CHAIN = 6  # operands of a sum that are tried in every order


@dataclass(frozen=True)
class Match:
    """Where each buffer of the intrinsic lies, and the values of its variables."""

    regions: dict[Buffer, Region]
    values: dict[Var, PrimExpr]


class Matcher:
    """Finds the operands of one intrinsic in one tile; remembers how far the best attempt came."""

    def __init__(self, record: TensorIntrin, meaning: Tile, tile: Tile) -> None:
        self.record, self.meaning, self.tile = record, meaning, tile
        self.declared = dict(zip(record.semantics.buffers, record.buffers, strict=True))
        self.reason = (-1, "")

    def fail(self, rank: int, words: str) -> None:
        if rank > self.reason[0]:
            self.reason = (rank, words)

    def run(self) -> Match:
        """The match, or ScheduleError that says what differs."""
        pairs = list(self._pairs())
        for dims in self._orders():
            for found in pairs:
                match = self._place(found, dims)
                if match is not None:
                    return match
        raise ScheduleError(
            f"block {self.tile.block.name} does not match the intrinsic {self.record.name}",
            why=self.reason[1],
            hint="print the intrinsic's semantics and compare; operands, order of loops and unit loops do not matter",
        )

    # ------------------------------------------------------------------------------------------------------- dimensions

    def _orders(self) -> Iterator[dict[Var, Dim]]:
        """The program's dimension for each of the intrinsic's, in every way that extents and kinds allow."""
        wanted, have = self.meaning.dims, self.tile.dims
        if sorted((d.extent, d.kind) for d in wanted) != sorted((d.extent, d.kind) for d in have):
            self.fail(9, f"domain: the intrinsic runs over {self.meaning.describe()}, the loops {self.tile.describe()}")
            return
        for order in itertools.permutations(have):
            if all(a.extent == b.extent and a.kind == b.kind for a, b in zip(wanted, order, strict=True)):
                yield {a.var: b for a, b in zip(wanted, order, strict=True)}

    # ------------------------------------------------------------------------------------------------------ expressions

    def _pairs(self) -> Iterator[list[Pair]]:
        store, own = self.meaning.update, self.tile.update
        start: tuple[Pair, ...] = ((store, own),)
        init, other = self.meaning.init, self.tile.init
        if init is not None and other is not None:
            start = (*start, (init, other))
            heads = list(self.unify(init.value, other.value, start))
            if not heads:
                self.fail(1, f"body: the reduction starts from {_text(other.value)}, not from {_text(init.value)}")
        else:
            heads = [start]
        for head in heads:
            for found in self.unify(store.value, own.value, head):
                yield list(found)

    def unify(self, s: PrimExpr, t: PrimExpr, done: tuple[Pair, ...]) -> Iterator[tuple[Pair, ...]]:
        """All ways in which `t` has the meaning of `s`, as the pairs of operands that must then be equal."""
        s, t = peel(s), peel(t)
        if s.dtype != t.dtype:
            self.fail(3, f"dtype: {_text(t)} is {t.dtype}, the intrinsic has {s.dtype} there ({_text(s)})")
            return
        if (isinstance(s, BufferLoad) and isinstance(t, BufferLoad)) or self._is_index(s):
            yield (*done, (s, t))
        elif type(s) is not type(t) or isinstance(s, BufferLoad):
            self.fail(2, f"body: {_text(t)} stands where the intrinsic has {_text(s)}")
        elif isinstance(s, _FREE):
            yield from self._commuted(s, t, done)
        elif s is t:
            yield done
        else:
            yield from self._fields(s, t, done)

    def _is_index(self, s: PrimExpr) -> bool:
        if isinstance(s, Var):
            return True
        inside = list(post_order(s))
        return dt.is_int(s.dtype) and any(isinstance(n, Var) for n in inside) and not any(
            isinstance(n, BufferLoad) for n in inside
        )  # fmt: skip

    def _commuted(self, s: Any, t: Any, done: tuple[Pair, ...]) -> Iterator[tuple[Pair, ...]]:
        exact = not dt.is_float(s.dtype) or isinstance(s, e.Min | e.Max)
        left, right = (chain(x, type(s)) if exact else [x.a, x.b] for x in (s, t))
        if len(left) != len(right) or len(left) > _CHAIN:
            left, right = [s.a, s.b], [t.a, t.b]
        for order in itertools.permutations(right):
            yield from self._all(left, list(order), done)

    def _all(self, left: Sequence[Any], right: Sequence[Any], done: tuple[Pair, ...]) -> Iterator[tuple[Pair, ...]]:
        found = [done]
        for a, b in zip(left, right, strict=True):
            found = [more for so_far in found for more in self.unify(a, b, so_far)]
        yield from found

    def _fields(self, s: Any, t: Any, done: tuple[Pair, ...]) -> Iterator[tuple[Pair, ...]]:
        plain = [(getattr(s, f), getattr(t, f)) for f in s._fields]
        below, other = children(s), children(t)
        if len(below) != len(other) or not below or any(
            a != b for a, b in plain if not isinstance(a, Node | tuple)
        ):  # fmt: skip
            self.fail(2, f"body: {_text(t)} stands where the intrinsic has {_text(s)}")
            return
        yield from self._all(below, other, done)

    # ----------------------------------------------------------------------------------------------------------- places

    def _place(self, pairs: list[Pair], dims: dict[Var, Dim]) -> Match | None:
        """Regions of all operands for one correspondence of dimensions."""
        back: dict[Any, Any] = {d.var: v for v, d in dims.items()}
        facts = self.tile.facts
        for v, d in dims.items():
            facts.bind(v, 0, d.extent)
        regions: dict[Buffer, Region] = {}
        values: dict[Var, PrimExpr] = {}
        for s, t in pairs:
            if isinstance(s, BufferLoad | BufferStore):
                ok = self._access(s, t, back, regions, facts)
            else:
                ok = self._value(s, substitute(t, back), dims, values, facts)
            if not ok:
                return None
        result = regions[self.declared[self.meaning.update.buffer]]
        for declared, r in regions.items():
            if r is not result and r.buffer is result.buffer:
                self.fail(6, f"access: {declared.name} and the result are both in {r.buffer.name}")
                return None
        for declared, r in regions.items():
            if not self._strides(declared, r, values):
                return None
        return Match(regions, values)

    def _value(self, s: PrimExpr, t: PrimExpr, dims: dict[Var, Dim], values: dict[Var, PrimExpr], facts: Facts) -> bool:
        if isinstance(s, Var) and s not in dims:
            free = not any(n in dims for n in post_order(t))
            return free and values.setdefault(s, t) is t
        if prove(s == t, facts) is True:
            return True
        self.fail(4, f"body: the index {_text(t)} stands where the intrinsic has {_text(s)}")
        return False

    def _access(self, s: Any, t: Any, back: dict[Any, Any], regions: dict[Buffer, Region], facts: Facts) -> bool:
        declared = self.declared[s.buffer]
        if s.buffer.dtype != t.buffer.dtype:
            self.fail(3, f"dtype: {t.buffer.name} is {t.buffer.dtype}, operand {declared.name} is {s.buffer.dtype}")
            return False
        if declared.scope not in ("", "global", t.buffer.scope):
            self.fail(
                4, f"scope: {t.buffer.name} is in {t.buffer.scope!r}, operand {declared.name} in {declared.scope!r}"
            )
            return False
        index = tuple(simplify(substitute(i, back), facts) for i in t.indices)
        known = regions.get(declared)
        if known is None:
            found = self._region(s, t.buffer, index, facts)
            if isinstance(found, str):
                self.fail(5, f"access: {_text_of(t)} cannot be operand {_text_of(s)}: {found}")
                return False
            regions[declared] = found
            return True
        same = known.buffer is t.buffer and all(
            prove(a == b, facts) is True for a, b in zip(known.at(s.indices), index, strict=True)
        )
        if not same:
            self.fail(5, f"access: {_text_of(t)} and {known.describe()} would both be operand {declared.name}")
        return same

    def _region(self, s: Any, buffer: Buffer, index: tuple[PrimExpr, ...], facts: Facts) -> Region | str:
        """Where element `d` of the operand lies, given that element `s.indices` lies at `index`."""
        inner = [d.var for d in self.meaning.dims]
        dims = tuple(Var(f"d{k}") for k in range(len(s.indices)))
        shape = tuple(int(x) for x in s.buffer.shape)
        used = [i for i in s.indices if isinstance(i, Var)]
        if len(set(used)) == len(used) and all(isinstance(i, Var | e.IntImm) for i in s.indices):
            named: dict[Any, Any] = {i: d for i, d in zip(s.indices, dims, strict=True) if isinstance(i, Var)}
            moved = tuple(simplify(substitute(i, named)) for i in index)
        else:
            solved = _solve(s.indices, index, dims, inner, facts)
            if solved is None:
                return "the index is no linear function of the operand's"
            moved = solved
        left = sorted({n.name for i in moved for n in post_order(i) if isinstance(n, Var) and n in inner})
        if left:
            return f"it also moves with {', '.join(left)}"
        for d, size in zip(dims, shape, strict=True):
            facts.bind(d, 0, size)
        return Region(buffer, dims, shape, tuple(simplify(i, facts) for i in moved), facts)

    def _strides(self, declared: Buffer, r: Region, values: dict[Var, PrimExpr]) -> bool:
        """Whether the region's strides and offset are what the buffer asks for; binds its variables."""
        found = r.strides()
        wanted, step = [], e.const(1)
        for size in reversed(r.shape):
            wanted.append(step)
            step = step * size
        asked = [e.as_expr(x) for x in declared.strides] or wanted[::-1]
        if found is None:
            if not any(isinstance(x, Var) for x in asked):  # vectors are checked lane by lane
                return True
            self.fail(7, f"strides: the region {r.describe()} has none that are constant")
            return False
        for k, (have, want, size) in enumerate(zip(found, asked, r.shape, strict=True)):
            if isinstance(want, Var):
                if values.setdefault(want, have) is not have and prove(values[want] == have, r.facts) is not True:
                    self.fail(7, f"strides: {want.name} would be {_text(values[want])} and {_text(have)}")
                    return False
            elif size > 1 and prove(have == substitute(want, dict(values)), r.facts) is not True:
                self.fail(
                    7,
                    f"strides: dimension {k} of {declared.name} steps by {_text(have)} in {r.describe()}, "
                    f"the intrinsic wants {_text(want)}",
                )
                return False
        offset = e.as_expr(declared.elem_offset)
        factor = declared.offset_factor
        if factor > 1 and prove(r.start() % factor == 0, r.facts) is not True:
            self.fail(7, f"offset: {r.describe()} does not start at a multiple of {factor}, as {declared.name} must")
            return False
        if isinstance(offset, Var):
            values[offset] = r.start()
        return True


def _solve(
    own: tuple[PrimExpr, ...], index: tuple[PrimExpr, ...], dims: tuple[Var, ...], inner: list[Var], facts: Facts
) -> tuple[PrimExpr, ...] | None:
    """`index` as linear functions of `dims`, given that dims = own; each dimension needs a variable of its own."""
    rows = [linear(x, inner, facts) for x in own]
    if any(r is None for r in rows):
        return None
    lines = [r for r in rows if r is not None]
    pivots: list[Var | None] = []
    for k, r in enumerate(lines):
        others = {v for n, x in enumerate(lines) if n != k for v in x[0]}
        pivots.append(next((v for v in r[0] if v not in others and e.const_int(r[0][v]) == 1), None))
    moved = []
    for i in index:
        found = linear(i, inner, facts)
        if found is None:
            return None
        total = i
        for d, x, p in zip(dims, own, pivots, strict=True):
            if p is not None:
                total = total + (d - x) * found[0].get(p, e.const(0))
        moved.append(simplify(total, facts))
    return tuple(moved)


def chain(x: Any, cls: Any) -> list[PrimExpr]:
    """The operands of nested operations of one kind, in order."""
    out: list[PrimExpr] = []
    todo = [x]
    while todo:
        n: Any = peel(todo.pop())
        if type(n) is cls and n.dtype == x.dtype:
            todo += [n.b, n.a]
        else:
            out.append(n)
    return out


def peel(x: Any) -> Any:
    """The expression without marks, and with a widening cast moved to the operands where nothing overflows."""
    while True:
        if isinstance(x, e.Call) and x.op == "likely":
            x = x.args[0]
            continue
        if not isinstance(x, e.Cast) or not (dt.is_int(x.type) and dt.is_int(x.value.dtype)):
            return x
        inner: Any = x.value
        if isinstance(inner, e.Cast) and _fits(value_range(inner.value), inner.type):
            x = e.cast(x.type, inner.value)
        elif isinstance(inner, e.Add | e.Sub | e.Mul) and _fits(_combined(inner), inner.dtype):
            if not _fits(_combined(inner), x.type):
                return x
            x = type(inner)(e.cast(x.type, inner.a), e.cast(x.type, inner.b))
        else:
            return x


def _fits(values: tuple[int, int] | None, dtype: str) -> bool:
    if values is None:
        return False
    low, high = dt.int_range(dt.scalar(dtype))
    return low <= values[0] and values[1] <= high


def _combined(n: Any) -> tuple[int, int] | None:
    a, b = value_range(n.a), value_range(n.b)
    return None if a is None or b is None else _OPS[type(n)](a, b)


def _products(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    all_of = [x * y for x in a for y in b]
    return min(all_of), max(all_of)


_OPS: dict[type, Any] = {
    e.Add: lambda a, b: (a[0] + b[0], a[1] + b[1]),
    e.Sub: lambda a, b: (a[0] - b[1], a[1] - b[0]),
    e.Mul: _products,
}


def value_range(x: PrimExpr) -> tuple[int, int] | None:
    """The values that an integer expression can take, from the dtypes of what it is made of."""
    done: dict[Any, Any] = {}
    for n in post_order(x, enter=lambda n: not isinstance(n, BufferLoad)):
        if not isinstance(n, PrimExpr) or not (dt.is_int(n.dtype) or dt.is_bool(n.dtype)):
            continue
        full = dt.int_range(dt.scalar(n.dtype))
        found = full
        if isinstance(n, e.IntImm):
            found = (n.value, n.value)
        elif isinstance(n, e.Cast) and done.get(n.value) is not None and _fits(done[n.value], n.dtype):
            found = done[n.value]
        elif type(n) in _OPS:
            exact = _OPS[type(n)](done.get(n.a, full), done.get(n.b, full))  # type: ignore[attr-defined]
            found = exact if _fits(exact, n.dtype) else full
        done[n] = found
    return done.get(x)


def _text(x: Any) -> str:
    from warpbeam.tir.text.printer import brief

    return brief(x)


def _text_of(access: Any) -> str:
    return _text(BufferLoad(access.buffer, access.indices))
