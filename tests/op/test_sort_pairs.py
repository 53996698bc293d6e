"""Rows put in order digit by digit: values of every type, equal ones by index, NaN after all numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import op, relay
from warpbeam.ir import dtype as dt
from warpbeam.relay.types import TensorType
from warpbeam.tir import interp
from warpbeam.tir.expr import SizeVar

TYPES = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"]


def values(kind: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(shape[-1])
    x = rng.standard_normal(shape) * 100
    if dtype[0] not in "fb":
        info = np.iinfo(dtype)
        x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)  # type: ignore[assignment]
        if kind == "few":
            x = rng.integers(0, 5, shape) + info.max // 2
        elif kind == "special":
            x.reshape(-1)[::3], x.reshape(-1)[1::3] = info.min, info.max
    elif kind == "few":
        x = rng.integers(-2, 3, shape) * np.where(rng.random(shape) < 0.5, 1.0, -1.0)  # zeros of both signs
    elif kind == "special":
        x.reshape(-1)[::3], x.reshape(-1)[1::5], x.reshape(-1)[2::7] = np.nan, np.inf, -np.inf
        x.reshape(-1)[1::9] = -np.nan
    return x.astype(dt.to_numpy(dtype))


def order_of(x: np.ndarray, axis: int, ascending: bool) -> np.ndarray:
    rows = np.moveaxis(x, axis, -1)
    out = np.empty(rows.shape, np.int64)
    for at in np.ndindex(*rows.shape[:-1]):
        row = [float(v) if x.dtype.kind not in "iu" else int(v) for v in rows[at]]
        key = [((v != v) == ascending, 0 if v != v else v if ascending else -v) for v in row]
        out[at] = sorted(range(len(row)), key=lambda i, k=key: k[i])  # type: ignore[misc]
    return np.moveaxis(out, -1, axis)


def compiled(name: str, shape: Any, kind: str, **attrs: Any) -> Any:
    var = relay.var("x", shape=shape, dtype=kind)
    return warpbeam.compile(relay.IRModule.from_expr(relay.Function([var], op.get(name)(var, **attrs))), cache=False)


def result(module: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(next(iter(module.run({"x": x}).values())))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("ascending", [False, True])
def test_types(dtype: str, ascending: bool) -> None:
    module = compiled("argsort", (2, 200), dtype, is_ascend=ascending, dtype="int64")
    for kind in ("random", "few", "special"):
        x = values(kind, (2, 200), dtype)
        np.testing.assert_array_equal(result(module, x), order_of(x, 1, ascending))


@pytest.mark.parametrize(("shape", "axis"), [((40,), 0), ((3, 1), 1), ((30, 4), 0), ((2, 60, 3), 1), ((5, 24), 1)])
@pytest.mark.parametrize("ascending", [False, True])
def test_axes(shape: tuple[int, ...], axis: int, ascending: bool) -> None:
    x = values("special", shape, "float32")
    order = order_of(x, axis, ascending)
    places = compiled("argsort", shape, "float32", axis=axis, is_ascend=ascending, dtype="int32")
    np.testing.assert_array_equal(result(places, x), order)
    sorted_values = compiled("sort", shape, "float32", axis=axis, is_ascend=ascending)
    np.testing.assert_array_equal(result(sorted_values, x), np.take_along_axis(x, order, axis))


def test_open_sizes_and_any_number_of_threads() -> None:
    module = compiled("argsort", (SizeVar("b"), SizeVar("n")), "float32", dtype="int64")
    for shape in ((1, 1), (7, 23), (5, 24), (3, 25), (4, 3000)):
        x = values("few", shape, "float32")
        for threads in (1, 2):
            module.num_threads = threads
            np.testing.assert_array_equal(result(module, x), order_of(x, 1, True))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int64", "int8", "float16"])
@pytest.mark.parametrize("shape", [(1,), (20,), (500,), (300, 3), (40, 2, 2)])
def test_distinct_entries(shape: tuple[int, ...], dtype: str, ordered: bool) -> None:
    o = op.get("unique_places")
    var = relay.var("x", shape=shape, dtype=dtype)
    body = o(var, sorted=ordered)
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([var], body)), cache=False)
    for kind in ("few", "random"):
        x = values(kind, shape, dtype) + np.zeros(1, dt.to_numpy(dtype))  # no zeros of two signs
        for got, want in zip(module.run({"x": x}).values(), o.numpy({"sorted": ordered}, x), strict=True):
            np.testing.assert_array_equal(np.asarray(got), want)


@pytest.mark.parametrize("n", [10, 60])
def test_interpreted(n: int) -> None:
    o, x = op.get("argsort"), values("special", (2, n), "float32")
    attrs, types = o.attrs({"dtype": "int64"}), [TensorType((2, n), "float32")]
    found = np.zeros((2, n), np.int64)
    interp.run(o.compute_prim(attrs, types, o.infer(types, attrs)), x, found)
    np.testing.assert_array_equal(found, order_of(x, 1, True))
