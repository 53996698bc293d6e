"""Parameters and results that are tuples become one tensor per leaf; the function's attributes say which (`Structure`).

    def @main(%x: (Tensor[(2), float32], Tensor[(3), float32])) { (%x.0, (%x.1, %x.0)) }
->  def @main(%x.0: Tensor[(2), float32], %x.1: Tensor[(3), float32]) { (%x.0, %x.1, %x.0) }
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import substitute
from warpbeam.relay.expr import Expr, Function, IRModule, Tuple, TupleGetItem, Var
from warpbeam.relay.interp_values import Data
from warpbeam.relay.text import print_type
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.runtime.manifest import STRUCTURE
from warpbeam.runtime.structure import DEPTH, Structure, Tree


def flattened(mod: IRModule, result: Any, unique: Callable[[Sequence[str], str], list[str]]) -> IRModule:
    """The module with a main on tensors, whose results are one tensor or a tuple of them; all types must be known.

    Args:
        result: what main gives, as `partial_evaluate.evaluated` says it; its body has the fields of data as a tuple.
        unique: names as they are where they are unique, else made so.

    Raises:
        CompileError: if a parameter or result is neither a tensor nor a tuple.
    """
    main = mod["main"]
    ret = main.body.ty
    plain = all(isinstance(p.ty, TensorType) for p in main.params)
    flat = isinstance(result, Expr | tuple) and (isinstance(ret, TensorType) or _is_flat(ret, result))
    if STRUCTURE in main.attrs or (plain and flat):
        return mod
    names = unique([p.name for p in main.params], "input")
    leaves: list[Var] = []
    values: dict[Expr, Expr] = {}
    params: list[tuple[str, Tree]] = []
    for p, name in zip(main.params, names, strict=True):
        start = len(leaves)
        value = _taken(p.ty, name, leaves)
        if not isinstance(p.ty, TensorType):
            values[p] = value
        else:
            leaves[start] = p
        params.append((name, _tree(p.ty, iter([leaf.name for leaf in leaves[start:]]))))
    body: Any = substitute(main.body, values) if values else main.body
    if _depth(ret) > DEPTH:
        raise CompileError(f"the result of main has tuples or data more than {DEPTH} deep")
    results = _given(body, ret)
    if not results:
        raise CompileError("main gives no tensor", why=f"its result is of type {print_type(ret)}")
    outputs = [f"output_{i}" for i in range(len(results))] if len(results) != 1 else ["output"]
    structure = Structure(tuple(params), _tree(ret, iter(outputs), result))
    made = results[0] if len(results) == 1 else Tuple(tuple(results))
    attrs = main.attrs.updated(**{STRUCTURE: structure.to_json()})
    functions = dict(mod.functions)
    functions[mod.global_var("main")] = Function(tuple(leaves), made, None, main.type_params, attrs)
    return IRModule(functions, mod.types)


def _is_flat(ty: Any, value: Any) -> bool:
    fields = ty.fields if isinstance(ty, TupleType) else ()
    known = not isinstance(value, tuple) or all(isinstance(v, Expr) for v in value)
    return known and len(fields) > 1 and all(isinstance(t, TensorType) for t in fields)


def _depth(ty: Any) -> int:
    """How deep tuples lie in tuples."""
    depth, level = 0, [ty]
    while level := [t for outer in level if isinstance(outer, TupleType) for t in outer.fields]:
        depth += 1
    return depth


def _taken(ty: Any, name: str, leaves: list[Var]) -> Expr:
    """A value of this type made of new parameters, which are added."""
    if isinstance(ty, TupleType):
        return Tuple(tuple(_taken(t, f"{name}.{i}", leaves) for i, t in enumerate(ty.fields)))
    if not isinstance(ty, TensorType):
        raise _refused(f"parameter {name!r}", ty)
    leaves.append(Var(name, ty))
    return leaves[-1]


def _given(value: Expr, ty: Any) -> list[Expr]:
    """The tensors of a value in order."""
    if isinstance(ty, TupleType):
        parts = value.fields if isinstance(value, Tuple) else [TupleGetItem(value, i) for i in range(len(ty.fields))]
        return [leaf for part, t in zip(parts, ty.fields, strict=True) for leaf in _given(part, t)]
    if not isinstance(ty, TensorType):
        raise _refused("the result", ty)
    return [value]


def _tree(ty: Any, names: Iterator[str], value: Any = None) -> Tree:
    """The tree of a value of this type; data is where `value` says so."""
    if not isinstance(ty, TupleType):
        return next(names)
    parts = value.fields if isinstance(value, Data) else value if isinstance(value, tuple) else [None] * len(ty.fields)
    trees = [_tree(t, names, part) for t, part in zip(ty.fields, parts, strict=True)]
    return {"tag": value.tag, "fields": trees} if isinstance(value, Data) else trees


def _refused(what: str, ty: Any) -> CompileError:
    return CompileError(
        f"{what} of main is of type {print_type(ty)}",
        why="compiled functions take and give tensors and tuples of them",
        hint='create_executor("debug") interprets functions on data types, references and closures',
    )
