"""Analytic prior for register tiles: which rows x vectors, loop order and parallel loop are fastest, without measuring.

Cycles of one reduction step of a tile of r rows and v vectors (Zen 4/5 and recent Intel alike; from the target's
numbers):
    max(r*v / fma_units, (loads) / load_units, latency floor)
where loads are v vectors of the rhs plus r scalar broadcasts (contraction), or r*v vectors and v weights (window).
A tile costs `reduce` such steps plus a start and an end; remainders cost what their own smaller tiles cost. Memory:
lines of the
rhs panel come from the cache level that holds what is walked between two uses. Scores are quantised; ties go to the
smaller tile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product as cartesian
from math import gcd, prod
from typing import Any

from warpbeam.cost import skipping
from warpbeam.cost.skipping import BY_ROW, BY_TILE, Inside
from warpbeam.target import Target

_UNKNOWN = 64
_FEW = 4  # rows that are worth a thought where their number is not known
_NARROW = 8  # columns of a map
_CALL_CYCLES = 30.0
_TAP_CYCLES = 8.0  # to begin and end the steps of one tap where others are left out
FAR = 1024  # bytes between the rows of a matrix that are far apart
STACK = 240 << 10  # bytes of all buffers of one thread: as lowering allows, less small ones
_SCATTERED = (1.7, 1.08)  # as long take products with rows far apart: panels of one or two vectors, and wider ones
_IN_PLACE = (1.4, 1.06, 1.03)  # the same by vectors of a panel, next to what the caches cost
_VISIT = 24.0  # cycles from one row of a crowded rhs to the next, of however few lines: all begin at the same places
_WIDE = 12  # vectors of a panel of such rows, for a single row of the lhs; elsewhere 6
_WAYS = 16  # of the second-level cache
_MIXED = 2.0  # a tile of whole and shorter vectors: code generators keep few of them in registers
_MISSED = (0.6, 0.3)  # of a step's time that it takes longer where no element of the lhs is near: one vector, and more
_ROOM = 4 / 3  # so many more lines than a place has room for still come in time where a tile has more vectors
_CROWDED = 1.02  # times as slow by rows in few sets: noticeable
WAY_BYTES = 4096  # of one way of the nearest cache: after so many, lines share a place there
EXPOSED = 0.35  # share of the shorter of two works that run together, which still adds to the time
FETCHED = 0.1  # the same where data is asked for before it is needed
REMOTE = 0.1  # cycles a byte from another core's cache: 0.04 where the cores share the third level, more where not
MOVED_RATE = 12.0  # bytes per cycle through memory of a kernel that puts elements in another order
FAR_BYTES_PER_CYCLE = 6.0  # what all cores walk through again and again beyond their own caches


@dataclass(frozen=True, slots=True)
class Shape:
    """Extents by role; None is symbolic. rows: the last two row axes; outer: iterations of all other outer axes.

    whole: for each of rows, then columns, whether tiles must divide the extent (a part of a larger axis).
    stride: bytes between the rows of an rhs that is no constant, where they lie so in memory. own: whether the rhs is a
    constant, another one for each of `outer`. supposed: what rows may be, for each of them; where they are known it
    says nothing. multiples: what the rows of a tile are a multiple of, where not of 1.
    latency: cycles from one sum of a result to the next. inside: for each of rows, which of them meet the map for each
    tap of a window, None where all do. share: the part of the taps along `outer` that meet the map. row_bytes and
    outer_bytes: from the lhs element of a row to that of the next, along the last and the first of two row axes; 0
    where that differs.
    """

    rows: tuple[int | None, ...]
    columns: int | None
    reduce: int
    outer: int
    lanes: int
    broadcast: bool
    packed: bool
    bytes: int = 4
    reads: int = 2
    row_bytes: int = 0
    whole: tuple[bool, ...] = (False, False, False)
    stride: int = 0
    own: bool = False
    supposed: tuple[int, ...] = ()
    multiples: tuple[int, ...] = ()
    latency: int = 4
    inside: tuple[Inside | None, ...] = ()
    share: float = 1.0
    outer_bytes: int = 0
    counts: tuple[int, ...] = field(init=False, compare=False, repr=False)  # the rows with a number for each

    def __post_init__(self) -> None:
        likely = self.supposed or (_UNKNOWN,) * len(self.rows)
        counts = tuple(n if size is None else size for size, n in zip(self.rows, likely, strict=True))
        object.__setattr__(self, "counts", counts)

    @property
    def far(self) -> bool:
        """Whether the rows of the rhs lie so far apart that each is a page, or lines of its own."""
        return self.stride >= FAR


@dataclass(frozen=True, slots=True)
class Tile:
    """Decisions of the tile sketch.

    parallel: "free" (axes that are not tiled), "first" (first tiled loop), "all" (both, as one loop) or "none". skips:
    for each of rows, how taps outside of the map are left out (`skipping.BY_ROW`, `BY_TILE`; 0: not at all). cycles:
    predicted, on all cores that the parallel loop uses.
    """

    rows: tuple[int, ...]
    vectors: int
    lanes: int
    columns_outer: bool
    parallel: str
    unroll: int
    unroll_window: bool
    packed: bool
    skips: tuple[int, ...] = ()
    reason: str = ""
    cycles: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": "x".join(map(str, self.rows)) or "1",
            "vectors": f"{self.vectors}x{self.lanes}",
            "order": "columns outer" if self.columns_outer else "rows outer",
            "parallel": self.parallel,
            **({"taps": "inside only"} if any(self.skips) else {}),
        }


def choose(shape: Shape, target: Target) -> Tile:
    """The best tile by the prior."""
    lanes, scored = _scored(shape, target)
    return _tile(shape, target, lanes, min(scored, key=lambda entry: entry[0]))


def ranked(shape: Shape, target: Target, count: int) -> list[Tile]:
    """Up to `count` tiles, the best first, each materially different from those before it (see `alike`)."""
    lanes, scored = _scored(shape, target)
    return apart(
        (_tile(shape, target, lanes, entry) for entry in sorted(scored, key=lambda entry: entry[0])), alike, count
    )


def alike(a: Tile, b: Tile) -> bool:
    """Whether tiles differ in less than what their times could differ by: same vectors, order of loops and parallel
    loop, and a quarter more rows at most.
    """
    same = (a.vectors, a.columns_outer, a.parallel, a.skips) == (b.vectors, b.columns_outer, b.parallel, b.skips)
    return same and alike_rows(a.rows, b.rows)


def alike_rows(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether one tile has a quarter more rows than the other at most."""
    few, many = sorted((prod(a), prod(b)))
    return many <= 1.25 * few


def apart(candidates: Iterable[Any], alike: Callable[[Any, Any], bool], count: int) -> list[Any]:
    """The first `count` candidates that are not like one taken before."""
    taken: list[Any] = []
    for candidate in candidates:
        if len(taken) == count:
            break
        if not any(alike(candidate, other) for other in taken):
            taken.append(candidate)
    return taken


def _scored(shape: Shape, target: Target) -> tuple[int, list[tuple[Any, ...]]]:
    """(lanes of a vector, all legal decisions, each with its key first: the least is the best)."""
    lanes = shape.lanes
    columns = shape.columns or _UNKNOWN
    while lanes > 1 and lanes // 2 >= columns:
        lanes //= 2
    found: list[tuple[Any, ...]] = []
    for rows, vectors in legal(shape, lanes, target):
        for columns_outer, skips in cartesian((True, False), _skip_choices(shape, rows, vectors)):
            cycles = _cycles(shape, rows, vectors, lanes, columns_outer, target, skips)
            panels = -(-columns // (vectors * lanes))
            heights = [-(-e // r) for e, r in zip(shape.counts, rows, strict=True)]
            first = panels if columns_outer or not heights else heights[0]
            even = columns % (vectors * lanes) if columns_outer or not rows else shape.counts[0] % rows[0]
            known = shape.outer > 1 and None not in shape.rows and shape.columns is not None
            apart = not columns_outer and skips[:1] == (BY_ROW,) and rows[0] > 1
            parallel, speedup = _parallel(shape, first, cycles, target, known and even == 0 and not apart)
            if parallel == "first" and not columns_outer and any(skips):
                spans = shape.inside[0] if skips[0] else None
                speedup *= skipping.balance(spans, shape.counts[0], rows[0], target.cores) / shared(first, target)
            if parallel in ("first", "all"):
                speedup = cycles / (cycles / speedup + exchanged(shape, columns_outer, target))
            key = (quantise(cycles / speedup), vectors, rows, columns_outer, skips)
            found.append((key, cycles, parallel, speedup))
    return lanes, found


def legal(shape: Shape, lanes: int, target: Target) -> Iterator[tuple[tuple[int, ...], int]]:
    """(Rows, vectors) of all tiles whose sums registers hold."""
    columns = shape.columns or _UNKNOWN
    for rows in cartesian(*_row_choices(shape)):
        for vectors in range(1, min(_WIDE if crowded_rhs(shape, target) else 6, -(-columns // lanes)) + 1):
            whole = not shape.whole[-1] or columns % (vectors * lanes) == 0
            if whole and _fits_registers(rows, vectors, shape, target):
                yield rows, vectors


def _tile(shape: Shape, target: Target, lanes: int, entry: tuple[Any, ...]) -> Tile:
    """The decisions of one entry of `_scored`."""
    (_, vectors, rows, columns_outer, skips), cycles, parallel, speedup = entry
    flops = 2.0 * shape.outer * (shape.columns or _UNKNOWN) * shape.reduce
    flops *= prod(shape.counts)
    peak = 2 * target.fma_rate * shape.lanes
    return Tile(
        rows,
        vectors,
        lanes,
        columns_outer,
        parallel,
        2 if shape.broadcast and shape.reduce % 2 == 0 else 1,
        not shape.broadcast,
        shape.packed,
        skips,
        f"{100 * flops / (cycles * peak):.0f} % of a core's multiply-add ceiling",
        cycles / speedup,
    )


def elapsed(
    cycles: float, weights: int, target: Target, cores: int, passes: float = 1.0, exposed: float = EXPOSED
) -> float:
    """Cycles of a computation that takes `cycles` on all cores and walks `passes` times over weights from memory.

    cores: those that fetch parts of their own. Memory is busy during the first pass only.
    """
    first, memory = cycles / max(passes, 1.0), weights / (target.memory_rate * cores)
    return max(first, memory) + exposed * min(first, memory) + cycles - first


def quantise(cycles: float) -> float:
    """Three significant digits, so that rounding noise never decides."""
    return float(f"{cycles:.3g}")


def _row_choices(shape: Shape) -> list[list[int]]:
    """Tile sizes worth trying for each row axis, inner axis last."""
    choices: list[list[int]] = []
    for k, size in enumerate(shape.rows):
        inner = k == len(shape.rows) - 1
        if size is None:
            narrow = shape.counts[-1] <= _NARROW  # then a few rows fill a tile that one does not
            choices.append(list(range(1, 17)) if inner else [1, 2, 4] if narrow else [1])
            continue
        limit = 16 if inner else 4
        step = shape.multiples[k] if shape.multiples else 1
        most = max(step, min(size, limit))
        choices.append([n for n in range(step, most + 1, step) if not shape.whole[k] or size % n == 0])
    return choices


def _skip_choices(shape: Shape, rows: tuple[int, ...], vectors: int) -> list[tuple[int, ...]]:
    """Along which rows a tile may leave out taps outside of the map, without too long a kernel."""
    if not any(shape.inside):
        return [()]
    choices: list[tuple[int, ...]] = [()]
    ways = [(0, BY_ROW, *([BY_TILE] if r > 1 else [])) if x else (0,) for x, r in zip(shape.inside, rows, strict=True)]
    for skips in cartesian(*ways):
        each = zip(shape.inside, skips, shape.counts, rows, strict=True)
        insides = [(x if s == BY_ROW else None, n, r) for x, s, n, r in each]
        if any(skips) and skipping.written(insides) * prod(rows) * vectors * 2 <= skipping.MOST_PRODUCTS:
            choices.append(skips)
    return choices


def _fits_registers(rows: tuple[int, ...], vectors: int, shape: Shape, target: Target) -> bool:
    count = vectors
    for r in rows:
        count *= r
    spare = vectors + 1 if shape.broadcast else 6
    return count + spare <= max(8, target.vector_registers) and count <= (28 if shape.broadcast else 18)


def step(rows: int, vectors: int, shape: Shape, target: Target) -> float:
    """Cycles of one reduction step of one tile."""
    work = rows * vectors
    loads = (
        (1.0 if vectors > 1 else 1.15) * rows + vectors
        if shape.broadcast
        else work + (vectors if shape.reads > 1 else 0)
    )
    latency = shape.latency if work >= 2 * shape.latency else (max(work, 1) + shape.latency) / 2.0
    return max(work / target.fma_rate, loads / _loads_rate(target), latency)


def _loads_rate(target: Target) -> float:
    """Vectors that a core loads per cycle: two, or as few as it multiplies where its units take a vector in parts."""
    return min(2.0, max(target.fma_rate, 1.0))


def _cycles(
    shape: Shape,
    rows: tuple[int, ...],
    vectors: int,
    lanes: int,
    columns_outer: bool,
    target: Target,
    skips: tuple[int, ...] = (),
) -> float:
    panel = vectors * lanes
    tiles, total = work(shape, rows, vectors, lanes, target, skips=skips)
    if shape.far:
        total *= in_place(vectors)
    panels = -(-(shape.columns or _UNKNOWN) // panel)
    if crowded_rhs(shape, target):
        total = max(total, panels * shape.reduce * _VISIT)
    return shape.outer * (total * shape.share + _traffic(shape, tiles, panels, panel, columns_outer, target))


def work(
    shape: Shape,
    rows: tuple[int, ...],
    vectors: int,
    lanes: int,
    target: Target,
    passes: int = 1,
    skips: tuple[int, ...] = (),
) -> tuple[float, float]:
    """(Tiles along the rows, cycles of all tiles of one of `outer` with their operands near); sums are begun and put
    aside so many times.
    """
    full, rest = divmod(shape.columns or _UNKNOWN, vectors * lanes)
    mixed = _MIXED if rest > lanes and rest % lanes else 1.0
    widths = [(full, vectors, 1.0)] + ([(1, -(-rest // lanes), mixed)] if rest else [])
    heights: list[tuple[float, int]] = [(1, 1)]
    for size, count, r in zip(shape.rows, shape.counts, rows, strict=True):
        n, tail = divmod(count, r)
        parts = [(n, r)] + ([(1, tail)] if tail else []) if size is not None else ladder(count, r)
        heights = [(a * b, h * g) for a, h in heights for b, g in parts if a * b]
    sums = sum(nh * nw * passes * (_CALL_CYCLES + 2.0 * h * w) for nh, h in heights for nw, w, _ in widths)
    begin, margin = 0.0, 1.0
    if any(skips):  # taps are begun and ended one by one
        heights = skipping.left([*zip(shape.inside, skips, shape.counts, rows, strict=True)])
        begin = _TAP_CYCLES * prod(len(x) for x, s in zip(shape.inside, skips, strict=True) if x and s)
        margin = skipping.TILES_MARGIN if BY_TILE in skips else skipping.MARGIN
    steps = sum(
        nh * nw * (longer * step(h, w, shape, target) * shape.reduce / margin + begin)
        for nh, h in heights
        for nw, w, longer in widths
    )
    return sum(n for n, _ in heights), (sums + steps) * _aliasing(shape, rows, vectors, target)


def shorter(height: int) -> list[int]:
    """Heights of the tiles that an unknown number of rows is cut into: 12, 4, 3, 2, 1, or of few rows 6, 3, 1.

    After tall tiles few rows are one tile, as each walks the columns' data again. Low ones each divide all before them:
    what lies inside a tile is decided more often.
    """
    if height >= 8:
        return [height, 4, 3, 2, 1]
    out = [height]
    while out[-1] > 1:
        out.append(max(n for n in range(1, out[-1] // 2 + 1) if out[-1] % n == 0))
    return out


@lru_cache(maxsize=1024)
def ladder(count: int, height: int) -> list[tuple[float, int]]:
    """(number of tiles, their height) for each height that `count` rows, no more than a guess, are cut into.

    On average over numbers of rows of each magnitude, from twice that down to a few.
    """
    steps, found, sizes = shorter(height), dict.fromkeys(shorter(height), 0.0), 0
    most = 2 * count
    while most > _FEW or not sizes:
        for size in range(most - most // 2 + 1, most + 1, max(1, most // 32)):
            rest, sizes = size, sizes + 1
            for h in steps:
                found[h] += rest // h / size
                rest %= h
        most //= 2
    return [(n * count / sizes, h) for h, n in found.items()]


def held(shape: Shape, steps: int, panel: int, target: Target) -> int:
    """Bytes of the caches that so many rows of a panel of the rhs fill: more than they have where the rows begin near
    the same place of a cache, as their lines then share few of its sets.
    """
    own = steps * panel * shape.bytes
    if not shape.far or not target.l2:
        return own
    crowd = steps * gcd(shape.stride, WAY_BYTES)
    if crowd > target.l1 // 2:
        own = max(own, target.l1)
    return max(own, target.l2) if steps * gcd(shape.stride, target.l2 // _WAYS) > target.l2 * 3 // 4 else own


def in_place(vectors: int) -> float:
    """How much longer a product takes, next to what caches cost, that reads panels of so many vectors where they lie:
    each row is a page of its own, and begins where no vector does.
    """
    return _IN_PLACE[min(vectors, 3) - 1]


def crowded_rhs(shape: Shape, target: Target) -> bool:
    """Whether one row meets an rhs from beyond the second-level cache whose rows begin at the same places of caches."""
    rhs = shape.reduce * (shape.columns or _UNKNOWN) * shape.bytes
    pages = shape.stride > 0 and shape.stride % WAY_BYTES == 0
    return pages and prod(shape.counts) == 1 and rhs > target.l2 > 0


def scattered(vectors: int) -> float:
    """How much longer a product takes whose panels, of so many vectors, have rows far apart."""
    return _SCATTERED[vectors > 2]


def _traffic(shape: Shape, tiles: float, panels: int, panel: int, columns_outer: bool, target: Target) -> float:
    """Cycles spent waiting for operands that do not stay in L1, about half of them hidden."""
    if not shape.broadcast:
        return 0.0
    rhs = shape.reduce * (shape.columns or _UNKNOWN) * shape.bytes
    one_panel = shape.reduce * panel * shape.bytes
    lhs = prod(shape.counts) * shape.reduce * shape.bytes
    if columns_outer:
        filled = held(shape, shape.reduce, panel, target)
        panel_from = 0.0 if filled <= target.l1 // 2 else cache_rate(2 * filled, target)  # with the next one
        cost = tiles * panels * one_panel * panel_from + panels * lhs * cache_rate(lhs, target) + rhs / target.l3_rate
    else:
        far = 1.0 / FAR_BYTES_PER_CYCLE if rhs > target.l2 else cache_rate(rhs, target)
        cost = tiles * rhs * far + lhs / target.l3_rate
        if shape.own:  # the next weights come from memory, and nothing asks for them ahead
            cost += rhs / target.memory_rate
    alone = shape.stride >= WAY_BYTES and rhs > target.l2 > 0  # each row of a panel is a page that nothing asks for
    return EXPOSED * cost + alone * rhs / target.memory_rate


def exchanged(shape: Shape, columns: bool, target: Target) -> float:
    """Cycles of each core to fetch what others hold too, where cores share the columns or the rows: of columns, what is
    read and written, as in most other kernels each core makes or reads whole rows; of rows, the other operand.
    """
    rows = shape.outer * prod(shape.counts)
    size = rows * (shape.row_bytes + (shape.columns or _UNKNOWN) * shape.bytes)
    if not columns:
        size = shape.reduce * (shape.columns or _UNKNOWN) * shape.bytes * shape.broadcast
    return REMOTE * size * (1.0 - 1.0 / target.cores)


def _aliasing(shape: Shape, rows: tuple[int, ...], vectors: int, target: Target) -> float:
    """How much slower a tile is whose lhs rows lie in few sets of the first-level cache (row distances near 4 KiB).
    More rows than a set has ways come from the second level for each step, which only products with more vectors hide,
    and of not too many rows.
    """
    if not shape.broadcast or not shape.row_bytes or not rows:
        return 1.0
    distinct = max(1, WAY_BYTES // gcd(shape.row_bytes, WAY_BYTES))
    ways = max(1, target.l1 // WAY_BYTES)
    crowd = rows[-1] / min(distinct, rows[-1])
    missed = _MISSED[0] if crowd > ways and vectors == 1 else 0.0
    near = rows if shape.outer_bytes else rows[-1:]
    if vectors > 1 and _together(near, shape.outer_bytes, shape.row_bytes, target.line) > _ROOM * ways:
        missed = _MISSED[1]
    return 1.0 + 0.008 * max(0.0, crowd - ways / 4) + missed


@lru_cache(maxsize=4096)
def _together(rows: tuple[int, ...], outer: int, inner: int, line: int) -> int:
    """Rows of a tile whose lines share one place of the first-level cache, at most."""
    starts = (i * outer + j * inner for i in range(prod(rows[:-1])) for j in range(rows[-1]))
    return max(Counter(start % WAY_BYTES // line for start in starts).values())


def crowded(shape: Shape, tile: Tile, target: Target) -> bool:
    """Whether a tile's lhs rows lie in so few sets of the first-level cache that it is noticeably slower; where memory
    is so small that there is no second level, it is not the cache that counts.
    """
    return target.l2 > 0 and _aliasing(shape, tile.rows, tile.vectors, target) >= _CROWDED


def cache_rate(resident: int, target: Target) -> float:
    """Cycles per byte from the level that holds `resident` bytes."""
    if resident <= target.l1 // 2:
        return 0.0
    return 1.0 / (target.l2_rate if resident <= target.l2 * 3 // 4 else target.l3_rate)


def shared(count: int, target: Target) -> float:
    """The part of their time that cores are busy which share so many equal parts."""
    return count / (-(-count // target.cores) * target.cores)


def _parallel(shape: Shape, first: int, cycles: float, target: Target, fusible: bool) -> tuple[str, float]:
    """(which loop is parallel, share of the cores' time that is used)."""
    cores = target.cores
    if cores < 2 or cycles < 4 * target.fork_cycles:
        return "none", 1.0
    choices = [("free", shape.outer), *([("all", shape.outer * first)] if fusible else []), ("first", first)]
    scored = [(shared(n, target), n >= 4 * cores, -k, name) for k, (name, n) in enumerate(choices) if n > 1]
    if not scored:
        return "none", 1.0
    used, _, _, name = max(scored)
    if used * cores <= 1.0:
        return "none", 1.0
    forks = shape.outer if name == "first" else 1
    return name, used * cores / (1.0 + forks * target.fork_cycles / cycles)
