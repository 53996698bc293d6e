"""Reads loop programs; see the package for the form. Errors show line, column, the line, a caret and what was expected.

The grammar is written as generators run by a trampoline, so that the nesting of a text costs no Python stack.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from warpbeam.ir.node import EMPTY
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.text.exprs import ExprParser
from warpbeam.tir.text.lexer import Token, unquote
from warpbeam.tir.text.names import DTYPE

Rule = Generator[Any, Any, Any]


def parse(text: str, source: str = "<text>") -> s.PrimFunc:
    """The function that a text states; TextError with the place where it does not follow the form.

    source: name of the text for errors, such as a file name.
    """
    return _Parser(text, source).run()  # type: ignore[no-any-return]


class _Parser(ExprParser):
    def run(self) -> Any:
        found = self.trampoline(self.function())
        if self.at.kind != "end":
            self.fail(f"{self.at.describe()} after the end of the function", "nothing more")
        return found

    # --------------------------------------------------------------------------------------------------------- function

    def function(self) -> Rule:
        self.sizes_first()
        while self.accept("word", "free"):
            yield self.declaration()
            self.layout("newline")
        self.expect("word", "def")
        name = self.name("a function name")
        self.expect("sign", "(")
        params: list[Any] = []
        while not self.accept("sign", ")"):
            params.append((yield self.declaration()))
            if not self.accept("sign", ","):
                self.expect("sign", ")")
                break
        notes = yield self.maybe_attrs()
        body = yield self.suite()
        return self.build(s.PrimFunc, self.at, name, tuple(params), body, notes)

    def sizes_first(self) -> None:
        """Declares the scalar parameters, which shapes before them may name."""
        start, depth = self.pos, 0
        while self.tokens[self.pos].kind not in ("indent", "end"):
            t, after = self.at, self.tokens[self.pos + 1]
            depth += t.kind == "sign" and t.text in "[{"
            depth -= t.kind == "sign" and t.text in "]}"
            self.pos += 1
            if depth == 0 and t.kind in ("word", "quoted") and after.text == ":" and self._scalar():
                self.pos += 1
                kind, nonneg = self.var_type()
                self.declare_var(unquote(t), kind, nonneg)
        self.pos = start

    def _scalar(self) -> bool:
        k = self.pos + 1
        while self.tokens[k].kind == "word":
            k += 1
        return k > self.pos + 1 and self.tokens[k].text in (",", ")", "") and self.tokens[k].text != "["

    def declaration(self) -> Rule:
        """`name: float32[4, n] @scope` or `name: size`; a Buffer or Var."""
        t = self.at
        name = self.name("a parameter")
        self.expect("sign", ":")
        if self.at.kind == "word" and DTYPE.match(self.at.text) and self.tokens[self.pos + 1].text == "[":
            return (yield self.buffer(name, t))
        kind, nonneg = self.var_type()
        return self.declare_var(name, kind, nonneg)

    def buffer(self, name: str, t: Token) -> Rule:
        dtype = self.dtype()
        self.expect("sign", "[")
        dims = yield self.items("]")
        scope = "global"
        if self.accept("sign", "@"):
            scope = self.name("a memory scope")
        shape = tuple(e.simplify_dim(d) for d in dims)
        place: dict[str, list[Any]] = {}
        while self.at.kind == "word" and self.at.text in ("strides", "offset", "align", "factor"):
            word = self.take().text
            self.expect("sign", "[")
            place[word] = [e.simplify_dim(x) for x in (yield self.items("]"))]
        offset, align, factor = (place.get(k, [0])[0] for k in ("offset", "align", "factor"))
        return self.declare_buffer(name, shape, dtype, scope, tuple(place.get("strides", ())), offset, align, factor)

    # ------------------------------------------------------------------------------------------------------- statements

    def suite(self) -> Rule:
        """`:` and an indented body: its one statement, or a sequence of several."""
        items = yield self.block_items()
        return items[0] if len(items) == 1 else s.SeqStmt(tuple(items))

    def block_items(self) -> Rule:
        self.expect("sign", ":")
        self.layout("newline")
        self.layout("indent")
        items = yield self.until_dedent()
        self.layout("dedent")
        return items

    def until_dedent(self) -> Rule:
        mark = self.mark()
        items: list[s.Stmt] = []
        while self.at.kind != "dedent" and self.at.kind != "end":
            if self.accept("word", "pass"):
                self.layout("newline")
                continue
            items.append((yield self.statement()))
        self.leave(mark)
        return items

    def rest(self, t: Token) -> Rule:
        """What follows a let or alloc in its block."""
        self.layout("newline")
        items = yield self.until_dedent()
        if not items:
            self.source.fail(f"nothing follows this {t.text} in its block", t.pos, "statements that use it")
        return items[0] if len(items) == 1 else s.SeqStmt(tuple(items))

    def statement(self) -> Rule:
        t = self.at
        handler = _STATEMENTS.get(t.text) if t.kind == "word" else None
        if handler is not None and t.text not in self.scope:
            self.pos += 1
            return (yield handler(self, t))
        if t.kind in ("word", "quoted") and isinstance(self.scope.get(unquote(t)), e.Buffer):
            return (yield self.store(t))
        if t.kind in ("word", "quoted") and self.tokens[self.pos + 1].text == "[":
            self.unknown(t, e.Buffer)
        self.fail(f"{t.describe()} begins no statement", "for, if, while, let, alloc, block, assert, eval or a store")

    def store(self, t: Token) -> Rule:
        buffer = self.scope[unquote(t)]
        self.pos += 1
        self.expect("sign", "[")
        indices = yield self.items("]")
        self.expect("sign", "=")
        value = yield self.expr(0)
        self.layout("newline")
        return self.build(s.BufferStore, t, buffer, value, tuple(indices))

    def loop(self, t: Token) -> Rule:
        name = self.name("a loop variable")
        kind, nonneg = self.var_type() if self.accept("sign", ":") else ("int64", False)
        self.expect("word", "in")
        how = self.at
        word = self.name("range, parallel, vectorized, unrolled or thread_binding")
        self.expect("sign", "(")
        thread = ""
        if self.at.kind == "string":
            thread = unquote(self.take())
            self.expect("sign", ",")
        low: Any = e.const(0, kind)
        extent = yield self.expr(0)
        if self.accept("sign", ","):
            self.expect("word", "extent")
            self.expect("sign", "=")
            low, extent = extent, (yield self.expr(0))
        self.expect("sign", ")")
        notes = yield self.maybe_attrs()
        mark = self.mark()
        var = self.declare_var(name, kind, nonneg)
        body = yield self.suite()
        self.leave(mark)
        word = "serial" if word == "range" else word
        return self.build(s.For, how, var, low, extent, word, body, notes, thread)

    def loop_while(self, t: Token) -> Rule:
        cond = yield self.expr(0)
        body = yield self.suite()
        return self.build(s.While, t, cond, body)

    def branch(self, t: Token) -> Rule:
        cond = yield self.expr(0)
        then = yield self.suite()
        orelse = None
        if self.accept("word", "else"):
            orelse = yield self.suite()
        return self.build(s.IfThenElse, t, cond, then, orelse)

    def let(self, t: Token) -> Rule:
        name = self.name("a variable")
        kind, nonneg = self.var_type() if self.accept("sign", ":") else ("int64", False)
        self.expect("sign", "=")
        value = yield self.expr(0)
        mark = self.mark()
        var = self.declare_var(name, kind, nonneg)
        body = yield self.rest(t)
        self.leave(mark)
        return self.build(s.LetStmt, t, var, value, body)

    def alloc(self, t: Token) -> Rule:
        at = self.at
        name = self.name("a buffer")
        self.expect("sign", ":")
        mark = self.mark()
        buffer = yield self.buffer(name, at)
        notes = yield self.maybe_attrs()
        body = yield self.rest(t)
        self.leave(mark)
        return self.build(s.Allocate, t, buffer, body, notes)

    def evaluate(self, t: Token) -> Rule:
        value = yield self.expr(0)
        self.layout("newline")
        return self.build(s.Evaluate, t, value)

    def check(self, t: Token) -> Rule:
        cond = yield self.expr(0)
        self.expect("sign", ",")
        message = self.string("the message")
        self.layout("newline")
        return self.build(s.AssertStmt, t, cond, message)

    def scoped(self, t: Token) -> Rule:
        return (yield self.suite())

    def seq(self, t: Token) -> Rule:
        items = yield self.block_items()
        return s.SeqStmt(tuple(items))

    def block(self, t: Token) -> Rule:
        name = self.string("the block's name")
        self.expect("sign", "(")
        mark = self.mark()
        heads: list[tuple[str, str, bool, str, Any, Any]] = []
        while not self.accept("sign", ")"):
            heads.append((yield self.axis()))
            if not self.accept("sign", ","):
                self.expect("sign", ")")
                break
        axes = [
            self.build(s.IterVar, t, self.declare_var(n, kind, nonneg), extent, role)
            for n, kind, nonneg, role, extent, _ in heads
        ]
        predicate: Any = e.const(True)
        if self.accept("word", "where"):
            predicate = yield self.expr(0)
        notes = yield self.maybe_attrs()
        init, body = yield self.block_body()
        self.leave(mark)
        values = tuple(h[5] for h in heads)
        return self.build(s.Block, t, name, tuple(axes), values, predicate, init, body, notes)

    def axis(self) -> Rule:
        name = self.name("an axis")
        self.expect("sign", ":")
        kind, nonneg = "int64", False
        if self.at.text not in s.AXIS_KINDS:
            kind, nonneg = self.var_type()
        role = self.name("spatial, reduce or ordered")
        self.expect("sign", "[")
        extent = yield self.expr(0)
        self.expect("sign", "]")
        self.expect("sign", "=")
        value = yield self.expr(0)
        return name, kind, nonneg, role, extent, value

    def block_body(self) -> Rule:
        self.expect("sign", ":")
        self.layout("newline")
        self.layout("indent")
        init = None
        if self.accept("word", "init"):
            init = yield self.suite()
        items = yield self.until_dedent()
        if not items:
            self.fail("the block has no body", "a statement")
        self.layout("dedent")
        return init, items[0] if len(items) == 1 else s.SeqStmt(tuple(items))

    # ------------------------------------------------------------------------------------------------------- attributes

    def maybe_attrs(self) -> Rule:
        if self.at.text == "{" and self.at.kind == "sign":
            return (yield self.attr_dict())
        return EMPTY


_STATEMENTS: dict[str, Callable[[_Parser, Token], Rule]] = {
    "for": _Parser.loop,
    "while": _Parser.loop_while,
    "if": _Parser.branch,
    "let": _Parser.let,
    "alloc": _Parser.alloc,
    "eval": _Parser.evaluate,
    "assert": _Parser.check,
    "scope": _Parser.scoped,
    "seq": _Parser.seq,
    "block": _Parser.block,
}
