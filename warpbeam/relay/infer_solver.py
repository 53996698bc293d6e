"""Unification of types with unknown parts."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import TypeCheckError
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.relay.infer_call import type_text
from warpbeam.relay.types import FuncType, TensorType, Type, TypeVar


class Unknown(TypeVar):
    """A type that is still to be found."""

    name: str = "?"


class Solver:
    """What the unknowns stand for so far."""

    def __init__(self) -> None:
        self.found: dict[Node, Type] = {}

    def head(self, t: Type) -> Type:
        """`t` with its outermost unknown replaced as far as known."""
        while t in self.found:
            t = self.found[t]
        return t

    def resolve(self, t: Type) -> Type:
        """`t` with all that is known put in."""
        t = self.head(t)
        if isinstance(t, TensorType):
            return t
        while any(n in self.found for n in post_order(t)):
            t = rewrite(t, lambda n: self.head(n) if isinstance(n, Unknown) else None)
        return t

    def known(self, t: Type) -> Type | None:
        """The resolved type, or None while a part of it is unknown."""
        t = self.resolve(t)
        if isinstance(t, TensorType):
            return t
        return None if any(isinstance(n, Unknown) for n in post_order(t)) else t

    def unify(self, a: Type, b: Type, what: str) -> None:
        """Makes both types one; a contradiction is an error that starts with `what`."""
        todo = [(a, b)]
        while todo:
            x, y = (self.head(t) for t in todo.pop())
            if x is y:
                continue
            if isinstance(y, Unknown) and not isinstance(x, Unknown):
                x, y = y, x
            if isinstance(x, Unknown):
                self._bind(x, y, what)
                continue
            if isinstance(x, TensorType) and isinstance(y, TensorType):
                self._tensors(x, y, what)
                continue
            px, py = children(x), children(y)
            if type(x) is not type(y) or len(px) != len(py) or not px or self._rigid(x, y):
                self._fail(a, b, what)
            todo.extend(zip(px, py, strict=True))  # type: ignore[arg-type]

    def _rigid(self, x: Type, y: Type) -> bool:
        return isinstance(x, FuncType) and len(x.params) != len(y.params)  # type: ignore[attr-defined]

    def _tensors(self, x: TensorType, y: TensorType, what: str) -> None:
        dims = zip(x.shape, y.shape, strict=False)
        differ = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in dims)
        if x.dtype != y.dtype or x.ndim != y.ndim or differ:
            self._fail(x, y, what)

    def _bind(self, unknown: Unknown, t: Type, what: str) -> None:
        if any(n is unknown for n in post_order(self.resolve(t))):
            raise TypeCheckError(f"{what}: the type would contain itself", hint="annotate the function's parameters")
        self.found[unknown] = t

    def _fail(self, a: Type, b: Type, what: str) -> Any:
        raise TypeCheckError(f"{what}: {self.text(a)} and {self.text(b)} are different types")

    def text(self, t: Type) -> str:
        """A reading of a type in which unknown parts are `_`."""
        shown = self.resolve(t)
        blank = TensorType((), "handle")
        shown = rewrite(shown, lambda n: blank if isinstance(n, Unknown) else None)
        return type_text(shown).replace("handle", "_")
