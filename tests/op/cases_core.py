"""Cases of elementwise, broadcasting, reducing, shaping and creating operators: (operator, attributes, operands)."""

from __future__ import annotations

import numpy as np
from cases_nn import Case, positive, real, whole

from warpbeam.ir import dtype as dt

FLOATS = ("float32", "float16", "float64")
X = real(3, 4, 5)
SPECIAL = np.array([0.0, -0.0, 1.5, -2.5, 0.5, 2.5, np.inf, -np.inf, np.nan, 1e30, -1e30], np.float32)
INTS = np.array([0, 1, -1, 2, -7, 100, np.iinfo(np.int32).max, np.iinfo(np.int32).min], np.int32)
BOOLS = np.array([[True, False, True], [False, False, True]])


def _unary() -> list[Case]:
    plain = ("sin", "cos", "tan", "atan", "sinh", "cosh", "tanh", "asinh", "exp", "erf", "sigmoid", "nn.relu")
    out: list[Case] = [
        (name, {}, (x,)) for name in plain for x in (X, real(7, dtype=np.float16), real(2, 3, dtype="f8"))
    ]
    out += [(name, {}, (np.tanh(real(4, 5)),)) for name in ("asin", "acos", "atanh")]
    out += [(name, {}, (positive(4, 5),)) for name in ("log", "log2", "log10", "sqrt", "rsqrt")]
    out += [("acosh", {}, (positive(4, 5) + 1,))]
    kept = ("abs", "negative", "sign", "ceil", "floor", "trunc", "round", "isnan", "isinf", "isfinite", "nn.relu")
    out += [(name, {}, (SPECIAL,)) for name in kept]
    out += [(name, {}, (SPECIAL[:9].astype(np.float16),)) for name in kept]
    out += [(name, {}, (INTS,)) for name in ("abs", "negative", "sign", "bitwise_not", "copy", "nn.relu")]
    out += [(name, {}, (whole(0, 250, 9, dtype=np.uint8),)) for name in ("abs", "sign", "bitwise_not")]
    out += [(name, {}, (x,)) for name in ("copy", "zeros_like", "ones_like") for x in (X, BOOLS, np.array(3.0))]
    out += [("logical_not", {}, (BOOLS,)), ("exp", {}, (np.array(0.5, np.float32),))]
    return out


def _cast() -> list[Case]:
    wide = np.array([0, 1, -1, 300, -300, 70000, 2**40, -(2**40)], np.int64)
    out: list[Case] = [
        ("cast", {"dtype": t}, (SPECIAL,)) for t in ("int32", "int64", "int8", "uint8", "bool", "float64")
    ]
    out += [("cast", {"dtype": t}, (wide,)) for t in ("int32", "uint8", "int16", "float32", "bool", "float16")]
    out += [("cast", {"dtype": t}, (BOOLS,)) for t in ("float32", "int64", "uint8")]
    out += [("cast", {"dtype": "bfloat16"}, (X,)), ("cast", {"dtype": "float32"}, (X.astype(dt.to_numpy("bfloat16")),))]
    out += [
        ("reinterpret", {"dtype": "int32"}, (X,)),
        ("reinterpret", {"dtype": "float16"}, (whole(0, 99, 4, dtype="u2"),)),
    ]
    out += [("clip", {"a_min": -0.5, "a_max": 0.5}, (v,)) for v in (X, SPECIAL, real(4, dtype=np.float16))]
    out += [("clip", {"a_min": -3, "a_max": 1000}, (v,)) for v in (INTS, whole(0, 100, 4, dtype=np.int8))]
    return out


def _binary() -> list[Case]:
    a, b = real(3, 1, 5), real(4, 1)
    out: list[Case] = []
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "floor_divide", "floor_mod", "mod"):
        out += [(name, {}, (a, b)), (name, {}, (a.astype(np.float16), b.astype(np.float16) + np.float16(3)))]
        out += [(name, {}, (SPECIAL[:, None], SPECIAL))] if name in ("maximum", "minimum", "add") else []
    some = np.array([3, -3, 0, 1, -1, 7], np.int32)
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "floor_divide", "floor_mod", "mod"):
        out += [(name, {}, (INTS[:, None], some))]
    out += [(name, {}, (INTS[:, None], some)) for name in ("trunc_divide", "trunc_mod")]
    out += [("power", {}, (positive(3, 4), real(3, 4))), ("power", {}, (positive(4, dtype="f2"), real(4, dtype="f2")))]
    out += [("power", {}, (some[:, None], np.array([0, 1, 2, 3, 11, -1, -2], np.int32)))]
    out += [("power", {}, (whole(0, 9, 3, 1, dtype=np.uint8), whole(0, 9, 4, dtype=np.uint8)))]
    names = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
    out += [(name, {}, (SPECIAL[:, None], SPECIAL)) for name in names] + [
        (name, {}, (INTS, INTS[::-1])) for name in names
    ]
    out += [
        (name, {}, (BOOLS, BOOLS[:1])) for name in ("logical_and", "logical_or", "logical_xor", "equal", "not_equal")
    ]
    bits = (whole(0, 250, 6, dtype=np.uint8), whole(0, 250, 2, 1, dtype=np.uint8))
    out += [(name, {}, bits) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")]
    out += [(name, {}, (INTS, INTS[::-1])) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")]
    shifts = (INTS[:, None], np.array([0, 1, 31, 32, 200, -1], np.int32))
    out += [(name, {}, shifts) for name in ("left_shift", "right_shift")]
    out += [("right_shift", {}, (whole(0, 250, 6, dtype=np.uint8), np.array([1, 2, 0, 7, 8, 9], np.uint8)))]
    out += [
        ("where", {}, (BOOLS, real(2, 3), real(3))),
        ("where", {}, (BOOLS[0], INTS[:1], whole(0, 9, 2, 3, dtype="i4"))),
    ]
    return out


def _reduce() -> list[Case]:
    out: list[Case] = []
    axes = ({}, {"axis": 1}, {"axis": (0, -1), "keepdims": True}, {"axis": (1,), "exclude": True})
    for name in ("sum", "prod", "max", "min", "mean", "argmax", "argmin"):
        out += [(name, attrs, (X,)) for attrs in axes]
        out += [
            (name, {"axis": 0}, (whole(-9, 9, 4, 3, dtype=np.int32),)),
            (name, {"axis": 1}, (real(3, 40, dtype="f2"),)),
        ]
    out += [(name, attrs, (X,)) for name in ("logsumexp", "variance") for attrs in axes]
    out += [("variance", {"axis": 1, "unbiased": True}, (X,)), ("variance", {"axis": 0}, (real(9, 2, dtype="f2"),))]
    out += [("logsumexp", {"axis": 0}, (np.array([[-np.inf, 1e4], [-np.inf, 1e4]], np.float32),))]
    out += [
        (name, attrs, (BOOLS,)) for name in ("all", "any") for attrs in ({}, {"axis": 0}, {"axis": 1, "keepdims": True})
    ]
    ties = np.array([[1, 3, 3, 0], [np.nan, 2, np.nan, 2], [-np.inf] * 4], np.float32)
    for name in ("argmax", "argmin"):
        out += [(name, {"axis": 1, "select_last_index": last}, (ties,)) for last in (False, True)]
        out += [(name, {"axis": (0, 1)}, (ties[:1],)), (name, {"axis": 0}, (np.zeros((3, 2), np.uint8),))]
    out += [(name, {"axis": 1}, (np.zeros((2, 0, 3), np.float32),)) for name in ("sum", "prod", "max", "min")]
    out += [("max", {"axis": 0}, (np.array([[1, np.nan], [2, 0]], np.float32),)), ("sum", {"axis": ()}, (X,))]
    return out


def _shape() -> list[Case]:
    shapes = ((60,), (12, 5), (3, 20), (5, 4, 3), (3, 2, 2, 5), (1, 60, 1), (4, 3, 5), (2, -1), (-1,))
    out: list[Case] = [("reshape", {"newshape": s}, (X,)) for s in shapes]
    out += [("reshape", {"newshape": ()}, (real(1, 1),)), ("reshape", {"newshape": (0, 7)}, (real(3, 0),))]
    out += [("reshape", {"newshape": (2, 3, 1)}, (BOOLS,)), ("reshape", {"newshape": (6, 4)}, (real(4, 6),))]
    out += [("transpose", {"axes": a}, (X,)) for a in (None, (1, 0, 2), (2, 0, 1), (0, -1, 1))]
    out += [("expand_dims", {"axis": a, "num_newaxis": n}, (X,)) for a, n in ((0, 1), (-1, 2), (1, 3))]
    out += [("squeeze", {"axis": a}, (real(1, 3, 1),)) for a in (None, (0,), (-1,), (0, 2))]
    out += [("broadcast_to", {"shape": (2, 3, 4, 5)}, (v,)) for v in (X, real(4, 1), real(1), np.array(2.0))]
    out += [("assume_shape", {"shape": (3, 4, 5)}, (X,))]
    out += [("spread", {"shape": (3, 4, 5)}, (v,)) for v in (X, real(3, 1, 5), real(1, 4, 1))]
    out += [("tile", {"reps": r}, (X,)) for r in ((2,), (1, 2, 3), (2, 1, 1, 2), (1, 0, 1))]
    out += [("repeat", {"repeats": 3, "axis": a}, (X,)) for a in (None, 0, -1)]
    out += [("reverse", {"axis": a}, (X,)) for a in (0, -1, (0, 2))]
    return out


def _join() -> list[Case]:
    out: list[Case] = [("concatenate", {"axis": a}, (X, X + 1, X * 2)) for a in (0, 1, -1)]
    out += [("concatenate", {"axis": 1}, (real(2, 3), real(2, 0), real(2, 1))), ("concatenate", {}, (INTS,))]
    out += [("stack", {"axis": a}, (X, X + 1, X * 2)) for a in (0, 2, -1)]
    many = tuple(real(2, k % 3) for k in range(19))
    out += [("concatenate", {"axis": 1}, many), ("stack", {"axis": 1}, tuple(real(3) for _ in range(19)))]
    out += [("split", {"indices_or_sections": k, "axis": a}, (X,)) for k, a in ((3, 0), ((1, 3), 1), ((0, 2, 2), -1))]
    every = (
        ((1,), (3,), None, None),
        ((0, 1, 4), (3, 3, 0), (1, 1, -2), None),
        ((-2,), (2**62,), None, (2,)),
        ((2**62,), (-(2**62),), (-1,), (1,)),
        ((-1, 9), (-9, -1), (-2, -3), (2, 0)),
        ((3,), (1,), None, (1,)),
    )
    for begin, end, strides, axes in every:
        out += [("strided_slice", {"begin": begin, "end": end, "strides": strides, "axes": axes}, (X,))]
    for mode in ("DCR", "CRD"):
        for layout, shape in (("NCHW", (2, 8, 3, 2)), ("NHWC", (2, 3, 2, 8))):
            out += [("nn.depth_to_space", {"block_size": 2, "mode": mode, "layout": layout}, (real(*shape),))]
        for layout, shape in (("NCHW", (2, 3, 4, 6)), ("NHWC", (2, 4, 6, 3))):
            out += [("nn.space_to_depth", {"block_size": 2, "mode": mode, "layout": layout}, (real(*shape),))]
    return out


def _create() -> list[Case]:
    out: list[Case] = [
        ("full", {"shape": s, "dtype": t}, (np.array(3, np.int32),)) for s in ((2, 3), ()) for t in (None, "float32")
    ]
    out += [
        (name, {"shape": (2, 3), "dtype": t}, ()) for name in ("zeros", "ones") for t in ("float16", "int64", "bool")
    ]
    out += [
        ("arange", {"start": a, "stop": b, "step": s}, ()) for a, b, s in ((0, 5, 1), (9, 2, -2), (3, 3, 1), (1, 8, 3))
    ]
    out += [("arange", {"start": 0.5, "stop": 3, "step": 0.25, "dtype": "float32"}, ())]
    out += [
        ("shape_tensor", {"values": (3, 4, 5)}, ()),
        ("shape_tensor", {"values": (7,), "shape": (), "dtype": "int32"}, ()),
    ]
    return out


CASES: list[Case] = _unary() + _cast() + _binary() + _reduce() + _shape() + _join() + _create()
