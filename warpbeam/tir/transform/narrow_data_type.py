"""Computes indices in 32 bits where ranges prove that they fit, because devices multiply those faster.

for i in 64 (int64): A[i * 4]     ->     for i in 64 (int32): A[i * int32(4)]
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import children, map_children
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.arith import Facts, bounds
from warpbeam.tir.expr import Broadcast, IntImm, PrimExpr, Ramp, Select, Var
from warpbeam.tir.stmt import For, PrimFunc
from warpbeam.tir.transform.setting import Setting

WIDE, NARROW = "int64", "int32"
_SAME = (e.Add, e.Sub, e.Mul, e.FloorDiv, e.FloorMod, e.Min, e.Max, e.Div, e.Mod)


def narrow_data_type(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Loop variables and index arithmetic of 64 bits become ones of 32 bits where every value in between fits."""
    return func.replace(body=_Narrow().node(func.body))  # type: ignore[no-any-return]


class _Narrow:
    def __init__(self) -> None:
        self.facts = Facts()
        self.vars: dict[Var, Var] = {}
        self.memo: dict[Any, Any] = {}

    def node(self, n: Any) -> Any:
        """A statement or expression with what fits made narrow; an expression keeps its dtype."""
        if isinstance(n, For):
            return self.loop(n)
        if isinstance(n, PrimExpr):
            return self.expr(n)
        if not children(n):
            return n
        return map_children(n, self.index_or_node)

    def index_or_node(self, n: Any) -> Any:
        """Children of statements: indices may change their dtype, since buffers take either."""
        if isinstance(n, PrimExpr) and n.dtype.partition("x")[0] == WIDE and not isinstance(n, e.BufferLoad):
            small = self.small(n)
            return self.expr(n) if small is None else small
        return self.node(n)

    def loop(self, s: For) -> For:
        low, count = self.small(s.min), self.small(s.extent)
        with self.facts.scope():
            self.facts.bind(s.var, s.min, s.extent)
            self.memo = {}
            fits = s.var.dtype == WIDE and low is not None and count is not None and self.fits(s.var)
            if fits:
                self.vars[s.var] = Var(s.var.name, NARROW)
                new = For(self.vars[s.var], low, count, s.kind, self.node(s.body), s.annotations, s.thread)
            else:
                ends = self.expr(s.min), self.expr(s.extent)
                new = For(s.var, *ends, s.kind, self.node(s.body), s.annotations, s.thread)
            self.vars.pop(s.var, None)
        self.memo = {}
        return new

    def fits(self, x: PrimExpr) -> bool:
        low, high = bounds(x, self.facts)
        return low is not None and high is not None and low >= -(1 << 31) and high < 1 << 31

    def small(self, x: Any) -> Any:
        """The expression in 32 bits, or None."""
        key = ("small", x)
        if key not in self.memo:
            self.memo[key] = self._small(x)
        return self.memo[key]

    def _small(self, x: Any) -> Any:
        if x.dtype.partition("x")[0] == NARROW:
            return self.expr(x)
        if isinstance(x, IntImm):
            return IntImm(x.value, NARROW) if self.fits(x) else None
        if isinstance(x, Var):
            new = self.vars.get(x)
            return new if new is not None else e.cast(NARROW, x) if self.fits(x) else None
        if type(x) is e.Cast and x.value.dtype == NARROW:
            return self.expr(x.value)
        if isinstance(x, Ramp):
            ends = self.small(x.base), self.small(x.stride)
            last = e.add(x.base, e.mul(x.stride, x.count - 1))
            return None if None in ends or not self.fits(last) else Ramp(*ends, x.count)
        if isinstance(x, Broadcast):
            value = self.small(x.value)
            return None if value is None else Broadcast(value, x.count)
        if isinstance(x, Select):
            a, b = self.small(x.a), self.small(x.b)
            return None if a is None or b is None else Select(self.expr(x.cond), a, b)
        if isinstance(x, _SAME) and "x" not in x.dtype:
            a, b = self.small(x.a), self.small(x.b)
            return None if a is None or b is None or not self.fits(x) else type(x)(a, b)
        return None

    def expr(self, x: Any) -> Any:
        """The expression in its own dtype."""
        key = ("expr", x)
        if key not in self.memo:
            self.memo[key] = self._expr(x)
        return self.memo[key]

    def _expr(self, x: Any) -> Any:
        if isinstance(x, Var):
            new = self.vars.get(x)
            return x if new is None else e.cast(WIDE, new)
        if isinstance(x, e.CmpExpr) and x.a.dtype == WIDE:
            a, b = self.small(x.a), self.small(x.b)
            if a is not None and b is not None:
                return type(x)(a, b)
        if isinstance(x, e.BufferLoad):
            return e.BufferLoad(x.buffer, [self.index_or_node(i) for i in x.indices])
        if type(x) is e.Cast and x.value.dtype == WIDE:
            value = self.small(x.value)
            if value is not None:
                return e.cast(x.type, value)
        if isinstance(x, _SAME) and x.dtype == WIDE and any(v in self.vars for v in post_order(x)):
            small = self.small(x)
            if small is not None:
                return e.cast(WIDE, small)
        if not children(x):
            return x
        return map_children(x, lambda c: self.expr(c) if isinstance(c, PrimExpr) else c)
