"""ONNX models as Relay modules: `from_onnx(model)` gives (module, parameters)."""

from __future__ import annotations

from typing import Any

__all__ = ["from_onnx"]


def from_onnx(model: Any, shape: Any = None, dtype: Any = None, opset: int | None = None, freeze_params: bool = False):  # type: ignore[no-untyped-def]
    """See `warpbeam.frontend.onnx.importer.from_onnx`."""
    from warpbeam.frontend.onnx.importer import from_onnx as run

    return run(model, shape=shape, dtype=dtype, opset=opset, freeze_params=freeze_params)
