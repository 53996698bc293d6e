"""Vectors from few runs of memory: whole loads and shuffles, over the ends of rows too; places compared as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cg_native import build

from warpbeam.codegen.llvm import print_kernel
from warpbeam.ir import dtype as dt
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir import expr as e
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import PrimFunc

WIDE = "generic-x86-64-v4"
DTYPES = ["uint8", "int8", "bool", "float16", "float32", "int64", "float64"]


def values(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return (
        np.random.default_rng(len(shape)).integers(0, 2 if dtype == "bool" else 100, shape).astype(dt.to_numpy(dtype))
    )


def lowered(ins: list[Any], out: Any, target: str = WIDE) -> PrimFunc:
    found = schedule(ins, [out], get(target)).lowered
    assert found is not None
    return found


def agrees(func: PrimFunc, given: list[Any], want: np.ndarray) -> bool:
    """Whether the results are those wanted, interpreted and as machine code for this processor."""
    same = []
    for call in (lambda *x: run(func, *x), build(func)):
        out = np.full(tuple(int(d) for d in func.buffers[len(given)].shape), 77).astype(want.dtype)
        call(*(g.reshape(tuple(int(d) for d in b.shape)) for g, b in zip(given, func.buffers, strict=False)), out)
        same.append(np.array_equal(out.reshape(want.shape), want))
    return all(same)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 200), (1, 2, 64), (2, 4, 37), (3, 5, 129), (1, 7, 300), (2, 3, 1)])
def test_planes_and_channels(dtype: str, shape: tuple[int, int, int]) -> None:
    """(n, few, many) to (n, many, few) and back."""
    n, few, many = shape
    a = values(shape, dtype)
    x = te.placeholder(shape, dtype, "x")
    there = te.compute((n, many, few), lambda i, j, k: x[i, k, j], name="y")
    assert agrees(lowered([x], there, "native"), [a], a.transpose(0, 2, 1))
    z = te.placeholder((n, many, few), dtype, "z")
    back = te.compute(shape, lambda i, j, k: z[i, k, j], name="y")
    assert agrees(lowered([z], back, "native"), [a.transpose(0, 2, 1).copy()], a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("block", "width"), [(2, 40), (2, 7), (3, 21), (4, 64)])
def test_blocks_of_depth(dtype: str, block: int, width: int) -> None:
    a = values((block, 5, width), dtype)
    x = te.placeholder(a.shape, dtype, "x")
    y = te.compute((5, width * block), lambda i, j: x[j % block, i, j // block], name="y")
    assert agrees(lowered([x], y, "native"), [a], a.transpose(1, 2, 0).reshape(5, -1))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
def test_few_columns_with_an_operand_of_their_own(dtype: str) -> None:
    """What is added to each channel, and to each pixel."""
    for few in (2, 3, 5, 7):
        a, b, c = values((67, few), dtype), values((few,), dtype), values((67, 1), dtype)
        x, y, z = (te.placeholder(v.shape, dtype, n) for v, n in zip((a, b, c), "abc", strict=True))
        out = te.compute((67, few), lambda i, j, x=x, y=y, z=z: x[i, j] + y[j] + z[i, 0], name="y")
        assert agrees(lowered([x, y, z], out, "native"), [a, b, c], a + b + c)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_no_lane_is_loaded_alone(dtype: str) -> None:
    x = te.placeholder((3, 640), dtype, "x")
    there = lowered([x], te.compute((640, 3), lambda i, j: x[j, i], name="y"))
    z = te.placeholder((640, 3), dtype, "z")
    back = lowered([z], te.compute((3, 640), lambda i, j: z[j, i], name="y"))
    for func in (there, back):
        assert "insertelement" not in print_kernel(func, get(WIDE))


def test_what_lies_far_apart_is_loaded_alone() -> None:
    x = te.placeholder((64, 1000), "float32", "x")
    y = te.compute((3, 64), lambda i, j: x[j, i * 300], name="y")
    func = lowered([x], y)
    assert "insertelement" in print_kernel(func, get(WIDE))
    a = values((64, 1000), "float32")
    assert agrees(lowered([x], y, "native"), [a], a[:, ::300][:, :3].T)


COMPARED: dict[str, tuple[Callable[[Any, Any], Any], Callable[..., Any]]] = {
    "lt": (lambda a, b: a < b, np.less),
    "le": (lambda a, b: a <= b, np.less_equal),
    "gt": (lambda a, b: a > b, np.greater),
    "ge": (lambda a, b: a >= b, np.greater_equal),
    "eq": (e.EQ, np.equal),
    "ne": (e.NE, np.not_equal),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", COMPARED)
def test_places_compared_with_a_number(name: str, turned: bool) -> None:
    """Of any size: what is far outside is before all lanes or behind them."""
    k, x = te.placeholder((), "int64", "k"), te.placeholder((2, 200), "uint8", "x")
    test, compare = COMPARED[name]
    y = te.compute(
        (2, 200),
        lambda i, j: e.select(test(k[()], j + i) if turned else test(j + i, k[()]), x[i, j], e.const(0, "uint8")),
        name="y",
    )
    func, a = lowered([k, x], y), values((2, 200), "uint8")
    assert "ssub.sat" in print_kernel(func, get(WIDE))
    native = lowered([k, x], y, "native")
    place = np.arange(200) + np.arange(2)[:, None]
    for number in (-(1 << 62), -1, 0, 1, 63, 64, 127, 128, 199, 200, 300, 1 << 62):
        left, right = (number, place) if turned else (place, number)
        assert agrees(native, [np.array(number, np.int64), a], np.where(compare(left, right), a, 0).astype(np.uint8))
