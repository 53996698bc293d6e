"""Extents and values of a stage's axes over the whole domain of its operation, through its relations.

Lowering finds extents from the loops that placement made; this is for edits of the dataflow, which come before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from warpbeam.ir.rewrite import substitute
from warpbeam.te.schedule import axis as ax
from warpbeam.te.schedule.errors import ScheduleValueError
from warpbeam.te.schedule.roots import root_axes
from warpbeam.tir.analysis.regions import Range, interval
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.expr import PrimExpr, Var, as_expr, ceildiv, const, floordiv, floormod, mul

if TYPE_CHECKING:
    from warpbeam.te.schedule.stage import Stage

Values = Mapping[Any, Any]


class StageBounds:
    """What the relations of a stage say, with every root axis over its whole range."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.root = root_axes(stage.op)
        self.extents: dict[Any, PrimExpr] = {a: as_expr(a.extent) for a in self.root}
        self._roots: dict[Any, frozenset[Any]] = {a: frozenset((a,)) for a in self.root}
        for r in stage.relations:
            self._forward(r)

    def _forward(self, r: ax.Relation) -> None:
        if isinstance(r, ax.Split):
            whole = self.extents[r.parent]
            if r.factor is not None:
                self.extents[r.inner] = as_expr(r.factor)
                self.extents[r.outer] = simplify(ceildiv(whole, r.factor))
            else:
                self.extents[r.outer] = as_expr(r.nparts)
                self.extents[r.inner] = simplify(ceildiv(whole, r.nparts))
            self._roots[r.outer] = self._roots[r.inner] = self._roots[r.parent]
        elif isinstance(r, ax.Fuse):
            self.extents[r.fused] = simplify(mul(self.extents[r.outer], self.extents[r.inner]))
            self._roots[r.fused] = self._roots[r.outer] | self._roots[r.inner]
        elif isinstance(r, ax.Singleton):
            self.extents[r.iter], self._roots[r.iter] = const(1), frozenset()
        else:
            self._transform(r)

    def _transform(self, r: ax.Transform) -> None:
        env: dict[Var, Range | None] = {a.var: Range((const(0),), (simplify(self.extents[a] - 1),)) for a in r.original}
        roots = frozenset().union(*(self._roots[a] for a in r.original))
        for new, value in zip(r.new, r.index_map, strict=True):
            found = interval(value, env)
            assert found is not None  # transform_layout has inverted the map, so it is made of + - * // %
            self.extents[new], self._roots[new] = simplify(found.high + 1), roots

    def roots(self, axis: Any) -> frozenset[Any]:
        """The operation's axes that an axis was made of."""
        return self._roots[axis]

    def extent(self, axis: Any) -> PrimExpr:
        return self.extents[axis]

    def value(self, axis: Any, leaves: Values) -> PrimExpr:
        """The value of a root axis, given values of the leaves (counted from 0)."""
        found: PrimExpr = simplify(self._up(leaves)[axis] + axis.start)
        return found

    def _up(self, leaves: Values) -> dict[Any, PrimExpr]:
        """Every axis from the leaves upwards, counted from 0; axes that lack a value stand for themselves."""
        at: dict[Any, PrimExpr] = {a: as_expr(v) for a, v in leaves.items()}
        for r in reversed(self.stage.relations):
            if isinstance(r, ax.Split):
                if r.outer in at and r.inner in at:
                    at[r.parent] = at[r.outer] * self.extents[r.inner] + at[r.inner]
            elif isinstance(r, ax.Fuse):
                if r.fused in at:
                    size = self.extents[r.inner]
                    at[r.outer], at[r.inner] = floordiv(at[r.fused], size), floormod(at[r.fused], size)
            elif isinstance(r, ax.Transform) and all(a in at for a in r.new):
                raise ScheduleValueError(
                    f"the layout of {self.stage!r} was transformed", hint="transform the layout after this step"
                )
        return at

    def leaf_value(self, leaf: Any, roots: Values) -> PrimExpr:
        """The value of a leaf (from 0), given values of the root axes."""
        at: dict[Any, PrimExpr] = {a: as_expr(v) - a.start for a, v in roots.items()}
        for r in self.stage.relations:
            if isinstance(r, ax.Split):
                if r.parent in at:
                    size = self.extents[r.inner]
                    at[r.outer], at[r.inner] = floordiv(at[r.parent], size), floormod(at[r.parent], size)
            elif isinstance(r, ax.Fuse):
                if r.outer in at and r.inner in at:
                    at[r.fused] = at[r.outer] * self.extents[r.inner] + at[r.inner]
            elif isinstance(r, ax.Singleton):
                at[r.iter] = const(0)
            elif all(a in at for a in r.original):
                given = {a.var: at[a] for a in r.original}
                at.update((n, substitute(v, given)) for n, v in zip(r.new, r.index_map, strict=True))
        assert leaf in at  # callers ask for leaves that are made of the root axes alone
        found: PrimExpr = simplify(at[leaf])
        return found

    def conditions(self, leaves: Values, roots: Iterable[Any]) -> list[PrimExpr]:
        """What must hold for the leaves to stay inside the given root axes: one condition per uneven split."""
        wanted = set(roots)
        at = self._up(leaves)
        facts = Facts()
        for a, v in leaves.items():
            if isinstance(v, Var):
                facts.bind(v, const(0), self.extents[a])
        found: dict[PrimExpr, None] = {}
        for r in self.stage.relations:
            if isinstance(r, ax.Split) and self._roots[r.parent] <= wanted and r.parent in at:
                cond = at[r.parent] < self.extents[r.parent]
                if prove(cond, facts) is not True:
                    found[cond] = None
        return list(found)
