"""Parameters and results that are tuples become one tensor per leaf; the function's attributes say which (`Structure`).

    def @main(%x: (Tensor[(2), float32], Tensor[(3), float32])) { (%x.0, (%x.1, %x.0)) }
->  def @main(%x.0: Tensor[(2), float32], %x.1: Tensor[(3), float32]) { (%x.0, %x.1, %x.0) }
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import substitute
from warpbeam.relay.expr import Expr, Function, IRModule, Tuple, TupleGetItem, Var
from warpbeam.relay.text import print_type
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.runtime.manifest import STRUCTURE
from warpbeam.runtime.structure import Structure, Tree


def flattened(mod: IRModule, unique: Callable[[Sequence[str], str], list[str]]) -> IRModule:
    """The module with a main on tensors, whose results are one tensor or a tuple of them; all types must be known.

    Args:
        unique: names as they are where they are unique, else made so.

    Raises:
        CompileError: if a parameter or result is neither a tensor nor a tuple.
    """
    main = mod["main"]
    ret = main.body.ty
    plain = all(isinstance(p.ty, TensorType) for p in main.params)
    if STRUCTURE in main.attrs or (plain and (isinstance(ret, TensorType) or _is_flat(ret))):
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
    results = _given(body, ret)
    if not results:
        raise CompileError("main gives no tensor", why=f"its result is of type {print_type(ret)}")
    outputs = [f"output_{i}" for i in range(len(results))] if len(results) != 1 else ["output"]
    structure = Structure(tuple(params), _tree(ret, iter(outputs)))
    made = results[0] if len(results) == 1 else Tuple(tuple(results))
    attrs = main.attrs.updated(**{STRUCTURE: structure.to_json()})
    functions = dict(mod.functions)
    functions[mod.global_var("main")] = Function(tuple(leaves), made, None, main.type_params, attrs)
    return IRModule(functions, mod.types)


def _is_flat(ty: Any) -> bool:
    fields = ty.fields if isinstance(ty, TupleType) else ()
    return len(fields) > 1 and all(isinstance(t, TensorType) for t in fields)


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


def _tree(ty: Any, names: Any) -> Tree:
    return [_tree(t, names) for t in ty.fields] if isinstance(ty, TupleType) else next(names)


def _refused(what: str, ty: Any) -> CompileError:
    return CompileError(
        f"{what} of main is of type {print_type(ty)}",
        why="compiled functions take and give tensors and tuples of them",
        hint='create_executor("debug") interprets functions on data types, references and closures',
    )
