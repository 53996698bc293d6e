"""Computations of two operands that broadcast against each other, and `broadcast_to`.

Operands are tensors, expressions or numbers on either side; without a tensor the result is an expression. Numbers take
the tensor's dtype; of two different dtypes the wider wins, a float over an integer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, scalar, tag
from warpbeam.topi.common import Caller, Who, at_broadcast, broadcast_shapes, map_stage


def broadcast_shape_to(who: Who, source: Sequence[Any], shape: Sequence[Any]) -> tuple[Any, ...]:
    """`shape` as dimensions, after a check that `source` broadcasts to it."""
    target = dims.dims(shape)
    if len(target) < len(source):
        raise who.error(f"{dims.shape_text(source)} has more dimensions than {dims.shape_text(target)}")
    for k, (d, o) in enumerate(zip(source, target[len(target) - len(source) :], strict=True)):
        same = (isinstance(d, int) and d == 1) or dims.same(d, o)
        if not same and not (same is None and dims.assume_equal(d, o, "broadcast_to: dimensions must be equal")):
            if same is None or dims.can_be_one(d):
                error = dims.undecided(f"operator {who.name}", d, o, "" if same is None else "the first to be 1")
                error.axis = k - len(source)
                raise error
            raise who.error(f"{dims.shape_text(source)} does not broadcast to {dims.shape_text(target)}")
    return target


def broadcast_to(data: te.Tensor, shape: Sequence[Any]) -> Any:
    """Dimensions of 1 repeated, and new leading ones added, to give `shape`."""
    target = broadcast_shape_to(Caller("broadcast_to"), data.shape, shape)
    return te.compute(target, lambda *i: at_broadcast(data, i, target), name="broadcast_to", tag=tag.BROADCAST)


def promote(a: Any, b: Any) -> tuple[E.PrimExpr, E.PrimExpr]:
    """Both as expressions of one dtype: numbers adapt, else the wider wins and a float wins over an integer."""
    x, y = E.pair(a, b)
    if x.dtype == y.dtype:
        return x, y
    common = common_dtype(x.dtype, y.dtype)
    return E.cast(common, x), E.cast(common, y)


def common_dtype(a: str, b: str) -> str:
    """The dtype in which values of two dtypes meet."""
    if dt.is_float(a) != dt.is_float(b):
        return a if dt.is_float(a) else b
    if dt.bits(a) != dt.bits(b):
        return a if dt.bits(a) > dt.bits(b) else b
    return a if dt.is_unsigned(a) or not dt.is_unsigned(b) else b


def _binary(name: str, fn: Callable[..., Any], doc: str, logical: bool = False) -> Callable[[Any, Any], Any]:
    def element(a: Any, b: Any) -> E.PrimExpr:
        if logical:
            return fn(E.cast("bool", E.as_expr(a)), E.cast("bool", E.as_expr(b)))  # type: ignore[no-any-return]
        return fn(*promote(a, b))  # type: ignore[no-any-return]

    def operation(lhs: Any, rhs: Any) -> Any:
        given = [v for v in (lhs, rhs) if isinstance(v, te.Tensor)]
        if not given:
            return element(lhs, rhs)
        shape = broadcast_shapes(Caller(name), *[t.shape for t in given])

        def body(*values: E.PrimExpr) -> E.PrimExpr:
            own = iter(values)
            return element(*[next(own) if isinstance(v, te.Tensor) else v for v in (lhs, rhs)])

        sample = body(*[t[(0,) * t.ndim] for t in given])
        return map_stage(body, given, shape, sample.dtype, name)

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = doc
    return operation


add = _binary("add", E.add, "lhs + rhs.")
subtract = _binary("subtract", E.sub, "lhs - rhs.")
multiply = _binary("multiply", E.mul, "lhs * rhs.")
divide = _binary("divide", E.div, "lhs / rhs: exact for floats, truncating for integers.")
floor_divide = _binary("floor_divide", scalar.floor_divide, "The quotient rounded down.")
mod = _binary("mod", scalar.trunc_mod, "The remainder that goes with `divide` (the sign of lhs).")
floor_mod = _binary("floor_mod", scalar.floor_mod, "The remainder that goes with `floor_divide` (the sign of rhs).")
maximum = _binary("maximum", E.maximum, "The larger; NaN wins.")
minimum = _binary("minimum", E.minimum, "The smaller; NaN wins.")
power = _binary("power", scalar.power, "lhs to the power of rhs.")
left_shift = _binary("left_shift", scalar.intrinsic("shift_left"), "lhs << rhs.")
right_shift = _binary("right_shift", scalar.intrinsic("shift_right"), "lhs >> rhs, arithmetic for signed integers.")
bitwise_and = _binary("bitwise_and", scalar.intrinsic("bitwise_and"), "lhs & rhs of integers.")
bitwise_or = _binary("bitwise_or", scalar.intrinsic("bitwise_or"), "lhs | rhs of integers.")
bitwise_xor = _binary("bitwise_xor", scalar.intrinsic("bitwise_xor"), "lhs ^ rhs of integers.")
equal = _binary("equal", scalar.equal, "lhs == rhs, bool.")
not_equal = _binary("not_equal", scalar.not_equal, "lhs != rhs, bool.")
less = _binary("less", scalar.less, "lhs < rhs, bool.")
less_equal = _binary("less_equal", scalar.less_equal, "lhs <= rhs, bool.")
greater = _binary("greater", scalar.greater, "lhs > rhs, bool.")
greater_equal = _binary("greater_equal", scalar.greater_equal, "lhs >= rhs, bool.")
logical_and = _binary("logical_and", E.land, "lhs and rhs, bool.", logical=True)
logical_or = _binary("logical_or", E.lor, "lhs or rhs, bool.", logical=True)
logical_xor = _binary("logical_xor", scalar.not_equal, "Exactly one of lhs and rhs, bool.", logical=True)
