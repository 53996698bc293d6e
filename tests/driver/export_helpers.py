"""Models to export, and C and C++ programs that run them on arrays of a test and compare the results bit for bit."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from warpbeam.runtime.abi import DLPACK_TYPES

RNG = np.random.default_rng(11)
Arrays = Mapping[str, np.ndarray]


def compiler(language: str = "c") -> str:
    """The path of gcc or g++; skips the test where it is absent."""
    name = {"c": "gcc", "c++": "g++"}[language]
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def tool(name: str, *arguments: str | Path) -> str:
    """What a program of binutils or the C library prints; skips the test where it is absent."""
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    return subprocess.run([name, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def build(language: str, *arguments: str | Path, folder: Path) -> None:
    """Compiles; a warning is a failure."""
    standard = {"c": "-std=c11", "c++": "-std=c++14"}[language]
    done = subprocess.run(
        [compiler(language), standard, "-Wall", "-Wextra", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr[:3000]


def execute(program: Path, *arguments: str) -> str:
    """What a program prints; it must end with 0."""
    done = subprocess.run([str(program), *arguments], cwd=program.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{done.returncode} {done.stdout[-1500:]} {done.stderr[-500:]}"
    return done.stdout


# ------------------------------------------------------------------------------------------------------------- models


def _array(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / 3).astype(np.float32)


def _model(nodes: Sequence[Any], inputs: Any, outputs: Any, constants: Arrays, name: str) -> onnx.ModelProto:
    def info(rows: Any) -> list[Any]:
        return [h.make_tensor_value_info(n, kind, shape) for n, kind, shape in rows]

    graph = h.make_graph(list(nodes), name, info(inputs), info(outputs),
                         [nh.from_array(a, n) for n, a in constants.items()])  # fmt: skip
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def cnn() -> onnx.ModelProto:
    """Two convolutions, a pooling, a dense layer and a softmax: all shapes are numbers."""
    nodes = [
        h.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]), h.make_node("Relu", ["c1"], ["r1"]),
        h.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        h.make_node("Conv", ["p1", "w2"], ["c2"], pads=[1, 1, 1, 1]), h.make_node("Sigmoid", ["c2"], ["s2"]),
        h.make_node("GlobalAveragePool", ["s2"], ["g"]), h.make_node("Flatten", ["g"], ["f"]),
        h.make_node("Gemm", ["f", "w3", "b3"], ["l"]), h.make_node("Softmax", ["l"], ["y"], axis=1),
    ]  # fmt: skip
    constants = {"w1": _array(8, 3, 3, 3), "b1": _array(8), "w2": _array(16, 8, 3, 3), "w3": _array(16, 10),
                 "b3": _array(10)}  # fmt: skip
    return _model(nodes, [("x", T.FLOAT, [1, 3, 12, 12])], [("y", T.FLOAT, [1, 10])], constants, "small cnn")


def dynamic() -> onnx.ModelProto:
    """Rows of any number, normalised after a dense layer; the second output has another shape."""
    nodes = [
        h.make_node("MatMul", ["x", "w"], ["m"]), h.make_node("Tanh", ["m"], ["t"]),
        h.make_node("Softmax", ["t"], ["y"], axis=-1), h.make_node("Transpose", ["y"], ["z"], perm=[0, 2, 1]),
    ]  # fmt: skip
    outputs = [("y", T.FLOAT, ["batch", "rows", 9]), ("z", T.FLOAT, ["batch", 9, "rows"])]
    return _model(nodes, [("x", T.FLOAT, ["batch", "rows", 6])], outputs, {"w": _array(6, 9)}, "any size")


def branches() -> onnx.ModelProto:
    """An If whose branches do different work."""
    value = h.make_tensor_value_info("b", T.FLOAT, [4, 5])
    then = h.make_graph([h.make_node("Exp", ["x"], ["b"])], "then", [], [value])
    other = h.make_graph([h.make_node("Mul", ["x", "x"], ["b"])], "else", [], [value])
    nodes = [h.make_node("If", ["c"], ["i"], then_branch=then, else_branch=other), h.make_node("Relu", ["i"], ["y"])]
    return _model(nodes, [("c", T.BOOL, []), ("x", T.FLOAT, [4, 5])], [("y", T.FLOAT, [4, 5])], {}, "branches")


def loop() -> onnx.ModelProto:
    """A Loop: s = tanh(s @ w) while its largest element is above a limit, at most n times."""
    body = h.make_graph(
        [h.make_node("MatMul", ["s_in", "w"], ["m"]), h.make_node("Tanh", ["m"], ["s_out"]),
         h.make_node("ReduceMax", ["s_out"], ["top"], keepdims=0), h.make_node("Greater", ["top", "limit"], ["go"])],
        "body",
        [h.make_tensor_value_info("i", T.INT64, []), h.make_tensor_value_info("c_in", T.BOOL, []),
         h.make_tensor_value_info("s_in", T.FLOAT, [3, 4])],
        [h.make_tensor_value_info("go", T.BOOL, []), h.make_tensor_value_info("s_out", T.FLOAT, [3, 4])],
    )  # fmt: skip
    nodes = [h.make_node("Loop", ["n", "", "s"], ["y"], body=body)]
    constants = {"w": _array(4, 4), "limit": np.float32(0.01)}
    return _model(nodes, [("n", T.INT64, []), ("s", T.FLOAT, [3, 4])], [("y", T.FLOAT, [3, 4])], constants, "loop")


# --------------------------------------------------------------------------------------------------------- C programs


def _c_array(name: str, array: np.ndarray) -> str:
    data = np.ascontiguousarray(array).tobytes() or b"\0"
    return f"static _Alignas(64) unsigned char {name}[] = {{{','.join(map(str, data))}}};"


def _tensors(module: Any, inputs: Arrays, outputs: Arrays) -> list[str]:
    """Data and descriptors of all arguments; inputs are a0, a1, …, expected outputs e0, e1, …"""
    lines, rows = [], []
    specs = [(s, inputs[s.name]) for s in module.inputs] + [(s, outputs[s.name]) for s in module.outputs]
    for i, (spec, array) in enumerate(specs):
        is_input = i < len(module.inputs)
        code, bits = DLPACK_TYPES[spec.dtype]
        lines.append(_c_array(f"{'a' if is_input else 'e'}{i}", array))
        if not is_input:
            lines.append(f"static _Alignas(64) unsigned char a{i}[{max(array.nbytes, 1)}];")
        lines.append(f"static int64_t s{i}[] = {{{', '.join(map(str, array.shape)) or '0'}}};")
        rows.append(f"{{a{i}, 1, 0, {array.ndim}, {code}, {bits}, 1, s{i}, 0, 0}}")
    return [*lines, f"static wb_tensor t[] = {{{', '.join(rows)}}};"]


def _compare(module: Any, outputs: Arrays) -> list[str]:
    first = len(module.inputs)
    lines = []
    for i, spec in enumerate(module.outputs, first):
        size = outputs[spec.name].nbytes
        lines.append(f'  if (memcmp(a{i}, e{i}, {size})) {{ printf("output {i} differs\\n"); return 3; }}')
        lines.append(f"  memset(a{i}, 0, {size});")
    return lines


def c_program(module: Any, name: str, inputs: Arrays, freestanding: bool, threads: bool) -> str:
    """A C program that runs a model in every way its header offers."""
    outputs = module.run(inputs)
    count = len(module.inputs) + len(module.outputs)
    static = all(isinstance(e, int) for s in (*module.inputs, *module.outputs) for e in s.shape)
    if static:
        own = ", ".join(f"(void*)a{i}" for i in range(count))
    else:
        own = ", ".join(f"&t[{i}]" for i in range(count))
    make = f"static _Alignas(64) unsigned char memory[1 << 20];\n#define MAKE() {name}_create_in(memory, sizeof memory)"
    if not freestanding:
        make = f"#define MAKE() {name}_create()"
    first = len(module.inputs)
    check = _compare(module, outputs)
    lines = [
        f'#include "{name}.h"', "#include <stdio.h>", "#include <string.h>", make,
        *_tensors(module, inputs, outputs), "int main(void) {",
        f"  wb_tensor* args[{count}];", f"  for (int i = 0; i < {count}; ++i) args[i] = &t[i];",
        f"  {name}_context* c = MAKE();", "  if (!c) return 1;",
        f'  if ({name}_run(c, {own})) {{ printf("%s\\n", {name}_error(c)); return 2; }}', *check,
        f'  if ({name}_call(c, args, {count})) {{ printf("%s\\n", {name}_error(c)); return 2; }}', *check,
        f"  if ({name}_entry((wb_ctx*)c, args, {count})) return 2;", *check,
    ]  # fmt: skip
    for i in range(first, count):
        lines += [f"  memset(s{i}, 0, sizeof s{i});"] if outputs[module.outputs[i - first].name].ndim else []
    lines.append(f"  if ({name}_shapes(c, args, {count})) return 4;")
    for i, spec in enumerate(module.outputs, first):
        lines += [f"  if (s{i}[{k}] != {e}) return 5;" for k, e in enumerate(outputs[spec.name].shape)]
    if threads:
        lines.append(f"  if ({name}_set_threads(c, 1) != 1 || {name}_run(c, {own})) return 6;")
        lines += check
        lines.append(f"  if ({name}_run(NULL, {own})) return 7;")
        lines += check
    lines += [
        f"  if ({name}_num_inputs() != {first} || strcmp({name}_input_name(0), {name.upper()}_INPUT_0_NAME)) return 8;",
        f"  if ({name}_output_name({count}) || {name}_abi() != 1) return 9;",
        f"  if (!{name}_call(c, args, 0) || !{name}_error(c)[0]) return 10;",
        f"  {name}_destroy(c);" if not freestanding else "", "  return 0;", "}", "",
    ]  # fmt: skip
    return "\n".join(lines)
