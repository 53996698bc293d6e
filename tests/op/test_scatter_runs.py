"""Writing at run-time indices: runs of elements are moved in vectors, an index is checked once for each run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import build, op, relay
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.op.index_scatter import REDUCTIONS
from warpbeam.relay.types import TensorType
from warpbeam.target import get
from warpbeam.tir import interp
from warpbeam.tir.expr import SizeVar
from warpbeam.tir.transform import lower


def module(name: str, arrays: Any, shapes: Any = None, after: Any = None, **attrs: Any) -> Any:
    """The operator compiled; `after` is applied to its data first."""
    shapes = shapes or [a.shape for a in arrays]
    args = [relay.var(f"x{i}", shape=s, dtype=dt.from_numpy(a.dtype)) for i, (s, a) in enumerate(zip(shapes, arrays))]
    data = args[0] if after is None else after(args[0])
    body = op.get(name)(data, *args[1:], **attrs)
    return warpbeam.compile(relay.IRModule.from_expr(relay.Function(args, body)), cache=False)


def run(model: Any, arrays: Any) -> np.ndarray:
    (found,) = model.run({f"x{i}": a for i, a in enumerate(arrays)}).values()
    return np.asarray(found)


def operands(data: tuple[int, ...], count: int, updates: int, dtype: str = "float32") -> list[np.ndarray]:
    """Data, index tuples of `count` in the last axis, duplicates and negative ones among them, and updates."""
    rng = np.random.default_rng(len(data))
    tuples = np.stack([rng.integers(-n, n, updates) for n in data[:count]], 1)
    return [
        rng.integers(0, 9, data).astype(dtype),
        tuples.astype(np.int64),
        rng.integers(0, 9, (updates, *data[count:])).astype(dtype),
    ]


def wanted(kind: str, x: np.ndarray, tuples: np.ndarray, updates: np.ndarray) -> np.ndarray:
    out = x.copy()
    fold = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}.get(kind, lambda old, new: new)
    for key, value in zip(tuples, updates, strict=True):
        out[tuple(key)] = fold(out[tuple(key)], value)
    return out


@pytest.mark.parametrize("kind", REDUCTIONS[:5])
@pytest.mark.parametrize(
    ("data", "count"),
    [((40, 64), 1), ((40, 21), 1), ((6, 5, 1), 1), ((5, 4, 33), 2), ((9, 3, 18), 1), ((70,), 1), ((6, 0), 1)],
)
def test_slices(data: tuple[int, ...], count: int, kind: str) -> None:
    arrays = operands(data, count, 15)
    found = run(module("scatter_nd", arrays, mode=kind, index_last=True), arrays)
    np.testing.assert_array_equal(found, wanted(kind, *arrays))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "int8", "int64", "bool", "float64"])
def test_types(dtype: str) -> None:
    arrays = operands((12, 70), 1, 9)
    arrays = [arrays[0].astype(dt.to_numpy(dtype)), arrays[1], arrays[2].astype(dt.to_numpy(dtype))]
    found = run(module("scatter_nd", arrays, index_last=True), arrays)
    np.testing.assert_array_equal(found.astype(np.float64), wanted("update", *arrays).astype(np.float64))


def test_open_sizes() -> None:
    arrays = operands((10, 37), 1, 6)
    m, n, k = (SizeVar(name) for name in "mnk")
    model = module("scatter_nd", arrays, [(m, n), (k, 1), (k, n)], index_last=True)
    for data, updates in (((10, 37), 6), ((3, 5), 2), ((7, 16), 1), ((4, 48), 9)):
        arrays = operands(data, 1, updates)
        np.testing.assert_array_equal(run(model, arrays), wanted("update", *arrays))


def test_index_outside() -> None:
    arrays = operands((10, 40), 1, 6)
    model = module("scatter_nd", arrays, index_last=True)
    arrays[1][4] = 10
    with pytest.raises(WarpbeamError, match="an index of scatter_nd is outside the data"):
        run(model, arrays)


def test_data_of_another_operator() -> None:
    """Its memory may be written over: then nothing is copied."""
    arrays = operands((30, 37), 1, 6)
    after = lambda x: op.get("add")(x, x)  # noqa: E731
    found = run(module("scatter_nd", arrays, after=after, index_last=True), arrays)
    np.testing.assert_array_equal(found, wanted("update", arrays[0] * 2, *arrays[1:]))


@pytest.mark.parametrize("name", [None, "generic-x86-64-v3", "generic-aarch64", "wasm32", "generic-riscv64", "c"])
def test_interpreted_for_other_machines(name: str | None) -> None:
    arrays = operands((9, 37), 1, 6)
    o = op.get("scatter_nd")
    attrs = o.attrs({"mode": "add", "index_last": True})
    types = [TensorType(a.shape, dt.from_numpy(a.dtype)) for a in arrays]
    func = o.compute_prim(attrs, types, o.infer(types, attrs))
    found = np.zeros_like(arrays[0])
    interp.run(func if name is None else lower(func, get(name)), *arrays, found)
    np.testing.assert_array_equal(found, wanted("add", *arrays))
    if name == "c":
        found[...] = 0
        build(func, target="c")(*arrays, found)
        np.testing.assert_array_equal(found, wanted("add", *arrays))


@pytest.mark.parametrize("circular", [False, True])
def test_rows_of_a_cache(circular: bool) -> None:
    rng = np.random.default_rng(0)
    past, update = (rng.standard_normal((2, 3, n, 40)).astype("f") for n in (8, 2))
    at = np.array([5, 7 if circular else 0])
    arrays = [past, update, at]
    found = run(module("tensor_scatter", arrays, axis=2, circular=circular), arrays)
    want = past.copy()
    for b in range(2):
        for n in range(2):
            want[b, :, (at[b] + n) % 8] = update[b, :, n]
    np.testing.assert_array_equal(found, want)


def test_index_is_checked_once_for_a_slice() -> None:
    types = [TensorType((10, 64), "float32"), TensorType((3, 1), "int64"), TensorType((3, 64), "float32")]
    o = op.get("scatter_nd")
    attrs = o.attrs({"index_last": True})
    lines = str(lower(o.compute_prim(attrs, types, o.infer(types, attrs)), get("generic-x86-64-v3"))).splitlines()
    (check,) = [k for k, line in enumerate(lines) if "assert" in line]
    assert "for" in lines[check + 1] and "ramp" in lines[check + 2]
