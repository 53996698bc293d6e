"""InferType: types for programs without annotations, by unification over the whole module.

Operators' own rules need complete operand types, so their calls wait until those are known. Functions may be recursive;
declared type parameters are instantiated anew at each call, symbolic sizes of parameters are bound by the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from warpbeam.ir.diagnostics import TypeCheckError, WarpbeamError
from warpbeam.ir.node import Node, children, map_children
from warpbeam.ir.rewrite import add_origins, origins, post_order, substitute
from warpbeam.relay.expr import (
    Call,
    Constructor,
    Expr,
    Function,
    GlobalVar,
    If,
    IRModule,
    Let,
    Match,
    PatternConstructor,
    PatternTuple,
    PatternVar,
    RefCreate,
    RefRead,
    RefWrite,
    Tuple,
    TupleGetItem,
    Var,
    free_vars,
)
from warpbeam.relay.infer_call import call_type
from warpbeam.relay.infer_dims import dim_vars
from warpbeam.relay.infer_solver import Solver, Unknown
from warpbeam.relay.op import Op
from warpbeam.relay.types import FuncType, RefType, TensorType, TupleType, Type

__all__ = ["infer_expr", "infer_types", "is_typed"]


def is_typed(mod: IRModule) -> bool:
    """Whether every expression of the module has a type already."""
    if any(g.ty is None for g in mod.functions):
        return False
    nodes = post_order(*mod.functions.values(), enter=lambda n: not isinstance(n, Type))
    return all(n.ty is not None and _agrees(n) for n in nodes if isinstance(n, Expr))


def _agrees(n: Any) -> bool:
    """Whether types that a node's own construction does not compare are the same at sight."""
    if isinstance(n, If):
        return n.then.ty is n.orelse.ty
    if isinstance(n, Let):
        return n.var.ty is n.value.ty
    if isinstance(n, Function) and n.ret_type is not None:
        return n.ret_type is n.body.ty
    return True


def infer_types(mod: IRModule) -> IRModule:
    """The module with every variable annotated and every expression typed; raises TypeCheckError where it cannot be."""
    return mod if is_typed(mod) else _Inference(mod).run()


def infer_expr(expr: Expr, mod: IRModule | None = None) -> Any:
    """An expression or function with all types found, within the functions and data types of `mod`."""
    inner = IRModule(dict(mod.functions) if mod else {}, mod.types if mod else {})
    whole = expr if isinstance(expr, Function) else Function(tuple(free_vars(expr)), expr)
    key = GlobalVar("main_expression")
    inner[key] = whole
    done = infer_types(inner)["main_expression"]
    return done if isinstance(expr, Function) else done.body


class _Inference:
    def __init__(self, mod: IRModule) -> None:
        done = _instantiated(list(mod.functions.values()))
        self.mod = IRModule({g: done[f] for g, f in mod.functions.items()}, mod.types)  # type: ignore[misc]
        self.open_types: dict[Type, bool] = {}
        self.solver = Solver()
        self.types: dict[Node, Type] = {}
        self.instances: dict[Node, tuple[Unknown, ...]] = {}
        self.bound: dict[Node, list[Let]] = {}
        for n in post_order(*self.mod.functions.values()):
            if isinstance(n, Let):
                self.bound.setdefault(n.value, []).append(n)
        self.waiting: list[tuple[Expr, Callable[[], bool]]] = []
        self.rules: dict[type, Callable[[Any], Type]] = {
            Call: self._call,
            Tuple: lambda n: TupleType(tuple(self.types[f] for f in n.fields)),
            TupleGetItem: self._field,
            Let: self._let,
            If: self._if,
            Function: self._function,
            Match: self._match,
            RefCreate: lambda n: RefType(self.types[n.value]),
            RefRead: self._read,
            RefWrite: self._write,
        }

    def run(self) -> IRModule:
        for g, fn in self.mod.functions.items():
            self.types[g] = g.ty if g.ty is not None else self._declared(fn)
        for g, fn in self.mod.functions.items():
            for node in post_order(fn, enter=lambda n: not isinstance(n, Type)):
                if not isinstance(node, Expr):
                    continue
                if node not in self.types:
                    self._visit(node)
                for let in self.bound.pop(node, ()):  # before the body: calls of the variable see its type
                    what = f"let {let.var.name}"
                    self._same(self._variable(let.var), self.types[node], let, what)
            self._same(self.types[g], self.types[fn], fn, f"function @{g.name}")
            self._settle()
        self._settle()
        self._report()
        return self._rebuild()

    def _declared(self, fn: Function) -> FuncType:
        for p in fn.params:
            self.types[p] = p.ty if p.ty is not None else Unknown(p.name)
        ret = fn.ret_type if fn.ret_type is not None else fn.body.ty
        ret = ret if ret is not None else Unknown("result")
        return FuncType(tuple(self.types[p] for p in fn.params), ret, fn.type_params)

    def _visit(self, node: Any) -> None:
        if node.ty is not None:
            self.types[node] = node.ty
            if type(node) in self.rules and not self._closed(node):
                self._same(node.ty, self.rules[type(node)](node), node, type(node).__name__)
        elif isinstance(node, Var):
            self.types[node] = Unknown(node.name)
        elif isinstance(node, GlobalVar):
            raise TypeCheckError(f"the module has no function @{node.name}")
        else:
            self.types[node] = self.rules[type(node)](node)

    def _closed(self, node: Expr) -> bool:
        """Whether a typed node stands on fully typed parts only, so that it says nothing about others."""
        if isinstance(node, Match) or not _agrees(node):
            return False
        return all(c.ty is not None and not self._open(c.ty) for c in children(node) if isinstance(c, Expr))

    def _open(self, t: Type) -> bool:
        if isinstance(t, TensorType):
            return False
        if t not in self.open_types:
            self.open_types[t] = any(isinstance(n, Unknown) for n in post_order(t))
        return self.open_types[t]

    def _same(self, a: Type, b: Type, node: Node, what: str) -> None:
        try:
            self.solver.unify(a, b, what)
        except TypeCheckError as err:
            raise _at(err, node) from None

    def _wait(self, node: Expr, attempt: Callable[[], bool]) -> None:
        if not attempt():
            self.waiting.append((node, attempt))

    def _settle(self) -> None:
        """Tries what waits for types until nothing moves."""
        while self.waiting:
            left = [(n, attempt) for n, attempt in self.waiting if not attempt()]
            if len(left) == len(self.waiting):
                return
            self.waiting = left

    # ---------------------------------------------------------------------------------- rules

    def _call(self, node: Call) -> Type:
        result = Unknown("result")
        args = [self.types[a] for a in node.args]
        if isinstance(node.op, Op):
            self._wait(node, lambda: self._operator(node, args, result))
            return result
        self._wait(node, lambda: self._apply(node, args, result))
        return result

    def _operator(self, node: Call, args: list[Type], result: Unknown) -> bool:
        known = [self.solver.known(a) for a in args]
        if any(k is None for k in known):
            return False
        try:
            found = node.op.infer(known, node.attrs)
        except WarpbeamError as err:
            raise _at(err, node) from None
        self._same(result, found, node, f"result of {node.op.name}")
        return True

    def _apply(self, node: Call, args: list[Type], result: Unknown) -> bool:
        callee = self.solver.head(self.types[node.op])
        if isinstance(callee, Unknown):
            if isinstance(node.op, Var | GlobalVar):
                self._same(callee, FuncType(tuple(args), result), node, f"call of {node.op.name}")
                return True
            return False
        if not isinstance(callee, FuncType):
            raise _at(TypeCheckError(f"a value of type {self.solver.text(callee)} is called"), node)
        if len(callee.params) != len(args):
            raise _at(TypeCheckError(f"{len(callee.params)} arguments are needed, {len(args)} are given"), node)
        if any(dim_vars(self.solver.resolve(p)) for p in callee.params) and not callee.type_params:
            known = [self.solver.known(a) for a in args]
            if any(k is None for k in known):
                return False
            full: Any = self.solver.resolve(callee)
            try:
                found = call_type(full, known, node.type_args)
            except TypeCheckError as err:
                raise _at(err, node) from None
            self._same(result, found or full.ret, node, "result of a call")
            return True
        fn = self._instance(callee, node)
        for i, (p, a) in enumerate(zip(fn.params, args, strict=True)):
            self._same(p, a, node, f"argument {i}")
        self._same(result, fn.ret, node, "result of a call")
        return True

    def _instance(self, fn: FuncType, node: Node) -> FuncType:
        """`fn` with its type parameters replaced by new unknowns (or the call's type arguments)."""
        if not fn.type_params:
            return fn
        given = getattr(node, "type_args", ())
        fresh = given or tuple(Unknown(v.name) for v in fn.type_params)
        if not given:
            self.instances[node] = fresh
        mapping = dict(zip(fn.type_params, fresh, strict=True))
        plain = FuncType(fn.params, fn.ret)
        return substitute(plain, mapping)  # type: ignore[no-any-return]

    def _field(self, node: TupleGetItem) -> Type:
        result = Unknown("field")

        def attempt() -> bool:
            whole = self.solver.head(self.types[node.tuple_value])
            if isinstance(whole, Unknown):
                return False
            if not isinstance(whole, TupleType) or not 0 <= node.index < len(whole.fields):
                raise _at(TypeCheckError(f"{self.solver.text(whole)} has no field {node.index}"), node)
            self._same(result, whole.fields[node.index], node, f"field {node.index}")
            return True

        self._wait(node, attempt)
        return result

    def _let(self, node: Let) -> Type:
        return self.types[node.body]

    def _if(self, node: If) -> Type:
        self._same(self.types[node.cond], TensorType((), "bool"), node, "condition of an if")
        self._same(self.types[node.then], self.types[node.orelse], node, "branches of an if")
        return self.types[node.then]

    def _function(self, node: Function) -> Type:
        ret = node.ret_type if node.ret_type is not None else self.types[node.body]
        self._same(ret, self.types[node.body], node, "result of a function")
        return FuncType(tuple(self.types[p] for p in node.params), ret, node.type_params)

    def _read(self, node: RefRead) -> Type:
        inner = Unknown("value")
        self._same(self.types[node.ref], RefType(inner), node, "ref_read")
        return inner

    def _write(self, node: RefWrite) -> Type:
        self._same(self.types[node.ref], RefType(self.types[node.value]), node, "ref_write")
        return TupleType(())

    def _match(self, node: Match) -> Type:
        result = Unknown("result")
        for clause in node.clauses:
            todo = [(clause.lhs, self.types[node.data])]
            while todo:
                p, t = todo.pop()
                if isinstance(p, PatternVar):
                    self._same(self._variable(p.var), t, node, f"variable {p.var.name} of a match")
                elif isinstance(p, PatternTuple):
                    parts = tuple(Unknown("part") for _ in p.patterns)
                    self._same(TupleType(parts), t, node, "tuple pattern")
                    todo.extend(zip(p.patterns, parts, strict=True))
                elif isinstance(p, PatternConstructor):
                    fn = self._instance(p.constructor.ty, p)
                    self._same(fn.ret, t, node, f"pattern {p.constructor.name}")
                    if p.patterns and len(p.patterns) != len(fn.params):
                        raise _at(TypeCheckError(f"{p.constructor.name} has {len(fn.params)} fields"), node)
                    todo.extend(zip(p.patterns, fn.params, strict=False))
            self._same(result, self.types[clause.rhs], node, "clauses of a match")
        return result

    def _variable(self, v: Var) -> Type:
        if v not in self.types:
            self.types[v] = v.ty if v.ty is not None else Unknown(v.name)
        return self.types[v]

    # ----------------------------------------------------------------------------------- result

    def _report(self) -> None:
        if not self.waiting:
            return
        open_: list[str] = []
        for node, _ in self.waiting:
            below: Iterable[Any] = post_order(node)
            open_ += [f"%{v.name}" for v in below if isinstance(v, Var) and self.solver.known(self.types[v]) is None]
        node = self.waiting[0][0]
        name = node.op.name if isinstance(node, Call) and isinstance(node.op, Op) else type(node).__name__
        raise _at(
            TypeCheckError(
                f"the type of {name} cannot be found",
                why=f"the types of {', '.join(dict.fromkeys(open_)) or 'its operands'} are not determined",
                hint="annotate these variables, such as %x: Tensor[(1, 3), float32]",
            ),
            node,
        )

    def _final(self, t: Type) -> Type:
        """A resolved type; what nothing determines becomes the empty tuple."""
        t = self.solver.resolve(t)
        mapping: dict[Any, Any] = {n: TupleType(()) for n in post_order(t) if isinstance(n, Unknown)}
        return substitute(t, mapping)  # type: ignore[no-any-return]

    def _rebuild(self) -> IRModule:
        done: dict[Node, Node] = {}
        for node, t in self.types.items():
            if isinstance(node, Var) and node.ty is None:
                done[node] = Var(node.name, self._final(t))
            elif isinstance(node, GlobalVar) and node.ty is None:
                done[node] = GlobalVar(node.name, self._final(t))
        roots = self.mod.functions.values()
        for node in post_order(*roots, enter=lambda n: not isinstance(n, Type)):
            if node in done:
                continue
            new: Any = map_children(node, lambda c: done.get(c, c))
            if isinstance(new, Call) and new.ty is None and node in self.instances:
                new = new.replace(type_args=tuple(self._final(t) for t in self.instances[node]))
            if isinstance(new, Call) and any(map(self._open, new.type_args)):
                new = new.replace(type_args=tuple(self._final(t) for t in new.type_args))
            if isinstance(new, Expr) and new.ty is None and not isinstance(new, Constructor):
                raise _at(TypeCheckError(f"the type of a {type(new).__name__} cannot be found"), node)
            if new is not node:
                add_origins(new, origins(node))
            done[node] = new
        functions: dict[Any, Any] = {done.get(g, g): done[f] for g, f in self.mod.functions.items()}
        return IRModule(functions, self.mod.types)


def _nullary(node: Node) -> bool:
    """Whether a call such as Nil() says nothing about its own type arguments."""
    if not isinstance(node, Call) or node.args or node.type_args or isinstance(node.op, Op):
        return False
    return isinstance(node.op.ty, FuncType) and bool(node.op.ty.type_params)


def _instantiated(roots: list[Function]) -> dict[Node, Node]:
    """Old node -> new, where every use of a nullary polymorphic call has type arguments of its own."""
    done: dict[Node, Node] = {}

    def fresh(c: Node) -> Node:
        if _nullary(c):
            return Call(c.op, (), c.attrs, tuple(Unknown(v.name) for v in c.op.ty.type_params))  # type: ignore[attr-defined]
        return done.get(c, c)

    for node in post_order(*roots, enter=lambda n: not isinstance(n, Type)):
        new = map_children(node, fresh)
        if new is not node:
            add_origins(new, origins(node))
        done[node] = new
    return done


def _at(err: WarpbeamError, node: Node) -> WarpbeamError:
    """The error with the source places of a node, where there are any."""
    places = ", ".join(sorted(origins(node)))
    return type(err)(err.what, err.where or places, err.why, err.hint)
