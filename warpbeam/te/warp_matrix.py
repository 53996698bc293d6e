"""Matrix instructions of whole warps in a te.decl_tensor_intrin: the loops that they stand for, with a note.

tvm_load_matrix_sync(F.data, 16, 16, 16, i, A.access_ptr("r"), 16, "row_major")
    ->  for i in 16 {"warp_matrix": "load", …}: for j in 16: F[i, j] = A[i, j]

Analysis, interpreters and the executor see the loops, so that regions, barriers and results are known; the printer for
CUDA makes one instruction of them again. A fragment is memory that each thread has for itself, with the whole tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.te.errors import TEError
from warpbeam.te.operation import ComputeOp, ProducerLoad, Tensor
from warpbeam.tir import expr as e
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, Call, StringImm, Var
from warpbeam.tir.reducer import Reduce
from warpbeam.tir.stmt import BufferStore, Evaluate, For, Stmt

KINDS = {
    "tvm_load_matrix_sync": "load", "tvm_store_matrix_sync": "store", "tvm_fill_fragment": "fill",
    "tvm_mma_sync": "mma",
}  # fmt: skip


def as_loops(stmt: Stmt | None, op: ComputeOp, memory: Mapping[Tensor, Buffer]) -> Stmt | None:
    """The statement of an intrinsic, with the instructions in it as loops over the operands' buffers.

    Raises:
        TEError: if an instruction stands beside other statements, or is given other memory than the operands'.
    """
    found = [] if stmt is None else [n for n in post_order(stmt) if isinstance(n, Call) and n.op in KINDS]
    if not found:
        return stmt
    if len(found) != 1 or not isinstance(stmt, Evaluate) or stmt.value is not found[0]:
        raise TEError(f"{found[0].op} is not alone in the statement of an intrinsic", hint="emit one call of it")
    call = found[0]
    for ref in call.args:
        if isinstance(ref, BufferRef) and ref.buffer not in memory.values():
            raise TEError(f"{call.op} uses {ref.buffer.name}", why="that is no operand of the intrinsic")
    return _loops(call, op, memory)


def _loops(call: Call, op: ComputeOp, memory: Mapping[Tensor, Buffer]) -> Stmt:
    kind = KINDS[call.op]
    body = op.body[0]
    reduce: Any = body if isinstance(body, Reduce) else None
    if (reduce is not None) != (kind in ("fill", "mma")):
        raise TEError(f"{call.op} does not compute {body!r}", hint="copies load and store, sums fill and multiply")
    axes = [*op.axis, *(reduce.axis if kind == "mma" else ())]
    own: dict[Any, Any] = {a.var: Var(a.var.name) for a in axes}
    out = memory[op.output(0)]
    index = [own[a.var] for a in op.axis]

    def change(n: Any) -> Any:
        return BufferLoad(memory[n.tensor], n.indices) if isinstance(n, ProducerLoad) else None

    if kind == "fill":
        value = e.cast(out.dtype, call.args[-1])
    elif reduce is not None:
        c = reduce.combiner
        sides = {c.lhs[0]: BufferLoad(out, index), c.rhs[0]: rewrite(substitute(reduce.source[0], own), change)}
        value = substitute(c.result[0], sides)
    else:
        value = rewrite(substitute(body, own), change)
    layout = next((a.value for a in reversed(call.args) if isinstance(a, StringImm)), "row_major")
    size = () if kind == "mma" else tuple(e.const_int(a) for a in call.args[1:4])
    notes = {"warp_matrix": kind, "warp_shape": size, "warp_layout": layout}
    stmt: Stmt = BufferStore(out, value, index)
    for k, a in reversed(list(enumerate(axes))):
        stmt = For(own[a.var], 0, a.extent, "serial", stmt, Attrs(notes if k == 0 else {}))
    return stmt
