"""One block under some loops as a tile: dimensions, start, update, over axes that count tiles.

Any order and splitting of the loops gives the same tile, if together they run over a box of the block's axes once:

    for y in 4: for x in 16: C(i = 4*io + y, j = x)    ->    dims i: 4, j: 16;  C[4*io + i, j] = …
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, as_block, mentions
from warpbeam.tir.analysis.predicate import conjuncts, is_likely
from warpbeam.tir.analysis.tree import Place, Tree, facts_at
from warpbeam.tir.arith import Facts, detect_iter_map, is_bijective, modular, prove, simplify
from warpbeam.tir.expr import PrimExpr, Var
from warpbeam.tir.stmt import Allocate, Block, BufferStore, For, IterVar, LetStmt, SeqStmt, Stmt, While


@dataclass(frozen=True)
class Dim:
    """One dimension of a tile: a variable from 0 on, where it comes from and of what kind it is."""

    var: Var
    extent: int
    kind: str


@dataclass(frozen=True)
class Tile:
    """What the loops below a statement do. `axes`, `bindings`, `predicate`: of the block that does a tile at once;
    `update` and `init` are in terms of them and of `dims`. `inner`: init stood apart from the update, in the tile.
    """

    block: Block
    dims: tuple[Dim, ...]
    axes: tuple[IterVar, ...]
    bindings: tuple[PrimExpr, ...]
    predicate: PrimExpr
    update: BufferStore
    init: BufferStore | None
    inner: bool
    whole: bool
    facts: Facts

    def describe(self) -> str:
        """The dimensions as text."""
        return ", ".join(f"{d.var.name}: {d.extent} ({d.kind})" for d in self.dims) or "a single element"


def tile_at(tree: Tree, top: Place, keep_units: bool = True) -> Tile:
    """The tile at or below a place.

    Raises:
        ScheduleError: where the loops do not run over a box once, or hold more than one computation.
    """
    where = _name(top)
    blocks = tree.blocks_below(top)
    if not blocks or len(blocks) > 2:
        names = ", ".join(as_block(b).name for b in blocks)
        raise ScheduleError(f"{where} holds {len(blocks)} blocks ({names}); an intrinsic replaces one")
    tile = _tile(top, blocks[-1], where, keep_units)
    if len(blocks) == 1:
        return tile
    start = _tile(top, blocks[0], where, keep_units)
    init = _same_start(start, tile)
    if init is None:
        raise ScheduleError(
            f"{where} holds the blocks {start.block.name} and {tile.block.name}",
            why="the first is not the start of the second over the same elements",
            hint="compute one of them elsewhere",
        )
    return Tile(
        tile.block, tile.dims, tile.axes, tile.bindings, tile.predicate, tile.update, init, True, True, tile.facts
    )


def _name(place: Place) -> str:
    s = place.stmt
    return f"loop {s.var.name}" if isinstance(s, For) else f"block {s.name}" if isinstance(s, Block) else "the body"


def _tile(top: Place, place: Place, where: str, keep_units: bool) -> Tile:
    block = as_block(place)
    loops = _loops(top, place, where)
    iters = {f.var: _extent(f, where) for f in loops}
    outside = facts_at(top)
    axes: list[IterVar] = []
    bindings: list[PrimExpr] = []
    dims: list[Dim] = []
    values: dict[Any, Any] = {}
    facts = Facts()
    whole = True
    for axis, (base, extent) in zip(block.axes, _boxes(block, iters, outside, where), strict=True):
        new, binding, start = _axis(axis, base, extent, outside)
        if keep_units or e.const_int(new.extent) != 1:
            axes.append(new)
            bindings.append(binding)
            facts.bind(new.var, 0, new.extent)
            _know(facts, new.var, binding, outside)
        else:
            start = substitute(start, {new.var: e.const(0, new.var.dtype)})
        if extent > 1:
            dims.append(Dim(Var(axis.var.name, axis.var.dtype), extent, axis.kind))
            facts.bind(dims[-1].var, 0, extent)
            start = start + dims[-1].var
        values[axis.var] = start
        whole = whole and (axis.kind == "spatial" or e.const_int(axis.extent) == extent)
    update, init = (None if s is None else substitute(s, values) for s in (block.body, block.init))
    if not isinstance(update, BufferStore) or not isinstance(init, BufferStore | None):
        raise ScheduleError(f"block {block.name} does not store one element", hint="tensorize needs a single result")
    predicate = _predicate(block, place, iters, where)
    return Tile(
        block, tuple(dims), tuple(axes), tuple(bindings), predicate, update, init, False, whole, facts
    )  # fmt: skip


def _loops(top: Place, place: Place, where: str) -> list[For]:
    chain = [place, *place.ancestors()]
    found: list[For] = []
    for p in chain[1 : chain.index(top) + 1] if place is not top else []:
        s: Any = p.stmt
        if isinstance(s, For):
            if s.kind in ("parallel", "thread_binding"):
                raise ScheduleError(f"loop {s.var.name} inside {where} is {s.kind}", hint="tensorize inside it")
            found.append(s)
        elif isinstance(s, Allocate | LetStmt | While):
            raise ScheduleError(f"{where} holds a {type(s).__name__}", hint="tensorize inside it")
        elif not isinstance(s, SeqStmt) and prove(s.cond, facts_at(p)) is not True:
            raise ScheduleError(f"{where} holds a condition that does not always hold", hint="partition the loops")
    return found[::-1]


def _extent(loop: For, where: str) -> int:
    count = e.const_int(loop.extent)
    if count is None or e.const_int(loop.min) != 0:
        from warpbeam.tir.text.printer import brief

        raise ScheduleError(
            f"loop {loop.var.name} inside {where} runs over [{brief(loop.min)}, +{brief(loop.extent)})",
            why="domain: an intrinsic needs constant extents from 0",
            hint="split by a factor that divides, or partition, so that the full tiles are loops of their own",
        )
    return count


def _boxes(block: Block, iters: dict[Var, int], outside: Facts, where: str) -> list[tuple[PrimExpr, int]]:
    """(start, extent) of the box of the block's axes that the loops run over."""
    forms = detect_iter_map(block.bindings, iters, outside)
    if forms is not None:
        inner = [(e.as_expr(f.base), f.splits) for f in forms]
        moving = [type(f)(splits, 0).expr() for f, (_, splits) in zip(forms, inner, strict=True)]
        if is_bijective(moving, iters, None, outside):
            boxes = []
            for base, splits in inner:
                extent = 1
                for s in splits:
                    extent *= int(s.extent)
                boxes.append((base, extent))
            return boxes
    raise ScheduleError(
        f"the loops inside {where} do not run over a box of the axes of block {block.name} exactly once",
        why="domain: the iterator map of the block's axes over these loops has gaps, repeats or mixes with outer loops",
        hint="tensorize loops that were made by splits of whole axes",
    )


def _axis(axis: IterVar, base: PrimExpr, extent: int, outside: Facts) -> tuple[IterVar, PrimExpr, PrimExpr]:
    """The axis that counts tiles, its binding, and the tile's first element in terms of it."""
    name, dtype = axis.var.name, axis.var.dtype
    if extent == 1:
        var = Var(name, dtype)
        return IterVar(var, axis.extent, axis.kind), base, var
    var = Var(f"{name}_o", dtype)
    number = simplify(base // extent, outside)
    if prove(number * extent == base, outside) is True:
        return IterVar(var, simplify(e.ceildiv(axis.extent, extent)), axis.kind), number, var * extent
    return IterVar(var, simplify(axis.extent - (extent - 1)), axis.kind), base, var


def _know(facts: Facts, var: Var, binding: PrimExpr, outside: Facts) -> None:
    """Notes what number the variable of an axis is a multiple of, and some more: a short tile at the end of a row of
    longer ones begins at a multiple of theirs, so that quotients by it are the same for the whole tile.
    """
    step, rest = modular(binding, outside)
    if step != 1:
        facts.assume(e.binary(e.EQ, var % step if step else e.as_expr(var), e.const(rest, var.dtype)))


def _predicate(block: Block, place: Place, iters: dict[Var, int], where: str) -> PrimExpr:
    """The conditions that concern whole tiles; those within a tile must always hold."""
    facts = facts_at(place)
    kept = []
    for c in conjuncts(block.predicate):
        plain = c.args[0] if isinstance(c, e.Call) and is_likely(c) else c
        if prove(plain, facts) is True:
            continue
        if mentions(plain, set(iters)):
            from warpbeam.tir.text.printer import brief

            raise ScheduleError(
                f"block {block.name} runs only where {brief(plain)}, which cuts through the tiles of {where}",
                why="domain: an intrinsic does whole tiles",
                hint="split by a factor that divides, or pad the computation",
            )
        kept.append(c)
    return e.land(*kept)


def _same_start(start: Tile, tile: Tile) -> BufferStore | None:
    """The store of a block that gives the tile's results their first value, over the tile's own variables."""
    if start.init is not None or accesses(start.update.value)[0] or start.update.buffer is not tile.update.buffer:
        return None
    spatial = [d for d in tile.dims if d.kind == "spatial"]
    axes = [a for a in tile.axes if a.kind == "spatial"]
    if tile.init is not None or len(start.dims) != len(spatial) or len(start.axes) != len(axes):
        return None
    same: dict[Any, Any] = {a.var: b.var for a, b in zip(start.axes, axes, strict=True)}
    same.update({a.var: b.var for a, b in zip(start.dims, spatial, strict=True)})
    moved: Stmt = substitute(start.update, same)
    bound = {a.var: b for a, b in zip(tile.axes, tile.bindings, strict=True)}
    equal = all(a.extent == b.extent for a, b in zip(start.dims, spatial, strict=True)) and all(
        prove(x == bound[b.var]) is True for x, b in zip(start.bindings, axes, strict=True)
    )
    assert isinstance(moved, BufferStore)
    return moved if equal and moved.indices == tile.update.indices else None
