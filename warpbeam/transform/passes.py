"""The graph passes by their classic names, loaded when first asked for: `passes.FoldConstant()`."""

from __future__ import annotations

from typing import Any

from warpbeam.transform import table
from warpbeam.transform.table import Sequential

__all__ = ["Sequential", *table.PASSES]


def __getattr__(name: str) -> Any:
    if name in table.PASSES:
        return table.maker(name)
    raise AttributeError(f"there is no pass {name!r}; the passes are {', '.join(table.PASSES)}")
