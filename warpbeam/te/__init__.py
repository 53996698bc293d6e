"""Tensor expressions: what each element of a tensor is, and nothing about order.

For instance:
    A = te.placeholder((n, 32), "float32", "A")
    B = te.compute((n, 32), lambda i, j: A[i, j] * 2.0, "B")
    s = te.create_schedule(B.op)
"""

from __future__ import annotations

import importlib
from typing import Any

from warpbeam.te.create import create_prim_func
from warpbeam.te.errors import TEError
from warpbeam.te.extern import extern
from warpbeam.te.operation import ComputeOp, ExternOp, Operation, PlaceholderOp, ScanOp, Tensor, TensorSlice
from warpbeam.te.scan import scan
from warpbeam.te.tag import tag_scope
from warpbeam.te.tensor import (
    all_of,
    any_of,
    comm_reducer,
    compute,
    max,
    min,
    placeholder,
    prod,
    reduce_axis,
    size_var,
    sum,
    thread_axis,
    var,
)
from warpbeam.tir.op import (
    abs,
    acos,
    acosh,
    all,
    any,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    ceil,
    ceildiv,
    clz,
    const,
    copysign,
    cos,
    cosh,
    div,
    erf,
    exp,
    exp2,
    exp10,
    floor,
    floordiv,
    floormod,
    fmod,
    hypot,
    if_then_else,
    indexdiv,
    indexmod,
    infinity,
    isfinite,
    isinf,
    isnan,
    ldexp,
    log,
    log1p,
    log2,
    log10,
    max_value,
    min_value,
    nearbyint,
    nextafter,
    popcount,
    power,
    reinterpret,
    round,
    rsqrt,
    sigmoid,
    sin,
    sinh,
    sqrt,
    tan,
    tanh,
    trunc,
    truncdiv,
    truncmod,
)
from warpbeam.tir.stmt import IterVar

_LATE = {
    "schedule": "warpbeam.te.schedule",
    "create_schedule": "warpbeam.te.schedule:create_schedule",
    "Schedule": "warpbeam.te.schedule:Schedule",
    "Stage": "warpbeam.te.schedule:Stage",
    "SpecializedCondition": "warpbeam.te.schedule:SpecializedCondition",
    "AXIS_SEPARATOR": "warpbeam.te.schedule:AXIS_SEPARATOR",
    "decl_tensor_intrin": "warpbeam.te.tensor_intrin:decl_tensor_intrin",
    "TensorIntrin": "warpbeam.te.tensor_intrin:TensorIntrin",
    "gradient": "warpbeam.te.reverse_mode:gradient",
    "hybrid": "warpbeam.te.hybrid",
    "TensorComputeOp": "warpbeam.te.tensor_compute:TensorComputeOp",
    "add": "warpbeam.tir.expr:add",
    "subtract": "warpbeam.tir.expr:sub",
    "multiply": "warpbeam.tir.expr:mul",
}

__all__ = [
    "ComputeOp",
    "ExternOp",
    "IterVar",
    "Operation",
    "PlaceholderOp",
    "ScanOp",
    "TEError",
    "Tensor",
    "TensorSlice",
    "abs",
    "acos",
    "acosh",
    "all",
    "all_of",
    "any",
    "any_of",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "ceildiv",
    "clz",
    "comm_reducer",
    "compute",
    "const",
    "copysign",
    "cos",
    "cosh",
    "create_prim_func",
    "div",
    "erf",
    "exp",
    "exp2",
    "exp10",
    "extern",
    "floor",
    "floordiv",
    "floormod",
    "fmod",
    "hypot",
    "if_then_else",
    "indexdiv",
    "indexmod",
    "infinity",
    "isfinite",
    "isinf",
    "isnan",
    "ldexp",
    "log",
    "log1p",
    "log2",
    "log10",
    "max",
    "max_value",
    "min",
    "min_value",
    "nearbyint",
    "nextafter",
    "placeholder",
    "popcount",
    "power",
    "prod",
    "reduce_axis",
    "reinterpret",
    "round",
    "rsqrt",
    "scan",
    "sigmoid",
    "sin",
    "sinh",
    "size_var",
    "sqrt",
    "sum",
    "tag_scope",
    "tan",
    "tanh",
    "thread_axis",
    "trunc",
    "truncdiv",
    "truncmod",
    "var",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    place = _LATE.get(name)
    if place is None:
        raise AttributeError(f"module 'warpbeam.te' has no attribute {name!r}")
    module, _, attr = place.partition(":")
    found = importlib.import_module(module)
    value = getattr(found, attr) if attr else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
