"""Converters by operator type and the operator-set version they hold from; "domain::Type" outside ai.onnx."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

Converter = Callable[..., Any]

MODULES = (
    "ops_math",
    "ops_cast",
    "ops_activation",
    "ops_reduce",
    "ops_shape",
    "ops_create",
    "ops_einsum",
    "ops_nn_window",
    "ops_nn_norm",
    "ops_nn_image",
    "ops_nn_signal",
    "ops_nn_loss",
    "ops_nn_attention",
    "ops_nn_recurrent",
    "ops_index",
    "ops_content",
    "ops_quant",
    "ops_random",
    "ops_training",
    "ops_tfidf",
    "ops_contrib",
    "ops_contrib_quant",
    "ops_contrib_attention",
    "ops_contrib_more",
    "ops_ml",
    "ops_ml_linear",
    "ops_ml_tree",
)


@cache
def converters() -> dict[str, list[tuple[int, Converter]]]:
    """Every operator's converters, newest first."""
    out: dict[str, list[tuple[int, Converter]]] = {}
    for name in MODULES:
        module = importlib.import_module(f"warpbeam.frontend.onnx.{name}")
        for op_type, versions in module.TABLE.items():
            if op_type in out:
                raise AssertionError(f"two converters for {op_type}")
            out[op_type] = sorted(versions.items(), reverse=True)
    return out


def find(op_type: str, domain: str, version: int) -> Converter | None:
    """The converter of an operator at a version of its set."""
    found = converters().get(f"{domain}::{op_type}" if domain else op_type)
    return None if found is None else next((fn for since, fn in found if since <= version), None)
