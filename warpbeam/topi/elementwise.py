"""Computations on each element alone. They take a tensor, or an expression and then give one.

Half floats are computed in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, scalar, tag
from warpbeam.topi.broadcast import promote
from warpbeam.topi.common import Caller, TopiError, map_stage, rounded, wide


def unary(name: str, fn: Callable[..., Any], doc: str, floats: bool = True, result: str = "") -> Callable[[Any], Any]:
    """A computation of one operand from the formula of one element; `floats` refuses other operands."""

    def operation(x: Any) -> Any:
        value = x if isinstance(x, te.Tensor) else E.as_expr(x)
        if floats and not dt.is_float(value.dtype):
            raise TopiError(f"topi.{name}: takes floats, got {value.dtype}", hint="topi.cast it to float32 first")
        out = result or value.dtype
        inner = wide(value.dtype) if floats else value.dtype
        if not isinstance(x, te.Tensor):
            return E.cast(out, fn(E.cast(inner, value)))
        return map_stage(fn, [x], x.shape, out, name, inner, tag.ELEMWISE)

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = doc
    return operation


def _intrinsic(name: str) -> Callable[[Any], Any]:
    return unary(name, scalar.intrinsic(name), f"{name} of each element.")


ceil = _intrinsic("ceil")
floor = _intrinsic("floor")
trunc = _intrinsic("trunc")
round = _intrinsic("round")
sqrt = _intrinsic("sqrt")
exp = _intrinsic("exp")
log = _intrinsic("log")
log2 = _intrinsic("log2")
log10 = _intrinsic("log10")
sin = _intrinsic("sin")
cos = _intrinsic("cos")
tan = _intrinsic("tan")
asin = _intrinsic("asin")
acos = _intrinsic("acos")
atan = _intrinsic("atan")
sinh = _intrinsic("sinh")
cosh = _intrinsic("cosh")
tanh = _intrinsic("tanh")
asinh = _intrinsic("asinh")
acosh = _intrinsic("acosh")
atanh = _intrinsic("atanh")
erf = _intrinsic("erf")
sigmoid = _intrinsic("sigmoid")
rsqrt = unary("rsqrt", scalar.rsqrt, "1 / sqrt(x).")
isnan = unary("isnan", scalar.isnan, "Whether an element is NaN.", result="bool")
isinf = unary("isinf", scalar.isinf, "Whether an element is infinite.", result="bool")
isfinite = unary("isfinite", scalar.isfinite, "Whether an element is neither infinite nor NaN.", result="bool")
abs = unary("abs", scalar.magnitude, "Magnitude of each element.", floats=False)
negative = unary("negative", scalar.negative, "-x.", floats=False)
sign = unary("sign", scalar.sign, "-1, 0 or 1 by sign.", floats=False)
identity = unary("identity", lambda x: x, "A copy.", floats=False)
logical_not = unary("logical_not", E.lnot, "Not x, of bools.", floats=False)
bitwise_not = unary("bitwise_not", scalar.intrinsic("bitwise_not"), "~x of integers.", floats=False)
fast_exp = unary("fast_exp", scalar.intrinsic("exp"), "exp, whose expansion is fast already.")
fast_tanh = unary("fast_tanh", scalar.intrinsic("tanh"), "tanh: see fast_exp.")
fast_erf = unary("fast_erf", scalar.intrinsic("erf"), "erf: see fast_exp.")


def cast(x: Any, dtype: str, flush: bool = False) -> Any:
    """Value conversion: float to int saturates (NaN: 0), int to narrower int wraps, to bool is `!= 0`.

    flush: of float32 to bfloat16, subnormal numbers may become zero, as the machine's own instruction has it.
    """
    if not isinstance(x, te.Tensor):
        return E.cast(dtype, x)
    convert = rounded if flush else lambda v, t: E.cast(t, v)
    return te.compute(x.shape, lambda *i: convert(x[i], dtype), name="cast", tag=tag.ELEMWISE)


def reinterpret(x: te.Tensor, dtype: str) -> Any:
    """The same bits as another number type of equal size."""
    if dt.bits(x.dtype) != dt.bits(dtype):
        raise TopiError(f"topi.reinterpret: {x.dtype} and {dtype} have different sizes")
    return te.compute(
        x.shape, lambda *i: E.call("reinterpret", x[i], dtype=dtype), name="reinterpret", tag=tag.ELEMWISE
    )


def clip_limits(dtype: str, low: Any, high: Any) -> tuple[Any, Any]:
    """Bounds as values of a dtype."""
    if dt.is_float(dtype):
        return float(low), float(high)
    first, last = dt.int_range(dtype)
    return int(min(max(low, first), last)), int(min(max(high, first), last))


def clip(x: te.Tensor, a_min: Any, a_max: Any) -> Any:
    """min(max(x, a_min), a_max); NaN stays. Bounds are numbers, or expressions of the tensor's dtype."""
    if isinstance(a_min, E.PrimExpr) or isinstance(a_max, E.PrimExpr):
        low, high = (E.cast(x.dtype, E.as_expr(v, x.dtype)) for v in (a_min, a_max))
    else:
        low, high = (E.const(v, x.dtype) for v in clip_limits(x.dtype, a_min, a_max))
    return te.compute(x.shape, lambda *i: E.minimum(E.maximum(x[i], low), high), name="clip", tag=tag.ELEMWISE)


def elemwise_sum(xs: Sequence[te.Tensor]) -> Any:
    """The sum of tensors of one shape, in the order given."""
    who = Caller("elemwise_sum")
    if not xs:
        raise who.error("takes at least one tensor")
    for x in xs:
        if not dims.equal(x.shape, xs[0].shape):
            raise who.error(f"shapes {dims.shape_text(xs[0].shape)} and {dims.shape_text(x.shape)} differ")

    def total(*values: E.PrimExpr) -> E.PrimExpr:
        out = values[0]
        for v in values[1:]:
            out = E.add(*promote(out, v))
        return out

    sample = total(*[x[(0,) * x.ndim] for x in xs])
    return map_stage(total, xs, xs[0].shape, sample.dtype, "elemwise_sum", label=tag.ELEMWISE)


def full(shape: Sequence[Any], dtype: str, fill_value: Any) -> Any:
    """A tensor of `shape` whose elements all are `fill_value`, a number or an expression."""
    value = fill_value if isinstance(fill_value, E.PrimExpr) else E.const(fill_value, dtype)
    return te.compute(shape, lambda *i: E.cast(dtype, value), name="full", tag=tag.ELEMWISE)


def full_like(x: te.Tensor, fill_value: Any) -> Any:
    """A tensor of the shape and dtype of `x` whose elements all are `fill_value`."""
    return full(x.shape, x.dtype, fill_value)


def zeros_like(x: te.Tensor) -> Any:
    """Zeros in the shape and dtype of `x`."""
    return full_like(x, 0)


def ones_like(x: te.Tensor) -> Any:
    """Ones in the shape and dtype of `x`."""
    return full_like(x, 1)
