"""What the prior of register tiles decides, where there is one right answer."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from warpbeam.cost.tile_prior import Shape, Tile, choose, ladder, shorter, step
from warpbeam.target import get


def tile(columns: int, rows: tuple[int, ...], reduce: int, cores: int) -> Tile:
    shape = Shape(rows=rows, columns=columns, reduce=reduce, outer=1, lanes=16, broadcast=True, packed=False)
    return choose(shape, replace(get("generic-x86-64-v4"), cores=cores))


@pytest.mark.parametrize(("columns", "lanes"), [(4, 4), (5, 8), (8, 8), (9, 16), (16, 16), (20, 16)])
def test_vectors_are_no_wider_than_the_columns_need(columns: int, lanes: int) -> None:
    assert tile(columns, (64,), 64, 1).lanes == lanes


@pytest.mark.parametrize("rows", [8, 16, 24])
def test_a_slow_instruction_has_as_many_sums_as_it_takes_to_be_busy(rows: int) -> None:
    """Six cycles from one sum to the next and two sums a cycle: of four rows, two vectors are too few."""
    shape = Shape(rows=(rows,), columns=96, reduce=256, outer=1, lanes=16, broadcast=True, packed=True, latency=6)
    machine = replace(get("generic-x86-64-v4"), cores=1, fma_rate=2.0)
    assert step(4, 2, shape, machine) >= 6.0 > step(4, 2, replace(shape, latency=4), machine)
    found = choose(shape, machine)
    assert rows % found.rows[0] == 0 and found.rows[0] * found.vectors >= 12, found


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


@pytest.mark.parametrize("height", [1, 2, 7, 8, 12, 14, 16])
def test_an_unknown_number_of_rows_is_cut_into_full_tiles_and_few_others(height):
    found = shorter(height)
    assert found[0] == height and found[-1] == 1
    assert all(a > b for a, b in pairwise(found))
    for rows in range(1, height):
        tiles, rest = 0, rows
        for h in found:
            tiles, rest = tiles + rest // h, rest % h
        assert rest == 0 and tiles <= (1 if rows <= 3 and height >= 8 else 6)
    parts = ladder(100, height)
    assert [h for _, h in parts] == found
    assert sum(n * h for n, h in parts) == pytest.approx(100)


def test_many_rows_that_only_the_run_tells_are_worth_threads():
    """A product with few channels over a large map: what it takes is not judged by a few rows."""
    shape = Shape((None,), 96, 16, 1, 16, True, True, supposed=(8192,))
    target = replace(get("generic-x86-64-v4"), cores=2)
    assert choose(shape, target).parallel == "first"
    assert choose(replace(shape, supposed=(16,)), target).parallel == "none"


@pytest.mark.parametrize(
    ("rows", "reduce", "columns", "shared"),
    [(3136, 64, 256, "rows"), (784, 128, 512, "rows"), (49, 2048, 512, "columns"), (128, 768, 3072, "columns")],
)
def test_cores_share_what_leaves_them_the_least_to_fetch_from_each_other(rows, reduce, columns, shared):
    """Long maps of few channels: each core takes rows, and all weights. Few rows and many weights: columns."""
    shape = Shape(rows=(rows,), columns=columns, reduce=reduce, outer=1, lanes=16, broadcast=True, packed=True,
                  row_bytes=4 * reduce)  # fmt: skip
    found = choose(shape, replace(get("generic-x86-64-v4"), cores=2))
    assert (found.parallel, found.columns_outer) == ("first", shared == "columns")


@pytest.mark.parametrize(
    ("columns", "stride", "rows", "wide"),
    [
        (1024, 4096, (), True),
        (3072, 12288, (), True),
        (1024, 4096, (1,), True),
        (1024, 4160, (), False),  # rows begin at different places
        (1024, 4096, (2,), False),
        (1024, 0, (), False),  # a constant, laid out as is best
        (64, 4096, (), False),  # all of it is near
    ],
)
def test_a_row_meets_crowded_rows_in_long_pieces(columns: int, stride: int, rows: tuple[int, ...], wide: bool) -> None:
    """Each visit of such a row takes its time, of however few lines."""
    shape = Shape(
        rows=rows, columns=columns, reduce=1024, outer=1, lanes=16, broadcast=True, packed=False, stride=stride
    )
    machine = replace(get("generic-x86-64-v4"), cores=1, l2=1 << 20)
    assert (choose(shape, machine).vectors > 6) == wide


@pytest.mark.parametrize("row_bytes", [4096, 12288, 4000])
def test_no_more_crowded_rows_than_a_set_has_ways(row_bytes: int) -> None:
    """A tile of one vector uses each element of the lhs once: it has to be near."""
    shape = Shape((1024,), 16, 1024, 1, 16, broadcast=True, packed=False, row_bytes=row_bytes)
    machine = replace(get("generic-x86-64-v4"), cores=1, l1=48 << 10, l2=1 << 20)
    assert (choose(shape, machine).rows[0] <= 12) == (row_bytes % 4096 == 0)


@pytest.mark.parametrize("rows,columns,reduce", [((7, 7), 512, 4608), ((14, 14), 1024, 256), ((196,), 256, 1024)])
def test_units_that_take_a_vector_in_two_halves_load_it_so(rows: tuple[int, ...], columns: int, reduce: int) -> None:
    """A tile of one vector loads once for each product: with half as many products per cycle it is no better."""
    shape = Shape(rows=rows, columns=columns, reduce=reduce, outer=1, lanes=16, broadcast=True, packed=True)
    for rate in (1.0, 2.0):
        assert choose(shape, replace(get("generic-x86-64-v4"), cores=2, fma_rate=rate)).vectors >= 2


def test_rows_of_both_axes_that_share_one_place_of_the_first_cache() -> None:
    """A strided map of 14 x 14 x 512: every element of a tile lies a multiple of 4096 bytes from the others."""
    shape = Shape(rows=(14, 14), columns=1024, reduce=512, outer=1, lanes=16, broadcast=True, packed=True,
                  row_bytes=4096, outer_bytes=28 * 4096)  # fmt: skip
    machine = replace(get("generic-x86-64-v4"), cores=1, fma_rate=1.0)
    few, many = (choose(shape, replace(machine, l1=ways * 4096)) for ways in (8, 16))
    assert few.rows[0] * few.rows[1] <= 10 and few.vectors > 1, few
    assert many.rows[0] * many.rows[1] > 10, many
    apart = choose(replace(shape, row_bytes=4096 + 512, outer_bytes=64), replace(machine, l1=8 * 4096))
    assert apart.rows[0] * apart.rows[1] > 10, apart
