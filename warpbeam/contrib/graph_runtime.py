"""`contrib.graph_runtime`: the oldest name of `contrib.graph_executor`."""

from __future__ import annotations

from warpbeam.contrib.graph_executor import GraphModule, create

__all__ = ["GraphModule", "create"]
