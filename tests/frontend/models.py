"""Small ONNX models for tests, built from text-like pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from warpbeam.frontend.onnx import import_model
from warpbeam.relay.interp import evaluate

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name: str, shape: Any, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Any, inputs: Any, outputs: Any, constants: dict[str, np.ndarray] | None = None, opset: int = 17, **kw: Any
) -> ModelProto:
    """A model of nodes (op_type, inputs, outputs, attributes) with inputs and outputs (name, shape[, type])."""
    protos = [n if not isinstance(n, tuple) else node(*n) for n in nodes]
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(protos, "g", [value(*i) for i in inputs], [value(*o) for o in outputs], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **kw)


def node(kind: str, inputs: str, outputs: str, attributes: dict[str, Any] | None = None, name: str = "") -> Any:
    ins = ["" if i == "_" else i for i in inputs.split()]
    return helper.make_node(kind, ins, outputs.split(), name=name, **(attributes or {}))


def run(proto: Any, *arrays: np.ndarray, **options: Any) -> Any:
    """Imports and interprets a model."""
    found = import_model(proto, **options)
    out = evaluate(found.module, dict(zip(found.inputs, arrays, strict=True)), check=True)
    return out
