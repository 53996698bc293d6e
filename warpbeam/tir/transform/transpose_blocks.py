"""Turns square blocks read column by column into whole vectors and shuffles between them.

for r in 16:                                                    a0 = A[0, 0:16]; …; a15 = A[15, 0:16]
    B[r, 0:16] = [A[0, r], A[1, r], …, A[15, r]] + 1    ->      four rounds of shuffles of pairs
                                                                B[0, 0:16] = t0 + 1; …; B[15, 0:16] = t15 + 1

Each of 256 elements was loaded and put in its lane on its own. A round of step s swaps, in every pair of vectors i and
i + s, the lanes of the one that have bit s set with those of the other that have it clear; after rounds 1, 2, 4, 8
vector r holds column r (Eklundh, "A Fast Computer Method for Matrix Transposing", IEEE Trans. Comput. C-21, 1972).
What is read only where a condition holds stays in its place: its rows need not exist elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.arith import linear
from warpbeam.tir.expr import BufferLoad, PrimExpr, Ramp, Shuffle, Var, const_int
from warpbeam.tir.stmt import BufferStore, For, IfThenElse, LetStmt, PrimFunc, Stmt, seq
from warpbeam.tir.transform.mutate import map_up

_SIZES = (4, 8, 16)
_HELD = 32  # vectors that rows may fill at once: the registers of the largest machines


@dataclass(frozen=True, slots=True)
class Columns:
    """A vector gathered from one column of `rows`: these are the rows' first elements' indices, without the column."""

    node: Shuffle
    rows: tuple[BufferLoad, ...]
    first: PrimExpr  # index of the column at r = 0


def transpose_blocks(func: PrimFunc) -> PrimFunc:
    """Loops over the columns of square blocks load rows and exchange lanes."""
    body = map_up(func.body, _loop)
    return func if body is func.body else func.replace(body=body)


def _loop(s: Any) -> Stmt:
    if not isinstance(s, For) or s.kind != "serial" or const_int(s.min) != 0 or not isinstance(s.body, BufferStore):
        return s  # type: ignore[no-any-return]
    size, open_end = _size(s.extent)
    nodes = [] if size is None else post_order(s.body.value, enter=_always)
    found = [c for n in nodes if (c := _columns(n, s, size or 0)) is not None]
    if not found or len(found) * (size or 0) > _HELD:
        return s
    block = _block(s, found, size or 0)
    return block if open_end is None else IfThenElse(e.as_expr(size) <= open_end, block, s)


def _always(node: Any) -> bool:
    """Whether what is below a node is read whenever the node is."""
    return not (isinstance(node, e.Call) and node.op == "if_then_else")


def _size(extent: PrimExpr) -> tuple[int | None, PrimExpr | None]:
    """Iterations of a whole block, and what must be as large for the block to be whole (None where it is)."""
    limit = None
    if isinstance(extent, e.Min):
        extent, limit = (extent.a, extent.b) if const_int(extent.a) is not None else (extent.b, extent.a)
    size = const_int(extent)
    return (size, limit) if size in _SIZES else (None, None)


def _columns(node: Any, loop: For, size: int) -> Columns | None:
    """What a vector is gathered from, if it is a column that moves with the loop."""
    body: Any = loop.body
    if not isinstance(node, Shuffle) or node.indices != tuple(range(size)) or len(node.vectors) != size:
        return None
    rows = [v for v in node.vectors if isinstance(v, BufferLoad) and v.indices]
    if len(rows) != size or any(v.buffer is not rows[0].buffer or v.buffer is body.buffer for v in rows):
        return None
    if rows[0].buffer.scope == "register" or any(v.indices[-1] is not rows[0].indices[-1] for v in rows):
        return None
    form = linear(rows[0].indices[-1], [loop.var])
    if form is None or const_int(form[0].get(loop.var, 0)) != 1 or any(_uses(v, loop.var) for v in rows):
        return None
    return Columns(node, tuple(rows), form[1])


def _uses(load: BufferLoad, var: Var) -> bool:
    """Whether an index but the last one depends on a variable."""
    return any(n is var for n in post_order(*load.indices[:-1]))


def _block(loop: For, found: list[Columns], size: int) -> Stmt:
    """The iterations of the loop, written out after the exchange."""
    body: Any = loop.body
    lets: list[tuple[Var, PrimExpr]] = []
    turned = {c.node: _turned(c, size, lets) for c in found}
    stores: list[Stmt] = []
    for r in range(size):
        value = rewrite(body.value, lambda n, r=r: turned[n][r] if n in turned else None)  # type: ignore[misc]
        now = {loop.var: e.const(r, loop.var.dtype)}
        stores.append(BufferStore(body.buffer, substitute(value, now), tuple(substitute(i, now) for i in body.indices)))
    out = seq(*stores)
    for var, value in reversed(lets):
        out = LetStmt(var, value, out)
    return out


def _turned(columns: Columns, size: int, lets: list[tuple[Var, PrimExpr]]) -> list[PrimExpr]:
    """The columns as vectors; what they are made from is bound in `lets`."""

    def bound(value: PrimExpr) -> PrimExpr:
        var = Var(f"lane_{len(lets)}", value.dtype)
        lets.append((var, value))
        return var

    at = Ramp(columns.first, e.const(1, columns.first.dtype), size)
    now = [bound(BufferLoad(row.buffer, (*row.indices[:-1], at))) for row in columns.rows]
    step = 1
    while step < size:
        swapped = list(now)
        for i in (k for k in range(size) if not k & step):
            low = [j if not j & step else size + j - step for j in range(size)]
            high = [j + step if not j & step else size + j for j in range(size)]
            pair = (now[i], now[i + step])
            swapped[i], swapped[i + step] = (bound(Shuffle(pair, tuple(x))) for x in (low, high))
        now, step = swapped, step * 2
    return now
