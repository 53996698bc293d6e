"""Kernels and models on other processors: exported here, built into a C program there, run under user-mode emulation;
WebAssembly modules run under wasmtime.

What is compared with is the float64 interpreter; errors are relative to the largest output.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export_helpers import cnn, dynamic

import warpbeam
from warpbeam import op
from warpbeam.driver import source
from warpbeam.relay import interp
from warpbeam.relay.expr import Expr, Function, IRModule, Tuple, const, var
from warpbeam.testing.exported import run_exported
from warpbeam.testing.hexagon import run_hexagon
from warpbeam.testing.wasm import run_wasm

pytestmark = pytest.mark.slow

_RISCV = ("riscv64-linux-gnu-gcc", ["qemu-riscv64", "-L", "/usr/riscv64-linux-gnu"])
_VECTOR = ("riscv64-linux-gnu-gcc", ["qemu-riscv64", "-cpu", "rv64,v=true,vext_spec=v1.0", *_RISCV[1][1:]])
_ARM64 = ("aarch64-linux-gnu-gcc", ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"])
_ARM32 = ("arm-linux-gnueabihf-gcc", ["qemu-arm", "-L", "/usr/arm-linux-gnueabihf"])
_X86 = ("gcc", [])
_WASM = ("wasmtime", [])
_HEXAGON = ("qemu-hexagon", ["qemu-hexagon"])
_WINDOWS = ("x86_64-w64-mingw32-gcc", ["wine"])
#: target, form of the export, cross compiler and emulator
MACHINES = [
    ("generic-x86-64-v2", "so", _X86), ("generic-aarch64", "so", _ARM64), ("generic-aarch64", "a", _ARM64),
    ("cortex-a76", "so", _ARM64), ("generic-riscv64", "so", _RISCV), ("generic-riscv64", "a", _RISCV),
    ("generic-riscv64v", "so", _VECTOR), ("generic-armv7", "so", _ARM32), ("generic-armv7", "a", _ARM32),
    ("c32", "c", _ARM32), ("c", "c", _RISCV), ("wasm32", "wasm", _WASM), ("hexagonv66", "so", _HEXAGON),
    ("hexagonv66", "a", _HEXAGON), ("hexagonv66", "o", _HEXAGON), ("generic-x86-64-v2", "o", _X86),
    ("x86_64-windows", "obj", _WINDOWS), ("generic-aarch64", "o", _ARM64), ("generic-riscv64", "o", _RISCV),
    ("generic-armv7", "o", _ARM32),
]  # fmt: skip


def kernels() -> tuple[IRModule, list[str]]:
    """One model whose outputs are the kernel set: products, convolutions, rows, integer dots, functions."""
    rng = np.random.default_rng(3)

    def weight(*shape: int) -> Expr:
        return const((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    def get(name: str, *operands: Expr, **attrs: Any) -> Expr:
        made: Expr = op.get(name)(*operands, **attrs)
        return made

    x, image, q = var("x", shape=(5, 37)), var("image", shape=(1, 8, 11, 13)), var("q", shape=(3, 40), dtype="uint8")
    signed = const(rng.integers(-128, 128, (40, 6)).astype(np.int8))
    outputs = {
        "gemm": get("nn.dense", x, weight(21, 37)),
        "conv": get("nn.relu", get("nn.conv2d", image, weight(12, 8, 3, 3), padding=(1, 1, 1, 1), strides=(2, 2))),
        "depthwise": get("nn.conv2d", image, weight(8, 1, 3, 3), groups=8, padding=(1, 1, 1, 1)),
        "softmax": get("nn.softmax", x, axis=-1),
        "layer norm": get("nn.layer_norm", x, weight(37), weight(37), axis=-1, epsilon=1e-5),
        "integer dot": get("nn.matmul", q, signed, out_dtype="int32"),
        "exp": get("exp", x), "tanh": get("tanh", x), "erf": get("erf", x),
    }  # fmt: skip
    return IRModule.from_expr(Function((x, image, q), Tuple(tuple(outputs.values())))), list(outputs)


def run_there(
    model: Any, form: str, tools: tuple[str, list[str]], inputs: dict[str, np.ndarray], outputs: list[Any], folder: Path
) -> list[np.ndarray]:
    """The outputs of a C program around an exported model."""
    cc, emulator = tools
    if form == "wasm":
        pytest.importorskip("wasmtime", reason="needs wasmtime")
        return run_wasm(model, inputs, outputs, folder)
    for name in (cc, *emulator[:1]):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}")
    if tools is _HEXAGON:  # there is no C library for it: the program around the model is our own
        return run_hexagon(model, form, inputs, outputs, folder, emulator)
    freestanding = form in ("o", "obj") or "armv7" in model.artifact.manifest.target
    return run_exported(model, form, inputs, outputs, folder, [cc], emulator, freestanding)


def random_inputs(module: IRModule) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    made = {}
    for p in module["main"].params:
        shape = tuple(int(d) for d in p.ty.shape)
        values = rng.integers(0, 256, shape) if p.ty.dtype == "uint8" else rng.standard_normal(shape)
        made[p.name] = values.astype(p.ty.dtype)
    return made


@pytest.mark.parametrize("target,form,tools", MACHINES, ids=[f"{t}-{f}" for t, f, _ in MACHINES])
def test_the_kernel_set(target: str, form: str, tools: tuple[str, list[str]], tmp_path: Path) -> None:
    module, names = kernels()
    inputs = random_inputs(module)
    exact = interp.evaluate(module, list(inputs.values()), dtype="float64")
    wanted = [np.asarray(e) for e in exact]
    typed = [w.astype(np.int32 if n == "integer dot" else np.float32) for n, w in zip(names, wanted, strict=True)]
    model = warpbeam.compile(module, target=target, cache=False)
    found = run_there(model, form, tools, inputs, typed, tmp_path)
    for name, got, want in zip(names, found, wanted, strict=True):
        if got.dtype == np.int32:
            assert np.array_equal(got, want), name
        else:  # the longest reduction is 8 * 9; functions are within 4 units in the last place
            assert np.abs(got - want).max() <= 4 * (72 + 2) * 2.0**-24 * np.abs(want).max(), name


@pytest.mark.parametrize("make", [cnn, dynamic], ids=["cnn", "rows"])
@pytest.mark.parametrize("target,form,tools", MACHINES, ids=[f"{t}-{f}" for t, f, _ in MACHINES])
def test_whole_models(make: Any, target: str, form: str, tools: Any, tmp_path: Path) -> None:
    model: onnx.ModelProto = make()
    shapes = {"x": (2, 7, 6)} if make is dynamic else None
    module = source.read(model, shapes, "net").module
    inputs = random_inputs(module)
    exact = interp.evaluate(module, list(inputs.values()), dtype="float64")
    wanted = [np.asarray(e) for e in (exact if isinstance(exact, tuple | list) else [exact])]
    compiled = warpbeam.compile(model, target=target, shapes=shapes, cache=False)
    found = run_there(compiled, form, tools, inputs, [w.astype(np.float32) for w in wanted], tmp_path)
    for got, want in zip(found, wanted, strict=True):
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
