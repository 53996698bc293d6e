"""Nodes, rewriting, passes, diagnostics.

The classic public names (`ir.save_json`, `ir.IRModule`, `ir.register_intrin_lowering`, …) live in
`warpbeam.driver.ir_names` and are forwarded from here on first use.
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name in ("diagnostics", "dtype", "instrument", "node", "rewrite", "structural", "transform"):
        return importlib.import_module(f"warpbeam.ir.{name}")
    return getattr(importlib.import_module("warpbeam.driver.ir_names"), name)
