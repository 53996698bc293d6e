"""Statements, blocks and functions of loop programs.

Statements are interned like everything else, so an equal statement at two places is one object: a place is addressed
by path
or by the loop and block *names*, which are unique within a PrimFunc (`tir/schedule` keeps them so).
"""

from __future__ import annotations

from typing import Any, ClassVar

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import EMPTY, Attrs, Node
from warpbeam.tir.expr import Buffer, PrimExpr, Var, add, as_expr, floordiv, floormod, mul, sub

FOR_KINDS = ("serial", "parallel", "vectorized", "unrolled", "thread_binding")


class Stmt(Node):
    """Base of statements."""


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
        if kind not in FOR_KINDS:
            raise IRError(f"unknown loop kind {kind!r}", hint=f"one of {FOR_KINDS}")
        notes = annotations if isinstance(annotations, Attrs) else Attrs(annotations)
        return var, as_expr(min, var.dtype), as_expr(extent, var.dtype), kind, body, notes, thread


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


class AssertStmt(Stmt):
    """Fails the kernel with `message` where `cond` is false at run time."""

    cond: PrimExpr
    message: str


class IterVar(Node):
    """An axis of a block or computation: `var` ranges over [0, extent). kind: "spatial" or "reduce"."""

    var: Var
    extent: PrimExpr
    kind: str = "spatial"

    @classmethod
    def _normalize(cls, var: Var, extent: Any, kind: str = "spatial") -> tuple[Any, ...]:
        if kind not in ("spatial", "reduce"):
            raise IRError(f"unknown axis kind {kind!r}", hint="spatial or reduce")
        return var, as_expr(extent, var.dtype), kind

    def __prim_expr__(self) -> PrimExpr:
        return self.var

    def __add__(self, other: Any) -> PrimExpr:
        return add(self.var, other)

    def __radd__(self, other: Any) -> PrimExpr:
        return add(other, self.var)

    def __sub__(self, other: Any) -> PrimExpr:
        return sub(self.var, other)

    def __rsub__(self, other: Any) -> PrimExpr:
        return sub(other, self.var)

    def __mul__(self, other: Any) -> PrimExpr:
        return mul(self.var, other)

    def __rmul__(self, other: Any) -> PrimExpr:
        return mul(other, self.var)

    def __floordiv__(self, other: Any) -> PrimExpr:
        return floordiv(self.var, other)

    def __mod__(self, other: Any) -> PrimExpr:
        return floormod(self.var, other)


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
    def _normalize(cls, name: str, params: Any, body: Stmt, attrs: Any = EMPTY) -> tuple[Any, ...]:
        return name, tuple(params), body, attrs if isinstance(attrs, Attrs) else Attrs(attrs)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return tuple(p for p in self.params if isinstance(p, Buffer))


def seq(*stmts: Stmt | None) -> Stmt:
    """Statements in order, nested sequences flattened, None dropped."""
    flat: list[Stmt] = []
    for s in stmts:
        if isinstance(s, SeqStmt):
            flat.extend(s.stmts)
        elif s is not None:
            flat.append(s)
    return flat[0] if len(flat) == 1 else SeqStmt(tuple(flat))
