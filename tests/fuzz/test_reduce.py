"""Failing models made smaller: what is left still fails, and little is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import ModelProto

from warpbeam.cli.main import main
from warpbeam.testing.reduce import Reducer
from warpbeam.testing.reduce_checks import check_of, outcome

TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (float[n, 8] x, float[n, 8] y) => (float[n, 8] a, float b)
<float[8] w = {1,2,3,4,5,6,7,8}> {
  s = Add(x, y)
  m = Mul(s, w)
  t = Tanh(m)
  u = Sin(t)
  a = Sub(u, x)
  b = ReduceSum <keepdims = 0> (t)
}"""


def model() -> ModelProto:
    return onnx.parser.parse_model(TEXT)


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: rng.standard_normal((4, 8)).astype(np.float32) for n in "xy"}


def test_nodes_outputs_inputs_and_sizes_go() -> None:
    found = Reducer(lambda m, given: any(n.op_type == "Tanh" for n in m.graph.node)).reduce(model(), arrays())
    assert [n.op_type for n in found.model.graph.node] == ["Tanh"]
    assert found.size == (1, 1) and not found.inputs
    onnx.checker.check_model(found.model)


def test_two_nodes_that_are_needed_together_stay() -> None:
    def both(m: ModelProto, given: dict[str, np.ndarray]) -> bool:
        return {"Add", "Sin"} <= {n.op_type for n in m.graph.node}

    found = Reducer(both).reduce(model(), arrays())
    assert sorted(n.op_type for n in found.model.graph.node) == ["Add", "Sin"]


def test_attributes_go() -> None:
    found = Reducer(lambda m, given: any(n.op_type == "ReduceSum" for n in m.graph.node)).reduce(model(), arrays())
    assert not found.model.graph.node[0].attribute


def test_what_does_not_fail_is_said() -> None:
    with pytest.raises(ValueError, match="does not hold"):
        Reducer(check_of("wrong")).reduce(model(), arrays())


def test_checks_end() -> None:
    reducer = Reducer(lambda m, given: True, limit=5)
    reducer.reduce(model(), arrays())
    assert reducer.tried == 5


def test_outcomes() -> None:
    assert outcome(model(), arrays(), 0, 60) == ("ok", "")
    broken = model()
    broken.graph.node[3].op_type = "NoSuchOperator"
    assert outcome(broken, arrays(), 0, 60)[0] == "refused"
    assert outcome(model(), {}, 0, 60)[0] == "crash"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = model()
    broken.graph.node[3].op_type = "NoSuchOperator"
    path = tmp_path / "m.onnx"
    onnx.save(broken, path)
    assert main(["reduce", str(path), "--check", "refused", "--opt-level", "0"]) == 0
    small = onnx.load(tmp_path / "m.reduced.onnx")
    assert [n.op_type for n in small.graph.node] == ["NoSuchOperator"]
    assert "1 of 6 nodes" in capsys.readouterr().out
    assert set(np.load(tmp_path / "m.reduced.npz")) == {i.name for i in small.graph.input}
    assert main(["reduce", str(path), "--check", "grep -q Nowhere {} && exit 3; exit 0"]) == 1
    assert main(["reduce", str(path), "--check", "grep -q Tanh {} && exit 3"]) == 0
    assert [n.op_type for n in onnx.load(tmp_path / "m.reduced.onnx").graph.node] == ["Tanh"]
