"""What neural-network operators share beyond the library's helpers: checks of types, and NumPy's side of widths."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.op.assumed import unify, unify_shapes
from warpbeam.op.base import accumulation
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType
from warpbeam.topi.nn.common import (
    SPATIAL,
    dim_max,
    dim_min,
    layout_map,
    pad_stage,
    reduce_vars,
    spatial_letters,
    split_padding,
    sum_stage,
    tuple_of,
    window_out,
)

__all__ = [
    "SPATIAL",
    "Ranked",
    "dim_max",
    "dim_min",
    "layout_map",
    "np_accum",
    "pad_stage",
    "reduce_vars",
    "require_float",
    "require_rank",
    "spatial_letters",
    "split_padding",
    "sum_stage",
    "tuple_of",
    "unify",
    "unify_shapes",
    "window_out",
]


class Ranked(Op):
    """Base of operators of one to three spatial dimensions, `nd`: `class Conv2d(Conv, name="nn.conv2d", nd=2): ...`."""

    nd: ClassVar[int] = 2

    def __init_subclass__(cls, name: str = "", nd: int = 0, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if name:
            cls.name, cls.nd = name, nd


def np_accum(array: np.ndarray) -> np.ndarray:
    """`array` in its accumulation type (NumPy side)."""
    return array.astype(dt.to_numpy(accumulation(dt.from_numpy(array.dtype))), copy=False)


def require_float(op: Op, t: TensorType, which: str = "data") -> None:
    """Refuses a non-floating operand."""
    if not dt.is_float(t.dtype):
        raise op.error(f"{which} must be floating point, got {t.dtype}")


def require_rank(op: Op, t: TensorType, ndim: int, which: str = "data") -> None:
    """Refuses an operand of another rank."""
    if t.ndim != ndim:
        raise op.error(f"{which} must have {ndim} dimensions, got {t.ndim}")
