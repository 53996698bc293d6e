"""Which of onnxruntime's nodes stand beside which kernel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import layers


def event(name: str, index: int, took: int, operator: str = "Conv") -> dict[str, Any]:
    sizes = {"activation_size": "100", "parameter_size": "20", "output_size": "3"}
    return {"cat": "Node", "name": name, "dur": took, "args": {"node_index": str(index), "op_name": operator, **sizes}}


def test_a_profile_is_read_by_node_over_its_last_runs() -> None:
    events = [event("/Relu_2_output_0_nchwc_kernel_time", 7, took) for took in (900, 10, 30, 20)]
    events += [event("/MatMul_1/MatMulAddFusion_kernel_time", 8, 5, "Gemm"), {"cat": "Session", "name": "model_run"}]
    assert layers.read_profile(events, 3) == [
        layers.Node("/Relu_2", "Conv", 20, 123),
        layers.Node("/MatMul_1", "Gemm", 5, 123),
    ]


def test_nodes_stand_beside_the_kernel_that_was_made_of_them() -> None:
    kernels = [SimpleNamespace(origins=("/Conv_0", "/Relu_0")), SimpleNamespace(origins=("/Conv_1",))]
    nodes = [layers.Node(n, "Conv", 1, 0) for n in ("/Relu_0", "/Conv_0", "/Conv_1", "Reorder")]
    found, rest = layers.beside(kernels, nodes)
    assert found == {0: nodes[:2], 1: nodes[2:3]} and rest == nodes[3:]


@pytest.mark.parametrize("top", [3, 99])
def test_the_table_of_a_model(top: int) -> None:
    """Whichever kernels take longest: what computes several of a node's parts stands beside it once."""
    pytest.importorskip("onnxruntime")
    text = layers.report("dcgan", 1, 2, top)
    cells = [line.split("|")[1:-1] for line in text.splitlines()]
    rows = [row for row in cells if len(row) == 6 and row[1].isdigit()]
    rows = [row for row in rows if row[0] not in ("ours", "onnxruntime")]
    assert len(rows) == 3 if top == 3 else any(float(row[5]) > 0 for row in rows if row[5] != "-")
    assert "|ours|" in text and "|onnxruntime|" in text
