"""What the prior of register tiles decides, where there is one right answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from warpbeam.cost.tile_prior import Shape, Tile, choose
from warpbeam.target import get


def tile(columns: int, rows: tuple[int, ...], reduce: int, cores: int) -> Tile:
    shape = Shape(rows=rows, columns=columns, reduce=reduce, outer=1, lanes=16, broadcast=True, packed=False)
    return choose(shape, replace(get("generic-x86-64-v4"), cores=cores))


@pytest.mark.parametrize(("columns", "lanes"), [(4, 4), (5, 8), (8, 8), (9, 16), (16, 16), (20, 16)])
def test_vectors_are_no_wider_than_the_columns_need(columns: int, lanes: int) -> None:
    assert tile(columns, (64,), 64, 1).lanes == lanes


@pytest.mark.parametrize("columns", [33, 40, 48])
def test_a_remainder_is_a_part_that_a_core_can_take(columns: int) -> None:
    """Three vectors of a long row on two cores: a tile of two vectors makes two parts, the second shorter."""
    found = tile(columns, (), 200_000, 2)
    assert (found.vectors, found.parallel, found.columns_outer) == (2, "first", True)


@pytest.mark.parametrize("columns", [24, 40, 88])
def test_whole_and_shorter_vectors_are_not_mixed_in_a_tile(columns):
    """Where some of a tile's vectors are short, code generators keep few of its sums in registers."""
    shape = Shape(rows=(784,), columns=columns, reduce=144, outer=1, lanes=16, broadcast=True, packed=True)
    tile = choose(shape, get("generic-x86-64-v4"))
    assert columns % (tile.vectors * tile.lanes) <= tile.lanes
