"""What a program does before it runs: lets, closures, data types and matches on what is known vanish from main.

    def @main(%x) { let %f = fn (%y) { %y + %x }; match (Cons(%f(%x), Nil)) { Cons(%h, _) => %h } }
->  def @main(%x) { %x + %x }

A value is an expression of the new program, a tuple of values, `Data` of a known case, or a closure. Calls are replaced
by what they give. A function that calls itself, from tensors to tensors, becomes a function of the module with what it
captured as further parameters; that is how loops stay loops. Others must end on what is known here.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.names import fresh_name
from warpbeam.ir.rewrite import add_origins, origins, post_order
from warpbeam.ir.transform import module_pass
from warpbeam.relay.expr import (
    Call,
    Constant,
    Constructor,
    Expr,
    Function,
    GlobalVar,
    If,
    IRModule,
    Let,
    Match,
    RefCreate,
    RefRead,
    RefWrite,
    Tuple,
    TupleGetItem,
    Var,
    free_vars,
)
from warpbeam.relay.infer_dims import substitute_dims
from warpbeam.relay.interp_values import Data, match_pattern
from warpbeam.relay.op import Op
from warpbeam.relay.text import print_type
from warpbeam.relay.text_print import run_jobs
from warpbeam.relay.types import FuncType, TensorType, TupleType
from warpbeam.tir.expr import Var as DimVar

#: calls that may be replaced by what they give: in one another, and in all
MOST_NESTED, MOST = 2_000, 100_000
_HIGHER = (Let, Match, Constructor, RefCreate, RefRead, RefWrite)

Job = Generator[Any, Any, Any]


@module_pass(opt_level=0, name="PartialEvaluate")
class PartialEvaluate:
    """A module of first-order functions on tensors and tuples of them; main's result must be such."""

    def transform_module(self, mod: IRModule, ctx: Any) -> IRModule:
        found, result = evaluated(mod)
        if not isinstance(result, Expr):
            _residual(result, "the result of main")
        return found


def evaluated(mod: IRModule) -> tuple[IRModule, Any]:
    """The module with nothing but first-order functions, and what main gives: an expression, or a tuple or `Data` of
    such. Types must be known. A module that is first-order already stays as it is.

    Raises:
        CompileError: if a closure, a case or a recursion depends on what only running tells; if there are references.
    """
    if not _is_higher(mod):
        return mod, mod["main"].body
    return _Evaluator(mod).run()


def _is_higher(mod: IRModule) -> bool:
    functions = [f for f in mod.functions.values() if isinstance(f, Function)]
    if any(not _first_order(f) for f in functions):
        return True
    for node in post_order(*functions, enter=lambda n: not _is_primitive(n)):
        if isinstance(node, _HIGHER):
            return True
        if isinstance(node, Call) and not isinstance(node.op, Op | GlobalVar) and not _is_primitive(node.op):
            return True
    return False


def _is_primitive(node: Any) -> bool:
    return isinstance(node, Function) and "Primitive" in node.attrs


def _plain(ty: Any) -> bool:
    return all(map(_plain, ty.fields)) if isinstance(ty, TupleType) else isinstance(ty, TensorType)


def _first_order(fn: Function) -> bool:
    """Whether a function takes and gives tensors and tuples of them."""
    return isinstance(fn.ty, FuncType) and not fn.type_params and all(map(_plain, (*fn.ty.params, fn.ty.ret)))


class _Closure:
    """A function with the values of the variables around it."""

    __slots__ = ("env", "extra", "function", "name", "place")

    def __init__(self, function: Function, env: dict[Var, Any], name: Var | None) -> None:
        self.function = function
        self.env = env
        self.name = name
        self.place: GlobalVar | None = None  #: what it became
        self.extra: list[Expr] = []  #: further arguments of that


class _Frame:
    """One activation: variables, sizes, values of nodes."""

    __slots__ = ("dims", "env", "memo")

    def __init__(self, env: dict[Var, Any], dims: dict[DimVar, Any]) -> None:
        self.env = env
        self.dims = dims
        self.memo: dict[Expr, Any] = {}


class _Evaluator:
    def __init__(self, mod: IRModule) -> None:
        self.mod = mod
        self.made = IRModule({}, mod.types)
        self.names = {g.name for g in mod.functions}
        self.calls = self.nested = 0
        self.captures: dict[Function, list[Var]] = {}

    def run(self) -> tuple[IRModule, Any]:
        result: Any = None
        for gv, fn in self.mod.functions.items():
            if not isinstance(fn, Function) or _is_primitive(fn):
                self.made[gv] = fn
            elif _first_order(fn) or gv.name == "main":
                value = run_jobs(self.eval(fn.body, _Frame({p: p for p in fn.params}, {})))
                body = _joined(value) if gv.name == "main" else _residual(value, f"the result of @{gv.name}")
                result = value if gv.name == "main" else result
                self.made[gv] = Function(fn.params, body, None, (), fn.attrs)
        return self.made, result

    def eval(self, node: Any, frame: _Frame) -> Job:
        """The value of an expression."""
        if node in frame.memo:
            return frame.memo[node]
        handler = _HANDLERS.get(type(node))
        if handler is None:
            why = "references change while a program runs"
            raise CompileError(f"{type(node).__name__} cannot be compiled", why=why,
                               hint='create_executor("debug") interprets them')  # fmt: skip
        value = yield handler(self, node, frame)
        frame.memo[node] = value
        return value

    def leaf(self, node: Any, frame: _Frame) -> Job:
        return frame.env.get(node, node)
        yield

    def tuple(self, node: Tuple, frame: _Frame) -> Job:
        fields = []
        for f in node.fields:
            fields.append((yield self.eval(f, frame)))
        return tuple(fields)

    def item(self, node: TupleGetItem, frame: _Frame) -> Job:
        whole = yield self.eval(node.tuple_value, frame)
        return whole[node.index] if isinstance(whole, tuple) else TupleGetItem(whole, node.index)

    def let(self, node: Let, frame: _Frame) -> Job:
        value = node.value
        if isinstance(value, Function):
            frame.env[node.var] = _Closure(value, frame.env, node.var)
        else:
            frame.env[node.var] = yield self.eval(value, frame)
        return (yield self.eval(node.body, frame))

    def function(self, node: Function, frame: _Frame) -> Job:
        return node if _is_primitive(node) else _Closure(node, frame.env, None)
        yield

    def call(self, node: Call, frame: _Frame) -> Job:
        args = []
        for a in node.args:
            args.append((yield self.eval(a, frame)))
        if isinstance(node.op, Op):
            plain = tuple(_residual(a, f"an operand of {node.op.name}") for a in args)
            attrs = substitute_dims(node.attrs, frame.dims)
            same = attrs is node.attrs and all(a is b for a, b in zip(plain, node.args, strict=True))
            made = node if same else Call(node.op, plain, attrs)
            add_origins(made, origins(node))
            return made
        callee = yield self.eval(node.op, frame)
        return (yield self.apply(callee, args))

    def apply(self, callee: Any, args: Sequence[Any]) -> Job:
        """What a call gives."""
        if isinstance(callee, Constructor):
            return Data(callee, tuple(args))
        if isinstance(callee, _Closure):
            own = callee.name is not None and callee.name in self.captured(callee.function)
            if own and _first_order(callee.function):
                if callee.place is None:
                    yield self.lift(callee)
                return self.named(callee.place, [*args, *callee.extra])
            env = {v: callee.env[v] for v in self.captured(callee.function) if v in callee.env}
            return (yield self.inside(callee.function, env, args))
        if isinstance(callee, GlobalVar):
            fn = self.mod[callee]
            if not isinstance(fn, Function) or _is_primitive(fn) or _first_order(fn):
                return self.named(callee, args)
            return (yield self.inside(fn, {}, args))
        if isinstance(callee, Function):
            return Call(callee, tuple(_residual(a, "an argument of a primitive function") for a in args))
        raise CompileError("which function is called depends on what only running tells",
                           hint='create_executor("debug") interprets such programs')  # fmt: skip

    def named(self, gv: Any, args: Sequence[Any]) -> Call:
        return Call(gv, tuple(_residual(a, f"an argument of @{gv.name}") for a in args))

    def captured(self, fn: Function) -> list[Var]:
        if fn not in self.captures:
            self.captures[fn] = free_vars(fn)
        return self.captures[fn]

    def inside(self, fn: Function, env: dict[Var, Any], args: Sequence[Any]) -> Job:
        """What the body gives, for these arguments."""
        self.calls += 1
        self.nested += 1
        if self.nested > MOST_NESTED or self.calls > MOST:
            hint = "let the function take and give tensors, and end with the call of itself"
            raise CompileError("a recursion does not end on what is known before a program runs",
                               why=f"{self.calls} calls were followed, {self.nested} deep", hint=hint)  # fmt: skip
        dims: dict[DimVar, Any] = {}
        for p, a in zip(fn.params, args, strict=True):
            env[p] = a
            _bind_dims(p.ty, a, dims)
        value = yield self.eval(fn.body, _Frame(env, dims))
        self.nested -= 1
        return value

    def lift(self, closure: _Closure) -> Job:
        """Makes a closure a function of the module; what it captured comes as further arguments."""
        fn = closure.function
        moved: dict[Expr, Var] = {}
        env: dict[Var, Any] = {}
        for v in self.captured(fn):
            if v is not closure.name and v in closure.env:
                env[v] = _moved(closure.env[v], moved)
        base = closure.name.name if closure.name is not None else "function"
        ty = FuncType((*fn.ty.params, *(v.ty for v in moved.values())), fn.ty.ret)
        closure.place = GlobalVar(fresh_name(base, self.names), ty)
        closure.extra = list(moved)
        inner = _Closure(fn, {}, closure.name)
        inner.place, inner.extra = closure.place, list(moved.values())
        params = tuple(Var(p.name, p.ty) for p in fn.params)
        env.update(zip(fn.params, params, strict=True))
        if closure.name is not None:
            env[closure.name] = inner
        value = yield self.eval(fn.body, _Frame(env, {}))
        body = _residual(value, f"the result of {base}")
        self.made[closure.place] = Function((*params, *moved.values()), body, fn.ty.ret)

    def branch(self, node: If, frame: _Frame) -> Job:
        cond = _residual((yield self.eval(node.cond, frame)), "a condition")
        if isinstance(cond, Constant):
            return (yield self.eval(node.then if bool(np.all(cond.numpy())) else node.orelse, frame))
        then = yield self.eval(node.then, frame)
        orelse = yield self.eval(node.orelse, frame)
        return _merged(cond, then, orelse)

    def match(self, node: Match, frame: _Frame) -> Job:
        value = yield self.eval(node.data, frame)
        if not isinstance(value, Data | tuple) and any(_looks_inside(c.lhs) for c in node.clauses):
            raise CompileError("which case a value is depends on what only running tells",
                               why=f"it is of type {print_type(value.ty)}" if isinstance(value, Expr) else "",
                               hint='create_executor("debug") interprets such programs')  # fmt: skip
        for clause in node.clauses:
            found = match_pattern(clause.lhs, value)
            if found is not None:
                frame.env.update(found)
                return (yield self.eval(clause.rhs, frame))
        raise CompileError("no clause of a match fits", why=f"the value is {value!r}", hint="add a clause `_ => …`")


def _looks_inside(pattern: Any) -> bool:
    return type(pattern).__name__ in ("PatternConstructor", "PatternTuple")


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, tuple) else isinstance(value, Expr)


def _joined(value: Any) -> Expr:
    """A value as one expression; the fields of data stand as those of a tuple. It may be as deep as a list is long."""
    done: dict[int, Expr] = {}
    stack = [value]
    while stack:
        v = stack[-1]
        parts = v.fields if isinstance(v, Data) else v if isinstance(v, tuple) else ()
        waiting = [p for p in parts if id(p) not in done]
        if waiting:
            stack += waiting
            continue
        is_group = isinstance(v, Data | tuple)
        done[id(v)] = _tuple_of([done[id(p)] for p in parts]) if is_group else _residual(v, "the result of main")
        stack.pop()
    return done[id(value)]


def _residual(value: Any, what: str) -> Expr:
    """A value as an expression of the new program."""
    if isinstance(value, Expr) and not isinstance(value, GlobalVar | Constructor):
        return value
    if isinstance(value, tuple):
        return _tuple_of([_residual(f, what) for f in value])
    kind = f"data ({value.constructor.name})" if isinstance(value, Data) else "a function"
    raise CompileError(f"{what} is {kind}", why="compiled functions take and give tensors and tuples of them",
                       hint='create_executor("debug") interprets such programs')  # fmt: skip


def _tuple_of(fields: list[Expr]) -> Expr:
    first = fields[0] if fields else None
    if isinstance(first, TupleGetItem) and isinstance(first.tuple_value.ty, TupleType):
        whole = first.tuple_value
        items = [TupleGetItem(whole, i) for i in range(len(whole.ty.fields))]
        if len(items) == len(fields) and all(a is b for a, b in zip(items, fields, strict=True)):
            return whole
    return Tuple(tuple(fields))


def _merged(cond: Expr, then: Any, orelse: Any) -> Any:
    """What an If on a condition of the running program gives."""
    if then is orelse:
        return then
    if _is_plain(then) and _is_plain(orelse):
        return If(cond, _residual(then, "a branch"), _residual(orelse, "a branch"))
    if isinstance(then, tuple) and isinstance(orelse, tuple) and len(then) == len(orelse):
        return tuple(_merged(cond, a, b) for a, b in zip(then, orelse, strict=True))
    if isinstance(then, Data) and isinstance(orelse, Data) and then.constructor is orelse.constructor:
        fields = zip(then.fields, orelse.fields, strict=True)
        return Data(then.constructor, tuple(_merged(cond, a, b) for a, b in fields))
    raise CompileError("the branches of an If give different cases or functions",
                       why="which it is depends on what only running tells",
                       hint='create_executor("debug") interprets such programs')  # fmt: skip


def _moved(value: Any, moved: dict[Expr, Var]) -> Any:
    """The value with parameters in place of its expressions, which are added; constants stay."""
    if isinstance(value, tuple):
        return tuple(_moved(f, moved) for f in value)
    if isinstance(value, Data):
        return Data(value.constructor, tuple(_moved(f, moved) for f in value.fields))
    if isinstance(value, _Closure):
        names = [v for v in free_vars(value.function) if v in value.env and v is not value.name]
        env = {v: _moved(value.env[v], moved) for v in names}
        new = _Closure(value.function, env, value.name)
        if value.name is not None:
            env[value.name] = new
        return new
    if isinstance(value, Constant | GlobalVar | Constructor | Function):
        return value
    return moved.setdefault(value, Var(f"c{len(moved)}", value.ty))


def _bind_dims(declared: Any, value: Any, dims: dict[DimVar, Any]) -> None:
    """Sizes of a parameter's type as the argument has them."""
    if isinstance(declared, TupleType):
        ty = value.ty if isinstance(value, Expr) else None
        for i, part in enumerate(declared.fields):
            _bind_dims(part, value[i] if isinstance(value, tuple) else _Typed(ty.fields[i]), dims)
    elif isinstance(declared, TensorType) and isinstance(getattr(value, "ty", None), TensorType):
        for want, have in zip(declared.shape, value.ty.shape, strict=True):
            if isinstance(want, DimVar) and want is not have:
                dims.setdefault(want, have)


class _Typed:
    """Something of a type."""

    def __init__(self, ty: Any) -> None:
        self.ty = ty


_HANDLERS: dict[type, Any] = {
    Call: _Evaluator.call, Tuple: _Evaluator.tuple, TupleGetItem: _Evaluator.item, Let: _Evaluator.let,
    Function: _Evaluator.function, If: _Evaluator.branch, Match: _Evaluator.match, Var: _Evaluator.leaf,
    Constant: _Evaluator.leaf, GlobalVar: _Evaluator.leaf, Constructor: _Evaluator.leaf,
}  # fmt: skip
