"""Loop programs: expressions, statements, functions, and what can be done with them.

    ib = tir.ir_builder.create()
    tir.Schedule(func).split("i", factors=[None, 16])

Names are loaded on first use: floors above import the modules below this one directly.
"""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {
    "warpbeam.tir.expr": (
        "Add And Broadcast Buffer BufferLoad BufferRef Call Cast Div EQ FloatImm FloorDiv FloorMod GE GT IntImm LE LT "
        "Let Max Min Mod Mul NE Not Or PrimExpr Ramp Select Shuffle SizeVar StringImm Sub Var"
    ),
    "warpbeam.tir.stmt": (
        "Allocate AssertStmt Block BufferStore Evaluate For ForKind IfThenElse IterVar LetStmt PrimFunc Range SeqStmt "
        "Stmt While"
    ),
    "warpbeam.tir.op": (
        "abs acos acosh address_of all any asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor "
        "call_cpacked call_extern call_intrin call_llvm_intrin call_llvm_pure_intrin call_packed call_pure_extern "
        "call_pure_intrin ceil ceildiv clz const copysign cos cosh div erf exp exp2 exp10 expm1 floor floordiv "
        "floormod fmod hypot if_then_else indexdiv indexmod infinity isfinite isinf isnan ldexp likely log log10 "
        "log1p log2 max_value min_value nearbyint nextafter popcount pow power reinterpret round rsqrt shift_left "
        "shift_right sigmoid sin sinh sqrt tan tanh trunc truncdiv truncmod"
    ),
    "warpbeam.tir.intrin": "CallEffectKind",
    "warpbeam.tir.reducer": "CommReducer Reduce comm_reducer max min prod sum",
    "warpbeam.tir.declare": "decl_buffer",
    "warpbeam.tir.schedule": "Schedule",
    "warpbeam.tir.text": "parse to_text",
}
_NAMES = {name: module for module, names in _PLACES.items() for name in names.split()}
_MODULES = ("analysis", "arith", "interp", "ir_builder", "schedule", "stmt_functor", "tensor_intrin", "transform")


def __getattr__(name: str) -> Any:
    place = _NAMES.get(name)
    if place is not None:
        value = getattr(importlib.import_module(place), name)
    elif name in _MODULES:
        value = importlib.import_module(f"warpbeam.tir.{name}")
    else:
        raise AttributeError(f"module 'warpbeam.tir' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})
