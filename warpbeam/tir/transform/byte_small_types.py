"""Floats of 8, 6 and 4 bits and integers of 4 and 2 as bytes: conversions become arithmetic, the rest moves bytes.

C[i] = cast(float32, A[i])   (A float8_e5m2)     ->     C[i] = reinterpret(float32, … uint32(A[i]) << 21 …)
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.expr import Buffer, Call, Cast, FloatImm, IntImm, PrimExpr, Var
from warpbeam.tir.smallfloat import decode, encode
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform.setting import Setting


def byte_small_types(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """No small type is left: see `ir.dtype.carrier`. Arithmetic on them must be legal before (`fp8_compute_legalize`).

    The parameters' own types stay in the attribute "dtypes".
    """
    body = rewrite(func.body, _conversion)
    nodes = [*func.buffers, *post_order(body)]
    swap: dict[Any, Any] = {}
    for n in nodes:
        if isinstance(n, Buffer | Var) and dt.is_small(n.dtype):
            swap[n] = _buffer(n) if isinstance(n, Buffer) else Var(n.name, dt.carrier(n.dtype))
    body = rewrite(body, _carried, dict(swap))
    params = [swap.get(p, p) for p in func.params]
    attrs = (
        func.attrs.updated(dtypes=tuple(p.dtype for p in func.params)) if params != list(func.params) else func.attrs
    )
    return PrimFunc(func.name, params, body, attrs)


def _buffer(b: Buffer) -> Buffer:
    return b.replace(dtype=dt.carrier(b.dtype))  # type: ignore[no-any-return]


def _conversion(n: Any) -> Any:
    """Casts from and to small types, with the carriers' bits marked as reinterpretations."""
    if type(n) is not Cast or not (dt.is_small(n.dtype) or dt.is_small(n.value.dtype)):
        return None
    value = _wide(n.value)
    return _narrow(value, n.dtype) if dt.is_small(n.dtype) else e.cast(n.dtype, value)


def _wide(x: PrimExpr) -> PrimExpr:
    """The value in a type that computes: float32, or the carrier of an integer."""
    if not dt.is_small(x.dtype):
        return x
    raw = Call(dt.carrier(x.dtype), "reinterpret", (x,))
    if dt.is_float(x.dtype):
        return decode(raw, x.dtype)
    if dt.is_unsigned(x.dtype):
        return raw & dt.int_range(dt.scalar(x.dtype))[1]
    unused = 8 - dt.bits(x.dtype)
    return (raw << unused) >> unused


def _narrow(value: PrimExpr, dtype: str) -> PrimExpr:
    """A value of a wide type in a small one."""
    lanes, base = dt.lanes(dtype), dt.scalar(dtype)
    if dt.is_float(base):
        code = encode(e.cast(dt.with_lanes("float32", lanes), value), base)
        return Call(dtype, "reinterpret", (code,))
    low, high = dt.int_range(base)
    byte = e.cast(dt.carrier(dtype), value)
    if dt.is_float(value.dtype):
        byte = e.minimum(e.maximum(byte, e.const(low, byte.dtype)), e.const(high, byte.dtype))
    return Call(dtype, "reinterpret", (byte & ((1 << dt.bits(base)) - 1),))


def _carried(n: Any) -> Any:
    if isinstance(n, IntImm) and dt.is_small(n.dtype):
        return IntImm(n.value & ((1 << dt.bits(n.dtype)) - 1), dt.carrier(n.dtype))
    if isinstance(n, FloatImm) and dt.is_small(n.dtype):
        return IntImm(dt.to_numpy(n.dtype).type(n.value).tobytes()[0], "uint8")
    if isinstance(n, Call) and dt.is_small(n.dtype):
        n = Call(dt.carrier(n.dtype), n.op, n.args, n.attrs)
    if isinstance(n, Call) and n.op == "reinterpret" and n.args[0].dtype == n.dtype:
        return n.args[0]
    return n
