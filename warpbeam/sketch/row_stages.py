"""Several passes over a row, of neighbouring rows at once: the last pass of one row, the one before of the next, …

A pass that needs a statistic of the one before begins when that has seen the whole row, and its own statistic is known
only at its end: sums across lanes and their latencies come once for each pass and row, and a pass that only loads waits
beside multipliers that are idle. So rows are a software pipeline: a step does pass p of row t - p, for all passes in
one loop over columns. A pass of exponentials waits one row more where there is room: softmax of rows of 1024 takes
0.95 of the time then, of 512 0.9.

Measured on Zen 5: softmax of rows of 512 to 2048 takes 0.7 to 0.85 of the time, log-softmax 0.7, layer normalisation
0.8 to 0.97; softmax of rows of 3072, of which the nearest cache does not hold all that a step touches, 1.1 where
operands were asked for ahead into that cache; layer normalisation of 8192 rows of 1024, which come from memory, 1.15.
On Zen 4, whose nearest cache is smaller: softmax of rows of 512 to 1024 takes 0.7 to 0.75 of the time, of 1536 to 4096,
without asking, 0.65 to 0.77 (with it 0.85 to 0.95); two passes without exponentials 0.75 to 0.85 as long as that cache
holds a step, layer normalisation with scales of rows of 1536 1.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from warpbeam.ir import dtype as dt
from warpbeam.sketch import pieces
from warpbeam.sketch.base import Group, expensive, extent, product
from warpbeam.sketch.structure import Stage
from warpbeam.te.tensor import Operation, Tensor
from warpbeam.tir.analysis.access import as_block, as_loop, written
from warpbeam.tir.analysis.tree import kids, tree_of
from warpbeam.tir.schedule.storage import child_index

VECTORS = 4  # of each pass in one iteration
_MOST = 64  # rows that a thread takes in a row, where there are several threads
_CORES = 4  # where a target stands for many machines
ROOM = 0.75  # of the nearest cache, for what is read and written in turn
_STEP, _ENDS = 0.85, 0.3  # time of a row in stages, of one by itself; and what beginning and ending cost for each pass


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in stages: the pass that each operation belongs to, how many rows a thread takes in a row, and the bytes
    that a step touches, with those that are asked for ahead.
    """

    passes: Mapping[Operation, int]
    chunk: int
    size: int

    @property
    def last(self) -> int:
        """The last pass."""
        return max(self.passes.values())


def of_rows(
    group: Group, stages: Sequence[Stage], lead: Sequence[object], cols: Sequence[object], parallel: bool
) -> Rows | None:
    """How the rows of `stages`, those that keep what they compute and the result's last, run in stages; None where
    that is not possible or does not pay: few rows or passes, cheap passes that wait for memory, or rows so long that
    the nearest cache does not hold what a step touches (of passes of exponentials, the second one). `parallel`: threads
    share the rows.
    """
    if len(cols) != 1 or any(extent(x) is None for x in (*lead, *cols)):
        return None
    if len({pieces.lanes_of(group, s.op) for s in stages}) > 1:
        return None
    passes, late = (_passes(group, stages, len(lead), wait) for wait in (False, True))
    if passes is None or late is None or max(passes.values()) == 0:
        return None
    costly, size, target = passes != late, (product(lead), product(cols)), group.target
    if costly and touched(group, late, size) <= ROOM * target.l1:
        passes = late
    if not (_held(group, passes, size, costly) and _worth(group, costly)):
        return None
    chunk = _chunk(lead, target.cores if parallel else 0, max(passes.values()))
    return Rows(passes, chunk, touched(group, passes, size)) if chunk else None


def _held(group: Group, passes: Mapping[Operation, int], size: tuple[int, int], costly: bool) -> bool:
    """Whether what a step touches stays near: exponentials take longer than the second-level cache. Operands that all
    rows share are read again in each step, beside those that pass by.
    """
    if costly:
        return 2 * touched(group, passes, size, False) <= group.target.l2
    if touched(group, passes, size) <= ROOM * group.target.l1:
        return True
    shared = any(_row(t, size) > 1 and not _own(t, size) for t in group.inputs)
    return not shared and touched(group, passes, size, False) <= group.target.l1


def _worth(group: Group, costly: bool) -> bool:
    """Whether there is time to fill: not beside multiplications and additions that are instructions of their own, nor
    where passes wait for memory.
    """
    whole = [*group.inputs, *group.outputs]
    if costly:
        return group.target.fma
    return sum(product(t.shape) * dt.nbytes(t.dtype) for t in whole) <= group.target.l3


def _passes(group: Group, stages: Sequence[Stage], lead: int, wait: bool) -> dict[Operation, int] | None:
    """The pass of each operation, one more than those whose statistics it needs; None where something else than
    reductions is there once for a row. `wait`: expensive passes begin a row later, as their long chains of instructions
    stand still until a statistic is there.
    """
    if any(s.kind != "row" and len(s.op.axis) <= lead for s in stages):
        return None
    ready: dict[Operation, int] = {}
    new: set[Operation] = set()  # what a statistic is waited for by
    for s in group.stages:
        row, needs = s.kind == "row", [t.op for t in s.op.input_tensors if t.op in ready]
        here = max((ready[op] for op in needs), default=0)
        fresh = any(op in new and ready[op] == here for op in needs)
        if wait and fresh and expensive(s.op) and (row or len(s.op.axis) > lead):
            here, fresh = here + 1, False
        ready[s.op] = here + row
        if row or fresh:
            new.add(s.op)
    return {s.op: ready[s.op] - (s.kind == "row") for s in stages}


def _own(t: Tensor, size: tuple[int, int]) -> bool:
    """Whether each row has elements of its own in all columns of an operand. size: rows and columns."""
    return product(t.shape) >= size[0] * size[1]


def _row(t: Tensor, size: tuple[int, int]) -> int:
    """Elements of an operand that a row uses: one, if not one for each column."""
    return size[1] if _own(t, size) or size[1] in map(extent, t.shape[-1:]) else 1


def touched(group: Group, passes: Mapping[Operation, int], size: tuple[int, int], fetched: bool = True) -> int:
    """Bytes that a step touches: of each operand the rows from the first pass that reads it to the last, of a row of
    values those between the pass that makes it and the last. size: rows and columns. fetched: one row more of each
    operand and of the result, which are asked for meanwhile.
    """
    inputs = {t.op for t in group.inputs}
    used: dict[Operation, list[int]] = {}
    for op, number in passes.items():
        todo = list(op.input_tensors)
        while todo:
            t = todo.pop()
            if t.op in passes or t.op in inputs:
                used.setdefault(t.op, []).append(number)
            else:
                todo += t.op.input_tensors
    out, total = group.outputs[0], 0
    for t in group.inputs:
        rows = max(used[t.op]) - min(used[t.op]) + 1 + fetched if t.op in used and _own(t, size) else 1
        total += rows * _row(t, size) * dt.nbytes(t.dtype)
    for op, number in passes.items():
        if op is not out.op and not op.reduce_axis:
            total += max(1, max(used[op]) - number) * size[1] * dt.nbytes(op.body[0].dtype)
    return total + (1 + fetched) * _row(out, size) * dt.nbytes(out.dtype)


def _chunk(lead: Sequence[object], cores: int, last: int) -> int:
    """Rows that one thread takes in a row, few enough for any number of threads to have equal shares; 0 where stages
    do not pay. cores: 0 where threads do not share the rows.
    """
    count, shared = product(lead), cores > 0
    cores = cores if cores > 1 else _CORES if shared else 1
    found = [c for c in range(ceil(count / cores), last, -1) if _even(lead, c, last)]

    def cost(chunk: int) -> float:
        return ceil(ceil(count / chunk) / cores) * (_STEP * chunk + _ENDS * last)

    best = min(found, key=lambda c: (max(c, _MOST) if shared else 0, cost(c)), default=0)
    return best if best and cost(best) < ceil(count / cores) else 0


def _even(lead: Sequence[object], chunk: int, last: int) -> bool:
    """Whether so many rows at a time go through the dimensions evenly, or, of one, leave as many as are in flight."""
    if len(lead) == 1:
        return product(lead) % chunk == 0 or product(lead) % chunk >= last
    for size in map(extent, reversed(lead)):
        assert size is not None
        if chunk % size:
            return size % chunk == 0
        chunk //= size
    return chunk == 1


def apply(group: Group, row: str, rows: Rows, loops: Sequence[str], parallel: bool) -> str:
    """Puts the loop over rows in stages. loops: those over groups of vectors of all passes. Gives the loop over the
    rows of one thread.
    """
    sch = group.sch
    for name in loops:
        sch.annotate(name, "together", row)
    if parallel:
        outer, row = sch.split(row, [None, rows.chunk])
        sch.parallel(outer)
    stages = _stages(group, row, rows)
    ranked = sorted(range(len(stages)), key=lambda i: (-stages[i], i))  # values are used before they are replaced
    sch.pipeline(row, stages, [ranked.index(i) for i in range(len(stages))])
    return row


def _stages(group: Group, row: str, rows: Rows) -> list[int]:
    """The pass that each statement of the loop over rows belongs to; what only copies the result is in the last one."""
    tree = tree_of(group.sch.func)
    place = tree.loop(row)
    stages = [-1] * len(kids(as_loop(place).body))
    made = {b: n for op, n in rows.passes.items() for b in written(group.sch.block(group.blocks[op]))}
    for p in tree.blocks_below(place):
        k = child_index(place, p)
        stages[k] = max([stages[k], *(made[b] for b in written(as_block(p)) if b in made)])
    return [n if n >= 0 else rows.last for n in stages]
