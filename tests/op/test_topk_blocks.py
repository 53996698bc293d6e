"""The k best of long rows: blocks that have nothing for the list are left out, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import build, op, relay
from warpbeam.ir import dtype as dt
from warpbeam.op.sort_rows import BLOCK
from warpbeam.relay.types import TensorType
from warpbeam.target import get
from warpbeam.tir import interp
from warpbeam.tir.expr import SizeVar
from warpbeam.tir.transform import lower

NAN, INF = np.nan, np.inf


def attributes(k: int, ascending: bool, **more: Any) -> Any:
    return op.get("topk").attrs({"k": k, "is_ascend": ascending, "dtype": "int64", **more})


def compiled(x: np.ndarray, k: int, ascending: bool, **more: Any) -> list[np.ndarray]:
    var = relay.var("x", shape=x.shape, dtype=dt.from_numpy(x.dtype))
    body = op.get("topk")(var, k=k, is_ascend=ascending, dtype="int64", **more)
    model = warpbeam.compile(relay.IRModule.from_expr(relay.Function([var], body)), cache=False)
    return [np.asarray(v) for v in model.run({"x": x}).values()]


def wanted(x: np.ndarray, k: int, ascending: bool, axis: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """By a stable sort of the rows: NaN after all numbers, or before them, equal values by index."""
    rows = np.moveaxis(x, axis, -1)
    order = np.empty((*rows.shape[:-1], k), np.int64)
    for at in np.ndindex(*rows.shape[:-1]):
        row = rows[at].astype(np.float64 if rows.dtype.kind == "f" else object)
        last = [v != v if ascending else v == v for v in row]
        key = [0 if v != v else v if ascending else -v for v in row]
        order[at] = sorted(range(len(row)), key=lambda i, n=last, v=key: (n[i], v[i]))[:k]  # type: ignore[misc]
    order = np.moveaxis(order, -1, axis)
    return np.take_along_axis(x, order, axis), order


def check(found: Any, x: np.ndarray, k: int, ascending: bool, axis: int = -1) -> None:
    for got, want in zip(found, wanted(x, k, ascending, axis), strict=True):
        np.testing.assert_array_equal(got, want)


def rows(kind: str, n: int, dtype: str = "float32") -> np.ndarray:
    rng = np.random.default_rng(n)
    x = rng.standard_normal((3, n)) * 50
    if kind == "ties":
        x = rng.integers(-3, 4, (3, n))
    elif kind == "rising":
        x = np.sort(x, 1)
    elif kind == "falling":
        x = -np.sort(-x, 1)
    elif kind == "equal":
        x = np.zeros((3, n))
    elif kind == "special":
        x[:, rng.permutation(n)[: n // 8]] = NAN
        x[:, rng.permutation(n)[: n // 8]] = INF
        x[:, rng.permutation(n)[: n // 8]] = -INF
        x[1, : n // 2] = NAN
        x[2] = NAN
        x[2, n - 2] = 1.0  # the only number of its row, in the last block
    return x.astype(dtype)


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("kind", ["random", "ties", "rising", "falling", "equal", "special"])
@pytest.mark.parametrize(
    ("n", "k"),
    [
        (8 * BLOCK + 5, 7),
        (5 * BLOCK, 50),
        (5 * BLOCK - 1, 1),
        (BLOCK + 1, 3),
        (9, 9),
        (30 * BLOCK + 7, 70),
        (9 * BLOCK, 100),
    ],
)
def test_order(kind: str, n: int, k: int, ascending: bool) -> None:
    x = rows(kind, n)
    check(compiled(x, k, ascending), x, k, ascending)


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"]
)
def test_types(dtype: str, ascending: bool) -> None:
    x = np.abs(rows("random", 6 * BLOCK + 3)).astype(dtype)
    if dtype[0] != "f":
        x[:, 5 * BLOCK], x[:, 2] = np.iinfo(dtype).max, np.iinfo(dtype).min
    check(compiled(x, 5, ascending), x, 5, ascending)
    check(compiled(x, 90, ascending), x, 90, ascending)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "bool"])
def test_types_of_few_bits(dtype: str) -> None:
    x = (rows("ties", 5 * BLOCK) != 0 if dtype == "bool" else rows("random", 5 * BLOCK) / 8).astype(dt.to_numpy(dtype))
    values, places = compiled(x, 6, False)
    exact = x.astype(np.float32)
    np.testing.assert_array_equal(places, wanted(exact, 6, False)[1])
    np.testing.assert_array_equal(values.astype(np.float32), wanted(exact, 6, False)[0])


@pytest.mark.parametrize("ascending", [False, True])
def test_open_sizes(ascending: bool) -> None:
    var = relay.var("x", shape=(SizeVar("b"), SizeVar("n")), dtype="float32")
    body = op.get("topk")(var, k=5, is_ascend=ascending, dtype="int64")
    model = warpbeam.compile(relay.IRModule.from_expr(relay.Function([var], body)), cache=False)
    for n in (5, BLOCK - 1, BLOCK, BLOCK + 1, 7 * BLOCK + 3):
        for kind in ("random", "ties", "falling"):
            x = rows(kind, n)
            check(model.run({"x": x}).values(), x, 5, ascending)


def test_none_and_all_of_a_row() -> None:
    x = rows("ties", 4 * BLOCK)
    assert [v.shape for v in compiled(x, 0, False)] == [(3, 0), (3, 0)]
    check(compiled(x, 4 * BLOCK, False), x, 4 * BLOCK, False)
    short = rows("ties", 2 * BLOCK)
    check(compiled(short, 2 * BLOCK, True), short, 2 * BLOCK, True)


@pytest.mark.parametrize("k", [6, 66, 110])
def test_other_axes(k: int) -> None:
    x = np.random.default_rng(1).integers(0, 40, (17 * BLOCK if k == 66 else 4 * BLOCK, 3)).astype(np.float32)
    check(compiled(x, k, False, axis=0), x, k, False, 0)


def test_many_of_an_open_row() -> None:
    var = relay.var("x", shape=(3, SizeVar("n")), dtype="float32")
    body = op.get("topk")(var, k=80, dtype="int64")
    model = warpbeam.compile(relay.IRModule.from_expr(relay.Function([var], body)), cache=False)
    for n in (80, 81, 80 + BLOCK, 1000):
        for kind in ("random", "ties", "special", "rising"):
            x = rows(kind, n)
            check(model.run({"x": x}).values(), x, 80, False)
    with pytest.raises(warpbeam.WarpbeamError, match="fewer than k"):
        model.run({"x": rows("random", 79)})


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("name", [None, "generic-x86-64-v3", "generic-aarch64", "wasm32", "generic-riscv64", "c"])
def test_interpreted_for_other_machines(name: str | None, ascending: bool) -> None:
    x = rows("special", 4 * BLOCK + 9)
    attrs = attributes(6, ascending)
    types = [TensorType(x.shape, "float32")]
    o = op.get("topk")
    func = o.compute_prim(attrs, types, o.infer(types, attrs))
    found = [np.zeros((3, 6), np.float32), np.zeros((3, 6), np.int64)]
    interp.run(func if name is None else lower(func, get(name)), x, *found)
    check(found, x, 6, ascending)


def test_c_agrees() -> None:
    x = rows("special", 4 * BLOCK + 9)
    o, attrs, types = op.get("topk"), attributes(6, False), [TensorType(x.shape, "float32")]
    found = [np.zeros((3, 6), np.float32), np.zeros((3, 6), np.int64)]
    build(o.compute_prim(attrs, types, o.infer(types, attrs)), target="c")(x, *found)
    check(found, x, 6, False)


def test_only_long_rows_are_taken_in_blocks() -> None:
    o, attrs = op.get("topk"), attributes(3, False)

    def in_vectors(shape: Any, **more: Any) -> bool:
        types = [TensorType(shape, "float32")]
        chosen = o.attrs({**dict(attrs), **more})
        return "vectorized" in str(o.compute_prim(chosen, types, o.infer(types, chosen)))

    assert in_vectors((2, 1000)) and not in_vectors((2, BLOCK)) and not in_vectors((1000, 2), axis=0)
