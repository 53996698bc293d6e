"""The meaning of Relay: an interpreter over NumPy without recursion, from operators to closures, data and references.

Every operator call runs the operator's NumPy reference. Where a program has effects (references, impure operators),
each `let` value is evaluated once, in the order in which it is bound; pure parts are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError, VerifyError
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import origins, post_order
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
from warpbeam.relay.infer_dims import Dims, evaluate_attrs
from warpbeam.relay.interp_values import Cell, Closure, Data, bind_value, convert, has_dims, match_pattern, widen
from warpbeam.relay.interp_values import widen_attrs as _widen_attrs
from warpbeam.relay.op import Op

__all__ = ["Cell", "Closure", "Data", "Interpreter", "evaluate"]

_EFFECTS = (RefCreate, RefRead, RefWrite)


def evaluate(
    program: IRModule | Expr,
    inputs: Mapping[str, Any] | Sequence[Any] = (),
    dtype: str | None = None,
    check: bool = False,
) -> Any:
    """Runs a module's main (or a function, or an expression over its free variables) on arrays.

    Args:
        inputs: arrays by parameter name, or in order. Numbers and nested tuples are accepted.
        dtype: "float64" computes all floating point in that dtype (an oracle for the rounding of the others).
        check: compares every result's dtype and known extents with its type.
    Returns: an array, or nested tuples, Data, Cell or Closure values as the type says.
    """
    mod = program if isinstance(program, IRModule) else IRModule.from_expr(program)
    return Interpreter(mod, dtype, check).call("main", inputs)


class _Plan:
    """Facts of one function body: uses of each node (to free values early), impure nodes."""

    __slots__ = ("impure", "uses")

    def __init__(self, root: Expr, effects: bool) -> None:
        self.uses: dict[int, int] = {id(root): 1}
        self.impure: set[int] = set()
        for node in post_order(root, enter=lambda n: not isinstance(n, Function)):
            below = [] if isinstance(node, Function) else children(node)
            if not effects:
                for c in below:
                    self.uses[id(c)] = self.uses.get(id(c), 0) + 1
            elif _impure(node) or any(id(c) in self.impure for c in below):
                self.impure.add(id(node))


def _impure(node: Node) -> bool:
    if isinstance(node, Call):
        return not node.op.pure if isinstance(node.op, Op) else not isinstance(node.op, Constructor)
    return isinstance(node, _EFFECTS)


class _Frame:
    """One activation: variables, sizes, values of nodes (`memo`), values of impure nodes of the present let segment."""

    __slots__ = ("dims", "env", "left", "memo", "plan", "segment")

    def __init__(self, env: dict[Var, Any], dims: Dims, plan: _Plan) -> None:
        self.env = env
        self.dims = dims
        self.plan = plan
        self.left: dict[int, int] = {}
        self.memo: dict[int, Any] = {}
        self.segment: dict[int, Any] = {}

    def fresh(self) -> _Frame:
        """The same activation with a new segment."""
        new = _Frame(self.env, self.dims, self.plan)
        new.memo = self.memo
        return new

    def slot(self, node: Node) -> dict[int, Any]:
        return self.segment if id(node) in self.plan.impure else self.memo

    def get(self, node: Node) -> Any:
        return self.slot(node)[id(node)]

    def put(self, node: Node, value: Any) -> None:
        self.slot(node)[id(node)] = value


class Interpreter:
    """Runs functions of one module. Reusable; not shared between threads."""

    def __init__(self, mod: IRModule, dtype: str | None = None, check: bool = False) -> None:
        self.mod = mod
        self.wide = dtype
        self.check = check
        roots = list(mod.functions.values())
        self.effects = any(
            isinstance(n, _EFFECTS) or (isinstance(n, Call) and isinstance(n.op, Op) and not n.op.pure)
            for n in post_order(*roots)
        )
        self._plans: dict[Expr, _Plan] = {}
        self._captures: dict[Function, list[Var]] = {}
        self._constants: dict[Constant, Any] = {}
        self._tasks: list[tuple[Callable[..., None], Any, _Frame, Any]] = []

    def call(self, name: str, inputs: Mapping[str, Any] | Sequence[Any] = ()) -> Any:
        """Calls a function of the module by name."""
        fn = self.mod[name]
        return self._apply(Closure(fn, {}, {}, self._apply), self._arguments(fn, inputs))

    def _arguments(self, fn: Function, inputs: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
        names = [p.name for p in fn.params]
        if isinstance(inputs, Mapping):
            missing, extra = [n for n in names if n not in inputs], [n for n in inputs if n not in names]
            if missing or extra:
                raise VerifyError(f"inputs {missing} are missing, {extra} are unknown", hint=f"the inputs are {names}")
            return [inputs[n] for n in names]
        if isinstance(inputs, np.ndarray) or len(inputs) != len(names):
            raise VerifyError(f"{len(inputs)} inputs given, {len(names)} needed", hint=f"the inputs are {names}")
        return list(inputs)

    def _apply(self, closure: Closure, args: Sequence[Any]) -> Any:
        params = closure.function.params
        values = [convert(a, p.ty, self.wide, p.name) for a, p in zip(args, params, strict=True)]
        outer, self._tasks = self._tasks, []
        try:
            frame = self._enter(closure, values)
            body = closure.function.body
            self._tasks.append((self._eval, body, frame, None))
            with np.errstate(all="ignore"):
                while self._tasks:
                    step, node, at, extra = self._tasks.pop()
                    step(node, at, extra)
            return frame.get(body)
        finally:
            self._tasks = outer

    def _enter(self, closure: Closure, values: Sequence[Any], outer: Dims | None = None) -> _Frame:
        fn = closure.function
        if len(values) != len(fn.params):
            raise VerifyError(f"a function of {len(fn.params)} parameters is called with {len(values)} arguments")
        env, dims = dict(closure.env), dict(closure.dims)
        for p, v in zip(fn.params, values, strict=True):
            env[p] = v
            if p.ty is not None:
                bind_value(p.ty, v, dims, f"argument {p.name}")
        for size, number in (outer or {}).items():  # what no argument's shape tells
            dims.setdefault(size, number)
        plan = self._plans.get(fn.body)
        if plan is None:
            plan = self._plans[fn.body] = _Plan(fn.body, self.effects)
        return _Frame(env, dims, plan)

    # ------------------------------------------------------------------------------------------------ steps

    def _eval(self, node: Any, frame: _Frame, _: Any) -> None:
        """Plans the evaluation of a node: its parts first, then `_finish`."""
        if id(node) in frame.slot(node):
            return
        leaf = _LEAVES.get(type(node))
        if leaf is not None:
            frame.put(node, leaf(self, node, frame))
            return
        push = self._tasks.append
        if isinstance(node, Let):
            inner = frame.fresh() if self.effects else frame
            push((self._bind, node, frame, inner))
            push((self._eval, node.value, inner, None))
            return
        push((self._finish, node, frame, None))
        if isinstance(node, Call):
            for a in reversed(node.args):
                push((self._eval, a, frame, None))
            if not isinstance(node.op, Op):
                push((self._eval, node.op, frame, None))
        elif isinstance(node, If):
            push((self._eval, node.cond, frame, None))
        elif isinstance(node, Match):
            push((self._eval, node.data, frame, None))
        else:
            for c in reversed(children(node)):
                push((self._eval, c, frame, None))

    def _bind(self, node: Let, frame: _Frame, inner: _Frame) -> None:
        value = inner.get(node.value)
        if isinstance(value, Closure) and isinstance(node.value, Function):
            value.env[node.var] = value
        frame.env[node.var] = value
        frame.slot(node.var)[id(node.var)] = value
        after = frame.fresh() if self.effects else frame
        self._tasks.append((self._alias, node, frame, (node.body, after)))
        self._tasks.append((self._eval, node.body, after, None))
        self._release(node.value, frame)

    def _alias(self, node: Node, frame: _Frame, source: tuple[Node, _Frame]) -> None:
        frame.put(node, source[1].get(source[0]))
        self._release(*source)

    def _finish(self, node: Any, frame: _Frame, _: Any) -> None:
        _FINISH[type(node)](self, node, frame)

    def _release(self, node: Node, frame: _Frame) -> None:
        """One use of a value is over; the last one frees it."""
        if self.effects or isinstance(node, Var):
            return
        left = frame.left.get(id(node), frame.plan.uses.get(id(node), 0)) - 1
        frame.left[id(node)] = left
        if left == 0:
            frame.memo.pop(id(node), None)

    def _finish_call(self, node: Call, frame: _Frame) -> None:
        args = [frame.get(a) for a in node.args]
        if isinstance(node.op, Op):
            frame.put(node, self._operator(node, args, frame))
            for a in node.args:
                self._release(a, frame)
            return
        callee = frame.get(node.op)
        if isinstance(callee, Constructor):
            frame.put(node, Data(callee, tuple(args)))
            return
        if not isinstance(callee, Closure):
            raise IRError(f"a {type(callee).__name__} is called like a function")
        inner = self._enter(callee, args, frame.dims if isinstance(node.op, GlobalVar) else None)
        for a in node.args:
            self._release(a, frame)
        body = callee.function.body
        self._tasks.append((self._alias, node, frame, (body, inner)))
        self._tasks.append((self._eval, body, inner, None))

    def _operator(self, node: Call, args: list[Any], frame: _Frame) -> Any:
        for size, operand, element in node.attrs.get("extents", ()):  # sizes that contents tell
            frame.dims[size] = int(args[operand].reshape(-1)[element])
        attrs = evaluate_attrs(node.attrs, frame.dims)
        if self.wide is not None:
            attrs = _widen_attrs(attrs, self.wide)
        try:
            value = node.op.numpy(attrs, *args)
        except (ValueError, TypeError, IndexError, AttributeError, KeyError, np.exceptions.AxisError) as err:
            shapes = ", ".join(str(getattr(a, "shape", type(a).__name__)) for a in args)
            places = ", ".join(sorted(origins(node)))
            raise VerifyError(f"operator {node.op.name} failed on ({shapes}): {err}", where=places) from err
        value = tuple(map(np.asarray, value)) if isinstance(value, tuple | list) else np.asarray(value)
        if self.wide is not None:
            wide = self.wide
            value = tuple(widen(v, wide) for v in value) if isinstance(value, tuple) else widen(value, wide)
        if has_dims(node.ty) or self.check:
            bind_value(node.ty, value, frame.dims, f"result of {node.op.name}")
        if self.check and self.wide is None:
            _check_dtypes(node, value)
        return value

    def _finish_if(self, node: If, frame: _Frame) -> None:
        side = node.then if bool(np.all(frame.get(node.cond))) else node.orelse
        self._release(node.cond, frame)
        self._tasks.append((self._alias, node, frame, (side, frame)))
        self._tasks.append((self._eval, side, frame, None))

    def _finish_match(self, node: Match, frame: _Frame) -> None:
        value = frame.get(node.data)
        for clause in node.clauses:
            found = match_pattern(clause.lhs, value)
            if found is not None:
                frame.env.update(found)
                for v, bound in found.items():
                    frame.put(v, bound)
                self._tasks.append((self._alias, node, frame, (clause.rhs, frame)))
                self._tasks.append((self._eval, clause.rhs, frame, None))
                return
        raise VerifyError(f"no clause of a match fits {value!r}", hint="add a clause `_ => …`")

    def _closure(self, node: Function, frame: _Frame) -> Closure:
        names = self._captures.get(node)
        if names is None:
            names = self._captures[node] = free_vars(node)
        env = {v: frame.env[v] for v in names if v in frame.env}
        return Closure(node, env, dict(frame.dims), self._apply)

    def _variable(self, node: Var, frame: _Frame) -> Any:
        if node not in frame.env:
            raise IRError(f"variable {node.name} is used where it is not bound")
        return frame.env[node]

    def _constant(self, node: Constant, frame: _Frame) -> Any:
        if self.wide is None:
            return node.numpy()
        if node not in self._constants:
            self._constants[node] = widen(node.numpy(), self.wide)
        return self._constants[node]


def _write(it: Interpreter, node: RefWrite, frame: _Frame) -> None:
    frame.get(node.ref).value = frame.get(node.value)
    frame.put(node, ())


def _field(it: Interpreter, node: TupleGetItem, frame: _Frame) -> None:
    frame.put(node, frame.get(node.tuple_value)[node.index])
    it._release(node.tuple_value, frame)


def _check_dtypes(node: Call, value: Any) -> None:
    kinds = node.ty.fields if isinstance(value, tuple) else (node.ty,)
    for want, have in zip(kinds, value if isinstance(value, tuple) else (value,), strict=True):
        if dt.from_numpy(have.dtype) != want.dtype:
            raise VerifyError(f"operator {node.op.name} gave {have.dtype}, its type says {want.dtype}")


_LEAVES: dict[type, Callable[[Interpreter, Any, _Frame], Any]] = {
    Var: Interpreter._variable,
    Constant: Interpreter._constant,
    Function: Interpreter._closure,
    GlobalVar: lambda it, n, f: Closure(it.mod[n], {}, {}, it._apply),
    Constructor: lambda it, n, f: n,
}
_FINISH: dict[type, Callable[[Interpreter, Any, _Frame], None]] = {
    Call: Interpreter._finish_call,
    If: Interpreter._finish_if,
    Match: Interpreter._finish_match,
    Tuple: lambda it, n, f: f.put(n, tuple(f.get(x) for x in n.fields)),
    TupleGetItem: _field,
    RefCreate: lambda it, n, f: f.put(n, Cell(f.get(n.value))),
    RefRead: lambda it, n, f: f.put(n, f.get(n.ref).value),
    RefWrite: _write,
}
