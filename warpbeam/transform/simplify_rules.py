"""Rules of SimplifyExpr by root operator. Each is a function from a call to its replacement or None; its first line
states the identity. A result whose type differs (broadcasting, dtype) is refused by the engine; rules need not check.

Floating point: identities that hold for all finite values are used; signed zeros and NaN payloads are not preserved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.relay.expr import Constant, Expr, Tuple, TupleGetItem, const
from warpbeam.relay.types import TensorType
from warpbeam.transform.fold_constant import fold_node
from warpbeam.transform.graph import call, constant, op_name, same_call, splat

Rule = Callable[[Any], Expr | None]
RULES: dict[str, list[Rule]] = {}


def on(*names: str) -> Callable[[Rule], Rule]:
    """Enters a rule into the table under its root operators."""

    def enter(fn: Rule) -> Rule:
        for name in names:
            RULES.setdefault(name, []).append(fn)
        return fn

    return enter


def _like(value: float, other: Expr) -> Constant:
    return const(value, other.ty.dtype)


def _is_float(node: Any) -> bool:
    return isinstance(node.ty, TensorType) and dt.is_float(node.ty.dtype)


# ----------------------------------------------------------------------------------------------------- neutral elements


@on("add")
def add_zero(n: Any) -> Expr | None:
    """x + 0 = 0 + x = x"""
    a, b = n.args
    return a if splat(b) == 0 else b if splat(a) == 0 else None


@on("subtract")
def subtract_zero(n: Any) -> Expr | None:
    """x - 0 = x"""
    return n.args[0] if splat(n.args[1]) == 0 else None


@on("multiply")
def multiply_one(n: Any) -> Expr | None:
    """x * 1 = 1 * x = x"""
    a, b = n.args
    return a if splat(b) == 1 else b if splat(a) == 1 else None


@on("divide", "floor_divide", "trunc_divide")
def divide_one(n: Any) -> Expr | None:
    """x / 1 = x"""
    a, b = n.args
    whole = n.op.name == "divide" or not _is_float(a)
    return a if whole and splat(b) == 1 else None


@on("multiply")
def multiply_zero(n: Any) -> Expr | None:
    """x * 0 = 0 for integers"""
    a, b = n.args
    if _is_float(n):
        return None
    return a if splat(a) == 0 else b if splat(b) == 0 else None


@on("logical_and", "logical_or")
def logical_neutral(n: Any) -> Expr | None:
    """x and true = x; x or false = x; x and x = x"""
    a, b = n.args
    neutral = n.op.name == "logical_and"
    if a is b or splat(b) is neutral:
        return a  # type: ignore[no-any-return]
    return b if splat(a) is neutral else None


@on("maximum", "minimum", "bitwise_and", "bitwise_or")
def idempotent(n: Any) -> Expr | None:
    """max(x, x) = x"""
    return n.args[0] if n.args[0] is n.args[1] else None


@on("where")
def where_decided(n: Any) -> Expr | None:
    """where(true, a, b) = a; where(c, a, a) = a"""
    c, a, b = n.args
    known = splat(c)
    return a if a is b or known is True else b if known is False else None


@on("copy", "identity", "nn.dropout")
def identity(n: Any) -> Expr | None:
    """copy(x) = x"""
    return n.args[0]  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------------------------------- cheaper forms


@on("divide")
def divide_power_of_two(n: Any) -> Expr | None:
    """x / c = x * (1/c), exact where c is a power of two"""
    a, b = n.args
    if not isinstance(b, Constant) or not _is_float(b):
        return None
    array = b.numpy()
    with np.errstate(all="ignore"):
        mantissa, exponent = np.frexp(array.astype(np.float64))
        inverse = (1 / array.astype(np.float64)).astype(array.dtype)
        exact = np.isfinite(inverse.astype(np.float64)).all() and (np.abs(mantissa) == 0.5).all()
    if not exact or (np.abs(exponent) > 100).any() or (inverse == 0).any():
        return None
    return call("multiply", a, constant(inverse))


@on("power")
def power_small(n: Any) -> Expr | None:
    """x^1 = x; x^2 = x*x; x^3 = x*x*x; x^0.5 = sqrt(x); x^-0.5 = rsqrt(x); x^-1 = 1/x"""
    x, e = n.args[0], splat(n.args[1])
    if e is None or x.ty is not n.ty:
        return None
    if e == 1:
        return x  # type: ignore[no-any-return]
    if e in (2, 3):
        square = call("multiply", x, x)
        return square if e == 2 else call("multiply", square, x)
    if not _is_float(x):
        return None
    if e in (0.5, -0.5):
        return call("sqrt" if e > 0 else "rsqrt", x)
    return call("divide", _like(1.0, x), x) if e == -1 else None


@on("divide")
def divide_by_sqrt_constant(n: Any) -> Expr | None:
    """1 / sqrt(x) = rsqrt(x)"""
    a, b = n.args
    return call("rsqrt", b.args[0]) if splat(a) == 1 and op_name(b) == "sqrt" else None


@on("subtract")
def subtract_negative(n: Any) -> Expr | None:
    """x - (-y) = x + y"""
    a, b = n.args
    return call("add", a, b.args[0]) if op_name(b) == "negative" else None


@on("add")
def add_negative(n: Any) -> Expr | None:
    """x + (-y) = x - y"""
    a, b = n.args
    if op_name(b) == "negative":
        return call("subtract", a, b.args[0])
    return call("subtract", b, a.args[0]) if op_name(a) == "negative" else None


@on("add", "multiply")
def reassociate_integers(n: Any) -> Expr | None:
    """(x + c) + d = x + (c + d) for integers"""
    a, d = n.args
    if _is_float(n) or not isinstance(d, Constant) or op_name(a) != n.op.name or not isinstance(a.args[1], Constant):
        return None
    both = same_call(n, a.args[1], d)
    return same_call(n, a.args[0], fold_node(both) or both)


@on("add", "multiply")
def constant_right(n: Any) -> Expr | None:
    """c + x = x + c"""
    a, b = n.args
    return same_call(n, b, a) if isinstance(a, Constant) and not isinstance(b, Constant) else None


# ---------------------------------------------------------------------------------------------------------- involutions


@on("negative", "logical_not", "bitwise_not", "reverse")
def involution(n: Any) -> Expr | None:
    """-(-x) = x"""
    inner = n.args[0]
    return inner.args[0] if op_name(inner) == n.op.name and inner.attrs == n.attrs else None


@on("abs", "nn.relu", "ceil", "floor", "round", "trunc", "sign")
def projection(n: Any) -> Expr | None:
    """f(f(x)) = f(x)"""
    return n.args[0] if op_name(n.args[0]) == n.op.name else None


@on("clip")
def clip_clip(n: Any) -> Expr | None:
    """clip(clip(x, a, b), c, d) = clip(x, max(a, c), min(b, d)) where the intervals meet"""
    inner = n.args[0]
    if op_name(inner) != "clip":
        return None
    bounds = [(m.attrs["a_min"], m.attrs["a_max"]) for m in (inner, n)]
    if any(v is None for pair in bounds for v in pair):
        return None
    low, high = max(b[0] for b in bounds), min(b[1] for b in bounds)
    return same_call(n, inner.args[0], a_min=low, a_max=high) if low <= high else None


@on("nn.relu")
def relu_of_positive(n: Any) -> Expr | None:
    """relu(f(x)) = f(x) where f >= 0"""
    inner = n.args[0]
    positive = ("abs", "exp", "sigmoid", "sqrt", "nn.softmax")
    if op_name(inner) in positive or (op_name(inner) == "clip" and (inner.attrs["a_min"] or -1) >= 0):
        return inner  # type: ignore[no-any-return]
    return None


# ---------------------------------------------------------------------------------------------------------------- casts


def lossless(source: str, target: str) -> bool:
    """Whether every value of `source` has an equal one in `target`."""
    if source == target:
        return True
    if "string" in (source, target):
        return False
    if dt.is_float(source):
        if not dt.is_float(target):
            return False
        a, b = _finfo(source), _finfo(target)
        return a[0] <= b[0] and a[1] <= b[1]
    low, high = dt.int_range(source)
    if dt.is_float(target):
        return max(-low, high) <= 1 << (_finfo(target)[0] + 1)
    wide = dt.int_range(target)
    return not dt.is_bool(target) and wide[0] <= low and high <= wide[1]


def _finfo(dtype: str) -> tuple[int, int]:
    """(mantissa bits without the leading one, exponent bits)"""
    known = {"float16": (10, 5), "bfloat16": (7, 8), "float32": (23, 8), "float64": (52, 11)}
    return known.get(dtype, (1, 1))


@on("cast")
def cast_same(n: Any) -> Expr | None:
    """cast(x) to its own dtype = x"""
    return n.args[0] if n.args[0].ty is n.ty else None


@on("cast")
def cast_cast(n: Any) -> Expr | None:
    """cast(cast(x: A -> B) -> C) = cast(x -> C) where B holds all of A"""
    inner = n.args[0]
    if op_name(inner) != "cast" or not lossless(inner.args[0].ty.dtype, inner.ty.dtype):
        return None
    return same_call(n, inner.args[0])


# ------------------------------------------------------------------------------------------------------ moving elements


VIEWS = ("reshape", "expand_dims", "squeeze", "nn.batch_flatten")


@on(*VIEWS)
def view_same(n: Any) -> Expr | None:
    """reshape(x) to its own shape = x"""
    return n.args[0] if n.args[0].ty is n.ty else None


@on(*VIEWS)
def view_view(n: Any) -> Expr | None:
    """reshape(reshape(x)) = reshape(x)"""
    inner = n.args[0]
    return call("reshape", inner.args[0], newshape=n.ty.shape) if op_name(inner) in VIEWS else None


def axes_of(n: Any) -> tuple[int, ...]:
    """The axes of a transpose call, never None, never negative."""
    ndim = n.ty.ndim
    given = n.attrs["axes"]
    return tuple(reversed(range(ndim))) if given is None else tuple(a % ndim for a in given)


@on("transpose")
def transpose_identity(n: Any) -> Expr | None:
    """transpose(x, (0, 1, …)) = x"""
    return n.args[0] if axes_of(n) == tuple(range(n.ty.ndim)) else None


@on("transpose")
def transpose_transpose(n: Any) -> Expr | None:
    """transpose(transpose(x, p), q) = transpose(x, p[q])"""
    inner = n.args[0]
    if op_name(inner) != "transpose":
        return None
    p = axes_of(inner)
    return same_call(n, inner.args[0], axes=tuple(p[a] for a in axes_of(n)))


@on("transpose")
def transpose_of_units(n: Any) -> Expr | None:
    """transpose(x) = reshape(x) where only dimensions of 1 change their order"""
    shape = n.args[0].ty.shape
    order = [a for a in axes_of(n) if not (isinstance(shape[a], int) and shape[a] == 1)]
    return call("reshape", n.args[0], newshape=n.ty.shape) if order == sorted(order) else None


@on("broadcast_to", "tile", "repeat", "strided_slice", "nn.pad")
def whole(n: Any) -> Expr | None:
    """broadcast, tile, slice or pad that changes nothing = x"""
    x = n.args[0]
    if x.ty is not n.ty:
        return None
    if n.op.name == "strided_slice" and any(s < 0 for s in n.attrs["strides"] or () if isinstance(s, int)):
        return None
    if n.op.name == "nn.pad" and any(v != 0 for pair in n.attrs["pad_width"] for v in pair):
        return None
    if n.op.name == "strided_slice" and not x.ty.is_static:
        return None
    return x  # type: ignore[no-any-return]


@on("take")
def take_one(n: Any) -> Expr | None:
    """take(x, i, axis) = x[…, i:i+1, …] without the axis, for a constant scalar i"""
    x, i = n.args
    axis, index = n.attrs["axis"], splat(i)
    if axis is None or index is None or i.numpy().ndim or n.attrs["batch_dims"]:
        return None
    size = x.ty.shape[axis]
    if not isinstance(size, int) or not -size <= index < size:
        return None
    axis, index = axis % x.ty.ndim, int(index) % size
    part = call("strided_slice", x, begin=(index,), end=(index + 1,), axes=(axis,))
    return call("reshape", part, newshape=n.ty.shape)


@on("strided_slice")
def slice_of_transpose(n: Any) -> Expr | None:
    """transpose(x, p)[slice] = transpose(x[slice'], p): slices move towards what they cut"""
    inner = n.args[0]
    if op_name(inner) != "transpose":
        return None
    p = axes_of(inner)
    given = n.attrs["axes"]
    axes = range(len(n.attrs["begin"])) if given is None else (a % len(p) for a in given)
    return same_call(inner, same_call(n, inner.args[0], axes=tuple(p[a] for a in axes)))


@on("broadcast_to")
def broadcast_broadcast(n: Any) -> Expr | None:
    """broadcast_to(broadcast_to(x, s), t) = broadcast_to(x, t)"""
    inner = n.args[0]
    return same_call(n, inner.args[0]) if op_name(inner) == "broadcast_to" else None


_BROADCASTING = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "where", "equal", "less",
                 "greater", "less_equal", "greater_equal", "not_equal", "logical_and", "logical_or")  # fmt: skip


@on(*_BROADCASTING)
def broadcast_operand(n: Any) -> Expr | None:
    """f(broadcast_to(x), y) = f(x, y) where the result keeps its shape"""
    for i, a in enumerate(n.args):
        if op_name(a) == "broadcast_to":
            new = same_call(n, *n.args[:i], a.args[0], *n.args[i + 1 :])
            if new.ty is n.ty:
                return new
    return None


@on("concatenate")
def concatenate_flat(n: Any) -> Expr | None:
    """concatenate(x) = x; concatenate(concatenate(a, b), c) = concatenate(a, b, c)"""
    if len(n.args) == 1:
        return n.args[0]  # type: ignore[no-any-return]
    flat: list[Expr] = []
    for a in n.args:
        flat += a.args if op_name(a) == "concatenate" and a.attrs == n.attrs else [a]
    return same_call(n, *flat) if len(flat) > len(n.args) else None


@on("concatenate")
def concatenate_split(n: Any) -> Expr | None:
    """concatenate(all parts of split(x)) = x"""
    if not all(isinstance(a, TupleGetItem) for a in n.args):
        return None
    whole_ = n.args[0].tuple_value
    same = all(a.tuple_value is whole_ and a.index == i for i, a in enumerate(n.args))
    if not same or op_name(whole_) != "split" or len(n.args) != len(whole_.ty.fields):
        return None
    x = whole_.args[0]
    return x if whole_.attrs["axis"] % x.ty.ndim == n.attrs["axis"] % x.ty.ndim else None


@on("split")
def split_one(n: Any) -> Expr | None:
    """split(x, 1) = (x,)"""
    return Tuple((n.args[0],)) if len(n.ty.fields) == 1 else None


@on("sum", "mean", "max", "min", "prod")
def reduce_units(n: Any) -> Expr | None:
    """A reduction over axes of 1 = reshape(x)"""
    x = n.args[0]
    same = math.prod(d for d in x.ty.shape if isinstance(d, int)), [d for d in x.ty.shape if not isinstance(d, int)]
    out = math.prod(d for d in n.ty.shape if isinstance(d, int)), [d for d in n.ty.shape if not isinstance(d, int)]
    if same[0] != out[0] or len(same[1]) != len(out[1]) or x.ty.dtype != n.ty.dtype or same[0] == 0:
        return None
    if any(a is not b for a, b in zip(same[1], out[1], strict=True)):
        return None
    return call("reshape", x, newshape=n.ty.shape)
