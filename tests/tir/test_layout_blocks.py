"""Packing constants: the transposition of whole and split indices gives what the index map says, element by element."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam.tir.schedule.layout import apply_layout


def place(plain: object, at: tuple[int, ...]) -> int:
    if isinstance(plain, str):
        return at[int(plain[1:])]
    sign, name, block = plain
    value = at[int(name[1:])]
    return value // block if sign == "//" else value % block


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_packed_elements_are_where_the_map_says(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    parts: list[tuple[object, int]] = []
    for axis, extent in enumerate(shape):
        block = data.draw(st.integers(0, 4))
        name = f"i{axis}"
        parts += (
            [(name, extent)] if not block else [(("//", name, block), -(-extent // block)), (("%", name, block), block)]
        )
    order = data.draw(st.permutations(range(len(parts))))
    layout = {"shape": shape, "packed": [parts[k][1] for k in order], "map": tuple(parts[k][0] for k in order)}
    array = np.arange(1, int(np.prod(shape)) + 1, dtype=np.float32).reshape(shape)
    packed = apply_layout(array, layout)
    want = np.zeros(layout["packed"], np.float32)
    for at in itertools.product(*map(range, shape)):
        index = [place(plain, at) for plain in layout["map"]]
        want[tuple(index)] = array[at]
    assert packed.flags.c_contiguous and np.array_equal(packed, want)
