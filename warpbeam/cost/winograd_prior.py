"""Analytic prior for convolutions by transformed planes (Winograd), and what decides between them and the plain sum.

The sums over channels are `planes` matrix products over the same rows (tiles of the result). A block of tiles is
transformed into a buffer, multiplied plane by plane with a chunk of the result's channels, and transformed back:

    tiles outside:     for blocks of tiles: transform; for chunks: multiply, transform back
    columns outside:   transform everything; for chunks: for blocks of tiles: multiply, transform back

The first reads the weights once per block, from the cache that holds them; the second the transformed data once per
chunk. Buffers of a parallel iteration live on its stack, so they must be small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, prod

from warpbeam.cost import tile_prior
from warpbeam.cost.tile_prior import (
    EXPOSED,
    FAR_BYTES_PER_CYCLE,
    FETCHED,
    REMOTE,
    STACK,
    Shape,
    Tile,
    cache_rate,
    choose,
    elapsed,
    step,
)
from warpbeam.target import Target

_PLANE_CYCLES = 2.5  # to transform and move one vector of one plane: 1.5 to 2.5 beside what products are said to take
_MOST_TILES = 64
_UNKNOWN = 4
_BLOCK = range(7, 17)  # tiles across a good block: with 128 channels, 7 and 14 measured 4 to 9 % faster than 2 and 4
_UNEVEN = 1.06  # a chunk that leaves a rest, for as many products: measured 1.04 to 1.07 (48 of 128 channels)
_MOST_VECTORS = 6  # of channels in a chunk


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution in tiles. batch: None is symbolic; rows, columns: tiles of the result. places: maps of each image,
    of which `taps` neighbours are summed together with the channels. bytes: of a number of the products, and of the
    `group` numbers of planes and weights that one step of a product takes. whole: whether a block has all of its rows,
    or columns. kept: results of a tile that stay in a buffer of the block. parts: groups of `inputs` and `outputs`
    channels each, with weights of their own.
    """

    batch: int | None
    rows: int
    columns: int
    inputs: int
    outputs: int
    planes: int
    lanes: int
    bytes: int = 4
    places: int = 1
    taps: int = 1
    group: int = 1
    whole: tuple[bool, ...] = (False, False)
    kept: int = 0
    latency: int = 4
    parts: int = 1

    @property
    def taken(self) -> int:
        """Bytes of a number of planes and weights."""
        return self.bytes // self.group

    @property
    def tiles(self) -> int:
        return (self.batch or _UNKNOWN) * self.parts * self.places * self.rows * self.columns

    @property
    def weights(self) -> int:
        """Bytes of the transformed weights."""
        return self.parts * self.planes * self.taps * self.inputs * self.outputs * self.taken


@dataclass(frozen=True, slots=True)
class Blocks:
    """Decisions: rows x columns of tiles in a block, channels in a chunk, what is outside; the tile of the products.

    cycles: predicted for the whole layer on all cores, weights in memory.
    """

    rows: int
    columns: int
    chunk: int
    columns_outer: bool
    parallel: bool
    tile: Tile
    cycles: float


@lru_cache(maxsize=256)
def plan(layer: Layer, target: Target) -> Blocks | None:
    """The best blocks; None where no block fits the stack, and where no second-level cache holds planes and weights."""
    return min(_scored(layer, target), key=lambda entry: entry[0], default=(None, None))[1]


def ranked(layer: Layer, target: Target, count: int) -> list[Blocks]:
    """Up to `count` decisions, the best first, each materially different from those before it (see `alike`)."""
    entries = sorted(_scored(layer, target), key=lambda entry: entry[0])
    return tile_prior.apart((blocks for _, blocks in entries), alike, count)


def alike(a: Blocks, b: Blocks) -> bool:
    """Whether blocks differ in less than what their times could differ by: same order and parallel loop, like tiles of
    the products, less than twice as many tiles in a block.
    """
    sizes = sorted(x.rows * x.columns for x in (a, b))
    same = (a.columns_outer, a.parallel) == (b.columns_outer, b.parallel)
    return same and tile_prior.alike(a.tile, b.tile) and sizes[1] < 2 * sizes[0]


def _scored(layer: Layer, target: Target) -> list[tuple[tuple[float, int, int], Blocks]]:
    """All legal decisions, each with its key: the least is the best."""
    if not target.l2:
        return []
    cores, alone = target.cores if target.threads else 1, replace(target, cores=1)
    entries = []
    for rows in [layer.rows] if layer.whole[0] else _divisors(layer.rows):
        for columns in _across(layer):
            if rows * columns > _MOST_TILES:
                continue
            for chunk in _chunks(layer):
                tile = _products(layer, rows, columns, chunk, alone)
                if tile.vectors * tile.lanes < chunk < layer.outputs:  # weights are read in the order of memory
                    continue
                rest = layer.columns % columns
                if rest > tile.rows[-1] and rest % tile.rows[-1]:  # as many rows in each tile of the products
                    continue
                for columns_outer in (False, True):
                    found = _score(layer, rows, columns, chunk, columns_outer, tile, cores, target)
                    if found is not None:
                        entries.append(((float(f"{found.cycles:.3g}"), -chunk, rows * columns), found))
    return entries


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _across(layer: Layer) -> list[int]:
    """Tiles of a block along a row: what divides it, and where none of that makes good blocks what leaves a rest.
    Where results stay in a buffer, nothing is left over.
    """
    good = [layer.columns] if layer.whole[1] else _divisors(layer.columns)
    if layer.kept or any(n in _BLOCK for n in good):
        return good
    return [*good, *(n for n in _BLOCK if n < layer.columns)]


def _chunks(layer: Layer) -> list[int]:
    """Whole vectors that leave whole vectors of the channels over, or one shorter vector, or nothing; all channels."""
    step, most = layer.lanes, min(layer.outputs, _MOST_VECTORS * layer.lanes)
    if layer.parts > 1:  # a part's channels are followed by another one's
        return [c for c in range(step, most + 1, step) if layer.outputs % c == 0]
    rests = {c: layer.outputs % c for c in range(step, most + 1, step)}
    good = [c for c, rest in rests.items() if rest < step or rest % step == 0]
    return good if layer.outputs % step == 0 else [*good, layer.outputs]


def _vectors(channels: int, layer: Layer) -> int:
    return -(-channels // layer.lanes)


def _equal_chunks(layer: Layer, chunk: int, tile: Tile, target: Target) -> float:
    """Chunks that take as long as all channels do: what is left over is a tile of as many rows and fewer vectors."""
    whole, rest = divmod(layer.outputs, chunk)
    if not rest:
        return float(whole)
    shape, rows = _shape(layer, 1, 1, chunk), prod(tile.rows)
    ratio = step(rows, _vectors(rest, layer), shape, target) / step(rows, tile.vectors, shape, target)
    return _UNEVEN * (whole + ratio)


def _equal_blocks(layer: Layer, columns: int, chunk: int, tile: Tile, target: Target) -> float:
    """Blocks that take as long as a row of tiles does."""
    whole, rest = divmod(layer.columns, columns)
    few = min(rest, tile.rows[-1])
    if not rest:
        return float(whole)
    shape, more, high = _shape(layer, 1, 1, chunk), tile.rows[-1], prod(tile.rows[:-1])
    ratio = step(high * few, tile.vectors, shape, target) / step(high * more, tile.vectors, shape, target)
    return whole + ratio * (rest / few) / (columns / more)


def _products(layer: Layer, rows: int, columns: int, chunk: int, alone: Target) -> Tile:
    """The register tile of one block's products with one chunk, and its cycles; `alone`: one core of the target."""
    return replace(choose(_shape(layer, rows, columns, chunk), alone), parallel="none")


def _shape(layer: Layer, rows: int, columns: int, chunk: int) -> Shape:
    return Shape(
        rows=(rows, columns),
        columns=chunk,
        reduce=layer.taps * layer.inputs // layer.group,
        outer=layer.planes,
        lanes=layer.lanes,
        broadcast=True,
        packed=True,
        bytes=layer.bytes,
        row_bytes=layer.inputs * layer.taken,
        latency=layer.latency,
        whole=(rows < layer.rows, columns < layer.columns, chunk < layer.outputs),
    )


def _score(
    layer: Layer, rows: int, columns: int, chunk: int, columns_outer: bool, tile: Tile, cores: int, target: Target
) -> Blocks | None:
    """The decisions with their cycles; None where the buffers of one iteration do not fit its stack."""
    block = layer.planes * rows * columns
    taken = block * layer.taps * layer.inputs * layer.taken
    made = (block + layer.kept * rows * columns) * chunk * layer.bytes
    if made + (0 if columns_outer else taken) > STACK or (columns_outer and (layer.batch is None or layer.parts > 1)):
        return None
    chunks = _equal_chunks(layer, chunk, tile, target)
    lines = layer.tiles // (rows * layer.columns)
    blocks = lines * _equal_blocks(layer, columns, chunk, tile, target)
    ends = 1 + (layer.taps - 1) / layer.places  # maps in front and behind
    transforms = ends if columns_outer else layer.taps  # of each map: a block's own for all its taps
    vectors = _vectors(layer.inputs, layer) * transforms + _vectors(layer.outputs, layer)
    moved = layer.tiles * vectors * layer.planes * _PLANE_CYCLES
    whole = round(layer.tiles * ends) * layer.planes * layer.inputs * layer.taken
    again = 0.0  # beyond the weights from the third-level cache, which the products' cycles hold
    if columns_outer:  # what is transformed is written, and read by each chunk
        again = (chunks + 2) * whole * cache_rate(whole, target)
        near = layer.rows * layer.columns * layer.taps * layer.planes * layer.inputs * layer.taken  # until it is again
        again += chunks * (layer.taps - 1) * whole * cache_rate(near, target)
        again += (blocks - 1) * layer.weights * cache_rate(round(layer.weights / chunks), target)
    elif layer.weights > target.l3 // 2:
        again = (blocks - 1) * layer.weights / FAR_BYTES_PER_CYCLE
    total = blocks * chunks * tile.cycles + moved + EXPOSED * again
    whole_rows = layer.columns % columns != 0
    units = ceil(chunks) if columns_outer else lines if whole_rows else round(blocks)
    forks = 2 if columns_outer else 1
    parallel = cores > 1 and units > 1 and total > 4 * target.fork_cycles
    if parallel:
        total = total * -(-units // cores) / units + forks * target.fork_cycles
    if parallel:  # each core reads what all have transformed, or all weights
        total += REMOTE * (whole if columns_outer else layer.weights / layer.parts) * (1.0 - 1.0 / cores)
    busy = cores if parallel else 1
    if columns_outer:
        cycles = elapsed(total, layer.weights, target, busy, exposed=FETCHED)
    elif layer.parts > 1:  # each core has its own, and asks for a plane's while it multiplies the one before
        cycles = elapsed(total, layer.weights, target, busy, blocks / layer.parts, FETCHED)
    else:
        cycles = elapsed(total, layer.weights, target, 1, blocks / busy)
    return Blocks(rows, columns, chunk, columns_outer, parallel, tile, cycles)
