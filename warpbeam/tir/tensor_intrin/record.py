"""What a tensor intrinsic is: what it computes, the statement that does it, and what a machine must have for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import IRError
from warpbeam.tir import expr as e
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Ramp, Var
from warpbeam.tir.stmt import Block, BufferStore, For, IterVar, PrimFunc, Stmt


@dataclass(frozen=True)
class TensorIntrin:
    """An instruction (or routine) over small tensors.

    `semantics` says in plain loops around one block what is computed, over buffers of constant shape, the result last.
    The statements below implement it over `buffers`, which stand for the same operands in the same order: strides ()
    ask for compact memory, a variable among the strides or as elem_offset takes whatever the place of use has.

    Attributes:
        body: the whole computation; for a reduction, start and sum.
        reset: the start of a reduction alone; None: plain stores of the block's own start.
        update: adds to what the result holds; None: only whole reductions can use this.
        requires: features that the processor must have for `instruction` to be chosen, in LLVM's names.
        instruction: the mnemonic that assembly then holds; target: a built-in target that has it.
        scalars: variables of the semantics whose values come from the place of use.
        source: where the facts come from.
    """

    name: str
    semantics: PrimFunc
    buffers: tuple[Buffer, ...]
    body: Stmt | None
    reset: Stmt | None = None
    update: Stmt | None = None
    requires: tuple[str, ...] = ()
    instruction: str = ""
    target: str = ""
    scalars: tuple[Var, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        params = self.semantics.buffers
        if len(params) != len(self.buffers):
            raise IRError(f"intrinsic {self.name}: {len(params)} operands and {len(self.buffers)} buffers")
        for p, b in zip(params, self.buffers, strict=True):
            if p.dtype != b.dtype or len(p.shape) != len(b.shape):
                raise IRError(
                    f"intrinsic {self.name}: operand {p.name} is {p.dtype}{list(p.shape)}, "
                    f"its buffer {b.name} is {b.dtype}{list(b.shape)}",
                    hint="declare the buffer with the operand's shape and dtype",
                )

    def program(self, part: str = "body") -> PrimFunc:
        """The template as a program over compact buffers: "body", "reset" or "update"."""
        from warpbeam.tir.tensor_intrin.place import Region, placed

        stmt = getattr(self, part)
        if stmt is None:
            raise IRError(f"intrinsic {self.name} has no {part}")
        regions = {b: Region.whole(Buffer(b.name, b.shape, b.dtype)) for b in self.buffers}
        params = tuple(r.buffer for r in regions.values())
        return PrimFunc(f"{self.name}_{part}".replace(".", "_"), params, placed(stmt, regions, {}))


def reduction(
    name: str,
    operands: Sequence[Buffer],
    result: Buffer,
    spatial: Sequence[tuple[str, int]],
    reduce: Sequence[tuple[str, int]],
    value: Any,
) -> PrimFunc:
    """`result[spatial] = sum over reduce of value(*all variables)`, as loops around one block that starts from 0."""
    axes = [IterVar(Var(n), x, "spatial") for n, x in spatial] + [IterVar(Var(n), x, "reduce") for n, x in reduce]
    index = tuple(a.var for a in axes[: len(spatial)])
    old = BufferLoad(result, index)
    update = BufferStore(result, e.Add(old, value(*[a.var for a in axes])), index)
    start = BufferStore(result, e.const(0, result.dtype), index)
    loops = [Var(a.var.name) for a in axes]
    stmt: Stmt = Block(result.name, axes, loops, True, start, update)
    for a, v in zip(reversed(axes), reversed(loops), strict=True):
        stmt = For(v, 0, a.extent, "serial", stmt)
    return PrimFunc(name, (*operands, result), stmt)


def lanes(count: int, first: Any = 0) -> Ramp:
    """The index of `count` neighbours."""
    return Ramp(e.as_expr(first), e.const(1), count)


def zeros(dtype: str, count: int) -> PrimExpr:
    return e.const(0, f"{dtype}x{count}")
