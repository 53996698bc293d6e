"""Parser of Relay text: expressions, functions, modules. Nested blocks run on a trampoline: no Python stack."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import EMPTY, Attrs
from warpbeam.ir.rewrite import add_origins
from warpbeam.relay.expr import (
    Call,
    Clause,
    Constant,
    Constructor,
    Expr,
    Function,
    GlobalVar,
    If,
    IRModule,
    Let,
    Match,
    Pattern,
    PatternConstructor,
    PatternTuple,
    PatternVar,
    PatternWildcard,
    RefCreate,
    RefRead,
    RefWrite,
    Tuple,
    TupleGetItem,
    TypeData,
    Var,
)
from warpbeam.relay.op import Op
from warpbeam.relay.text_lex import Source, Token, nearest
from warpbeam.relay.text_parse_types import TypeParser
from warpbeam.relay.text_print import _run
from warpbeam.relay.types import FuncType, GlobalTypeVar, TensorType, Type, TypeVar

Job = Generator[Any, Any, Any]
_CELLS: dict[str, tuple[type, int]] = {"ref": (RefCreate, 1), "ref_read": (RefRead, 1), "ref_write": (RefWrite, 2)}


class _Scope:
    """Local names of a block, then of those around it."""

    __slots__ = ("names", "parent")

    def __init__(self, parent: _Scope | None = None) -> None:
        self.names: dict[str, Expr] = {}
        self.parent = parent

    def find(self, name: str) -> Expr | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None


class _Header:
    """`def @name(…) -> …` with the position of its body."""

    def __init__(self, name: str, pos: int, body: int, end: int) -> None:
        self.name, self.pos, self.body, self.end = name, pos, body, end
        self.params: tuple[Var, ...] = ()
        self.ret: Type | None = None
        self.type_params: tuple[TypeVar, ...] = ()
        self.attrs: Attrs = EMPTY
        self.scope = _Scope()


class Parser(TypeParser):
    """Parses one text. `ops` finds an operator by name, or raises or returns None where there is none."""

    def __init__(
        self,
        source: Source,
        ops: Callable[[str], Op | None],
        constants: Mapping[str, np.ndarray] | None = None,
        module: IRModule | None = None,
        spans: bool = False,
    ) -> None:
        super().__init__(source)
        self.ops = ops
        self.constants = constants or {}
        self.spans = spans
        self.metas: dict[int, Constant] = {}
        self.globals: dict[str, GlobalVar] = {}
        self.open = module is not None
        self.types: dict[GlobalTypeVar, TypeData] = {}
        self.known_ops: dict[str, Op] = {}
        if module is not None:
            self.globals = {g.name: g for g in module.functions}
            for data in module.types.values():
                self._know(data)

    # ---------------------------------------------------------------------------------------- modules

    def module(self) -> IRModule:
        headers, types = self._outline()
        self._type_headers(types)
        for at in types:
            self.at = at
            self._type_data()
        for h in headers:
            self._header(h)
        functions: dict[str, Function] = {}
        for h in self._ordered(headers):
            functions[h.name] = self._body(h)
        return IRModule({self.globals[h.name]: functions[h.name] for h in headers}, self.types)

    def _outline(self) -> tuple[list[_Header], list[int]]:
        """Where functions and types stand; sizes and constants are read at once."""
        headers: list[_Header] = []
        types: list[int] = []
        metas: list[int] = []
        while self.token.kind != "end":
            t = self.token
            self.at += 1
            if t.kind == "mark":
                continue
            if t.text == "dims":
                self.dims_line()
            elif t.text == "type":
                types.append(self.at)
                self._skip_braces()
            elif t.text == "meta":
                metas.append(self.at)
                while not self.take(";"):
                    self.at += 1
                    if self.token.kind == "end":
                        self.expect(";")
            elif t.text == "def":
                name = self.kind("global", "a function name such as @main").name
                if any(h.name == name for h in headers):
                    self.fail(f"function @{name} is defined twice", t.pos)
                start = self.at
                body = self._skip_braces()
                headers.append(_Header(name, start, body, self.at))
            else:
                self.fail(f"expected def, type, dims or meta, found {t.text!r}", t.pos)
        end = self.at
        for self.at in metas:
            self.meta_entry()
        self.at = end
        return headers, types

    def _skip_braces(self) -> int:
        """Moves behind the next `{ … }` outside parentheses; the index of its `{`."""
        start, depth, round_ = -1, 0, 0
        opened = self.token.pos
        while self.token.kind != "end":
            text = self.token.text if self.token.kind == "sign" else ""
            if text in ("(", "["):
                round_ += 1
            elif text in (")", "]"):
                round_ -= 1
            elif text == "{" and (round_ == 0 or start >= 0):
                start = self.at if start < 0 else start
                depth += 1
            elif text == "}" and start >= 0:
                depth -= 1
                if depth == 0:
                    self.at += 1
                    return start
            self.at += 1
        return int(self.fail("a block `{ … }` is missing or not closed", opened))

    def _type_headers(self, types: list[int]) -> None:
        for self.at in types:
            self.declare_type(self._name("a type name"))

    def _name(self, what: str) -> str:
        t = self.token
        if t.kind == "string":
            self.at += 1
            return str(json.loads(t.text))
        return self.kind("word", what).text

    def _type_data(self) -> None:
        header = self.declare_type(self._name("a type name"))
        type_vars = self.type_params()
        self.expect("{")
        cases: list[Constructor] = []

        def case() -> None:
            name = self._name("a constructor")
            inputs = tuple(self.row(")", self.type)) if self.take("(") else ()
            cases.append(Constructor(name, inputs, header, type_vars, len(cases)))

        self.row("}", case)
        data = TypeData(header, type_vars, tuple(cases))
        self.types[header] = data
        self._know(data)

    def _know(self, data: TypeData) -> None:
        self.type_names[data.header.name] = data.header
        for c in data.constructors:
            self.constructors.setdefault(c.name, c)
            self.constructors[f"{data.header.name}::{c.name}"] = c

    def meta_entry(self) -> None:
        """`[0]: Tensor[…] = base64 "…";` after the word meta."""
        self.expect("[")
        index = self.number()
        self.expect("]")
        self.expect(":")
        ty = self.type()
        self.expect("=")
        t = self.kind("word", "base64, digest or elided")
        assert isinstance(ty, TensorType)
        if t.text == "elided":
            self.fail("the constants of this text were left out", t.pos, hint="print with constants='inline'")
        key = json.loads(self.kind("string", "a string").text)
        if t.text == "digest":
            if key not in self.constants:
                self.fail(f"constant {key} is not given", t.pos, hint="pass parse(constants={digest: array})")
            self.metas[index] = Constant(self.constants[key])
            return
        dtype = dt.to_numpy(ty.dtype)
        try:
            data = np.frombuffer(base64.b64decode(key, validate=True), dtype=dtype).reshape(ty.shape)
        except (binascii.Error, ValueError) as err:
            self.fail(f"broken constant data: {err}", t.pos)
        self.metas[index] = Constant(data)

    # -------------------------------------------------------------------------------------- functions

    def _header(self, h: _Header) -> None:
        self.at = h.pos
        h.type_params, h.params, h.attrs, h.ret = self._signature(h.scope)
        if not self.peek("{"):
            self.fail(f"expected '{{' before the body of @{h.name}, found {self.token.text!r}")
        if h.ret is not None and all(p.ty is not None for p in h.params):
            self.globals[h.name] = GlobalVar(h.name, FuncType(tuple(p.ty for p in h.params), h.ret, h.type_params))

    def _signature(self, scope: _Scope) -> tuple[Any, Any, Attrs, Any]:
        type_params = self.type_params()
        self.expect("(")
        params: list[Var] = []
        attrs: dict[str, Any] = {}

        def item() -> None:
            if self.is_attr():
                key, value = self.attr_pair("=")
                attrs[key] = value
            else:
                params.append(self.declared(scope))

        self.row(")", item)
        ret = self.type() if self.take("->") else None
        return type_params, tuple(params), Attrs(attrs), ret

    def declared(self, scope: _Scope | None) -> Var:
        """`%x` or `%x: T`: a new variable."""
        t = self.kind("local", "a variable such as %x")
        v: Var = Var(t.name, self.type() if self.take(":") else None)
        if scope is not None:
            scope.names[t.name] = v
        return v

    def _ordered(self, headers: list[_Header]) -> list[_Header]:
        """Callees without a declared type first, so that calls of them are typed; cycles stay untyped."""
        byname = {h.name: h for h in headers if h.name not in self.globals}
        out: list[_Header] = []
        state: dict[str, int] = {}
        stack = [(h, False) for h in reversed(headers)]
        while stack:
            h, done = stack.pop()
            if done:
                out.append(h)
                continue
            if state.get(h.name):
                continue
            state[h.name] = 1
            stack.append((h, True))
            used = {t.name for t in self.tokens[h.body : h.end] if t.kind == "global"}
            stack.extend((byname[n], False) for n in sorted(used) if n in byname and not state.get(n))
        return out

    def _body(self, h: _Header) -> Function:
        pos = self.tokens[h.body].pos
        self.at = h.body + 1
        body = _run(self.block(h.scope, "}"))
        fn: Function = self.build(pos, Function, h.params, body, h.ret, h.type_params, h.attrs)
        if h.name not in self.globals:
            self.globals[h.name] = GlobalVar(h.name, fn.ty)
        return fn

    # ----------------------------------------------------------------------------------------- blocks

    def block(self, outer: _Scope, close: str) -> Job:
        """Bindings and the result, up to `close` ("" is the end of the text)."""
        scope = _Scope(outer)
        lets: list[tuple[Var, Expr]] = []
        while True:
            if self.take("let"):
                v = self.declared(None)
                self.expect("=")
                if self.peek("fn"):
                    scope.names[v.name] = v
                value = yield self.expr(scope)
                scope.names[v.name] = v
                lets.append((v, value))
                self.expect(";")
            elif self.token.kind == "local" and self.peek("=", 1):
                name = self.token.name
                self.at += 2
                value = self.simple(scope)
                scope.names[name] = (yield self.expr(scope)) if value is None else value
                self.expect(";")
            else:
                break
        result = yield self.expr(scope)
        if close:
            self.expect(close)
        for v, value in reversed(lets):
            result = Let(v, value, result)
        return result

    def braced(self, scope: _Scope) -> Job:
        self.expect("{")
        return (yield self.block(scope, "}"))

    def simple(self, scope: _Scope) -> Expr | None:
        """`op(%a, %b, attr=…)` over plain references, the common case; None (and no move) for anything else."""
        t = self.token
        if t.kind != "word" or not self.peek("(", 1) or t.text in _WORDS or t.text in self.constructors:
            return None
        i, args = self.at + 2, []
        while self.tokens[i].kind == "local" and self.tokens[i + 1].text in (",", ")"):
            found = scope.find(self.tokens[i].name)
            if found is None:
                self._unknown(self.tokens[i], scope)
            args.append(found)
            i += 2 if self.tokens[i + 1].text == "," else 1
        attrs: dict[str, Any] = {}
        named = self.tokens[i].kind in ("word", "string") and self.tokens[i + 1].text == "="
        if not named and self.tokens[i].text != ")":
            return None
        op = self._operator(t)
        self.at = i
        attrs = dict(self.row(")", lambda: self.attr_pair("=")))
        if not self.peek(";"):
            self.fail(f"expected ';', found {self.token.text!r}")
        return self._call(op, args, attrs, (), t.pos)

    # ------------------------------------------------------------------------------------ expressions

    def expr(self, scope: _Scope) -> Job:
        start = self.token.pos
        node = yield self._atom(scope)
        while True:
            t = self.token
            if t.kind == "field":
                self.at += 1
                node = self.build(t.pos, TupleGetItem, node, int(t.text[1:]))
            elif t.text == "(" or (t.text == "<" and not isinstance(node, Op)):
                type_args = tuple(self.row(">", self.type)) if self.take("<") else ()
                self.expect("(")
                args, attrs = yield self._arguments(scope)
                node = self._call(node, args, attrs, type_args, start)
            else:
                break
        if isinstance(node, Op):
            self.fail(f"operator {node.name} must be called", start)
        return node

    def _atom(self, scope: _Scope) -> Job:
        t = self.token
        if t.kind == "local":
            self.at += 1
            found = scope.find(t.name)
            return self._unknown(t, scope) if found is None else found
        if t.kind == "global":
            self.at += 1
            return self._global(t)
        if t.kind == "number" or t.text == "-":
            return self.literal()
        if t.text == "{":
            return (yield self.braced(scope))
        if self.take("("):
            return (yield self._tuple(scope))
        if t.kind == "word":
            keyword = _WORDS.get(t.text)
            if keyword is not None:
                self.at += 1
                return (yield keyword(self, scope))
        return self._named(t)

    def _tuple(self, scope: _Scope) -> Job:
        items: list[Expr] = []
        comma = False
        while not self.take(")"):
            items.append((yield self.expr(scope)))
            comma = self.take(",")
            if not comma:
                self.expect(")")
                break
        return items[0] if len(items) == 1 and not comma else Tuple(tuple(items))

    def _arguments(self, scope: _Scope) -> Job:
        args: list[Expr] = []
        attrs: dict[str, Any] = {}
        while not self.take(")"):
            if self.is_attr():
                key, value = self.attr_pair("=")
                attrs[key] = value
            else:
                args.append((yield self.expr(scope)))
            if not self.take(","):
                self.expect(")")
                break
        return args, attrs

    def _call(self, op: Any, args: list[Any], attrs: dict[str, Any], type_args: Any, pos: int) -> Expr:
        full = self.build(pos, op.attrs, attrs) if isinstance(op, Op) else Attrs(attrs)
        node = self.build(pos, Call, op, tuple(args), full, type_args)
        if self.spans:
            line, column = self.source.place(pos)
            add_origins(node, [f"{self.source.name}:{line}:{column}"])
        return node  # type: ignore[no-any-return]

    def _global(self, t: Token) -> GlobalVar:
        if t.name not in self.globals:
            after = zip(self.tokens, self.tokens[1:], strict=False)
            known = [u.name for before, u in after if u.kind == "global" and before.text == "def"]
            if t.name not in known and not self.open:
                self.fail(f"unknown function @{t.name}", t.pos, hint=nearest(t.name, known))
            self.globals[t.name] = GlobalVar(t.name)
        return self.globals[t.name]

    def _named(self, t: Token) -> Any:
        """A constructor or operator."""
        if t.kind not in ("word", "string"):
            self.fail(f"expected an expression, found {t.text or 'the end'!r}")
        name = self._name("a name")
        if self.take("::"):
            name = f"{name}::{self._name('a constructor')}"
        if name in self.constructors:
            return self.constructors[name]
        return self._operator(t)

    def _operator(self, t: Token) -> Op:
        op = self.known_ops.get(t.text)
        if op is None:
            op = self.build(t.pos, self.ops, t.text)
            if op is None:
                names = getattr(self.ops, "names", None)
                hint = nearest(t.text, [*(names() if callable(names) else ()), *self.constructors])
                self.fail(f"unknown operator {t.text!r}", t.pos, hint=hint)
            self.known_ops[t.text] = op
        return op

    def _unknown(self, t: Token, scope: _Scope) -> Any:
        known: list[str] = []
        around: _Scope | None = scope
        while around is not None:
            known += around.names
            around = around.parent
        self.fail(f"unknown variable {t.text}", t.pos, hint=nearest(t.name, known))

    # --------------------------------------------------------------------------------------- keywords

    def _fn(self, outer: _Scope) -> Job:
        pos = self.token.pos
        scope = _Scope(outer)
        type_params, params, attrs, ret = self._signature(scope)
        body = yield self.braced(scope)
        return self.build(pos, Function, params, body, ret, type_params, attrs)

    def _if(self, scope: _Scope) -> Job:
        pos = self.expect("(").pos
        cond = yield self.expr(scope)
        self.expect(")")
        then = yield self.braced(scope)
        self.expect("else")
        orelse = yield (self.expr(scope) if self.peek("if") else self.braced(scope))
        return self.build(pos, If, cond, then, orelse)

    def _match(self, outer: _Scope) -> Job:
        complete = not self.take("?")
        self.expect("(")
        data = yield self.expr(outer)
        self.expect(")")
        self.expect("{")
        clauses: list[Clause] = []
        while not self.take("}"):
            scope = _Scope(outer)
            lhs = self.pattern(scope)
            self.expect("=>")
            rhs = yield (self.braced(scope) if self.peek("{") else self.expr(scope))
            clauses.append(Clause(lhs, rhs))
            if not self.take(","):
                self.expect("}")
                break
        return Match(data, tuple(clauses), complete)

    def pattern(self, scope: _Scope) -> Pattern:
        """`_`, `%x`, `(p, q)`, `Cons(p, q)`."""
        t = self.token
        if self.take("_"):
            return PatternWildcard()  # type: ignore[no-any-return]
        if t.kind == "local":
            return PatternVar(self.declared(scope))  # type: ignore[no-any-return]
        if self.take("("):
            return PatternTuple(tuple(self.nested(lambda: self.row(")", lambda: self.pattern(scope)))))  # type: ignore[no-any-return]
        found = self._named(t)
        if not isinstance(found, Constructor):
            self.fail(f"{t.text!r} is not a constructor", t.pos)
        inner = self.nested(lambda: self.row(")", lambda: self.pattern(scope))) if self.take("(") else ()
        return PatternConstructor(found, tuple(inner))  # type: ignore[no-any-return]

    def _cell(self, word: str, scope: _Scope) -> Job:
        cls, count = _CELLS[word]
        pos = self.expect("(").pos
        args, attrs = yield self._arguments(scope)
        if len(args) != count or attrs:
            self.fail(f"{word} takes {count} operand{'s' if count > 1 else ''}", pos)
        return cls(*args)

    def _meta(self, scope: _Scope) -> Job:
        pos = self.token.pos
        self.expect("[")
        self.kind("word", "relay.Constant")
        self.expect("]")
        self.expect("[")
        index = self.number()
        self.expect("]")
        if index not in self.metas:
            self.fail(f"meta[{index}] is not in the metadata section", pos)
        return self.metas[index]
        yield  # a generator like the other keywords

    def _const(self, scope: _Scope) -> Job:
        return self.const_call()
        yield

    def _bool(self, value: bool) -> Job:
        return Constant(np.asarray(value))
        yield


_WORDS: dict[str, Callable[[Parser, _Scope], Job]] = {
    "fn": Parser._fn,
    "if": Parser._if,
    "match": Parser._match,
    "ref": lambda p, s: p._cell("ref", s),
    "ref_read": lambda p, s: p._cell("ref_read", s),
    "ref_write": lambda p, s: p._cell("ref_write", s),
    "meta": Parser._meta,
    "const": Parser._const,
    "True": lambda p, s: p._bool(True),
    "False": lambda p, s: p._bool(False),
}
