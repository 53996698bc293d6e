"""Building programs step by step: scopes of lets and branches, parameters bound to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.rewrite import substitute
from warpbeam.relay.expr import Constant, Expr, Function, If, IRModule, Let, Var, as_relay
from warpbeam.relay.types import Type

__all__ = ["ScopeBuilder", "bind", "bind_params_by_name"]


class ScopeBuilder:
    """Collects lets, branches and a result.

    sb = ScopeBuilder()
    y = sb.let("y", add(x, x))
    with sb.if_scope(cond):
        sb.ret(y)
    with sb.else_scope():
        sb.ret(x)
    body = sb.get()
    """

    def __init__(self) -> None:
        self._stack: list[tuple[list[tuple[Var, Expr]], list[Expr]]] = [([], [])]
        self._open: list[tuple[Expr, Expr]] = []

    def let(self, var: str | Var, value: Any) -> Var:
        """Binds a value; returns the variable, annotated with the value's type."""
        value = as_relay(value)
        if isinstance(var, str):
            var = Var(var, value.ty)
        self._stack[-1][0].append((var, value))
        return var

    def type_of(self, expr: Expr) -> Type:
        return expr.checked_type

    @contextmanager
    def if_scope(self, cond: Expr) -> Iterator[None]:
        """The branch taken where `cond` is true."""
        self._stack.append(([], []))
        yield
        self._open.append((cond, self._close()))

    @contextmanager
    def else_scope(self) -> Iterator[None]:
        """The other branch; completes the If as this scope's result."""
        if not self._open:
            raise IRError("else_scope without if_scope", hint="open `with builder.if_scope(cond):` first")
        self._stack.append(([], []))
        yield
        cond, then = self._open.pop()
        self.ret(If(cond, then, self._close()))

    def ret(self, value: Any) -> None:
        """The result of the present scope; at most one."""
        result = self._stack[-1][1]
        if result:
            raise IRError("the scope has a result already")
        result.append(as_relay(value))

    def get(self) -> Expr:
        """The whole expression."""
        if len(self._stack) != 1 or self._open:
            raise IRError("a branch is still open", hint="close if_scope and else_scope first")
        return self._close()

    def _close(self) -> Expr:
        lets, result = self._stack.pop()
        if not result:
            raise IRError("the scope has no result", hint="call ret(value)")
        out = result[0]
        for var, value in reversed(lets):
            out = Let(var, value, out)
        return out


def bind(expr: Any, values: Mapping[Var, Any]) -> Any:
    """`expr` with variables replaced; parameters of a function that are bound are dropped."""
    mapping: dict[Any, Any] = {v: as_relay(e) for v, e in values.items()}
    if not isinstance(expr, Function):
        return substitute(expr, mapping)
    left = tuple(p for p in expr.params if p not in mapping)
    return Function(left, substitute(expr.body, mapping), expr.ret_type, expr.type_params, expr.attrs)


def bind_params_by_name(func: Any, params: Mapping[str, Any]) -> Any:
    """A function (or a module's main) with parameters replaced by constant arrays, by name.

    Names that no parameter has are ignored; an array whose shape or dtype contradicts its parameter is an error.
    """
    if isinstance(func, IRModule):
        new = IRModule(dict(func.functions), func.types)
        new.functions[new.global_var("main")] = bind_params_by_name(func["main"], params)
        return new
    values: dict[Var, Any] = {}
    for p in func.params:
        if p.name not in params:
            continue
        array = params[p.name]
        array = array.numpy() if hasattr(array, "numpy") else np.asarray(array)
        value = Constant(array)
        if p.ty is not None and (p.ty.dtype != value.ty.dtype or len(p.ty.shape) != array.ndim):
            raise IRError(f"parameter {p.name} is {p.ty.dtype}{p.ty.shape}, the array {array.dtype}{array.shape}")
        values[p] = value
    return bind(func, values) if values else func
