"""The benchmark models: the same bytes twice, valid ONNX, sane outputs, one meaning in ONNX and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.harness import relative_difference
from benchmarks.models import MODELS, Spec, build_onnx, gflop, torch_module
from benchmarks.models.cases import CASES
from benchmarks.models.net import draw, make_inputs

SAMPLE_CASES = (
    "C1D_0_b1",
    "GRP_2_b1",
    "DEP_2_b1",
    "T2D_3_b1",
    "CAP_3_b1",
    "NRM_0_b1",
    "TBS_2_b1",
    "CBR_2_b1",
    "dw_7_1024",
    "gelu_128x768",
    "gemmw_512x16x512",
)


def _sizes(name: str) -> tuple[Spec, dict[str, Any]]:
    spec = MODELS.get(name) or CASES[name]
    return spec, spec.small or spec.sizes


def _run_ort(model: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))


@pytest.mark.parametrize("name", [*MODELS, *SAMPLE_CASES])
def test_onnx_is_deterministic_valid_and_sane(name: str) -> None:
    import onnx

    spec, sizes = _sizes(name)
    model, inputs = build_onnx(spec.build, sizes, name)
    again, _ = build_onnx(spec.build, sizes, name)
    assert model.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    onnx.checker.check_model(model, full_check=True)
    results = _run_ort(model, make_inputs(inputs))
    for info in model.graph.output:
        value = results[info.name]
        assert value.shape == tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
        assert np.isfinite(value).all() and 1e-3 < np.abs(value).max() < 1e4


@pytest.mark.parametrize("name", [*MODELS, *SAMPLE_CASES])
def test_torch_module_computes_the_same(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    spec, sizes = _sizes(name)
    model, specs = build_onnx(spec.build, sizes, name)
    inputs = make_inputs(specs)
    module, ins, outs = torch_module(spec.build, sizes)
    with torch.inference_mode():
        values = module(*[torch.from_numpy(inputs[n]) for n in ins])
    ours = {n: v.numpy() for n, v in zip(outs, values, strict=True)}
    assert relative_difference(ours, _run_ort(model, inputs)) < 2e-5


@pytest.mark.parametrize("name", MODELS)
def test_work_of_the_full_model(name: str) -> None:
    plain, whole = gflop(MODELS[name])
    assert plain == pytest.approx(MODELS[name].gflop, rel=5e-3, abs=6e-3)
    assert whole >= plain


def test_every_case_has_consistent_shapes() -> None:
    assert len(CASES) > 140
    for spec in CASES.values():
        assert gflop(spec)[0] >= 0


def test_weights_depend_on_seed_and_name_only() -> None:
    assert np.array_equal(draw(3, "a", (4,)), draw(3, "a", (4,)))
    assert not np.array_equal(draw(3, "a", (4,)), draw(4, "a", (4,)))
    assert not np.array_equal(draw(3, "a", (4,)), draw(3, "b", (4,)))
