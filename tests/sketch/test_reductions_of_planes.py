"""Reductions that read each element once, of several axes or of planes of rows: in the order in which memory lies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from warpbeam import relay
from warpbeam.driver.api import compile_with_report
from warpbeam.target import get

U = 2.0**-24
RNG = np.random.default_rng(0)


def planned(body, shape: tuple, dtype: str = "float32", machine: str = "native", cores: int = 2):
    x = relay.var("x", shape=shape, dtype=dtype)
    mod = relay.IRModule.from_expr(relay.Function([x], body(x)))
    module, report = compile_with_report(mod, target=get(machine).replace(cores=cores), cache=False)
    return module, [row["sketch"] for row in report.rows]


@pytest.mark.parametrize(
    ("shape", "axes", "cores", "sketch"),
    [
        ((8, 12, 64), (0, 2), 2, "dots"),
        ((3, 8, 5, 64), (0, 1, 3), 2, "dots"),
        ((8, 12, 20), (0, 2), 2, "tile"),  # hardly a vector of each row
        ((16, 12, 64), (1,), 2, "columns"),
        ((16, 12, 67), (1,), 2, "columns"),
        ((16, 12, 20), (1,), 2, "tile"),  # the rest of a row is too large a part
        ((16, 12, 64), (1,), 16, "tile"),  # cores would be left without work
    ],
)
def test_which(shape: tuple, axes: tuple, cores: int, sketch: str) -> None:
    """On a machine of sixteen lanes, whatever machine tests."""
    assert planned(lambda x: relay.sum(x, axis=axes), shape, machine="generic-x86-64-v4", cores=cores)[1] == [sketch]


SHAPES = [((8, 12, 64), (0, 2)), ((5, 7, 3, 45), (0, 2, 3)), ((4, 9, 130), (0, 2)), ((16, 33, 64), (1,)),
          ((9, 21, 67), (1,)), ((2, 5, 11, 80), (2,))]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("shape", "axes"), SHAPES)
def test_sums(shape: tuple, axes: tuple, threads: int) -> None:
    """With work after the reduction, which every element of a result passes once."""
    module, _ = planned(lambda x: relay.nn.relu(relay.add(relay.sum(x, axis=axes), relay.const(1.0))), shape)
    module.num_threads = threads
    x = RNG.standard_normal(shape).astype(np.float32)
    (got,) = module.run({"x": x}).values()
    want = np.maximum(x.astype(np.float64).sum(axes) + 1, 0)
    terms = math.prod(shape[a] for a in axes)
    bound = (terms + 2) * U * (np.abs(x).astype(np.float64).sum(axes) + 1)
    assert (np.abs(np.asarray(got) - want) <= bound).all()


@pytest.mark.parametrize("dtype", ["float32", "int32", "int8", "float64"])
@pytest.mark.parametrize("kind", ["max", "min"])
@pytest.mark.parametrize(("shape", "axes"), SHAPES)
def test_extremes(shape: tuple, axes: tuple, kind: str, dtype: str) -> None:
    module, _ = planned(lambda x: getattr(relay, kind)(x, axis=axes), shape, dtype)
    x = (RNG.standard_normal(shape) * 40).clip(-100, 100).astype(dtype)
    (got,) = module.run({"x": x}).values()
    np.testing.assert_array_equal(np.asarray(got), getattr(x, kind)(axis=axes))


@pytest.mark.parametrize("size", [1, 15, 32, 33, 200])
def test_sums_of_open_rows(size: int) -> None:
    module, _ = planned(lambda x: relay.sum(x, axis=(0, 2)), (4, 6, relay.Any()))
    x = RNG.integers(-8, 9, (4, 6, size)).astype(np.float32)
    (got,) = module.run({"x": x}).values()
    np.testing.assert_array_equal(np.asarray(got), x.sum((0, 2)))
