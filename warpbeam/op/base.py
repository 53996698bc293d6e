"""Categories of operators: what is common to a family stands here once, so that most operators are one line.

class Exp(Unary, name="exp", fn=intrinsic("exp"), ref=np.exp, floats=True): ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op import dims
from warpbeam.relay.op import REQUIRED, Op, tensor_type
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E

__all__ = [
    "REQUIRED",
    "Binary",
    "Compare",
    "Injective",
    "Logical",
    "Op",
    "Reduce",
    "Unary",
    "accumulation",
    "at_broadcast",
    "broadcast_shapes",
    "intrinsic",
    "norm_axes",
    "norm_axis",
    "tensor_type",
    "tensors",
    "wide",
]

HALF = ("float16", "bfloat16")


# ------------------------------------------------------------------------------------------------------------- helpers


def intrinsic(name: str) -> Callable[..., E.PrimExpr]:
    """The scalar function `name` (see tir/intrin.py), of its first operand's dtype."""
    return lambda *args: E.call(name, *args)


def wide(dtype: str) -> str:
    """The dtype in which values of `dtype` are computed: half floats in float32, others in their own."""
    return "float32" if dt.scalar(dtype) in HALF or dt.scalar(dtype).startswith("float8") else dtype


def accumulation(dtype: str) -> str:
    """The dtype in which a reduction of `dtype` accumulates: half floats in float32, others in their own."""
    return wide(dtype)


def tensors(op: Op, types: Sequence[Type]) -> list[TensorType]:
    """All operand types as tensor types, or an error that names the operand."""
    return [tensor_type(op, t, f"operand {i}") for i, t in enumerate(types)]


def norm_axis(op: Op, axis: Any, ndim: int) -> int:
    """A non-negative axis; an axis outside [-ndim, ndim) is an error."""
    axis = int(axis)
    if not -ndim <= axis < ndim:
        raise op.error(f"axis {axis} of a tensor with {ndim} dimensions", f"axes go from {-ndim} to {ndim - 1}")
    return axis % ndim


def norm_axes(op: Op, axes: Any, ndim: int, exclude: bool = False) -> tuple[int, ...]:
    """Sorted non-negative axes; None is all axes; `exclude` gives the others instead; repeats are an error."""
    if axes is None:
        found = set(range(ndim))
    else:
        given = [axes] if isinstance(axes, int) else list(axes)
        found = {norm_axis(op, a, ndim) for a in given}
        if len(found) != len(given):
            raise op.error(f"axes {tuple(given)} name an axis twice")
    if exclude:
        found = set(range(ndim)) - found
    return tuple(sorted(found))


def broadcast_dim(op: Op, a: Any, b: Any) -> Any:
    """The dimension of two broadcast dimensions; an undecidable pair of symbolic ones is an error."""
    if isinstance(a, int) and a == 1:
        return b
    if isinstance(b, int) and b == 1:
        return a
    equal = dims.same(a, b)
    if equal:
        return a if isinstance(a, int) or not isinstance(b, int) else b
    if equal is None:
        raise dims.undecided(f"operator {op.name}", a, b)
    raise op.error(f"dimensions {dims.text(a)} and {dims.text(b)} do not broadcast")


def broadcast_shapes(op: Op, *shapes: Sequence[Any]) -> tuple[Any, ...]:
    """NumPy's broadcast of several shapes, symbolic dimensions included."""
    ndim = max((len(s) for s in shapes), default=0)
    out: list[Any] = [1] * ndim
    for shape in shapes:
        for i, d in enumerate(shape, ndim - len(shape)):
            out[i] = broadcast_dim(op, out[i], d)
    return tuple(out)


def at_broadcast(x: te.Tensor, index: Sequence[Any], out_shape: Sequence[Any]) -> E.PrimExpr:
    """The element of `x` that index `index` of the broadcast result sees."""
    skip = len(index) - len(x.shape)
    own: list[Any] = []
    for d, i, o in zip(x.shape, list(index)[skip:], list(out_shape)[skip:], strict=True):
        own.append(0 if isinstance(d, int) and d == 1 and not (isinstance(o, int) and o == 1) else i)
    return x[tuple(own)]


def short(name: str) -> str:
    """An operator's name as the name of its te stage."""
    return name.rpartition(".")[2]


# ---------------------------------------------------------------------------------------------------------- categories


class Injective(Op):
    """Base of operators whose every result element comes from at most one element of each operand."""

    def __init_subclass__(cls, name: str = "", arity: Any = REQUIRED, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if name:
            cls.name = name
        if arity is not REQUIRED:
            cls.arity = arity


class Elementwise(Injective):
    """fn over TIR scalars and ref over arrays.

    floats: operands must be floats (half floats are computed in float32 and rounded once).
    kinds: which operands are accepted ("float", "int", "bool"). result: result dtype, None for the operands' own.
    """

    fn: ClassVar[Callable[..., Any]]
    ref: ClassVar[Callable[..., Any]]
    floats: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ("float", "int", "bool")
    result: ClassVar[str | None] = None

    def __init_subclass__(cls, fn: Any = None, ref: Any = None, floats: Any = None, **kw: Any) -> None:
        for key in ("kinds", "result"):
            if key in kw:
                setattr(cls, key, kw.pop(key))
        super().__init_subclass__(**kw)
        if fn is not None:
            cls.fn = staticmethod(fn)
        if ref is not None:
            cls.ref = staticmethod(ref)
        if floats is not None:
            cls.floats = floats
        if cls.floats:
            cls.kinds = ("float",)

    def check_kind(self, dtype: str) -> None:
        kind = "float" if dt.is_float(dtype) else "bool" if dt.is_bool(dtype) else "int"
        if kind not in self.kinds:
            raise self.error(f"takes {' or '.join(self.kinds)} tensors, got {dtype}", "cast the operand first")

    def operand_shape(self, types: Sequence[TensorType]) -> tuple[Any, ...]:
        return broadcast_shapes(self, *[t.shape for t in types])

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        found = tensors(self, types)
        for t in found:
            self.check_kind(t.dtype)
        if len({t.dtype for t in found}) > 1:
            raise self.error(
                "operands have dtypes " + ", ".join(t.dtype for t in found), "cast them to one dtype explicitly"
            )
        return TensorType(self.operand_shape(found), self.result or found[0].dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        out_dtype = args[0].dtype if self.result is None else dt.to_numpy(self.result)
        with np.errstate(all="ignore"):
            value = type(self).ref(*self.reference_operands(args), **self.scalars(attrs))
            return np.asarray(value).astype(out_dtype, copy=False)

    def reference_operands(self, args: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        if self.floats:
            return [a.astype(np.float32) if a.dtype.itemsize < 4 else a for a in args]
        return args

    def scalars(self, attrs: Attrs) -> dict[str, Any]:
        """Attributes handed to fn and ref by name."""
        return dict(attrs)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        shape, scalars = out_type.shape, self.scalars(attrs)
        inner = wide(inputs[0].dtype) if self.floats else inputs[0].dtype

        def element(*index: Any) -> Any:
            values = [E.cast(inner, at_broadcast(x, index, shape)) for x in inputs]
            return E.cast(out_type.dtype, type(self).fn(*values, **scalars))

        return te.compute(shape, element, name=short(self.name))


class Unary(Elementwise):
    """One operand, its shape."""

    def operand_shape(self, types: Sequence[TensorType]) -> tuple[Any, ...]:
        return types[0].shape  # type: ignore[no-any-return]


class Binary(Elementwise):
    """Two operands of one dtype, NumPy broadcasting."""

    arity = 2


class Compare(Binary):
    """Two operands of one dtype, result bool."""

    result = "bool"


class Logical(Binary):
    """Two bool operands, result bool."""

    result = "bool"
    kinds = ("bool",)


class Reduce(Op):
    """Reduction over `axis` (None: all; `exclude`: all but these), keeping reduced axes as 1 with `keepdims`.

    A subclass gives `reducer` (te reducer), `ref(array, axis tuple, keepdims)` and, where needed, `prepare` (element
    before reducing), `finish` (result element after; gets the number of reduced elements).
    """

    defaults = {"axis": None, "keepdims": False, "exclude": False}
    reducer: ClassVar[Callable[..., Any]]
    ref: ClassVar[Callable[..., Any]]
    prepare: ClassVar[Callable[..., Any] | None] = None
    finish: ClassVar[Callable[..., Any] | None] = None
    kinds: ClassVar[tuple[str, ...]] = ("float", "int")

    def __init_subclass__(cls, name: str = "", reducer: Any = None, ref: Any = None, **kw: Any) -> None:
        for key in ("prepare", "finish"):
            if key in kw:
                setattr(cls, key, staticmethod(kw.pop(key)))
        if "kinds" in kw:
            cls.kinds = kw.pop("kinds")
        super().__init_subclass__(**kw)
        if name:
            cls.name = name
        if reducer is not None:
            cls.reducer = staticmethod(reducer)
        if ref is not None:
            cls.ref = staticmethod(ref)

    def axes(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        return norm_axes(self, attrs["axis"], ndim, attrs["exclude"])

    def reduced(self, attrs: Attrs, shape: Sequence[Any]) -> tuple[Any, ...]:
        axes = self.axes(attrs, len(shape))
        if attrs["keepdims"]:
            return tuple(1 if i in axes else d for i, d in enumerate(shape))
        return tuple(d for i, d in enumerate(shape) if i not in axes)

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        kind = "float" if dt.is_float(x.dtype) else "bool" if dt.is_bool(x.dtype) else "int"
        if kind not in self.kinds:
            raise self.error(f"takes {' or '.join(self.kinds)} tensors, got {x.dtype}", "cast the operand first")
        return TensorType(self.reduced(attrs, x.shape), self.result_dtype(x.dtype))  # type: ignore[no-any-return]

    def result_dtype(self, dtype: str) -> str:
        return dtype

    def numpy(self, attrs: Attrs, x: np.ndarray) -> Any:
        axes = self.axes(attrs, x.ndim)
        inner = x.astype(np.float32) if dt.from_numpy(x.dtype) in HALF else x
        with np.errstate(all="ignore"):
            value = type(self).ref(inner, axis=axes, keepdims=attrs["keepdims"])
            return np.asarray(value).astype(dt.to_numpy(self.result_dtype(dt.from_numpy(x.dtype))), copy=False)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        axes = self.axes(attrs, x.ndim)
        inner = accumulation(x.dtype)
        prepare, finish, cls = self.prepare, self.finish, type(self)

        def value(e: E.PrimExpr) -> E.PrimExpr:
            e = E.cast(inner, e)
            return e if prepare is None else prepare(e)

        total = reduce_stage(x, axes, attrs["keepdims"], out_type.shape, cls.reducer, value, short(self.name))
        if finish is None and inner == out_type.dtype:
            return total
        count = dims.prod(x.shape[a] for a in axes)

        def last(*index: Any) -> E.PrimExpr:
            e = total[index]
            return E.cast(out_type.dtype, e if finish is None else finish(e, E.cast(inner, E.as_expr(count))))

        return te.compute(out_type.shape, last, name=short(self.name) + "_out")

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod(types[0].shape)


def reduce_stage(
    x: te.Tensor,
    axes: Sequence[int],
    keepdims: bool,
    out_shape: Sequence[Any],
    reducer: Callable[..., Any],
    value: Callable[[E.PrimExpr], E.PrimExpr],
    name: str,
) -> Any:
    """reducer over `axes` of value(x[…]); with no axes, the value itself."""
    ks = [te.reduce_axis(x.shape[a], f"k{a}") for a in axes]

    def element(*index: Any) -> Any:
        full = merge_index(index, axes, [k.var for k in ks], x.ndim, keepdims)
        return reducer(value(x[full]), axis=ks) if ks else value(x[full])

    if any(isinstance(x.shape[a], int) and x.shape[a] == 0 for a in axes):
        return te.compute(out_shape, lambda *i: nothing(reducer, value(x[(0,) * x.ndim]).dtype), name=name)
    return te.compute(out_shape, element, name=name)


def nothing(reducer: Callable[..., Any], dtype: str) -> E.PrimExpr:
    """What a reducer gives for no elements."""
    return reducer(E.const(0, dtype), axis=te.reduce_axis(1)).combiner.identity[0]  # type: ignore[no-any-return]


def merge_index(
    index: Sequence[Any], axes: Sequence[int], inner: Sequence[Any], ndim: int, keepdims: bool
) -> tuple[Any, ...]:
    """The operand's index from the result's index and one index per reduced axis."""
    outer = [i for d, i in enumerate(index) if d not in axes] if keepdims else list(index)
    own, red = iter(outer), iter(inner)
    return tuple(next(red) if d in axes else next(own) for d in range(ndim))
