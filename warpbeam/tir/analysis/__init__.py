"""What can be found out about a loop program by reading it: places, accesses, regions."""

from __future__ import annotations

import importlib
from typing import Any

_QUERIES = (
    "estimate_tir_flops", "expr_deep_equal", "undefined_vars", "verify_gpu_code", "verify_memory", "verify_ssa",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _QUERIES:
        raise AttributeError(f"module 'warpbeam.tir.analysis' has no attribute {name!r}")
    return getattr(importlib.import_module("warpbeam.tir.analysis.queries"), name)
