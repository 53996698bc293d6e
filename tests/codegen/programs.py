"""Small lowered programs for tests of the printers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.tir import expr as E
from warpbeam.tir.stmt import Allocate, BufferStore, For, PrimFunc, Stmt, seq


def one() -> E.PrimExpr:
    return E.as_expr(1)


def ramp(base: Any, lanes: int, stride: int = 1) -> E.PrimExpr:
    return E.Ramp(E.as_expr(base), E.as_expr(stride), lanes)  # type: ignore[no-any-return]


def elementwise(
    fn: Callable[..., E.PrimExpr], dtypes: list[str], result: str, count: int, lanes: int = 1, name: str = "k"
) -> PrimFunc:
    """out[i] = fn(a[i], b[i], …), in vectors of `lanes`."""
    i = E.Var("i")
    at = (ramp(i * lanes, lanes),) if lanes > 1 else (i,)
    sources = [E.Buffer(f"a{k}", (count,), d) for k, d in enumerate(dtypes)]
    out = E.Buffer("out", (count,), result)
    store = BufferStore(out, fn(*(E.BufferLoad(s, at) for s in sources)), at)
    return PrimFunc(name, (*sources, out), For(i, 0, count // lanes, "serial", store))  # type: ignore[no-any-return]


def gemm(m: int, n: int, k: int, rows: int, cols: int, lanes: int, kind: str = "serial") -> PrimFunc:
    """C[m, n] = A[m, k] * B[n/cols, k, cols] in register tiles of rows x cols."""
    a, b, c = E.Buffer("A", (m, k)), E.Buffer("B", (n // cols, k, cols)), E.Buffer("C", (m, n))
    acc = E.Buffer("acc", (rows, cols), "float32", "register")
    mo, no, kk = E.Var("mo"), E.Var("no"), E.Var("k")
    places = [(i, j * lanes) for i in range(rows) for j in range(cols // lanes)]
    start: list[Stmt] = []
    step: list[Stmt] = []
    end: list[Stmt] = []
    for i, j in places:
        at = (E.as_expr(i), ramp(j, lanes))
        start.append(BufferStore(acc, E.const(0, f"float32x{lanes}"), at))
        left = E.Broadcast(a[mo * rows + i, kk], lanes)
        right = E.BufferLoad(b, (no, kk, ramp(j, lanes)))
        step.append(BufferStore(acc, E.call("fma", left, right, E.BufferLoad(acc, at)), at))
        end.append(BufferStore(c, E.BufferLoad(acc, at), (mo * rows + i, ramp(no * cols + j, lanes))))
    tile = Allocate(acc, seq(*start, For(kk, 0, k, "serial", seq(*step)), *end))
    nest = For(no, 0, n // cols, kind, For(mo, 0, m // rows, "serial", tile))
    return PrimFunc("gemm", (a, b, c), nest)  # type: ignore[no-any-return]
