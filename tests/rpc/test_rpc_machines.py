"""The device server on other processors, under user-mode emulation: code is compiled here and runs there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

import warpbeam as tvm
from warpbeam import rpc, te

#: target, cross compiler, emulator, whether libraries are freestanding
MACHINES = {
    "aarch64": ("generic-aarch64", "aarch64-linux-gnu-gcc", ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"], False),
    "armv7": ("generic-armv7", "arm-linux-gnueabihf-gcc", ["qemu-arm", "-L", "/usr/arm-linux-gnueabihf"], True),
}
RNG = np.random.default_rng(4)


@pytest.fixture(scope="module", params=MACHINES)
def machine(request: pytest.FixtureRequest, build_server: Callable[..., str]) -> Iterator[tuple[str, rpc.RPCSession]]:
    """A machine's name, and a session with its emulated device."""
    _, compiler, emulator, _ = MACHINES[request.param]
    if shutil.which(emulator[0]) is None:
        pytest.skip(f"needs {emulator[0]}")
    with (
        rpc.Server(program=[*emulator, build_server(compiler)]) as server,
        rpc.connect(server.host, server.port, secret=server.secret) as remote,
    ):
        yield request.param, remote


def net() -> Any:
    """An integer product, whose bits are the same everywhere, and a small float network."""
    weights = {
        "q": RNG.integers(-128, 128, (40, 6)).astype(np.int8),
        "w": (RNG.standard_normal((4, 3, 3, 3)) / 3).astype(np.float32),
    }
    nodes = [
        h.make_node("MatMulInteger", ["u", "q"], ["i"]),
        h.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), h.make_node("Relu", ["c"], ["y"]),
    ]  # fmt: skip
    inputs = [h.make_tensor_value_info("u", T.UINT8, [3, 40]), h.make_tensor_value_info("x", T.FLOAT, [1, 3, 9, 9])]
    outputs = [h.make_tensor_value_info("i", T.INT32, [3, 6]), h.make_tensor_value_info("y", T.FLOAT, [1, 4, 9, 9])]
    graph = h.make_graph(nodes, "net", inputs, outputs, [nh.from_array(a, n) for n, a in weights.items()])
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("ext", ["so", "wb"])
def test_a_model(machine: tuple[str, rpc.RPCSession], ext: str, tmp_path: Path) -> None:
    name, remote = machine
    target, _, _, freestanding = MACHINES[name]
    graph = net()
    compiled = tvm.compile(graph, target=target, cache=False)
    path = tmp_path / f"net.{ext}"
    if ext == "so":
        compiled.export_library(path, freestanding=freestanding)
    else:
        compiled.save(path)
    remote.upload(str(path))
    there = remote.load_module(path.name)
    inputs = {"u": RNG.integers(0, 256, (3, 40)).astype(np.uint8), "x": RNG.standard_normal((1, 3, 9, 9)).astype("f4")}
    want, found = tvm.compile(graph).run(inputs), there.run(inputs)
    assert np.array_equal(want["i"], found["i"])
    # sums of 27 products whose order and rounding may differ: each is within 27 half units of the sum of magnitudes
    assert np.abs(want["y"] - found["y"]).max() <= 27 * 2.0**-24 * 27 * np.abs(inputs["x"]).max()
    assert len(there.benchmark(inputs, repeat=2, number=1).times) == 2


def test_functions(machine: tuple[str, rpc.RPCSession]) -> None:
    name, remote = machine
    a = te.placeholder((te.var("n"),), name="A", dtype="int32")
    b = te.compute(a.shape, lambda i: a[i] * 3 - i.astype("int32"), name="B")
    f = tvm.build(te.create_schedule(b.op), [a, b], target=tvm.target.get(MACHINES[name][0]), name="f")
    remote.upload(f.code, target="f.so")
    g = remote.load_module("f.so")
    data = RNG.integers(-1000, 1000, 5001).astype("int32")
    x, y = tvm.nd.array(data, remote.cpu()), tvm.nd.empty(data.shape, "int32", remote.cpu())
    g(x, y)
    assert np.array_equal(y.numpy(), data * 3 - np.arange(5001))
    assert g.time_evaluator("f", remote.cpu(), number=2, repeat=3)(x, y).min > 0
    with pytest.raises(tvm.error.ArgumentError, match=r"Argument f\.B\.shape"):
        g(x, tvm.nd.empty((3,), "int32", remote.cpu()))


def test_code_of_another_machine(machine: tuple[str, rpc.RPCSession]) -> None:
    name, remote = machine
    assert remote.info["machine"] == name and remote.info["server"] == "c"
    a = te.placeholder((4,), name="A")
    b = te.compute(a.shape, lambda i: a[i] + 1.0, name="B")
    f = tvm.build(te.create_schedule(b.op), [a, b], target=tvm.target.get("generic-x86-64-v2"), name="f")
    remote.upload(f.code, target="f.so")
    with pytest.raises(tvm.error.LoadError, match=f"it is for x86_64, the server's machine is {name}"):
        remote.load_module("f.so")
