"""Passes over graphs; public as `relay.transform`."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.transform import Pass, PassContext, PassInfo, PrintIR, function_pass, module_pass
from warpbeam.transform.table import PASSES, Sequential, maker

__all__ = ["Pass", "PassContext", "PassInfo", "PrintIR", "Sequential", "function_pass", "module_pass"]


def __getattr__(name: str) -> Any:
    if name in PASSES:
        return maker(name)
    raise AttributeError(f"module 'warpbeam.transform' has no attribute {name!r}")
