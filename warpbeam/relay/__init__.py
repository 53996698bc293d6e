"""The graph IR.

The classic public names (`relay.var`, `relay.nn.conv2d`, `relay.build`, …) live in `warpbeam.relay_api` and are
forwarded from here on first use, because `import warpbeam.relay` finds this package.
"""

from __future__ import annotations

import importlib
from typing import Any as _Any  # `Any` is a name of the classic face: an unknown size


def __getattr__(name: str) -> _Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(importlib.import_module("warpbeam.relay_api"), name)
