"""Iterator maps: index expressions read as sums of pieces of loop variables, as split and fuse make them.

    i // 4, i % 4                 i in [0, 32)   ->   split(i, 4, 8), split(i, 1, 4)
    (i*16 + j) // 8 % 2 * 3 + n                  ->   3*split(fuse(i, j), 8, 2) + n

Legality of schedule steps is decided on these forms: whether loops cover every instance of a block exactly once
(`is_bijective`), whether two iterations can touch one element (`is_injective`), what a part of the loops ranges over
(`subspace`), how far an index moves with a loop (`stride`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.facts import Facts
from warpbeam.tir.arith.prove import prove
from warpbeam.tir.arith.simplify import simplify

Dim = Any  # an int where constant, else an expression


@dataclass(frozen=True, slots=True)
class IterSplit:
    """scale * ((source // lower_factor) % extent); the source is a loop variable or a fusion of several."""

    source: e.Var | IterSum
    lower_factor: Dim
    extent: Dim
    scale: Dim = 1

    def variables(self) -> list[e.Var]:
        """The loop variables inside, outer first."""
        todo: list[Any] = [self.source]
        found: dict[e.Var, None] = {}
        while todo:
            s = todo.pop()
            if isinstance(s, IterSum):
                todo += [x.source for x in reversed(s.splits)]
            else:
                found[s] = None
        return list(found)

    def expr(self, facts: Facts | None = None) -> e.PrimExpr:
        """The value as an expression; the remainder vanishes only where `facts` bound the source."""
        inner = self.source.expr(facts) if isinstance(self.source, IterSum) else self.source
        return simplify((inner // self.lower_factor) % self.extent * self.scale, facts)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class IterSum:
    """splits[0] + splits[1] + … + base, larger scales first; the base is free of loop variables."""

    splits: tuple[IterSplit, ...]
    base: Dim = 0

    def variables(self) -> list[e.Var]:
        return list(dict.fromkeys(v for s in self.splits for v in s.variables()))

    def expr(self, facts: Facts | None = None) -> e.PrimExpr:
        """The value as an expression."""
        total: Any = e.as_expr(self.base)
        for s in reversed(self.splits):
            total = s.expr(facts) + total
        return simplify(total, facts)  # type: ignore[no-any-return]


class _Detector:
    def __init__(self, iters: Mapping[e.Var, Any], facts: Facts) -> None:
        self.extents: dict[Any, Dim] = {v: e.simplify_dim(e.as_expr(x)) for v, x in iters.items()}
        self.facts = facts
        self.forms: dict[Any, IterSum | None] = {}

    # ------------------------------------------------------------------------------------------------------- dimensions

    def dim(self, value: Any) -> Dim:
        return value if isinstance(value, int) else e.simplify_dim(simplify(value, self.facts))

    def mul(self, a: Dim, b: Dim) -> Dim:
        return a * b if isinstance(a, int) and isinstance(b, int) else self.dim(a * b)

    def same(self, a: Dim, b: Dim) -> bool:
        if isinstance(a, int) and isinstance(b, int):
            return a == b
        return prove(e.as_expr(a) == e.as_expr(b), self.facts) is True

    def at_least(self, a: Dim, b: Dim) -> bool:
        if isinstance(a, int) and isinstance(b, int):
            return a >= b
        return prove(e.as_expr(a) >= e.as_expr(b), self.facts) is True

    def divides(self, c: Dim, a: Dim) -> bool:
        """Whether c divides a."""
        if isinstance(a, int) and isinstance(c, int):
            return c != 0 and a % c == 0
        return self.factor(a, c) is not None or self.same(self.dim(e.as_expr(a) % c), 0)

    def factor(self, a: Dim, c: Dim) -> Dim | None:
        """k where a is k*c as written, c >= 0. Where c is 0, so is the extent a, and nothing runs."""
        if (isinstance(c, int) and c < 1) or not self.at_least(c, 0):
            return None
        k, left = P.divide(P.of_expr(e.as_expr(a)), P.of_expr(e.as_expr(c)))
        return None if left or not k else self.dim(P.to_expr(k, "int64"))

    def over(self, a: Dim, c: Dim) -> Dim:
        """a divided by c, which divides it."""
        k = None if isinstance(a, int) or isinstance(c, int) else self.factor(a, c)
        return self.dim(e.as_expr(a) // c) if k is None else k

    def total(self, source: e.Var | IterSum) -> Dim:
        """Extent of a source."""
        if not isinstance(source, IterSum):
            return self.extents[source]
        out: Dim = 1
        for s in source.splits:
            out = self.mul(out, s.extent)
        return out

    # ----------------------------------------------------------------------------------------------------------- forms

    def detect(self, index: Any) -> IterSum | None:
        """The form of an index as it is written, which shows how loops were made, or else simplified."""
        raw = e.as_expr(index)
        return self.read(raw) or self.read(simplify(raw, self.facts))

    def read(self, expr: e.PrimExpr) -> IterSum | None:
        for n in post_order(expr):
            if n not in self.forms and isinstance(n, e.PrimExpr):
                self.forms[n] = self.form(n)
        return self.forms[expr]

    def form(self, n: Any) -> IterSum | None:
        cls = type(n)
        if cls is e.Var and n in self.extents:
            return IterSum((IterSplit(n, 1, self.extents[n]),))
        if not any(v in self.extents for v in post_order(n)):
            return IterSum((), self.dim(n))
        if cls in (e.Add, e.Sub, e.Mul):
            return self.sum(P.of_expr(n), n.dtype)
        if cls in (e.FloorDiv, e.FloorMod):
            a, b = self.forms.get(n.a), self.forms.get(n.b)
            if a is None or b is None or b.splits:
                return None
            one = self.single(a)
            if one is None:
                return None
            split = self.quotient(one, b.base) if cls is e.FloorDiv else self.remainder(one, b.base)
            return None if split is None else IterSum((split,))
        return None

    def sum(self, p: P.Poly, dtype: str) -> IterSum | None:
        splits: list[IterSplit] = []
        base: P.Poly = {}
        for mono, coef in p.items():
            inside = [a for a in mono if any(v in self.extents for v in post_order(a))]
            if not inside:
                base[mono] = coef
                continue
            form = self.forms.get(inside[0])
            if len(inside) > 1 or form is None or len(form.splits) != 1 or not self.same(form.base, 0):
                return None
            left = P.remove_factor(mono, (inside[0],))
            scale = self.dim(P.to_expr({left or (): coef}, dtype))
            s = form.splits[0]
            splits.append(IterSplit(s.source, s.lower_factor, s.extent, self.mul(s.scale, scale)))
        return IterSum(self.ordered(splits), self.dim(P.to_expr(base, dtype)))

    def ordered(self, splits: list[IterSplit]) -> tuple[IterSplit, ...]:
        """Larger scales first; a symbolic scale ranks by its degree and coefficient."""

        def rank(s: IterSplit) -> tuple[int, int]:
            if isinstance(s.scale, int):
                return 0, abs(s.scale)
            mono, coef = P.sorted_terms(P.of_expr(s.scale))[0]
            return len(mono), abs(coef)

        return tuple(sorted(splits, key=rank, reverse=True))

    def single(self, form: IterSum) -> IterSplit | None:
        """The form as one split of scale 1: itself, or a fusion of pieces that fit together without gaps."""
        if not self.same(form.base, 0) or not form.splits:
            return None
        if len(form.splits) == 1:
            s = form.splits[0]
            return s if self.same(s.scale, 1) else None
        expected: Dim = 1
        for s in reversed(form.splits):
            if not self.same(s.scale, expected):
                return None
            expected = self.mul(expected, s.extent)
        fused = IterSum(form.splits)
        return IterSplit(fused, 1, self.total(fused))

    def top(self, s: IterSplit) -> bool:
        """Whether the split reaches the source's upper end, so that its remainder does nothing."""
        return self.at_least(self.mul(s.lower_factor, s.extent), self.total(s.source))

    def quotient(self, s: IterSplit, c: Dim) -> IterSplit | None:
        if self.divides(c, s.extent):
            return IterSplit(s.source, self.mul(s.lower_factor, c), self.over(s.extent, c))
        if self.top(s):
            return IterSplit(s.source, self.mul(s.lower_factor, c), self.dim(e.ceildiv(s.extent, c)))
        return None

    def remainder(self, s: IterSplit, c: Dim) -> IterSplit | None:
        if self.at_least(c, s.extent):
            return s
        return IterSplit(s.source, s.lower_factor, c) if self.divides(c, s.extent) or self.top(s) else None

    # ------------------------------------------------------------------------------------------------------ whole maps

    def separated(self, indices: Sequence[Any], exact: bool) -> list[IterSum] | None:
        """The forms of indices that tell iterations apart (`exact`: without gaps); None where they may not."""
        forms = [self.detect(i) for i in indices]
        found = [f for f in forms if f is not None]
        if len(found) < len(forms) or not self.chains(found, exact):
            return None
        return found if all(self.separate(f, compact=exact) for f in found) else None

    def chains(self, forms: Iterable[IterSum], exact: bool) -> bool:
        """Whether every loop variable is used up, each part exactly once, by all forms together."""
        pieces: dict[Any, list[IterSplit]] = {}
        todo = self.joined([s for f in forms for s in f.splits])
        seen: set[Any] = set()
        while todo:
            s = todo.pop()
            pieces.setdefault(s.source, []).append(s)
            if isinstance(s.source, IterSum) and s.source not in seen:
                seen.add(s.source)
                todo += s.source.splits
        for v, extent in self.extents.items():
            if v not in pieces and not self.same(extent, 1):
                return False
        return all(self.chain(source, splits, exact) for source, splits in pieces.items())

    def joined(self, splits: list[IterSplit]) -> list[IterSplit]:
        """Pieces of the leading part of a fusion as pieces of the whole: with i, j fused, i // 3 is (i*4 + j) // 12.

        Simplification cancels common factors, so that each index of one fused loop may speak of another part of it.
        """
        whole: dict[Any, tuple[IterSum, Dim]] = {}
        fusions = dict.fromkeys(s.source for s in splits if isinstance(s.source, IterSum))
        for f in sorted(fusions, key=lambda f: len(f.splits)):
            for k in range(1, len(f.splits)):
                part = self.leading(f, k)
                if part is not None:
                    whole[part] = f, f.splits[k - 1].scale
        out: list[IterSplit] = []
        for s in splits:
            while s.source in whole:
                fused, unit = whole[s.source]
                s = IterSplit(fused, self.mul(s.lower_factor, unit), s.extent, s.scale)
            out.append(s)
        return out

    def leading(self, fused: IterSum, k: int) -> Any:
        """The source that the first k pieces of a fusion make."""
        first = fused.splits[:k]
        unit = first[-1].scale
        if k == 1 and self.same(first[0].lower_factor, 1) and self.top(first[0]):
            return first[0].source
        if not isinstance(unit, int) or any(not isinstance(s.scale, int) for s in first):
            return None
        return IterSum(tuple(IterSplit(s.source, s.lower_factor, s.extent, s.scale // unit) for s in first))

    def chain(self, source: Any, splits: list[IterSplit], exact: bool) -> bool:
        left = [s for s in splits if not self.same(s.extent, 1)]
        reached: Dim = 1
        while left:
            k = next((k for k, s in enumerate(left) if self.same(s.lower_factor, reached)), None)
            if k is None:
                return False
            reached = self.mul(reached, left.pop(k).extent)
        total = self.total(source)
        return self.same(reached, total) if exact else self.at_least(reached, total)

    def separate(self, form: IterSum, compact: bool) -> bool:
        """Whether different values of the splits give different sums (without gaps, from 0, if `compact`)."""
        reach: Dim = 1
        for s in reversed(form.splits):
            if self.same(s.extent, 1):
                continue
            size = abs(s.scale) if isinstance(s.scale, int) else s.scale
            if not (self.same(size, reach) if compact else self.at_least(size, reach)):
                return False
            reach = self.mul(size, s.extent)
        return not compact or self.same(form.base, 0)


def _with(iters: Mapping[e.Var, Any], facts: Facts | None) -> Facts:
    facts = Facts() if facts is None else facts
    for v, extent in iters.items():
        facts.bind(v, 0, extent)
    return facts


def detect_iter_map(
    indices: Sequence[Any], iters: Mapping[e.Var, Any], facts: Facts | None = None
) -> list[IterSum] | None:
    """The iterator-map form of each index over loops `iters` (variable -> extent, each from 0), or None.

    None where an index is no sum of pieces (i*i, i + i//2, loads); variables not in `iters` count as constants.
    """
    facts = Facts() if facts is None else facts
    with facts.scope():
        detector = _Detector(iters, _with(iters, facts))
        found = [detector.detect(i) for i in indices]
    return None if any(f is None for f in found) else [f for f in found if f is not None]


def is_bijective(
    indices: Sequence[Any],
    iters: Mapping[e.Var, Any],
    extents: Sequence[Any] | None = None,
    facts: Facts | None = None,
) -> bool:
    """Whether the loops reach every index tuple of a box from 0 (of `extents`, if given) exactly once."""
    facts = Facts() if facts is None else facts
    with facts.scope():
        d = _Detector(iters, _with(iters, facts))
        found = d.separated(indices, exact=True)
        if found is None:
            return False
        return extents is None or all(d.same(d.total(f), d.dim(x)) for f, x in zip(found, extents, strict=True))


def is_injective(indices: Sequence[Any], iters: Mapping[e.Var, Any], facts: Facts | None = None) -> bool:
    """Whether different iterations give different index tuples (False also where that is not decided)."""
    facts = Facts() if facts is None else facts
    with facts.scope():
        return _Detector(iters, _with(iters, facts)).separated(indices, exact=False) is not None


def subspace(
    indices: Sequence[Any], iters: Mapping[e.Var, Any], inner: Iterable[e.Var], facts: Facts | None = None
) -> list[tuple[IterSum, IterSum]] | None:
    """Each index as (part over the other loops + base, part over the loops `inner`); None if they mix."""
    own = set(inner)
    forms = detect_iter_map(indices, iters, facts)
    if forms is None:
        return None
    out = []
    for f in forms:
        parts: tuple[list[IterSplit], list[IterSplit]] = ([], [])
        for s in f.splits:
            sides = {v in own for v in s.variables()}
            if len(sides) > 1:
                return None
            parts[True in sides].append(s)
        out.append((IterSum(tuple(parts[0]), f.base), IterSum(tuple(parts[1]))))
    return out


def stride(index: Any, var: e.Var, facts: Facts | None = None) -> Dim | None:
    """How much `index` grows when `var` grows by one (0 where it does not occur); None where that varies."""
    from warpbeam.tir.arith import linear

    found = linear(index, [var], facts)
    return None if found is None else e.simplify_dim(found[0].get(var, e.const(0)))
