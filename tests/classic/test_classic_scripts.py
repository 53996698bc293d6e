"""Whole scripts as tutorials write them: arrays on devices, saving and loading, networks, pictures, passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
import warpbeam.testing
from warpbeam import relay, rpc, te, topi
from warpbeam.contrib import cc, tedd, utils

without_driver = pytest.mark.filterwarnings("ignore:there is no driver for")


@without_driver
@pytest.mark.parametrize(
    "dev", [tvm.cuda(0), tvm.gpu(), tvm.cl(0), tvm.device("cuda", 0), tvm.device("opencl")], ids=str
)
def test_arrays_on_a_device(dev: Any) -> None:
    """The script says where arrays live and does not care whether there is such a device."""
    n = te.var("n")
    a, b = te.placeholder((n,), name="A"), te.placeholder((n,), name="B")
    c = te.compute(a.shape, lambda i: 3 * a[i] - b[i], name="C")
    s = te.create_schedule(c.op)
    bx, tx = s[c].split(c.op.axis[0], factor=64)
    s[c].bind(bx, te.thread_axis("blockIdx.x"))
    s[c].bind(tx, te.thread_axis("threadIdx.x"))
    target = tvm.target.Target(target="cuda" if dev.device_type == 2 else "opencl", host="llvm")
    f = tvm.build(s, [a, b, c], target=target, name="axpy")
    x = tvm.nd.array(np.arange(100, dtype=a.dtype), device=dev)
    y = tvm.nd.array(np.ones(100, dtype=b.dtype), ctx=dev)
    z = tvm.nd.array(np.zeros(100, dtype=c.dtype), dev)
    f(x, y, z)
    tvm.testing.assert_allclose(z.numpy(), 3 * x.numpy() - y.numpy(), rtol=1e-6, atol=1e-6)
    cost = f.time_evaluator(f.entry_name, dev, number=1, repeat=2, min_repeat_ms=1)
    assert cost(x, y, z).mean > 0 and "axpy_kernel" in f.imported_modules[0].get_source()


def test_built_here_and_run_in_a_session() -> None:
    n = tvm.runtime.convert(50)
    a = te.placeholder((n,), name="A")
    b = te.compute((n,), lambda i: a[i] / 4.0, name="B")
    f = tvm.build(te.create_schedule(b.op), [a, b], target="llvm", name="quarter")
    temp = utils.tempdir()
    f.export_library(temp.relpath("lib.tar"))
    f.export_library(temp.relpath("lib.so"), fcompile=cc.create_shared)
    remote = rpc.LocalSession()
    dev = remote.cpu()
    for file in ("lib.tar", "lib.so"):
        remote.upload(temp.relpath(file))
        loaded = remote.load_module(file)
        x = tvm.nd.array(np.random.default_rng(0).random(50).astype(a.dtype), dev)
        y = tvm.nd.array(np.zeros(50, dtype=b.dtype), dev)
        loaded(x, y)
        np.testing.assert_equal(y.numpy(), x.numpy() / 4)
        assert loaded.time_evaluator(loaded.entry_name, dev, number=3)(x, y).mean > 0


def test_a_module_imports_another() -> None:
    def made(k: int, name: str) -> Any:
        a = te.placeholder((5,), name="A")
        b = te.compute((5,), lambda i: a[i] + k, name="B")
        return tvm.build(te.create_schedule(b.op), [a, b], name=name)

    first, second = made(1, "first"), made(2, "second")
    first.import_module(second)
    x, y = np.zeros(5, np.float32), np.zeros(5, np.float32)
    first.get_function("second", query_imports=True)(x, y)
    assert y.tolist() == [2] * 5 and [m.entry_name for m in first.imported_modules] == ["second"]


def network() -> tuple[Any, dict[str, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 6)).astype("float32"), rng.standard_normal((4, 6)).astype("float32")
    data, weight = relay.var("data", shape=(2, 6)), relay.var("weight", shape=(4, 6))
    mod = tvm.IRModule.from_expr(relay.Function([data, weight], relay.nn.softmax(relay.nn.dense(data, weight))))
    scores = np.exp(x @ w.T)
    return mod, {"weight": tvm.nd.array(w)}, x, scores / scores.sum(1, keepdims=True)


def test_a_network(tmp_path: Path) -> None:
    mod, params, x, want = network()
    target = "llvm"
    with relay.build_config(opt_level=3), pytest.warns(DeprecationWarning, match="unpacking"):
        graph, lib, params = relay.build(mod, target=target, params=params)
    ctx = tvm.context(target, 0)
    rt = tvm.contrib.graph_runtime.create(graph, lib, ctx)
    with pytest.warns(UserWarning, match="'weight' is no input of model default, or was compiled in"):
        rt.set_input(**params)
    rt.run(data=tvm.nd.array(x))
    np.testing.assert_allclose(rt.get_output(0).asnumpy(), want, rtol=1e-5)
    lib.export_library(str(tmp_path / "net.tar"))
    (tmp_path / "net.json").write_text(graph)
    (tmp_path / "net.params").write_bytes(relay.save_param_dict(params))
    loaded = tvm.runtime.load_module(str(tmp_path / "net.tar"))
    rt = tvm.contrib.graph_executor.create((tmp_path / "net.json").read_text(), loaded, tvm.cpu())
    rt.load_params(bytearray((tmp_path / "net.params").read_bytes()))
    rt.set_input("data", tvm.nd.array(x))
    rt.run()
    np.testing.assert_allclose(rt.get_output(0).numpy(), want, rtol=1e-5)
    assert rt.benchmark(tvm.cpu(), repeat=2, number=1, min_repeat_ms=1).mean > 0


def test_pictures_of_a_schedule(tmp_path: Path) -> None:
    image, kernel = te.placeholder((6, 6, 4, 1), name="I"), te.placeholder((3, 3, 4, 8), name="K")
    bias = te.placeholder((1, 8, 1), name="bias")
    with tvm.target.Target("llvm"):
        out = topi.nn.relu(topi.add(topi.nn.conv2d_hwcn(image, kernel, 1, "SAME", 1), bias))
        s = topi.generic.schedule_conv2d_hwcn([out])
    s[out].split(out.op.axis[1], factor=2)
    tedd.viz_dataflow_graph(s, dot_file_path=str(tmp_path / "flow.dot"))
    tedd.viz_schedule_tree(s, dot_file_path=str(tmp_path / "tree.dot"))
    tedd.viz_itervar_relationship_graph(s.normalize(), dot_file_path=str(tmp_path / "axes.dot"))
    for name, word in (("flow", "bias"), ("tree", "ROOT"), ("axes", "split factor=2")):
        text = (tmp_path / f"{name}.dot").read_text()
        assert text.startswith("digraph") and word in text


def test_sums_of_the_library() -> None:
    a, b = te.placeholder((7, 5), name="a"), te.placeholder((5,), name="b")
    both = topi.elemwise_sum([a + b, a * b])
    rows, whole = topi.sum(both, axis=1), topi.sum(topi.add(a, b))
    x, y = np.arange(35, dtype=np.float32).reshape(7, 5), np.arange(5, dtype=np.float32)
    outs = [tvm.nd.empty((7,)), tvm.nd.empty(())]
    tvm.build(te.create_schedule([rows.op, whole.op]), [a, b, rows, whole])(x, y, *outs)
    assert np.array_equal(outs[0].numpy(), (x + y + x * y).sum(1)) and outs[1].numpy() == (x + y).sum()


def test_border() -> None:
    a = te.placeholder((4, 3), name="A")
    b = te.compute((6, 5), lambda i, j: te.if_then_else(
        tvm.tir.all(i >= 1, i < 5, j >= 1, j < 4), a[i - 1, j - 1], -1.0
    ))  # fmt: skip
    x, out = np.arange(12, dtype=np.float32).reshape(4, 3), tvm.nd.empty((6, 5))
    tvm.build(te.create_schedule(b.op), [a, b])(x, out)
    tvm.testing.assert_allclose(out, np.pad(x, 1, constant_values=-1))


def test_passes_that_are_watched_or_left_out() -> None:
    a = te.placeholder((32,), name="A")
    b = te.compute((32,), lambda i: a[i] * 2, name="B")
    s = te.create_schedule(b.op)
    s[b].unroll(s[b].split(b.op.axis[0], factor=4)[1])

    @tvm.instrument.pass_instrument
    class Names:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def run_before_pass(self, mod: Any, info: Any) -> None:
            self.seen.append(info.name)

    names, fewer = Names(), Names()
    with tvm.transform.PassContext(opt_level=3, instruments=[names]):
        straight = str(tvm.lower(s, [a, b]))
    with tvm.transform.PassContext(opt_level=3, instruments=[fewer], disabled_pass=["tir.ExpandLoops"]):
        kept = str(tvm.lower(s, [a, b]))
    assert "tir.ExpandLoops" in names.seen and "tir.ExpandLoops" not in fewer.seen
    assert straight.count("B[") == 4 and kept.count("B[") == 1
