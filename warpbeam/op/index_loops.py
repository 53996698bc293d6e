"""Loop programs written directly, for operators whose meaning is an order of writes (scatter, scan, sort).

An operator gives `compute_prim(attrs, inputs, out_type) -> PrimFunc` instead of `compute`: a kernel of its own whose
parameters are the operands, the results, then the symbolic sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import Allocate, AssertStmt, BufferStore, For, IfThenElse, LetStmt, PrimFunc, Stmt, While, seq

_LINE = 64  # bytes


class Loops:
    """Builds one PrimFunc: buffers, nests of loops with unique names, scratch memory."""

    def __init__(self, name: str, inputs: Sequence[Any], results: Sequence[Any]) -> None:
        self.name = name
        self.ins = [E.Buffer(f"x{i}", t.shape, t.dtype) for i, t in enumerate(inputs)]
        self.outs = [E.Buffer(f"y{i}", t.shape, t.dtype) for i, t in enumerate(results)]
        self.scratch: list[E.Buffer] = []
        self.count = 0

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count - 1}"

    def temp(self, shape: Sequence[Any], dtype: str) -> E.Buffer:
        """Scratch memory for the whole call."""
        buffer = E.Buffer(self.fresh("tmp"), shape, dtype)
        self.scratch.append(buffer)
        return buffer  # type: ignore[no-any-return]

    def cells(self, dtype: str, count: int, body: Callable[[E.Buffer], Any]) -> Stmt:
        """`body(buffer)` with `count` mutable cells that live within it."""
        buffer = E.Buffer(self.fresh("cell"), (count,), dtype, "local")
        return Allocate(buffer, block(body(buffer)))  # type: ignore[no-any-return]

    def loop(self, extent: Any, body: Callable[[E.PrimExpr], Any], prefix: str = "i", kind: str = "serial") -> Stmt:
        """One loop over [0, extent)."""
        var = E.Var(self.fresh(prefix))
        return For(var, 0, extent, kind, block(body(var)))  # type: ignore[no-any-return]

    def nest(
        self,
        shape: Sequence[Any],
        body: Callable[[list[Any]], Any],
        prefix: str = "i",
        parallel: bool = False,
        lanes: int = 1,
    ) -> Stmt:
        """Loops over all of `shape`, outermost first; `parallel` states that iterations do not depend on each other.

        lanes: so many iterations of the innermost loop, which must not depend on each other, run at once as a vector,
        where `body` does the same in all of them with elements side by side.
        """
        index = [E.Var(self.fresh(prefix)) for _ in shape]
        sizes: list[Any] = list(shape)
        at: list[Any] = list(index)
        if lanes > 1 and sizes and sizes[-1] != 1:
            lane, start, size = E.Var(self.fresh("l")), at[-1] * lanes, sizes[-1]
            at[-1], sizes[-1] = start + lane, E.ceildiv(E.as_expr(size), lanes)
            out: Stmt = For(lane, 0, E.minimum(size - start, lanes), "vectorized", block(body(at)))
        else:
            out = block(body(at))
        for n in reversed(range(len(index))):
            out = For(index[n], 0, sizes[n], "parallel" if parallel and n == 0 else "serial", out)
        return out

    def moved(
        self, shape: Sequence[Any], body: Callable[[list[Any]], Any], prefix: str, parallel: bool = False
    ) -> Stmt:
        """A nest whose body stores to a result at its last place: what moves data, in vectors of a cache line."""
        lanes = max(1, _LINE // dt.nbytes(self.outs[0].dtype))
        return self.nest(shape, body, prefix, parallel, lanes)

    def let(self, value: Any, body: Callable[[E.PrimExpr], Any], prefix: str = "v") -> Stmt:
        """`body(var)` with var bound to the value."""
        value = E.as_expr(value)
        var = E.Var(self.fresh(prefix), value.dtype)
        return LetStmt(var, value, block(body(var)))  # type: ignore[no-any-return]

    def lets(self, values: Sequence[Any], body: Callable[[list[Any]], Any], prefix: str = "v") -> Stmt:
        """`body(vars)` with each var bound to its value."""
        bound = [E.as_expr(v) for v in values]
        names = [E.Var(self.fresh(prefix), v.dtype) for v in bound]
        out = block(body(list(names)))
        for var, value in zip(reversed(names), reversed(bound), strict=True):
            out = LetStmt(var, value, out)
        return out

    def store(self, buffer: E.Buffer, index: Any, value: Any) -> Stmt:
        at = index if isinstance(index, list | tuple) else (index,)
        return BufferStore(buffer, value, tuple(at))  # type: ignore[no-any-return]

    def when(self, cond: Any, then: Any, orelse: Any = None) -> Stmt:
        return IfThenElse(cond, block(then), None if orelse is None else block(orelse))  # type: ignore[no-any-return]

    def loop_while(self, cond: Any, body: Any) -> Stmt:
        return While(cond, block(body))  # type: ignore[no-any-return]

    def check(self, cond: Any, message: str) -> Stmt:
        return AssertStmt(E.as_expr(cond, "bool"), message)  # type: ignore[no-any-return]

    def unflatten(self, flat: Any, shape: Sequence[Any]) -> list[Any]:
        """Row-major coordinates of a flat place."""
        out: list[Any] = []
        for size in reversed(list(shape)[1:]):
            out.append(flat % size)
            flat = flat // size
        return [flat, *reversed(out)] if shape else []

    def func(self, *stmts: Stmt | None) -> PrimFunc:
        """The finished program."""
        body = seq(*stmts)
        for buffer in reversed(self.scratch):
            body = Allocate(buffer, body)
        return PrimFunc(self.name, (*self.ins, *self.outs, *self._sizes()), body, {"global_symbol": self.name})  # type: ignore[no-any-return]

    def _sizes(self) -> list[E.Var]:
        """Symbolic sizes in the shapes, in order of first appearance."""
        exprs = [d for b in (*self.ins, *self.outs) for d in b.shape if isinstance(d, E.PrimExpr)]
        return [n for n in post_order(*exprs) if isinstance(n, E.Var)] if exprs else []


def block(parts: Any) -> Stmt:
    """A statement from one, or from a list whose None are dropped."""
    return seq(*parts) if isinstance(parts, list | tuple) else parts
