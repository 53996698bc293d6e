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
    "lower": "warpbeam.driver.te_build:lower",
    "build": "warpbeam.driver.te_build:build",
    "explain": "warpbeam.driver.explain:explain",
    "driver": "warpbeam.driver",
    "IRModule": "warpbeam.relay.expr:IRModule",
    "ir": "warpbeam.ir",
    "instrument": "warpbeam.ir.instrument",
    "transform": "warpbeam.ir.transform",
    "relay": "warpbeam.relay_api",
    "te": "warpbeam.te",
    "topi": "warpbeam.topi",
    "tir": "warpbeam.tir",
    "target": "warpbeam.target",
    "frontend": "warpbeam.frontend",
    "contrib": "warpbeam.contrib",
    "testing": "warpbeam.testing",
    "runtime": "warpbeam.runtime",
    "nd": "warpbeam.runtime.ndarray",
    "error": "warpbeam.runtime.errors",
    "Module": "warpbeam.runtime.module:Module",
    "WarpbeamError": "warpbeam.runtime.errors:WarpbeamError",
    "TVMError": "warpbeam.runtime.errors:TVMError",
    **{n: f"warpbeam.runtime.ndarray:{n}" for n in ("cl", "context", "cpu", "cuda", "device", "gpu", "opencl")},
    **{
        n: f"warpbeam.runtime.packed:{n}"
        for n in ("convert", "get_global_func", "register_func", "register_global_func")
    },
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
