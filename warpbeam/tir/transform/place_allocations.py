"""Moves each root allocation to the innermost statement around all its uses, so that it can be made small there.

Loops that carry a reduction into the buffer stay inside the allocation: the value must live across their iterations.
"""

from __future__ import annotations

from typing import Any

from warpbeam.tir.analysis.access import as_block, carries, read, written
from warpbeam.tir.analysis.tree import Place, kids, tree_of, with_kids
from warpbeam.tir.expr import Buffer
from warpbeam.tir.stmt import Allocate, For, PrimFunc, Stmt

Path = tuple[int, ...]


def place_allocations(func: PrimFunc) -> PrimFunc:
    """Allocations stand as deep as their uses allow; unused ones are gone."""
    tree = tree_of(func)
    uses: dict[Buffer, list[Place]] = {a.buffer: [] for a in tree.allocs}
    for p in tree.blocks.values():
        block = as_block(p)
        for b in dict.fromkeys((*read(block, own=True), *written(block))):
            if b in uses:
                uses[b].append(p)
    wraps: dict[Path, list[Allocate]] = {}
    for a in tree.allocs:
        if uses[a.buffer]:
            attach = _attach(uses[a.buffer], a.buffer)
            wraps.setdefault(_path(attach), []).append(a)
    return PrimFunc(func.name, func.params, _wrap(tree.root.stmt, (), wraps), func.attrs)


def _attach(places: list[Place], buffer: Buffer) -> Place:
    common = places[0]
    for p in places[1:]:
        while not p.within(common):
            assert common.parent is not None
            common = common.parent
    for p in places:
        block = as_block(p)
        if buffer not in written(block):
            continue
        for q in p.ancestors():
            if isinstance(q.stmt, For) and carries(block, q.stmt.var) and common.within(q):
                common = q
    return common


def _path(place: Place) -> Path:
    return tuple(p.index for p in [place, *place.ancestors()] if p.parent is not None)[::-1]


def _wrap(stmt: Stmt, path: Path, wraps: dict[Path, list[Allocate]]) -> Stmt:
    if any(w[: len(path)] == path and len(w) > len(path) for w in wraps):
        below: list[Any] = [_wrap(s, (*path, i), wraps) for i, s in enumerate(kids(stmt))]
        stmt = with_kids(stmt, below) or stmt
    for a in reversed(wraps.get(path, [])):
        stmt = Allocate(a.buffer, stmt, a.annotations)
    return stmt
