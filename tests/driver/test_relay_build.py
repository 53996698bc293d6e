"""The classic road: relay.build, its factory, executors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import warpbeam
from warpbeam import op
from warpbeam.contrib import graph_executor
from warpbeam.driver import relay_build
from warpbeam.ir.diagnostics import CompileError, UnsupportedError
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Function, IRModule, var
from warpbeam.runtime.errors import WarpbeamError
from warpbeam.runtime.ndarray import array, cpu
from warpbeam.target import TargetError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 8)).astype(np.float32)
W = RNG.standard_normal((5, 8)).astype(np.float32)
B = RNG.standard_normal(5).astype(np.float32)
EXPECTED = np.maximum(X @ W.T + B, 0)


def model() -> IRModule:
    x, w, b = var("x", shape=(3, 8)), var("w", shape=(5, 8)), var("b", shape=(5,))
    body = op.get("nn.relu")(op.get("nn.bias_add")(op.get("nn.dense")(x, w), b))
    return IRModule.from_expr(Function((x, w, b), body))


def library() -> relay_build.ExecutorFactory:
    return relay_build.build(model(), "llvm", params={"w": array(W), "b": B})


def test_the_tutorial() -> None:
    with PassContext(opt_level=3):
        lib = library()
    m = graph_executor.GraphModule(lib["default"](cpu(0)))
    m.set_input("x", array(X))
    m.run()
    assert np.allclose(m.get_output(0).numpy(), EXPECTED, atol=1e-5)
    assert set(lib.get_params()) == {"w", "b"} and m.get_num_inputs() == 1


def test_name_of_the_module() -> None:
    lib = relay_build.build(model(), params={"w": W}, mod_name="classifier")
    assert lib["classifier"](cpu()).get_num_inputs() == 2


def test_unpacking_warns_and_works() -> None:
    with pytest.warns(DeprecationWarning, match="unpacking"):
        graph, lib, params = library()
    m = graph_executor.create(graph, lib, cpu())
    m.set_input(x=X)
    m.run()
    assert np.allclose(m.get_output(0).numpy(), EXPECTED, atol=1e-5) and "w" in params


def test_graph_json_is_consistent() -> None:
    graph = json.loads(library().get_graph_json())
    kinds = [n["op"] for n in graph["nodes"]]
    assert kinds[0] == "null" and kinds[-1] == "tvm_op"
    assert graph["arg_nodes"] == [i for i, k in enumerate(kinds) if k == "null"]
    assert len(graph["node_row_ptr"]) == len(kinds) + 1 and graph["heads"][0][0] == len(kinds) - 1
    assert graph["attrs"]["shape"][1][0] == [3, 8] and graph["attrs"]["shape"][1][-1] == [3, 5]
    assert {len(v[1]) for v in graph["attrs"].values()} == {graph["node_row_ptr"][-1]}


def test_export_and_load(tmp_path: Path) -> None:
    lib = library()
    path = tmp_path / "lib.tar"
    lib.export_library(path)
    assert np.allclose(warpbeam.load(path)(X), EXPECTED, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"lib\.dll"):
        lib.export_library(tmp_path / "lib.dll")
    assert not (tmp_path / "lib.dll").exists()
    for name in ("lib.so", "lib.c"):
        lib.export_library(tmp_path / name)
        assert (tmp_path / name).exists() and (tmp_path / "lib.h").exists()
    assert np.array_equal(warpbeam.runtime.load_module(tmp_path / "lib.so")(X), warpbeam.load(path)(X))
    with pytest.warns(UserWarning, match="cc"):
        lib.export_library(path, cc="gcc")


def test_optimize() -> None:
    mod, params = relay_build.optimize(model(), "llvm", {"w": W, "b": B})
    assert len(mod["main"].params) == 1 and set(params) == {"w", "b"}


def test_a_parameter_must_fit() -> None:
    with pytest.raises(CompileError, match="'w'"):
        relay_build.build(model(), params={"w": W.T})


@pytest.mark.parametrize("kind", relay_build.KINDS)
def test_executors(kind: str) -> None:
    run = relay_build.create_executor(kind, model(), cpu(), "llvm", {"w": W}).evaluate()
    assert np.allclose(run(X, B).numpy(), EXPECTED, atol=1e-5)
    assert np.allclose(run(X, b=B).numpy(), EXPECTED, atol=1e-5)
    with pytest.raises(WarpbeamError, match="do not fit"):
        run(X)


def test_executor_of_an_expression() -> None:
    value = relay_build.create_executor("debug").evaluate(op.get("add")(np.float32(1), np.float32(2)))
    assert float(value.numpy()) == 3


def test_targets() -> None:
    native = relay_build.classic_target("llvm")
    assert native == relay_build.classic_target(None) and native.name == "native"
    assert relay_build.classic_target(f"llvm -mcpu={native.cpu}") == native
    assert relay_build.classic_target("llvm -mcpu=generic-x86-64-v3").name == "generic-x86-64-v3"
    assert relay_build.classic_target("llvm -num-cores=4").cores == 4
    with pytest.raises(TargetError, match="models run on the CPU"):
        relay_build.classic_target("cuda")


def test_ignored_arguments_warn() -> None:
    with pytest.warns(UserWarning, match="executor"):
        relay_build.build(model(), params={"w": W, "b": B}, executor="graph")
