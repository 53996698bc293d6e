"""The name under which ONNX tools find the backend: `warpbeam.frontend.onnx.backend`.

The backend compiles and runs models, so it lives above this floor, in `warpbeam.testing.onnx_backend`. This module
only hands its names on; it is the one place that reaches up, by name and on first use, so that the frontend itself
depends on nothing above it.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = "warpbeam.testing.onnx_backend"
_NAMES = ("WarpbeamBackend", "Compiled", "prepare", "run_model", "run_node", "supports_device", "is_compatible")


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_HOME), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
