"""Marks loops for unrolling where a pragma or the configuration asks for it, so that nests need no mark per loop.

for i in 4:  # auto_unroll_max_step=16          for i in unrolled(4):
    for j in 4: A[i, j] = 0.0            ->         for j in unrolled(4): A[i, j] = 0.0

Loops are taken from the inside out while the steps (stores and calls) of the unrolled nest stay within the limit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from warpbeam.tir import expr as e
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.literal import integer
from warpbeam.tir.stmt import AssertStmt, BufferStore, Evaluate, For, PrimFunc, Stmt
from warpbeam.tir.transform.mutate import peel, wrap
from warpbeam.tir.transform.setting import Setting

KEY = "tir.UnrollLoop"
PRAGMAS = ("auto_unroll_max_step", "auto_unroll_max_depth", "auto_unroll_max_extent", "unroll_explicit")


def unroll_pragmas(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Serial loops of small constant extent become unrolled ones.

    Config "tir.UnrollLoop": auto_max_step (0: none), auto_max_depth (8), auto_max_extent (0), explicit_unroll (true);
    a loop's pragmas auto_unroll_max_step, …, unroll_explicit replace them for the loops inside. Where unrolling is not
    explicit and the target's compiler can do it, loops stay, with the note "pragma_unroll".
    """
    at = at or Setting()
    limits = Limits(
        int(at.option(KEY, "auto_max_step", 0)),
        int(at.option(KEY, "auto_max_depth", 8)),
        int(at.option(KEY, "auto_max_extent", 0)),
        bool(at.option(KEY, "explicit_unroll", True)) or getattr(at.target, "kind", "llvm") == "llvm",
        getattr(at.target, "kind", "llvm") == "llvm",
    )
    allocs, body = peel(func.body)
    new, _ = _walk(body, limits)
    return func if new is body else func.replace(body=wrap(allocs, new))


def asked(at: Setting) -> bool:
    """Whether a pragma or the configuration asks for unrolling."""
    return KEY in at.config or any(f"note:{p}{k}" in at.seen for k in PRAGMAS for p in ("", "pragma_"))


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be unrolled here."""

    step: int
    depth: int
    extent: int
    explicit: bool
    always: bool  # no compiler after us unrolls loops

    def within(self, notes: Any) -> Limits:
        """With a loop's pragmas."""
        found = {p: notes.get(p, notes.get(f"pragma_{p}")) for p in PRAGMAS}
        new: Any = self
        for field, pragma in (("step", PRAGMAS[0]), ("depth", PRAGMAS[1]), ("extent", PRAGMAS[2])):
            if found[pragma] is not None:
                new = replace(new, **{field: integer(found[pragma], f"the value of pragma {pragma}")})
        if found["unroll_explicit"] is not None:
            new = replace(new, explicit=bool(found["unroll_explicit"]) or self.always)
        return new  # type: ignore[no-any-return]


@dataclass(slots=True)
class Shape:
    """Steps of a statement with its unrolled loops written out, depth of these, and whether other loops are inside."""

    steps: int = 0
    depth: int = 0
    loops: bool = False


def _walk(s: Any, limits: Limits) -> tuple[Stmt, Shape]:
    if isinstance(s, For):
        return _loop(s, limits)
    below = kids(s)
    if not below:
        return s, Shape(int(isinstance(s, BufferStore | Evaluate | AssertStmt)))
    made = [_walk(c, limits) for c in below]
    shape = Shape(sum(m.steps for _, m in made), max(m.depth for _, m in made), any(m.loops for _, m in made))
    if all(new is old for (new, _), old in zip(made, below, strict=True)):
        return s, shape
    return with_kids(s, [new for new, _ in made]) or s, shape


def _loop(s: For, limits: Limits) -> tuple[Stmt, Shape]:
    limits = limits.within(s.annotations)
    body, shape = _walk(s.body, limits)
    count = e.const_int(s.extent)
    kind, notes = s.kind, s.annotations
    small = count is not None and (0 <= count * shape.steps <= limits.step or 0 <= count <= limits.extent)
    wanted = s.kind == "unrolled"
    if s.kind == "serial" and small and not shape.loops and shape.depth < limits.depth:
        wanted = True
    if wanted and limits.explicit:
        kind = "unrolled"
    elif wanted:
        kind, notes = "serial", notes.updated(pragma_unroll=True)
    new = s
    if body is not s.body or kind != s.kind or notes is not s.annotations:
        new = For(s.var, s.min, s.extent, kind, body, notes, s.thread)
    if kind == "unrolled" and count is not None:
        return new, Shape(count * shape.steps, shape.depth + 1, shape.loops)
    if kind == "vectorized":
        return new, shape
    return new, Shape(shape.steps, shape.depth, True)
