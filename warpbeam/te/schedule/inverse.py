"""Loops over the values of an index map in place of loops over its arguments: what transform_layout asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from warpbeam.te.schedule.errors import ScheduleValueError
from warpbeam.tir.analysis.access import as_loop
from warpbeam.tir.analysis.predicate import likely
from warpbeam.tir.analysis.regions import Range, interval
from warpbeam.tir.analysis.tree import facts_at, subst_structure, tree_of
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.arith.iter_map import IterSplit, IterSum, detect_iter_map, is_injective
from warpbeam.tir.expr import PrimExpr, Var, add, const, floordiv, floormod, mul
from warpbeam.tir.schedule.guard import guarded
from warpbeam.tir.schedule.step import Namer, Step
from warpbeam.tir.stmt import For, PrimFunc, Stmt


def inverse(values: Sequence[PrimExpr], iters: Mapping[Var, PrimExpr], new: Sequence[Var]) -> dict[Var, PrimExpr]:
    """Each argument of an index map, given variables for its values. Raises where the map has no known inverse."""
    forms = detect_iter_map(values, iters)
    if forms is None or not is_injective(values, iters):
        raise ScheduleValueError(
            f"the index map ({', '.join(str(v) for v in values)}) is not proven to be invertible",
            hint="take indices apart with // and % of one number, permute them, or join them as i * extent + j",
        )
    parts: dict[Any, list[PrimExpr]] = {}
    for form, var in zip(forms, new, strict=True):
        _take_apart(form, var - form.base, parts)
    found: dict[Var, PrimExpr] = {}
    while parts:
        source = next(iter(parts))
        total: PrimExpr = const(0)
        for p in parts.pop(source):
            total = add(total, p)
        if isinstance(source, IterSum):
            _take_apart(source, total - source.base, parts)
        else:
            found[source] = simplify(total)
    return {v: found.get(v, const(0)) for v in iters}


def _take_apart(form: IterSum, value: PrimExpr, parts: dict[Any, list[PrimExpr]]) -> None:
    """What a sum of splits says about the source of each, appended to `parts`."""
    for k, s in enumerate(form.splits):
        piece: PrimExpr = floordiv(value, s.scale)
        if k:
            piece = floormod(piece, s.extent)
        _append(parts, s, mul(piece, s.lower_factor))


def _append(parts: dict[Any, list[PrimExpr]], split: IterSplit, value: PrimExpr) -> None:
    parts.setdefault(split.source, []).append(value)


@dataclass(frozen=True, slots=True)
class LoopOverMap(Step):
    """Directly nested loops become loops over the values of an index map of their variables. Gives the new names.

    for i in 14: B(i)    with i -> (i // 4, i % 4)     ->     for x in 4: for y in 4: B(4*x + y) if likely(4*x + y < 14)
    """

    loops: tuple[str, ...]
    names: tuple[str, ...]
    arguments: tuple[Var, ...]
    values: tuple[PrimExpr, ...]

    def run(self, func: PrimFunc) -> tuple[PrimFunc, tuple[str, ...]]:
        tree = tree_of(func)
        places = [tree.loop(n) for n in self.loops]
        for outer, inner in pairwise(places):
            if inner.parent is not outer:
                raise ScheduleValueError(f"loops {self.loops} are not directly nested")
        old = [as_loop(p) for p in places]
        namer = Namer(tree)
        namer.loops -= set(self.loops)
        new = [Var(namer.loop(n)) for n in self.names]
        iters = {v: f.extent for v, f in zip(self.arguments, old, strict=True)}
        back = inverse(self.values, iters, new)
        extents = _extents(self.values, iters)
        body: Stmt = subst_structure(old[-1].body, {f.var: back[v] for v, f in zip(self.arguments, old, strict=True)})
        facts = facts_at(places[0])
        for v, n in zip(new, extents, strict=True):
            facts.bind(v, const(0), n)
        for v, extent in iters.items():
            inside = back[v] < extent
            if prove(inside, facts) is not True:
                body = guarded(body, likely(inside))
        for v, n in zip(reversed(new), reversed(extents), strict=True):
            body = For(v, 0, n, "serial", body)
        return tree.update({places[0]: body}), tuple(v.name for v in new)


def _extents(values: Sequence[PrimExpr], iters: Mapping[Var, PrimExpr]) -> list[PrimExpr]:
    """How many values each dimension of the map has, from 0."""
    env: dict[Var, Range | None] = {v: Range((const(0),), (n - 1,)) for v, n in iters.items()}
    found: list[PrimExpr] = []
    for value in values:
        r = interval(value, env)
        if r is None or prove(r.low >= 0, Facts()) is not True:
            raise ScheduleValueError(f"the values of {value} do not start at 0 or cannot be bounded")
        found.append(simplify(r.high + 1))
    return found
