"""Fills one half of a buffer for the next iteration while this one uses the other half.

for k in 4:                                   alloc T: float32[2, 8]
    alloc T: float32[8]  # double_buffer      load(0, T[0])
    load(k, T)                           ->   for k in 3:
    use(k, T)                                     load(k + 1, T[(k + 1) % 2])
                                                  use(k, T[k % 2])
                                              use(3, T[1])
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses
from warpbeam.tir.expr import Buffer, Var
from warpbeam.tir.stmt import Allocate, For, PrimFunc, Stmt, seq
from warpbeam.tir.transform.inject_software_pipeline import pipelined
from warpbeam.tir.transform.lower_blocks import Lowering
from warpbeam.tir.transform.mutate import map_up
from warpbeam.tir.transform.setting import Setting
from warpbeam.tir.transform.stage_notes import STAGE, parts_of

NOTE = "double_buffer"


def inject_double_buffer(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Buffers noted "double_buffer" are filled one iteration ahead, in the innermost loop around them.

    Config "tir.InjectDoubleBuffer": split_loop 2 writes two iterations into each, so that halves are constants. Where
    what fills the buffer also needs the iteration before, or the loop is pipelined, the note is without effect.
    """
    at = at or Setting()
    split = int(at.option("tir.InjectDoubleBuffer", "split_loop", 1))
    body = map_up(func.body, lambda s: _loop(s, split))
    return func if body is func.body else func.replace(body=body)


def _loop(s: Any, split: int) -> Stmt | None:
    if not isinstance(s, For) or s.kind not in ("serial", "unrolled") or STAGE in s.annotations:
        return s  # type: ignore[no-any-return]
    allocs, parts = parts_of(s)
    wanted = [a.buffer for a in allocs if NOTE in a.annotations]
    stages = _stages(allocs, parts, wanted) if wanted else None
    if stages is None:
        return s
    out = pipelined(s, stages, list(range(len(parts))), dict(s.annotations))
    return out if split < 2 else map_up(out, lambda x: _halved(x, s.var, split))


def _stages(allocs: list[Allocate], parts: list[Stmt], wanted: list[Buffer]) -> list[int] | None:
    """Stage 0 for what fills the buffers and needs nothing else of the body, 1 for the rest."""
    early = set(wanted)
    stages = [0 if any(x.buffer in early for x in accesses(p)[1]) else 1 for p in parts]
    written = {x.buffer for p, t in zip(parts, stages, strict=True) if t for x in accesses(p)[1]}
    for p, t in zip(parts, stages, strict=True):
        loads, stores = accesses(p)
        if t == 0 and not written.isdisjoint({x.buffer for x in loads} | {x.buffer for x in stores}):
            return None
    return stages if 0 in stages and 1 in stages else None


def _halved(x: Any, var: Var, split: int) -> Stmt | None:
    """The middle loop with `split` iterations in each."""
    if not isinstance(x, For) or x.var is not var:
        return x  # type: ignore[no-any-return]
    count = e.const_int(x.extent)
    if count is None or count < split:
        return x
    copies = [substitute(x.body, {var: e.add(e.mul(var, split), k)}) for k in range(split)]
    rest = [substitute(x.body, {var: e.const(k, var.dtype)}) for k in range(count // split * split, count)]
    main = For(var, 0, count // split, x.kind, seq(*copies), x.annotations, x.thread)
    return Lowering().stmt(seq(main, *rest))
