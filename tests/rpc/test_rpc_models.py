"""Whole models at the other end: the bits that they give here, whatever their sizes depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h

import warpbeam as tvm
from warpbeam import rpc
from warpbeam.contrib import graph_executor
from warpbeam.runtime.rpc.remote import RemoteModel


def model(nodes: list[Any], inputs: dict[str, list[Any]], outputs: dict[str, tuple[int, list[Any]]]) -> Any:
    graph = h.make_graph(
        nodes, "net", [h.make_tensor_value_info(n, T.FLOAT, s) for n, s in inputs.items()],
        [h.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()],
    )  # fmt: skip
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


MODELS = {
    "fixed": model(
        [h.make_node("MatMul", ["x", "x"], ["m"]), h.make_node("Softmax", ["m"], ["y"])],
        {"x": [8, 8]}, {"y": (T.FLOAT, [8, 8])},
    ),
    "any size": model(
        [h.make_node("Exp", ["x"], ["e"]), h.make_node("Transpose", ["e"], ["y"]),
         h.make_node("Add", ["x", "z"], ["w"])],
        {"x": ["n", "m"], "z": ["m"]}, {"y": (T.FLOAT, ["m", "n"]), "w": (T.FLOAT, ["n", "m"])},
    ),
    "found late": model(
        [h.make_node("NonZero", ["x"], ["y"]), h.make_node("Relu", ["x"], ["z"])],
        {"x": [4, 6]}, {"y": (T.INT64, [2, None]), "z": (T.FLOAT, [4, 6])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("ext", ["so", "wb"])
@pytest.mark.parametrize("name", MODELS)
def test_models(remote: rpc.RPCSession, name: str, ext: str, tmp_path: Path) -> None:
    here = tvm.compile(MODELS[name])
    path = tmp_path / f"net.{ext}"
    (here.export_library if ext == "so" else here.save)(path)
    remote.upload(str(path))
    there = remote.load_module(path.name)
    assert isinstance(there, RemoteModel) and there.inputs == here.inputs and there.outputs == here.outputs
    for sizes in ({"n": 3, "m": 7}, {"n": 300, "m": 1000}, {"n": 3, "m": 7}):
        inputs = here.random_inputs(sizes["n"], **sizes)
        want, found = here.run(inputs), there.run(inputs)
        assert want.keys() == found.keys()
        for key, array in want.items():
            assert array.dtype == found[key].dtype and np.array_equal(array, found[key]), key
        single = there(*inputs.values())
        assert np.array_equal(single[0] if isinstance(single, tuple) else single, next(iter(want.values())))
    times = there.benchmark(inputs, repeat=4, number=2)
    assert len(times.times) == 4 and times.number == 2 and min(times.times) > 0


def test_nothing_is_found(remote: rpc.RPCSession, tmp_path: Path) -> None:
    here = tvm.compile(MODELS["found late"])
    here.export_library(tmp_path / "net.so")
    remote.upload(str(tmp_path / "net.so"))
    found = remote.load_module("net.so").run({"x": np.zeros((4, 6), np.float32)})
    assert found["y"].shape == (2, 0) and not found["z"].any()


def test_state(remote: rpc.RPCSession, tmp_path: Path) -> None:
    step = model(
        [h.make_node("Add", ["x", "before"], ["after"]), h.make_node("Mul", ["after", "x"], ["y"])],
        {"x": [4], "before": [4]}, {"y": (T.FLOAT, [4]), "after": (T.FLOAT, [4])},
    )  # fmt: skip
    tvm.compile(step, state={"before": "after"}).export_library(tmp_path / "step.so")
    remote.upload(str(tmp_path / "step.so"))
    models = [remote.load_module("step.so") for _ in range(2)]
    x = np.arange(4, dtype=np.float32)
    for k in range(3):
        assert np.array_equal(models[0](x), x * x * (k + 1))
    assert np.array_equal(models[0].get_param("before"), 3 * x) and not models[1].get_param("before").any()
    models[1].set_param("before", x)
    assert np.array_equal(models[1](x), 2 * x * x)
    with pytest.raises(tvm.TVMError, match="no mutable parameter 'x'"):
        models[0].get_param("x")
    with pytest.raises(tvm.TVMError, match="expected float32"):
        models[0].set_param("before", np.zeros(5, np.float32))


def test_the_classic_executor(remote: rpc.RPCSession, tmp_path: Path) -> None:
    here = tvm.compile(MODELS["fixed"])
    here.export_library(tmp_path / "net.so")
    remote.upload(str(tmp_path / "net.so"))
    m = graph_executor.GraphModule(remote.load_module("net.so")["default"](remote.cpu()))
    x = here.random_inputs()["x"]
    m.set_input("x", tvm.nd.array(x, remote.cpu()))
    m.run()
    assert np.array_equal(m.get_output(0).numpy(), here(x))
    assert m.benchmark(remote.cpu(), repeat=2, number=1, min_repeat_ms=3).number > 1
    assert m.benchmark(remote.cpu(), repeat=2, number=1, end_to_end=True).number == 1


def test_mistakes(remote: rpc.RPCSession, tmp_path: Path) -> None:
    tvm.compile(MODELS["any size"]).export_library(tmp_path / "net.so")
    remote.upload(str(tmp_path / "net.so"))
    net = remote.load_module("net.so")
    x, z = np.zeros((2, 3), np.float32), np.zeros(3, np.float32)
    for words, program in (
        ("input 'z' is missing", lambda: net.run({"x": x})),
        ("no input 'q'", lambda: net.run({"x": x, "z": z, "q": z})),
        ("has shape", lambda: net.run({"x": x, "z": x[0, :2]})),
        ("element type float64", lambda: net.run({"x": x.astype(float), "z": z})),
        ("no output 'q'", lambda: net.run({"x": x, "z": z}, {"q": z})),
        ("1 arrays given", lambda: net(x)),
        ("no function 'other'", lambda: net["other"]),
    ):
        with pytest.raises(tvm.TVMError, match=words):
            program()
    out = np.empty((3, 2), np.float32)
    assert net.run({"x": x, "z": z}, {"y": out})["y"] is out and (out == 1).all()


def test_a_model_of_more_than_tensors(remote: rpc.RPCSession, tmp_path: Path) -> None:
    """Strings need host functions of Python: such a model is refused, in words."""
    graph = h.make_graph(
        [h.make_node("StringNormalizer", ["x"], ["y"], case_change_action="UPPER")], "net",
        [h.make_tensor_value_info("x", T.STRING, [3])], [h.make_tensor_value_info("y", T.STRING, [3])],
    )  # fmt: skip
    tvm.compile(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)).save(tmp_path / "net.wb")
    remote.upload(str(tmp_path / "net.wb"))
    with pytest.raises(tvm.error.LoadError, match="cannot run in a session"):
        remote.load_module("net.wb")
