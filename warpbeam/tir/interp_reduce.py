"""Reduction loops of the interpreter: all terms of `B[j] = B[j] + f(k)` at once, then combined in loop order.

The result is the one of the loop bit for bit: NumPy's accumulate rounds after every term, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s

if TYPE_CHECKING:
    from warpbeam.tir.interp_machine import Machine

_UFUNCS: dict[type, Any] = {
    e.Add: np.add,
    e.Mul: np.multiply,
    e.Min: np.minimum,
    e.Max: np.maximum,
    e.And: np.logical_and,
    e.Or: np.logical_or,
}
_LIMIT = 1 << 18


@dataclass(frozen=True, slots=True)
class Fold:
    """store: B[j] = op(B[j], term), where `first` (if any) guards an initialisation before it."""

    loop: s.For
    store: s.BufferStore
    old: e.BufferLoad
    term: e.PrimExpr
    ufunc: Any
    first: s.IfThenElse | None

    def run(self, m: Machine, low: int, count: int) -> bool:
        """Runs the loop; False (nothing done) where it does not have the simple form at run time."""
        start = low
        if self.first is not None:
            m._serial(self.loop, low, 1)
            start, count = low + 1, count - 1
        step = max(2, _LIMIT // m.lanes)
        end = start + count
        while start < end:
            size = min(step, end - start)
            if size < 2 or not self._some(m, start, size):
                m._serial(self.loop, start, size)
            start += size
        return True

    def _some(self, m: Machine, start: int, size: int) -> bool:
        m.current = self.store
        old = np.array(m.value(self.old))
        if old.dtype.kind not in "fiub" or old.dtype.itemsize == 0:
            return False
        with m.axis(self.loop.var, start, size):
            if self.first is not None and np.any(m.value(self.first.cond)):
                return False
            terms = np.asarray(m.value(self.term))
            shape = np.broadcast_shapes(np.shape(old), terms.shape[1:] if terms.ndim > len(m.axes) else (1,))
            shape = (1,) * (len(m.axes) - len(shape)) + shape
            if terms.ndim < len(m.axes) + 1:
                terms = np.broadcast_to(terms, (1,) * (len(m.axes) + 1 - terms.ndim) + terms.shape)
            terms = np.broadcast_to(terms, (size, *shape))
        if self.ufunc in (np.add, np.multiply):
            whole = np.concatenate([np.broadcast_to(old, shape)[None], terms])
            out = self.ufunc.accumulate(whole, axis=0, dtype=old.dtype)[-1]
        else:
            out = self.ufunc(old, self.ufunc.reduce(terms, axis=0))
        m.stores[self.store][0].store(m, out) if self.store in m.stores else self._first_store(m, out)
        return True

    def _first_store(self, m: Machine, value: Any) -> None:
        from warpbeam.tir.interp_memory import Access

        access = Access(self.store.buffer, self.store.indices, m.compiler)
        m.stores[self.store] = access, m.compiler.compile(self.store.value)
        access.store(m, value)


def fold_of(loop: s.For) -> Fold | None:
    """The loop as a fold, if its body is one update of elements that do not move with it."""
    body: Any = loop.body
    first: s.IfThenElse | None = None
    if type(body) is s.SeqStmt and len(body.stmts) == 2 and isinstance(body.stmts[0], s.IfThenElse):
        first, body = body.stmts[0], body.stmts[1]
        if first.orelse is not None:
            return None
    if type(body) is not s.BufferStore or type(body.value) not in _UFUNCS:
        return None
    moving = set(post_order(*body.indices))
    if loop.var in moving or any(type(n) is e.BufferLoad for n in moving):
        return None
    value: Any = body.value
    for old, term in ((value.a, value.b), (value.b, value.a)):
        if type(old) is e.BufferLoad and old.buffer is body.buffer and old.indices == body.indices:
            if any(type(n) is e.BufferLoad and n.buffer is body.buffer for n in post_order(term)):
                return None
            return Fold(loop, body, old, term, _UFUNCS[type(value)], first)
    return None
