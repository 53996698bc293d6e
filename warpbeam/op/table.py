"""The operators, by name. A module is loaded when one of its operators is first asked for."""

from __future__ import annotations

import importlib
from functools import cache

from warpbeam.ir.diagnostics import IRError
from warpbeam.relay.op import Op

ELEMENTWISE = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh",
    "bitwise_not": "BitwiseNot", "cast": "Cast", "ceil": "Ceil", "clip": "Clip", "copy": "Copy", "cos": "Cos",
    "cosh": "Cosh", "erf": "Erf", "exp": "Exp", "floor": "Floor", "isfinite": "IsFinite", "isinf": "IsInf",
    "isnan": "IsNan", "log": "Log", "log10": "Log10", "log2": "Log2", "logical_not": "LogicalNot",
    "negative": "Negative", "ones_like": "OnesLike", "round": "Round", "rsqrt": "Rsqrt", "sigmoid": "Sigmoid",
    "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh", "trunc": "Trunc",
    "zeros_like": "ZerosLike",
}  # fmt: skip

BROADCAST = {
    "add": "Add", "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor",
    "divide": "Divide", "equal": "Equal", "floor_divide": "FloorDivide", "floor_mod": "FloorMod", "greater": "Greater",
    "greater_equal": "GreaterEqual", "left_shift": "LeftShift", "less": "Less", "less_equal": "LessEqual",
    "logical_and": "LogicalAnd", "logical_or": "LogicalOr", "logical_xor": "LogicalXor", "maximum": "Maximum",
    "minimum": "Minimum", "mod": "Mod", "multiply": "Multiply", "not_equal": "NotEqual", "power": "Power",
    "right_shift": "RightShift", "subtract": "Subtract", "trunc_divide": "TruncDivide", "trunc_mod": "TruncMod",
    "where": "Where",
}  # fmt: skip

REDUCE = {
    "all": "All", "any": "Any_", "argmax": "ArgMax", "argmin": "ArgMin", "logsumexp": "LogSumExp", "max": "Max",
    "mean": "Mean", "min": "Min", "prod": "Prod", "sum": "Sum", "variance": "Variance",
}  # fmt: skip

SHAPE = {
    "broadcast_to": "BroadcastTo", "expand_dims": "ExpandDims", "repeat": "Repeat", "reshape": "Reshape",
    "reverse": "Reverse", "squeeze": "Squeeze", "tile": "Tile", "transpose": "Transpose",
}  # fmt: skip

SHAPE_JOIN = {
    "concatenate": "Concatenate", "nn.depth_to_space": "DepthToSpace", "nn.space_to_depth": "SpaceToDepth",
    "split": "Split", "stack": "Stack", "strided_slice": "StridedSlice",
}  # fmt: skip

CREATION = {"arange": "Arange", "full": "Full", "ones": "Ones", "shape_tensor": "ShapeTensor", "zeros": "Zeros"}

OPS: dict[str, str] = {}
for _module, _ops in {
    "elementwise": ELEMENTWISE,
    "broadcast": BROADCAST,
    "reduce": REDUCE,
    "shape": SHAPE,
    "shape_join": SHAPE_JOIN,
    "creation": CREATION,
}.items():
    OPS.update({_name: f"{_module}:{_cls}" for _name, _cls in _ops.items()})


@cache
def get(name: str) -> Op:
    """The operator called `name`."""
    place = OPS.get(name)
    if place is None:
        raise IRError(f"there is no operator {name!r}", hint="warpbeam.op.names() lists them; add it to op/table.py")
    module, _, cls = place.partition(":")
    return getattr(importlib.import_module(f"warpbeam.op.{module}"), cls)()  # type: ignore[no-any-return]


def names() -> list[str]:
    """Names of all operators, sorted."""
    return sorted(OPS)
