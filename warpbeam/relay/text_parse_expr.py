"""Parser of Relay text, upper half: expressions. Nested blocks run on a trampoline: no Python stack."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
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
from warpbeam.relay.types import GlobalTypeVar

Job = Generator[Any, Any, Any]
_CELLS: dict[str, tuple[type, int]] = {"ref": (RefCreate, 1), "ref_read": (RefRead, 1), "ref_write": (RefWrite, 2)}


class Scope:
    """Local names of a block, then of those around it."""

    __slots__ = ("names", "parent")

    def __init__(self, parent: Scope | None = None) -> None:
        self.names: dict[str, Expr] = {}
        self.parent = parent

    def find(self, name: str) -> Expr | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None


class ExprParser(TypeParser):
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

    def _name(self, what: str) -> str:
        t = self.token
        if t.kind == "string":
            self.at += 1
            return str(json.loads(t.text))
        return self.kind("word", what).text

    def _know(self, data: TypeData) -> None:
        self.type_names[data.header.name] = data.header
        for c in data.constructors:
            self.constructors.setdefault(c.name, c)
            self.constructors[f"{data.header.name}::{c.name}"] = c

    def _signature(self, scope: Scope) -> tuple[Any, Any, Attrs, Any]:
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

    def declared(self, scope: Scope | None) -> Var:
        """`%x` or `%x: T`: a new variable."""
        t = self.kind("local", "a variable such as %x")
        v: Var = Var(t.name, self.type() if self.take(":") else None)
        if scope is not None:
            scope.names[t.name] = v
        return v

    # ----------------------------------------------------------------------------------------- blocks

    def block(self, outer: Scope, close: str) -> Job:
        """Bindings and the result, up to `close` ("" is the end of the text)."""
        scope = Scope(outer)
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

    def braced(self, scope: Scope) -> Job:
        self.expect("{")
        return (yield self.block(scope, "}"))

    def simple(self, scope: Scope) -> Expr | None:
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

    def expr(self, scope: Scope) -> Job:
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

    def _atom(self, scope: Scope) -> Job:
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

    def _tuple(self, scope: Scope) -> Job:
        items: list[Expr] = []
        comma = False
        while not self.take(")"):
            items.append((yield self.expr(scope)))
            comma = self.take(",")
            if not comma:
                self.expect(")")
                break
        return items[0] if len(items) == 1 and not comma else Tuple(tuple(items))

    def _arguments(self, scope: Scope) -> Job:
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

    def _unknown(self, t: Token, scope: Scope) -> Any:
        known: list[str] = []
        around: Scope | None = scope
        while around is not None:
            known += around.names
            around = around.parent
        self.fail(f"unknown variable {t.text}", t.pos, hint=nearest(t.name, known))

    # --------------------------------------------------------------------------------------- keywords

    def _fn(self, outer: Scope) -> Job:
        pos = self.token.pos
        scope = Scope(outer)
        type_params, params, attrs, ret = self._signature(scope)
        body = yield self.braced(scope)
        return self.build(pos, Function, params, body, ret, type_params, attrs)

    def _if(self, scope: Scope) -> Job:
        pos = self.expect("(").pos
        cond = yield self.expr(scope)
        self.expect(")")
        then = yield self.braced(scope)
        self.expect("else")
        orelse = yield (self.expr(scope) if self.peek("if") else self.braced(scope))
        return self.build(pos, If, cond, then, orelse)

    def _match(self, outer: Scope) -> Job:
        complete = not self.take("?")
        self.expect("(")
        data = yield self.expr(outer)
        self.expect(")")
        self.expect("{")
        clauses: list[Clause] = []
        while not self.take("}"):
            scope = Scope(outer)
            lhs = self.pattern(scope)
            self.expect("=>")
            rhs = yield (self.braced(scope) if self.peek("{") else self.expr(scope))
            clauses.append(Clause(lhs, rhs))
            if not self.take(","):
                self.expect("}")
                break
        return Match(data, tuple(clauses), complete)

    def pattern(self, scope: Scope) -> Pattern:
        """`_`, `%x`, `(p, q)`, `Cons(p, q)`."""
        t = self.token
        if self.take("_"):
            return PatternWildcard()
        if t.kind == "local":
            return PatternVar(self.declared(scope))
        if self.take("("):
            return PatternTuple(tuple(self.nested(lambda: self.row(")", lambda: self.pattern(scope)))))
        found = self._named(t)
        if not isinstance(found, Constructor):
            self.fail(f"{t.text!r} is not a constructor", t.pos)
        inner = self.nested(lambda: self.row(")", lambda: self.pattern(scope))) if self.take("(") else ()
        return PatternConstructor(found, tuple(inner))

    def _cell(self, word: str, scope: Scope) -> Job:
        cls, count = _CELLS[word]
        pos = self.expect("(").pos
        args, attrs = yield self._arguments(scope)
        if len(args) != count or attrs:
            self.fail(f"{word} takes {count} operand{'s' if count > 1 else ''}", pos)
        return cls(*args)

    def _meta(self, scope: Scope) -> Job:
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

    def _const(self, scope: Scope) -> Job:
        return self.const_call()
        yield

    def _bool(self, value: bool) -> Job:
        return Constant(np.asarray(value))
        yield


_WORDS: dict[str, Callable[[ExprParser, Scope], Job]] = {
    "fn": ExprParser._fn,
    "if": ExprParser._if,
    "match": ExprParser._match,
    "ref": lambda p, s: p._cell("ref", s),
    "ref_read": lambda p, s: p._cell("ref_read", s),
    "ref_write": lambda p, s: p._cell("ref_write", s),
    "meta": ExprParser._meta,
    "const": ExprParser._const,
    "True": lambda p, s: p._bool(True),
    "False": lambda p, s: p._bool(False),
}
