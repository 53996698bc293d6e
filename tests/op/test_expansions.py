"""Operators that become others before anything is scheduled: right, and in vectors."""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import unit

import warpbeam
from warpbeam import op, relay
from warpbeam.driver.api import compile_with_report
from warpbeam.ir.diagnostics import TypeCheckError
from warpbeam.ir.dtype import to_numpy

U = 2.0**-24


def _run(body, *values: np.ndarray) -> tuple[np.ndarray, set[str]]:
    given = [relay.var(f"x{k}", shape=v.shape, dtype=str(v.dtype)) for k, v in enumerate(values)]
    mod = relay.IRModule.from_expr(relay.Function(given, body(*given)))
    module, report = compile_with_report(mod, cache=False)
    (got,) = module.run({f"x{k}": v for k, v in enumerate(values)}).values()
    return np.asarray(got), {row["sketch"] for row in report.rows}


@pytest.mark.parametrize(("shape", "axis"), [((2, 12, 9, 11), 1), ((1, 5, 6, 12), 3), ((3, 12, 40), 1)])
@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_group_norm(shape: tuple[int, ...], axis: int, groups: int, dtype: str) -> None:
    """Half floats are rounded once."""
    rng = np.random.default_rng(groups)
    x, gamma, beta = (rng.standard_normal(s).astype(to_numpy(dtype)) for s in (shape, (12,), (12,)))
    got, sketches = _run(
        lambda x, g, b: relay.nn.group_norm(x, g, b, num_groups=groups, axis=axis, epsilon=1e-3), x, gamma, beta
    )
    assert "generic" not in sketches
    wide = np.moveaxis(x.astype(np.float64), axis, 1)
    rows = wide.reshape(shape[0], groups, -1)
    scale = 1 / np.sqrt(rows.var(-1, keepdims=True) + 1e-3)
    near = np.abs(rows).mean(-1).max() * scale.max()
    rows = (rows - rows.mean(-1, keepdims=True)) * scale
    along = (1, 12) + (1,) * (len(shape) - 2)
    gamma, beta = gamma.astype(np.float64), beta.astype(np.float64)
    want = np.moveaxis(rows.reshape(wide.shape) * gamma.reshape(along) + beta.reshape(along), 1, axis)
    count = x.size // shape[0] // groups
    # the mean is off by count roundings of the mean size, the variance by as many of itself; eight more follow
    bound = (count + 8) * U * (near * np.abs(gamma).max() + np.abs(want).max())
    assert (np.abs(got.astype(np.float64) - want) <= bound + (dtype != "float32") * unit(dtype) * np.abs(want)).all()


@pytest.mark.parametrize(
    ("shape", "reps"), [((3, 5), (2, 4)), ((5,), (3,)), ((2, 3, 7), (1, 1, 3)), ((2, 3), (2, 1, 3)), ((2, 3), (1, 1))]
)
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_tile(shape: tuple[int, ...], reps: tuple[int, ...], dtype: str) -> None:
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    got, _ = _run(lambda v: relay.tile(v, reps=reps), x)
    np.testing.assert_array_equal(got, np.tile(x, reps))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [(0,), (1,), (2,), (1, 2), (0, 2)])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "float16", "bfloat16", "int32", "int8", "uint8", "int16", "uint16", "int64", "uint32"],
)
def test_places_of_extremes(name: str, axis: tuple[int, ...], last: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (7, 19, 37)).astype(to_numpy(dtype))  # many equal ones
    if "float" in dtype:
        x[rng.random(x.shape) < 0.01] = np.nan
        x[rng.random(x.shape) < 0.01] = np.inf
        x[0, 0] = np.nan
    got, sketches = _run(lambda v: getattr(relay, name)(v, axis=axis, select_last_index=last), x)
    kept = [a for a in range(3) if a not in axis]
    rows = x.transpose(*kept, *axis).reshape(*[x.shape[a] for a in kept], -1)
    rows = rows.astype(np.float64) if "float" in dtype else rows
    find = getattr(np, name)
    want = rows.shape[-1] - 1 - find(rows[..., ::-1], -1) if last else find(rows, -1)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.int64
    assert "generic" not in sketches


def test_places_over_all_of_infinities() -> None:
    for value in (-np.inf, np.inf):
        x = np.full((3, 40), value, np.float32)
        for name in ("argmax", "argmin"):
            got, _ = _run(lambda v, name=name: getattr(relay, name)(v, axis=(1,)), x)
            np.testing.assert_array_equal(got, [0, 0, 0])


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int8", "uint16"])
def test_places_of_the_limits_of_integers(dtype: str) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.array([[low] * 40, [high] * 40, [low, high] * 20, [high - 1, high] * 20], dtype)
    for name in ("argmax", "argmin"):
        for v in (x, np.ascontiguousarray(x.T)):
            axis = int(v.shape[1] == 40)
            got, _ = _run(lambda v, name=name, axis=axis: getattr(relay, name)(v, axis=(axis,)), v)
            np.testing.assert_array_equal(got, getattr(v, name)(axis))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_place_in_one_long_row(threads: int, last: bool) -> None:
    x = np.random.default_rng(1).integers(-100, 101, 300_000).astype(np.int8)
    given = relay.var("x", shape=x.shape, dtype="int8")
    body = relay.argmax(given, axis=(0,), select_last_index=last, keepdims=True)
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([given], body)), cache=False)
    module.num_threads = threads
    (got,) = module.run({"x": x}).values()
    want = x.size - 1 - x[::-1].argmax() if last else x.argmax()
    np.testing.assert_array_equal(got, [want])


def test_places_in_an_open_row() -> None:
    x = relay.var("x", shape=(2, relay.Any()), dtype="float32")
    mod = relay.IRModule.from_expr(relay.Function([x], relay.argmax(x, axis=(1,))))
    module = warpbeam.compile(mod, cache=False)
    for n in (1, 5, 100):
        v = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
        (got,) = module.run({"x": v}).values()
        np.testing.assert_array_equal(got, v.argmax(1))


POOLS = [
    (1, (2, 3, 70), {"pool_size": 3, "strides": 2, "padding": 1}),
    (2, (2, 3, 18, 40), {"pool_size": 2, "strides": 2}),
    (2, (1, 3, 9, 37), {"pool_size": (3, 2), "strides": (2, 1), "padding": (1, 0, 0, 1), "ceil_mode": True}),
    (2, (1, 2, 12, 20), {"pool_size": 3, "dilation": 2, "padding": 2, "column_major": True}),
    (3, (1, 2, 5, 6, 33), {"pool_size": 2, "strides": 2, "padding": 1}),
]


@pytest.mark.parametrize(("nd", "shape", "attrs"), POOLS)
@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [(d, "known") for d in ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64")]
    + [("float32", "open"), ("int8", "open")],
)
def test_pool_with_places(nd: int, shape: tuple[int, ...], attrs: dict, dtype: str, sizes: str) -> None:
    """Of equal elements the first counts, of NaNs too; what stands in the border never does."""
    rng = np.random.default_rng(nd)
    x = rng.integers(0, 3, shape).astype(to_numpy(dtype))
    if "float" in dtype:
        low, part = -np.inf, rng.random(shape)
        x[part < 0.1], x[part > 0.95] = np.inf, np.nan
    else:
        low = np.iinfo(dtype).min
    x[..., : shape[-1] // 3] = low
    name = f"nn.max_pool_with_indices{nd}d"
    known = (*shape[:2], *(relay.Any() for _ in range(nd))) if sizes == "open" else shape
    given = relay.var("x", shape=known, dtype=dtype)
    both = relay.Tuple(tuple(getattr(relay.nn, name[3:])(given, **attrs)))
    module, report = compile_with_report(relay.IRModule.from_expr(relay.Function([given], both)), cache=False)
    assert "generic" not in {row["sketch"] for row in report.rows}
    which = op.get(name)
    want = which.numpy(which.attrs(attrs), x)
    for threads in (1, 2):
        module.num_threads = threads
        for a, b in zip(module.run({"x": x}).values(), want, strict=True):
            np.testing.assert_array_equal(np.asarray(a).astype(np.float64), b.astype(np.float64))


def test_places_of_other_than_the_largest_elements() -> None:
    x, best = (relay.var(n, shape=(1, 1, 4), dtype=d) for n, d in (("x", "float32"), ("b", "int32")))
    with pytest.raises(TypeCheckError, match="largest elements are int32 of 3 dimensions, the data float32 of 3"):
        relay.nn.max_pool_places1d(x, best, pool_size=1)
