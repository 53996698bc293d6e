"""Sketch for chains of row reductions (softmax, normalisations): one pass over memory, a row's intermediates stay in
cache.

Every stage is computed at the row loop of the output. A reduction runs in several vectors of partial results, which
are joined at the row's end; a row of few vectors stays in registers as a whole. Columns are cut into vectors in groups,
single vectors, and the rest (a shorter vector where its size is known, else one element at a time).
"""

from __future__ import annotations

from warpbeam.ir import dtype as dt
from warpbeam.sketch import pieces, row_stages
from warpbeam.sketch.base import Group, Plan, expensive, extent, product
from warpbeam.sketch.structure import Stage, is_strided_row, kept_places, row_key
from warpbeam.te.tensor import ComputeOp, Operation

_PARALLEL_ELEMENTS = 8192
_MAX_ROW_BYTES = 64 * 1024
_LONG_ROW = 8192  # bytes: two pages
_REGISTER_VECTORS = 12  # longest row that stays in registers


def fits(group: Group) -> bool:
    """One output, reductions all over the same rows; sizes may be symbolic. Rows may be in pieces apart (a norm over
    the batch and the positions of each channel), unless there is only one reduction and nothing to do afterwards.
    """
    rows = [s for s in group.stages if s.op.reduce_axis]
    kinds = {s.kind for s in group.stages}
    if not rows or not kinds <= {"row", "reduce", "elementwise"} or len(group.outputs) != 1:
        return False
    keys = {row_key(s.op) for s in rows}
    if len(keys) != 1 or any(len(s.op.body) != 1 for s in group.stages):
        return False
    lead, _ = next(iter(keys))
    out = group.outputs[0].op
    assert isinstance(out, ComputeOp)
    if "reduce" in kinds and not all(is_strided_row(s.op) for s in rows):
        return False
    alone = "reduce" in kinds and len(rows) == 1 and len(out.axis) == len(rows[0].op.axis)
    return len(out.axis) >= len(lead) and not alone


def build(group: Group) -> Plan:
    out = group.outputs[0].op
    assert isinstance(out, ComputeOp)
    anchor = next(s.op for s in group.stages if s.op.reduce_axis)
    lead, cols = row_key(anchor)
    keeping = kept(group, group.stages, out)
    sch = group.sch
    last = sch.cache_write(group.blocks[out], "register") if out.reduce_axis else group.blocks[out]
    vectors = _short(group, out, cols)
    short = vectors > 0
    order = [s for s in group.stages if s.op in keeping or s.op is out]
    parallel = _divided(lead, cols)
    staged = None if short else row_stages.of_rows(group, order, lead, cols, parallel)
    own = kept_places(anchor, group.stages, len(out.axis))[: len(lead)]
    row = _row_loop(group, last, own, vectors, parallel and staged is None)
    for stage in reversed(group.stages):
        if stage.op in keeping or (stage.op is out and out.reduce_axis):
            _place(group, stage, row, cols, short)
    most = pieces.MOST if staged is None else row_stages.VECTORS
    passes = [(s, vectorise(group, s, row, short, most)) for s in order]
    if staged is not None:
        assert row is not None
        row = row_stages.apply(group, row, staged, [x for _, loops in passes for x in loops], parallel)
    if row is not None:
        walks = [(s, loops[0]) for s, loops in passes if loops]
        _fetch_ahead(group, row, (product(lead), product(cols)), walks, staged)
    how = ["rows in registers"] if short else ["passes of neighbouring rows in one loop"] if staged else []
    notes = ("one pass over memory per row", *how)
    return Plan(sch.func, "rows", {"rows": product(lead), "columns": product(cols)}, notes)


def _fetch_ahead(
    group: Group, row: str, size: tuple[int, int], passes: list[tuple[Stage, str]], staged: row_stages.Rows | None
) -> None:
    """Asks for the next row's operands, and for the lines of this row's result: the first pass would begin with a wait,
    as nothing tells that more is needed after a row's end, and stores wait for lines to be read.

    size: rows and columns. passes: those with a loop over groups of vectors, the result's own last. staged: several
    rows at once; then it is what the first and the last pass come to in the next step. Row by row, the result's lines
    are asked for before the next row is, not both at once.
    """
    out, elements = group.outputs[0], size[0] * size[1]
    rows = {t.op.name: product(t.shape) * dt.nbytes(t.dtype) for t in group.inputs if product(t.shape) >= elements}
    written = product(out.shape) * dt.nbytes(out.dtype) if product(out.shape) >= elements else 0
    ahead = {} if staged is None else {loop: staged.passes[s.op] for s, loop in passes}
    costly = next((loop for s, loop in passes if s.op is not out.op and expensive(s.op)), "")
    one_by_one = row_stages.touched(group, {s.op: 0 for s, _ in passes}, size) - written // size[0]
    held = one_by_one if staged is None else staged.size
    far = 0 < group.target.l3 < sum(rows.values()) + written
    if far:
        asked, locality = _from_memory(group, rows, size[0], held, bool(costly))
    else:
        room = row_stages.ROOM if staged is not None else 0 if costly else 1
        fits = not room or held < room * group.target.l1
        asked, locality = _from_caches(group, rows, written, bool(costly)) if fits else [], 3
    through = costly or (passes[-1][1] if passes else "")
    for name in asked:
        group.sch.prefetch(row, name, 1 + ahead.get(through, 0), through, locality=locality)
    after = costly or (passes[-2][1] if len(passes) > 1 else "")
    if after and asked and written and not far:
        group.sch.prefetch(row, out.op.name, 0 if staged is None else 1 + ahead[after] - staged.last, after)


def _from_caches(group: Group, rows: dict[str, int], written: int, costly: bool) -> list[str]:
    """The operands to ask for of those that caches hold (`rows`, their bytes), where the nearest one has room for what
    is used meanwhile.

    A pass that computes much has the time to ask for all that the second-level cache does not hold in half of its
    bytes. Others have that time only where the third-level cache holds everything: the next row's operands are asked
    for in the last pass, the result's lines in the one before. Measured row by row on Zen 5: softmax
    of 512 rows of 1024 takes 0.89 of the time, of 64 rows (half of the second-level cache) 0.94, of 64 rows of 512
    1.03; layer normalisation of 512 rows of 1024 takes 0.82. On Zen 4, whose nearest cache holds 32 KiB: layer
    normalisation of 340 rows of 1536 takes 0.9, but of 256 rows of 2048 1.1 and of 170 rows of 3072 1.05; softmax of
    256 rows of 2048 in stages 1.25.
    """
    target, whole = group.target, sum(rows.values()) + written
    if costly:
        return [name for name in rows if 2 * whole >= target.l2]
    return [name for name, n in rows.items() if whole <= target.l3 and target.l2 < n]


def _from_memory(group: Group, rows: dict[str, int], count: int, held: int, costly: bool) -> tuple[list[str], int]:
    """The operands to ask for of those that come from memory in `count` rows, and how near: 3 for the nearest cache, 2
    for the second one. Lines of what is written to memory are not asked for: large results pass by the caches, where a
    machine can do that, and where it cannot they come no sooner (AVX2, softmax of 4096 rows of 4096: 1.14 of the time).

    Asking for short rows only takes the way of what is written, unless a pass computes much; within a page or two the
    machine itself reads ahead. Measured on Zen 4: softmax of 8192 rows of 1024 takes 0.7 of the time that it takes with
    all in the nearest cache and lines of results asked for, of 4096 rows of 2048 0.44, of 16384 rows of 512 0.8; layer
    normalisation of 4096 rows of 2048 takes 0.84 of the time that it takes without asking, of 8192 rows of 1024 1.08.
    """
    near = 2 * held <= group.target.l1
    return [name for name, n in rows.items() if costly or n >= _LONG_ROW * count], 3 if near else 2


def below(group: Group, out: Stage, stages: list[Stage], row: str, cols: tuple[object, ...]) -> None:
    """Schedules a stage whose rows are the loop `row`, with the `stages` that only it and they themselves read."""
    vectors = _short(group, out.op, cols)
    row, short = _together(group, row, vectors), vectors > 0
    for stage in reversed(stages):
        _place(group, stage, row, cols, short)
    for stage in (*stages, out):
        vectorise(group, stage, row, short)


def _short(group: Group, out: ComputeOp, cols: tuple[object, ...]) -> int:
    """Vectors of a row that stays in registers; 0 where it does not."""
    vectors = -(-(extent(cols[0]) or 1 << 30) // pieces.lanes_of(group, out))
    return vectors if len(cols) == 1 and vectors <= _REGISTER_VECTORS else 0


def _divided(lead: tuple[object, ...], cols: tuple[object, ...]) -> bool:
    """Whether it pays that threads share the rows. How many there are may not be known: then they are many."""
    open_size = any(extent(s) is None for s in lead)
    return open_size or (product(lead) * product(cols) >= _PARALLEL_ELEMENTS and product(lead) > 1)


def _row_loop(group: Group, block: str, lead: list[int], vectors: int, parallel: bool) -> str | None:
    """The one loop over rows, which are the axes `lead`, or, where a row has few `vectors`, over small groups of rows:
    their latencies overlap. None for a single row.
    """
    sch = group.sch
    loops = list(sch.loops(block))
    names = [loops[k] for k in lead]
    if not names:
        return None
    if names != loops[: len(lead)]:
        sch.reorder(*names, *(n for n in loops if n not in names))
    row = sch.fuse(*names) if len(names) > 1 else names[0]
    row = _together(group, row, vectors)
    if parallel:
        sch.parallel(row)
    return row


def _together(group: Group, row: str, vectors: int) -> str:
    """The loop over groups of a few short rows, which are written out."""
    count = group.sch.extent(row)
    together = next((r for r in (3, 2) if count and vectors and count % r == 0 and vectors * r <= 24), 1)
    if together == 1:
        return row
    row, inner = group.sch.split(row, [None, together])
    group.sch.unroll(inner)
    return row


def kept(group: Group, stages: list[Stage], out: ComputeOp) -> set[Operation]:
    """Inlines pointwise stages that are cheap, with what they have inlined themselves, or read once; what stays gets a
    buffer of one row.
    """
    found: set[Operation] = set()
    hidden: set[Operation] = set()  # inlined, and not cheap
    for stage in stages:
        op = stage.op
        if op is out:
            continue
        users = len(set(group.readers.get(op, [])))
        costly = expensive(op) or any(t.op in hidden for t in op.input_tensors)
        if stage.op.reduce_axis or (users > 1 and costly):
            found.add(op)
            continue
        group.sch.compute_inline(group.blocks[op])
        if costly:
            hidden.add(op)
    return found


def _place(group: Group, stage: Stage, row: str | None, cols: tuple[object, ...], short: bool) -> None:
    """A stage at the row loop: statistics in registers, a row of values in registers, on the stack or in memory."""
    sch, block = group.sch, group.blocks[stage.op]
    if row is not None:
        sch.compute_at(block, row)
    known = all(extent(c) is not None for c in cols)
    if stage.op.reduce_axis or short:
        sch.set_scope(block, "register")
    elif known and product(cols) * dt.nbytes(stage.op.body[0].dtype) <= _MAX_ROW_BYTES:
        sch.set_scope(block, "local")


def vectorise(group: Group, stage: Stage, row: str | None, short: bool, most: int = pieces.MOST) -> list[str]:
    """Vectors along the row: elementwise stages directly, reductions through partial results per lane. Gives the loops
    over groups of vectors of an elementwise stage, of which rows that stay in registers have none.
    """
    sch, block = group.sch, group.blocks[stage.op]
    lanes = pieces.lanes_of(group, stage.op)
    names = list(sch.loops(block))
    inner = names[names.index(row) + 1 :] if row is not None else names
    if row is not None and short:
        for name in inner[: -len(stage.op.reduce_axis) or -1]:
            sch.unroll(name)
    loops: list[str] = []
    if stage.op.reduce_axis:
        axes = inner[-len(stage.op.reduce_axis) :]
        sch.decompose_reduction(block, axes[0])
        for piece in pieces.cut(group, block, axes[-1], lanes, 4 if short else most):
            loops.append(pieces.partial(group, piece, short))
        return [] if short else loops
    if not inner or sch.loop(inner[-1]).kind != "serial":  # a single column has no loop
        return []
    for piece in pieces.cut(group, block, inner[-1], lanes, 4):
        outer, vectors, lane = sch.split(piece.loop, [None, piece.vectors, piece.lanes])
        if piece.lanes > 1:
            sch.vectorize(lane)
        sch.unroll(vectors)
        if short:
            sch.unroll(outer)
        else:
            loops.append(outer)
    return loops
