"""Sums at places computed from data: places and weights once for all channels, by blocks of positions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[1]))

from tolerance import close

import warpbeam
from warpbeam import relay
from warpbeam.driver.api import compile_with_report
from warpbeam.op.table import get

RNG = np.random.default_rng(4)


def made(shape: tuple[Any, ...], grid: tuple[Any, ...], kind: int = TensorProto.FLOAT, **attrs: Any) -> Any:
    """grid_sample and a relu as one kernel, of the sketch in question."""
    onnx_attrs = {**attrs, "mode": attrs.get("mode", "linear")}
    nodes = [helper.make_node("GridSample", ["x", "g"], ["y"], **onnx_attrs), helper.make_node("Relu", ["y"], ["z"])]
    ends = [helper.make_tensor_value_info("x", kind, shape), helper.make_tensor_value_info("g", 1, grid)]
    out = helper.make_tensor_value_info("z", kind, None)
    graph = helper.make_graph(nodes, "g", ends, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    module, report = compile_with_report(model, cache=False)
    assert [row["sketch"] for row in report.rows] == ["sampled"]
    return module


def check(module: Any, x: np.ndarray, g: np.ndarray, **attrs: Any) -> None:
    op = get("image.grid_sample")
    given = {"method": attrs.get("mode", "linear"), "padding_mode": attrs.get("padding_mode", "zeros")}
    want = np.maximum(op.numpy({**op.defaults, **given}, x, g), 0)
    taps = {"nearest": 1, "linear": 2, "cubic": 4}[given["method"]] ** (x.ndim - 2)
    # a coordinate is off by a few units of the map's size, and weights by as much
    close(module.run({"x": x, "g": g})["z"], want, taps + 4 * sum(x.shape[2:]), float(np.abs(x).max()))


SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((1, 3, 6, 5), (1, 2, 600, 2)),  # pieces of a line
    ((1, 1, 4, 4), (1, 90, 130, 2)),  # no channels; lines that do not fill the last block
    ((1, 8, 3, 4, 5), (1, 2, 3, 17, 3)),
]
WAYS = [(m, p) for m in ("nearest", "linear", "cubic") for p in ("zeros", "border", "reflection")]
CASES = [((2, 11, 5, 6), (2, 7, 9, 2), *way) for way in WAYS] + [(*s, "linear", "zeros") for s in SHAPES]


@pytest.mark.parametrize(("shape", "grid", "method", "padding"), CASES, ids=str)
def test_places_once_for_all_channels(shape: tuple[int, ...], grid: tuple[int, ...], method: str, padding: str) -> None:
    x, g = RNG.standard_normal(shape, np.float32), RNG.uniform(-1.4, 1.4, grid).astype(np.float32)
    attrs = {"mode": method, "padding_mode": padding}
    module = made(shape, grid, **attrs)
    check(module, x, g, **attrs)
    first = module.run({"x": x, "g": g})["z"]
    module.num_threads = 1
    np.testing.assert_array_equal(module.run({"x": x, "g": g})["z"], first)


@pytest.mark.parametrize("mode", ["zeros", "border"])
def test_images_of_one_element(mode: str) -> None:
    """Tables of one position have fewer dimensions left than the sum has axes."""
    op = get("image.grid_sample")
    x, g = RNG.standard_normal((1, 3, 1, 1, 1), np.float32), RNG.uniform(-1, 1, (1, 1, 1, 1, 3)).astype(np.float32)
    a, b = relay.var("x", shape=x.shape), relay.var("g", shape=g.shape)
    mod = relay.IRModule.from_expr(relay.Function([a, b], op(a, b, padding_mode=mode)))
    (got,) = warpbeam.compile(mod, cache=False).run({"x": x, "g": g}).values()
    want = op.numpy({**op.defaults, "padding_mode": mode}, x, g)
    close(np.asarray(got), want, 8 + 4 * 3, float(np.abs(x).max()))


def test_open_batch_and_lines() -> None:
    module = made(("n", 5, 6, 7), ("n", "h", 40, 2))
    for n, h in ((1, 1), (3, 11), (2, 64)):
        x, g = RNG.standard_normal((n, 5, 6, 7), np.float32), RNG.uniform(-1, 1, (n, h, 40, 2)).astype(np.float32)
        check(module, x, g)


def test_what_is_not_finite_outside_counts_as_nothing() -> None:
    """Where an element counts as zero, neither what stands beside it nor its weight takes part."""
    module = made((1, 8, 4, 4), (1, 4, 20, 2))
    x, g = np.full((1, 8, 4, 4), np.inf, np.float32), np.full((1, 4, 20, 2), 9, np.float32)
    g[0, 1] = np.inf
    g[0, 2, :, 0], g[0, 3, :, 1] = np.nan, np.nan  # the other coordinate is outside
    np.testing.assert_array_equal(module.run({"x": x, "g": g})["z"], 0)


def test_short_floats_are_summed_in_float32() -> None:
    module = made((1, 9, 5, 6), (1, 4, 30, 2), TensorProto.FLOAT16)
    check(module, RNG.standard_normal((1, 9, 5, 6)).astype(np.float16), RNG.uniform(-1, 1, (1, 4, 30, 2)).astype("f"))


@pytest.mark.parametrize(("shape", "axis"), [((30, 700), 1), ((30, 700), 0), ((40, 9, 3), 1), ((500,), 0)])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "int64"])
@pytest.mark.parametrize("expensive", [False, True])
def test_elements_along_an_axis(shape: tuple[int, ...], axis: int, dtype: str, expensive: bool) -> None:
    """Indices become places in vectors first; where what comes after is expensive, all is done in vectors."""
    x = RNG.integers(-9, 9, shape).astype(dtype)
    index = RNG.integers(-shape[axis] - 3, shape[axis] + 3, shape)  # what is outside is clamped
    a, i = relay.var("x", shape=shape, dtype=dtype), relay.var("i", shape=shape, dtype="int64")
    body = get("gather")(a, i, axis=axis)
    if expensive:
        body = get("exp")(get("cast")(body, dtype="float32"))
    module, report = compile_with_report(relay.IRModule.from_expr(relay.Function([a, i], body)), cache=False)
    assert [row["sketch"] for row in report.rows] == ["pointwise" if expensive else "sampled"]
    (got,) = module.run({"x": x, "i": index}).values()
    places = np.clip(np.where(index < 0, index + shape[axis], index), 0, shape[axis] - 1)
    want = np.take_along_axis(x, places, axis)
    if expensive:
        close(np.asarray(got), np.exp(want.astype(np.float32)), 1, float(np.exp(9)))
    else:
        np.testing.assert_array_equal(got, want)
