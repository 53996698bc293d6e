"""Categories of operators: what is common to a family stands here once, so that most operators are one line.

class Exp(Unary, name="exp", fn=intrinsic("exp"), ref=np.exp, floats=True): ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.relay.op import REQUIRED, Op, tensor_type
from warpbeam.relay.types import TensorType, Type
from warpbeam.topi import dims
from warpbeam.topi.common import (
    HALF,
    accumulation,
    at_broadcast,
    broadcast_shapes,
    map_stage,
    norm_axes,
    norm_axis,
    reduced_shape,
    wide,
)
from warpbeam.topi.reduction import reduction
from warpbeam.topi.scalar import intrinsic

__all__ = [
    "HALF",
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

# ------------------------------------------------------------------------------------------------------------- helpers


def tensors(op: Op, types: Sequence[Type]) -> list[TensorType]:
    """All operand types as tensor types, or an error that names the operand."""
    return [tensor_type(op, t, f"operand {i}") for i, t in enumerate(types)]


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

    alike = slice(None)
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
        scalars, name = self.scalars(attrs), short(self.name)
        inner = wide(inputs[0].dtype) if self.floats else inputs[0].dtype
        fn = type(self).fn
        return map_stage(lambda *v: fn(*v, **scalars), inputs, out_type.shape, out_type.dtype, name, inner)


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
        return reduced_shape(shape, self.axes(attrs, len(shape)), attrs["keepdims"])

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
        x, cls = inputs[0], type(self)
        axes, keep = self.axes(attrs, x.ndim), attrs["keepdims"]
        return reduction(x, axes, keep, cls.reducer, short(self.name), self.prepare, self.finish)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod(types[0].shape)
