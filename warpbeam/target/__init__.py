"""Targets as data: `get("native")`, `get("znver4")`, `get({"like": "generic-x86-64-v3", "cores": 8})`.

Classic strings are read by `Target("llvm -mcpu=znver4")`; plain "llvm" is this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warpbeam.target.classic import arm_cpu, create, cuda, llvm, opencl, parse
from warpbeam.target.target import Target, TargetError, from_dict, named, names

__all__ = [
    "Target", "TargetError", "arm_cpu", "create", "cuda", "detect", "from_dict", "get", "llvm", "named", "names",
    "opencl", "parse",
]  # fmt: skip


def detect() -> Target:
    """The target of this machine."""
    from warpbeam.target.host import detect as detect_host

    return detect_host()


def get(spec: str | Target | Mapping[str, Any] = "native") -> Target:
    """A target from "native", a built-in name, TOML text (as `Target.to_text` writes), a dict of fields, or itself.

    Raises:
        TargetError: if it is none of these.
    """
    if isinstance(spec, Target):
        return spec
    if isinstance(spec, Mapping):
        return from_dict(spec)
    if spec == "native":
        return detect()
    return Target.from_text(spec) if "\n" in spec or spec.startswith("[") else named(spec)
