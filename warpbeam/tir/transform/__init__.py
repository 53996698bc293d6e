"""Lowering: passes over loop programs, and their order."""

from __future__ import annotations

from typing import Any

from warpbeam.tir.transform.pipeline import PASSES, PHASES, lower, lower_loops, lower_simple

_CLASSIC = (
    "Apply",
    "BF16ComputeLegalize",
    "CommonSubexprElimTIR",
    "CompactBufferAllocation",
    "ConvertBlocksToOpaque",
    "FP8ComputeLegalize",
    "HoistIfThenElse",
    "InjectDoubleBuffer",
    "InjectPrefetch",
    "InjectRollingBuffer",
    "InjectSoftwarePipeline",
    "InjectVirtualThread",
    "InstrumentBoundCheckers",
    "LoopPartition",
    "LowerInitBlock",
    "LowerIntrin",
    "LowerOpaqueBlock",
    "NarrowDataType",
    "PlanAndUpdateBufferAllocationLocation",
    "PrimFuncPass",
    "RemoveNoOp",
    "RewriteUnsafeSelect",
    "Simplify",
    "StorageRewrite",
    "UnrollLoop",
    "VectorizeLoop",
    "VerifyMemory",
    "prim_func_pass",
)

__all__ = ["PASSES", "PHASES", "lower", "lower_loops", "lower_simple", *_CLASSIC]


def __getattr__(name: str) -> Any:
    if name in _CLASSIC:
        from warpbeam.tir.transform import passes

        return getattr(passes, name)
    raise AttributeError(f"module 'warpbeam.tir.transform' has no attribute {name!r}")
