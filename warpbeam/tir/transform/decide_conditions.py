"""Takes out of lazy choices what the loops around them decide; what is left open masks a load instead of branching.

for h in H:                                            for h in H:
  A[0] = if_then_else(h + 1 >= 1 and h >= 1,    ->       A[0] = if_then_else(broadcast(h >= 1, 16),
                      X[ramp(h)], 0)                                         X[ramp(h)], 0)

Where sizes are known, conditions fold to numbers when loops are expanded. Where they are open, this pass proves what
holds for every size, once loops are expanded. A masked load takes no longer than a plain one, and conditions at the
borders of a window are many and short; that is so on targets with masked vector loads only. A choice between loads
stays a branch: what is not chosen may be far outside its buffer, and a load of no lane there takes hundreds of cycles.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.predicate import conjuncts
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.arith import Facts, simplify
from warpbeam.tir.stmt import BufferStore, For, IfThenElse, LetStmt, PrimFunc, SeqStmt, Stmt
from warpbeam.tir.transform.mutate import peel, wrap
from warpbeam.tir.transform.setting import Setting

_MASKED = "avx512f"  # the feature of targets whose vector loads take a mask


def decide_conditions(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Choices under conditions that say nothing new get rid of them, where sizes are open."""
    if all(not isinstance(p, e.Var) for p in func.params):
        return func
    features = getattr(getattr(at, "target", None), "required_features", ())
    allocs, body = peel(func.body)
    new = _Walk(_MASKED in set(features)).stmt(body)
    return func if new is body else func.replace(body=wrap(allocs, new or SeqStmt(())))


class _Walk:
    def __init__(self, masked: bool) -> None:
        self.masked = masked
        self.facts = Facts()

    def stmt(self, s: Any) -> Stmt | None:
        if isinstance(s, BufferStore):
            value = rewrite(s.value, self.choice)
            return s if value is s.value else BufferStore(s.buffer, value, s.indices)
        if isinstance(s, LetStmt):
            return self.lets(s)
        below = kids(s)
        if isinstance(s, For):
            with self.facts.scope():
                self.facts.bind(s.var, s.min, s.extent)
                new = [self.stmt(c) for c in below]
        elif isinstance(s, IfThenElse):
            new = []
            for cond, part in zip((s.cond, e.lnot(s.cond)), below, strict=False):
                with self.facts.scope():
                    self.facts.assume(cond)
                    new.append(self.stmt(part))
        else:
            new = [self.stmt(c) for c in below]
        return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new)

    def lets(self, s: LetStmt) -> Stmt | None:
        """What is below a chain of names, which may be as long as a block of registers that is turned."""
        chain: list[LetStmt] = []
        inside: Any = s
        while isinstance(inside, LetStmt):
            chain.append(inside)
            inside = inside.body
        new = self.stmt(inside)
        if new is inside:
            return s
        for named in reversed(chain):
            new = None if new is None else with_kids(named, [new])
        return new

    def choice(self, n: Any) -> Any:
        """A choice with the open part of its condition."""
        if type(n) is not e.Call or n.op != "if_then_else" or "x" in n.args[0].dtype:
            return None
        left = [c for c in (simplify(c, self.facts) for c in conjuncts(n.args[0])) if not _true(c)]
        if not left:
            return n.args[1]
        cond = e.land(*left)
        if self.masked and _vector_loads(n):
            cond = e.Broadcast(cond, dt.lanes(n.dtype))
        return n if cond is n.args[0] else e.Call(n.type, n.op, (cond, *n.args[1:]), n.attrs)


def _true(c: Any) -> bool:
    return type(c) is e.IntImm and bool(c.value)


def _vector_loads(n: Any) -> bool:
    """Whether a choice is between neighbouring elements and what takes no memory."""
    count = dt.lanes(n.dtype)
    sides = [[x for x in post_order(a) if isinstance(x, e.BufferLoad)] for a in n.args[1:]]
    loads = [*sides[0], *sides[1]]
    if all(sides) or count < 2 or any(type(x) is e.Call and x.op != "if_then_else" for x in post_order(*n.args[1:])):
        return False
    return all(
        x.indices and x.buffer.scope != "register" and type(x.indices[-1]) is e.Ramp
        and e.const_int(x.indices[-1].stride) == 1 and dt.lanes(x.dtype) == count for x in loads
    )  # fmt: skip


__all__ = ["decide_conditions"]
