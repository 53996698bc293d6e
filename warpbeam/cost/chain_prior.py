"""Analytic prior for two matrix products with row reductions between them that run as one kernel (attention).

A block of rows passes both products while the values between them stay in a buffer. What is joined saves the way of
these values through memory; what it costs is that both products take tiles of the same rows, and that copies of
operands live on a thread's stack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from warpbeam.cost.tile_prior import FAR, Shape, Tile, cache_rate, choose, scattered
from warpbeam.target import Target

_ROWS = (8, 16, 32, 64)  # of a block
_UNEVEN = 1.02  # a shorter last block is code of its own
_STACK = 240 << 10  # bytes of all buffers of one thread, as lowering allows, less small ones
_COPY_CYCLES = 3.0  # to fetch a vector of an operand from where it lies and put it in a buffer
_ROW_CYCLES = 60.0  # to begin and end the reductions of a row
_VECTOR_CYCLES = 24.0  # of the reductions of a row, for each vector of it


@dataclass(frozen=True, slots=True)
class Chain:
    """Extents: batch: independent pairs of products; rows x inner times inner x middle, then middle x columns.

    made: whether left, right and values are computed into buffers, and not read where they lie.
    """

    batch: int
    rows: int
    inner: int
    middle: int
    columns: int
    made: tuple[bool, bool, bool]
    lanes: int
    bytes: int = 4

    @property
    def elements(self) -> tuple[int, int, int]:
        """Of the operands that are made: left (one row of it), right and values, for one of the batch."""
        sizes = (self.inner, self.inner * self.middle, self.middle * self.columns)
        left, right, values = (n * c for n, c in zip(sizes, self.made, strict=True))
        return left, right, values


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows, with the tiles of both products. cycles: of all of it, on one core."""

    rows: int
    first: Tile
    second: Tile
    cycles: float


@dataclass(frozen=True, slots=True)
class Blocks:
    """Decisions: whole blocks and a shorter last one, and whether the batch is shared out among cores.

    cycles: predicted on all cores.
    """

    whole: Block
    last: Block | None
    parallel: bool
    cycles: float


@lru_cache(maxsize=256)
def plan(chain: Chain, target: Target) -> Blocks | None:
    """The best decisions; None where the buffers of a block do not fit a thread's stack."""
    found = ranked(chain, target, 1)
    return found[0] if found else None


def ranked(chain: Chain, target: Target, count: int) -> list[Blocks]:
    """Up to `count` decisions, the best first, that differ in the rows of a block."""
    even = (n for n in range(_ROWS[0], min(chain.rows, _ROWS[-1]) + 1) if chain.rows % n == 0)
    sizes = sorted({*even, *(min(chain.rows, n) for n in _ROWS)})
    entries = [found for rows in sizes if (found := _score(chain, rows, target)) is not None]
    return sorted(entries, key=_key)[:count]


def _key(blocks: Blocks) -> tuple[float, int]:
    """What is little faster and takes much more code is not worth it."""
    return float(f"{blocks.cycles * (1.0 if blocks.last is None else _UNEVEN):.3g}"), -blocks.whole.rows


def separate(chain: Chain, target: Target) -> float:
    """Cycles on all cores where each product, the reductions and each computed operand are a kernel of their own."""
    cores = target.cores if target.threads else 1
    products = sum(choose(_shape(chain, chain.rows, chain.batch, k), target).cycles for k in (0, 1))
    left, right, values = chain.elements
    scores = chain.batch * chain.rows * chain.middle * chain.bytes
    moved = 4 * scores * cache_rate(2 * scores, target)
    for elements in (left * chain.rows, right, values):
        size = chain.batch * elements * chain.bytes
        moved += 2 * size * cache_rate(2 * size, target) + chain.batch * _COPY_CYCLES * elements / chain.lanes
    forks = 3 + sum(chain.made)
    alone = (chain.batch * chain.rows * _between(chain) + moved) / cores + (forks * target.fork_cycles) * (cores > 1)
    return products + alone


def _between(chain: Chain) -> float:
    """Cycles of the reductions of a row."""
    return _ROW_CYCLES + _VECTOR_CYCLES * -(-chain.middle // chain.lanes)


def _score(chain: Chain, rows: int, target: Target) -> Blocks | None:
    left, right, values = chain.elements
    count, rest = divmod(chain.rows, rows)
    if (right + values + (rows + rest) * (2 * chain.middle + left)) * chain.bytes > _STACK:
        return None
    whole = _block(chain, rows, target)
    last = _block(chain, rest, target) if rest else None
    total = whole.cycles * count + (last.cycles if last else 0.0) + _COPY_CYCLES * (right + values) / chain.lanes
    total *= chain.batch
    cores = target.cores if target.threads else 1
    parallel = cores > 1 and chain.batch > 1 and total > 4 * target.fork_cycles
    if parallel:
        total = total * -(-chain.batch // cores) / chain.batch + target.fork_cycles
    return Blocks(whole, last, parallel, total)


def _block(chain: Chain, rows: int, target: Target) -> Block:
    """The best tiles of so many rows, on one core."""
    one = replace(target, cores=1)
    first, second = (_tile(chain, rows, k, one) for k in (0, 1))
    scores = rows * chain.middle * chain.bytes
    between = rows * _between(chain) + 4 * scores * cache_rate(scores, target)
    copies = _COPY_CYCLES * chain.elements[0] * rows / chain.lanes
    return Block(rows, first, second, first.cycles + second.cycles + between + copies)


def _tile(chain: Chain, rows: int, second: int, target: Target) -> Tile:
    """The best tile of the first or the second product of a block."""
    shape = _shape(chain, rows, 1, second)
    tile = choose(shape, target)
    apart = not chain.made[1 + second] and (shape.columns or 0) * chain.bytes >= FAR
    return replace(tile, parallel="none", cycles=tile.cycles * (scattered(tile.vectors) if apart else 1.0))


def _shape(chain: Chain, rows: int, outer: int, second: int) -> Shape:
    """The first or the second product of some rows; whole tiles in blocks of them."""
    return Shape(
        rows=(rows,),
        columns=chain.columns if second else chain.middle,
        reduce=chain.middle if second else chain.inner,
        outer=outer,
        lanes=chain.lanes,
        broadcast=True,
        packed=False,
        bytes=chain.bytes,
        whole=(rows < chain.rows, False, False),
    )
