"""The measuring side: tables, the peak loop, the kernel cases, one interleaved run of a small case."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cheap, kernels, onnx_suite, stitching
from benchmarks.harness import Bench, Result, Row, relative_difference
from benchmarks.models import gflop, onnx_path
from benchmarks.models.cases import CASES
from benchmarks.ops import select
from benchmarks.peers import PEERS
from benchmarks.table import finish, geomean, markdown
from benchmarks.worker import peak_rss, timed_slice


def _row() -> Row:
    peers = {"warpbeam": 2e-3, "ort": 4e-3, "ov": 3e-3}
    row = Row("case", 1, 1e9, {n: Result(n, median=t, p10=t, p90=t, precision="fp32") for n, t in peers.items()})
    row.results["torch"] = Result("torch", error="RuntimeError: no | such thing")
    row.results["peak"] = Result("peak", median=1e-3, flops=1e9)
    return row


def test_ratio_and_peak_of_a_row() -> None:
    row = _row()
    best = row.best_peer()
    assert best is not None and best.peer == "ov"
    assert row.ratio() == pytest.approx(1.5)
    assert row.peak() == pytest.approx(1e12)
    assert row.to_json()["best_peer"] == "ov"


def test_table_shows_winner_failure_and_share() -> None:
    text = markdown([_row()], ["warpbeam", "ort", "ov", "torch", "peak"])
    line = next(part for part in text.splitlines() if part.startswith("|case|1|"))
    assert "**2 [2-2]**" in line and "|failed|" in line and "|1.50|500|50 %|" in line
    assert "RuntimeError: no / such thing" in text
    assert geomean([2.0, 8.0]) == pytest.approx(4.0)


def test_peers_of_our_precision_are_the_ones_to_beat() -> None:
    row = _row()
    for name in ("warpbeam", "ort"):
        row.results[name].precision = "bf16"
    best = row.best_peer()
    assert best is not None and best.peer == "ort" and row.ratio() == pytest.approx(2.0)
    assert row.peak() == pytest.approx(2e12)
    line = next(p for p in markdown([row], ["warpbeam", "ort", "ov"]).splitlines() if p.startswith("|case|1|"))
    assert "|1|bf16|**2 [2-2]**|4 [4-4]|3 [3-3] fp32|2.00|500|25 %|" in line
    row.results["ort"].precision = "fp32"
    best = row.best_peer()
    assert best is not None and best.peer == "ov"  # nobody else has it


def test_peers_are_asked_for_what_they_can() -> None:
    for name, words, want in (
        ("warpbeam", "bf16,nn.dense=never", "bf16"), ("ov", "bf16", "bf16"), ("ov", "fp16", "fp32"),
        ("ov_bf16", "fp32", "bf16"), ("ort", "bf16", "fp32"), ("warpbeam", "fp16", "fp16"),
    ):  # fmt: skip
        peer = PEERS[name]()
        peer.ask(words)
        assert peer.precision == want


def test_relative_difference_sees_shapes_and_nan() -> None:
    one = {"y": np.array([1.0, 2.0])}
    assert relative_difference(one, one) == 0
    assert relative_difference({"y": np.array([1.0, 2.2])}, one) == pytest.approx(0.1)
    assert relative_difference({"y": np.array([1.0, np.nan])}, one) == 1e9
    assert relative_difference({"y": np.array([1.0])}, one) == 1e9


def test_timed_slice_measures_seconds() -> None:
    samples = timed_slice(lambda: time.sleep(0.002), 0.03, 1)
    assert 0.002 <= float(np.median(samples)) < 0.05


def test_peak_loop_is_plausible() -> None:
    from benchmarks.peak import FmaPeak

    assert 1 < FmaPeak(1).measure(0.02) < 5000


def test_kernel_references_agree_with_definitions() -> None:
    case = kernels.Case("conv", (6, 3, 4, 3, 2))
    x, w = case.arrays()
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    want = sum(padded[0, 2 + i, 4 + j] @ w[i, j].astype(np.float64) for i in range(3) for j in range(3))
    result = kernels.reference(case)
    assert result.shape == (1, 3, 3, 4) and np.allclose(result[0, 1, 2], want)
    assert case.flops == 2 * 9 * 4 * 27
    assert kernels.error_factor(case, result.astype(np.float32)) < 1
    assert kernels.error_factor(case, (result + 1e-2).astype(np.float32)) > 8
    assert kernels.Case("dense", (512, 32, 512)).bar == 0.80 and kernels.CASES[0].bar == 0.88


class _NumpyModule:
    """Stands in for a compiled module: what `kernels.measure` needs of it."""

    num_threads = 0

    def __init__(self, weight: np.ndarray) -> None:
        self.weight = weight

    def run(self, inputs: dict[str, np.ndarray], out: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        result = np.matmul(inputs["x"], self.weight.T, out=None if out is None else out["y"])
        return {"y": result}


def test_kernel_measurement_judges_speed_and_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.peak import FmaPeak

    case = kernels.Case("dense", (16, 32, 64))
    weight = case.arrays()[1]
    monkeypatch.setattr(kernels, "make_relay", lambda case: weight)
    monkeypatch.setattr(kernels, "compiled", lambda w, accuracy: (_NumpyModule(w), "direct"))
    outcome = kernels.measure(case, FmaPeak(1), 2, 0.01)
    assert outcome.error_factor < 8 and 0 < outcome.share < 1.5 and outcome.gflops > 0
    monkeypatch.setattr(kernels, "compiled", lambda w, accuracy: (_NumpyModule(w + 1e-2), "direct"))
    wrong = kernels.measure(case, FmaPeak(1), 1, 0.01)
    assert wrong.error_factor > 8 and not wrong.ok


def test_kernel_measurement_names_the_algorithm() -> None:
    case = kernels.Case("conv", (28, 64, 64, 3, 1))
    for accuracy, words in (("exact", "direct"), ("default", "winograd F(2x2,3x3)")):
        module, algorithm = kernels.compiled(kernels.make_relay(case), accuracy)
        (result,) = module.run({"x": case.arrays()[0]}).values()
        assert algorithm == words and kernels.error_factor(case, result) < 1


def test_chain_and_add_models_are_valid() -> None:
    import onnx

    for data, nodes in ((cheap.chain_model(12), 12), (cheap.add_model(), 1)):
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert len(model.graph.node) == nodes


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_this_process_and_its_children() -> None:
    assert 1e7 < cheap.tree_rss(os.getpid()) < 1e11
    assert 1e7 < peak_rss() < 1e11


def test_selecting_cases() -> None:
    assert select("C2D", "1") == [f"C2D_{i}_b1" for i in range(4)]
    assert len(select("C2D", "1,16")) == 8
    assert select("gemmw_512x32x512", "1") == ["gemmw_512x32x512"]


def test_interleaved_run_and_a_missing_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.setenv("WARPBEAM_BENCH_CACHE", str(tmp_path))
    spec = CASES["dw_7_1024"]
    with Bench(["ort", "peak"], 1) as bench:
        row = bench.measure(spec.name, f"op:{spec.name}", onnx_path(spec), gflop(spec)[0] * 1e9, 2, 0.02)
        broken = bench.measure("gone", "op:gone", tmp_path / "gone.onnx", 1.0, 1, 0.01)
    ort = row.results["ort"]
    assert not ort.error and 0 < ort.p10 <= ort.median <= ort.p90 and len(ort.slices) == 2 and ort.rel_diff == 0
    assert row.peak() and row.peak() > 1e9 and broken.results["ort"].error


def test_stitching_counts_what_each_way_of_joining_leaves(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    def vector(name: str, shape: list[int]) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [("Tanh", "x", "a"), ("Exp", "a", "b"), ("Neg", "b", "c"), ("Mul", "c w", "d"), ("ReduceMax", "d", "y")]
    graph = helper.make_graph(
        [helper.make_node(k, i.split(), [o], **({"axes": [1]} if k == "ReduceMax" else {})) for k, i, o in nodes],
        "g",
        [vector("x", [8, 64])],
        [vector("y", [8, 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [64], [0.5 + k for k in range(64)])],
    )
    path = tmp_path / "m.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    lines = [stitching.counted("m", 1, v, *stitching.compiled(str(path), v)) for v in stitching.VARIANTS]
    assert [x.kernels for x in lines] == [5, 1, 1] and [x.memory_bound for x in lines] == [5, 1, 1]
    assert [x.bytes for x in lines] == [4 * 2 * 2048 + 2048 + 32 + 256, 2048 + 32 + 256, 2048 + 32 + 256]
    assert [x.weights for x in lines] == [256, 256, 256]
    for line, seconds in zip(lines, (4e-3, 2e-3, 1e-3), strict=True):
        line.samples, line.rounds = [seconds] * 2, [seconds] * 2
    rows = stitching.markdown(lines).splitlines()[2:]
    assert [r.split("|")[8] for r in rows] == ["0.0 [8.88]", "0.0 [1.00]", "0.0 [1.00]"]
    assert rows[0].startswith("|m|1|alone|5 [5.00]|") and rows[0].endswith("|4 [4-4]|2.000 [2.000-2.000]|")
    assert rows[2].endswith("|1 [1-1]|0.500 [0.500-0.500]|")
    lines[2].samples, lines[2].rounds = [k * 1e-3 for k in range(1, 12)], [1e-3, 3e-3]
    assert stitching.markdown(lines).endswith("|6 [2-10]|1.000 [0.500-1.500]|")
    for line in (lines[1], lines[2]):  # of 100 ratios, 41 to 60 of the sorted ones hold the median with 95 %
        line.rounds = [1.0] * 100 if line is lines[1] else [k / 100 for k in range(100, 0, -1)]
    assert stitching.markdown(lines[1:]).endswith("|0.505 [0.410-0.600]|")


def test_stitching_loads_each_variant_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stitching, "timed_slice", lambda run, seconds, batch: [run() and 1.0])
    monkeypatch.setattr(stitching, "MODELS", {"dcgan": stitching.MODELS["dcgan"]})
    lines = stitching.measure("dcgan", 1, 5, 0.0, loads=2)
    assert [x.variant for x in lines] == list(stitching.VARIANTS) and all(len(x.rounds) == 5 for x in lines)


def test_cases_with_host_calls_are_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["onnx_suite", "--filter", "^test_(abs|string_concat|strnormalizer_nostop.*)$"])
    assert onnx_suite.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 cases compiled alone, 2 with host calls, 0 refused"
    assert sorted(lines[1:]) == ["  string.concat: 1", "  string.normalize: 1"]


@dataclass
class Finished:
    name: str
    ok: bool


def test_what_was_measured_is_written_and_decides_the_exit_code(tmp_path: Path) -> None:
    good, bad = Finished("a", True), Finished("b", False)
    assert (finish([good], ""), finish([good, bad], ""), finish([], "")) == (0, 1, 1)
    path = tmp_path / "out.json"
    assert finish([good, bad], str(path)) == 1
    data = json.loads(path.read_text())
    assert data["cases"] == [{"name": "a", "ok": True}, {"name": "b", "ok": False}] and data["machine"]["cores"] > 0
