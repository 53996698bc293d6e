"""Warpbeam: a deep-learning compiler in pure Python. Model in, fast native module out.

    import warpbeam
    module = warpbeam.compile("model.onnx")
    outputs = module.run({"x": array})

Everything is loaded on first use, so that importing the package costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warpbeam.driver.api import compile, load

__version__ = "0.1.0"

_NAMES = {
    "compile": "warpbeam.driver.api:compile",
    "load": "warpbeam.driver.api:load",
    "WarpbeamError": "warpbeam.runtime.errors:WarpbeamError",
    "Module": "warpbeam.runtime.module:Module",
    "cpu": "warpbeam.runtime.ndarray:cpu",
    "nd": "warpbeam.runtime.ndarray",
    "relay": "warpbeam.relay_api",
    "te": "warpbeam.te",
    "topi": "warpbeam.topi",
    "tir": "warpbeam.tir",
    "transform": "warpbeam.ir.transform",
    "target": "warpbeam.target",
    "runtime": "warpbeam.runtime",
    "contrib": "warpbeam.contrib",
    "frontend": "warpbeam.frontend",
}

__all__ = ["WarpbeamError", "__version__", "compile", "load"]


def __getattr__(name: str) -> Any:
    place = _NAMES.get(name)
    if place is None:
        raise AttributeError(f"module 'warpbeam' has no attribute {name!r}")
    module, _, attr = place.partition(":")
    value = importlib.import_module(module)
    if attr:
        value = getattr(value, attr)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
