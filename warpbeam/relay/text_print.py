"""Relay text: a graph as numbered bindings `%0 = …;` within blocks, as far in as all uses allow.

Every node gets the innermost block that encloses all its uses; a block prints what it owns in order of need. Nested
blocks (functions, branches, clauses, let values) are printed by a trampoline, so depth costs no Python stack.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Generator
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import TextError
from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import origins
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
    Pattern,
    PatternConstructor,
    PatternTuple,
    PatternVar,
    RefCreate,
    RefRead,
    RefWrite,
    Tuple,
    TupleGetItem,
    TypeData,
    Var,
)
from warpbeam.relay.op import Op
from warpbeam.relay.text_names import Names, attr_key, inline_constant, quoted, size_words
from warpbeam.relay.types import TensorType

HEADER = '#[version = "1.0"]'
_LEAF = (Var, GlobalVar, Constructor, Constant, Op)
_REPEATED = (Call, RefCreate, RefRead, RefWrite)
Lines = list[str]


class _Block:
    """A scope of the text: `{ … }` or the top."""

    __slots__ = ("depth", "parent")

    def __init__(self, parent: _Block | None) -> None:
        self.parent: _Block | None = parent
        self.depth: int = 0 if parent is None else parent.depth + 1


def _common(a: _Block, b: _Block) -> _Block:
    while a is not b:
        if a.depth < b.depth:
            a, b = b, a
        a = a.parent  # type: ignore[assignment]
    return a


def _edges(node: Any) -> list[tuple[Any, str]]:
    """(child, kind): "same" block, "value" or "tail" of a let (same block), or "block" (a new one)."""
    kind = type(node)
    if kind is Call:
        head = [] if isinstance(node.op, Op) else [(node.op, "same")]
        return head + [(a, "same") for a in node.args]
    if kind is Tuple:
        return [(f, "same") for f in node.fields]
    if kind is TupleGetItem:
        return [(node.tuple_value, "same")]
    if kind is Let:
        return [(node.value, "value"), (node.body, "tail")]
    if kind is Function:
        return [(node.body, "block")]
    if kind is If:
        return [(node.cond, "same"), (node.then, "block"), (node.orelse, "block")]
    if kind is Match:
        return [(node.data, "same"), *((c.rhs, "block") for c in node.clauses)]
    if kind in (RefCreate, RefRead, RefWrite):
        return [(getattr(node, f), "same") for f in kind._fields]
    return []


class _Scopes:
    """Which block owns each node below one root, how often it is used, and the block of each nested part."""

    def __init__(self, root: Expr) -> None:
        self.top = _Block(None)
        self.uses: dict[int, list[_Block]] = {id(root): [self.top]}
        self.tail: set[int] = {id(root)}
        self.inlined: set[int] = {id(root)}
        self.operands: set[int] = set()
        self.owner: dict[int, _Block] = {}
        self.inner: dict[tuple[int, int], _Block] = {}
        self.events: dict[_Block, list[tuple[str, Any]]] = {}
        for node in reversed(_order(root)):
            self._place(node)
        self._schedule(root)

    def _place(self, node: Any) -> None:
        uses = self.uses[id(node)]
        owner = uses[0]
        for block in uses[1:]:
            owner = _common(owner, block)
        self.owner[id(node)] = owner
        nested = type(node) is Let and not (len(uses) == 1 and id(node) in self.tail)
        if nested:
            owner = self.inner[id(node), -1] = _Block(owner)
        for i, (child, kind) in enumerate(_edges(node)):
            block = owner
            if kind == "block":
                block = self.inner[id(node), i] = _Block(owner)
            self.uses.setdefault(id(child), []).append(block)
            (self.inlined if kind != "same" else self.operands).add(id(child))
            if kind in ("tail", "block"):
                self.tail.add(id(child))

    def _schedule(self, root: Expr) -> None:
        """What each block binds and names, in order of need: one walk over the whole graph."""
        seen: set[int] = set()
        stack: list[tuple[str, Any]] = [("visit", root)]
        while stack:
            action, node = stack.pop()
            if action != "visit":
                block = self.inner.get((id(node), -1)) if action == "bind" else None
                self.events.setdefault(block or self.owner[id(node)], []).append((action, node))
                continue
            if isinstance(node, _LEAF) or id(node) in seen:
                continue
            seen.add(id(node))
            let = type(node) is Let
            if not self._inline(node) and not (let and (id(node), -1) not in self.inner):
                stack.append(("emit", node))
            if let:
                stack += [("visit", node.body), ("bind", node), ("visit", node.value)]
            else:
                stack.extend(("visit", c) for c, _ in reversed(_edges(node)))

    def _inline(self, node: Any) -> bool:
        """Nodes that are written where they are used: fields, and what is only used as a result or let value."""
        if type(node) is TupleGetItem or (type(node) is Tuple and not node.fields):
            return True
        if len(self.uses[id(node)]) > 1:  # equal let values are one node; each let shows its own
            return type(node) in _REPEATED and id(node) not in self.operands
        return id(node) in self.inlined


def _order(root: Expr) -> list[Any]:
    """Nodes below root, children first, by text edges."""
    out: list[Any] = []
    seen: set[int] = set()
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            out.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((c, False) for c, _ in reversed(_edges(node)))
    return out


def run_jobs(job: Generator[Any, Any, Any]) -> Any:
    """Runs a generator that yields generators for its parts."""
    stack, value = [job], None
    while stack:
        try:
            child = stack[-1].send(value)
            stack.append(child)
            value = None
        except StopIteration as stop:
            stack.pop()
            value = stop.value
    return value


class Printer:
    """Prints modules and expressions; holds the names and constants of one text."""

    def __init__(self, constants: str = "inline", show_types: bool = False, show_origins: bool = False) -> None:
        self.constants = constants
        self.show_types = show_types
        self.show_origins = show_origins
        self.names = Names()
        self.metas: dict[Constant, int] = {}
        self.ambiguous: set[str] = set()
        self.scopes: _Scopes
        self.refs: dict[int, str] = {}
        self.count = 0

    # ---------------------------------------------------------------------------------------- modules

    def module(self, mod: IRModule) -> str:
        seen: set[str] = set()
        for data in mod.types.values():
            for c in data.constructors:
                (self.ambiguous if c.name in seen else seen).add(c.name)
        parts = [self._type_data(d) for d in mod.types.values()]
        parts += ["\n".join(self._definition(g, f)) for g, f in mod.functions.items()]
        return self._finish(parts)

    def _finish(self, parts: list[str]) -> str:
        head = [HEADER]
        if self.names.declared:
            words = [f"{self.names.size(v)}: {v.dtype}{size_words(v)}" for v in self.names.declared]
            head.append(f"dims {', '.join(words)};")
        meta = self._metadata()
        return "\n\n".join(["\n".join(head), *parts, *meta]) + "\n"

    def _type_data(self, data: TypeData) -> str:
        free = f"[{', '.join(map(self.names.type_name, data.type_vars))}]" if data.type_vars else ""
        lines = [f"type {self.names.type_name(data.header)}{free} {{"]
        for c in data.constructors:
            fields = f"({', '.join(map(self.names.type, c.inputs))})" if c.inputs else ""
            lines.append(f"  {quoted(c.name)}{fields},")
        return "\n".join([*lines, "}"])

    def _definition(self, gv: GlobalVar, fn: Function) -> Lines:
        self._begin(fn)
        head = self._signature(fn, f"def @{quoted(gv.name)}")
        return [head + " {", *_indent(run_jobs(self._block(fn.body, self.scopes.inner[id(fn), 0]))), "}"]

    def expression(self, expr: Expr, free: list[Var]) -> str:
        self._begin(expr)
        lines = [f"free_var {self._declared(v)};" for v in free]
        lines += run_jobs(self._block(expr, self.scopes.top))
        return self._finish(["\n".join(lines)])

    def _begin(self, root: Expr) -> None:
        self.names.start_function()
        self.scopes = _Scopes(root)
        self.refs = {}
        self.count = 0

    def _signature(self, fn: Function, start: str) -> str:
        types = f"<{', '.join(map(self.names.type_name, fn.type_params))}>" if fn.type_params else ""
        parts = [self._declared(p) for p in fn.params]
        if fn.attrs:
            parts.append(self.names.attrs(fn.attrs))
        ret = f" -> {self.names.type(fn.ret_type)}" if fn.ret_type is not None else ""
        return f"{start}{types}({', '.join(parts)}){ret}"

    def _declared(self, v: Var) -> str:
        name = self.names.local(v)
        return name if v.type_annotation is None else f"{name}: {self.names.type(v.type_annotation)}"

    # ----------------------------------------------------------------------------------------- blocks

    def _block(self, root: Expr, block: _Block) -> Generator[Any, Any, Lines]:
        """Lines of one block: bindings in order of need, then the result."""
        lines: Lines = []
        last: Any = root
        for action, node in self.scopes.events.get(block, ()):
            if action == "bind":
                text = yield self._value(node.value)
                lines += _framed(f"let {self._declared(node.var)} = ", text, ";")
                last = node.body
            else:
                text = yield self._text(node)
                name = f"%{self.count}"
                self.count += 1
                lines += _framed(f"{name} = ", text, ";" + self._remark(node))
                self.refs[id(node)] = name
        lines += yield self._value(last)
        return lines

    def _remark(self, node: Any) -> str:
        words = ""
        if self.show_types and node.ty is not None:
            words += f"  /* ty={self.names.type(node.ty)} */"
        if self.show_origins and origins(node):
            safe = ", ".join(sorted(origins(node))).replace("*/", "* /")
            words += f"  /* from {safe} */"
        return words

    # ------------------------------------------------------------------------------------ expressions

    def _value(self, node: Any) -> Generator[Any, Any, Lines]:
        """A node where it is used in full: its reference if it has one, else its text."""
        if isinstance(node, _LEAF) or id(node) in self.refs or type(node) is TupleGetItem:
            return [self._ref(node)]
        return (yield self._text(node))  # type: ignore[no-any-return]

    def _ref(self, node: Any) -> str:
        fields = ""
        while type(node) is TupleGetItem and id(node) not in self.refs:
            fields = f".{node.index}{fields}"
            node = node.tuple_value
        return self._atom(node) + fields

    def _atom(self, node: Any) -> str:
        if id(node) in self.refs:
            return self.refs[id(node)]
        if isinstance(node, Var):
            return self.names.local(node)
        if isinstance(node, GlobalVar):
            return f"@{quoted(node.name)}"
        if isinstance(node, Constructor):
            name = quoted(node.name)
            return f"{self.names.type_name(node.belongs_to)}::{name}" if node.name in self.ambiguous else name
        if isinstance(node, Constant):
            return self._constant(node)
        if isinstance(node, Op):
            return node.name
        if type(node) is Tuple and not node.fields:
            return "()"
        raise TextError(f"{type(node).__name__} is used outside the scope of its variables")

    def _constant(self, node: Constant) -> str:
        text = inline_constant(node)
        if text is not None:
            return text
        return f"meta[relay.Constant][{self.metas.setdefault(node, len(self.metas))}]"

    def _text(self, node: Any) -> Generator[Any, Any, Lines]:
        """The node itself, over its parts' references."""
        kind = type(node)
        if kind is Call:
            return [self._call(node)]
        if kind is Tuple:
            items = [self._ref(f) for f in node.fields]
            return [f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"]
        if kind is RefCreate:
            return [f"ref({self._ref(node.value)})"]
        if kind is RefRead:
            return [f"ref_read({self._ref(node.ref)})"]
        if kind is RefWrite:
            return [f"ref_write({self._ref(node.ref)}, {self._ref(node.value)})"]
        return (yield self._nested(node))  # type: ignore[no-any-return]

    def _nested(self, node: Any) -> Generator[Any, Any, Lines]:
        inner = self.scopes.inner
        if type(node) is Function:
            body = yield self._block(node.body, inner[id(node), 0])
            return [self._signature(node, "fn ") + " {", *_indent(body), "}"]
        if type(node) is Let:
            body = yield self._block(node, inner[id(node), -1])
            return ["{", *_indent(body), "}"]
        if type(node) is If:
            then = yield self._block(node.then, inner[id(node), 1])
            orelse = yield self._block(node.orelse, inner[id(node), 2])
            return [f"if ({self._ref(node.cond)}) {{", *_indent(then), "} else {", *_indent(orelse), "}"]
        if type(node) is Match:
            lines = [f"match{'' if node.complete else '?'} ({self._ref(node.data)}) {{"]
            for i, clause in enumerate(node.clauses):
                head = self._pattern(clause.lhs)
                body = yield self._block(clause.rhs, inner[id(node), i + 1])
                lines += _indent([f"{head} => {{", *_indent(body), "},"])
            return [*lines, "}"]
        raise TextError(f"{type(node).__name__} has no text")

    def _call(self, node: Call) -> str:
        head = self._ref(node.op)
        if node.type_args:
            head += f"<{', '.join(map(self.names.type, node.type_args))}>"
        parts = [self._ref(a) for a in node.args]
        attrs = node.attrs
        if isinstance(node.op, Op):
            default = node.op.defaults
            attrs = Attrs({k: v for k, v in attrs.items() if k not in default or Attrs(v=v) != Attrs(v=default[k])})
        parts += [f"{attr_key(k)}={self.names.attr(v, f'attribute {k} of {head}')}" for k, v in attrs.items()]
        return f"{head}({', '.join(parts)})"

    def _pattern(self, p: Pattern) -> str:
        """Patterns nest as deep as the source wrote them; text depth equals theirs."""
        if isinstance(p, PatternVar):
            return self._declared(p.var)
        if isinstance(p, PatternTuple):
            items = [self._pattern(q) for q in p.patterns]
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        if isinstance(p, PatternConstructor):
            inner = f"({', '.join(map(self._pattern, p.patterns))})" if p.patterns else ""
            return self._atom(p.constructor) + inner
        return "_"

    # --------------------------------------------------------------------------------------- metadata

    def _metadata(self) -> list[str]:
        if not self.metas:
            return []
        lines = ["#[metadata]"]
        for node, i in self.metas.items():
            lines.append(f"meta[{i}]: {self.names.type(node.ty)} = {self._content(node)};")
        return ["\n".join(lines)]

    def _content(self, node: Constant) -> str:
        if self.constants == "elide":
            return "elided"
        if self.constants == "digest":
            return f"digest {json.dumps(constant_digest(node))}"
        data = np.ascontiguousarray(node.numpy()).tobytes()
        return f"base64 {json.dumps(base64.b64encode(data).decode('ascii'))}"


def constant_digest(node: Constant) -> str:
    """The key under which a text refers to a constant kept outside: type and content."""
    assert isinstance(node.ty, TensorType)
    shape = "x".join(map(str, node.numpy().shape))
    return f"{dt.from_numpy(node.numpy().dtype)}:{shape}:{node.data.digest}"


def _indent(lines: Lines) -> Lines:
    return ["  " + line for line in lines]


def _framed(start: str, lines: Lines, end: str) -> Lines:
    out = list(lines)
    out[0] = start + out[0]
    out[-1] += end
    return out
