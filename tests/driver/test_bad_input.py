"""Models and arrays that are wrong: one error of ours, one readable message, soon and in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import warpbeam
from warpbeam.ir.diagnostics import WarpbeamError

SECONDS, BYTES = 5, 1 << 30  # of the processor's time after imports: the system ends what takes longer

CHILD = f"""
import math, resource, sys, time
import warpbeam
from warpbeam.ir.diagnostics import WarpbeamError
resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + {SECONDS},) * 2)
try:
    warpbeam.compile(sys.argv[1])
except WarpbeamError as error:
    print(type(error).__name__, "|", error)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # ru_maxrss is the parent's too
print("used", int(peak.split()[1]) * 1024)
"""


def _model(nodes: list[Any], shape: list[Any] | None = None, weights: list[Any] | None = None) -> bytes:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape or [2, 3]) for n in "xy"]
    ends[1].type.tensor_type.ClearField("shape")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights or [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    return bytes(helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString())


def _external(location: str, **more: str) -> bytes:
    weight = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        weight.external_data.add(key=key, value=value)
    return _model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[weight])


def _wide_shape() -> bytes:
    shape = numpy_helper.from_array(np.array([1 << 40], np.int64), "s")
    return _model([helper.make_node("ConstantOfShape", ["s"], ["y"])], weights=[shape])


def _big_weight() -> bytes:
    data = numpy_helper.from_array(np.ones(1 << 20, np.float32), "w")
    return _model([helper.make_node("Add", ["x", "w"], ["y"])], [1 << 20], [data])


GOOD = _model([helper.make_node("Exp", ["x"], ["y"])])
MODELS = {
    "truncated": _big_weight()[: 2 << 20],
    "cut in a node": GOOD[:-9],
    "empty": b"",
    "unknown operator": _model([helper.make_node("Frobnicate", ["x"], ["y"], domain="nowhere")]),
    "no such standard operator": _model([helper.make_node("Frobnicate", ["x"], ["y"])]),
    "external data outside": _external("../secret.bin"),
    "external data at an absolute path": _external("/etc/passwd"),
    "external data absent": _external("absent.bin"),
    "external data at a negative place": _external("absent.bin", offset="-8"),
    "external data of a length that is no number": _external("absent.bin", length="abc"),
    "external data in a file of an endless name": _external("absent" * 1000),
    "external data in a file of no name": _external("a\0b"),
    "a dimension of 2^40": _model([helper.make_node("Exp", ["x"], ["y"])], [1 << 40]),
    "two dimensions of 2^40": _model([helper.make_node("Exp", ["x"], ["y"])], [1 << 40, 1 << 40]),
    "a tensor of 2^40 elements": _wide_shape(),
}


@pytest.mark.parametrize("name", MODELS)
def test_bad_models(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    path = folder / "m.onnx"
    path.write_bytes(MODELS[name])
    own = {**os.environ, "WARPBEAM_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, timeout=120, env=own
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *message, last = done.stdout.strip().splitlines()
    assert int(last.removeprefix("used ")) < BYTES
    assert message and "|" in message[0], "it was accepted"
    assert 10 < len("\n".join(message)) < 2000


@pytest.fixture(scope="module")
def module() -> Any:
    return warpbeam.compile(_model([helper.make_node("Exp", ["x"], ["y"])], ["n", 3]))


X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"z": X},
        {"x": X, "z": X},
        {"x": X.astype(np.float64)},
        {"x": X.astype(np.int32)},
        {"x": X[0]},
        {"x": np.ones((2, 4), np.float32)},
        {"x": "text"},
        {"x": None},
        {"x": np.array([[object()]])},
    ],
    ids=["none", "other", "more", "float64", "int32", "a row", "too few", "text", "nothing", "objects"],
)
def test_bad_arrays(module: Any, inputs: dict[str, Any]) -> None:
    with pytest.raises(WarpbeamError) as e:
        module.run(inputs)
    assert 10 < len(str(e.value)) < 1000
    np.testing.assert_allclose(module.run({"x": X})["y"], np.exp(X), rtol=1e-6)  # it still works


RESULTS = {"dtype": np.empty((2, 3)), "shape": np.empty((3, 3), np.float32), "kind": "text"}
SHAPES = [{"x": (1 << 40, 3)}, {"x": (-1, 3)}, {"q": (2, 3)}, {"x": (2,)}, {"x": (2.5, 3)}]


@pytest.mark.parametrize("out", RESULTS.values(), ids=RESULTS)
def test_bad_results(module: Any, out: Any) -> None:
    with pytest.raises(WarpbeamError):
        module.run({"x": X}, out={"y": out})


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_bad_shapes(shapes: Any) -> None:
    with pytest.raises(WarpbeamError):
        warpbeam.compile(_model([helper.make_node("Exp", ["x"], ["y"])], ["n", 3]), shapes=shapes, cache=False)
