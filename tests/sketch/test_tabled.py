"""Interpolation: tables of positions and weights are made once, each axis is a nest of its own in vectors."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from warpbeam.driver.api import compile_with_report


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scales", [(2.0, 2.0), (0.5, 0.5), (1.7, 2.3), (1.0, 3.0)])
@pytest.mark.parametrize("where", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("antialias", [0, 1])
def test_resize(mode: str, scales: tuple[float, float], where: str, antialias: int) -> None:
    shape = (2, 5, 13, 21)
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["y"], mode=mode, coordinate_transformation_mode=where, antialias=antialias
    )
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", None))]
    given = [numpy_helper.from_array(np.array([1, 1, *scales], np.float32), "s")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    module, report = compile_with_report(model, cache=False)
    taps = {"linear": 2, "cubic": 4}[mode]
    if min(scales) >= 1 or not antialias:
        assert {row["sketch"] for row in report.rows} == {"tabled"}
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (got,) = module.run({"x": x}).values()
    (want,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert got.shape == want.shape
    # weights add up to 1; a cubic kernel's sizes to at most 1.6 along each axis
    assert np.abs(got - want).max() <= 16 * (2 * taps) ** 2 * 2.0**-24 * np.abs(x).max()
