"""The same model gives the same bytes, whatever the hash seed and the number of compiling processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

CHILD = """
import hashlib, sys, warpbeam
for path in sys.argv[2:]:
    warpbeam.compile(path, cache=False, workers=int(sys.argv[1]), name="m").save(path + ".wb")
    print(hashlib.sha256(open(path + ".wb", "rb").read()).hexdigest())
"""


def _save(path: Path, nodes: list[Any], shape: list[Any], weights: dict[str, np.ndarray]) -> str:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", None))]
    held = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, ir_version=8, opset_imports=opset).SerializeToString())
    return str(path)


def _models(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    node = helper.make_node
    conv = [
        node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["c", "w1"], ["d"]),
        node("GlobalAveragePool", ["d"], ["y"]),
    ]
    block = [
        node("MatMul", ["x", "q"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        node("MatMul", ["x", "b"], ["s"]),
        node("Softmax", ["s"], ["p"]),
        node("MatMul", ["p", "a"], ["o"]),
        node("Add", ["o", "x"], ["r"]),
        node("LayerNormalization", ["r", "g", "h"], ["y"], axis=-1),
    ]
    dynamic = [
        node("Exp", ["x"], ["a"]),
        node("ReduceSum", ["a"], ["b"], keepdims=1),
        node("Concat", ["x", "x"], ["c"], axis=1),
        node("Mul", ["c", "b"], ["y"]),
    ]
    return [
        _save(folder / "conv.onnx", conv, [1, 3, 16, 16], {"w0": array(8, 3, 3, 3), "w1": array(4, 8, 1, 1)}),
        _save(folder / "block.onnx", block, [2, 8, 16], {"q": array(16, 16), "g": array(16), "h": array(16)}),
        _save(folder / "dynamic.onnx", dynamic, ["batch", "size"], {}),
    ]


def _digests(paths: list[str], seed: str, workers: int) -> list[str]:
    env = dict(os.environ, PYTHONHASHSEED=seed)
    command = [sys.executable, "-c", CHILD, str(workers), *paths]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()


def test_artefacts_do_not_depend_on_hash_seed_or_workers(tmp_path: Path) -> None:
    runs = (("1", 1), ("2", 2))
    folders = [tmp_path / seed for seed, _ in runs]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(_digests, _models(f), *r) for f, r in zip(folders, runs, strict=True)]
        first, second = (job.result() for job in jobs)
    assert len(first) == 3 and first == second


@pytest.mark.parametrize("count", [700])
def test_long_chains_of_calls_and_of_operators(count: int) -> None:
    """More calls than one function of the entry holds, over a symbolic size; and no recursion over the graph."""
    import warpbeam

    node = helper.make_node
    calls = [node("MatMul", [f"t{i}", "w"], [f"t{i + 1}"]) for i in range(count)]
    light = [node("Neg" if i % 2 else "Exp", [f"t{i}"], [f"t{i + 1}"]) for i in range(count, 6 * count)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 4]) for n in ("t0", f"t{6 * count}")]
    turn = np.roll(np.eye(4, dtype=np.float32), 1, axis=1)
    graph = helper.make_graph([*calls, *light], "g", ends[:1], ends[1:], [numpy_helper.from_array(turn, "w")])
    module = warpbeam.compile(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    for rows in (1, 3):
        x = np.linspace(-1, 1, rows * 4, dtype=np.float32).reshape(rows, 4)
        want = x[:, [(i - count) % 4 for i in range(4)]]
        for i in range(count, 6 * count):
            want = -want if i % 2 else np.exp(want)
        np.testing.assert_allclose(module(x), want, rtol=1e-4)


def test_saved_bytes_are_stable_within_a_process(tmp_path: Path) -> None:
    import warpbeam

    path = _models(tmp_path)[0]
    a, b = (warpbeam.compile(path, cache=False, workers=0, name="m") for _ in range(2))
    digests = {hashlib.sha256(m.artifact.to_bytes()).hexdigest() for m in (a, b)}
    assert len(digests) == 1
