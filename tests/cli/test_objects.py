"""Commands on models whose inputs or outputs are strings or sequences."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h

Run = Callable[..., tuple[int, str, str]]


def saved(folder: Path, name: str, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> str:
    graph = h.make_graph(list(nodes), name, list(inputs), list(outputs))
    path = folder / f"{name}.onnx"
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=9), str(path))
    return str(path)


@pytest.fixture
def strings(tmp_path: Path) -> str:
    ports = {n: h.make_tensor_value_info(n, T.STRING, [2]) for n in "aby"}
    nodes = [h.make_node("StringConcat", ["a", "b"], ["y"])]
    return saved(tmp_path, "words", nodes, [ports["a"], ports["b"]], [ports["y"]])


@pytest.fixture
def sequence(tmp_path: Path) -> str:
    """A list of two tensors goes in; the list with exp of its first one behind comes out."""
    zero = h.make_node("Constant", [], ["zero"], value_int=0)
    nodes = [zero, h.make_node("SequenceAt", ["s", "zero"], ["x"]), h.make_node("Exp", ["x"], ["e"]),
             h.make_node("SequenceInsert", ["s", "e"], ["t"])]  # fmt: skip
    kind = [h.make_tensor_sequence_value_info(n, T.FLOAT, [3]) for n in "st"]
    return saved(tmp_path, "list", nodes, kind[:1], kind[1:])


def test_strings(run: Run, strings: str, tmp_path: Path) -> None:
    given, out = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(given, a=np.array(["p", "qé"]), b=np.array(["x", ""]))
    code, text, _ = run("run", strings, "-i", str(given), "-o", str(out))
    assert code == 0 and "string" in text
    assert np.load(out)["y"].tolist() == ["px", "qé"]
    for command in ("run", "bench", "profile"):
        code, text, error = run(command, strings, *(["--repeat", "1"] if command != "run" else []), "--json")
        assert code == 0 and json.loads(text)["model"] == "words", error
    code, _, error = run("verify", strings)
    assert code == 1 and "strings cannot be verified" in error


def test_sequences(run: Run, sequence: str, tmp_path: Path) -> None:
    given, out = tmp_path / "in.npz", tmp_path / "out.npz"
    a, b = np.arange(3, dtype=np.float32), np.ones(3, np.float32)
    np.savez(given, **{"s[0]": a, "s[1]": b})
    code, _, error = run("run", sequence, "-i", str(given), "-o", str(out))
    assert code == 0, error
    found = dict(np.load(out))
    assert list(found) == ["t[0]", "t[1]", "t[2]"] and np.allclose(found["t[2]"], np.exp(a))
    assert np.array_equal(found["t[1]"], b)
    for command in ("bench", "profile"):
        code, _, error = run(command, sequence, "-i", str(given), "--repeat", "1")
        assert code == 0, error
    code, _, error = run("run", sequence, "-i", str(tmp_path / "out.npz"))
    assert code == 1 and "unknown inputs t[0]" in error
