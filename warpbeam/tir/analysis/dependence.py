"""Which iterations of loops touch the same element of a buffer: what may run in another order, or at once.

Each access is an index expression over loop variables. For a set of loops ("moving") every dimension is read as

    fixed part (outer loops) + own part (moving loops) + rest (loops further in)

Where the rest stays below the granularity of the own part in all accesses alike, two accesses of one element have the
same own part; if the own parts together are injective over the moving loops, they belong to the same iteration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

from warpbeam.ir.node import Node, NodeMemo
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import (
    accesses,
    as_block,
    binding_vars,
    free_vars,
    is_param,
    opaque_buffers,
    read,
    written,
)
from warpbeam.tir.analysis.coverage import body_loops, filled_before_read
from warpbeam.tir.analysis.predicate import conjuncts
from warpbeam.tir.analysis.regions import upper_bound
from warpbeam.tir.analysis.tree import Place, Tree, facts_at
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.bounds import poly_bounds
from warpbeam.tir.arith.iter_map import is_injective
from warpbeam.tir.expr import Buffer, PrimExpr, Var
from warpbeam.tir.stmt import Block, BufferStore, For, LetStmt


@dataclass(frozen=True, slots=True)
class Access:
    """One load or store: indices over loop variables (None: unknown elements) and what holds there."""

    place: Place
    buffer: Buffer
    indices: tuple[PrimExpr, ...] | None
    write: bool
    inner: frozenset[Var]  # loops further in than the ones asked about
    facts: Facts
    raw: tuple[PrimExpr, ...] | None = None  # the indices as splits and fusions left them


@dataclass(frozen=True, slots=True)
class Conflict:
    """Iterations of a loop that are not proven to keep apart: `block` uses `buffer`."""

    block: str
    buffer: Buffer

    def __str__(self) -> str:
        return f"iterations share elements of {self.buffer.name} (in {self.block})"


def block_accesses(tree: Tree, place: Place, moving: frozenset[Var], outer: int) -> Iterator[Access]:
    """Accesses of a block under the loops `moving`; loops no deeper than `outer` and not moving are fixed."""
    block = as_block(place)
    at: dict[Any, Any] = {a.var: b for a, b in zip(block.axes, block.bindings, strict=True)}
    facts = facts_at(place)
    inner = {p.stmt.var for p in place.ancestors() if isinstance(p.stmt, For) and p.depth > outer} - moving
    if not isinstance(block.predicate, e.IntImm):
        facts.assume(block.predicate)
    for f in body_loops(block):
        facts.bind(f.var, substitute(f.min, at), substitute(f.extent, at))
        inner.add(f.var)
    below = frozenset(inner)
    parts: list[Node] = [s for s in (block.init, block.body, block.predicate) if s is not None]
    lets = {n.var for p in parts for n in post_order(p) if isinstance(n, LetStmt | e.Let)}
    for part in parts:
        loads, stores = accesses(part)
        nodes: list[Any] = [*loads, *stores]
        for n in nodes:
            scalar = all("x" not in i.dtype and free_vars(i).isdisjoint(lets) for i in n.indices)
            raw = tuple(substitute(i, at) for i in n.indices) if scalar else None
            indices = None if raw is None else tuple(simplify(i, facts) for i in raw)
            yield Access(place, n.buffer, indices, isinstance(n, BufferStore), below, facts, raw)
        for buffer, write in opaque_buffers(part):
            yield Access(place, buffer, None, write, below, facts)


# -------------------------------------------------------------------------------------------------------- keeping apart


def keeps_apart(found: list[Access], moving: Mapping[Var, PrimExpr]) -> bool:
    """Whether accesses of one element always belong to the same iteration of the loops `moving` (with extents)."""
    if any(a.indices is None for a in found):
        return False
    found = [a for a in found if a.write or not _never_written(a, found, moving)]
    count = len(found[0].indices or ())
    own: list[PrimExpr] = []
    for d in range(count):
        part = _own_part(found, d, frozenset(moving))
        if part is not None:
            own.append(part)
    if own and is_injective(own, {v: _limit(x) for v, x in moving.items()}):
        return True
    return _same_instances(found, moving)


def _never_written(read: Access, found: list[Access], moving: Mapping[Var, PrimExpr]) -> bool:
    """Whether a load reads other elements than all stores write, in whatever iterations: another row, another time."""

    def apart(i: PrimExpr, j: PrimExpr, w: Access) -> bool:
        names = free_vars(i) | free_vars(j)
        if names & (moving.keys() | read.inner | w.inner):
            return False
        return e.const_int(simplify(i - j)) not in (None, 0)

    return all(
        any(apart(i, j, w) for i, j in zip(read.indices or (), w.indices or (), strict=True)) for w in found if w.write
    )


def _limit(extent: PrimExpr) -> Any:
    while type(extent) is e.Min:
        if isinstance(extent.a, e.IntImm) or isinstance(extent.b, e.IntImm):
            return extent.a if isinstance(extent.a, e.IntImm) else extent.b
        extent = extent.a
    return extent


def _own_part(found: list[Access], d: int, moving: frozenset[Var]) -> PrimExpr | None:
    """The part of dimension `d` over the moving loops, if two equal indices must agree in it."""
    first: tuple[P.Poly, P.Poly] | None = None
    low = high = 0
    rests: list[tuple[P.Poly, Access]] = []
    bounded = True
    for k, a in enumerate(found):
        assert a.indices is not None
        split = _parts(a.indices[d], moving, a.inner)
        if split is None:
            return None
        own, fixed, rest = split
        if first is None:
            first = own, fixed
        shift = P.const_of(P.plus(fixed, first[1], -1))
        if own != first[0] or shift is None:
            return None
        rest = P.plus(rest, P.constant(shift))
        rests.append((rest, a))
        lo, hi = poly_bounds(rest, a.facts)
        if lo is None or hi is None:
            bounded = False
        elif bounded:
            low, high = (lo, hi) if k == 0 else (min(low, lo), max(high, hi))
    if first is None or not first[0]:
        return None
    own = first[0]
    grain = 0
    for coef in own.values():
        grain = gcd(grain, coef)
    dtype = (found[0].indices or ())[d].dtype
    if (bounded and high - low < grain) or _within(rests, e.const(grain, dtype)):
        return P.to_expr(own, "int64")
    return _symbolic_part(own, rests, moving)


def _within(rests: list[tuple[P.Poly, Access]], size: PrimExpr) -> bool:
    """Whether all rests are proven to lie in [0, size): loops that end with a block have bounds of others."""
    found = ((P.to_expr(rest, size.dtype), a.facts) for rest, a in rests)
    return all(prove(x >= 0, facts) is True and prove(x < size, facts) is True for x, facts in found)


def _symbolic_part(own: P.Poly, rests: list[tuple[P.Poly, Access]], moving: frozenset[Var]) -> PrimExpr | None:
    """v of C*v + rest with a symbolic C > rest >= 0."""
    inside = [v for v in moving if any(v in mono for mono in own)]
    if len(inside) != 1:
        return None
    var = inside[0]
    step: P.Poly = {}
    for mono, coef in own.items():
        left = P.remove_factor(mono, (var,))
        if left is None or any(var in free_vars(a) for a in left):
            return None
        step[left] = coef
    return var if _within(rests, P.to_expr(step, "int64")) else None


def _parts(index: PrimExpr, moving: frozenset[Var], inner: frozenset[Var]) -> tuple[P.Poly, P.Poly, P.Poly] | None:
    """(moving, fixed, inner) terms of an index, or None where one term mixes moving and inner loops or loads."""
    own: P.Poly = {}
    fixed: P.Poly = {}
    rest: P.Poly = {}
    for mono, coef in P.of_expr(index).items():
        names: frozenset[Var] = frozenset().union(*[free_vars(a) for a in mono]) if mono else frozenset()
        if any(_loads(a) for a in mono):
            return None
        if names & moving:
            if names & inner:
                return None
            own[mono] = coef
        elif names & inner:
            rest[mono] = coef
        else:
            fixed[mono] = coef
    return own, fixed, rest


def _loads(atom: PrimExpr) -> bool:
    return type(atom) is not Var and bool(accesses(atom)[0])


def _same_instances(found: list[Access], moving: Mapping[Var, PrimExpr]) -> bool:
    """All accesses are by one block at the same indices, which are injective over the moving and inner loops."""
    first = found[0]
    if any(a.place is not first.place or a.indices != first.indices for a in found):
        return False
    indices = list(first.indices or ())
    names = frozenset().union(*[free_vars(i) for i in indices]) if indices else frozenset()
    if any(_loads(i) for i in indices):
        return False
    loops = {f.var: f for f in first.place.loops()}
    iters = dict(moving)
    for v in first.inner:
        if v in names and v not in loops:
            return False
        if v in names:
            iters[v] = loops[v].extent
    for v in iters:
        if v in loops and e.const_int(loops[v].min) != 0:
            return False
    once = {v: f.extent for v, f in loops.items() if e.const_int(f.extent) == 1 and e.const_int(f.min) == 0}
    raw, whole = list(first.raw or indices), {**iters, **once}  # which has loops that are simplified away, too
    if injective(indices, iters, first.place) or injective(raw, whole, first.place):
        return True
    outer = {v: loops[v].extent for v in names if v in loops and v not in iters}  # apart together, so apart when fixed
    if not outer or any(e.const_int(loops[v].min) != 0 for v in outer):
        return False
    # Tiles of loops around may overlap: those that are only added to an index are fixed, and the others are told apart.
    tied = free_vars(as_block(first.place).predicate).union(*[_inside_atoms(i) for i in (*indices, *(first.raw or ()))])
    for some in dict.fromkeys((tuple(outer), tuple(v for v in outer if v in tied))):
        fixed = {v: outer[v] for v in some}
        if injective(indices, {**fixed, **iters}, first.place) or injective(raw, {**fixed, **whole}, first.place):
            return True
    return False


def _inside_atoms(index: PrimExpr) -> frozenset[Var]:
    """Variables below quotients and the like, not those that only stand in a sum."""
    atoms = {a for mono in P.of_expr(index) for a in mono if type(a) is not Var}
    return frozenset().union(*[free_vars(a) for a in atoms]) if atoms else frozenset()


def injective(indices: list[PrimExpr], iters: Mapping[Var, PrimExpr], place: Place) -> bool:
    """Whether indices differ between any two iterations for which the block at `place` runs.

    Guards help: where i*5 + j < 16 holds, 16*o + i*5 + j is read as 16*o + x with x in [0, 16).
    """
    sizes: dict[Var, Any] = {v: _limit(x) for v, x in iters.items()}
    facts = facts_at(place)
    sizes = {v: x if isinstance(x, int) else _constant(x, facts) for v, x in sizes.items()}
    if is_injective(indices, sizes):
        return True
    block = as_block(place)
    limits = [_guard(c) for c in conjuncts(block.predicate)] + _short_loops(place, sizes)
    todo = [x for x in limits if x is not None]
    new = list(indices)
    while todo:  # inner limits first: they make one variable of what the outer ones count
        found = next((x for x in todo if _joins(x, new, sizes)), None)
        if found is None:
            break
        todo.remove(found)
        whole, size = found
        inside = sorted(free_vars(whole) & sizes.keys(), key=lambda v: v.name)
        x = Var("x", inside[0].dtype)
        new = _joined(new, whole, inside, x)
        todo = [(_joined([w], whole, inside, x)[0], n) for w, n in todo]
        todo = [(w, n) for w, n in todo if free_vars(w).isdisjoint(inside) and free_vars(n).isdisjoint(inside)]
        sizes = {v: s for v, s in sizes.items() if v not in inside}
        sizes[x] = _constant(size, facts)
        if is_injective(new, sizes):
            return True
    return False


def _joined(indices: list[PrimExpr], whole: PrimExpr, inside: list[Var], x: Var) -> list[PrimExpr]:
    """The indices in terms of x = whole, as far as that goes."""
    lead = next(v for v in inside if P.of_expr(whole).get((v,)) == 1)
    rest: Any = x - (whole - lead)
    return [simplify(substitute(i, {lead: rest})) for i in indices]


def _joins(limit: tuple[PrimExpr, PrimExpr], indices: list[PrimExpr], sizes: Mapping[Var, Any]) -> bool:
    """Whether indices depend on the variables of `whole` through it alone, which tells all of them apart."""
    whole, size = limit
    inside = sorted(free_vars(whole) & sizes.keys(), key=lambda v: v.name)
    if len(inside) < 2 or not free_vars(size).isdisjoint(inside):
        return False
    if all(P.of_expr(whole).get((v,)) != 1 for v in inside) or not is_injective([whole], {v: sizes[v] for v in inside}):
        return False
    used = {v for i in _joined(indices, whole, inside, Var("x", inside[0].dtype)) for v in free_vars(i)}
    return used.isdisjoint(inside)


def _constant(extent: Any, facts: Facts) -> Any:
    if isinstance(extent, e.IntImm):
        return extent
    limit = upper_bound(extent, facts)
    return extent if limit is None else e.const(limit)


def _guard(cond: Any) -> tuple[PrimExpr, PrimExpr] | None:
    """(x, n) of a condition x < n."""
    if isinstance(cond, e.Call) and cond.op == "likely":
        cond = cond.args[0]
    if type(cond) is e.LT:
        return simplify(cond.a), cond.b
    return None


def _short_loops(place: Place, sizes: Mapping[Var, Any]) -> list[tuple[PrimExpr, PrimExpr] | None]:
    """(c*i + j, n) for each loop j of min(c, n - c*i) iterations."""
    found: list[tuple[PrimExpr, PrimExpr] | None] = []
    for f in reversed(place.loops()):
        if f.var not in sizes or type(f.extent) is not e.Min:
            continue
        for side in (f.extent.a, f.extent.b):
            moved = P.of_expr(side)
            used = {m: -c for m, c in moved.items() if any(a in sizes for a in m)}
            if used:
                left = P.plus(moved, used)
                found.append((simplify(P.to_expr(used, "int64") + f.var), P.to_expr(left, "int64")))
    return found


# ------------------------------------------------------------------------------------------------------------ questions


def by_buffer(found: Iterable[Access]) -> dict[Buffer, list[Access]]:
    """Accesses grouped by buffer, those of buffers that are never written left out."""
    groups: dict[Buffer, list[Access]] = {}
    for a in found:
        groups.setdefault(a.buffer, []).append(a)
    return {b: g for b, g in groups.items() if any(a.write for a in g)}


def own_elements(block: Block) -> bool:
    """Whether each instance of a block uses one element, its own, of every buffer that it writes."""
    found = _OWN.get(block)
    if found is None:
        found = _OWN[block] = _own_elements(block)
    return found


def _own_elements(block: Block) -> bool:
    parts = [s for s in (block.init, block.body, block.predicate) if s is not None]
    stores = [s for part in parts for s in accesses(part)[1]]
    spatial = {a.var for a in block.axes if a.kind == "spatial"}
    if any(a.kind not in ("spatial", "reduce") for a in block.axes) or any(opaque_buffers(p) for p in parts):
        return False
    index: dict[Buffer, tuple[PrimExpr, ...]] = {}
    for s in stores:
        names: set[Any] = {i for i in s.indices if not isinstance(i, e.IntImm)}
        if index.setdefault(s.buffer, s.indices) != s.indices or names != spatial:
            return False
    return all(index.get(n.buffer, n.indices) == n.indices for p in parts for n in accesses(p)[0])


_OWN: NodeMemo[bool] = NodeMemo()


def once_each(place: Place, depth: int) -> bool:
    """Whether iterations of the loops from `depth` inwards all run different instances of a block, where each loop
    feeds one axis only."""
    extents: dict[Any, int] = {}
    for p in place.ancestors():
        if p.depth >= depth and isinstance(p.stmt, For):
            f = p.stmt
            limit = e.const_int(_limit(f.extent))
            if limit is None or e.const_int(f.min) != 0:
                return False
            if limit != 1:
                extents[f.var] = limit
    for binding in as_block(place).bindings:
        terms = []
        for mono, coef in P.of_expr(binding).items():
            if len(mono) == 1 and mono[0] in extents:
                terms.append((abs(coef), extents.pop(mono[0])))
            elif any(free_vars(a) & extents.keys() for a in mono):
                return False
        reach = 0
        for size, count in sorted(terms):
            if size <= reach:
                return False
            reach += size * (count - 1)
    return not extents


def carried(tree: Tree, place: Place) -> Conflict | None:
    """What keeps the iterations of the loop at `place` from running in any order or at once, or None.

    Buffers that one iteration fills before it reads them do not count: each iteration gets its own copy.
    """
    loop = place.stmt
    assert isinstance(loop, For)
    if e.const_int(loop.extent) in (0, 1):
        return None
    below = tree.blocks_below(place)
    if len(below) == 1 and _runs_alone(below[0], place):
        return None
    moving = frozenset((loop.var,))
    groups = by_buffer(a for p in below for a in block_accesses(tree, p, moving, place.depth))
    for buffer, found in groups.items():
        if not keeps_apart(found, {loop.var: loop.extent}) and not private(tree, place, buffer, below):
            return Conflict(as_block(found[0].place).name, buffer)
    return None


def _runs_alone(place: Place, loop: Place) -> bool:
    block = as_block(place)
    assert isinstance(loop.stmt, For)
    return loop.stmt.var not in binding_vars(block, "reduce") and own_elements(block) and once_each(place, loop.depth)


def fixed_order(tree: Tree, band: list[Place]) -> Conflict | None:
    """What keeps directly nested loops from being permuted, or None.

    A dependence is kept in every order if all loops but one agree in it; sums may be taken in any order.
    """
    below = tree.blocks_below(band[-1])
    if all(own_elements(as_block(p)) and once_each(p, band[0].depth) for p in below) and len(below) == 1:
        return None
    loops = [p.stmt for p in band if isinstance(p.stmt, For)]
    moving = frozenset(f.var for f in loops)
    groups = by_buffer(a for p in below for a in block_accesses(tree, p, moving, band[-1].depth))
    for buffer, found in groups.items():
        if _one_sum(found, band) or private(tree, band[-1], buffer, below):
            continue
        extents = {f.var: f.extent for f in loops}
        if not any(_apart_but(found, extents, f.var) for f in loops):
            return Conflict(as_block(found[0].place).name, buffer)
    return None


def _apart_but(found: list[Access], extents: dict[Var, PrimExpr], one: Var) -> bool:
    """Whether accesses of one element agree in all of the loops but one."""
    rest = {v: x for v, x in extents.items() if v is not one}
    return keeps_apart([replace(a, inner=a.inner | {one}) for a in found], rest)


def _one_sum(found: list[Access], band: list[Place]) -> bool:
    """Whether all accesses belong to one reduction, whose instances run once each in whatever order."""
    place = found[0].place
    block = as_block(place)
    if any(a.place is not place for a in found) or not own_elements(block):
        return False
    spatial, reduce = binding_vars(block, "spatial"), binding_vars(block, "reduce")
    loops = {p.stmt.var: p.stmt for p in place.ancestors() if isinstance(p.stmt, For) and p.depth >= band[0].depth}
    if not reduce or (block.init is not None and spatial & reduce & loops.keys()):
        return False
    if any(e.const_int(f.min) != 0 for f in loops.values()):
        return False
    return injective(list(block.bindings), {v: f.extent for v, f in loops.items()}, place)


def private(tree: Tree, place: Place, buffer: Buffer, below: list[Place]) -> bool:
    """Whether only blocks under the place use a buffer, and one iteration writes all that it reads there."""
    if is_param(tree, buffer):
        return False
    inside = set(below)
    for p in tree.blocks.values():
        if p not in inside and _uses(as_block(p), buffer):
            return False
    return filled_before_read(tree, place, buffer, below)


def _uses(block: Block, buffer: Buffer) -> bool:
    return buffer in written(block) or buffer in read(block, own=True)
