"""Analytic prior for matrix products that follow each other as one kernel, with row reductions or elementwise work
between them (attention, perceptrons), and for products whose rows are computed on the way in.

A block of rows passes all products while the values between them stay in buffers. What is joined saves the way of these
values through memory; what it costs is that each block reads all right operands again, and that buffers live on a
thread's stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from warpbeam.cost.tile_prior import EXPOSED, FAR, MOVED_RATE, STACK, Shape, Tile, cache_rate, choose, scattered
from warpbeam.target import Target

_ROWS = (8, 16, 32, 64)  # of a block
_UNEVEN = 1.02  # a shorter last block is code of its own
_SURE = 0.95  # of the time apart at most: predictions are no better than that
COPY_CYCLES = 3.0  # to fetch a vector of an operand from where it lies and put it in a buffer
_ROW_CYCLES = 60.0  # to begin and end the reductions of a row
_VECTOR_CYCLES = 24.0  # of the reductions of a row, for each vector of it


@dataclass(frozen=True, slots=True)
class Product:
    """Rows of `inner` times inner x columns. made: whether the right operand is computed into a buffer. shared: whether
    it is the same for all of the batch. reduced: whether reductions of the result's rows follow. moved: see `Chain`.
    """

    inner: int
    columns: int
    made: bool
    shared: bool
    reduced: bool
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """Products that follow each other, of a batch of so many rows each. made: whether rows of the first are computed
    into a buffer; moved: whether they come from elements that lie in another order; row_bytes: between these, where the
    first product reads them in place.
    """

    batch: int
    rows: int
    made: bool
    products: tuple[Product, ...]
    lanes: int
    bytes: int = 4
    moved: bool = False
    row_bytes: int = 0

    @property
    def left(self) -> int:
        """Elements of a row that is made."""
        return self.products[0].inner * self.made

    @property
    def rights(self) -> int:
        """Elements of the right operands that are made, for one of the batch."""
        return sum(p.inner * p.columns for p in self.products if p.made)

    @property
    def between(self) -> Iterator[tuple[int, bool]]:
        """Elements of a row between two products, and whether it is reduced."""
        return ((p.columns, p.reduced) for p in self.products[:-1])


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows, with the tiles of all products. cycles: of all of it, on one core."""

    rows: int
    tiles: tuple[Tile, ...]
    cycles: float


@dataclass(frozen=True, slots=True)
class Blocks:
    """Decisions: whole blocks and a shorter last one, and what is shared out among cores: "batch", "rows" or "none".

    cycles: predicted on all cores.
    """

    whole: Block
    last: Block | None
    parallel: str
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


def pays(chain: Chain, target: Target) -> bool | None:
    """Whether one kernel is expected to be faster, by more than predictions err; None where it cannot be."""
    one = plan(chain, target)
    return None if one is None else one.cycles <= _SURE * separate(chain, target)


def separate(chain: Chain, target: Target) -> float:
    """Cycles on all cores where each product, reductions and computed operand are a kernel of their own."""
    cores = target.cores if target.threads else 1
    products = 0.0
    for p in chain.products:
        rows, outer = (chain.rows * chain.batch, 1) if p.shared else (chain.rows, chain.batch)
        products += choose(replace(_shape(chain, p, rows, outer), packed=p.shared), target).cycles
    rows = chain.batch * chain.rows
    work, moved, forks = 0.0, 0.0, len(chain.products) - 1
    for columns, reduced in chain.between:
        size = rows * columns * chain.bytes
        moved += (2 + 2 * reduced) * size * cache_rate(2 * size, target)
        work += rows * _reductions(chain, columns) * reduced
        forks += reduced
    made = [(p.inner * p.columns, p.moved) for p in chain.products if p.made or p.moved]
    left = chain.products[0].inner * chain.rows * (chain.made or chain.moved)
    for elements, elsewhere in [(left, chain.moved), *made]:
        through = 2 * elements * chain.bytes / MOVED_RATE * elsewhere
        work += chain.batch * max(COPY_CYCLES * elements / chain.lanes, through)
        forks += elements > 0
    return products + (work + EXPOSED * moved) / cores + forks * target.fork_cycles * (cores > 1)


def _reductions(chain: Chain, columns: int) -> float:
    """Cycles of the reductions of a row."""
    return _ROW_CYCLES + _VECTOR_CYCLES * -(-columns // chain.lanes)


def _score(chain: Chain, rows: int, target: Target) -> Blocks | None:
    count, rest = divmod(chain.rows, rows)
    row = chain.left + sum(columns * (1 + reduced) for columns, reduced in chain.between)
    room = STACK if target.l2 else 0  # small machines have small stacks
    if (chain.rights + (rows + rest) * row) * chain.bytes > room:
        return None
    whole = block(chain, rows, target)
    last = block(chain, rest, target) if rest else None
    total = whole.cycles * count + (last.cycles if last else 0.0) + COPY_CYCLES * chain.rights / chain.lanes
    total *= chain.batch
    cores = target.cores if target.threads else 1
    units, parallel = (count, "rows") if chain.batch == 1 and not chain.rights else (chain.batch, "batch")
    if cores == 1 or units == 1 or total <= 4 * target.fork_cycles:
        return Blocks(whole, last, "none", total)
    return Blocks(whole, last, parallel, total * -(-units // cores) / units + target.fork_cycles)


def block(chain: Chain, rows: int, target: Target) -> Block:
    """The best tiles of so many rows, on one core."""
    tiles = tuple(_tile(chain, p, rows, replace(target, cores=1)) for p in chain.products)
    total = sum(t.cycles for t in tiles) + COPY_CYCLES * chain.left * rows / chain.lanes
    for columns, reduced in chain.between:
        size = rows * columns * chain.bytes
        total += EXPOSED * (2 + 2 * reduced) * size * cache_rate(size, target)
        total += rows * _reductions(chain, columns) * reduced
    return Block(rows, tiles, total)


def _tile(chain: Chain, product: Product, rows: int, target: Target) -> Tile:
    """The best tile of one of the products of a block."""
    shape = _shape(chain, product, rows, 1)
    tile = choose(replace(shape, row_bytes=chain.row_bytes) if product is chain.products[0] else shape, target)
    apart = not product.made and product.columns * chain.bytes >= FAR
    return replace(tile, parallel="none", cycles=tile.cycles * (scattered(tile.vectors) if apart else 1.0))


def _shape(chain: Chain, product: Product, rows: int, outer: int) -> Shape:
    """One of the products of some rows; whole tiles in blocks of them."""
    return Shape(
        rows=(rows,),
        columns=product.columns,
        reduce=product.inner,
        outer=outer,
        lanes=chain.lanes,
        broadcast=True,
        packed=False,
        bytes=chain.bytes,
        whole=(rows < chain.rows, False, False),
    )
