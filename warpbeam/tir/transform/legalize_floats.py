"""Computes with short types in wider ones where the target has no arithmetic for them, rounding after each operation.

C[i] = A[i] + B[i]  (bfloat16)     ->     C[i] = bfloat16(float32(A[i]) + float32(B[i]))
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.expr import Call, PrimExpr
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform.setting import Setting

STORAGE = ("if_then_else", "reinterpret", "likely", "prefetch")  # calls that move values and do not compute with them


def short(dtype: str) -> bool:
    """Whether a dtype is bfloat16, a float of 8 or 4 bits, or an integer of 4 or 2."""
    return dt.scalar(dtype) == "bfloat16" or dt.is_small(dtype)


def _wider(dtype: str) -> str:
    return dt.with_lanes("float32" if dt.is_float(dtype) else "int32", dt.lanes(dtype))


def bf16_compute_legalize(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """bfloat16 arithmetic, comparisons and functions in float32."""
    return _legal(func, lambda t: dt.scalar(t) == "bfloat16")


def fp8_compute_legalize(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """The same for float8_e4m3fn, float4_e2m1fn and their like; integers of 4 and 2 bits compute in int32 and wrap."""
    return _legal(func, dt.is_small)


def _legal(func: PrimFunc, short_one: Any) -> PrimFunc:
    def wide(x: PrimExpr) -> PrimExpr:
        return e.cast(_wider(x.dtype), x) if short_one(x.dtype) else x

    def change(n: Any) -> Any:
        if isinstance(n, e.BinaryExpr) and short_one(n.dtype):
            return e.cast(n.dtype, type(n)(wide(n.a), wide(n.b)))
        if isinstance(n, e.CmpExpr) and short_one(n.a.dtype):
            return type(n)(wide(n.a), wide(n.b))
        if isinstance(n, Call) and n.op not in STORAGE and any(short_one(a.dtype) for a in n.args):
            args = [wide(a) for a in n.args]
            if not short_one(n.dtype):
                return Call(n.dtype, n.op, args, n.attrs)
            return e.cast(n.dtype, Call(_wider(n.dtype), n.op, args, n.attrs))
        return None

    body = rewrite(func.body, change)
    return func if body is func.body else func.replace(body=body)
