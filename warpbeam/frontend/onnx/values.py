"""Integer tensors whose content is known while importing: shapes, and arithmetic on them.

Each entry of TRACKED computes a node's results on object arrays of ints and expressions over symbolic sizes, or gives
None where they are not known. Floats take part while their values are whole numbers (sizes scaled by an integer).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.node import INTEGERS, NodeView
from warpbeam.frontend.onnx.tensors import elem_dtype
from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as E
from warpbeam.topi import dims
from warpbeam.topi.index import static_slice

LIMIT = 4096

Known = list[tuple[np.ndarray, str]]


def track(view: NodeView) -> Known | None:
    """Contents and dtypes of a node's outputs where they are known, else None."""
    fn = TRACKED.get(view.op_type) if view.domain in ("", "ai.onnx") else None
    if fn is None:
        return None
    if view.op_type in ("Shape", "Size"):
        return fn(view)  # type: ignore[no-any-return]
    contents: list[np.ndarray | None] = []
    for i, entry in enumerate(view.entries):
        found = None if entry is None else content(view, i)
        if entry is not None and (found is None or found.size > LIMIT):
            return None
        contents.append(found)
    if not contents:
        return None
    found = fn(view, *contents)
    if found is None:
        return None
    out = found if isinstance(found, list) else [found]
    dtype = _result_dtype(view)
    if any(o.size > LIMIT or not _fits(o, dtype) for o in out):
        return None
    return [(o, dtype) for o in out]


def content(view: NodeView, index: int) -> np.ndarray | None:
    """Known content of an operand; whole-numbered float constants count as known."""
    found = view.known(index)
    entry = view.entry(index)
    if found is not None or entry is None or not entry.fixed or entry.type.dtype not in ("float32", "float64"):
        return found
    if not entry.type.is_static or math.prod(entry.type.shape) > 64:
        return None
    array = entry.array
    if array is None or not np.all(np.isfinite(array)) or np.any(array != np.trunc(array)):
        return None
    return _objects([int(v) for v in array.reshape(-1)], array.shape)


def _result_dtype(view: NodeView) -> str:
    if view.op_type == "Cast":
        return elem_dtype(view.attr("to"), view.name)
    if view.op_type in ("Equal", "Less", "Greater", "GreaterOrEqual", "LessOrEqual", "Not", "And", "Or"):
        return "bool"
    if view.op_type == "ConstantOfShape":
        return dt.from_numpy(view.attr("value").dtype)
    which = 1 if view.op_type == "Where" else 0
    return view.entries[which].type.dtype  # type: ignore[no-any-return, union-attr]


def _fits(values: np.ndarray, dtype: str) -> bool:
    low, high = (-(1 << 24), 1 << 24) if dt.is_float(dtype) else dt.int_range(dtype)
    return all(isinstance(v, E.PrimExpr) or low <= v <= high for v in values.flat)


def _objects(values: Any, shape: Any) -> np.ndarray:
    out = np.empty(len(values), object)
    for i, v in enumerate(values):
        out[i] = v
    return out.reshape(shape)


class _Unknown(Exception):
    """The content depends on values that are not known here."""


def _each(fn: Callable[..., Any]) -> Callable[..., Any]:
    """An elementwise operation with broadcasting; None where one element is unknown."""

    def run(view: NodeView, *args: np.ndarray) -> np.ndarray | None:
        arrays = np.broadcast_arrays(*[_array(a) for a in args])
        floats = dt.is_float(view.entries[0].type.dtype)  # type: ignore[union-attr]
        try:
            values = [_dim(fn(floats, *items)) for items in zip(*[a.flat for a in arrays], strict=True)]
        except _Unknown:
            return None
        return _objects(values, arrays[0].shape)

    return run


def _array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    out = np.empty((), object)
    out[()] = value
    return out


def _dim(value: Any) -> Any:
    return dims.dim(value) if isinstance(value, E.PrimExpr) else int(value)


def _div(floats: bool, a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        if b == 0 or (floats and a % b):
            raise _Unknown
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    negative = dims.sign(a) == -1  # quotients are cut, not rounded down
    out = _dim(E.sub(0, dims.exact_div(E.sub(0, E.as_expr(a)), b))) if negative else dims.exact_div(a, b)
    if floats and not dims.same(dims.prod((out, b)), a):
        raise _Unknown
    return out


def _mod(floats: bool, a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        if b == 0 or a < 0 or b < 0:
            raise _Unknown
        return a % b
    return E.floormod(E.as_expr(a), E.as_expr(b))


def _compare(floats: bool, a: Any, b: Any, test: Callable[[int], bool], sure: bool) -> bool:
    """test(a - b), where the difference is known or its sign decides."""
    gap = _dim(E.as_expr(a) - E.as_expr(b)) if not (isinstance(a, int) and isinstance(b, int)) else a - b
    if isinstance(gap, int):
        return test(gap)
    if sure and dims.same(a, b) is False:
        return test(1)
    raise _Unknown


def _min(floats: bool, *items: Any) -> Any:
    return _fold(E.minimum, items)


def _max(floats: bool, *items: Any) -> Any:
    return _fold(E.maximum, items)


def _fold(fn: Callable[..., Any], items: Any) -> Any:
    out = items[0]
    for v in items[1:]:
        out = dims.dim(fn(E.as_expr(out), E.as_expr(v)))
    return out


def _where(view: NodeView, cond: Any, a: Any, b: Any) -> np.ndarray:
    c, x, y = np.broadcast_arrays(cond, a, b)
    return _objects([p if k else q for k, p, q in zip(c.flat, x.flat, y.flat, strict=True)], c.shape)


# ------------------------------------------------------------------------------------------------ shapes and structure


def _shape(view: NodeView) -> Known:
    shape = view.entries[0].type.shape  # type: ignore[union-attr]
    n = len(shape)
    start, end = view.attr("start", 0), view.attr("end", n)
    first, last = (min(max(v + n if v < 0 else v, 0), n) for v in (start, end))
    return [(_objects(list(shape[first:last]), (max(0, last - first),)), "int64")]


def _size(view: NodeView) -> Known:
    return [(_objects([dims.prod(view.entries[0].type.shape)], ()), "int64")]  # type: ignore[union-attr]


def _gather(view: NodeView, data: np.ndarray, indices: np.ndarray) -> np.ndarray | None:
    axis = view.attr("axis", 0)
    if any(isinstance(i, E.PrimExpr) for i in indices.flat):
        return None
    return _array(np.take(data, indices.astype(np.int64), axis=axis))


def _axes_of(view: NodeView, axes: np.ndarray | None) -> list[int] | None:
    if axes is not None:
        return [int(v) for v in axes.flat]
    given = view.attr("axes", None)
    return None if given is None else list(given)


def _squeeze(view: NodeView, data: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    own = _axes_of(view, axes)
    return _array(np.squeeze(data, None if own is None else tuple(own)))


def _unsqueeze(view: NodeView, data: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return np.expand_dims(data, tuple(_axes_of(view, axes) or ()))


def _concat(view: NodeView, *parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=view.attr("axis", 0))


def _reshape(view: NodeView, data: np.ndarray, shape: np.ndarray | None = None) -> np.ndarray | None:
    new = list(view.attr("shape")) if shape is None else list(shape.flat)
    if any(isinstance(d, E.PrimExpr) for d in new):
        return None
    new = [data.shape[k] if d == 0 and not view.attr("allowzero", 0) else d for k, d in enumerate(new)]
    return data.reshape(new)


def _slice(view: NodeView, data: np.ndarray, *bounds: np.ndarray | None) -> np.ndarray | None:
    if view.has_attr("starts"):
        starts, ends = view.attr("starts"), view.attr("ends")
        axes, steps = view.attr("axes", list(range(len(starts)))), [1] * len(starts)
    else:
        lists = [None if b is None else [_dim(v) for v in b.flat] for b in (*bounds, None, None)]
        starts, ends = lists[0], lists[1]
        axes, steps = lists[2] or list(range(len(starts))), lists[3] or [1] * len(starts)
    out = data
    for b, e, a, s in zip(starts, ends, axes, steps, strict=True):
        if any(isinstance(v, E.PrimExpr) for v in (b, e, s)):
            return None
        first, count, step = static_slice(b, e, s, data.shape[a])
        out = np.take(out, [first + k * step for k in range(count)], axis=a)
    return _array(out)


def _cast(view: NodeView, data: np.ndarray) -> np.ndarray | None:
    to = elem_dtype(view.attr("to"), view.name)
    if to == "bool" or (to not in INTEGERS and to not in ("float32", "float64")):
        return None
    return data


def _reduce(fn: Callable[[Any], Any]) -> Callable[..., Any]:
    def run(view: NodeView, data: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray | None:
        own = _axes_of(view, axes)
        if data.ndim != 1 or (own is not None and own not in ([0], [-1], [])):
            return None
        if own == [] and view.attr("noop_with_empty_axes", 0):
            return data
        return _objects([fn(list(data))], (1,) if view.attr("keepdims", 1) else ())

    return run


def _constant_of_shape(view: NodeView, shape: np.ndarray) -> np.ndarray | None:
    value = view.attr("value", None)
    sizes = list(shape.flat)
    if value is None or value.dtype.kind not in "iu" or any(isinstance(s, E.PrimExpr) or s < 0 for s in sizes):
        return None
    if math.prod(sizes) > LIMIT:
        return None
    return _objects([value.reshape(-1)[0].item()] * math.prod(sizes), sizes)


def _range(view: NodeView, *parts: np.ndarray) -> np.ndarray | None:
    start, stop, step = (p.reshape(-1)[0] for p in parts)
    if any(isinstance(v, E.PrimExpr) for v in (start, stop, step)) or step == 0 or (stop - start) / step > LIMIT:
        return None
    values = list(range(start, stop, step))
    return _objects(values, (len(values),))


def _expand(view: NodeView, data: np.ndarray, shape: np.ndarray) -> np.ndarray | None:
    sizes = list(shape.flat)
    if any(isinstance(s, E.PrimExpr) for s in sizes) or math.prod(sizes) * max(data.size, 1) > LIMIT:
        return None
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(sizes)))


def _split(view: NodeView, data: np.ndarray, sizes: np.ndarray | None = None) -> list[np.ndarray] | None:
    if data.ndim != 1:
        return None
    own = view.attr("split", None) if sizes is None else [int(v) for v in sizes.flat]
    if own is None:
        each = -(-data.size // len(view.outputs))
        own = [min(each, data.size - k * each) for k in range(len(view.outputs))]
    ends = np.cumsum(own)
    if ends[-1] != data.size or min(own) < 0:
        return None
    return list(np.split(data, ends[:-1]))


def _bools(fn: Callable[..., bool]) -> Callable[..., Any]:
    return _each(lambda floats, *items: int(fn(*items)))


TRACKED: dict[str, Callable[..., Any]] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": lambda view, x: x,
    "Cast": _cast,
    "Gather": _gather,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Range": _range,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Where": _where,
    "Add": _each(lambda f, a, b: E.add(E.as_expr(a), E.as_expr(b)) if _sym(a, b) else a + b),
    "Sub": _each(lambda f, a, b: E.sub(E.as_expr(a), E.as_expr(b)) if _sym(a, b) else a - b),
    "Mul": _each(lambda f, a, b: E.mul(E.as_expr(a), E.as_expr(b)) if _sym(a, b) else a * b),
    "Div": _each(_div),
    "Mod": _each(_mod),
    "Neg": _each(lambda f, a: E.sub(0, a) if _sym(a) else -a),
    "Floor": _each(lambda f, a: a),
    "Ceil": _each(lambda f, a: a),
    "Min": _each(_min),
    "Max": _each(_max),
    "Equal": _each(lambda f, a, b: _compare(f, a, b, lambda g: g == 0, True)),
    "Less": _each(lambda f, a, b: _compare(f, a, b, lambda g: g < 0, False)),
    "Greater": _each(lambda f, a, b: _compare(f, a, b, lambda g: g > 0, False)),
    "LessOrEqual": _each(lambda f, a, b: _compare(f, a, b, lambda g: g <= 0, False)),
    "GreaterOrEqual": _each(lambda f, a, b: _compare(f, a, b, lambda g: g >= 0, False)),
    "Not": _bools(lambda a: not a),
    "And": _bools(lambda a, b: a and b),
    "Or": _bools(lambda a, b: a or b),
    "ReduceProd": _reduce(dims.prod),
    "ReduceSum": _reduce(lambda v: _dim(sum(v[1:], v[0]) if v else 0)),
    "ReduceMax": _reduce(lambda v: _fold(E.maximum, v)),
    "ReduceMin": _reduce(lambda v: _fold(E.minimum, v)),
}


def _sym(*values: Any) -> bool:
    return any(isinstance(v, E.PrimExpr) for v in values)
