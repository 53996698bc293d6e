"""Whether a loop program may write one of its results over one of its operands, and the program that does.

It may when no element of the operand is read after, or while, the result is stored at the same place. The question is
put to the lowered program, whose statements run in the order in which they stand; what differs between iterations of a
loop, and between threads, is decided from the index expressions alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as S
from warpbeam.tir.arith import Facts, bounds, prove, simplify
from warpbeam.tir.arith import poly as P
from warpbeam.tir.expr import Buffer, PrimExpr, Var

Interval = tuple[int, int]
_PAIRS = 1 << 16  # comparisons of single accesses that are worth their time


@dataclass(frozen=True, slots=True)
class _Level:
    """A loop around an access; loops at two places are two levels even where they are one node."""

    var: Var
    min: PrimExpr
    extent: PrimExpr
    parallel: bool
    place: int


@dataclass(frozen=True, slots=True)
class _Arm:
    """A branch around an access, `cond` holds in it; the two arms of a branch have one place."""

    cond: PrimExpr | None
    place: int
    then: bool


_Around = _Level | _Arm


def _key(x: _Around) -> tuple[int, bool]:
    return x.place, isinstance(x, _Arm) and x.then


@dataclass(slots=True)
class _Class:
    """Accesses under the same loops whose indices differ by constants: (when, per dimension the constants' range).
    facts: what holds inside of the loops.
    """

    levels: tuple[_Around, ...]
    facts: Facts
    indices: tuple[PrimExpr | None, ...]
    members: list[tuple[int, tuple[Interval, ...]]] = field(default_factory=list)

    def hull(self, d: int) -> Interval:
        return min(m[1][d][0] for m in self.members), max(m[1][d][1] for m in self.members)


class _Unknown(Exception):
    """The program does something whose reach cannot be seen."""


def may_overwrite(func: S.PrimFunc, source: Buffer, result: Buffer) -> bool:
    """Whether the lowered `func` computes the same when `source`, which it only reads, and `result` share memory.

    Both must have the same shape and dtype and be compact; else the answer is no.
    """
    if source.dtype != result.dtype or source.strides or result.strides or not _same_shape(source, result):
        return False
    walk = _Walk(source, result)
    try:
        walk.run(func.body)
    except _Unknown:
        return False
    if source in walk.stored or not walk.stores:
        return False
    return all(_ordered(w, r) for w in walk.stores.values() for r in walk.loads.values())


def _same_shape(a: Buffer, b: Buffer) -> bool:
    return len(a.shape) == len(b.shape) and all(
        x is y or e.const_int(x) == e.const_int(y) is not None for x, y in zip(a.shape, b.shape, strict=True)
    )


def overwriting(func: S.PrimFunc, source: Buffer, result: Buffer) -> S.PrimFunc:
    """`func` with every read of `source` made a read of `result`; its parameters stay, `source` is no longer used.

    The caller gives both parameters the same memory.
    """

    def step(node: Node) -> Node | None:
        if isinstance(node, e.BufferLoad) and node.buffer is source:
            return e.BufferLoad(result, node.indices)
        return None

    over = {**dict(func.attrs.get("over", {})), source.name: result.name}
    return func.replace(body=rewrite(func.body, step), attrs=func.attrs.updated(over=over))  # type: ignore[no-any-return]


class _Walk:
    """Collects the accesses of two buffers with the time and the loops at which they happen."""

    def __init__(self, source: Buffer, result: Buffer) -> None:
        self.source, self.result = source, result
        self.time = 0
        self.places = 0
        self.loads: dict[Any, _Class] = {}
        self.stores: dict[Any, _Class] = {}
        self.stored: set[Buffer] = set()
        self.below: dict[Node, tuple[e.BufferLoad, ...]] = {}  # nodes that use a buffer; of expressions, their loads
        self.divisors: dict[Any, set[int]] = {}
        self.unknown: set[Node] = set()  # indices with loads or local variables
        self.facts: dict[int, tuple[Any, Facts, dict[Any, Any]]] = {}

    def run(self, body: S.Stmt) -> None:
        """Reads the program once from the leaves, then its statements in order."""
        nodes = list(post_order(body))
        lets = {n.var for n in nodes if isinstance(n, (S.LetStmt, e.Let))}
        for n in nodes:
            self._survey(n, lets)
        stack: list[tuple[S.Stmt, tuple[_Around, ...], dict[Any, Any]]] = [(body, (), {})]
        while stack:
            node, levels, env = stack.pop()
            if node not in self.below:
                continue
            if isinstance(node, S.For):
                inner, more = self._enter(node, levels, env)
                stack.append((node.body, inner, more))
                self._read((node.min, node.extent), levels, env)
            elif isinstance(node, S.BufferStore):
                self._store(node, levels, env)
            elif isinstance(node, S.IfThenElse):
                self._read((node.cond,), levels, env)
                then, orelse = self._arms(node, env)
                if node.orelse is not None:
                    stack.append((node.orelse, (*levels, orelse), env))
                stack.append((node.then, (*levels, then), env))
            elif isinstance(node, S.SeqStmt):
                stack += [(s, levels, env) for s in reversed(node.stmts)]
            elif isinstance(node, S.LetStmt):
                self._read((node.value,), levels, env)
                stack.append((node.body, levels, env))
            elif isinstance(node, S.Allocate):
                stack.append((node.body, levels, env))
            elif isinstance(node, S.AssertStmt | S.Evaluate):
                parts = (node.cond,) if isinstance(node, S.AssertStmt) else (node.value,)
                self._read(parts, levels, env)
            else:
                raise _Unknown

    def _survey(self, node: Node, lets: set[Var]) -> None:
        """What is below a node whose children are known: uses of the buffers, divisors, what makes indices unknown."""
        if isinstance(node, e.BufferRef) and node.buffer in (self.source, self.result):
            raise _Unknown
        if node in lets or isinstance(node, e.BufferLoad):
            self.unknown.add(node)
        if isinstance(node, e.BufferLoad | S.BufferStore) and node.buffer in (self.source, self.result):
            self._divided(node.indices)
        inside = children(node)
        if not isinstance(node, S.Stmt) and any(c in self.unknown for c in inside):
            self.unknown.add(node)
        if isinstance(node, e.Call) and node.op == "prefetch":
            return
        found = [self.below[c] for c in inside if c in self.below]
        if isinstance(node, e.BufferLoad) and node.buffer is self.source:
            self.below[node] = (*dict.fromkeys(x for loads in found for x in loads), node)
        elif isinstance(node, S.Stmt):
            if found or (isinstance(node, S.BufferStore) and node.buffer in (self.source, self.result)):
                self.below[node] = ()
        elif found:
            self.below[node] = found[0] if len(found) == 1 else tuple(dict.fromkeys(x for f in found for x in f))

    def _divided(self, indices: Sequence[PrimExpr]) -> None:
        """Notes what indices divide variables by."""
        for node in post_order(*indices):
            if isinstance(node, e.FloorDiv | e.FloorMod) and isinstance(node.a, Var):
                c = e.const_int(node.b)
                if c is not None and c > 1:
                    self.divisors.setdefault(node.a, set()).add(c)

    def _arms(self, node: S.IfThenElse, env: dict[Any, Any]) -> tuple[_Arm, _Arm]:
        self.places += 1
        cond = None if node.cond in self.unknown else substitute(node.cond, env)
        return _Arm(cond, self.places, True), _Arm(None if cond is None else e.Not(cond), self.places, False)

    def _enter(
        self, loop: S.For, levels: tuple[_Around, ...], env: dict[Any, Any]
    ) -> tuple[tuple[_Around, ...], dict[Any, Any]]:
        """The levels of a loop: itself, or where indices use var//c and var%c, one for each of the two."""
        var, parallel = Var(loop.var.name, loop.var.dtype), loop.kind == "parallel"
        low, extent = (substitute(x, env) for x in (loop.min, loop.extent))
        env = {**env, loop.var: var}
        self.places += 1
        made: tuple[_Level, ...] = (_Level(var, low, extent, parallel, self.places),)
        if e.const_int(low) == 0:
            for c in sorted(self.divisors.get(loop.var, ())):
                made, env = self._parted(made, env, c)
        return (*levels, *made), env

    def _parted(
        self, made: tuple[_Level, ...], env: dict[Any, Any], c: int
    ) -> tuple[tuple[_Level, ...], dict[Any, Any]]:
        first, rest = made[0], made[1:]
        done = 1
        for level in rest:
            done *= e.const_int(level.extent) or 1
        if c % done:
            return made, env
        c //= done
        q, r = Var(f"{first.var.name}_q", first.var.dtype), Var(f"{first.var.name}_r", first.var.dtype)
        outer = replace(first, var=q, extent=simplify(e.floordiv(first.extent + (c - 1), e.const(c))))
        self.places += 1
        inner = _Level(r, e.const(0), e.const(c), first.parallel, self.places)
        swap = {first.var: q * c + r}
        return (outer, inner, *rest), {k: substitute(v, swap) for k, v in env.items()}

    def _store(self, node: S.BufferStore, levels: tuple[_Around, ...], env: dict[Any, Any]) -> None:
        self._read((node.value, *node.indices), levels, env)
        if node.buffer in (self.source, self.result):
            self.stored.add(node.buffer)
            self._note(self.stores, node.buffer, node.indices, levels, env)

    def _read(self, parts: Sequence[PrimExpr], levels: tuple[_Around, ...], env: dict[Any, Any]) -> None:
        for p in parts:
            for load in self.below.get(p, ()):
                self._note(self.loads, load.buffer, load.indices, levels, env)

    def _note(
        self, table: dict[Any, _Class], buffer: Buffer, indices: Any, levels: tuple[_Around, ...], env: dict[Any, Any]
    ) -> None:
        self.time += 1
        _, facts, known = self.facts.get(id(levels)) or self.facts.setdefault(id(levels), (levels, _facts(levels), {}))
        dims = []
        for i in indices:
            if i not in known:
                known[i] = _taken_apart(i, self.unknown, env, facts)
            dims.append(known[i])
        parts = tuple(d[0] for d in dims)
        if (buffer, parts) not in known:
            known[buffer, parts] = _flat(parts, buffer, facts)
        flat = known[buffer, parts]
        key = tuple(_key(x) for x in levels), parts
        found = table.setdefault(key, _Class(levels, facts, (*parts, flat)))
        ranges = tuple(d[1] for d in dims)
        found.members.append((self.time, (*ranges, (0, 0) if flat is None else _flat_range(ranges, buffer))))


def _facts(levels: Sequence[_Around]) -> Facts:
    facts = Facts()
    _learn(facts, levels)
    return facts


def _learn(facts: Facts, levels: Sequence[_Around]) -> bool:
    """Adds what holds inside of the levels; False if that contradicts what is known."""
    for x in levels:
        if isinstance(x, _Level):
            facts.bind(x.var, x.min, x.extent)
        elif x.cond is not None and not _hold(facts, x.cond):
            return False
    return not any(low is not None and high is not None and low > high for low, high in facts.limits.values())


def _hold(facts: Facts, cond: Any) -> bool:
    if prove(cond, facts) is False:
        return False
    facts.assume(cond)
    return True


def _taken_apart(
    index: PrimExpr, unknown: set[Node], env: dict[Any, Any], facts: Facts
) -> tuple[PrimExpr | None, Interval]:
    """(what of an index depends on loops and sizes, range of the constants and lanes added to it); None: anything."""
    lanes = (0, 0)
    if isinstance(index, e.Ramp):
        step = e.const_int(index.stride)
        if step is None:
            return None, (0, 0)
        reach = step * (index.count - 1)
        lanes, index = (min(0, reach), max(0, reach)), index.base
    if "x" in index.dtype or index in unknown:
        return None, (0, 0)
    terms, shift = P.split_const(P.of_expr(simplify(substitute(index, env), facts)))
    return P.to_expr(terms, "int64"), (shift + lanes[0], shift + lanes[1])


def _flat(parts: Sequence[PrimExpr | None], buffer: Buffer, facts: Facts) -> PrimExpr | None:
    """The part of an access's offset in elements that depends on loops and sizes."""
    total: Any = e.const(0)
    pitch = 1
    for part, extent in reversed(list(zip(parts, buffer.shape, strict=True))):
        if part is None or pitch < 0:
            return None
        total = total + part * pitch
        size = e.const_int(extent)
        pitch = pitch * size if size is not None else -1
    return simplify(total, facts)  # type: ignore[no-any-return]


def _flat_range(ranges: Sequence[Interval], buffer: Buffer) -> Interval:
    """The range of what is added to it, where all dimensions but the first are constant."""
    low = high = 0
    pitch = 1
    for (lo, hi), extent in reversed(list(zip(ranges, buffer.shape, strict=True))):
        low, high = low + lo * pitch, high + hi * pitch
        pitch *= e.const_int(extent) or 0
    return low, high


# ------------------------------------------------------------------------------------------------------------ the proof


def _ordered(store: _Class, load: _Class) -> bool:
    """Whether no load of a class comes after, or at the same time as, a store of the other to the same element."""
    common = 0
    for a, b in zip(store.levels, load.levels, strict=False):
        if _key(a) != _key(b):
            break
        common += 1
    for at, level in enumerate(store.levels[:common]):
        if isinstance(level, _Arm) or e.const_int(level.extent) == 1:
            continue
        later = (True, False) if level.parallel else (True,)
        if not all(_apart(store, load, at, level, x) for x in later):
            return False
    ends = {x.levels[common].place for x in (store, load) if len(x.levels) > common}
    if min(len(store.levels), len(load.levels)) > common and len(ends) == 1:
        return True  # they stand in the two arms of one branch
    return _apart_within(store, load, common)


def _renamed(load: _Class, start: int, swap: dict[Any, Any]) -> tuple[list[_Around], dict[Any, Any]]:
    """The load's levels from `start` on with variables of their own."""
    made: list[_Around] = []
    for x in load.levels[start:]:
        if isinstance(x, _Arm):
            made.append(x if x.cond is None else replace(x, cond=substitute(x.cond, swap)))
            continue
        low, extent = substitute(x.min, swap), substitute(x.extent, swap)
        fresh = Var(f"{x.var.name}_", x.var.dtype)
        swap[x.var] = fresh
        made.append(replace(x, var=fresh, min=low, extent=extent))
    return made, swap


def _apart(store: _Class, load: _Class, at: int, level: _Level, later: bool) -> bool:
    """Whether an iteration of level `at` that loads shares nothing with an earlier (or later) one that stores."""
    with store.facts.scope() as facts:
        step = Var("t", level.var.dtype)
        facts.bind(step, 1, level.extent - 1)
        other = level.var + step if later else level.var - step
        within = other < level.min + level.extent if later else other >= level.min
        rest, swap = _renamed(load, at + 1, {level.var: other})
        if not _hold(facts, within) or not _learn(facts, rest):
            return True  # there are no two such iterations
        return _differ_somewhere(store, load, swap, facts)


def _differ_somewhere(store: _Class, load: _Class, swap: dict[Any, Any], facts: Facts) -> bool:
    """Whether the indices of no two accesses are equal in all dimensions."""
    return any(
        _differ(store.indices[d], load.indices[d], swap, facts, _gap(store.hull(d), load.hull(d)))
        for d in range(len(store.indices))
    )


def _gap(store: Interval, load: Interval) -> Interval:
    return store[0] - load[1], store[1] - load[0]


def _differ(a: Any, b: Any, swap: dict[Any, Any], facts: Facts, gap: Interval) -> bool:
    """Whether a - b + g is never zero for any g in `gap`."""
    if a is None or b is None:
        return False
    diff = simplify(a - substitute(b, swap), facts)
    low, high = bounds(diff, facts)
    if (low is not None and low + gap[0] > 0) or (high is not None and high + gap[1] < 0):
        return True
    if not facts.symbolic:
        return False
    return prove(diff + gap[0] > 0, facts) is True or prove(diff + gap[1] < 0, facts) is True


def _apart_within(store: _Class, load: _Class, common: int) -> bool:
    """The same for one iteration of all common loops, where only stores that stand before a load matter."""
    pairs = _before(store, load)
    first = next(pairs, None)
    if first is None:
        return True
    if len(store.members) * len(load.members) > _PAIRS:
        return False
    with store.facts.scope() as facts:
        rest, swap = _renamed(load, common, {})
        if not _learn(facts, rest):
            return True
        spans: list[tuple[int | None, int | None]] = []
        for a, b in zip(store.indices, load.indices, strict=True):
            if a is None or b is None:
                spans.append((None, None))
            else:
                spans.append(bounds(simplify(a - substitute(b, swap), facts), facts))
        if all(_distinct(spans, w, r) for w, r in (first, *pairs)):
            return True
        return facts.symbolic and _differ_somewhere(store, load, swap, facts)


def _before(store: _Class, load: _Class) -> Iterator[tuple[tuple[Interval, ...], tuple[Interval, ...]]]:
    for when, there in store.members:
        for then, here in load.members:
            if when < then:
                yield there, here


def _distinct(
    spans: Sequence[tuple[int | None, int | None]], store: Sequence[Interval], load: Sequence[Interval]
) -> bool:
    for (low, high), w, r in zip(spans, store, load, strict=True):
        near, far = _gap(w, r)
        if (low is not None and low + near > 0) or (high is not None and high + far < 0):
            return True
    return False
