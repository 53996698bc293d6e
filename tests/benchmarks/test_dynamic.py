"""Models with open sizes compute what those of known sizes do; a short stream is measured and summed up."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.dynamic import Request, Row, Sample, markdown
from benchmarks.models import MODELS, build_onnx
from benchmarks.models.net import InputSpec, make_inputs
from benchmarks.symbolic import symbolic_model

OPEN = {"bert": {"batch": 2, "seq": 5}, "mobilenetv2": {"batch": 2, "size": 40}, "resnet50": {"batch": 2, "size": 40}}


@pytest.mark.parametrize("name", OPEN)
def test_open_model_agrees_with_the_one_of_known_sizes(name: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    spec = MODELS[name]
    fixed, inputs = build_onnx(spec.build, {**spec.small, "batch": 3}, name)
    model = symbolic_model(name, OPEN[name], spec.small)
    assert all(d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim if d.dim_value != 3)
    data = make_inputs(inputs)
    want, have = (ort.InferenceSession(m.SerializeToString()).run(None, data) for m in (fixed, model))
    for a, b in zip(want, have, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_worker_answers_new_shapes(tmp_path) -> None:
    from benchmarks.stream_worker import Worker

    path = tmp_path / "bert.onnx"
    path.write_bytes(symbolic_model("bert", OPEN["bert"], MODELS["bert"].small).SerializeToString())
    worker = Worker("warpbeam", "fp32")
    worker.open(str(path), 1)
    for shape in ([1, 7], [3, 4]):
        specs = [[n, shape, "int64", 0, True] for n in ("input_ids", "attention_mask", "token_type_ids")]
        got = worker.feed(specs, 2, str(tmp_path / "out.npz"))
        assert len(got["samples"]) == 2 and got["compiled"] == 1
        with np.load(tmp_path / "out.npz") as out:
            assert out["last_hidden_state"].shape[:2] == tuple(shape)
    assert make_inputs([InputSpec("x", (2,), ones=True)])["x"].tolist() == [1, 1]


def test_summary_of_a_stream() -> None:
    requests = [Request([1, k], {"warpbeam": 0.5, "ort": 0.2}, {"warpbeam": 0.1, "ort": 0.2}) for k in (1, 2)]
    row = Row("bert", 1, requests, [Sample([1, 1], {"warpbeam": 0.1, "static": 0.09, "ort": 0.2})], 1, {})
    assert row.total("later") == pytest.approx(2) and row.total("first") == pytest.approx(0.4)
    assert row.slow("warpbeam") == 2 and row.slow("ort") == 0 and row.of_static() == [pytest.approx(0.9)]
    assert row.to_json()["compile_stalls"] == 0
    assert "|bert|1|2|0.40|2.00|2.00 [2.00-2.00]|0.90 [0.90-0.90], mean 0.90|0|2, 0|0e+00|" in markdown([row], 0)
