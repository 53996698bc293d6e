"""Reads the source of a hybrid script and builds its statement."""

from __future__ import annotations

import ast
import inspect
import operator
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.te.errors import TEError
from warpbeam.te.operation import Tensor
from warpbeam.tir import expr as e
from warpbeam.tir import op
from warpbeam.tir.expr import Buffer, PrimExpr, Var
from warpbeam.tir.ir_builder import BufferVar, IRBuilder
from warpbeam.tir.stmt import AssertStmt, For, Stmt
from warpbeam.tir.text.names import DTYPE

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift, ast.Pow: op.power,
}  # fmt: skip
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_KINDS = {
    "range": "serial",
    "serial": "serial",
    "parallel": "parallel",
    "unroll": "unrolled",
    "vectorize": "vectorized",
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "likely": op.likely, "ceil_div": e.ceildiv, "max_num_threads": lambda *_: 1024, "len": lambda x: x.shape[0],
    "min": e.minimum, "max": e.maximum, "abs": op.abs, "if_then_else": op.if_then_else,
    **{n: getattr(op, n) for n in (
        "exp", "log", "sqrt", "rsqrt", "sigmoid", "tanh", "power", "popcount", "round", "floor", "ceil", "trunc", "erf",
        "sin", "cos", "fmod", "isnan", "floordiv", "floormod", "truncdiv", "truncmod", "min_value", "max_value")},
}  # fmt: skip


class HybridError(TEError):
    """A hybrid script uses what the language does not have; the message names the line.

    for x in enumerate(a):              # no loop of the language: this error
    for i in range(a.shape[0]):         # its fix

    Wrong:
        @te.hybrid.script
        def rows(a):
            b = output_tensor((4,), "float32")
            b[0] = a.total
            return b

        rows(A)
    Right:
        @te.hybrid.script
        def rows(a):
            b = output_tensor((4,), "float32")
            for i in range(4):
                b[i] = a[i, 0]
            return b

        rows(A)
    """


class Scalar(BufferVar):
    """A number that the script assigns to: memory of one element."""


class Script:
    """The state of reading one script: names in scope, the statement so far, the result."""

    def __init__(self, function: Any, args: tuple[Any, ...]) -> None:
        self.function, self.args = function, args
        lines, self.first_line = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
        self.tree = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
        self.file = inspect.getsourcefile(function) or "<script>"
        self.name: str = function.__name__
        self.ib = IRBuilder()
        closure = inspect.getclosurevars(function)
        self.outside: dict[str, Any] = {**function.__globals__, **closure.nonlocals}
        self.scopes: list[dict[str, Any]] = [{}]
        self.inputs: tuple[Tensor, ...] = ()
        self.input_buffers: tuple[Buffer, ...] = ()
        self.made: list[BufferVar] = []
        self.outputs: tuple[Buffer, ...] = ()
        self.body: Stmt
        self.target = "buf"

    def fail(self, node: ast.AST, message: str, hint: str = "") -> NoReturn:
        line = self.first_line + getattr(node, "lineno", 1) - 1
        raise HybridError(f"{self.name}: {message}", where=f"{self.file}:{line}", hint=hint)

    # --------------------------------------------------------------------------------------------------------- function

    def parse(self) -> Script:
        """Reads the function; fills `outputs` and `body`."""
        names = [a.arg for a in self.tree.args.args]
        if len(names) != len(self.args):
            self.fail(self.tree, f"takes {len(names)} arguments, got {len(self.args)}")
        tensors: dict[Tensor, Buffer] = {}

        def value(arg: Any) -> Any:
            if isinstance(arg, list | tuple):
                return [value(a) for a in arg]
            if isinstance(arg, Tensor):
                return BufferVar(self.ib, tensors.setdefault(arg, Buffer(arg.op.name, arg.shape, arg.dtype)))
            return arg

        for name, arg in zip(names, self.args, strict=True):
            self.scopes[0][name] = value(arg)
        self.inputs, self.input_buffers = tuple(tensors), tuple(tensors.values())
        *rest, last = self.tree.body
        if not isinstance(last, ast.Return):
            self.fail(last, "does not end with a return", hint="return the output tensors in the last line")
        self.block(rest, keep=True)
        self.result(last)
        self.body = self.ib.get()
        return self

    def result(self, node: ast.Return) -> None:
        found = [] if node.value is None else self.expr(node.value)
        values = found if isinstance(found, list | tuple) else [found]
        for v in values:
            if not any(v is m for m in self.made):
                self.fail(node, "returns what is no output tensor", hint="make it with output_tensor(shape, dtype)")
        if len({id(v) for v in values}) != len(self.made) or not values:
            self.fail(node, f"makes {len(self.made)} output tensors and returns {len(values)}")
        self.outputs = tuple(v.buffer for v in values)

    def block(self, body: list[ast.stmt], keep: bool = False) -> None:
        self.scopes.append({})
        for s in body:
            handler = _STATEMENTS.get(type(s))
            if handler is None:
                self.fail(s, f"{type(s).__name__} is no statement of a hybrid script")
            try:
                handler(self, s)
            except HybridError:
                raise
            except (WarpbeamError, TypeError, AttributeError, IndexError) as err:
                self.fail(s, str(getattr(err, "what", err)), hint=str(getattr(err, "hint", "") or ""))
        if not keep:
            self.scopes.pop()

    def lookup(self, name: str) -> Any:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return self.outside.get(name)

    # ------------------------------------------------------------------------------------------------------- statements

    def assign(self, node: ast.Assign) -> None:
        if len(node.targets) != 1:
            self.fail(node, "assigns to several targets at once")
        target = node.targets[0]
        if isinstance(target, ast.Tuple):
            values = self.expr(node.value)
            if not isinstance(values, list | tuple) or len(values) != len(target.elts):
                self.fail(node, f"{len(target.elts)} targets do not fit the value")
            for t, v in zip(target.elts, values, strict=True):
                self.store(t, v)
            return
        self.target = target.id if isinstance(target, ast.Name) else "buf"
        self.store(target, self.expr(node.value))

    def store(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Subscript):
            base, index = self.place(target)
            base[index] = value
        elif isinstance(target, ast.Name):
            old = next((s[target.id] for s in reversed(self.scopes) if target.id in s), None)
            if isinstance(value, BufferVar) and not isinstance(value, Scalar):
                self.scopes[-1][target.id] = value
            elif isinstance(old, Scalar):
                old[0] = self.read(value)
            elif isinstance(value, PrimExpr | int | float | Scalar):
                held = e.as_expr(self.read(value))
                memory = self.ib.allocate(held.dtype, (1,), target.id, scope="local")
                own = Scalar(self.ib, memory.buffer)
                own[0] = held
                self.scopes[-1][target.id] = own
            else:
                self.scopes[-1][target.id] = value
        else:
            self.fail(target, f"assigns to a {type(target).__name__}")

    def augmented(self, node: ast.AugAssign) -> None:
        old, by = self.expr(node.target), self.expr(node.value)
        if type(node.op) not in _BINARY:
            self.fail(node, f"{type(node.op).__name__} is no operation of a hybrid script")
        self.store(node.target, _BINARY[type(node.op)](self.read(old), self.read(by)))

    def read(self, value: Any) -> Any:
        return value[0] if isinstance(value, Scalar) else value

    def annotated(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.store(node.target, self.expr(node.value))

    def loop(self, node: ast.For) -> None:
        how = node.iter
        if not (isinstance(how, ast.Call) and isinstance(how.func, ast.Name) and isinstance(node.target, ast.Name)):
            self.fail(node, "loops over what is no range", hint="for i in range(n), parallel, unroll, vectorize, bind")
        name, kind = node.target.id, how.func.id
        args = [self.read(self.expr(a)) for a in how.args]
        if node.orelse:
            self.fail(node, "else after a loop is no part of a hybrid script")
        if kind == "const_range":
            for k in range(*(int(a) for a in args)):
                self.body_with(name, k, node.body)
        elif kind == "bind":
            var = Var(self.ib._fresh(name))
            tag, extent = str(args[0]), e.cast("int64", e.as_expr(args[1]))
            with self.ib._scope(var, lambda body: For(var, 0, extent, "thread_binding", body, {}, tag)):
                self.body_with(name, var, node.body)
        elif kind in _KINDS:
            low, high, step = {1: (0, *args, 1), 2: (*args, 1), 3: tuple(args)}.get(len(args), (0, None, 1))
            if high is None:
                self.fail(node, f"{kind} takes one to three numbers, got {len(args)}")
            count = high if step == 1 else e.ceildiv(e.sub(high, low), step)
            with self.ib.for_range(low if step == 1 else 0, count, name, kind=_KINDS[kind]) as i:
                self.body_with(name, i if step == 1 else low + i * step, node.body)
        else:
            self.fail(node, f"{kind} is no loop", hint="range, parallel, unroll, vectorize, const_range or bind")

    def body_with(self, name: str, value: Any, body: list[ast.stmt]) -> None:
        self.scopes.append({name: value})
        self.block(body)
        self.scopes.pop()

    def branch(self, node: ast.If) -> None:
        cond = self.read(self.expr(node.test))
        if not isinstance(cond, PrimExpr) or isinstance(cond, e.IntImm):
            self.block(node.body if bool(cond) else node.orelse)
            return
        with self.ib.if_scope(cond):
            self.block(node.body)
        if node.orelse:
            with self.ib.else_scope():
                self.block(node.orelse)

    def loop_while(self, node: ast.While) -> None:
        with self.ib.while_loop(self.read(self.expr(node.test))):
            self.block(node.body)

    def check(self, node: ast.Assert) -> None:
        message = "an assertion of a hybrid script" if node.msg is None else str(self.expr(node.msg))
        self.ib.emit(AssertStmt(self.read(self.expr(node.test)), message))

    def effect(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        found = self.expr(node.value)
        if not isinstance(found, PrimExpr | Stmt):
            self.fail(node, "a value that nothing uses")
        self.ib.emit(found)

    # ------------------------------------------------------------------------------------------------------ expressions

    def expr(self, node: ast.expr) -> Any:
        handler = _EXPRS.get(type(node))
        if handler is None:
            self.fail(node, f"{type(node).__name__} is no expression of a hybrid script")
        return handler(self, node)

    def named(self, node: ast.Name) -> Any:
        found = self.lookup(node.id)
        if found is None and node.id != "None":
            self.fail(node, f"name {node.id!r} has no value here")
        return self.read(found)

    def place(self, node: ast.Subscript) -> tuple[Any, Any]:
        """The buffer and all indices of `a[i][j, k]`."""
        index = self.expr(node.slice)
        own = index if isinstance(index, tuple) else (index,)
        if isinstance(node.value, ast.Subscript):
            base, outer = self.place(node.value)
            if isinstance(base, BufferVar):
                return base, (*outer, *own)
            return base[outer[0]], own
        return self.expr(node.value), own

    def element(self, node: ast.Subscript) -> Any:
        base, index = self.place(node)
        if isinstance(base, BufferVar):
            return base[tuple(self.read(i) for i in index)]
        at = index[0]
        return base[at.value if isinstance(at, e.IntImm) else at]

    def binary(self, node: ast.BinOp) -> Any:
        if type(node.op) not in _BINARY:
            self.fail(node, f"{type(node.op).__name__} is no operation of a hybrid script")
        return _BINARY[type(node.op)](self.expr(node.left), self.expr(node.right))

    def unary(self, node: ast.UnaryOp) -> Any:
        value = self.expr(node.operand)
        if isinstance(node.op, ast.Not):
            return e.lnot(value) if isinstance(value, PrimExpr) else not value
        if isinstance(node.op, ast.USub):
            return -value
        return ~value if isinstance(node.op, ast.Invert) else value

    def compare(self, node: ast.Compare) -> Any:
        values = [self.expr(n) for n in (node.left, *node.comparators)]
        for o in node.ops:
            if type(o) not in _COMPARE:
                self.fail(node, f"{type(o).__name__} is no comparison of a hybrid script")
        parts = [_COMPARE[type(o)](a, b) for o, a, b in zip(node.ops, values[:-1], values[1:], strict=True)]
        return parts[0] if len(parts) == 1 else op.all(*parts)

    def logic(self, node: ast.BoolOp) -> Any:
        parts = [self.expr(v) for v in node.values]
        return op.all(*parts) if isinstance(node.op, ast.And) else op.any(*parts)

    def choice(self, node: ast.IfExp) -> Any:
        cond = self.expr(node.test)
        if not isinstance(cond, PrimExpr):
            return self.expr(node.body if cond else node.orelse)
        return op.if_then_else(cond, self.expr(node.body), self.expr(node.orelse))

    def attribute(self, node: ast.Attribute) -> Any:
        return getattr(self.expr(node.value), node.attr)

    def call(self, node: ast.Call) -> Any:
        args = [self.expr(a) for a in node.args]
        named = {str(k.arg): self.expr(k.value) for k in node.keywords}
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ("output_tensor", "allocate"):
            return self.memory(node, name, *args, **named)
        if name in _FUNCTIONS and not any(name in s for s in self.scopes):
            return _FUNCTIONS[name](*args, **named)
        if name and DTYPE.match(name):
            return e.cast(name, e.as_expr(args[0]))
        found = self.lookup(name) if name else self.expr(node.func)
        if not callable(found):
            self.fail(node, f"{name or ast.unparse(node.func)} is no function of a hybrid script")
        return found(*args, **named)

    def memory(self, node: ast.Call, name: str, shape: Any, dtype: str = "float32", scope: str = "global") -> BufferVar:
        dims = tuple(shape) if isinstance(shape, list | tuple) else (shape,)
        if name == "allocate":
            return self.ib.allocate(dtype, dims, self.target, scope=scope)
        if len(self.scopes) > 2:
            self.fail(node, "output_tensor stands inside a loop or branch", hint="make output tensors at the top")
        made = BufferVar(
            self.ib, Buffer(f"{self.name}" if not self.made else f"{self.name}.v{len(self.made)}", dims, dtype)
        )
        self.made.append(made)
        return made


_STATEMENTS: dict[type, Callable[[Script, Any], None]] = {
    ast.Assign: Script.assign, ast.AugAssign: Script.augmented, ast.AnnAssign: Script.annotated, ast.For: Script.loop,
    ast.If: Script.branch, ast.While: Script.loop_while, ast.Assert: Script.check, ast.Expr: Script.effect,
    ast.Pass: lambda s, n: None,
}  # fmt: skip
_EXPRS: dict[type, Callable[[Script, Any], Any]] = {
    ast.Name: Script.named, ast.Constant: lambda s, n: n.value, ast.Subscript: Script.element, ast.BinOp: Script.binary,
    ast.UnaryOp: Script.unary, ast.Compare: Script.compare, ast.BoolOp: Script.logic, ast.IfExp: Script.choice,
    ast.Attribute: Script.attribute, ast.Call: Script.call, ast.Tuple: lambda s, n: tuple(s.expr(v) for v in n.elts),
    ast.List: lambda s, n: [s.expr(v) for v in n.elts],
}  # fmt: skip
