"""--accuracy reaches everything that a command compiles."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from warpbeam.topi.nn.winograd_error import measured_errors

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def convolution(tmp_path: Path) -> str:
    w = np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 64, 28, 28)) for n in "xy"]
    graph = helper.make_graph([node], "conv", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
    path = tmp_path / "conv.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return str(path)


@pytest.mark.parametrize("accuracy, tiles", [("exact", None), ("default", 2), ("fast", 4)])
def test_compile(run: Run, convolution: str, tmp_path: Path, accuracy: str, tiles: int | None) -> None:
    more = ["--accuracy", accuracy, "--no-cache", "--dump", "relay", "--dump-dir", str(tmp_path / "dump")]
    code, _, err = run("compile", convolution, "-o", str(tmp_path / "m.wb"), *more)
    assert code == 0, err
    text = "".join(p.read_text() for p in (tmp_path / "dump").rglob("*fused*"))
    assert text and ("winograd" in text) == (tiles is not None)
    if tiles is not None:
        assert f"tile_size={tiles}" in text


def test_explain_names_both_ways(run: Run, convolution: str, tmp_path: Path) -> None:
    code, out, _ = run("compile", convolution, "-o", str(tmp_path / "m.wb"), "--explain")
    (line,) = [text for text in out.splitlines() if "F(2x2,3x3)" in text]
    assert code == 0 and "direct" in line and "thousand cycles predicted" in line


def test_explain_tells_what_large_tiles_lose(run: Run, convolution: str, tmp_path: Path) -> None:
    code, out, _ = run("compile", convolution, "-o", str(tmp_path / "m.wb"), "--explain", "--accuracy", "fast")
    (line,) = [text for text in out.splitlines() if "F(4x4,3x3)" in text]
    found = re.search(r"largest error on normal data, .*: winograd F\(4x4,3x3\) (\S+), direct (\S+)$", line)
    assert code == 0 and found
    w = numpy_helper.to_array(onnx.load(convolution).graph.initializer[0])
    assert found.groups() == tuple(f"{error:.1e}" for error in measured_errors(w.transpose(2, 3, 1, 0), 4))


def test_verify(run: Run, convolution: str) -> None:
    code, out, err = run("verify", convolution, "--accuracy", "default", "--no-cache")
    assert code == 0, out + err


def test_unknown(run: Run, convolution: str) -> None:
    with pytest.raises(SystemExit):
        run("compile", convolution, "--accuracy", "best")
