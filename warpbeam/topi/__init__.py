"""The library of computations: what operators of tensors mean, written as tensor expressions, and their schedules.

    C = topi.nn.relu(topi.nn.conv2d_nchw(data, kernel, 1, 1))
    s = topi.x86.schedule_conv2d_nchw([C])

Formulas stand here once: the operators of the graph (`warpbeam/op/`) call them. Computations carry tags (`topi.tag`)
that say what kind they are. Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

MODULES = (
    "cuda",
    "dims",
    "generic",
    "index",
    "nn",
    "reduction",
    "scalar",
    "tag",
    "testing",
    "transform",
    "utils",
    "x86",
)

_TABLE = {
    "broadcast": """add subtract multiply divide floor_divide mod floor_mod maximum minimum power left_shift
        right_shift bitwise_and bitwise_or bitwise_xor equal not_equal less less_equal greater greater_equal
        logical_and logical_or logical_xor broadcast_to""",
    "elementwise": """abs acos acosh asin asinh atan atanh bitwise_not cast ceil clip cos cosh elemwise_sum erf exp
        fast_erf fast_exp fast_tanh floor full full_like identity isfinite isinf isnan log log10 log2 logical_not
        negative ones_like reinterpret round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc zeros_like""",
    "reduction": "all any argmax argmin logsumexp max mean min prod sum variance",
    "transform": """concatenate expand_dims expand_like flip repeat reshape split squeeze stack strided_slice tile
        transpose where""",
    "indexing": """arange gather gather_nd meshgrid ndarray_size one_hot reverse_sequence sequence_mask shape take
        unravel_index""",
    "linalg": "einsum matmul tensordot",
    "layout": "layout_transform",
    "nn.activation": "relu leaky_relu",
    "common": "TopiError",
}

_NAMES = {name: f"{module}:{name}" for module, names in _TABLE.items() for name in names.split()}
_NAMES.update(
    {
        "broadcast_add": "broadcast:add",
        "broadcast_div": "broadcast:divide",
        "broadcast_maximum": "broadcast:maximum",
        "broadcast_minimum": "broadcast:minimum",
        "broadcast_mod": "broadcast:mod",
        "broadcast_mul": "broadcast:multiply",
        "broadcast_pow": "broadcast:power",
        "broadcast_sub": "broadcast:subtract",
        "trunc_divide": "broadcast:divide",
        "trunc_mod": "broadcast:mod",
    }
)

__all__ = [*sorted(_NAMES), *MODULES]


def __getattr__(name: str) -> Any:
    value: Any
    if name == "util":
        name = "utils"
    if name in MODULES:
        value = importlib.import_module(f"warpbeam.topi.{name}")
    elif name in _NAMES:
        module, _, attr = _NAMES[name].partition(":")
        value = getattr(importlib.import_module(f"warpbeam.topi.{module}"), attr)
    else:
        raise AttributeError(f"module 'warpbeam.topi' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
