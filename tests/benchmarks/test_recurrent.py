"""The table of recurrent models: which files it takes, with which inputs, and by which clock."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks import recurrent
from benchmarks.harness import Bench
from benchmarks.worker import timed_slice


def saved(path: Path, kind: str = "LSTM") -> Path:
    """A model of one layer over an open number of steps, inside of a branch or loop's body where that is asked for."""
    if kind == "If":
        inner = helper.make_graph([helper.make_node("RNN", ["x", "w", "r"], ["b"], hidden_size=3)], "g", [], [
            helper.make_tensor_value_info("b", 1, None)])  # fmt: skip
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    elif kind == "LSTM":
        nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)]
    else:
        nodes = [helper.make_node(kind, ["x"], ["y"])]
    rng = np.random.default_rng(0)
    gates = 1 if kind == "If" else 4
    held = {"w": rng.standard_normal((1, gates * 3, 2)), "r": rng.standard_normal((1, gates * 3, 3)), "c": True}
    weights = [
        onnx.numpy_helper.from_array(np.asarray(v, bool if k == "c" else np.float32), k) for k, v in held.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 1, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", 1, 1, 3] if kind != "Exp" else ["T", 1, 2])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_folders_give_recurrent_models_and_files_are_taken_as_they_are(tmp_path: Path) -> None:
    lstm, other = saved(tmp_path / "a" / "model.onnx"), saved(tmp_path / "b" / "model.onnx", "Exp")
    branch = saved(tmp_path / "c" / "model.onnx", "If")
    assert recurrent.found([str(tmp_path)]) == [lstm, branch]
    assert recurrent.found([str(other)]) == [other]
    with pytest.raises(SystemExit, match="missing"):
        recurrent.found([str(tmp_path / "nothing")])


def test_inputs_are_found_by_the_name_of_file_or_folder(tmp_path: Path) -> None:
    path, inputs = saved(tmp_path / "tiny" / "model.onnx"), tmp_path / "inputs"
    assert recurrent.inputs(path, str(inputs)) is None
    x = np.ones((5, 1, 2), np.float32)
    np.savez(path.with_suffix(".npz"), x=x)
    name, given = recurrent.inputs(path, str(inputs)) or ("", {})
    assert name == "model" and given["x"].shape == x.shape
    inputs.mkdir()
    np.savez(inputs / "tiny.npz", **{"in:x": x[:2], "out:y": x})
    name, given = recurrent.inputs(path, str(inputs)) or ("", {})
    assert name == "tiny" and {k: v.shape for k, v in given.items()} == {"x": (2, 1, 2)}


def test_a_model_with_fixed_shapes_is_measured_by_the_processors_clock(tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny" / "model.onnx")
    np.savez(path.with_suffix(".npz"), x=np.ones((5, 1, 2), np.float32))
    ((name, ref, made, flops),) = recurrent.cases([str(tmp_path / "tiny")], "", [], tmp_path)
    shape = onnx.load(made).graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [5, 1, 2]
    with Bench(["warpbeam", "ort"], 1, clock="cpu") as bench:
        row = bench.measure(name, ref, made, flops, 1, 0.02)
    assert row.ratio() is not None and (row.results["warpbeam"].rel_diff or 0) < 1e-5


def test_a_model_that_cannot_have_fixed_shapes_keeps_open_ones(tmp_path: Path) -> None:
    """Of its branches, one takes two columns and the other three."""
    other = helper.make_graph([helper.make_node("MatMul", ["x", "m"], ["b"])], "g", [], [
        helper.make_tensor_value_info("b", 1, None)])  # fmt: skip
    same = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "g", [], [
        helper.make_tensor_value_info("b", 1, None)])  # fmt: skip
    rows = helper.make_node("If", ["c"], ["y"], then_branch=same, else_branch=other)
    held = {"m": np.ones((3, 3), np.float32), "c": np.array(True)}
    graph = helper.make_graph(
        [rows], "g", [helper.make_tensor_value_info("x", 1, ["T", "K"])], [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(v, k) for k, v in held.items()],
    )  # fmt: skip
    path = tmp_path / "branches.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    made = recurrent.fixed(path, "made", {"x": np.ones((4, 2), np.float32)}, tmp_path)
    (port,) = onnx.load(made).graph.input
    assert [d.dim_param for d in port.type.tensor_type.shape.dim] == ["T", "K"]


def test_the_processors_clock_does_not_count_waiting() -> None:
    waiting = timed_slice(lambda: time.sleep(0.01), 0.05, 1, "cpu")
    assert max(waiting) < 0.005 <= min(timed_slice(lambda: time.sleep(0.01), 0.05, 1))
