"""`contrib.graph_executor`: the classic place of the graph executor, which lives in `warpbeam.runtime`."""

from __future__ import annotations

from typing import Any

from warpbeam.runtime.graph_executor import GraphModule
from warpbeam.runtime.module import Module
from warpbeam.runtime.ndarray import Device

__all__ = ["GraphModule", "create"]


def create(graph_json: Any, libmod: Module, device: Device) -> GraphModule:
    """An executor over a compiled module, from the three parts that `relay.build` unpacks to.

    The graph is part of the module; `graph_json` is not read.
    """
    return GraphModule(libmod, device)
