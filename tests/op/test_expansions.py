"""Operators that become others before anything is scheduled: right, and in vectors."""

from __future__ import annotations

import numpy as np
import pytest

import warpbeam
from warpbeam import relay
from warpbeam.driver.api import compile_with_report

U = 2.0**-24


def _run(body, *values: np.ndarray) -> tuple[np.ndarray, set[str]]:
    given = [relay.var(f"x{k}", shape=v.shape, dtype=str(v.dtype)) for k, v in enumerate(values)]
    mod = relay.IRModule.from_expr(relay.Function(given, body(*given)))
    module, report = compile_with_report(mod, cache=False)
    (got,) = module.run({f"x{k}": v for k, v in enumerate(values)}).values()
    return np.asarray(got), {row["sketch"] for row in report.rows}


@pytest.mark.parametrize(("shape", "axis"), [((2, 12, 9, 11), 1), ((1, 5, 6, 12), 3), ((3, 12, 40), 1)])
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_group_norm(shape: tuple[int, ...], axis: int, groups: int) -> None:
    rng = np.random.default_rng(groups)
    x, gamma, beta = (rng.standard_normal(s).astype(np.float32) for s in (shape, (12,), (12,)))
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
    want = np.moveaxis(rows.reshape(wide.shape) * gamma.reshape(along) + beta.reshape(along), 1, axis)
    count = x.size // shape[0] // groups
    # the mean is off by count roundings of the mean size, the variance by as many of itself; eight more follow
    bound = (count + 8) * U * (near * np.abs(gamma).max() + np.abs(want).max())
    assert np.abs(got - want).max() <= bound


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
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int8"])
def test_places_of_extremes(name: str, axis: tuple[int, ...], last: bool, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (7, 19, 37)).astype(dtype)  # many equal ones
    if dtype.startswith("float"):
        x[rng.random(x.shape) < 0.01] = np.nan
        x[rng.random(x.shape) < 0.01] = np.inf
        x[0, 0] = np.nan
    got, sketches = _run(lambda v: getattr(relay, name)(v, axis=axis, select_last_index=last), x)
    kept = [a for a in range(3) if a not in axis]
    rows = x.transpose(*kept, *axis).reshape(*[x.shape[a] for a in kept], -1)
    find = getattr(np, name)
    want = rows.shape[-1] - 1 - find(rows[..., ::-1], -1) if last else find(rows, -1)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.int64
    assert dtype == "int8" or len(axis) > 1 or "generic" not in sketches


def test_places_over_all_of_infinities() -> None:
    for value in (-np.inf, np.inf):
        x = np.full((3, 40), value, np.float32)
        for name in ("argmax", "argmin"):
            got, _ = _run(lambda v, name=name: getattr(relay, name)(v, axis=(1,)), x)
            np.testing.assert_array_equal(got, [0, 0, 0])


def test_places_in_an_open_row() -> None:
    x = relay.var("x", shape=(2, relay.Any()), dtype="float32")
    mod = relay.IRModule.from_expr(relay.Function([x], relay.argmax(x, axis=(1,))))
    module = warpbeam.compile(mod, cache=False)
    for n in (1, 5, 100):
        v = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
        (got,) = module.run({"x": v}).values()
        np.testing.assert_array_equal(got, v.argmax(1))
