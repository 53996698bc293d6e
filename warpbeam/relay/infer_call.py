"""The type of a call of a function value: type variables and symbolic dimensions are bound by the arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.ir.diagnostics import TypeCheckError
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.relay.infer_dims import bind_shape, dim_vars, substitute_dims
from warpbeam.relay.types import FuncType, TensorType, Type, TypeVar


def call_type(fn: FuncType, args: Sequence[Any], type_args: Sequence[Type] = ()) -> Type | None:
    """Result type of calling `fn`; None where a type variable stays unknown. Arguments may be None (not known yet).

    Raises TypeCheckError for a wrong number of arguments or an argument that cannot fit its parameter.
    """
    if len(args) != len(fn.params):
        raise TypeCheckError(f"a function of {len(fn.params)} parameters is called with {len(args)} arguments")
    if not fn.type_params and all(a is p for a, p in zip(args, fn.params, strict=True)):
        return fn.ret
    types: dict[Node, Node] = dict(zip(fn.type_params, type_args, strict=False))
    dims: dict[Any, Any] = {}
    for i, (want, have) in enumerate(zip(fn.params, args, strict=True)):
        match_type(want, have, frozenset(fn.type_params), types, dims, f"argument {i}")
    ret = substitute(fn.ret, types) if types else fn.ret
    ret = substitute_dims(ret, {v: dims[v] for v in dim_vars(ret) if v in dims and dims[v] is not v})
    left = set(fn.type_params) - set(types)
    return None if left and any(n in left for n in post_order(ret) if isinstance(n, TypeVar)) else ret


def match_type(
    want: Type, have: Any, free: frozenset[Any], types: dict[Node, Node], dims: dict[Any, Any], where: str
) -> None:
    """Binds the type variables `free` and the dimensions of `want` so that it reads `have`."""
    todo: list[tuple[Any, Any]] = [(want, have)]
    while todo:
        a, b = todo.pop()
        if b is None or a is b:
            continue
        if a in free:
            if a not in types:
                types[a] = b
            continue
        if isinstance(a, TypeVar) or isinstance(b, TypeVar):
            continue
        if type(a) is not type(b):
            raise TypeCheckError(f"{where}: expected {type_text(a)}, got {type_text(b)}")
        if isinstance(a, TensorType):
            if a.dtype != b.dtype or bind_shape(a.shape, b.shape, dims) is not None:
                raise TypeCheckError(f"{where}: expected {type_text(a)}, got {type_text(b)}")
            continue
        todo.extend(reversed(list(zip(_parts(a), _parts(b), strict=False))))


def _parts(t: Type) -> list[Any]:
    out: list[Any] = []
    for name in type(t)._fields:
        value = getattr(t, name)
        out.extend(value if type(value) is tuple else [value])
    return [v for v in out if isinstance(v, Type)]


def type_text(t: Type) -> str:
    """A short reading of a type for messages."""
    from warpbeam.relay.text import print_type

    return print_type(t)
