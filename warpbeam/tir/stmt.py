"""Statements, blocks and functions of loop programs.

Statements are interned like everything else, so an equal statement at two places is one object: a place is addressed
by path
or by the loop and block *names*, which are unique within a PrimFunc (`tir/schedule` keeps them so).
"""

from __future__ import annotations

from typing import Any, ClassVar

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import EMPTY, Attrs, Node
from warpbeam.tir.expr import Buffer, IntImm, PrimExpr, StringImm, Var, as_expr, cast, const, sub

AXIS_KINDS = ("spatial", "reduce", "ordered", "thread", "opaque")
FOR_KINDS = ("serial", "parallel", "vectorized", "unrolled", "thread_binding")


_CLASSIC_KINDS: dict[Any, str] = {
    **dict(enumerate(("serial", "parallel", "vectorized", "unrolled", "thread_binding"))),
    "vectorize": "vectorized",
    "unroll": "unrolled",
}


class ForKind:
    """Names of the kinds of loops."""

    SERIAL, PARALLEL, VECTORIZED, UNROLLED, THREAD_BINDING = FOR_KINDS


class Stmt(Node):
    """Base of statements."""

    def __repr__(self) -> str:
        return shown(self)


class BufferStore(Stmt):
    """buffer[indices] = value; a vector value stores its lanes (last index a Ramp)."""

    buffer: Buffer
    value: PrimExpr
    indices: tuple[PrimExpr, ...]

    @classmethod
    def _normalize(cls, buffer: Buffer, value: Any, indices: Any) -> tuple[Any, ...]:
        idx = tuple(as_expr(i) for i in indices)
        if len(idx) != len(buffer.shape):
            raise IRError(f"buffer {buffer.name} has {len(buffer.shape)} dimensions, stored with {len(idx)} indices")
        return buffer, as_expr(value, buffer.dtype), idx


class For(Stmt):
    """for var in [min, min+extent): body. kind is one of FOR_KINDS; `thread` names the axis of a thread binding."""

    var: Var
    min: PrimExpr
    extent: PrimExpr
    kind: str
    body: Stmt
    annotations: Attrs = EMPTY
    thread: str = ""

    @classmethod
    def _normalize(
        cls, var: Var, min: Any, extent: Any, kind: str, body: Stmt, annotations: Any = EMPTY, thread: str = ""
    ) -> tuple[Any, ...]:
        kind = _CLASSIC_KINDS.get(kind, kind)
        if kind not in FOR_KINDS:
            raise IRError(f"unknown loop kind {kind!r}", hint=f"one of {FOR_KINDS}")
        notes = annotations if isinstance(annotations, Attrs) else Attrs(annotations)
        return var, as_expr(min, var.dtype), as_expr(extent, var.dtype), kind, body, notes, thread

    @property
    def loop_var(self) -> Var:
        return self.var


class While(Stmt):
    cond: PrimExpr
    body: Stmt


class SeqStmt(Stmt):
    """Statements in order; built through `seq`, which flattens."""

    stmts: tuple[Stmt, ...]


class IfThenElse(Stmt):
    cond: PrimExpr
    then: Stmt
    orelse: Stmt | None = None


class LetStmt(Stmt):
    """`body` with `var` bound to `value`."""

    var: Var
    value: PrimExpr
    body: Stmt


class Allocate(Stmt):
    """`buffer` exists within `body`; its contents are undefined at entry."""

    buffer: Buffer
    body: Stmt
    annotations: Attrs = EMPTY


class Evaluate(Stmt):
    """An expression for its effect (prefetch, call_extern)."""

    value: PrimExpr

    @classmethod
    def _normalize(cls, value: Any) -> tuple[Any, ...]:
        return (as_expr(value),)


class AssertStmt(Stmt):
    """Fails the kernel with `message` where `cond` is false at run time."""

    cond: PrimExpr
    message: str

    @classmethod
    def _normalize(cls, cond: Any, message: Any) -> tuple[Any, ...]:
        return as_expr(cond, "bool"), message.value if isinstance(message, StringImm) else str(message)


class Range(Node):
    """The whole numbers from `min` on, `extent` many. Built as Range(extent), Range(begin, end) or from_min_extent."""

    min: PrimExpr
    extent: PrimExpr

    @classmethod
    def _normalize(cls, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        if kwargs:
            if "end" in kwargs or "begin" in kwargs:
                args = (*args, *(kwargs[k] for k in ("begin", "end") if kwargs.get(k) is not None))
            else:
                return as_expr(kwargs["min"]), as_expr(kwargs["extent"])
        if not 1 <= len(args) <= 2:
            raise IRError(f"Range takes an extent or begin and end, got {len(args)} values")
        begin, end = (0, args[0]) if len(args) == 1 or args[1] is None else args
        return as_expr(begin), sub(end, begin)

    def __repr__(self) -> str:
        return f"range(min={self.min}, ext={self.extent})"

    @classmethod
    def from_min_extent(cls, min_value: Any, extent: Any) -> Range:
        return cls(min=min_value, extent=extent)


class IterVar(Node):
    """An axis of a block or computation: `var` ranges over [start, start + extent).

    kind: "spatial", "reduce", "ordered" (the instances run in this order: a scan's time), "thread" (an axis of the
    device, named by `tag`; extent None: what it is bound to says) or "opaque". Two axes are equal iff their variables
    are. In a block every axis starts at 0.
    """

    var: Var
    extent: Any
    kind: str = "spatial"
    start: PrimExpr = const(0)
    tag: str = ""

    DataPar, ThreadIndex, CommReduce, Ordered, Opaque, Unrolled, Vectorized, Parallelized, Tensorized = range(9)

    @classmethod
    def _normalize(cls, var: Var, extent: Any, kind: str = "spatial", start: Any = 0, tag: str = "") -> tuple[Any, ...]:
        if kind not in AXIS_KINDS:
            raise IRError(f"unknown axis kind {kind!r}", hint=f"one of {AXIS_KINDS}")
        if extent is None and kind != "thread":
            raise IRError(f"axis {var.name} has no extent", hint="only thread axes may leave it open")
        size = None if extent is None else cast(var.dtype, as_expr(extent, var.dtype))
        return var, size, kind, cast(var.dtype, as_expr(start, var.dtype)), tag

    @property
    def name(self) -> str:
        return self.var.name

    @property
    def dtype(self) -> str:
        return self.var.dtype

    @property
    def dom(self) -> Range | None:
        """The values it takes; None for a thread axis without an extent of its own."""
        return None if self.extent is None else Range.from_min_extent(self.start, self.extent)

    @property
    def iter_type(self) -> int:
        """The classic number of its kind: IterVar.DataPar, .ThreadIndex, .CommReduce, .Ordered, .Opaque."""
        return {"spatial": 0, "thread": 1, "reduce": 2, "ordered": 3, "opaque": 4}[self.kind]

    @property
    def thread_tag(self) -> str:
        return self.tag

    def __prim_expr__(self) -> PrimExpr:
        return self.var

    def __repr__(self) -> str:
        tag = f', "{self.tag}"' if self.tag else ""
        return f"iter_var({self.var.name}, {self.dom}, {self.kind}{tag})"

    def __eq__(self, other: object) -> Any:
        return self.var.__eq__(other.var if isinstance(other, IterVar) else other)

    def __ne__(self, other: object) -> Any:
        return self.var.__ne__(other.var if isinstance(other, IterVar) else other)

    __hash__ = object.__hash__

    def equal(self, other: Any) -> PrimExpr:
        """The comparison `self == other` as an expression."""
        return self.var.equal(other)

    def astype(self, dtype: str) -> PrimExpr:
        return self.var.astype(dtype)


def _forwarded(name: str) -> Any:
    def method(self: IterVar, *others: Any) -> Any:
        return getattr(self.var, name)(*[o.var if isinstance(o, IterVar) else o for o in others])

    method.__name__ = name
    return method


for _op in ("add", "sub", "mul", "truediv", "floordiv", "mod", "and", "or", "xor"):
    setattr(IterVar, f"__{_op}__", _forwarded(f"__{_op}__"))
    setattr(IterVar, f"__r{_op}__", _forwarded(f"__r{_op}__"))
for _op in ("lt", "le", "gt", "ge", "neg", "lshift", "rshift"):
    setattr(IterVar, f"__{_op}__", _forwarded(f"__{_op}__"))


class Block(Stmt):
    """A computation over its own axes, separated from the loops that feed them.

    For every instance of the surrounding loops, axis `axes[i].var` takes the value `bindings[i]`; where `predicate`
    is false the
    instance is skipped. `body` stores one element (or a tile); `init`, if any, runs at the first instance of the
    reduction (all
    reduce axes at their first value). Reads and writes are found from the body, not declared.
    """

    _labels: ClassVar[tuple[str, ...]] = ("name",)

    name: str
    axes: tuple[IterVar, ...]
    bindings: tuple[PrimExpr, ...]
    predicate: PrimExpr
    init: Stmt | None
    body: Stmt
    annotations: Attrs = EMPTY

    @classmethod
    def _normalize(
        cls,
        name: str,
        axes: Any,
        bindings: Any,
        predicate: Any,
        init: Stmt | None,
        body: Stmt,
        annotations: Any = EMPTY,
    ) -> tuple[Any, ...]:
        if len(axes) != len(bindings):
            raise IRError(f"block {name} has {len(axes)} axes and {len(bindings)} bindings")
        for a in axes:
            if a.kind == "thread" or type(a.start) is not IntImm or a.start.value:
                raise IRError(f"axis {a.name} of block {name} is no block axis: it starts at 0 and is no thread")
        notes = annotations if isinstance(annotations, Attrs) else Attrs(annotations)
        return name, tuple(axes), tuple(as_expr(b) for b in bindings), as_expr(predicate, "bool"), init, body, notes


class PrimFunc(Node):
    """A loop program. `params` are Buffers (pointers) and int64 Vars (symbolic sizes), in call order.

    Buffers used in the body and neither parameters nor allocated by a statement are an error. Attributes: "name",
    "noalias" (default true), "global_symbol".
    """

    name: str
    params: tuple[Any, ...]
    body: Stmt
    attrs: Attrs = EMPTY

    @classmethod
    def _normalize(
        cls, name: Any, params: Any, body: Any = None, attrs: Any = EMPTY, *more: Any, buffer_map: Any = None
    ) -> tuple[Any, ...]:
        if not isinstance(name, str):  # the classic order: (params, body, ret_type, buffer_map, attrs)
            if any(not isinstance(k, str) for k in attrs or ()):
                buffer_map, attrs = attrs, more[0] if more else EMPTY
            name, params, body = "main", [(buffer_map or {}).get(p, p) for p in name], params
            attrs = attrs or EMPTY
        return name, tuple(params), body, attrs if isinstance(attrs, Attrs) else Attrs(attrs)

    def __repr__(self) -> str:
        return shown(self)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(p for p in self.params if isinstance(p, Buffer))

    @property
    def buffer_map(self) -> dict[Any, Buffer]:
        """The buffer behind each parameter that is one."""
        return {p: p for p in self.buffers}

    def with_body(self, new_body: Stmt, span: Any = None) -> PrimFunc:
        """The function with another body."""
        return PrimFunc(self.name, self.params, new_body, self.attrs)

    def with_attr(self, key: Any, value: Any = None) -> PrimFunc:
        """The function with an attribute set, or several given as a dict."""
        notes = key if isinstance(key, dict) else {key: value}
        return PrimFunc(self.name, self.params, self.body, self.attrs.updated(**notes))

    def without_attr(self, key: str) -> PrimFunc:
        return PrimFunc(self.name, self.params, self.body, {k: v for k, v in self.attrs.items() if k != key})


def shown(node: Node) -> str:
    """The text of a node, for people."""
    from warpbeam.tir.text.printer import shown as text

    return text(node)


def seq(*stmts: Stmt | None) -> Stmt:
    """Statements in order, nested sequences flattened, None dropped."""
    flat: list[Stmt] = []
    for s in stmts:
        if isinstance(s, SeqStmt):
            flat.extend(s.stmts)
        elif s is not None:
            flat.append(s)
    return flat[0] if len(flat) == 1 else SeqStmt(tuple(flat))
