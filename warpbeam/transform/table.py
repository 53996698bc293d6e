"""Every graph pass by its name, found without importing the others."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.transform import Pass
from warpbeam.ir.transform import Sequential as _Sequential

PASSES: dict[str, str] = {
    "BackwardFoldScaleAxis": "fold_scale_axis:backward_fold_scale_axis",
    "CanonicalizeOps": "canonicalize_ops:CanonicalizeOps",
    "ChooseConvolution": "choose_convolution:ChooseConvolution",
    "ConvertLayout": "convert_layout:ConvertLayout",
    "DeadCodeElimination": "dead_code_elimination:DeadCodeElimination",
    "EliminateCommonSubexpr": "eliminate_common_subexpr:EliminateCommonSubexpr",
    "ExpandConvTranspose": "expand_conv_transpose:ExpandConvTranspose",
    "ExpandOperators": "expand_operators:ExpandOperators",
    "FoldConstant": "fold_constant:FoldConstant",
    "FoldScaleAxis": "fold_scale_axis:FoldScaleAxis",
    "ForwardFoldScaleAxis": "fold_scale_axis:forward_fold_scale_axis",
    "HoistLoopWork": "hoist_loop_work:HoistLoopWork",
    "InferType": "infer_type:InferType",
    "IntegerProducts": "integer_products:IntegerProducts",
    "JoinProducts": "join_products:JoinProducts",
    "KeepPrecision": "keep_precision:KeepPrecision",
    "LiftBranches": "lift_branches:LiftBranches",
    "NarrowRows": "narrow_rows:NarrowRows",
    "PackProducts": "pack_products:PackProducts",
    "PartialEvaluate": "partial_evaluate:PartialEvaluate",
    "RemoveUnusedFunctions": "dead_code_elimination:RemoveUnusedFunctions",
    "SimplifyExpr": "simplify_expr:SimplifyExpr",
    "SimplifyInference": "simplify_inference:SimplifyInference",
    "SinkConstants": "sink_constants:SinkConstants",
    "SplitProducts": "split_products:SplitProducts",
    "ToMixedPrecision": "to_mixed_precision:ToMixedPrecision",
    "TurnProducts": "turn_products:TurnProducts",
    "UnsignedBytes": "unsigned_bytes:UnsignedBytes",
    "WidenProducts": "widen_products:WidenProducts",
}


def maker(name: str) -> Callable[..., Pass]:
    """The function that makes the pass called `name`."""
    place = PASSES.get(name)
    if place is None:
        raise IRError(f"there is no pass {name!r}", hint=f"the passes are {', '.join(PASSES)}")
    module, _, attr = place.partition(":")
    found = getattr(importlib.import_module(f"warpbeam.transform.{module}"), attr)
    return (lambda: found) if isinstance(found, Pass) else found


def find(name: str) -> Pass | None:
    """The pass called `name` with its default arguments, or None."""
    return maker(name)() if name in PASSES else None


def Sequential(
    passes: Iterable[Any] = (), opt_level: int = 0, name: str = "sequential", required: Iterable[str] = ()
) -> _Sequential:
    """A Sequential that finds the passes named in `required` in this table."""
    return _Sequential(passes, opt_level, name, required, find)
