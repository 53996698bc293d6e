"""Rank-1 updates of a tile of results held in registers: the inner step of every matrix product.

for i in rows: for j in columns: C[i, j] += A[i] * B[j]
"""

from __future__ import annotations

from warpbeam.tir import expr as e
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var
from warpbeam.tir.stmt import BufferStore, Stmt, seq
from warpbeam.tir.tensor_intrin.record import TensorIntrin, lanes, reduction, zeros


def fma_tile(name: str, rows: int, columns: int, width: int) -> TensorIntrin:
    """C[rows, columns] += A[rows] * B[columns] in float32 by vectors of `width` lanes, each product and sum one fma.

    A and the rows of C may lie at any distance. Source of the shape: Goto and van de Geijn, "Anatomy of
    High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008.
    """
    a = Buffer("A", (rows,), "float32", strides=(Var("lda"),))
    b = Buffer("B", (columns,), "float32")
    c = Buffer("C", (rows, columns), "float32", strides=(Var("ldc"), 1))
    plain = [Buffer(x.name, x.shape, x.dtype) for x in (a, b, c)]
    pa, pb, pc = plain
    meaning = reduction(
        name.replace(".", "_"), (pa, pb), pc, [("i", rows), ("j", columns)], [], lambda i, j: pa[i] * pb[j]
    )
    places = [(i, lanes(width, j)) for i in range(rows) for j in range(0, columns, width)]

    def product(i: int, j: PrimExpr, acc: PrimExpr) -> PrimExpr:
        return e.call("fma", e.Broadcast(a[i], width), BufferLoad(b, (j,)), acc)

    def stores(value: list[PrimExpr]) -> Stmt:
        return seq(*[BufferStore(c, v, at) for v, at in zip(value, places, strict=True)])

    zero = zeros("float32", width)
    return TensorIntrin(
        name, meaning, (a, b, c),
        stores([product(i, j, zero) for i, j in places]),
        stores([zero] * len(places)),
        stores([product(i, j, BufferLoad(c, (i, j))) for i, j in places]),
        instruction="vfmadd" if width > 1 else "", target="generic-x86-64-v4" if width == 16 else "generic-x86-64-v3",
    )  # fmt: skip


def widening_row(name: str) -> TensorIntrin:
    """C[8] += A[1] * B[8] with bytes multiplied to 16 bits: VMULL.S8 starts a sum, VMLAL.S8 goes on with it.

    Sums wrap at 16 bits as the instructions' do. Source: Arm Architecture Reference Manual ARMv7-A, A8.8, VMULL, VMLAL.
    """
    a, b, c = Buffer("A", (1,), "int8"), Buffer("B", (8,), "int8"), Buffer("C", (8,), "int16")
    meaning = reduction(
        name.replace(".", "_"), (a, b), c, [("i", 8)], [("k", 1)],
        lambda i, k: e.cast("int16", a[k]) * e.cast("int16", b[i]),
    )  # fmt: skip
    wide = e.cast("int16x8", e.Broadcast(a[0], 8)) * e.cast("int16x8", BufferLoad(b, (lanes(8),)))

    def store(value: PrimExpr) -> Stmt:
        return BufferStore(c, value, (lanes(8),))

    return TensorIntrin(
        name, meaning, (a, b, c), store(wide), store(zeros("int16", 8)), store(BufferLoad(c, (lanes(8),)) + wide),
        ("neon",), "vmlal.s8", "generic-armv7",
    )  # fmt: skip
