"""Which part of a buffer one iteration of a loop writes or reads, and whether what is read has been written there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, as_block, carries, free_vars, opaque_buffers, written
from warpbeam.tir.analysis.predicate import conjuncts, unconditional
from warpbeam.tir.analysis.regions import Range, clip, interval, loop_range, upper_bound
from warpbeam.tir.analysis.tree import Place, Tree, facts_at, kids
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.iter_map import IterSum, detect_iter_map, is_bijective
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var
from warpbeam.tir.stmt import Block, BufferStore, For, LetStmt

Box = list[Range]


def body_loops(block: Block) -> list[For]:
    """Loops inside a block's own statements, outer first."""
    found: list[For] = []
    todo: list[Any] = [s for s in (block.init, block.body) if s is not None]
    while todo:
        s = todo.pop()
        if isinstance(s, For):
            found.append(s)
        todo.extend(reversed(kids(s)))
    return found


def block_env(
    target: Place | None, place: Place, facts: Facts, running: Sequence[For] = (), inside: bool = False
) -> dict[Var, Range | None]:
    """Ranges of a block's axes in one iteration of `target`: the loops between the two run, those outside are fixed
    except the ones in `running`; with `inside` also of the loops in the block's own statements."""
    env: dict[Var, Range | None] = {}
    for f in running:
        env[f.var] = loop_range(f, env)
    _between(target, place, env)
    block = as_block(place)
    axes: dict[Var, Range | None] = {
        a.var: clip(interval(simplify(b, facts), env), a.extent, facts)
        for a, b in zip(block.axes, block.bindings, strict=True)
    }
    if inside:
        for f in body_loops(block):
            axes[f.var] = loop_range(f, axes)
    return axes


def _between(target: Place | None, place: Place, env: dict[Var, Range | None]) -> None:
    """Enters the values of the loops between `target` and a place; what the loops around bound ends there."""
    depth = -1 if target is None else target.depth
    inner = [p.stmt for p in place.ancestors() if isinstance(p.stmt, For) and p.depth > depth]
    facts = None if all(isinstance(f.extent, e.IntImm) for f in inner) else facts_at(place)
    for f in reversed(inner):
        r = loop_range(f, env)
        if facts is not None and r is not None and len(r.highs) == 1 and isinstance(r.high, e.IntImm):
            most = None if e.const_int(f.min) != 0 else upper_bound(f.extent, facts)
            if most is not None and most <= r.high.value:
                r = Range(r.lows, (e.const(most - 1, f.var.dtype),))
        env[f.var] = r


def touched(node: BufferLoad | BufferStore, env: dict[Var, Range | None], facts: Facts) -> Box:
    """The box of elements that an access reaches."""
    return [clip(interval(i, env), s, facts) for i, s in zip(node.indices, node.buffer.shape, strict=True)]


def holds(outer: Box, inner: Box, facts: Facts) -> bool:
    """Whether one box is proven to contain another."""
    return all(_holds(o, i, facts) for o, i in zip(outer, inner, strict=True))


def _holds(outer: Range, inner: Range, facts: Facts) -> bool:
    for low in outer.lows:
        if low not in inner.lows and not any(prove(low <= x, facts) is True for x in inner.lows):
            return False
    for high in outer.highs:
        if high not in inner.highs and not any(prove(x <= high, facts) is True for x in inner.highs):
            return False
    return True


def makes_box(target: Place | None, place: Place) -> bool:
    """Whether the values that a block's spatial axes take in one iteration of `target` are all of a box (see
    `block_env`), so that nothing in it is left out by uneven loops or conditions."""
    block = as_block(place)
    if not unconditional(block):
        return False
    depth = -1 if target is None else target.depth
    names = {v for a, b in zip(block.axes, block.bindings) if a.kind != "reduce" for v in free_vars(b)}
    inner = [p.stmt for p in place.ancestors() if isinstance(p.stmt, For) and p.depth > depth and p.stmt.var in names]
    bindings = [b for a, b in zip(block.axes, block.bindings, strict=True) if a.kind != "reduce"]
    facts = facts_at(place)
    moving: dict[Var, Range | None] = {}
    _between(target, place, moving)
    if not _all_run(place, depth, names) or any(interval(b, moving) is None for b in bindings):
        return False
    sizes: dict[Var, PrimExpr] = {}
    uneven = [f for f in inner if not isinstance(f.extent, e.IntImm)]
    for f in inner:
        limit = upper_bound(f.extent, facts)
        sizes[f.var] = f.extent if limit is None else e.const(limit)
        if e.const_int(f.min) != 0 or free_vars(sizes[f.var]) & sizes.keys():
            return False
        end = moving[f.var]  # what the box counts with must not be more than the loop may run
        if not isinstance(f.extent, e.IntImm) and (end is None or prove(end.high < sizes[f.var], facts) is not True):
            return False
    forms = detect_iter_map([_moving_part(b, frozenset(sizes)) for b in bindings], sizes)
    if forms is None or not is_bijective([IterSum(f.splits, 0).expr() for f in forms], sizes):
        return False
    if not uneven and isinstance(block.predicate, e.IntImm):
        return True
    around = Facts()
    for f in place.loops():
        around.bind(f.var, f.min, sizes.get(f.var, f.extent))
    for a, b in zip(block.axes, block.bindings, strict=True):
        around.assume(e.land(b >= 0, b < a.extent))
    conds = [*conjuncts(block.predicate), *[f.var < x for f in uneven for x in limits(f.extent)]]
    return all(isinstance(c, e.IntImm) or prove(c, around) is True for c in conds)


def _moving_part(index: PrimExpr, names: frozenset[Var]) -> PrimExpr:
    """An index without its terms, other than products of variables, that do not move with the loops `names`."""
    form = P.of_expr(index)
    fixed = {m for m in form if any(type(a) is not Var for a in m) and not any(free_vars(a) & names for a in m)}
    return P.to_expr({m: c for m, c in form.items() if m not in fixed}, index.dtype) if fixed else index


def _all_run(place: Place, depth: int, names: set[Var]) -> bool:
    """Whether the loops around a block, below a depth and not over `names`, always have an iteration."""
    for p in place.ancestors():
        f = p.stmt
        if p.depth <= depth or not isinstance(f, For) or f.var in names or isinstance(f.extent, e.IntImm):
            continue
        own = free_vars(f.extent) & {x.var for x in place.loops()}
        if own and prove(f.extent >= 1, facts_at(p)) is not True:
            return False
    return True


def limits(extent: PrimExpr) -> list[PrimExpr]:
    """Expressions whose smallest is the extent: the operands of a minimum in it."""
    found: list[PrimExpr] = []
    todo = [P.of_expr(extent)]
    while todo:
        p = todo.pop()
        least = next((m for m, c in p.items() if c == 1 and len(m) == 1 and type(m[0]) is e.Min), None)
        if least is None:
            found.append(P.to_expr(p, extent.dtype))
            continue
        rest = P.plus(p, {least: 1}, -1)
        todo += [P.plus(rest, P.of_expr(side)) for side in (least[0].a, least[0].b)]  # type: ignore[attr-defined]
    return found


def filled_before_read(tree: Tree, place: Place, buffer: Buffer, below: list[Place]) -> bool:
    """Whether each element of a buffer that blocks under a loop read in one iteration was written there before."""
    makers: list[Place] = []  # those before
    for p in below:
        block = as_block(p)
        if any(b is buffer for part in _parts(block) for b, _ in opaque_buffers(part)):
            return False
        if _unfilled(p, [x for x in _loads(block, buffer) if not _accumulates(place, p, x)], makers):
            return False
        if buffer in written(block):
            makers.append(p)
    return True


def filled(reader: Place, buffer: Buffer, makers: list[Place], below: list[Place]) -> bool:
    """Whether some maker before it wrote all that a block reads of a buffer, in the iteration around both."""
    order = {p: k for k, p in enumerate(below)}
    block = as_block(reader)
    if any(b is buffer for part in _parts(block) for b, _ in opaque_buffers(part)):
        return False
    return not _unfilled(reader, _loads(block, buffer), [m for m in makers if order[m] < order[reader]])


def _unfilled(reader: Place, loads: list[BufferLoad], makers: list[Place]) -> list[BufferLoad]:
    """The loads of a buffer by a block of which no maker before it wrote all that they read."""
    for maker in makers:
        if not loads:
            break
        loads = _left(maker, reader, loads)
    return loads


def _parts(block: Block) -> list[Any]:
    return [s for s in (block.init, block.body, block.predicate) if s is not None]


def _loads(block: Block, buffer: Buffer) -> list[BufferLoad]:
    return [n for part in _parts(block) for n in accesses(part)[0] if n.buffer is buffer]


def _accumulates(place: Place, reader: Place, load: BufferLoad) -> bool:
    """Whether a block reads what it is itself summing up, from a start in the same iteration of the loop."""
    block = as_block(reader)
    own = [s for s in accesses(block.body)[1] if s.buffer is load.buffer]
    if block.init is None or not own or any(s.indices != load.indices for s in own):
        return False
    around = [place, *place.ancestors()]
    return not any(isinstance(p.stmt, For) and carries(block, p.stmt.var) for p in around)


def _left(maker: Place, reader: Place, loads: list[BufferLoad]) -> list[BufferLoad]:
    """The loads of one buffer that read more than a block wrote, in the same iteration of the innermost loop around
    both."""
    target = common_loop(maker, reader)
    block = as_block(maker)
    if target is not None and any(
        isinstance(p.stmt, For) and carries(block, p.stmt.var) for p in (target, *target.ancestors())
    ):
        return loads
    stores = [s for s in accesses(block.body)[1] if s.buffer is loads[0].buffer]
    lets = {n.var for n in post_order(block.body, as_block(reader).body) if isinstance(n, LetStmt | e.Let)}
    if not stores or any(free_vars(i) & lets for i in stores[0].indices):
        return loads
    if not (makes_box(target, maker) and whole_store(block, stores[0])):
        return loads
    facts = Facts() if target is None else facts_at(target, True)
    made = touched(stores[0], block_env(target, maker, facts, inside=True), facts)
    env = block_env(target, reader, facts, inside=True)
    return [
        x for x in loads
        if any(free_vars(i) & lets for i in x.indices) or not holds(made, touched(x, env, facts), facts)
    ]  # fmt: skip


def whole_store(block: Block, store: BufferStore) -> bool:
    """Whether the elements stored for a box of the axes are a box too."""
    axes = {a.var: a.extent for a in block.axes if a.kind != "reduce"}
    axes.update({f.var: f.extent for f in body_loops(block)})
    if all(isinstance(i, e.IntImm) or i in axes for i in store.indices):
        return len(set(store.indices)) == len(store.indices)
    used = frozenset().union(*[free_vars(i) for i in store.indices])
    sizes = {v: x for v, x in axes.items() if v in used}
    forms = detect_iter_map(list(store.indices), sizes)
    return forms is not None and is_bijective([IterSum(f.splits, 0).expr() for f in forms], sizes)


def common_loop(a: Place, b: Place) -> Place | None:
    """The innermost loop around both places."""
    for p in a.ancestors():
        if isinstance(p.stmt, For) and b.within(p):
            return p
    return None
