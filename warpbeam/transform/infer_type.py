"""Gives every expression its type, where programs come without annotations."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.transform import module_pass
from warpbeam.relay.expr import IRModule
from warpbeam.relay.infer import infer_types


@module_pass(opt_level=0, name="InferType")
def infer_type(mod: IRModule, ctx: Any) -> IRModule:
    return infer_types(mod)


def InferType() -> Any:
    """The pass; costs one walk where everything is typed already."""
    return infer_type
