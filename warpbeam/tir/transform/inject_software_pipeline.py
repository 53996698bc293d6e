"""Runs parts of a loop's body some iterations ahead of others, so that loading the next tile overlaps with computing.

for k in 4:  # software_pipeline_stage=(0, 1)     alloc T: float32[2, 8]
    alloc T: float32[8]                           load(0, T[0])
    load(k, T)                             ->     for k in 3:
    use(k, T)                                         load(k + 1, T[(k + 1) % 2])
                                                      use(k, T[k % 2])
                                                  use(3, T[3 % 2])

Statement i of the body runs at step (iteration + stage[i]); within a step in the given order. A buffer of the body that
is filled in stage p and read in stage q gets q - p + 1 copies, or q - p where a step reads it before it fills it again.
A double buffer is this with two stages.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr
from warpbeam.tir.stmt import Allocate, BufferStore, For, IfThenElse, PrimFunc, SeqStmt, Stmt, seq
from warpbeam.tir.transform.alternate_loops import in_order
from warpbeam.tir.transform.inject_prefetch import unasked
from warpbeam.tir.transform.lower_blocks import Lowering
from warpbeam.tir.transform.mutate import peel, wrap
from warpbeam.tir.transform.setting import Setting
from warpbeam.tir.transform.stage_notes import ORDER, STAGE, parts_of


def inject_software_pipeline(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Loops with the notes software_pipeline_stage and software_pipeline_order run in stages."""
    allocs, inner = peel(func.body)
    body = _walked(inner, Facts())
    return func if body is inner else func.replace(body=wrap(allocs, body))


def _walked(s: Any, facts: Facts) -> Stmt:
    """Outer loops first: an inner one becomes several statements. Recursion is as deep as loops nest."""
    if isinstance(s, For) and STAGE in s.annotations:
        stages = [int(x) for x in s.annotations[STAGE]]
        order = [int(x) for x in s.annotations.get(ORDER, range(len(stages)))]
        notes = {k: v for k, v in s.annotations.items() if k not in (STAGE, ORDER, "software_pipeline_async_stages")}
        return _walked(pipelined(s, stages, order, notes, facts), facts)
    below = kids(s)
    if not below:
        return s  # type: ignore[no-any-return]
    with facts.scope():
        if isinstance(s, For):
            facts.bind(s.var, s.min, s.extent)
        new: list[Any] = [_walked(c, facts) for c in below]
    return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new) or s


def pipelined(s: For, stages: list[int], order: list[int], notes: dict[str, Any], facts: Facts | None = None) -> Stmt:
    """The loop in stages; raises LowerError where a value would be read before it is written. facts: what holds of the
    loops around it.
    """
    facts = Facts() if facts is None else facts
    allocs, parts = parts_of(s)
    if len(stages) != len(parts) or sorted(order) != list(range(len(parts))) or min(stages) != 0:
        raise LowerError(
            f"loop {s.var.name} has {len(parts)} statements, stages {tuple(stages)} and order {tuple(order)}",
            hint="give one stage and one place in the order to each statement; the first stage is 0",
        )
    versions = _versions(s, allocs, parts, stages, order)
    if versions is None:
        return s.replace(annotations=notes)  # type: ignore[no-any-return]
    last, notes = max(stages), in_order(notes)
    ranked = sorted(range(len(parts)), key=lambda i: order[i])

    def step(t: PrimExpr, test: bool) -> Stmt:
        """All statements of step t; `test`: those outside of the iterations are left out at run time."""
        made = []
        for i in ranked:
            k = simplify(e.sub(t, stages[i]), facts)
            one = substitute(_versioned(parts[i], versions, s), {s.var: e.add(s.min, k)})
            tests = [c for c in (k >= 0, k < s.extent) if test and prove(c, facts) is not True]
            made.append(IfThenElse(e.land(*tests), one) if tests else one)
        return seq(*made)

    zero = e.const(0, s.var.dtype)
    first = [step(e.const(t, s.var.dtype), True) for t in range(last)]
    middle = For(s.var, zero, e.sub(s.extent, last), s.kind, step(e.add(s.var, last), False), notes, s.thread)
    if prove(s.extent >= last, facts) is not True:
        middle = middle.replace(extent=e.maximum(middle.extent, zero))
    ends = [step(e.add(e.maximum(s.extent, e.const(last, s.var.dtype)), t), True) for t in range(last)]
    body = Lowering(facts).stmt(seq(*first, middle, *ends)) or SeqStmt(())
    return wrap([_widened(a, versions, STAGE in s.annotations) for a in allocs], body)


def _widened(a: Allocate, versions: dict[Buffer, tuple[Buffer, int]], staged: bool) -> Allocate:
    """An allocation now outside the loop: with its copies, and no longer one to be filled ahead."""
    notes = Attrs({k: v for k, v in a.annotations.items() if not (staged and k == "double_buffer")})
    return Allocate(versions[a.buffer][0] if a.buffer in versions else a.buffer, a.body, notes)


def _versions(
    s: For, allocs: list[Allocate], parts: list[Stmt], stages: list[int], order: list[int]
) -> dict[Buffer, tuple[Buffer, int]] | None:
    """The buffers with a copy per stage that uses them; None where one has no size of its own for an iteration."""
    found: dict[Buffer, tuple[Buffer, int]] = {}
    own, parts = {a.buffer for a in allocs}, [unasked(p) for p in parts]
    for b in dict.fromkeys(x.buffer for p in parts for x in accesses(p)[1]):
        writes = [i for i, p in enumerate(parts) if any(x.buffer is b for x in accesses(p)[1])]
        reads = [i for i, p in enumerate(parts) if any(x.buffer is b for x in accesses(p)[0])]
        both = {stages[i] for i in (*writes, *reads)}
        for r in reads:
            for w in writes:
                early = (stages[r], order[r]) < (stages[w], order[w])
                if b not in own and len(both) > 1:
                    return None
                if w < r and early:
                    raise LowerError(
                        f"{b.name} is written in stage {stages[w]} and read in stage {stages[r]} of loop {s.var.name}",
                        hint="a buffer that passes from stage to stage must be allocated in the loop, written first",
                    )
        if b in own and writes:
            count = _copies(writes, reads, stages, order)
            if count > 1:
                scope = "local" if b.scope == "register" else b.scope  # registers have no numbers at run time
                found[b] = (b.replace(shape=(count, *b.shape), scope=scope), count)
    return found


def _copies(writes: list[int], reads: list[int], stages: list[int], order: list[int]) -> int:
    """How many iterations' values of a buffer exist at once."""
    first = min(stages[i] for i in writes)
    filled = min(order[i] for i in writes if stages[i] == first)
    lasting = [stages[i] - first + (stages[i] == first or order[i] > filled) for i in {*writes, *reads}]
    return max(1, *lasting)


def _versioned(part: Stmt, versions: dict[Buffer, tuple[Buffer, int]], s: For) -> Any:
    """A statement on the copy of each buffer that belongs to its iteration."""

    def change(n: Any) -> Any:
        if not isinstance(n, BufferLoad | BufferStore) or n.buffer not in versions:
            return None
        new, count = versions[n.buffer]
        index = (e.floormod(e.sub(s.var, s.min), count), *n.indices)
        return BufferLoad(new, index) if isinstance(n, BufferLoad) else BufferStore(new, n.value, index)

    return rewrite(part, change)
