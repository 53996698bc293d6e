"""--precision reaches everything that a command compiles, and is said by what it prints."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from warpbeam.target import get

Run = Callable[..., tuple[int, str, str]]
PAIRS = "avx512bf16" in get("native").required_features


@pytest.fixture
def layers(tmp_path: Path) -> str:
    """Two dense layers with an activation between."""
    w = np.random.default_rng(0).standard_normal((2, 64, 64)).astype(np.float32) / 8
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (128, 64)) for n in "xy"]
    graph = helper.make_graph(
        nodes, "layers", ends[:1], ends[1:], [numpy_helper.from_array(w[k], f"w{k}") for k in range(2)]
    )
    path = tmp_path / "layers.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return str(path)


@pytest.mark.parametrize("precision, said", [("bf16", "bf16 (bfloat16, float32)"), ("fp16", "fp16 (float16, float32)")])
def test_compile_and_inspect(run: Run, layers: str, tmp_path: Path, precision: str, said: str) -> None:
    file = str(tmp_path / "m.wb")
    code, out, err = run("compile", layers, "-o", file, "--precision", precision, "--explain", "--no-cache")
    assert code == 0, err
    pairs = 2 if precision == "bf16" and PAIRS else 0
    assert f"precision {precision}: {pairs} products" in out and f", {said}, " in out
    code, out, _ = run("inspect", file, "--json")
    assert json.loads(out)["precision"] == said
    code, out, _ = run("bench", file, "--json", "--threads", "1")
    assert code == 0 and json.loads(out)["precision"] == said


def test_the_limit_is_that_of_the_precision() -> None:
    from warpbeam.runtime.manifest import Manifest
    from warpbeam.runtime.profiler import Roof, _in_pairs

    roof = Roof(1e9, ((1e6, 1e9),))
    for precision, features, flops in (
        ("bf16 (bfloat16, float32)", ("avx512bf16",), 2e9), ("bf16 (bfloat16, float32)", (), 1e9),
        ("float32", ("avx512bf16",), 1e9),
    ):  # fmt: skip
        manifest = Manifest("m", (), (), precision=precision, cpu_features=features)
        assert _in_pairs(roof, manifest) == Roof(flops, roof.levels)


def test_verify_says_the_precision_and_its_error(run: Run, layers: str) -> None:
    errors = []
    for words in ("fp32", "fp16", "bf16", "bf16,nn.matmul=never"):
        code, out, err = run("verify", layers, "--precision", words, "--no-cache", "--json")
        assert code == 0, out + err
        told = json.loads(out)
        assert told["precision"] == words
        errors.append(max(d["relative"] for d in told["differences"] if d["against"] == "interpreter"))
    assert errors[3] <= 1e-5 and errors[0] <= 1e-5 < errors[1] < errors[2] < 4e-2
    code, out, _ = run("verify", layers, "--precision", "bf16", "--no-cache")
    assert code == 0 and "precision bf16" in out.splitlines()[-1]


def test_wrong_numbers_are_still_found(run: Run, layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from warpbeam.driver import verify

    monkeypatch.setitem(verify.TOLERANCE, "bfloat16", 1e-4)
    code, out, _ = run("verify", layers, "--precision", "bf16", "--no-cache", "--no-bisect")
    assert code == 1 and "DIFFERS" in out


@pytest.mark.parametrize("words", ["bf8", "bf16,nn.dense", "bf16,no.such=never"])
def test_unknown(run: Run, layers: str, words: str) -> None:
    code, _, err = run("compile", layers, "--precision", words)
    assert code != 0 and words.split(",")[0] in err
