"""The intrinsics that a `Call` may name: arity, meaning in NumPy, effects. Interpreters and printers read this table.

Meaning: floating functions are computed in float64 and rounded once to the dtype (float64 itself: NumPy's result), so
they are the reference that expansions in generated code are compared with; ulp bounds stand where those are defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.tir.fused import fma

Values = list[Any]
Meaning = Callable[[Values, str], Any]


class OpName(str):
    """The name of a call's intrinsic: a string that also answers as the classic operator does (`call.op.name`)."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The public name: "tir.exp"."""
        return f"tir.{self}"

    def same_as(self, other: Any) -> bool:
        """Whether both name one intrinsic."""
        return isinstance(other, str) and self == other.removeprefix("tir.")


_OP_NAMES: dict[str, OpName] = {}


def op_name(name: str) -> OpName:
    """The name as an OpName; one object per name."""
    found = _OP_NAMES.get(name)
    if found is None:
        found = _OP_NAMES[name] = OpName(name)
    return found


class CallEffectKind:
    """What a call may do to the world; the classic table of kinds, for `register_op_attr`."""

    ExprAnnotation, Pure, ReadState, UpdateState = 0, 1, 2, 3
    Opaque = UpdateState
    SpecialCallArg, EmbedInfo, ControlJump = 4, 5, 6


@dataclass(frozen=True, slots=True)
class Intrin:
    """One intrinsic.

    arity: number of operands, -1 for any. effect: "pure", or "effect" where a call must stay in place and order.
    numpy: fn(values, result dtype) -> value; None where a program that uses it cannot be interpreted.
    lazy: operands are evaluated on demand (if_then_else).
    result: "same" dtype as the first operand, "bool", or "any" (the call's own dtype says).
    across: lanes meet other lanes, so that the meaning needs every operand with its lanes written out.
    """

    name: str
    arity: int
    doc: str
    numpy: Meaning | None
    effect: str = "pure"
    lazy: bool = False
    result: str = "same"
    across: bool = False


def _wide(fn: Callable[..., Any]) -> Meaning:
    """fn in float64, rounded once to the dtype."""

    def meaning(values: Values, dtype: str) -> Any:
        return fn(*[np.asarray(v).astype(np.float64) for v in values]).astype(dt.to_numpy(dtype))

    return meaning


def _own(fn: Callable[..., Any]) -> Meaning:
    """fn in the operands' dtype."""
    return lambda values, dtype: np.asarray(fn(*values)).astype(dt.to_numpy(dtype), copy=False)


_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Any) -> Any:
    """Error function in float64."""
    return np.asarray(_erf(np.asarray(x, np.float64))).astype(np.float64)


def _sigmoid(x: Any) -> Any:
    z = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + z), z / (1.0 + z))


def _pow(values: Values, dtype: str) -> Any:
    x, y = values
    if dt.is_float(dtype):
        return _wide(np.power)(values, dtype)
    kind = dt.to_numpy(dtype)
    x, y = np.asarray(x), np.asarray(y)
    out = np.power(x, np.maximum(y, 0))
    if not dt.is_unsigned(dtype):  # a negative exponent truncates the fraction: only 1 and -1 are left
        small = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0)).astype(kind)
        out = np.where(y < 0, small, out)
    return out.astype(kind, copy=False)


def _shift(left: bool) -> Meaning:
    def meaning(values: Values, dtype: str) -> Any:
        x, by = (np.asarray(v) for v in values)
        width = dt.bits(dtype)
        out_of_range = (by < 0) | (by >= width)
        amount = np.where(out_of_range, 0, by).astype(x.dtype)
        out = np.left_shift(x, amount) if left else np.right_shift(x, amount)
        rest = np.zeros_like(x) if left else np.where(x < 0, -1, 0).astype(x.dtype)
        return np.where(out_of_range, rest, out).astype(x.dtype)

    return meaning


_BITS = np.array([bin(k).count("1") for k in range(256)], np.uint8)


def _popcount(values: Values, dtype: str) -> Any:
    x = np.asarray(values[0], order="C")
    raw = x.reshape(-1).view(np.uint8).reshape(*x.shape, x.dtype.itemsize)
    return _BITS[raw].sum(-1).astype(dt.to_numpy(dtype))


def _clz(values: Values, dtype: str) -> Any:
    width = dt.bits(dtype)
    x = np.asarray(values[0]).astype(np.uint64) & np.uint64((1 << width) - 1)
    out = np.full(x.shape, width)
    for k in range(width):
        out = np.where((x >> np.uint64(k)) & np.uint64(1) == 1, width - 1 - k, out)
    return out.astype(dt.to_numpy(dtype))


def _reinterpret(values: Values, dtype: str) -> Any:
    x, kind = np.asarray(values[0], order="C"), dt.to_numpy(dtype)
    if x.ndim == 0:
        return x.reshape(1).view(kind)[0] if x.dtype.itemsize == kind.itemsize else x.reshape(1).view(kind)
    return x.view(kind)


def _reduce(fn: Callable[[Any, Any], Any]) -> Meaning:
    """Lanes (the last axis) combined by halving; those above the largest power of two join the first ones before."""

    def meaning(values: Values, dtype: str) -> Any:
        x = np.asarray(values[0])
        count = x.shape[-1]
        half = 1 << (count.bit_length() - 1)
        if half < count:
            rest = count - half
            x = np.concatenate([fn(x[..., :rest], x[..., half:]), x[..., rest:half]], axis=-1)
        while half > 1:
            half //= 2
            x = fn(x[..., :half], x[..., half:])
        return x

    return meaning


def _dot(group: int) -> Meaning:
    """Neighbours of `group` lanes multiplied and added to one lane, the last first; floats by fma, integers wrap."""

    def meaning(values: Values, dtype: str) -> Any:
        acc, kind = np.asarray(values[0]), dt.to_numpy(dtype)
        a, b = (np.asarray(v).reshape(*np.shape(v)[:-1], -1, group) for v in values[1:])
        for j in reversed(range(group)):  # as vdpbf16ps does
            if dt.is_float(dtype):
                acc = fma([a[..., j].astype(kind), b[..., j].astype(kind), acc], dtype)
            else:
                acc = acc + a[..., j].astype(kind) * b[..., j].astype(kind)
        return acc

    return meaning


def _to_bfloat16(values: Values, dtype: str) -> Any:
    x = np.asarray(values[0])
    return np.where(np.abs(x) < 2.0**-126, x * 0, x).astype(dt.to_numpy(dtype))  # as vcvtneps2bf16 does


def _add_pairs(values: Values, dtype: str) -> Any:
    acc, x = np.asarray(values[0]), np.asarray(values[1]).astype(dt.to_numpy(dtype))
    return acc + (x[..., ::2] + x[..., 1::2])


def _ldexp(values: Values, dtype: str) -> Any:
    x, by = np.asarray(values[0]).astype(np.float64), np.asarray(values[1])
    return np.ldexp(x, np.clip(by, -5000, 5000).astype(np.int32)).astype(dt.to_numpy(dtype))


def _lookup(values: Values, dtype: str) -> Any:
    index, *numbers = values
    return np.asarray(numbers).astype(dt.to_numpy(dtype))[np.asarray(index) & (len(numbers) - 1)]


def _scale2(values: Values, dtype: str) -> Any:
    x, n = (np.asarray(v).astype(np.float64) for v in values)
    whole = np.isfinite(n)
    value = np.ldexp(x, np.floor(np.where(whole, n, 0)).astype(np.int32))
    return np.where(whole, value, x * np.exp2(n)).astype(dt.to_numpy(dtype))


def _sign(x: Any) -> Any:
    return np.sign(x)


def _table() -> dict[str, Intrin]:
    rows: list[Intrin] = []

    def add(name: str, arity: int, numpy: Meaning | None, doc: str, **kw: Any) -> None:
        rows.append(Intrin(name, arity, doc, numpy, **kw))

    for name, fn, doc in _UNARY:
        add(name, 1, _wide(fn), doc)
    for name, fn, doc in _EXACT_UNARY:
        add(name, 1, _own(fn), doc)
    for name, fn, doc in _TESTS:
        add(name, 1, _own(fn), doc, result="bool")
    for name, fn, doc in _BINARY:
        add(name, 2, fn, doc)
    for name, fn, doc in _LANES:
        add(name, 1, _reduce(fn), doc, result="any", across=True)
    for row in _OTHERS:
        rows.append(row)
    return {r.name: r for r in rows}


_UNARY: list[tuple[str, Any, str]] = [
    ("exp", np.exp, "e**x; attrs most: what x is known not to exceed; rounded: whether it is a rounded difference"),
    ("exp2", np.exp2, "2**x"),
    ("exp10", lambda x: np.power(10.0, x), "10**x"),
    ("expm1", np.expm1, "e**x - 1 without cancellation"),
    ("log", np.log, "natural logarithm; log(0) = -inf, log(x < 0) = NaN"),
    ("log2", np.log2, "logarithm to base 2"),
    ("log10", np.log10, "logarithm to base 10"),
    ("log1p", np.log1p, "log(1 + x) without cancellation"),
    ("sqrt", np.sqrt, "square root, correctly rounded; NaN below 0"),
    ("rsqrt", lambda x: 1.0 / np.sqrt(x), "1 / sqrt(x); inf at 0"),
    ("sin", np.sin, "sine of radians"),
    ("cos", np.cos, "cosine of radians"),
    ("tan", np.tan, "tangent of radians"),
    ("sinh", np.sinh, "hyperbolic sine"),
    ("cosh", np.cosh, "hyperbolic cosine"),
    ("tanh", np.tanh, "hyperbolic tangent"),
    ("asin", np.arcsin, "inverse sine; NaN outside [-1, 1]"),
    ("acos", np.arccos, "inverse cosine; NaN outside [-1, 1]"),
    ("atan", np.arctan, "inverse tangent"),
    ("asinh", np.arcsinh, "inverse hyperbolic sine"),
    ("acosh", np.arccosh, "inverse hyperbolic cosine; NaN below 1"),
    ("atanh", np.arctanh, "inverse hyperbolic tangent; NaN outside [-1, 1]"),
    ("sigmoid", _sigmoid, "1 / (1 + e**-x)"),
    ("erf", erf, "error function"),
]
_EXACT_UNARY: list[tuple[str, Any, str]] = [
    ("floor", np.floor, "largest whole number <= x"),
    ("ceil", np.ceil, "smallest whole number >= x"),
    ("round", np.rint, "nearest whole number, halves to even"),
    ("trunc", np.trunc, "whole number toward zero"),
    ("abs", np.abs, "magnitude; the least integer is its own"),
    ("sign", _sign, "-1, 0 or 1; NaN of NaN"),
    ("bitwise_not", np.invert, "all bits flipped; logical not of bools"),
]
_TESTS: list[tuple[str, Any, str]] = [
    ("isnan", np.isnan, "whether x is NaN"),
    ("isinf", np.isinf, "whether x is an infinity"),
    ("isfinite", np.isfinite, "whether x is neither NaN nor an infinity"),
]
_BINARY: list[tuple[str, Meaning, str]] = [
    ("pow", _pow, "x**y; integers wrap and a negative exponent truncates toward 0"),
    ("atan2", _wide(np.arctan2), "angle of the point (y, x)"),
    ("fmod", _own(np.fmod), "remainder with the sign of the dividend"),
    ("copysign", _own(np.copysign), "magnitude of x with the sign of y"),
    ("nextafter", _own(np.nextafter), "next representable value from x toward y"),
    ("ldexp", _ldexp, "x * 2**k for an integer k"),
    ("hypot", _wide(np.hypot), "sqrt(x*x + y*y) without overflow"),
    ("shift_left", _shift(True), "x << k; 0 for k outside [0, bits)"),
    ("shift_right", _shift(False), "x >> k, arithmetic for signed x; the sign (0 or -1) for k outside [0, bits)"),
    ("bitwise_and", _own(np.bitwise_and), "bits set in both"),
    ("bitwise_or", _own(np.bitwise_or), "bits set in either"),
    ("bitwise_xor", _own(np.bitwise_xor), "bits set in one"),
]
_LANES: list[tuple[str, Any, str]] = [
    ("vector_reduce_add", np.add, "sum of the lanes, by halving"),
    ("vector_reduce_mul", np.multiply, "product of the lanes, by halving"),
    ("vector_reduce_min", np.minimum, "least lane; NaN if one is; attrs numbers: none is"),
    ("vector_reduce_max", np.maximum, "largest lane; NaN if one is; attrs numbers: none is"),
    ("vector_reduce_and", np.logical_and, "whether all lanes are true"),
    ("vector_reduce_or", np.logical_or, "whether a lane is true"),
]
_OTHERS: list[Intrin] = [
    Intrin("fma", 3, "a*b + c rounded once (16-bit floats: to float32, and then again)", fma),
    Intrin("scale2", 2, "x * 2^floor(n) rounded once, for n within attrs low, high, 1/2 <= |x| < 2", _scale2),
    Intrin("lookup", 17, "v[i mod 16] of 16 numbers v; operands i, v[0], ..., v[15]", _lookup, result="any"),
    Intrin("popcount", 1, "number of bits set", _popcount),
    Intrin("clz", 1, "number of leading zero bits; the width for 0", _clz),
    Intrin("reinterpret", 1, "the same bits as another dtype of equal size", _reinterpret, result="any", across=True),
    Intrin("dot4", 3, "acc[i] + the sum of a[4*i+j] * b[4*i+j] over j < 4, as wide as acc", _dot(4), across=True),
    Intrin("dot2", 3, "acc[i] + the sum of a[2*i+j] * b[2*i+j] over j < 2, as wide as acc", _dot(2), across=True),
    Intrin("add_pairs", 2, "acc[i] + (v[2*i] + v[2*i+1]), as wide as acc", _add_pairs, across=True),
    Intrin(
        "to_bfloat16",
        1,
        "float32 as bfloat16, to nearest even; below the least normal number zero",
        _to_bfloat16,
        result="any",
    ),
    Intrin("likely", 1, "its operand; says that it is mostly true", lambda v, t: v[0]),
    Intrin("if_then_else", 3, "a where cond, else b; only the chosen side is evaluated", None, lazy=True, result="any"),
    Intrin("assume", 1, "nothing; its operand may be taken to be true", lambda v, t: v[0]),
    Intrin("prefetch", -1, "nothing to see: asks for an element's cache line", lambda v, t: np.int64(0), "effect"),
    Intrin("storage_sync", -1, "waits for all threads of a block; memory they wrote is seen after it", None, "effect"),
    Intrin("thread_allreduce", -1, "combines a value of each thread over some axes", None, "effect", result="any"),
    Intrin("warp_shuffle", 3, "x of lane k of each group of `width` threads of a warp", None, "effect"),
    Intrin(
        "warp_shuffle_down", 3, "x of the lane k further up in its group of `width`; its own beyond", None, "effect"
    ),
    Intrin("warp_shuffle_up", 3, "x of the lane k further down in its group of `width`; its own below", None, "effect"),
    Intrin("warp_shuffle_xor", 3, "x of the lane whose number differs in the bits of k", None, "effect"),
    Intrin(
        "launch_kernel", -1, "runs a device function: name, grid, block, its arguments", None, "effect", result="any"
    ),
    Intrin("address_of", 1, "where an element lies, as a pointer", None, "effect", result="any"),
    Intrin("call_extern", -1, "calls a function by name", None, "effect", result="any"),
    Intrin("call_packed", -1, "calls a registered Python function by name", None, "effect", result="any"),
    Intrin("call_pure_extern", -1, "calls a function by name that has no effect", None, result="any"),
    Intrin("access_ptr", 4, "a pointer into a buffer: buffer, first, count, 1 reads | 2 writes", None, "effect"),
    Intrin("call_llvm_intrin", -1, "calls a function of LLVM by name, in place", None, "effect", result="any"),
    Intrin("call_llvm_pure_intrin", -1, "calls a function of LLVM by name", None, result="any", across=True),
]

INTRINSICS: dict[str, Intrin] = _table()


def get(name: str) -> Intrin:
    """The intrinsic of that name; an error that lists similar names if there is none."""
    found = INTRINSICS.get(name)
    if found is None:
        import difflib

        near = ", ".join(difflib.get_close_matches(name, INTRINSICS)) or "see warpbeam/tir/intrin.py"
        raise IRError(f"unknown intrinsic {name!r}", hint=f"did you mean {near}; new ones go into the table there")
    return found


def is_pure(name: str) -> bool:
    """Whether calls may be moved, merged and dropped."""
    return get(name).effect == "pure"


def evaluate(name: str, values: Values, dtype: str) -> Any:
    """The value of a call on NumPy operands (lanes are the last axis), of NumPy dtype `dtype`."""
    row = get(name)
    if row.numpy is None:
        raise IRError(f"intrinsic {name} has no value of its own")
    return row.numpy(values, dtype)
