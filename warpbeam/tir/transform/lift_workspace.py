"""Makes root-level intermediates trailing parameters, because the plan of the whole model provides their storage."""

from __future__ import annotations

from warpbeam.ir.diagnostics import LowerError
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.expr import PrimExpr, Var
from warpbeam.tir.stmt import Allocate, PrimFunc
from warpbeam.tir.transform.mutate import peel, wrap


def lift_workspace(func: PrimFunc) -> PrimFunc:
    """Root allocations of scope "global" become parameters; func.attrs["workspace"] counts them."""
    allocs, body = peel(func.body)
    lifted = [a.buffer for a in allocs if a.buffer.scope == "global"]
    kept: list[Allocate] = [a for a in allocs if a.buffer.scope != "global"]
    sizes = {p for p in func.params if isinstance(p, Var)}
    for b in lifted:
        for s in b.shape:
            if isinstance(s, PrimExpr) and not free_vars(s) <= sizes:
                raise LowerError(f"the size of workspace {b.name} depends on more than the function's sizes")
    attrs = func.attrs.updated(workspace=len(lifted))
    return PrimFunc(func.name, (*func.params, *lifted), wrap(kept, body), attrs)
