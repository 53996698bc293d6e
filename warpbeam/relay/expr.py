"""Graph expressions (Relay): functional, typed, differentiable.

A node's type `ty` is computed when it is built, children first; it is None where a part has no annotation yet
(`InferType`
elaborates such programs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import EMPTY, Attrs, Binder, Derived, Node
from warpbeam.relay.infer_call import call_type
from warpbeam.relay.op import Op
from warpbeam.relay.types import FuncType, GlobalTypeVar, RefType, TensorType, TupleType, Type, TypeCall, TypeVar
from warpbeam.tir.stmt import PrimFunc

_SMALL = 1024


class Expr(Node):
    """Base of graph expressions. `ty` is the type or None."""

    ty: Derived[Any]

    @property
    def checked_type(self) -> Type:
        if self.ty is None:
            raise IRError(f"{type(self).__name__} has no type yet", hint="run relay.transform.InferType on the module")
        return self.ty  # type: ignore[no-any-return]


class Var(Binder, Expr):
    """A local variable with an optional declared type."""

    name: str
    type_annotation: Any = None

    def _derive(self) -> None:
        Binder._derive(self)
        self._set("ty", self.type_annotation)


class GlobalVar(Binder, Expr):
    """The name of a function of a module, with its declared FuncType where known."""

    name: str
    type_annotation: Any = None

    def _derive(self) -> None:
        Binder._derive(self)
        self._set("ty", self.type_annotation)

    def __call__(self, *args: Any) -> Call:
        return Call(self, tuple(as_relay(a) for a in args), EMPTY)


class ConstData:
    """A read-only array behind a Constant, with a digest computed when first asked for."""

    __slots__ = ("_digest", "array")

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._digest: str | None = None

    @property
    def digest(self) -> str:
        if self._digest is None:
            data = np.ascontiguousarray(self.array)
            self._digest = hashlib.sha256(data.reshape(-1).view(np.uint8).data).hexdigest()
        return self._digest


class Constant(Expr):
    """A tensor constant. Small ones are equal by content, large ones by handle."""

    data: ConstData

    @classmethod
    def _normalize(cls, data: Any) -> tuple[Any, ...]:
        if isinstance(data, ConstData):
            return (data,)
        array = np.asarray(data)
        if array.flags.writeable:
            array = array.view()
            array.flags.writeable = False
        return (ConstData(array),)

    @classmethod
    def _key(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        array = values[0].array
        if array.dtype != object and array.nbytes <= _SMALL:
            return array.dtype.str, array.dtype.name, array.shape, array.tobytes()
        return (id(values[0]),)

    def _derive(self) -> None:
        array = self.data.array
        self._set("ty", TensorType(array.shape, dt.from_numpy(array.dtype)))

    def numpy(self) -> np.ndarray:
        return self.data.array


class Call(Expr):
    """Application of an operator or a function-valued expression to arguments."""

    op: Any
    args: tuple[Expr, ...]
    attrs: Attrs = EMPTY
    type_args: tuple[Type, ...] = ()

    def _derive(self) -> None:
        types = [a.ty for a in self.args]
        if isinstance(self.op, Op):
            self._set("ty", None if any(t is None for t in types) else self.op.infer(types, self.attrs))
            return
        fn = self.op.ty
        self._set("ty", call_type(fn, types, self.type_args) if isinstance(fn, FuncType) else None)


class Tuple(Expr):
    fields: tuple[Expr, ...]

    def _derive(self) -> None:
        types = tuple(f.ty for f in self.fields)
        self._set("ty", None if any(t is None for t in types) else TupleType(types))


class TupleGetItem(Expr):
    tuple_value: Expr
    index: int

    def _derive(self) -> None:
        whole = self.tuple_value.ty
        if whole is not None and (not isinstance(whole, TupleType) or not 0 <= self.index < len(whole.fields)):
            raise IRError(f"field {self.index} of {whole}", hint="the value must be a tuple with that many fields")
        self._set("ty", None if whole is None else whole.fields[self.index])


class Let(Expr):
    """`body` with `var` bound to `value`; a function value may refer to `var` (recursion)."""

    var: Var
    value: Expr
    body: Expr

    def _derive(self) -> None:
        self._set("ty", self.body.ty)


class If(Expr):
    """Branch on a scalar bool tensor; only the chosen side is evaluated."""

    cond: Expr
    then: Expr
    orelse: Expr

    def _derive(self) -> None:
        self._set("ty", self.then.ty if self.then.ty is not None else self.orelse.ty)


class Function(Expr):
    """A function value.

    attrs: "Primitive" (a fused group), "Compiler" (external), "Composite", "SkipOptimization", …
    """

    params: tuple[Var, ...]
    body: Expr
    ret_type: Any = None
    type_params: tuple[TypeVar, ...] = ()
    attrs: Attrs = EMPTY

    @classmethod
    def _normalize(
        cls, params: Any, body: Expr, ret_type: Any = None, type_params: Any = (), attrs: Any = EMPTY
    ) -> tuple[Any, ...]:
        notes = attrs if isinstance(attrs, Attrs) else Attrs(attrs or {})
        return tuple(params), body, ret_type, tuple(type_params), notes

    def _derive(self) -> None:
        ret = self.ret_type if self.ret_type is not None else self.body.ty
        types = tuple(p.ty for p in self.params)
        known = ret is not None and all(t is not None for t in types)
        self._set("ty", FuncType(types, ret, self.type_params) if known else None)

    def __call__(self, *args: Any) -> Call:
        return Call(self, tuple(as_relay(a) for a in args), EMPTY)

    def with_attr(self, **changes: Any) -> Function:
        return self.replace(attrs=self.attrs.updated(**changes))  # type: ignore[no-any-return]


class RefCreate(Expr):
    value: Expr

    def _derive(self) -> None:
        self._set("ty", None if self.value.ty is None else RefType(self.value.ty))


class RefRead(Expr):
    ref: Expr

    def _derive(self) -> None:
        self._set("ty", self.ref.ty.value if isinstance(self.ref.ty, RefType) else None)


class RefWrite(Expr):
    ref: Expr
    value: Expr

    def _derive(self) -> None:
        self._set("ty", TupleType(()))


class Constructor(Binder, Expr):
    """One case of an algebraic data type: name, field types, the type it belongs to."""

    name: str
    inputs: tuple[Type, ...]
    belongs_to: GlobalTypeVar
    type_vars: tuple[TypeVar, ...] = ()
    tag: int = 0

    def _derive(self) -> None:
        Binder._derive(self)
        ret = TypeCall(self.belongs_to, self.type_vars) if self.type_vars else self.belongs_to
        self._set("ty", FuncType(self.inputs, ret, self.type_vars))

    def __call__(self, *args: Any) -> Call:
        return Call(self, tuple(as_relay(a) for a in args), EMPTY)


class Pattern(Node):
    """Base of match patterns."""


class PatternWildcard(Pattern): ...


class PatternVar(Pattern):
    var: Var


class PatternConstructor(Pattern):
    constructor: Constructor
    patterns: tuple[Pattern, ...] = ()


class PatternTuple(Pattern):
    patterns: tuple[Pattern, ...]


class Clause(Node):
    lhs: Pattern
    rhs: Expr


class Match(Expr):
    """First clause whose pattern fits; `complete` states that some clause always does."""

    data: Expr
    clauses: tuple[Clause, ...]
    complete: bool = True

    def _derive(self) -> None:
        self._set("ty", next((c.rhs.ty for c in self.clauses if c.rhs.ty is not None), None))


class TypeData(Node):
    """Definition of an algebraic data type."""

    header: GlobalTypeVar
    type_vars: tuple[TypeVar, ...]
    constructors: tuple[Constructor, ...]


class IRModule:
    """Functions and data types by name. `mod["main"]` is where execution starts. Passes build new modules.

    A function is a Relay function or a loop program (`tir.PrimFunc`).
    """

    def __init__(
        self, functions: dict[Any, Function] | None = None, types: dict[GlobalTypeVar, TypeData] | None = None
    ) -> None:
        self.functions: dict[GlobalVar, Function] = {}
        self.types = dict(types or {})
        for key, fn in (functions or {}).items():
            self[key] = fn

    @staticmethod
    def from_expr(expr: Any, functions: dict[Any, Function] | None = None) -> IRModule:
        """A module whose main is `expr` (a function, or an expression closed over its free variables)."""
        if isinstance(expr, IRModule):
            return expr
        mod = IRModule(functions)
        if isinstance(expr, PrimFunc):
            mod[str(expr.attrs.get("global_symbol", expr.name))] = expr  # type: ignore[assignment]
            return mod
        mod["main"] = expr if isinstance(expr, Function) else Function(tuple(free_vars(expr)), expr)
        return mod

    def global_var(self, name: str) -> GlobalVar:
        for gv in self.functions:
            if gv.name == name:
                return gv
        raise IRError(f"the module has no function {name!r}", hint=f"it has {sorted(g.name for g in self.functions)}")

    get_global_var = global_var

    def __contains__(self, name: Any) -> bool:
        return any(g is name or g.name == name for g in self.functions)

    def __getitem__(self, key: Any) -> Function:
        return self.functions[key if isinstance(key, GlobalVar) else self.global_var(key)]

    def __setitem__(self, key: Any, fn: Function) -> None:
        if isinstance(key, str):
            key = next((g for g in self.functions if g.name == key), None) or GlobalVar(key, getattr(fn, "ty", None))
        self.functions[key] = fn

    def __iter__(self) -> Iterator[GlobalVar]:
        return iter(self.functions)

    def map(self, fn: Callable[[Function], Function]) -> IRModule:
        """A module with each function replaced by fn(function)."""
        return IRModule({g: fn(f) for g, f in self.functions.items()}, self.types)

    def get_global_vars(self) -> list[GlobalVar]:
        """The names of the functions."""
        return list(self.functions)

    def update(self, other: IRModule) -> None:
        """Takes over the functions and types of another module."""
        for gv, fn in other.functions.items():
            self[gv.name] = fn
        self.types.update(other.types)

    def update_func(self, var: GlobalVar, func: Function) -> None:
        """Replaces a function."""
        self.functions[var] = func

    def script(self) -> str:
        """The text, which parses back (`relay.parse`, `tir.text.parse`)."""
        from warpbeam.relay.module_text import to_text

        return to_text(self, "inline")

    def astext(self, show_meta_data: bool = True) -> str:
        """The text; without meta data, large constants are left out."""
        from warpbeam.relay.module_text import to_text

        return to_text(self, "inline" if show_meta_data else "elide")

    def show(self) -> None:
        """Prints the text, large constants left out."""
        print(self.astext(False))

    def __str__(self) -> str:
        return self.astext(False)


def as_relay(value: Any) -> Expr:
    """An expression from an expression, array, number, or list (a tuple)."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, list | tuple):
        return Tuple(tuple(as_relay(v) for v in value))
    return const(value)


def var(name: str, type_annotation: Type | None = None, shape: Any = None, dtype: str = "float32") -> Var:
    """A variable; the type is given whole or as shape and dtype."""
    if type_annotation is None and shape is not None:
        type_annotation = TensorType(shape, dtype)
    return Var(name, type_annotation)


def const(value: Any, dtype: str | None = None) -> Constant:
    """A constant from a number or array; Python floats become float32, ints int32, unless dtype says otherwise."""
    if dtype is None and not isinstance(value, np.ndarray | np.generic):
        value = np.asarray(value)
        kind = {"f": "float32", "i": "int32"}.get(value.dtype.kind)
        value = value.astype(kind) if kind else value
    elif dtype is not None:
        value = np.asarray(value).astype(dt.to_numpy(dtype))
    return Constant(np.array(value))


def bound_vars(expr: Node) -> set[Var]:
    """Variables bound by functions, lets and patterns anywhere within."""
    from warpbeam.ir.rewrite import post_order

    out: set[Var] = set()
    for n in post_order(expr):
        if isinstance(n, Function):
            out.update(n.params)
        elif isinstance(n, Let | PatternVar):
            out.add(n.var)
    return out


def free_vars(expr: Node) -> list[Var]:
    """Variables used but not bound within `expr`, in order of first use."""
    from warpbeam.ir.rewrite import post_order

    bound = bound_vars(expr)
    return [n for n in post_order(expr) if isinstance(n, Var) and n not in bound]
