"""Parser of Relay text: modules, with their functions, data types and constants."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Generator
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.ir.node import EMPTY, Attrs
from warpbeam.relay.expr import (
    Constant,
    Constructor,
    Function,
    GlobalVar,
    IRModule,
    TypeData,
    Var,
)
from warpbeam.relay.text_parse_expr import ExprParser, Scope
from warpbeam.relay.text_print import run_jobs
from warpbeam.relay.types import FuncType, TensorType, Type, TypeVar

Job = Generator[Any, Any, Any]


_MISFITS = (ValueError, TypeError, AssertionError, LookupError, ArithmeticError, AttributeError)


class _Header:
    """`def @name(…) -> …` with the position of its body."""

    def __init__(self, name: str, pos: int, body: int, end: int) -> None:
        self.name, self.pos, self.body, self.end = name, pos, body, end
        self.params: tuple[Var, ...] = ()
        self.ret: Type | None = None
        self.type_params: tuple[TypeVar, ...] = ()
        self.attrs: Attrs = EMPTY
        self.scope = Scope()


class Parser(ExprParser):
    """Parses a whole text."""

    # ---------------------------------------------------------------------------------------- modules

    def module(self) -> IRModule:
        try:
            return self._module()
        except WarpbeamError:
            raise
        except _MISFITS as err:  # of what builds nodes, which takes for granted what a text need not have
            reason = f"{type(err).__name__}: {err}"[:200]
            self.source.fail("what stands here does not fit together", self.token.pos, why=reason)

    def _module(self) -> IRModule:
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
        body = run_jobs(self.block(h.scope, "}"))
        fn: Function = self.build(pos, Function, h.params, body, h.ret, h.type_params, h.attrs)
        if h.name not in self.globals:
            self.globals[h.name] = GlobalVar(h.name, fn.ty)
        return fn
