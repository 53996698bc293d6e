"""Kernels depend on what is computed, never on its name: renaming every stage changes no code."""

import numpy as np
import pytest

from warpbeam import op
from warpbeam.codegen.llvm import compile_text, print_kernel
from warpbeam.driver.kernels import KernelSet
from warpbeam.driver.pipeline import optimize
from warpbeam.driver.plan import Planner
from warpbeam.frontend.onnx import import_model
from warpbeam.relay.expr import Function, IRModule, const, var
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.schedule import Schedule


def call(name, *args, **attrs):
    return op.get(name)(*args, **attrs)


def residual_network():
    rng = np.random.default_rng(0)
    x = var("x", shape=(1, 3, 32, 32))
    w = [const(rng.standard_normal(s).astype(np.float32)) for s in ((16, 3, 7, 7), (16, 16, 3, 3), (32, 16, 1, 1))]
    y = call("nn.conv2d", x, w[0], strides=(2, 2), padding=(3, 3, 3, 3), data_layout="NCHW", kernel_layout="OIHW")
    y = call("nn.relu", y)
    y = call("nn.max_pool2d", y, pool_size=(3, 3), strides=(2, 2), padding=(1, 1, 1, 1))
    z = call("nn.conv2d", y, w[1], strides=(1, 1), padding=(1, 1, 1, 1), data_layout="NCHW", kernel_layout="OIHW")
    y = call("nn.relu", call("add", z, y))
    y = call("nn.conv2d", y, w[2], strides=(1, 1), padding=(0, 0, 0, 0), data_layout="NCHW", kernel_layout="OIHW")
    return Function([x], call("nn.softmax", call("mean", y, axis=(2, 3)), axis=-1))


def transformer_layer():
    rng = np.random.default_rng(1)
    x = var("x", shape=(1, 16, 64))
    w = [const(rng.standard_normal((64, 64)).astype(np.float32)) for _ in range(4)]
    g, b = (const(rng.standard_normal(64).astype(np.float32)) for _ in range(2))

    def heads(y, axes):
        return call("transpose", call("reshape", y, newshape=(1, 16, 4, 16)), axes=axes)

    q = heads(call("nn.matmul", x, w[0]), (0, 2, 1, 3))
    k = heads(call("nn.matmul", x, w[1]), (0, 2, 3, 1))
    v = heads(call("nn.matmul", x, w[2]), (0, 2, 1, 3))
    a = call("nn.softmax", call("multiply", call("nn.matmul", q, k), const(0.25)), axis=-1)
    y = call("reshape", call("transpose", call("nn.matmul", a, v), axes=(0, 2, 1, 3)), newshape=(1, 16, 64))
    y = call("nn.layer_norm", call("add", call("nn.matmul", y, w[3]), x), g, b, axis=-1)
    return Function([x], call("erf", y))


def kernels(func, rename=lambda: None):
    """Machine code of each kernel by symbol; `rename` runs between the graph passes and the sketches."""
    target = get("generic-x86-64-v3")
    mod = optimize(func if isinstance(func, IRModule) else IRModule.from_expr(func), 3, target)
    rename()
    found = KernelSet(target)
    ports = [f"x{i}" for i in range(len(mod["main"].params))]
    results = mod["main"].body.ty
    Planner(mod, found, ports, [f"y{i}" for i in range(len(getattr(results, "fields", [0])))]).build()
    names = {b for k in found.kernels.values() if k.plan.sketch != "given" for b in Schedule(k.plan.func).blocks()}
    return {symbol: compile_text(print_kernel(k.func, target), target) for symbol, k in found.kernels.items()}, names


def rename_all(monkeypatch):
    for k, name in enumerate(op.names()):
        monkeypatch.setattr(type(op.get(name)), "name", f"op_{k}")
    plain = te.compute

    def anonymous(shape, fcompute, name="", tag="", attrs=None):
        return plain(shape, fcompute, "stage")

    monkeypatch.setattr(te, "compute", anonymous)


@pytest.mark.parametrize("network", [residual_network, transformer_layer])
def test_kernels_do_not_depend_on_names(network, monkeypatch):
    check(network, monkeypatch, 4)


def check(network, monkeypatch, least):
    before, _ = kernels(network())
    after, names = kernels(network(), lambda: rename_all(monkeypatch))
    assert after == before and len(before) >= least
    assert names and all("stage" in n for n in names), "the computations kept their names"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "bert"])
def test_kernels_of_whole_models_do_not_depend_on_names(name, monkeypatch):
    from benchmarks.models import MODELS, onnx_path

    path = onnx_path(MODELS[name])
    check(lambda: import_model(path).module, monkeypatch, 10)
