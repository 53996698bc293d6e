"""Parser of Relay text, lower half: tokens, dimensions, types, attribute values, literals."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import TextError, WarpbeamError
from warpbeam.ir.node import Attrs
from warpbeam.relay.expr import Constant, ConstData, Constructor
from warpbeam.relay.text_lex import Source, Token, nearest
from warpbeam.relay.text_names import INFIX, PREFIX, SUFFIX
from warpbeam.relay.types import FuncType, GlobalTypeVar, RefType, TensorType, TupleType, Type, TypeCall, TypeVar
from warpbeam.tir import expr as E
from warpbeam.topi import dims

_BY_SUFFIX = {v: k for k, v in SUFFIX.items()}
_SIGNS = {v: k for k, v in INFIX.items()}
_CALLS = {v: k for k, v in PREFIX.items()}
_MAX_DEPTH = 100


class TypeParser:
    """Cursor over the tokens with the parsers of everything below expressions."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = source.tokens
        self.at = 0
        self.depth = 0
        self.sizes: dict[str, E.Var] = {}
        self.type_names: dict[str, Type] = {}
        self.constructors: dict[str, Constructor] = {}

    # ----------------------------------------------------------------------------------------- cursor

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def peek(self, text: str, ahead: int = 0) -> bool:
        t = self.tokens[min(self.at + ahead, len(self.tokens) - 1)]
        return t.text == text and t.kind != "string"

    def take(self, text: str) -> bool:
        """Moves over `text` if it is next."""
        if self.peek(text):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> Token:
        if not self.peek(text):
            self.fail(f"expected {text!r}, found {self.token.text or 'the end'!r}")
        self.at += 1
        return self.tokens[self.at - 1]

    def kind(self, kind: str, what: str) -> Token:
        if self.token.kind != kind:
            self.fail(f"expected {what}, found {self.token.text or 'the end'!r}")
        self.at += 1
        return self.tokens[self.at - 1]

    def fail(self, message: str, pos: int | None = None, hint: str = "", why: str = "") -> Any:
        self.source.fail(message, self.token.pos if pos is None else pos, hint, why)

    def row(self, close: str, item: Callable[[], Any]) -> list[Any]:
        """Items separated by commas up to `close`, a comma at the end allowed."""
        out = []
        while not self.take(close):
            out.append(item())
            if not self.take(","):
                self.expect(close)
                break
        return out

    def nested(self, parse: Callable[[], Any]) -> Any:
        """One level deeper; refuses texts nested beyond all reason."""
        if self.depth >= _MAX_DEPTH:
            self.fail(f"types and attributes may nest at most {_MAX_DEPTH} deep")
        self.depth += 1
        try:
            return parse()
        finally:
            self.depth -= 1

    def build(self, pos: int, make: Callable[..., Any], *args: Any) -> Any:
        """Builds a node; an error of its own becomes one at this place."""
        try:
            return make(*args)
        except TextError:
            raise
        except WarpbeamError as err:
            self.fail(err.what, pos, hint=err.hint, why=err.why)

    # ------------------------------------------------------------------------------------- dimensions

    def size(self, token: Token) -> E.Var:
        if token.text == "?":
            return E.SizeVar("d")
        if token.name not in self.sizes:
            self.sizes[token.name] = E.SizeVar(token.name)
        return self.sizes[token.name]

    def dims_line(self) -> None:
        """`dims ?k: int32, ?j: int64 any, ?c: int64 counted, ?n: int64 positive;`"""
        while True:
            t = self.kind("size", "a size such as ?n")
            self.expect(":")
            dtype = self.kind("word", "a dtype").text
            self.sizes[t.name] = var = E.Var(t.name, dtype, not self.take("any"))
            if self.take("counted"):
                dims.counted(var)
            if self.take("positive"):
                dims.take_positive([var])
            if not self.take(","):
                break
        self.expect(";")

    def scalar(self) -> Any:
        """A scalar expression: ?n, 3, (a + b), min(a, b), …"""
        return self.nested(self._scalar)

    def _scalar(self) -> Any:
        t = self.token
        if t.kind == "size":
            self.at += 1
            return self.size(t)
        if t.kind == "number" or t.text == "-":
            return E.const(int(self.number()))
        if self.take("("):
            left = self.scalar()
            sign = self.token.text
            if sign not in _SIGNS:
                self.expect(")")
                return left
            self.at += 1
            right = self.scalar()
            self.expect(")")
            return self.build(t.pos, _SIGNS[sign], left, right)
        return self._scalar_call(self.kind("word", "a size expression"))

    def _scalar_call(self, head: Token) -> Any:
        self.expect("(")
        if head.text == "imm":
            value = self.number()
            self.expect(",")
            dtype = json.loads(self.kind("string", "a dtype string").text)
            self.expect(")")
            return self.build(head.pos, E.FloatImm if dt.is_float(dtype) else E.IntImm, value, dtype)
        words = []
        while self.token.kind == "string":
            words.append(json.loads(self.token.text))
            self.at += 1
            self.take(",")
        args = self.row(")", self.scalar)
        if head.text == "cast" and len(words) == 1 and len(args) == 1:
            return E.Cast(words[0], args[0])
        if head.text == "call" and len(words) == 2:
            return E.Call(words[1], words[0], args)
        cls = _CALLS.get(head.text)
        if cls is None:
            self.fail(f"unknown size function {head.text!r}", head.pos, hint=nearest(head.text, list(_CALLS)))
        return self.build(head.pos, cls, *args)  # type: ignore[arg-type]

    def number(self) -> Any:
        """An int or float, with sign; nan and inf."""
        sign = -1 if self.take("-") else 1
        t = self.token
        if t.kind == "word" and t.text in ("nan", "inf"):
            self.at += 1
            return sign * float(t.text)
        t = self.kind("number", "a number")
        if any(c in "fbiu" for c in t.text):
            self.fail("a plain number is expected here, without a dtype suffix", t.pos)
        plain = t.text.isdigit()
        return sign * int(t.text) if plain else sign * float(t.text)

    # ------------------------------------------------------------------------------------------ types

    def type(self) -> Type:
        """A type."""
        return self.nested(self._type)  # type: ignore[no-any-return]

    def _type(self) -> Type:
        t = self.token
        if self.take("("):
            return TupleType(tuple(self.row(")", self.type)))
        word = self.kind("word", "a type").text
        if word == "Tensor":
            return self._tensor()
        if word == "fn":
            free = self.type_params()
            self.expect("(")
            params = tuple(self.row(")", self.type))
            self.expect("->")
            return FuncType(params, self.type(), free)
        if word == "ref":
            self.expect("(")
            inner = self.type()
            self.expect(")")
            return RefType(inner)
        if word in self.type_names:
            head = self.type_names[word]
            return TypeCall(head, tuple(self.row("]", self.type))) if self.take("[") else head
        try:
            dt.parse(word)
        except WarpbeamError:
            self.fail(f"unknown type {word!r}", t.pos, hint=nearest(word, ["Tensor", *self.type_names]))
        return TensorType((), word)

    def _tensor(self) -> TensorType:
        self.expect("[")
        self.expect("(")
        shape = self.row(")", self.scalar)
        self.expect(",")
        t = self.kind("word", "a dtype")
        self.build(t.pos, dt.parse, t.text)
        self.expect("]")
        return TensorType(shape, t.text)

    def type_params(self) -> tuple[TypeVar, ...]:
        """`<A, B>` or `[A, B]` or nothing; the names stay known afterwards."""
        close = {"<": ">", "[": "]"}.get(self.token.text)
        if close is None:
            return ()
        self.at += 1
        return tuple(self.row(close, self._type_param))

    def _type_param(self) -> TypeVar:
        t = self.kind("string" if self.token.kind == "string" else "word", "a type variable")
        name = json.loads(t.text) if t.kind == "string" else t.text
        self.type_names[name] = TypeVar(name)
        return self.type_names[name]  # type: ignore[return-value]

    # ----------------------------------------------------------------------------------------- values

    def attr(self) -> Any:
        """An attribute value."""
        return self.nested(self._attr)

    def _attr(self) -> Any:
        t = self.token
        if t.kind == "string":
            self.at += 1
            return json.loads(t.text)
        if t.kind == "number" or t.text == "-" or (t.kind == "word" and t.text in ("nan", "inf")):
            return self.number()
        if t.kind == "word" and t.text in ("True", "False", "None"):
            self.at += 1
            return {"True": True, "False": False, "None": None}[t.text]
        if t.kind == "word" and t.text == "type":
            self.at += 1
            self.expect("(")
            found = self.type()
            self.expect(")")
            return found
        if self.take("["):
            return tuple(self.row("]", self.attr))
        if self.take("{"):
            return Attrs(dict(self.row("}", lambda: self.attr_pair(":"))))
        return self.scalar()

    def attr_pair(self, sep: str) -> tuple[str, Any]:
        t = self.token
        self.at += 1
        if t.kind not in ("word", "string"):
            self.fail(f"expected an attribute name, found {t.text!r}", t.pos)
        self.expect(sep)
        return json.loads(t.text) if t.kind == "string" else t.text, self.attr()

    def is_attr(self) -> bool:
        """Whether `name =` comes next."""
        return self.token.kind in ("word", "string") and self.peek("=", 1)

    # --------------------------------------------------------------------------------------- literals

    def literal(self) -> Constant:
        """1f, 2i64, -3, 1.5: a scalar constant."""
        start = self.token.pos
        sign = "-" if self.take("-") else ""
        text = self.kind("number", "a number").text
        body, suffix = text, ""
        for i, ch in enumerate(text):
            if ch in "fbiu":
                body, suffix = text[:i], text[i:]
                break
        dtype = _BY_SUFFIX.get(suffix) if suffix or body.isdigit() else "float32"
        if dtype is None:
            self.fail(f"unknown literal suffix {suffix!r}", start, hint=f"there are {sorted(_BY_SUFFIX)}")
        exact = int(sign + body) if body.isdigit() and not dt.is_float(dtype or "") else float(sign + body)
        return self.build(start, self.array, [exact], (), dtype)  # type: ignore[no-any-return]

    def array(self, values: Any, shape: tuple[int, ...], dtype: str) -> Constant:
        try:
            data = np.array(values, dtype=dt.to_numpy(dtype)).reshape(shape)
        except (ValueError, OverflowError, TypeError) as err:
            raise TextError(f"bad literal of {dtype}: {err}") from err
        return Constant(data)

    def const_call(self) -> Constant:
        """const([[1, 2]], int64), const(["a"], (1,), string)."""
        start = self.expect("(").pos
        values = self._const_items()
        self.expect(",")
        shape = None
        if self.take("("):
            shape = tuple(self.row(")", self.number))
            self.expect(",")
        dtype = self.kind("word", "a dtype").text
        self.expect(")")
        self.build(start, dt.parse, dtype)
        try:
            return Constant(_array(values, shape, dtype))
        except (ValueError, TypeError, OverflowError) as err:
            return self.fail(f"bad constant of {dtype}: {err}", start)  # type: ignore[no-any-return]

    def _const_items(self) -> Any:
        if self.take("["):
            return self.nested(lambda: self.row("]", self._const_items))
        t = self.token
        if t.kind == "string":
            self.at += 1
            return json.loads(t.text)
        if t.text in ("True", "False"):
            self.at += 1
            return t.text == "True"
        return self.number()

    def declare_type(self, name: str) -> GlobalTypeVar:
        """The header of a data type, known from now on."""
        if not isinstance(self.type_names.get(name), GlobalTypeVar):
            self.type_names[name] = GlobalTypeVar(name)
        return self.type_names[name]  # type: ignore[return-value]


def _array(values: Any, shape: tuple[int, ...] | None, dtype: str) -> Any:
    """Nested lists as an array of a dtype; strings are flat, with their shape beside them."""
    if dtype == "string":
        data = np.empty(len(values), dtype=object)
        data[:] = values
        return ConstData(data.reshape(shape if shape is not None else (-1,)))
    if dt.is_float(dtype):
        return np.asarray(values, np.float64).astype(dt.to_numpy(dtype))
    return np.asarray(values, dtype=dt.to_numpy(dtype))
