"""Values of the Relay interpreter: arrays, tuples, closures, references, data; how they match types and patterns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import VerifyError
from warpbeam.ir.node import Attrs
from warpbeam.relay.expr import (
    Constructor,
    Function,
    Pattern,
    PatternConstructor,
    PatternTuple,
    PatternVar,
    Var,
)
from warpbeam.relay.infer_dims import Dims, bind_shape
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.tir.expr import Var as DimVar


class Data:
    """A value of an algebraic data type."""

    __slots__ = ("constructor", "fields")

    def __init__(self, constructor: Constructor, fields: tuple[Any, ...]) -> None:
        self.constructor = constructor
        self.fields = fields

    @property
    def tag(self) -> int:
        return self.constructor.tag

    def __repr__(self) -> str:
        return f"{self.constructor.name}(…{len(self.fields)})" if self.fields else self.constructor.name


class Cell:
    """A mutable reference."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Closure:
    """A function value with what it captured. Callable from Python with arrays."""

    __slots__ = ("apply", "dims", "env", "function")

    def __init__(self, function: Function, env: dict[Var, Any], dims: Dims, apply: Callable[..., Any]) -> None:
        self.function = function
        self.env = env
        self.dims = dims
        self.apply = apply

    def __call__(self, *args: Any) -> Any:
        return self.apply(self, args)


def convert(value: Any, declared: Type | None, wide: str | None, name: str) -> Any:
    """An argument as a value of the declared type; a wrong dtype is an error."""
    if isinstance(value, Data | Cell | Closure):
        return value
    if isinstance(value, tuple | list) and not isinstance(declared, TensorType):
        kinds = declared.fields if isinstance(declared, TupleType) else (None,) * len(value)
        return tuple(convert(v, t, wide, f"{name}.{i}") for i, (v, t) in enumerate(zip(value, kinds, strict=True)))
    if not isinstance(value, np.ndarray | np.generic) and hasattr(value, "__dlpack__"):
        value = np.from_dlpack(value)
    if isinstance(declared, TensorType):
        target = dt.to_numpy(declared.dtype)
        if not isinstance(value, np.ndarray | np.generic):
            value = np.asarray(value, target)
        elif value.dtype != target and not (wide and dt.is_float(declared.dtype)) and declared.dtype != "string":
            raise VerifyError(
                f"input {name} has dtype {value.dtype}", why=f"its type says {declared.dtype}", hint="convert the array"
            )
    return widen(np.asarray(value), wide)


def widen(value: Any, wide: str | None) -> Any:
    """Floating arrays in the dtype `wide`; others, and everything when `wide` is None, as they are."""
    if wide is None or not isinstance(value, np.ndarray) or value.dtype == object:
        return value
    return value.astype(wide, copy=False) if dt.is_float(dt.from_numpy(value.dtype)) else value


def widen_attrs(attrs: Attrs, wide: str) -> Attrs:
    """Attributes in which floating dtype names are replaced by `wide`."""
    found = {k: wide for k in ("dtype", "out_dtype") if isinstance(attrs.get(k), str) and _float_name(attrs[k])}
    return attrs.updated(**found) if found else attrs


def _float_name(name: str) -> bool:
    return name.startswith(("float", "bfloat"))


def bind_value(declared: Type | None, value: Any, dims: Dims, name: str) -> None:
    """Binds symbolic sizes of `declared` from a value's shape; a shape that cannot fit is an error."""
    todo: list[tuple[Any, Any]] = [(declared, value)]
    while todo:
        want, have = todo.pop()
        if isinstance(want, TupleType) and isinstance(have, tuple):
            todo.extend(zip(want.fields, have, strict=True))
        elif isinstance(want, TensorType) and isinstance(have, np.ndarray):
            axis = bind_shape(want.shape, have.shape, dims)
            if axis is not None:
                where = "the number of dimensions" if axis < 0 else f"axis {axis}"
                raise VerifyError(
                    f"{name} has shape {have.shape}", why=f"{where} contradicts its type {_shown(want)}",
                    hint="pass an array of the declared shape",
                )  # fmt: skip


def _shown(t: TensorType) -> str:
    from warpbeam.relay.text import print_type

    return print_type(t)


def has_dims(declared: Type | None) -> bool:
    """Whether a tensor or tuple type has a bare size variable as a dimension."""
    if isinstance(declared, TensorType):
        return any(isinstance(d, DimVar) for d in declared.shape)
    return isinstance(declared, TupleType) and any(map(has_dims, declared.fields))


def match_pattern(pattern: Pattern, value: Any) -> dict[Var, Any] | None:
    """Variables bound by matching, or None where the pattern does not fit."""
    found: dict[Var, Any] = {}
    todo: list[tuple[Pattern, Any]] = [(pattern, value)]
    while todo:
        p, v = todo.pop()
        if isinstance(p, PatternVar):
            found[p.var] = v
        elif isinstance(p, PatternConstructor):
            if v.constructor is not p.constructor:
                return None
            if p.patterns:
                todo.extend(zip(p.patterns, v.fields, strict=True))
        elif isinstance(p, PatternTuple):
            todo.extend(zip(p.patterns, v, strict=True))
    return found
