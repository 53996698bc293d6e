"""Small helpers that computations and schedules of the classic library use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, index, tag
from warpbeam.topi.common import TopiError


def get_const_int(expr: Any) -> int:
    """The int of a constant expression; an expression that is not constant is an error."""
    value = dims.dim(expr)
    if not isinstance(value, int):
        raise TopiError(f"topi.utils.get_const_int: {dims.text(expr)} is not a constant")
    return int(value)


def get_const_float(expr: Any) -> float:
    """The float of a constant expression."""
    if isinstance(expr, E.FloatImm | E.IntImm):
        return float(expr.value)
    if isinstance(expr, E.PrimExpr):
        raise TopiError(f"topi.utils.get_const_float: {dims.text(expr)} is not a constant")
    return float(expr)


def get_const_tuple(in_tuple: Sequence[Any]) -> tuple[Any, ...]:
    """Constant expressions as ints; symbolic ones stay as they are."""
    return tuple(int(v) if isinstance(v, int) else v for v in map(dims.dim, in_tuple))


def get_float_tuple(in_tuple: Sequence[Any]) -> tuple[float, ...]:
    """Constant expressions as floats."""
    return tuple(get_const_float(v) for v in in_tuple)


def equal_const_int(expr: Any, value: int) -> bool:
    """Whether an expression is the constant `value`."""
    got = dims.dim(expr)
    return isinstance(got, int) and got == value


def simplify(expr: Any) -> Any:
    """A dimension or expression in its simplest form; ints stay ints."""
    if isinstance(expr, int | float):
        return expr
    if expr.dtype in ("int32", "int64"):
        return dims.dim(expr)
    from warpbeam.tir.arith import simplify as simplified

    return simplified(expr)


def is_empty_shape(shape: Sequence[Any]) -> bool:
    """Whether some dimension is 0."""
    return any(equal_const_int(d, 0) for d in shape)


def ravel_index(indices: Sequence[Any], shape: Sequence[Any]) -> Any:
    """Row-major position of an index."""
    return index.linear_index(shape, indices)


def unravel_index(idx: Any, shape: Sequence[Any]) -> list[Any]:
    """Index of a row-major position."""
    return index.unravel(idx, shape)


def const_matrix(matrix: Any, name: str = "const_matrix") -> Any:
    """A tensor of the elements of a small two-dimensional array, chosen by comparisons."""
    rows, columns = matrix.shape
    dtype = str(matrix.dtype)

    def element(i: Any, j: Any) -> Any:
        out: Any = E.const(0, dtype)
        for r in range(rows):
            for c in range(columns):
                hit = E.land(E.binary(E.EQ, i, r), E.binary(E.EQ, j, c))
                out = E.select(hit, E.const(matrix[r][c].item(), dtype), out)
        return out

    return te.compute((rows, columns), element, name=name, attrs={"const_matrix": True})


def get_max_power2_factor(n: int, max_value: int | None = None) -> int:
    """The largest power of two that divides `n` (and is at most max_value)."""
    out = 1
    while n % 2 == 0 and (max_value is None or out * 2 <= max_value):
        out, n = out * 2, n // 2
    return out


def traverse_inline(s: Any, final_op: Any, callback: Callable[[Any], None]) -> None:
    """Visits operations from `final_op` to its inputs: injective ones but the last are inlined, all are handed on."""
    seen: set[Any] = set()
    stack = [final_op]
    while stack:
        op = stack.pop()
        if op in seen:
            continue
        seen.add(op)
        if tag.is_injective(tag.of(op)):
            if op not in s.outputs:
                s[op].compute_inline()
            stack.extend(t.op for t in reversed(op.input_tensors) if getattr(t.op, "input_tensors", []))
        callback(op)
