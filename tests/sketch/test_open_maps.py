"""Convolutions over maps of open sizes: never plain loops, whatever is open, and right at several sizes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from warpbeam.driver.api import compile_with_report
from warpbeam.sketch import border

_CHANNELS = 32
_SIZES = [(1, 30, 41), (2, 30, 7), (3, 30, 4)]


def _model(shape: tuple[object, ...], weights: np.ndarray, stride: int, pad: int, dilation: int = 1) -> onnx.ModelProto:
    how = {"strides": [stride] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], **how)]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    ends.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _plain(x: np.ndarray, w: np.ndarray, stride: int, pad: int, dilation: int = 1) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = ((n - 2 * dilation - 1) // stride + 1 for n in x.shape[2:])
    total = np.zeros((x.shape[0], w.shape[0], rows, columns))
    for r in range(3):
        for s in range(3):
            down, right = r * dilation, s * dilation
            part = x[:, :, down : down + stride * (rows - 1) + 1 : stride, right:]
            part = part[..., : stride * (columns - 1) + 1 : stride]
            total += np.einsum("nchw,oc->nohw", part, w[:, :, r, s])
    return total


@pytest.mark.parametrize("accuracy", ["exact", "default"])
@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (1, 1), (2, 0), (2, 1)])
@pytest.mark.parametrize("lead", [(1, "h"), ("n", "h"), ("n", 30), (2, 30)])
def test_convolutions_over_open_maps_get_their_sketch(lead, stride, pad, accuracy) -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32)
    n, h = lead
    model = _model((n, _CHANNELS, h, "w"), w, stride, pad)
    module, report = compile_with_report(model, cache=False, accuracy=accuracy)
    assert "generic" not in {row["sketch"] for row in report.rows}
    for batch, rows, columns in _SIZES:
        shape = (batch if n == "n" else n, _CHANNELS, rows, columns)
        x = rng.standard_normal(shape).astype(np.float32)
        (got,) = module.run({"x": x}).values()
        want = _plain(x.astype(np.float64), w.astype(np.float64), stride, pad)
        sizes = _plain(np.abs(x).astype(np.float64), np.abs(w).astype(np.float64), stride, pad)
        # the plain sum rounds 9 C times; by tiles 81 C (C + 7) u D W of all |d| <= D, |g| <= W (topi/nn/winograd.py)
        bound = 9 * _CHANNELS * 2.0**-24 * sizes
        if accuracy == "default":
            bound += 81 * _CHANNELS * (_CHANNELS + 7) * 2.0**-24 * np.abs(x).max() * np.abs(w).max()
        assert got.shape == want.shape and (np.abs(got - want) <= bound).all()


@pytest.mark.parametrize(("stride", "dilation"), [(1, 6), (1, 18), (2, 9)])
@pytest.mark.parametrize("lead", [("n", "h"), (1, 30)])
def test_taps_outside_of_an_open_map_are_left_out(lead, stride, dilation, monkeypatch) -> None:
    """Dilated convolutions, whose taps are mostly padding: the same bits as with all of them."""
    rng = np.random.default_rng(dilation)
    w = rng.standard_normal((_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32)
    n, h = lead
    model = _model((n, _CHANNELS, h, "w"), w, stride, dilation, dilation)
    module, report = compile_with_report(model, cache=False, accuracy="exact")
    monkeypatch.setattr(border, "borders", lambda *_: {})
    plain, without = compile_with_report(model, cache=False, accuracy="exact")
    said = [any("taps that lie outside" in note for row in r.rows for note in row["notes"]) for r in (report, without)]
    assert said == [True, False]
    for batch, rows, columns in [(1, 30, 41), (3, 30, 7), (1, 30, 128), (2, 30, 1)]:
        x = rng.standard_normal((batch if n == "n" else n, _CHANNELS, rows, columns)).astype(np.float32)
        for threads in (1, 2):
            module.num_threads = threads
            (got,), (want,) = module.run({"x": x}).values(), plain.run({"x": x}).values()
            assert got.tobytes() == want.tobytes()
        wide = [a.astype(np.float64) for a in (x, w)]
        sizes = _plain(*(np.abs(a) for a in wide), stride, dilation, dilation)
        assert (np.abs(got - _plain(*wide, stride, dilation, dilation)) <= 9 * _CHANNELS * 2.0**-24 * sizes).all()
