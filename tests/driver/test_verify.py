"""`verify` accepts what is right, and names the pass, kernel and stage that is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from warpbeam import op
from warpbeam.driver import bisect, pipeline
from warpbeam.driver.build import llvm_codegen
from warpbeam.driver.verify import check, difference, verify
from warpbeam.ir.diagnostics import VerifyError
from warpbeam.ir.transform import module_pass
from warpbeam.relay.expr import Function, IRModule, const, var
from warpbeam.te.tensor import compute


def model() -> Function:
    """relu(x @ w) + 1, then the sum of its rows: two kernels."""
    x = var("x", shape=(6, 32))
    w = const(np.random.default_rng(0).standard_normal((16, 32)).astype(np.float32))
    y = op.get("add")(op.get("nn.relu")(op.get("nn.dense")(x, w)), const(np.float32(1)))
    return Function((x,), op.get("sum")(y, axis=(1,)))


# ------------------------------------------------------------------------------------------------------- comparing


def test_difference_measures_against_the_largest_value() -> None:
    d = difference("y", "oracle", np.float32([1, 2, 3.5]), np.float64([1, 2, 4]))
    assert d.error == 0.5 and d.relative == 0.125 and d.where == (2,) and (d.got, d.expected) == (3.5, 4.0)
    assert not d.passed and d.percentiles[50] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_equal_specials_are_equal(value: float) -> None:
    array = np.array([value, 1], np.float32)
    assert difference("y", "o", array, array.astype(np.float64)).passed


@pytest.mark.parametrize(("got", "expected"), [(np.nan, 1), (1, np.nan), (np.inf, 1), (np.inf, -np.inf), (1, np.inf)])
def test_wrong_specials_are_infinitely_wrong(got: float, expected: float) -> None:
    d = difference("y", "o", np.float32([got, 0]), np.float64([expected, 0]))
    assert not d.passed and d.error == np.inf


def test_integers_must_be_equal() -> None:
    big = np.array([2**62 + 1], np.int64)
    assert difference("y", "o", big, big).passed
    assert not difference("y", "o", np.array([3], np.int8), np.array([4], np.int8)).passed


def test_shapes_and_empty_tensors() -> None:
    assert difference("y", "o", np.ones((0, 3), np.float32), np.ones((0, 3))).passed
    d = difference("y", "o", np.ones((2, 3), np.float32), np.ones(6))
    assert not d.passed and "shape" in d.note


# --------------------------------------------------------------------------------------------------------- verdicts


def test_a_right_model_passes() -> None:
    result = verify(model(), seed=4)
    assert result and not result.findings
    assert [d.against for d in result.differences] == ["interpreter"]
    assert result.data()["passed"] is True


def test_every_level_passes() -> None:
    for level in range(4):
        assert verify(model(), opt_level=level).passed


def test_a_wrong_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    @module_pass(opt_level=0, name="Spoil")
    def spoil(mod: IRModule, ctx: Any) -> IRModule:
        return mod.map(lambda f: Function(f.params, op.get("negative")(f.body)))

    passes = pipeline.graph_passes

    def with_spoil(target: Any) -> list[object]:
        steps = passes(target)
        return [*steps[:2], spoil, *steps[2:]]

    monkeypatch.setattr(pipeline, "graph_passes", with_spoil)
    result = verify(model())
    assert not result.passed and result.findings[0].startswith("graph pass Spoil ")


def test_a_wrong_computation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    relu = type(op.get("nn.relu"))

    def wrong(self: Any, attrs: Any, inputs: Any, out_type: Any) -> Any:
        return compute(inputs[0].shape, lambda *i: inputs[0][i] * 2.0, name="relu")

    monkeypatch.setattr(relu, "compute", wrong)
    result = verify(model())
    text = "\n".join(result.findings)
    assert not result.passed
    assert "is the first that differs" in text and "computation (compute)" in text and "graph pass" not in text


def test_wrong_machine_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = llvm_codegen.print_kernel

    def wrong(func: Any, target: Any) -> str:
        return right(func, target).replace("fadd", "fsub")

    monkeypatch.setattr(llvm_codegen, "print_kernel", wrong)
    result = verify(model())
    assert not result.passed and result.findings[-1].endswith("code generation")
    with pytest.raises(VerifyError, match="of its largest value") as caught:
        check(model())
    assert "code generation" in caught.value.hint


def test_steps_show_every_kernel() -> None:
    import warpbeam

    module = warpbeam.compile(model(), cache=False, workers=1)
    x = np.random.default_rng(1).standard_normal((6, 32)).astype(np.float32)
    seen = list(bisect.steps(module, [x]))
    assert len(seen) == len(module.artifact.program().body)
    assert np.array_equal(seen[-1][2][0], module(x))
