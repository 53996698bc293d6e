"""What a register tile saves that leaves out taps outside of the map: see `sketch/border`."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import prod

Inside = tuple[tuple[int, int], ...]  # for each tap along an axis: the rows [low, high) that meet the map

BY_ROW, BY_TILE = 1, 2  # for which rows a tap is left out: for those that do not meet the map, or for none or all
MOST_PRODUCTS = 1000  # vector products that a kernel's tiles are written out as: compilers take a while for each
MARGIN = 0.97  # of the steps' own time: what a longer kernel costs; less than this part left out is not worth it
TILES_MARGIN = 0.945  # the same for whole tiles: 0.89 to 1.07 of the time was measured where 0.94 to 0.98 was expected


def static_tiles(inside: Inside, size: int, tile: int) -> list[int]:
    """The tiles along an axis that have rows at the border; none where tiles are one row high, which a test decides."""
    if tile == 1:
        return []
    return [
        k for k in range(-(-size // tile))
        if any(low > k * tile or high < min(size, (k + 1) * tile) for low, high in inside)
    ]  # fmt: skip


@lru_cache(maxsize=4096)
def bodies(inside: Inside, size: int, tile: int) -> int:
    """How often the steps of a tile are there: once for each tap of tiles at the border, once for others."""
    apart = static_tiles(inside, size, tile)
    whole = size // tile - len([k for k in apart if k < size // tile])
    rest = size % tile > 0 and size // tile not in apart
    return len(apart) * len(inside) + (whole > 0) + rest


@lru_cache(maxsize=4096)
def active(inside: Inside, size: int, tile: int) -> Counter[int]:
    """{rows: number of pairs of a tile and a tap with so many rows that meet the map}, without those of none."""
    found: Counter[int] = Counter()
    for first in range(0, size, tile):
        for low, high in inside:
            found[max(0, min(high, first + tile, size) - max(low, first))] += 1
    del found[0]
    return found


@lru_cache(maxsize=4096)
def met(inside: Inside, size: int, tile: int) -> Counter[int]:
    """{rows: number of pairs of a tile of so many rows and a tap with which some of them meet the map}."""
    found: Counter[int] = Counter()
    for first in range(0, size, tile):
        last = min(size, first + tile)
        found[last - first] += sum(low < last and high > max(low, first) for low, high in inside)
    return found


def left(axes: list[tuple[Inside | None, int, int, int]]) -> list[tuple[float, int]]:
    """(number of tiles, their rows) of all steps that are done: a tile counts by the part of its taps. axes: for each
    what is inside, how what is not is left out (0: not at all), size and rows of a tile.
    """
    found: list[tuple[float, int]] = [(1.0, 1)]
    for inside, skips, size, tile in axes:
        if inside is not None and skips:
            steps = (active if skips == BY_ROW else met)(inside, size, tile)
            parts = [(n / len(inside), rows) for rows, n in sorted(steps.items())]
        else:
            parts = [(float(size // tile), tile), *([(1.0, size % tile)] if size % tile else [])]
        found = [(n * m, rows * more) for n, rows in found for m, more in parts if m]
    return found


@lru_cache(maxsize=4096)
def balance(inside: Inside | None, size: int, tile: int, cores: int) -> float:
    """The part of their time that cores are busy which share the tiles along an axis: those at the border, and a last
    shorter one, take less than others. inside: None where nothing is left out.
    """
    loads = [0] * cores
    for first in range(0, size, tile):
        rows = range(first, min(size, first + tile))
        spans = inside or ((0, size),)
        work = sum(max(0, min(high, rows.stop) - max(low, first)) for low, high in spans)
        loads[loads.index(min(loads))] += work
    return sum(loads) / (cores * max(loads)) if any(loads) else 1.0


def share(inside: Inside, size: int) -> float:
    """The part of rows and taps that meet the map."""
    return sum(high - low for low, high in inside) / (size * len(inside))


def written(insides: list[tuple[Inside | None, int, int]]) -> int:
    """How often a tile's steps are there, for each axis with what is inside (None: nothing is left out), size, tile."""
    plain = (1 + (size % tile > 0 and size > tile) for inside, size, tile in insides if inside is None)
    return prod(plain) * prod(bodies(inside, size, tile) for inside, size, tile in insides if inside is not None)
