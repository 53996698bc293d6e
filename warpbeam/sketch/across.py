"""Pointwise stages that read across the rows of what they write (transposes): in blocks, so that each line of the
source is used up while it is near, and each line of the result is whole when it is stored.

How blocks follow each other is decided by where rows lie. Rows that are a power of two apart share few places of a
cache, and lines that are on their way at the same time, of this block and of some before, push each other out of them.
Blocks along the source's rows read from other places each time; blocks along the result's rows write to others;
diagonals of a larger block do both. Where even one block's lines of the result share a place, a larger block is turned
into a buffer first, which is then copied row by row. Of what goes past the caches several blocks each way are taken
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from warpbeam.cost.tile_prior import WAY_BYTES
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch.base import Group, extent, product
from warpbeam.sketch.structure import Stage
from warpbeam.te.tensor import ProducerLoad, Tensor, loads
from warpbeam.tir.analysis.access import as_block
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.expr import BufferLoad, Call
from warpbeam.tir.transform.bypass_caches import past_caches

PARALLEL_ELEMENTS = 16384
_TASKS = 4  # iterations of a parallel loop for each core that blocks taken together leave
_ALONG = (4, 1)  # blocks each way that are taken together along the source's rows
_SQUARE = (2, 2)  # the same, within the last cache: fewer lines are on their way, of fewer rows, and those in pairs
_NEAR = 4  # of so many parts of the last cache, what is at most taken in such squares
_MANY = 8  # blocks along the result's rows that make up for the rest of a row, which is taken in less than squares
_DIAGONAL = 8  # blocks each way of a larger one whose diagonals are walked; fewer where these do not divide it
_AHEAD = 4  # blocks between asking for lines from beyond the second cache and turning them
_FAR = {"far": (8, 4), "far along": (4, 4)}  # the same, and along the result's rows, where that goes past the caches
_BUFFER = (4, 8)  # the same, of what is turned into a buffer; fewer of the first if they do not fit the nearest cache
_FILLING = 1.5  # times what a kernel reads and writes, if that is more than the last cache: the buffer then costs more
_CROWDED = 2048  # rows that are a multiple of this apart have two places there at most
_CLOSE = 1024  # the same, four; enough for what is stored at once, too few for that of the blocks before
_HALVES = 512  # the same, eight; too few where the block beside the next one stores the other halves of lines


@dataclass(frozen=True, slots=True)
class Across:
    """A read along axis `at` of a stage, from the tensor `source`.

    order: "far along" (the source's rows) if the result goes past the caches, or "far" (along its own) if the source's
    rows crowd few places of the nearest one; "buffered" if one block's lines of it share a place of the nearest
    cache, "diagonal" if those of some blocks share few places, and the source's do, "blocks" (along the result's rows)
    if only the result's do, else "along" (the source's rows).
    """

    at: int
    source: str
    order: str


def find(group: Group, stage: Stage) -> Across | None:
    """The axis of a stage along which a read is contiguous while the innermost one strides through it (a transpose):
    one of its own, or of what is inlined, if that is no matter of a condition.
    """
    found = as_block(tree_of(group.sch.func).block(group.blocks[stage.op]))
    always = post_order(found.body, enter=lambda n: not (isinstance(n, Call) and n.op == "if_then_else"))
    reads = [(a.var for a in stage.op.axis), (a.var for a in found.axes)]
    for axes, loaded in zip(reads, (loads(stage.op), always), strict=True):
        *outer, last = axes
        for load in loaded:
            if not isinstance(load, ProducerLoad | BufferLoad) or not any(i is last for i in load.indices[:-1]):
                continue
            at = next((k for k, v in enumerate(outer) if v is load.indices[-1]), None)
            if at is not None and all((extent(stage.op.axis[k].extent) or 8) >= 8 for k in (at, -1)):
                tensor = load.tensor if isinstance(load, ProducerLoad) else load.buffer
                behind = next(k for k, i in enumerate(load.indices) if i is last) + 1
                pitch = dt.nbytes(load.dtype) * product(tensor.shape[behind:])
                name = tensor.op.name if isinstance(tensor, Tensor) else tensor.name
                return Across(at, name, _order(group, stage, at, pitch))
    return None


def _order(group: Group, stage: Stage, at: int, pitch: int) -> str:
    """How blocks of a stage follow each other, whose source's rows are `pitch` bytes apart."""
    source = gcd(pitch, WAY_BYTES)
    if _far(group, stage):
        return "far" if source >= _CROWDED else "far along"
    sizes = [extent(a.extent) or 0 for a in stage.op.axis]
    lanes, size = max(1, group.target.vector_bits // 32), dt.nbytes(stage.op.body[0].dtype)
    own = gcd(size * product([a.extent for a in stage.op.axis[at + 1 :]]), WAY_BYTES)
    known, parts = group.is_output(stage.op) and all(sizes), group.target.line // (lanes * size)  # of a line
    lines = known and parts <= 1
    filling = lines and _FILLING * _bytes(group) > group.target.l3 > 0
    if own >= (WAY_BYTES if lines else _CROWDED) and not filling:
        whole = sizes[at] >= lanes and sizes[-1] % (_BUFFER[1] * lanes) == 0 < sizes[-1]
        return "buffered" if whole and group.is_output(stage.op) else "blocks"
    if not known or parts > 2:
        return "along" if source >= _CROWDED else "blocks"
    if own < _CLOSE:
        return "along" if parts <= 1 or source >= _HALVES else "blocks"
    even = all(_even(n, lanes) > 1 for n in (sizes[at], sizes[-1]))
    return "diagonal" if even and (own < _CROWDED or source >= _CLOSE) else "blocks"


def _even(size: int, lanes: int) -> int:
    """How many blocks each way of a larger one divide `size` elements."""
    return gcd(size, _DIAGONAL * lanes) // lanes if size % lanes == 0 else 1


def _far(group: Group, stage: Stage) -> bool:
    """Whether whole rows of a stage's result, in whole lines, go past the caches."""
    shapes = [t.shape for t in group.inputs] + [t.shape for t in group.outputs]
    if any(extent(n) is None for shape in shapes for n in shape) or not group.is_output(stage.op):
        return False
    size, own = dt.nbytes(stage.op.body[0].dtype), [a.extent for a in stage.op.axis]
    lines = product(own[-1:]) * size % group.target.line == 0
    return lines and past_caches(group.target, product(own) * size, _bytes(group))


def _given(group: Group, across: Across) -> bool:
    """Whether the source is an operand, not computed on the way."""
    return any(t.op.name == across.source for t in group.inputs)


def _beyond(group: Group, across: Across) -> bool:
    """Whether the source comes from beyond the second-level cache, too late unless asked for: what fetches ahead by
    itself follows neither diagonals nor blocks of rows far apart.
    """
    return _given(group, across) and _bytes(group) > group.target.l2 > 0


def _bytes(group: Group) -> int:
    """Of all operands and results."""
    return sum(product(t.shape) * dt.nbytes(t.dtype) for t in (*group.inputs, *group.outputs))


def schedule(group: Group, block: str, names: list[str], across: Across, elements: int) -> str:
    """Schedules a block whose loops are `names` (the innermost ones); of `elements` enough, on all cores. Returns what
    was done.

    Where the result goes past the caches, some blocks each way are taken together: several lines of each row are
    stored at once, and several of each of the source's are asked for, row by row, while the blocks before are turned.
    """
    if across.order == "buffered":
        return _buffered(group, block, names, across, elements)
    sch, lanes = group.sch, max(1, group.target.vector_bits // 32)
    strips, panels = _together(group, names, across, elements)
    strip, near, row = sch.split(names[across.at], [None, strips, lanes])
    panel, beside, lane = sch.split(names[-1], [None, panels, lanes])
    shared = [n for k, n in enumerate(names[:-1]) if k != across.at]
    walk = [panel, strip] if across.order == "far along" else [strip, panel]
    sch.reorder(*shared, *walk, near, beside, row, lane)
    done = {"far": " some each way", "far along": " some each way, along the source"}.get(across.order, "")
    if across.order == "along" and strips > 1:
        done = " along the source"
    diagonals = across.order == "diagonal" and min(strips, panels) > 1
    if diagonals:
        sch.diagonal(near, beside)
        done = " on diagonals"
    sch.vectorize(lane)
    if across.order in _FAR and _given(group, across):
        sch.prefetch(walk[1], across.source, 1, beside)
    if diagonals and _beyond(group, across):
        for t in group.outputs:
            if group.blocks[t.op] == block and dt.nbytes(t.dtype) * lanes >= group.target.line:
                sch.prefetch(beside, across.source, _AHEAD, onto=near)
                sch.prefetch(beside, t.op.name, _AHEAD, onto=near)
    _share(group, [*shared, walk[0]], elements)
    return f"{block}: {elements} elements, blocks of {lanes} x {lanes}{done}"


def _together(group: Group, names: list[str], across: Across, elements: int) -> tuple[int, int]:
    """How many blocks along the source's rows, and along the result's, are taken together: as many as leave work for
    all cores.
    """
    sch, lanes = group.sch, max(1, group.target.vector_bits // 32)
    sizes = [sch.extent(n) for n in names]
    square = _NEAR * _bytes(group) <= group.target.l3 and (sizes[-1] or 0) >= _MANY * lanes
    counts = list({**_FAR, "along": _SQUARE if square else _ALONG}.get(across.order, (1, 1)))
    if across.order == "diagonal":
        counts = [_even(sizes[k] or 0, lanes) for k in (across.at, -1)]
    if elements < PARALLEL_ELEMENTS:
        return counts[0], counts[1]
    cut, of = (1, -1) if across.order == "far along" else (0, across.at)
    rows = product([n for k, n in enumerate(sizes[:-1]) if k != across.at]) * (sizes[of] or elements)
    while counts[cut] > 1 and rows < counts[cut] * lanes * _TASKS * group.target.cores:
        counts[cut] //= 2
    return counts[0], counts[1]


def _buffered(group: Group, block: str, names: list[str], across: Across, elements: int) -> str:
    """Blocks turned into a buffer, along the source's rows, and copied along the result's, one row after the other.

    Rows a power of two apart share few places: lines of as many of them as are turned at once would push each other
    out of the nearest cache before they are whole.
    """
    sch, lanes = group.sch, max(1, group.target.vector_bits // 32)
    rows, vectors = _BUFFER
    size = dt.nbytes(sch.block(block).body.value.dtype)
    while rows > 1 and rows * (vectors + 1) * lanes * lanes * size > group.target.l1:
        rows //= 2
    out = sch.cache_write(block, "local")
    names = list(sch.loops(out))[-len(names) :]
    strip, row = sch.split(names[across.at], [None, rows * lanes])
    panel, column = sch.split(names[-1], [None, vectors * lanes])
    outer = [*(n for k, n in enumerate(names[:-1]) if k != across.at), strip]
    sch.reorder(*outer, panel, row, column)
    lane = sch.split(column, [None, vectors // 2, lanes])[-1]
    sch.vectorize(lane)
    sch.compute_at(block, panel)
    sch.set_scope(block, "local")
    sch.storage_align(block, len(names) - 2, lanes)
    inner = list(sch.loops(block))[-len(names) :]
    strips, near = sch.split(inner[across.at], [None, lanes])
    beside, lane = sch.split(inner[-1], [None, lanes])
    sch.reorder(beside, strips, near, lane)
    sch.vectorize(lane)
    if _beyond(group, across):
        sch.prefetch(panel, across.source, 1, strips, strip)
    _share(group, outer, elements)
    return f"{block}: {elements} elements, blocks of {rows * lanes} x {vectors * lanes} by way of a buffer"


def _share(group: Group, outer: list[str], elements: int) -> None:
    if elements >= PARALLEL_ELEMENTS:
        shared = group.sch.fuse(*outer) if len(outer) > 1 else outer[0]
        group.sch.parallel(shared)
        group.sch.annotate(shared, "either_way", True)  # what is asked for ahead is of the same iteration, or nearly
