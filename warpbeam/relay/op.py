"""Base of operators: ONE class holds every fact of an operator.

A subclass (in `warpbeam/op/`) states its name, attributes, type rule, NumPy reference and computation; later floors add
gradients and quantisation as further methods. A missing fact is a loud error that names the file to edit. Instances are
singletons (interned nodes without fields).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from warpbeam.ir.diagnostics import IRError, TypeCheckError
from warpbeam.ir.node import Attrs, Node
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.topi import dims

REQUIRED: Any = object()


class Op(Node):
    """One operator.

    name: the field's standard name, such as "nn.conv2d".
    arity: number of tensor operands, or None for any number.
    defaults: attribute names with their default values (REQUIRED where there is none).
    pure: False where a call has an effect (random state); such calls are never merged or dropped.
    view: True where the result is the operand's bytes under another shape, so that no kernel is needed.
    folds: False where the value must not be computed while compiling (random numbers, the host's tables).
    host: True where a call is a function of the host: it has no kernel, and joins no group.
    placed: True where the equalities that its type takes for granted are checked where a call stands, not at entry.
    alike: the operands of one type, of which a bare number takes that of the others.
    """

    name: ClassVar[str] = ""
    arity: ClassVar[int | None] = 1
    defaults: ClassVar[dict[str, Any]] = {}
    pure: ClassVar[bool] = True
    view: ClassVar[bool] = False
    folds: ClassVar[bool] = True
    host: ClassVar[bool] = False
    placed: ClassVar[bool] = False
    alike: ClassVar[slice] = slice(0)

    def attrs(self, given: dict[str, Any] | Attrs) -> Attrs:
        """Attributes completed with defaults; unknown or missing ones are an error."""
        unknown = sorted(set(given) - set(self.defaults))
        missing = sorted(k for k, v in self.defaults.items() if v is REQUIRED and k not in given)
        if unknown or missing:
            raise IRError(
                f"operator {self.name}: "
                + ", ".join([f"unknown attribute {k}" for k in unknown] + [f"missing attribute {k}" for k in missing]),
                hint=f"its attributes are {sorted(self.defaults)}",
            )
        return Attrs({**self.defaults, **given})

    def infer(self, types: Sequence[Type], attrs: Attrs) -> Type:
        """Result type from operand types; raises TypeCheckError that names the operator."""
        if self.arity is not None and len(types) != self.arity:
            raise TypeCheckError(f"operator {self.name} takes {self.arity} operands, got {len(types)}")
        try:
            found = self.infer_type(types, attrs)
        except dims.Undecided as error:
            if not dims.firm(*error.pair):
                raise
            return self.infer_type(types, attrs)
        parts = found.fields if isinstance(found, TupleType) else (found,)
        open_ = [d for t in parts if isinstance(t, TensorType) for d in t.shape if not isinstance(d, int)]
        return self.infer_type(types, attrs) if open_ and dims.firm(*open_) else found

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        raise self._lacks("infer_type")

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> Any:
        """Reference result (an array, or a tuple of arrays for a tuple type). Never calls our own compute."""
        raise self._lacks("numpy")

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Type) -> Any:
        """The computation as te tensors: one te.Tensor, or a tuple for a tuple type."""
        raise self._lacks("compute")

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Type) -> Any:
        """Arithmetic operations of one call (int or expression); elementwise default: one per output element."""
        outs = out_type.fields if isinstance(out_type, TupleType) else (out_type,)
        total: Any = 0
        for t in outs:
            count: Any = 1
            for s in t.shape:  # type: ignore[attr-defined]
                count = count * s
            total = total + count
        return total

    def error(self, message: str, hint: str = "") -> TypeCheckError:
        """A type error of this operator, for infer_type to raise."""
        return TypeCheckError(f"operator {self.name}: {message}", hint=hint)

    def _lacks(self, fact: str) -> IRError:
        cls = type(self)
        return IRError(
            f"operator {self.name} has no {fact}",
            where=inspect.getsourcefile(cls) or "",
            hint=f"add `def {fact}` to class {cls.__name__}",
        )

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """A Call expression of this operator; lists are accepted for one variadic operand."""
        from warpbeam.relay.expr import Call, as_relay

        operands = tuple(as_relay(a) for a in args)
        return Call(self, operands, self.attrs(attrs))

    def __repr__(self) -> str:
        return f"Op({self.name})"


def tensor_type(op: Op, value: Type, which: str) -> TensorType:
    """`value` as a TensorType, or a TypeCheckError that says which operand is not a tensor."""
    if not isinstance(value, TensorType):
        raise op.error(f"{which} must be a tensor, got {type(value).__name__}")
    return value


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The classic `relay.op.get` and `relay.op.nn.conv2d`."""
        if name.startswith("__"):
            raise AttributeError(name)
        place = "warpbeam.op" if name in ("get", "names") else "warpbeam.relay_api"
        return getattr(importlib.import_module(place), name)
