"""Everything together: compiling models (`api`), building functions (`te_build`)."""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {"build": "te_build:build", "lower": "te_build:lower", "compile": "api:compile", "load": "api:load"}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'warpbeam.driver' has no attribute {name!r}")
    module, _, attr = place.partition(":")
    return getattr(importlib.import_module(f"warpbeam.driver.{module}"), attr)
