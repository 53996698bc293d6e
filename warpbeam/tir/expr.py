"""Scalar and vector expressions of loop programs.

Every expression carries its dtype. Python operators build expressions and fold constants; `a == b` builds an EQ node
whose `bool()` is identity, so expressions serve as dict keys.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs, Binder
from warpbeam.tir.buffer import (
    Buffer as Buffer,
)
from warpbeam.tir.buffer import (
    BufferLoad as BufferLoad,
)
from warpbeam.tir.buffer import (
    BufferRef as BufferRef,
)
from warpbeam.tir.buffer import (
    simplify_dim as simplify_dim,
)
from warpbeam.tir.expr_base import (
    EQ as EQ,
)
from warpbeam.tir.expr_base import (
    GE as GE,
)
from warpbeam.tir.expr_base import (
    GT as GT,
)
from warpbeam.tir.expr_base import (
    LE as LE,
)
from warpbeam.tir.expr_base import (
    LT as LT,
)
from warpbeam.tir.expr_base import (
    NE as NE,
)
from warpbeam.tir.expr_base import (
    Add as Add,
)
from warpbeam.tir.expr_base import (
    BinaryExpr as BinaryExpr,
)
from warpbeam.tir.expr_base import (
    Broadcast as Broadcast,
)
from warpbeam.tir.expr_base import (
    Cast as Cast,
)
from warpbeam.tir.expr_base import (
    CmpExpr as CmpExpr,
)
from warpbeam.tir.expr_base import (
    Div as Div,
)
from warpbeam.tir.expr_base import (
    FloatImm as FloatImm,
)
from warpbeam.tir.expr_base import (
    FloorDiv as FloorDiv,
)
from warpbeam.tir.expr_base import (
    FloorMod as FloorMod,
)
from warpbeam.tir.expr_base import (
    IntImm as IntImm,
)
from warpbeam.tir.expr_base import (
    Max as Max,
)
from warpbeam.tir.expr_base import (
    Min as Min,
)
from warpbeam.tir.expr_base import (
    Mod as Mod,
)
from warpbeam.tir.expr_base import (
    Mul as Mul,
)
from warpbeam.tir.expr_base import (
    PrimExpr as PrimExpr,
)
from warpbeam.tir.expr_base import (
    StringImm as StringImm,
)
from warpbeam.tir.expr_base import (
    Sub as Sub,
)
from warpbeam.tir.expr_base import (
    add as add,
)
from warpbeam.tir.expr_base import (
    as_expr as as_expr,
)
from warpbeam.tir.expr_base import (
    binary as binary,
)
from warpbeam.tir.expr_base import (
    cast as cast,
)
from warpbeam.tir.expr_base import (
    const as const,
)
from warpbeam.tir.expr_base import (
    div as div,
)
from warpbeam.tir.expr_base import (
    floordiv as floordiv,
)
from warpbeam.tir.expr_base import (
    floormod as floormod,
)
from warpbeam.tir.expr_base import (
    mul as mul,
)
from warpbeam.tir.expr_base import (
    pair as pair,
)
from warpbeam.tir.expr_base import (
    same_dtype as same_dtype,
)
from warpbeam.tir.expr_base import (
    sub as sub,
)
from warpbeam.tir.intrin import op_name
from warpbeam.tir.literal import trunc_div as trunc_div


class Var(Binder, PrimExpr):
    """A scalar variable; loop variables and symbolic dimensions are such. `nonneg` states that it is >= 0 (a size)."""

    name: str
    type: str = "int64"
    nonneg: bool = False

    def _derive(self) -> None:
        Binder._derive(self)
        self._set("dtype", self.type)


def SizeVar(name: str, dtype: str = "int64") -> Var:
    """A variable that stands for a size (>= 0)."""
    return Var(name, dtype, True)


class And(BinaryExpr):
    """Logical and of bools; both sides are evaluated and free of effects."""


class Or(BinaryExpr):
    """Logical or of bools; both sides are evaluated and free of effects."""


class Not(PrimExpr):
    a: PrimExpr

    def _derive(self) -> None:
        self._set("dtype", self.a.dtype)


class Select(PrimExpr):
    """`a` where `cond`, else `b`. Both sides are evaluated: loads in them must be in bounds (else use if_then_else)."""

    cond: PrimExpr
    a: PrimExpr
    b: PrimExpr

    @classmethod
    def _normalize(cls, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Takes numbers too, and the field's other names: condition, true_value, false_value."""
        if kwargs:
            names = {"condition": "cond", "true_value": "a", "false_value": "b"}
            args = super()._normalize(*args, **{names.get(k, k): v for k, v in kwargs.items()})
        test, x, y = super()._normalize(*args)
        if not (isinstance(x, PrimExpr) and isinstance(y, PrimExpr) and x.dtype == y.dtype):
            x, y = pair(x, y)
        return as_expr(test, "bool"), x, y

    def _derive(self) -> None:
        same_dtype(self)
        self._set("dtype", self.a.dtype)

    @property
    def condition(self) -> PrimExpr:
        return self.cond

    @property
    def true_value(self) -> PrimExpr:
        return self.a

    @property
    def false_value(self) -> PrimExpr:
        return self.b


class Call(PrimExpr):
    """Call of a named intrinsic (see tir/intrin.py): exp, sqrt, fma, if_then_else, shift_left, likely,
    call_extern, …
    """

    type: str
    op: str
    args: tuple[PrimExpr, ...]
    attrs: Attrs = Attrs()

    @classmethod
    def _normalize(cls, type: str, op: str, args: Any, attrs: Any = None) -> tuple[Any, ...]:
        operands = tuple(BufferRef(a) if isinstance(a, Buffer) else as_expr(a) for a in args)
        return type, op_name(op), operands, attrs if isinstance(attrs, Attrs) else Attrs(attrs or {})

    def _derive(self) -> None:
        self._set("dtype", self.type)


class Ramp(PrimExpr):
    """Vector base, base+stride, …, of `count` lanes."""

    base: PrimExpr
    stride: PrimExpr
    count: int

    def _derive(self) -> None:
        self._set("dtype", dt.with_lanes(self.base.dtype, self.count))


class Shuffle(PrimExpr):
    """Lanes `indices` of the concatenation of `vectors`."""

    vectors: tuple[PrimExpr, ...]
    indices: tuple[int, ...]

    def _derive(self) -> None:
        self._set("dtype", dt.with_lanes(self.vectors[0].dtype, len(self.indices)))


class Let(PrimExpr):
    """`body` with `var` bound to `value`."""

    var: Var
    value: PrimExpr
    body: PrimExpr

    def _derive(self) -> None:
        self._set("dtype", self.body.dtype)


def ceildiv(a: Any, b: Any) -> PrimExpr:
    """Integer quotient rounded up."""
    x, y = pair(a, b)
    return floordiv(add(x, sub(y, 1)), y)


def minimum(a: Any, b: Any) -> PrimExpr:
    x, y = pair(a, b)
    return x if x is y else binary(Min, x, y)


def maximum(a: Any, b: Any) -> PrimExpr:
    x, y = pair(a, b)
    return x if x is y else binary(Max, x, y)


def land(*conds: Any) -> PrimExpr:
    """Logical and of any number of bool expressions; true for none."""
    out: PrimExpr = IntImm(1, "bool")
    for c in (as_expr(v, "bool") for v in conds):
        if type(c) is IntImm:
            if not c.value:
                return c
            continue
        out = c if type(out) is IntImm else And(out, c)
    return out


def lor(*conds: Any) -> PrimExpr:
    """Logical or of any number of bool expressions; false for none."""
    out: PrimExpr = IntImm(0, "bool")
    for c in (as_expr(v, "bool") for v in conds):
        if type(c) is IntImm:
            if c.value:
                return c
            continue
        out = c if type(out) is IntImm else Or(out, c)
    return out


def lnot(cond: Any) -> PrimExpr:
    test = as_expr(cond, "bool")
    return IntImm(not test.value, "bool") if type(test) is IntImm else Not(test)


def select(cond: Any, a: Any, b: Any) -> PrimExpr:
    """Branch-free choice; folds a literal condition."""
    test = as_expr(cond, "bool")
    x, y = pair(a, b)
    if type(test) is IntImm:
        return x if test.value else y
    return x if x is y else Select(test, x, y)


def call(op: str, *args: Any, dtype: str | None = None, **attrs: Any) -> PrimExpr:
    """Intrinsic call; the dtype defaults to the first argument's."""
    exprs = tuple(as_expr(a) for a in args)
    return Call(dtype or exprs[0].dtype, op, exprs, Attrs(attrs))


def if_then_else(cond: Any, a: Any, b: Any) -> PrimExpr:
    """Lazy choice: only the chosen side is evaluated, so loads in the other may be out of bounds."""
    test = as_expr(cond, "bool")
    x, y = pair(a, b)
    if type(test) is IntImm:
        return x if test.value else y
    return Call(x.dtype, "if_then_else", (test, x, y))


def flattened(x: Any, cls: Any) -> list[PrimExpr]:
    """The operands of nested binary expressions of one class, left to right: [a, b, c] of (a and b) and c."""
    out: list[PrimExpr] = []
    todo = [x]
    while todo:
        n: Any = todo.pop()
        if type(n) is cls:
            todo += [n.b, n.a]
        else:
            out.append(n)
    return out


def const_int(value: Any) -> int | None:
    """The Python int of a constant index expression or int, else None."""
    if type(value) is IntImm:
        return value.value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return None
