"""Reads expressions, types and attributes of loop-program text, and keeps the names in scope."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from difflib import get_close_matches
from typing import Any, NoReturn

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Attrs
from warpbeam.tir import expr as e
from warpbeam.tir.text.lexer import Source, Token, unquote
from warpbeam.tir.text.names import DTYPE
from warpbeam.tir.text.printer import BINARY

Rule = Generator[Any, Any, Any]

_INFIX: dict[str, tuple[type, int]] = {sign: (cls, level) for cls, (sign, level) in BINARY.items()}
DEPTH = 100_000


class ExprParser:
    """A position in the tokens of a text, and the binders that names stand for."""

    def __init__(self, text: str, source: str) -> None:
        self.source = Source(text, source)
        self.tokens = self.source.tokens
        self.pos = 0
        self.scope: dict[str, Any] = {}
        self.made: dict[str, Any] = {}
        self.undo: list[tuple[str, Any]] = []

    def trampoline(self, rule: Rule) -> Any:
        """Runs a grammar rule; a rule that yields another is resumed with its result."""
        stack, value = [rule], None
        while stack:
            try:
                deeper = stack[-1].send(value)
            except StopIteration as done:
                stack.pop()
                value = done.value
                continue
            if len(stack) > DEPTH:
                self.fail("the text is nested too deeply")
            stack.append(deeper)
            value = None
        return value

    # ----------------------------------------------------------------------------------------------------------- tokens

    @property
    def at(self) -> Token:
        return self.tokens[self.pos]

    def take(self) -> Token:
        t = self.tokens[self.pos]
        self.pos += 1
        return t

    def fail(self, message: str, expected: str = "") -> NoReturn:
        self.source.fail(message, self.at.pos, expected)

    def accept(self, kind: str, text: str) -> bool:
        if self.at.kind == kind and self.at.text == text:
            self.pos += 1
            return True
        return False

    def expect(self, kind: str, text: str) -> Token:
        if self.at.kind != kind or self.at.text != text:
            self.fail(f"found {self.at.describe()}", f"'{text}'")
        return self.take()

    def layout(self, kind: str) -> None:
        if self.at.kind != kind:
            self.fail(f"found {self.at.describe()}", Token(kind, "", 0).describe())
        self.pos += 1

    def name(self, what: str) -> str:
        if self.at.kind not in ("word", "quoted"):
            self.fail(f"found {self.at.describe()}", what)
        return unquote(self.take())

    def string(self, what: str) -> str:
        if self.at.kind != "string":
            self.fail(f"found {self.at.describe()}", f"{what}, a string in double quotes")
        return unquote(self.take())

    def integer(self) -> int:
        sign = -1 if self.accept("sign", "-") else 1
        if self.at.kind != "int":
            self.fail(f"found {self.at.describe()}", "an integer")
        return sign * int(self.take().text)

    def dtype(self) -> str:
        if self.at.kind != "word" or not DTYPE.match(self.at.text):
            self.fail(f"found {self.at.describe()}", "a dtype such as float32, int8 or float32x16")
        return self.take().text

    def var_type(self) -> tuple[str, bool]:
        """`size`, a dtype, or both."""
        nonneg = self.accept("word", "size")
        if self.at.kind == "word" and DTYPE.match(self.at.text):
            return self.dtype(), nonneg
        if not nonneg:
            self.fail(f"found {self.at.describe()}", "size or a dtype")
        return "int64", True

    def build(self, cls: Any, t: Token, *args: Any) -> Any:
        try:
            return cls(*args)
        except IRError as err:
            self.source.fail(err.what, t.pos, err.hint)

    # ------------------------------------------------------------------------------------------------------------ names

    def mark(self) -> int:
        return len(self.undo)

    def enter(self, name: str, binder: Any) -> Any:
        self.undo.append((name, self.scope.get(name)))
        self.scope[name] = binder
        return binder

    def leave(self, mark: int) -> None:
        while len(self.undo) > mark:
            name, old = self.undo.pop()
            if old is None:
                self.scope.pop(name, None)
            else:
                self.scope[name] = old

    def declare_var(self, name: str, kind: str, nonneg: bool) -> e.Var:
        """The variable of that name and type; the same one where a text binds it twice."""
        old = self.made.get(name)
        if not (isinstance(old, e.Var) and old.type == kind and old.nonneg == nonneg):
            old = self.made[name] = e.Var(name, kind, nonneg)
        return self.enter(name, old)  # type: ignore[no-any-return]

    def declare_buffer(self, name: str, shape: tuple[Any, ...], *rest: Any) -> e.Buffer:
        """The buffer of these fields; the same one where a text declares it twice."""
        old, new = self.made.get(name), e.Buffer(name, shape, *rest)
        if not (isinstance(old, e.Buffer) and all(_same(getattr(old, f), getattr(new, f)) for f in _PLACE)):
            old = self.made[name] = new
        return self.enter(name, old)  # type: ignore[no-any-return]

    def unknown(self, t: Token, kind: type) -> NoReturn:
        what = "buffer" if kind is e.Buffer else "variable"
        known = [n for n, b in self.scope.items() if isinstance(b, kind)]
        near = get_close_matches(unquote(t), known, 3) or sorted(known)[:8]
        self.source.fail(
            f"{what} {unquote(t)!r} is not in scope here", t.pos, f"one of {', '.join(near)}" if near else ""
        )

    # ------------------------------------------------------------------------------------------------------ expressions

    def expr(self, level: int) -> Rule:
        t = self.at
        if t.kind == "word" and t.text == "not" and level <= 3:
            self.pos += 1
            left = self.build(e.Not, t, (yield self.expr(3)))
        else:
            left = yield self.primary()
        while self.at.kind in ("sign", "word"):
            t = self.at
            found = _INFIX.get(t.text)
            if found is None or found[1] < level:
                break
            self.pos += 1
            right = yield self.expr(found[1] + 1)
            left = self.build(found[0], t, left, right)
        return left

    def items(self, close: str) -> Rule:
        """Expressions separated by commas up to a closing bracket."""
        found: list[e.PrimExpr] = []
        while not self.accept("sign", close):
            found.append((yield self.expr(0)))
            if not self.accept("sign", ","):
                self.expect("sign", close)
                break
        return found

    def primary(self) -> Rule:
        t = self.at
        if t.kind == "sign" and t.text == "(":
            self.pos += 1
            inner = yield self.expr(0)
            self.expect("sign", ")")
            return inner
        if t.kind in ("int", "float") or t.text in ("-", "inf", "nan"):
            value = self.number()
            return e.IntImm(value) if isinstance(value, int) else e.FloatImm(value)
        if t.kind == "string":
            return e.StringImm(unquote(self.take()))
        if t.kind == "word" and t.text in ("True", "False"):
            return e.IntImm(self.take().text == "True", "bool")
        if t.kind in ("word", "quoted"):
            return (yield self.named(self.take()))
        self.fail(f"found {t.describe()}", "an expression")

    def number(self) -> int | float:
        sign = -1 if self.accept("sign", "-") else 1
        t = self.take()
        if t.kind == "int":
            return sign * int(t.text)
        if t.kind == "float" or t.text in ("inf", "nan"):
            return sign * float(t.text)
        self.source.fail(f"found {t.describe()}", t.pos, "a number")

    def named(self, t: Token) -> Rule:
        after = self.at.text if self.at.kind == "sign" else ""
        special = _SPECIAL.get(t.text) if t.kind == "word" and after == "(" else None
        if special is not None:
            self.pos += 1
            found = yield special(self, t)
            self.expect("sign", ")")
            return found
        if t.kind == "word" and after == "(" and DTYPE.match(t.text):
            return self.literal(t)
        binder = self.scope.get(unquote(t))
        if isinstance(binder, e.Var):
            return binder
        if isinstance(binder, e.Buffer):
            if after != "[":
                return e.BufferRef(binder)
            self.expect("sign", "[")
            indices = yield self.items("]")
            return self.build(e.BufferLoad, t, binder, tuple(indices))
        if after == "(" or (after == "[" and DTYPE.match(self.tokens[self.pos + 1].text)):
            return (yield self.call(t))
        self.unknown(t, e.Buffer if after == "[" else e.Var)

    def literal(self, t: Token) -> e.PrimExpr:
        self.expect("sign", "(")
        if self.accept("word", "bits"):
            value: Any = struct.unpack(">d", bytes.fromhex(self.string("16 hexadecimal digits")))[0]
        else:
            value = self.number()
        self.expect("sign", ")")
        floating = dt.is_float(t.text)
        if not floating and isinstance(value, float):
            self.source.fail(f"{value} is no {t.text}", t.pos, "an integer")
        return self.build(e.FloatImm if floating else e.IntImm, t, value, t.text)  # type: ignore[no-any-return]

    def call(self, t: Token) -> Rule:
        dtype = None
        if self.accept("sign", "["):
            dtype = self.dtype()
            self.expect("sign", "]")
        self.expect("sign", "(")
        args = yield self.items(")")
        notes: Any = None
        if self.at.kind == "sign" and self.at.text == "{":
            notes = yield self.attr_dict()
        op = unquote(t)
        like = args[1] if op == "if_then_else" and len(args) > 1 else args[0] if args else None
        if dtype is None:
            if like is None:
                self.source.fail(f"the call of {op} has no type", t.pos, f"{op}[dtype]()")
            dtype = like.dtype
        return self.build(e.Call, t, dtype, op, tuple(args), notes)

    # ---------------------------------------------------------------------------------------------------- special forms

    def _pair(self, cls: type) -> Callable[[Token], Rule]:
        def rule(t: Token) -> Rule:
            a = yield self.expr(0)
            self.expect("sign", ",")
            b = yield self.expr(0)
            return self.build(cls, t, a, b)

        return rule

    def cast(self, t: Token) -> Rule:
        dtype = self.dtype()
        self.expect("sign", ",")
        return self.build(e.Cast, t, dtype, (yield self.expr(0)))

    def select(self, t: Token) -> Rule:
        cond = yield self.expr(0)
        self.expect("sign", ",")
        a = yield self.expr(0)
        self.expect("sign", ",")
        b = yield self.expr(0)
        return self.build(e.Select, t, cond, a, b)

    def ramp(self, t: Token) -> Rule:
        base = yield self.expr(0)
        self.expect("sign", ",")
        stride = yield self.expr(0)
        self.expect("sign", ",")
        return self.build(e.Ramp, t, base, stride, self.integer())

    def broadcast(self, t: Token) -> Rule:
        value = yield self.expr(0)
        self.expect("sign", ",")
        return self.build(e.Broadcast, t, value, self.integer())

    def shuffle(self, t: Token) -> Rule:
        self.expect("sign", "[")
        vectors = yield self.items("]")
        self.expect("sign", ",")
        self.expect("sign", "[")
        lanes = yield self.items("]")
        return self.build(e.Shuffle, t, tuple(vectors), tuple(x.value for x in lanes))

    def let_expr(self, t: Token) -> Rule:
        name = self.name("a variable")
        kind, nonneg = self.var_type() if self.accept("sign", ":") else ("int64", False)
        self.expect("sign", "=")
        value = yield self.expr(0)
        self.expect("sign", ",")
        mark = self.mark()
        var = self.declare_var(name, kind, nonneg)
        body = yield self.expr(0)
        self.leave(mark)
        return self.build(e.Let, t, var, value, body)

    # ------------------------------------------------------------------------------------------------------- attributes

    def attr_dict(self) -> Rule:
        self.expect("sign", "{")
        found: dict[str, Any] = {}
        while not self.accept("sign", "}"):
            key = self.string("an attribute's name")
            self.expect("sign", ":")
            found[key] = yield self.attr()
            if not self.accept("sign", ","):
                self.expect("sign", "}")
                break
        return Attrs(found)

    def attr(self) -> Rule:
        t = self.at
        if t.kind == "sign" and t.text == "{":
            return (yield self.attr_dict())
        if t.kind == "sign" and t.text == "(":
            self.pos += 1
            found: list[Any] = []
            while not self.accept("sign", ")"):
                found.append((yield self.attr()))
                if not self.accept("sign", ","):
                    self.expect("sign", ")")
                    break
            return tuple(found)
        if t.kind == "string":
            return unquote(self.take())
        if t.kind == "word" and t.text in ("True", "False", "None"):
            return {"True": True, "False": False, "None": None}[self.take().text]
        if t.kind == "word" and t.text in ("expr", "buffer"):
            self.pos += 1
            self.expect("sign", "(")
            value = (yield self.expr(0)) if t.text == "expr" else self.buffer_named(self.take())
            self.expect("sign", ")")
            return value
        return self.number()

    def buffer_named(self, t: Token) -> e.Buffer:
        found = self.scope.get(unquote(t)) if t.kind in ("word", "quoted") else None
        if not isinstance(found, e.Buffer):
            self.unknown(t, e.Buffer)
        return found


_PLACE = ("dtype", "scope", "shape", "strides", "elem_offset", "data_alignment", "offset_factor")


def _same(a: Any, b: Any) -> bool:
    if type(a) is tuple:
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a is b or (isinstance(a, int | str) and a == b)


_SPECIAL: dict[str, Callable[[ExprParser, Token], Rule]] = {
    "cast": ExprParser.cast,
    "select": ExprParser.select,
    "min": lambda p, t: p._pair(e.Min)(t),
    "max": lambda p, t: p._pair(e.Max)(t),
    "truncmod": lambda p, t: p._pair(e.Mod)(t),
    "ramp": ExprParser.ramp,
    "broadcast": ExprParser.broadcast,
    "shuffle": ExprParser.shuffle,
    "let": ExprParser.let_expr,
}
