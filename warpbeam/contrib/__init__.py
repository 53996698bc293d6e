"""Classic import paths: `from warpbeam.contrib import graph_executor, utils, cc, cblas`."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = (
    "cblas",
    "cc",
    "clang",
    "download",
    "graph_executor",
    "graph_runtime",
    "ndk",
    "nvcc",
    "rpc",
    "tar",
    "tedd",
    "util",
    "utils",
)


def __getattr__(name: str) -> Any:
    if name == "side_by_side":
        return importlib.import_module("warpbeam.contrib.code_page").side_by_side
    if name not in _MODULES:
        raise AttributeError(f"module 'warpbeam.contrib' has no attribute {name!r}")
    return importlib.import_module("warpbeam.runtime.rpc" if name == "rpc" else f"warpbeam.contrib.{name}")
