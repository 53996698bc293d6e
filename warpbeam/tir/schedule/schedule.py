"""The schedule: a loop program and the list of primitives that were applied to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.node import Attrs, freeze
from warpbeam.tir.analysis.access import as_block, as_loop, read, readers, writers, written
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.expr import PrimExpr, const_int
from warpbeam.tir.schedule.blockize import Blockize
from warpbeam.tir.schedule.cache import CacheRead, CacheWrite, Clone, SetScope
from warpbeam.tir.schedule.diagonal import Diagonal
from warpbeam.tir.schedule.enter import Enter
from warpbeam.tir.schedule.inline import ComputeInline, ReverseComputeInline
from warpbeam.tir.schedule.layout import TransformLayout, plain_map
from warpbeam.tir.schedule.loop_axes import LoopAxes
from warpbeam.tir.schedule.loops import Bind, Fuse, Reorder, SetKind, Split
from warpbeam.tir.schedule.merge import Merge
from warpbeam.tir.schedule.notes import Alternate, Annotate, Pragma, Unannotate
from warpbeam.tir.schedule.pad import PadEinsum
from warpbeam.tir.schedule.partition import Names, Partition
from warpbeam.tir.schedule.place import ComputeAt, ReverseComputeAt
from warpbeam.tir.schedule.reduction import DecomposeReduction, RFactor
from warpbeam.tir.schedule.rescale import Rescale
from warpbeam.tir.schedule.root import ComputeRoot
from warpbeam.tir.schedule.skip import SkipZeros
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.schedule.storage import (
    DoubleBuffer,
    Prefetch,
    RollingBuffer,
    SoftwarePipeline,
    StorageAlign,
    check_pipelines,
)
from warpbeam.tir.schedule.tensorize import Tensorize
from warpbeam.tir.stmt import Block, For, PrimFunc

if TYPE_CHECKING:
    from warpbeam.target import Target
    from warpbeam.tir.schedule.explain import Cost


class Schedule:
    """Applies primitives to a PrimFunc. Loops and blocks are named; each call leaves a valid program or raises
    ScheduleError and leaves it as it was.

        s = Schedule(func)
        i_0, i_1 = s.split("i", [None, 16]);  s.vectorize(i_1);  s.func
    """

    def __init__(self, func: PrimFunc) -> None:
        self.func = func
        self.trace: list[Step] = []
        self.pipelined = False  # whether loops are that later steps must leave as they are

    def step(self, step: Step) -> Any:
        """Applies and records one primitive; gives the names that it made."""
        func, made = step.run(self.func)
        if self.pipelined:
            check_pipelines(func)
        self.pipelined = self.pipelined or isinstance(step, SoftwarePipeline)
        self.func = func
        self.trace.append(step)
        return made

    # ---------------------------------------------------------------------------------------------------------- looking

    def blocks(self) -> list[str]:
        """Names of all blocks in program order."""
        return list(tree_of(self.func).blocks)

    def block(self, name: str) -> Block:
        return as_block(tree_of(self.func).block(name))

    def loops(self, block: str) -> list[str]:
        """Names of the loops around a block, outer to inner."""
        return [f.var.name for f in tree_of(self.func).block(block).loops()]

    def loop_names(self) -> list[str]:
        """Names of all loops in program order."""
        return list(tree_of(self.func).loops)

    def loop(self, name: str) -> For:
        return as_loop(tree_of(self.func).loop(name))

    def extent(self, loop: str) -> int | None:
        """The extent of a loop where it is a number."""
        return const_int(self.loop(loop).extent)

    def get_producers(self, block: str) -> list[str]:
        """Names of the blocks that write what a block reads, in program order."""
        tree = tree_of(self.func)
        place = tree.block(block)
        made = {p for b in read(as_block(place)) for p in writers(tree, b)} - {place}
        return [as_block(p).name for p in tree.blocks.values() if p in made]

    def get_consumers(self, block: str) -> list[str]:
        """Names of the blocks that read what a block writes, in program order."""
        tree = tree_of(self.func)
        place = tree.block(block)
        users = {p for b in written(as_block(place)) for p in readers(tree, b)} - {place}
        return [as_block(p).name for p in tree.blocks.values() if p in users]

    def explain(self, target: Target | None = None, cost: Cost | None = None) -> str:
        """The loops with their working sets, the caches that hold these, and the steps so far; see schedule/explain.py.

        cost: predicts the cycles of a level, which become a column; `warpbeam.explain` gives one.
        """
        from warpbeam.tir.schedule.explain import explain

        return explain(self.func, target, self.trace, cost)

    # ------------------------------------------------------------------------------------------------------------ loops

    def split(
        self,
        loop: str,
        factors: Sequence[int | None],
        names: Sequence[str] | None = None,
        guard: bool | Literal["kept"] = False,
    ) -> tuple[str, ...]:
        """Nested loops in place of one; see Split, also for `guard`. Gives their names, outer first."""
        wanted = None if names is None else tuple(names)
        return self.step(Split(loop, tuple(factors), wanted, guard))  # type: ignore[no-any-return]

    def fuse(self, *loops: str, name: str | None = None) -> str:
        """One loop in place of directly nested ones; gives its name."""
        return self.step(Fuse(loops, name))  # type: ignore[no-any-return]

    def reorder(self, *loops: str) -> None:
        """The named loops in the given order, outer first."""
        self.step(Reorder(loops))

    def diagonal(self, outer: str, inner: str) -> None:
        """Walks two directly nested loops along diagonals: the outer one's variable moves on with the inner one's."""
        self.step(Diagonal(outer, inner))

    def tile(self, x: str, y: str, x_factor: int, y_factor: int, guard: bool = False) -> tuple[str, str, str, str]:
        """Two loops as tiles; gives (x outer, y outer, x inner, y inner), in this order from outside.

        for x: for y: B     ->     for x_0: for y_0: for x_1 in x_factor: for y_1 in y_factor: B
        """
        before, steps = self.func, len(self.trace)
        try:
            x_outer, x_inner = self.split(x, [None, x_factor], guard=guard)
            y_outer, y_inner = self.split(y, [None, y_factor], guard=guard)
            self.reorder(x_outer, y_outer, x_inner, y_inner)
        except ScheduleError:
            self.func = before
            del self.trace[steps:]
            raise
        return x_outer, y_outer, x_inner, y_inner

    def merge(self, *loops: str) -> str:
        """One loop in place of neighbouring ones of the same extent; gives its name."""
        return self.step(Merge(loops))  # type: ignore[no-any-return]

    def parallel(self, loop: str) -> None:
        self.step(SetKind(loop, "parallel"))

    def vectorize(self, loop: str) -> None:
        """Iterations become the lanes of vectors."""
        self.step(SetKind(loop, "vectorized"))

    def unroll(self, loop: str) -> None:
        self.step(SetKind(loop, "unrolled"))

    def bind(self, loop: str, thread: str) -> None:
        """Runs a loop on a hardware axis ("blockIdx.x", "threadIdx.x", …)."""
        self.step(Bind(loop, thread))

    def annotate(self, target: str, key: str, value: Any) -> None:
        """A note on a loop or block."""
        self.step(Annotate(target, key, freeze(value)))

    def unannotate(self, target: str, key: str) -> None:
        """Takes a note off a loop or block."""
        self.step(Unannotate(target, key))

    def pragma(self, loop: str, kind: str, value: Any = True) -> None:
        """A request to lowering or code generation; see schedule/notes.py for the kinds."""
        self.step(Pragma(loop, kind, freeze(value)))

    def partition(self, loop: str, at: int | PrimExpr) -> tuple[str, str, Names]:
        """Two loops, [0, at) and [at, extent); gives (first, second, {old name: its copy's})."""
        return self.step(Partition(loop, at))  # type: ignore[no-any-return]

    # ----------------------------------------------------------------------------------------------------------- blocks

    def compute_inline(self, block: str) -> None:
        self.step(ComputeInline(block))

    def reverse_compute_inline(self, block: str) -> None:
        self.step(ReverseComputeInline(block))

    def compute_at(self, block: str, loop: str, relax: bool = False, guard: bool = False) -> None:
        """Computes a producer inside a loop of its consumers; see ComputeAt for `relax` and `guard`."""
        self.step(ComputeAt(block, loop, relax, guard))

    def compute_root(self, block: str) -> None:
        """Takes a block out of the loops of others."""
        self.step(ComputeRoot(block))

    def reverse_compute_at(self, block: str, loop: str) -> None:
        """Computes a consumer inside a loop of its producer."""
        self.step(ReverseComputeAt(block, loop))

    def decompose_reduction(self, block: str, loop: str) -> str:
        """The reduction's start before a loop; gives the name of the new block."""
        return self.step(DecomposeReduction(block, loop))  # type: ignore[no-any-return]

    def rfactor(self, loop: str, axis: int = 0) -> str:
        """Partial results over a reduction loop; gives the name of the partial block."""
        return self.step(RFactor(loop, axis))  # type: ignore[no-any-return]

    def blockize(self, loop: str) -> str:
        """Makes a loop and all inside it one block over tiles; gives its name."""
        return self.step(Blockize(loop))  # type: ignore[no-any-return]

    def loop_axes(self, block: str) -> None:
        """The block has one axis for each loop that feeds several of its own, in their place."""
        self.step(LoopAxes(block))

    def pad_einsum(self, block: str, padding: Sequence[int]) -> tuple[str, ...]:
        """Makes the axes of a sum of products multiples of numbers; gives the names of the copying blocks."""
        return self.step(PadEinsum(block, tuple(padding)))  # type: ignore[no-any-return]

    def rescale(self, top: str, weights: str, sums: Sequence[str]) -> str:
        """Sums whose weights are exponentials of the distance from a maximum in one loop with that; gives its name."""
        return self.step(Rescale(top, weights, tuple(sums)))  # type: ignore[no-any-return]

    def skip_zeros(self, block: str, buffer: str, dims: Sequence[int], together: Sequence[str] = ()) -> None:
        """The updates of a sum of products without those that read an operand's border of zeros along `dims`; all
        iterations of the loops `together`, or none.
        """
        self.step(SkipZeros(block, buffer, tuple(dims), tuple(together)))

    def tensorize(self, target: str, intrin: Any, preserve_unit_iters: bool = True) -> str:
        """An intrinsic (a name, a record or te.decl_tensor_intrin's) in place of a loop or block; see Tensorize."""
        return self.step(Tensorize(target, intrin, preserve_unit_iters))  # type: ignore[no-any-return]

    # ---------------------------------------------------------------------------------------------------------- buffers

    def cache_read(self, block: str, buffer: str, scope: str, consumers: Sequence[str] = ()) -> str:
        """The block, and further consumers, read a copy of a buffer; gives the name of the copying block."""
        return self.step(CacheRead(block, buffer, scope, tuple(consumers)))  # type: ignore[no-any-return]

    def cache_write(self, block: str, scope: str) -> str:
        """The block writes a buffer of its own that is then copied; gives the name of the copying block."""
        return self.step(CacheWrite(block, scope))  # type: ignore[no-any-return]

    def clone(self, block: str, consumer: str) -> str:
        """A second computation of a producer for one consumer; gives its name."""
        return self.step(Clone(block, consumer))  # type: ignore[no-any-return]

    def set_scope(self, block: str, scope: str) -> None:
        self.step(SetScope(block, scope))

    def storage_align(self, block: str, axis: int, factor: int, offset: int = 0) -> None:
        """Pads the rows of a block's result."""
        self.step(StorageAlign(block, axis, factor, offset))

    def double_buffer(self, block: str) -> None:
        """Fills one half of a block's result while the other is used."""
        self.step(DoubleBuffer(block))

    def rolling_buffer(self, block: str) -> None:
        """Keeps what the last iteration has computed of a block's result."""
        self.step(RollingBuffer(block))

    def prefetch(
        self,
        loop: str,
        buffer: str,
        offset: int | PrimExpr = 1,
        through: str | Sequence[str] = "",
        onto: str = "",
        locality: int = 3,
    ) -> None:
        """Asks in each iteration for what a later one reads of a buffer; spread over the iterations of an inner loop,
        or of several that follow each other. Past the loop's end come the first iterations of the next one of `onto`,
        a loop around it. locality: 3 for the nearest cache, 2 for the second level, …
        """
        inner = through if isinstance(through, str) else tuple(through)
        self.step(Prefetch(loop, buffer, offset, inner, onto, locality))

    def enter(self, loop: str) -> None:
        """Enters a loop only where it and those alone in it have iterations, which is known inside then."""
        self.step(Enter(loop))

    def alternate(self, loop: str, around: str) -> None:
        """Walks a loop backwards in every other iteration of a loop around it."""
        self.step(Alternate(loop, around))

    def pipeline(self, loop: str, stages: Sequence[int], order: Sequence[int] | None = None) -> None:
        """Runs the statements of a loop's body in stages, some iterations ahead of each other."""
        self.step(SoftwarePipeline(loop, tuple(stages), None if order is None else tuple(order)))

    def transform_layout(self, buffer: str, index_map: Callable[..., Any] | Sequence[Any]) -> Attrs:
        """Stores a buffer by an index map (a function of the indices, or plain data); gives the layout."""
        old = tree_of(self.func).buffers.get(buffer)
        if callable(index_map):
            if old is None:
                raise ScheduleError(f"there is no buffer {buffer!r}")
            index_map = plain_map(index_map, len(old.shape))
        return self.step(TransformLayout(buffer, tuple(index_map)))  # type: ignore[no-any-return]
