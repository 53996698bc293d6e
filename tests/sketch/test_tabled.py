"""Interpolation: tables of positions and weights are made once, each axis is a nest of its own in vectors."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from warpbeam.driver.api import compile_with_report


def _kernel(d: np.ndarray, mode: str) -> np.ndarray:
    """The triangle, or Keys' cubic kernel with a = -0.75, of distances."""
    d = np.abs(d)
    if mode == "linear":
        return np.maximum(1 - d, 0)
    near, far = (1.25 * d - 2.25) * d * d + 1, -0.75 * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _weights(size: int, scale: float, mode: str, where: str, stretch: float) -> np.ndarray:
    """What each result along an axis takes of each position, as ONNX says; those outside are the border's."""
    o = np.arange(int(size * scale), dtype=np.float64)[:, None]
    step = (size - 1) / (size * scale - 1) if where == "align_corners" else 1 / scale
    x = (o + 0.5) / scale - 0.5 if where == "half_pixel" else o * step
    reach = int(np.ceil({"linear": 1, "cubic": 2}[mode] * stretch))
    at = np.floor(x) + np.arange(1 - reach, reach + 1)
    taken = _kernel((at - x) / stretch, mode)
    taken /= taken.sum(1, keepdims=True)
    out = np.zeros((len(o), size))
    np.add.at(out, (o.astype(int), np.clip(at, 0, size - 1).astype(int)), taken)
    return out


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
    if min(scales) >= 1 or not antialias:
        assert {row["sketch"] for row in report.rows} == {"tabled"}
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (got,) = module.run({"x": x}).values()
    used = [float(np.float32(s)) for s in scales]
    stretch = [1 / min(1.0, s) if antialias else 1.0 for s in used]
    high, wide = (_weights(n, s, mode, where, up) for n, s, up in zip(shape[2:], used, stretch, strict=True))
    want = np.einsum("ncij,oi,pj->ncop", x.astype(np.float64), high, wide)
    # each axis sums the products of its taps, with weights rounded to float32
    taps = sum(2 * np.ceil({"linear": 1, "cubic": 2}[mode] * up) + 1 for up in stretch)
    bound = taps * 2.0**-24 * np.einsum("ncij,oi,pj->ncop", np.abs(x).astype(np.float64), np.abs(high), np.abs(wide))
    assert got.shape == want.shape and (np.abs(got - want) <= bound + 2.0**-149).all()
