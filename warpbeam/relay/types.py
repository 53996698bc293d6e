"""Types of graph expressions: tensors with integer or symbolic dimensions, tuples, functions, references, data
types.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Binder, Node
from warpbeam.tir.expr import PrimExpr, simplify_dim
from warpbeam.tir.expr import Var as DimVar

Dim = int | PrimExpr


def unknown_dim() -> DimVar:
    """A size that is known when a program runs: `relay.Any()`. Each call gives another; equal sizes are one object."""
    return DimVar("any")


class Type(Node):
    """Base of types."""


class TensorType(Type):
    """A dense tensor; each dimension is an int or an int64 expression over symbolic sizes."""

    shape: tuple[Any, ...]
    dtype: str = "float32"

    @classmethod
    def _normalize(cls, shape: Any, dtype: str = "float32") -> tuple[Any, ...]:
        return tuple(simplify_dim(s) for s in shape), dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(s, int) for s in self.shape)


class TupleType(Type):
    fields: tuple[Type, ...]


class FuncType(Type):
    """Parameter types to a result type; `type_params` are bound within."""

    params: tuple[Type, ...]
    ret: Type
    type_params: tuple[Any, ...] = ()


class RefType(Type):
    """A mutable cell that holds a value of type `value`."""

    value: Type


class TypeVar(Binder, Type):
    """A type variable of a polymorphic function or data type."""

    name: str


class GlobalTypeVar(Binder, Type):
    """The name of an algebraic data type; a module maps it to its TypeData."""

    name: str


class TypeCall(Type):
    """An algebraic data type applied to type arguments."""

    func: Type
    args: tuple[Type, ...]
