"""Prints loop programs; see the package for the form. Iterative: depth costs no stack."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import TextError
from warpbeam.ir.node import Attrs, Node, children
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.text.free import free_binders
from warpbeam.tir.text.names import SPECIAL, Names, is_reserved, quoted

ATOM = 9
BINARY: dict[type, tuple[str, int]] = {
    e.Or: ("or", 1),
    e.And: ("and", 2),
    e.EQ: ("==", 4),
    e.NE: ("!=", 4),
    e.LT: ("<", 4),
    e.LE: ("<=", 4),
    e.GT: (">", 4),
    e.GE: (">=", 4),
    e.Add: ("+", 5),
    e.Sub: ("-", 5),
    e.Mul: ("*", 6),
    e.Div: ("/", 6),
    e.FloorDiv: ("//", 6),
    e.FloorMod: ("%", 6),
}
NAMED: dict[type, str] = {e.Min: "min", e.Max: "max", e.Mod: "truncmod"}
_NAN = struct.pack(">d", math.nan)


def to_text(node: Any) -> str:
    """Text of a function (which `parse` reads), a statement or an expression (for people); ends without a newline."""
    if isinstance(node, s.PrimFunc):
        return _Printer(node).func(node)
    if isinstance(node, s.Stmt):
        return "\n".join(_Printer(node).stmt(node, 0))
    return _Printer(node).expr(node)


def numbered(func: s.PrimFunc) -> tuple[str, list[tuple[int, int, s.Stmt]]]:
    """The text of a function, and for each printed statement its line (from 1), its depth and itself, in order."""
    printer = _Printer(func)
    printer.places = []
    text = printer.func(func)
    return text, [(printer.first + line, depth, stmt) for line, depth, stmt in printer.places]


def brief(node: Any, limit: int = 160) -> str:
    """One line about a statement or expression, for error messages."""
    if isinstance(node, s.For | s.Block | s.While | s.IfThenElse | s.LetStmt | s.Allocate):
        text = _Printer(node).head(node)
    else:
        text = to_text(node)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(node: Any) -> str:
    """Text of a node for people, whatever is in it."""
    try:
        printer = _Printer(node)
        if isinstance(node, s.PrimFunc):
            return printer.func(node)
        printer.strict = False
        return "\n".join(printer.stmt(node, 0)) if isinstance(node, s.Stmt) else printer.expr(node)
    except TextError as err:
        return f"<{type(node).__name__}: {err.what}>"


def float_text(value: float, dtype: str) -> str:
    """Shortest digits that give the value back in its dtype."""
    if math.isnan(value):
        raw = struct.pack(">d", value)
        text = "nan" if raw == _NAN else f'bits "{raw.hex()}"'
    elif math.isinf(value):
        text = "inf" if value > 0 else "-inf"
    elif dtype == "float32":
        text = str(dt.to_numpy("float32").type(value))
    else:
        text = repr(value)
    return text if dtype == "float32" and not text.startswith("bits") else f"{dtype}({text})"


class _Printer:
    strict = True  # nodes of other floors have no text in a program

    def __init__(self, root: Any) -> None:
        ops = {n.op for n in post_order(root) if type(n) is e.Call} if isinstance(root, Node) else set()
        self.names = Names(ops)
        self.texts: dict[Any, tuple[str, int]] = {}
        self.places: list[tuple[int, int, s.Stmt]] | None = None  # where statements are printed, if that is asked
        self.first = 1  # number of the body's first line

    # ------------------------------------------------------------------------------------------------------ expressions

    def expr(self, x: e.PrimExpr, level: int = 0) -> str:
        """Text of an expression, in parentheses where it binds looser than `level`."""
        if x not in self.texts:
            for n in post_order(x, enter=lambda n: n not in self.texts):
                if isinstance(n, e.PrimExpr) and n not in self.texts:
                    self.texts[n] = self.one(n)
        text, own = self.texts[x]
        return text if own >= level else f"({text})"

    def one(self, n: Any) -> tuple[str, int]:
        cls = type(n)
        found = BINARY.get(cls)
        if found is not None:
            sign, level = found
            left = level + 1 if level == 4 else level
            return f"{self.expr(n.a, left)} {sign} {self.expr(n.b, level + 1)}", level
        if cls in NAMED:
            return f"{NAMED[cls]}({self.expr(n.a)}, {self.expr(n.b)})", ATOM
        if cls is e.Not:
            return f"not {self.expr(n.a, 3)}", 3
        handler = _EXPRS.get(cls)
        if handler is None and not self.strict and hasattr(cls, "text_form"):
            return n.text_form(self), ATOM
        if handler is None:
            raise TextError(
                f"a {cls.__name__} has no text in a loop program",
                hint="te expressions are printed after te.create_prim_func",
            )
        return handler(self, n), ATOM

    def int_imm(self, n: e.IntImm) -> str:
        if n.type == "bool":
            return "True" if n.value else "False"
        return str(n.value) if n.type == "int64" else f"{n.type}({n.value})"

    def float_imm(self, n: e.FloatImm) -> str:
        return float_text(n.value, n.type)

    def string(self, n: e.StringImm) -> str:
        return json.dumps(n.value)

    def var(self, n: e.Var) -> str:
        return self.names[n]

    def select(self, n: e.Select) -> str:
        return f"select({self.expr(n.cond)}, {self.expr(n.a)}, {self.expr(n.b)})"

    def cast(self, n: e.Cast) -> str:
        return f"cast({n.type}, {self.expr(n.value)})"

    def call(self, n: e.Call) -> str:
        like = n.args[1] if n.op == "if_then_else" and len(n.args) > 1 else n.args[0] if n.args else None
        dtype = "" if like is not None and like.dtype == n.type else f"[{n.type}]"
        name = quoted(n.op, is_reserved(n.op) or n.op in SPECIAL)
        notes = " " + self.attrs(n.attrs) if n.attrs else ""
        return f"{name}{dtype}({self.listed(n.args)}){notes}"

    def load(self, n: e.BufferLoad) -> str:
        return f"{self.names[n.buffer]}[{self.listed(n.indices)}]"

    def ramp(self, n: e.Ramp) -> str:
        return f"ramp({self.expr(n.base)}, {self.expr(n.stride)}, {n.count})"

    def broadcast(self, n: e.Broadcast) -> str:
        return f"broadcast({self.expr(n.value)}, {n.count})"

    def shuffle(self, n: e.Shuffle) -> str:
        return f"shuffle([{self.listed(n.vectors)}], [{', '.join(map(str, n.indices))}])"

    def let(self, n: e.Let) -> str:
        return f"let({self.binding(n.var)} = {self.expr(n.value)}, {self.expr(n.body)})"

    def listed(self, items: Any) -> str:
        return ", ".join(self.expr(x) for x in items)

    def binding(self, var: e.Var) -> str:
        """`name`, with its type where it is no plain int64."""
        kind = " ".join(x for x in ("size" if var.nonneg else "", "" if var.type == "int64" else var.type) if x)
        return self.names[var] + (f": {kind}" if kind else "")

    # ------------------------------------------------------------------------------------------------------- attributes

    def attrs(self, notes: Attrs) -> str:
        return "{" + ", ".join(f"{json.dumps(k)}: {self.attr(v)}" for k, v in notes.items()) + "}"

    def attr(self, v: Any) -> str:
        if isinstance(v, Attrs):
            return self.attrs(v)
        if type(v) is tuple:
            inside = ", ".join(self.attr(x) for x in v)
            return f"({inside},)" if len(v) == 1 else f"({inside})"
        if isinstance(v, e.Buffer):
            return f"buffer({self.names[v]})"
        if isinstance(v, e.PrimExpr):
            return f"expr({self.expr(v)})"
        if isinstance(v, str):
            return json.dumps(v)
        if v is None or isinstance(v, bool | int):
            return repr(v)
        if isinstance(v, float):
            return repr(v)
        raise TextError(
            f"an attribute of type {type(v).__name__} has no text",
            hint="attributes are None, numbers, strings, expressions, buffers, and tuples and dicts of them",
        )

    # ------------------------------------------------------------------------------------------------------- statements

    def func(self, f: s.PrimFunc) -> str:
        self.name_binders(f)
        head = [self.param(p) for p in f.params]
        body = self.lines(self.suite(f.body, 1))
        notes = " " + self.attrs(f.attrs) if f.attrs else ""
        line = f"def {quoted(f.name, is_reserved(f.name))}({', '.join(head)}){notes}:"
        if len(line) > 110:
            inner = "".join(f"    {p},\n" for p in head)
            line = f"def {quoted(f.name, is_reserved(f.name))}(\n{inner}){notes}:"
        free = [f"free {self.free(b)}" for b in free_binders(f)]
        self.first = 1 + len(free) + len(line.splitlines())
        return "\n".join([*free, line, *body])

    def name_binders(self, f: s.PrimFunc) -> None:
        """Parameters and loops keep their names, by which schedules address them; block axes get out of their way."""
        for p in f.params:
            self.names.give(p)
        blocks: list[s.Block] = []
        todo: list[Any] = [f.body]
        while todo:
            n = todo.pop()
            if isinstance(n, s.For):
                self.names.give(n.var)
            elif isinstance(n, s.Block):
                blocks.append(n)
            todo += [c for c in reversed(children(n)) if isinstance(c, s.Stmt)]
        for b in blocks:
            for a in b.axes:
                self.names.give(a.var, "v")

    def free(self, b: Any) -> str:
        return self.buffer(b) if isinstance(b, e.Buffer) else self.param(b)

    def param(self, p: Any) -> str:
        if isinstance(p, e.Buffer):
            return self.buffer(p)
        kind = " ".join(x for x in ("size" if p.nonneg else "", "" if p.nonneg and p.type == "int64" else p.type) if x)
        return f"{self.names[p]}: {kind}"

    def buffer(self, b: e.Buffer) -> str:
        dims = ", ".join(str(d) if isinstance(d, int) else self.expr(d) for d in b.shape)
        scope = "" if b.scope == "global" else f" @{quoted(b.scope)}"
        return f"{self.names[b]}: {b.dtype}[{dims}]{scope}{self.place(b)}"

    def place(self, b: e.Buffer) -> str:
        """Where a buffer lies in its memory, as far as it is not compact from the first element."""
        found = ""
        if b.strides:
            found += f" strides[{self.listed(e.as_expr(s) for s in b.strides)}]"
        if not isinstance(b.elem_offset, int) or b.elem_offset:
            found += f" offset[{self.expr(e.as_expr(b.elem_offset))}]"
        if b.data_alignment:
            found += f" align[{b.data_alignment}]"
        if b.offset_factor:
            found += f" factor[{b.offset_factor}]"
        return found

    def stmt(self, root: s.Stmt, depth: int) -> list[str]:
        """Lines of one statement."""
        return self.lines([(root, depth, True)])

    def lines(self, stack: list[tuple[Any, int, bool]]) -> list[str]:
        """Lines of statements. The stack holds, last first, what is still to print: statements or finished lines."""
        lines: list[str] = []
        while stack:
            n, at, last = stack.pop()
            pad = "    " * at
            if isinstance(n, str):
                lines.append(pad + n)
                continue
            cls = type(n)
            if cls in (s.LetStmt, s.Allocate) and not last:
                lines.append(pad + "scope:")
                at += 1
                pad += "    "
            if self.places is not None:
                self.places.append((len(lines), at, n))
            if cls in (s.LetStmt, s.Allocate):
                lines.append(pad + self.head(n))
                stack += self.suite(n.body, at)
            elif cls is s.SeqStmt:
                lines.append(pad + "seq:")
                stack += self.items(n.stmts, at + 1)
            elif cls in _LEAVES:
                lines.append(pad + _LEAVES[cls](self, n))
            else:
                lines.append(pad + self.head(n))
                stack += self.inside(n, at)
        return lines

    def suite(self, body: s.Stmt, at: int) -> list[tuple[Any, int, bool]]:
        """Stack entries (last first) that print a body: the items of a plain sequence, or the one statement."""
        if type(body) is s.SeqStmt and len(body.stmts) > 1:
            return self.items(body.stmts, at)
        return [(body, at, True)]

    def items(self, stmts: Any, at: int) -> list[tuple[Any, int, bool]]:
        if not stmts:
            return [("pass", at, True)]
        return [(x, at, k == len(stmts) - 1) for k, x in reversed(list(enumerate(stmts)))]

    def inside(self, n: Any, at: int) -> list[tuple[Any, int, bool]]:
        if type(n) is s.IfThenElse and n.orelse is not None:
            return [*self.suite(n.orelse, at + 1), ("else:", at, True), *self.suite(n.then, at + 1)]
        if type(n) is s.IfThenElse:
            return self.suite(n.then, at + 1)
        below = self.suite(n.body, at + 1)
        if type(n) is s.Block and n.init is not None:
            return [*below, *self.suite(n.init, at + 2), ("init:", at + 1, True)]
        return below

    def head(self, n: Any) -> str:
        """First line of a statement that has others inside."""
        handler = _HEADS.get(type(n))
        if handler is None:
            raise TextError(f"a {type(n).__name__} statement has no text")
        return handler(self, n)

    def loop(self, n: s.For) -> str:
        kind = {"serial": "range"}.get(n.kind, n.kind)
        args = [json.dumps(n.thread)] if n.thread else []
        if not (type(n.min) is e.IntImm and n.min.value == 0):
            args.append(self.expr(n.min))
            args.append(f"extent={self.expr(n.extent)}")
        else:
            args.append(self.expr(n.extent))
        notes = " " + self.attrs(n.annotations) if n.annotations else ""
        return f"for {self.binding(n.var)} in {kind}({', '.join(args)}){notes}:"

    def block(self, n: s.Block) -> str:
        axes = []
        for a, b in zip(n.axes, n.bindings, strict=True):
            kind = f"{a.kind}[{self.expr(a.extent)}]"
            own = self.binding(a.var)
            axes.append(f"{own} {kind} = {self.expr(b)}" if ":" in own else f"{own}: {kind} = {self.expr(b)}")
        plain = type(n.predicate) is e.IntImm and n.predicate.value
        where = "" if plain else f" where {self.expr(n.predicate)}"
        notes = " " + self.attrs(n.annotations) if n.annotations else ""
        return f"block {json.dumps(n.name)} ({', '.join(axes)}){where}{notes}:"

    def let_stmt(self, n: s.LetStmt) -> str:
        value = self.expr(n.value)
        return f"let {self.binding(n.var)} = {value}"

    def allocate(self, n: s.Allocate) -> str:
        notes = " " + self.attrs(n.annotations) if n.annotations else ""
        return f"alloc {self.buffer(n.buffer)}{notes}"

    def store(self, n: s.BufferStore) -> str:
        return f"{self.names[n.buffer]}[{self.listed(n.indices)}] = {self.expr(n.value)}"


_EXPRS: dict[type, Callable[[_Printer, Any], str]] = {
    e.IntImm: _Printer.int_imm,
    e.FloatImm: _Printer.float_imm,
    e.StringImm: _Printer.string,
    e.Var: _Printer.var,
    e.BufferRef: lambda p, n: p.names[n.buffer],
    e.Select: _Printer.select,
    e.Cast: _Printer.cast,
    e.Call: _Printer.call,
    e.BufferLoad: _Printer.load,
    e.Ramp: _Printer.ramp,
    e.Broadcast: _Printer.broadcast,
    e.Shuffle: _Printer.shuffle,
    e.Let: _Printer.let,
}
_HEADS: dict[type, Callable[[_Printer, Any], str]] = {
    s.For: _Printer.loop,
    s.Block: _Printer.block,
    s.LetStmt: _Printer.let_stmt,
    s.Allocate: _Printer.allocate,
    s.While: lambda p, n: f"while {p.expr(n.cond)}:",
    s.IfThenElse: lambda p, n: f"if {p.expr(n.cond)}:",
}
_LEAVES: dict[type, Callable[[_Printer, Any], str]] = {
    s.BufferStore: _Printer.store,
    s.Evaluate: lambda p, n: f"eval {p.expr(n.value)}",
    s.AssertStmt: lambda p, n: f"assert {p.expr(n.cond)}, {json.dumps(n.message)}",
}
