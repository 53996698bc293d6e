"""Projects for small devices: built for the host they give the model's results; on an emulated board the same bits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_helpers import cnn, compiler, dynamic
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

import warpbeam
from warpbeam.cli.main import main
from warpbeam.driver import source
from warpbeam.driver.micro import Project, boards, make_project
from warpbeam.ir.diagnostics import CompileError
from warpbeam.relay import interp

HOST = """
#include <stdio.h>
void board_write(const char* text);
void board_write(const char* text) { fputs(text, stdout); }
"""


def quantised() -> onnx.ModelProto:
    """Eight-bit convolutions, one of them depthwise, and a sum: all between them are integers."""
    rng = np.random.default_rng(0)
    scale, zero = np.float32(0.04), np.uint8(120)
    constants = {
        "s": scale, "z": zero, "ws": np.float32(0.01), "wz": np.int8(0), "os": np.float32(0.09), "oz": np.uint8(0),
        "w1": rng.integers(-100, 100, (8, 3, 3, 3)).astype(np.int8),
        "w2": rng.integers(-100, 100, (8, 1, 3, 3)).astype(np.int8),
        "w3": rng.integers(-100, 100, (12, 8, 1, 1)).astype(np.int8),
    }  # fmt: skip
    nodes = [h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    at, name = "q", ("s", "z")
    for k, attrs in (("w1", {"pads": [1] * 4, "strides": [2, 2]}), ("w2", {"pads": [1] * 4, "group": 8}), ("w3", {})):
        nodes.append(h.make_node("QLinearConv", [at, *name, k, "ws", "wz", "os", "oz"], [f"{k}y"], **attrs))
        at, name = f"{k}y", ("os", "oz")
    nodes += [h.make_node("DequantizeLinear", [at, *name], ["d"]), h.make_node("GlobalAveragePool", ["d"], ["y"])]
    graph = h.make_graph(nodes, "quantised", [h.make_tensor_value_info("x", T.FLOAT, [1, 3, 17, 17])],
                         [h.make_tensor_value_info("y", T.FLOAT, [1, 12, 1, 1])],
                         [nh.from_array(np.asarray(a), n) for n, a in constants.items()])  # fmt: skip
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


MODELS = {"floats": cnn, "integers": quantised}


def project(make: str, board: str, folder: Path) -> tuple[Project, np.ndarray, np.ndarray]:
    model = MODELS[make]()
    compiled = warpbeam.compile(model, target="c32", cache=False)
    inputs = compiled.random_inputs(4)
    module = source.read(model, None, "net").module
    exact = np.asarray(interp.evaluate(module, list(inputs.values()))).astype(np.float64)
    done = make_project(compiled, folder / "project", board, inputs, "net")
    return done, exact, next(iter(inputs.values()))


def words(text: str) -> np.ndarray:
    found = [int(w, 16) for line in text.splitlines() if not line.startswith("output") for w in line.split()]
    return np.array(found, np.uint32).view(np.float32)


def built_here(done: Project) -> str:
    (done.folder / "host.c").write_text(HOST)
    flags = ["-O2", "-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler(), *flags, "main.c", "host.c", "net.c", "-o", "here", "-lm"], cwd=done.folder, check=True)
    ran = subprocess.run(["./here"], cwd=done.folder, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@pytest.mark.parametrize("make", MODELS)
def test_the_example_gives_the_model_s_results(make: str, tmp_path: Path) -> None:
    done, exact, _ = project(make, "mps2-an386", tmp_path)
    assert {f.name for f in done.files} >= {"net.c", "net.h", "main.c", "startup.c", "memory.ld", "Makefile"}
    found = words(built_here(done)).reshape(exact.shape)
    assert np.abs(exact).max() > 0 and np.abs(found - exact).max() <= 4 * (72 + 2) * 2.0**-24 * np.abs(exact).max()
    assert str(done.constants) in (done.folder / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("board", boards())
@pytest.mark.parametrize("make", MODELS)
def test_an_emulated_board_gives_the_same_bits(make: str, board: str, tmp_path: Path) -> None:
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    done, _, _ = project(make, board, tmp_path)
    made = subprocess.run(["make"], cwd=done.folder, capture_output=True, text=True)
    assert made.returncode == 0 and "warning" not in made.stderr, made.stderr[:2000]
    ran = subprocess.run(["make", "-s", "run"], cwd=done.folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    assert ran.stdout == built_here(done)
    text, data, bss = map(int, made.stdout.splitlines()[-1].split()[:3])
    assert done.constants < text < done.constants + (64 << 10)
    assert done.context <= data + bss < done.context + (16 << 10)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    small = warpbeam.compile(cnn(), target="c32", cache=False)
    with pytest.raises(CompileError, match="unknown board"):
        make_project(small, tmp_path / "a", "pdp11")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(CompileError, match="not empty"):
        make_project(small, tmp_path / "b", "mps2-an385")
    assert (tmp_path / "b" / "mine.txt").read_text() == "mine"
    with pytest.raises(CompileError, match="sizes are not all known"):
        make_project(warpbeam.compile(dynamic(), target="c32", cache=False), tmp_path / "c", "mps2-an385")
    weight = nh.from_array(np.ones((2600, 2600), np.float32), "w")
    graph = h.make_graph([h.make_node("MatMul", ["x", "w"], ["y"])], "big",
                         [h.make_tensor_value_info("x", T.FLOAT, [1, 2600])],
                         [h.make_tensor_value_info("y", T.FLOAT, [1, 2600])], [weight])  # fmt: skip
    big = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(CompileError, match="does not fit"):
        make_project(warpbeam.compile(big, target="c32", cache=False), tmp_path / "d", "mps2-an385")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(cnn(), tmp_path / "m.onnx")
    folder = tmp_path / "made"
    assert main(["micro", str(tmp_path / "m.onnx"), "-o", str(folder), "--board", "mps2-an500", "--name", "tiny"]) == 0
    assert "make run" in capsys.readouterr().out and (folder / "tiny.c").exists()
    assert main(["micro", str(tmp_path / "m.onnx"), "-o", str(folder)]) == 1
    assert "is not empty" in capsys.readouterr().err
