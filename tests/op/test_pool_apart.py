"""Large windows of maxima are taken one dimension after the other, where that saves half of the comparisons."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import helper as onnx_helper

import warpbeam
from warpbeam import relay
from warpbeam.op import get
from warpbeam.transform.expand_operators import ExpandOperators

RNG = np.random.default_rng(0)


def pools(shape: tuple, **attrs) -> int:
    """How many poolings are left of one when operators are expanded; its result must not change."""
    kind = f"nn.max_pool{len(shape) - 2}d"
    x = relay.var("x", shape=shape)
    mod = relay.IRModule.from_expr(relay.Function([x], get(kind)(x, **attrs)))
    return str(ExpandOperators()(relay.transform.InferType()(mod))).count(kind)


@pytest.mark.parametrize(
    ("shape", "attrs", "count"),
    [
        ((1, 4, 20, 20), {"pool_size": 5, "padding": 2}, 2),
        ((1, 4, 20, 20), {"pool_size": 3, "padding": 1}, 1),  # 6 of 9
        ((1, 4, 20, 20), {"pool_size": (9, 1)}, 1),
        ((1, 4, 21, 21), {"pool_size": 7, "strides": 2, "padding": 3}, 2),
        ((1, 4, 21, 21), {"pool_size": 5, "strides": 2, "padding": 2}, 1),
        ((1, 4, 7, 7), {"pool_size": 7}, 1),  # one window: its rows would cost as much
        ((1, 20, 20, 4), {"pool_size": 5, "padding": 2, "layout": "NHWC"}, 2),
        ((1, 2, 9, 9, 9), {"pool_size": 3, "padding": 1}, 3),
        ((1, 2, 9, 9, 9), {"pool_size": (5, 1, 5), "padding": (2, 0, 2)}, 2),
        ((1, 2, 9, 9, 9), {"pool_size": (5, 1, 5), "strides": (1, 2, 1), "padding": (2, 0, 2)}, 2),
        ((1, 4, 30), {"pool_size": 15}, 1),
        ((1, 4, "h", "w"), {"pool_size": 5, "padding": 2}, 2),
    ],
)
def test_when(shape: tuple, attrs: dict, count: int) -> None:
    dims = tuple(relay.Any() if isinstance(n, str) else n for n in shape)
    assert pools(dims, **attrs) == count


CASES = [
    {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]},
    {"kernel_shape": [7, 6], "strides": [2, 1], "pads": [3, 0, 1, 5]},
    {"kernel_shape": [5, 7], "strides": [1, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
    {"kernel_shape": [5, 5], "dilations": [2, 1], "pads": [4, 2, 4, 2]},
    {"kernel_shape": [6, 5], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 3, 3], "pads": [1, 1, 1, 1, 1, 1]},
    {"kernel_shape": [1, 5, 5], "strides": [2, 1, 1], "pads": [0, 2, 2, 0, 2, 2]},
    {"kernel_shape": [7, 1, 7], "strides": [1, 3, 1], "pads": [3, 0, 3, 3, 0, 3], "ceil_mode": 1},
]


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("attrs", CASES, ids=lambda a: "x".join(map(str, a["kernel_shape"])))
def test_as_onnxruntime(attrs: dict, dtype: str) -> None:
    shape = (2, 3, 12, 13, 14)[: 2 + len(attrs["kernel_shape"])]
    if dtype == "float32":
        x = RNG.standard_normal(shape).astype(dtype)
        x[RNG.random(shape) < 0.05] = -np.inf
    else:
        x = RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    kind = onnx_helper.np_dtype_to_tensor_dtype(x.dtype)
    node = onnx_helper.make_node("MaxPool", ["x"], ["y"], **attrs)
    info = onnx_helper.make_tensor_value_info
    graph = onnx_helper.make_graph([node], "g", [info("x", kind, shape)], [info("y", kind, None)])
    model = onnx_helper.make_model(graph, opset_imports=[onnx_helper.make_opsetid("", 12)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x": x})
    model.graph.output[0].CopyFrom(info("y", kind, want.shape))
    (got,) = warpbeam.compile(model, cache=False).run({"x": x}).values()
    np.testing.assert_array_equal(np.asarray(got), want)


def test_nan_wins_in_each_of_its_windows() -> None:
    x = np.zeros((1, 1, 9, 9), np.float32)
    x[0, 0, 4, 2] = np.nan
    v = relay.var("x", shape=x.shape)
    pool = get("nn.max_pool2d")(v, pool_size=5, padding=2)
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([v], pool)), cache=False)
    (got,) = module.run({"x": x}).values()
    want = np.zeros(x.shape, bool)
    want[0, 0, 2:7, 0:5] = True
    np.testing.assert_array_equal(np.isnan(np.asarray(got)), want)
