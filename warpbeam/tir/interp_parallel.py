"""Which loops the interpreter may run all iterations of at once: those whose iterations touch different elements.

A loop is independent if every buffer that its body writes (and does not allocate itself) is accessed, per iteration,
only at elements that no other iteration accesses. That is decided per buffer by one dimension in which the iterations
keep apart, or by the indices together being an injective iterator map. Undecided loops run one iteration after another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir import intrin
from warpbeam.tir import stmt as s
from warpbeam.tir.arith import Facts, is_injective, simplify
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.bounds import poly_bounds


@dataclass(slots=True)
class _Body:
    """What a loop's body does, found by one walk."""

    accesses: dict[e.Buffer, dict[tuple[e.PrimExpr, ...], None]] = field(default_factory=dict)
    written: dict[e.Buffer, None] = field(default_factory=dict)
    private: dict[e.Buffer, None] = field(default_factory=dict)
    loops: list[tuple[e.Var, e.PrimExpr, e.PrimExpr]] = field(default_factory=list)
    effects: bool = False


def _expr(x: e.PrimExpr, lets: dict[Any, Any], body: _Body) -> None:
    for n in post_order(x):
        if type(n) is e.BufferLoad:
            body.accesses.setdefault(n.buffer, {})[substitute_all(n.indices, lets)] = None
        elif type(n) is e.Call and n.op in intrin.INTRINSICS and not intrin.is_pure(n.op) and n.op != "prefetch":
            body.effects = True
        elif type(n) is e.Let:
            lets[n.var] = substitute(n.value, lets)


def substitute_all(indices: tuple[e.PrimExpr, ...], lets: dict[Any, Any]) -> tuple[e.PrimExpr, ...]:
    return tuple(substitute(i, lets) for i in indices) if lets else indices


def survey(root: s.Stmt) -> _Body:
    """Accesses, writes, allocations and loops of a statement; let-bound variables are replaced by their values."""
    body, lets = _Body(), {}  # type: tuple[_Body, dict[Any, Any]]
    todo: list[Any] = [root]
    while todo:
        n = todo.pop()
        cls = type(n)
        if cls is s.BufferStore:
            body.accesses.setdefault(n.buffer, {})[substitute_all(n.indices, lets)] = None
            body.written[n.buffer] = None
            for x in (n.value, *n.indices):
                _expr(x, lets, body)
        elif cls is s.For:
            body.loops.append((n.var, substitute(n.min, lets), substitute(n.extent, lets)))
            _expr(n.min, lets, body)
            _expr(n.extent, lets, body)
            todo.append(n.body)
        elif cls is s.SeqStmt:
            todo.extend(reversed(n.stmts))
        elif cls is s.LetStmt:
            _expr(n.value, lets, body)
            lets[n.var] = substitute(n.value, lets)
            todo.append(n.body)
        elif cls is s.Allocate:
            body.private[n.buffer] = None
            todo.append(n.body)
        elif cls in (s.IfThenElse, s.While, s.AssertStmt):
            _expr(n.cond, lets, body)
            todo += [x for x in (getattr(n, f, None) for f in ("orelse", "then", "body")) if x is not None]
        elif cls is s.Evaluate:
            _expr(n.value, lets, body)
        else:
            body.effects = True
    return body


class Independence:
    """Decides and remembers, per loop statement, whether its iterations are independent."""

    def __init__(self) -> None:
        self.known: dict[s.For, bool] = {}

    def of(self, loop: s.For) -> bool:
        found = self.known.get(loop)
        if found is None:
            found = self.known[loop] = _independent(loop)
        return found


def _independent(loop: s.For) -> bool:
    body = survey(loop.body)
    shared = [b for b in body.written if b not in body.private]
    if body.effects:
        return False
    facts = Facts()
    facts.bind(loop.var, loop.min, loop.extent)
    inner: dict[e.Var, e.PrimExpr] = {}
    for var, low, extent in body.loops:
        facts.bind(var, low, extent)
        inner[var] = extent
    starts = all(e.const_int(low) == 0 for _, low, _ in body.loops) and e.const_int(loop.min) == 0
    for buffer in shared:
        accesses = [[_scalar(i, facts) for i in ind] for ind in body.accesses[buffer]]
        if any(i is None for ind in accesses for i in ind):
            return False
        if not _apart(accesses, loop, inner, facts) and not (starts and _injective(accesses, loop, inner)):
            return False
    return True


def _scalar(index: e.PrimExpr, facts: Facts) -> Any:
    """The index of a lane as a scalar expression of a lane variable bound in facts; None for other vectors."""
    if dt.lanes(index.dtype) == 1:
        return index
    if type(index) is not e.Ramp:
        return None
    lane = e.Var("lane")
    facts.bind(lane, 0, index.count)
    return index.base + index.stride * lane


def _apart(accesses: list[list[Any]], loop: s.For, inner: dict[e.Var, Any], facts: Facts) -> bool:
    """One dimension where iteration v only touches [c*v + lo, c*v + hi] (plus what all share) with hi - lo < |c|."""
    for d in range(len(accesses[0])):
        polys = [P.of_expr(simplify(ind[d], facts)) for ind in accesses]
        if _window(polys, loop, inner, facts):
            return True
    return False


def _window(polys: list[P.Poly], loop: s.For, inner: dict[e.Var, Any], facts: Facts) -> bool:
    slope: int | None = None
    base: P.Poly | None = None
    low = high = 0
    for k, p in enumerate(polys):
        own = p.get((loop.var,), 0)
        rest = P.plus(p, {(loop.var,): own}, -1) if own else p
        if not own or (slope is not None and own != slope):
            return False
        slope = own
        moving: P.Poly = {}
        fixed: P.Poly = {}
        for mono, coef in rest.items():
            below = [n for a in mono for n in post_order(a)]
            if loop.var in below or any(type(n) is e.BufferLoad for n in below):
                return False
            varies = any(n in inner or (type(n) is e.Var and n.name == "lane") for n in below)
            (moving if varies else fixed)[mono] = coef
        base = fixed if base is None else base
        shift = P.const_of(P.plus(fixed, base, -1))
        lo, hi = poly_bounds(moving, facts)
        if shift is None or lo is None or hi is None:
            return False
        low, high = (lo + shift, hi + shift) if k == 0 else (min(low, lo + shift), max(high, hi + shift))
    return slope is not None and high - low < abs(slope)


def _injective(accesses: list[list[Any]], loop: s.For, inner: dict[e.Var, Any]) -> bool:
    """All accesses agree in some dimensions, whose indices differ between iterations."""
    same = [d for d in range(len(accesses[0])) if all(ind[d] is accesses[0][d] for ind in accesses)]
    indices = [accesses[0][d] for d in same]
    below = set(post_order(*indices))
    if loop.var not in below or any(type(n) is e.BufferLoad or (type(n) is e.Var and n.name == "lane") for n in below):
        return False
    iters = {loop.var: loop.extent, **{v: x for v, x in inner.items() if v in below}}
    return is_injective(indices, iters)
