"""Random models: always the same for a seed, valid, and right at every level; workers whose deaths are results."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from warpbeam.testing.fuzz import crew, judge
from warpbeam.testing.fuzz.__main__ import main
from warpbeam.testing.fuzz.grow import Grower, Value, grow


def test_a_seed_and_an_index_give_the_same_model() -> None:
    first, again, other = grow(5, 3), grow(5, 3), grow(5, 4)
    assert first.model.SerializeToString() == again.model.SerializeToString()
    assert all(np.array_equal(first.inputs[n], again.inputs[n]) for n in first.inputs)
    assert first.model.SerializeToString() != other.model.SerializeToString()


def test_models_are_valid_and_cover_operators() -> None:
    ops: set[str] = set()
    for index in range(40):
        grown = grow(0, index)
        onnx.checker.check_model(grown.model)
        assert 1 <= len(grown.model.graph.node) <= 30 and grown.expected
        for name, array in grown.expected.items():
            assert array.dtype.kind != "f" or np.isfinite(array).all(), name
        ops.update(grown.ops)
    assert len(ops) > 80


def test_what_cannot_be_judged_is_dropped() -> None:
    grower = Grower(random.Random(0))
    near = Value("x", np.array([0.5, 1.0]), "float32", error=1e-3)
    assert not grower.emit("Round", [near])
    assert not grower.emit("Log", [Value("y", np.array([-1.0]), "float32")])
    assert not grower.emit("ArgMax", [Value("z", np.array([1.0, 1.0001]), "float32", error=1e-3)], axis=0)
    assert grower.dropped == {"ambiguous": 1, "ill-conditioned": 1, "not finite, or large": 1}
    assert grower.emit("Round", [Value("w", np.array([0.7, 1.0]), "float32", error=1e-3)])


def test_a_sample_is_right_at_every_level() -> None:
    for index in range(4):
        verdict = judge.judge(11, index, [0, 1, 3], False, lambda stage: None)
        assert not verdict.failures, index


def test_a_wrong_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = judge.warpbeam.compile

    class Off:
        def __init__(self, module: Any) -> None:
            self.module = module

        def run(self, inputs: Any) -> dict[str, np.ndarray]:
            return {n: a + np.ones((), a.dtype) for n, a in self.module.run(inputs).items()}

    monkeypatch.setattr(judge.warpbeam, "compile", lambda *a, **k: Off(right(*a, **k)))
    assert judge.judge(11, 0, [0], False, lambda stage: None).failures


def _task(task: str, note: Any) -> str:
    note("begun")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "hang":
        time.sleep(60)
    if task == "eat":
        return str(len(bytearray(1 << 30)))
    if task == "raise":
        raise KeyError("no")
    return task.upper()


def test_workers_die_alone() -> None:
    tasks = ["a", "die", "hang", "eat", "raise", "b"]
    found = {o.task: o for o in crew.run_all(tasks, _task, 2, 2.0, 256 << 20)}
    assert {t: o.kind for t, o in found.items()} == {
        "a": "done", "die": "crash", "hang": "timeout", "eat": "raised", "raise": "raised", "b": "done",
    }  # fmt: skip
    assert found["b"].value == "B" and found["die"].value == "SIGKILL" and found["hang"].stage == "begun"
    assert "MemoryError" in found["eat"].value


def test_the_command_prints_totals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "2", "--seed", "4", "--levels", "0", "--save", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "seed 4, models 0 to 1, levels 0: " in out and "candidates dropped" in out


def test_a_model_that_the_peer_does_not_survive_is_judged_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(model: Any, inputs: Any) -> None:
        faulthandler.disable()  # its report would read as if the test had crashed
        os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setattr(judge, "peer", crash)
    monkeypatch.setattr(judge, "warm", lambda: None)
    assert main(["--count", "2", "--seed", "4", "--levels", "0", "--save", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("onnxruntime crashes on model") == 2 and "2 passed, 0 disputed, 0 failed" in out


@pytest.mark.slow
def test_many_models(tmp_path: Path) -> None:
    assert main(["--count", "100", "--seed", "1000", "--levels", "0,1,2,3", "--save", str(tmp_path)]) == 0


@pytest.mark.slow
def test_models_as_c_source(tmp_path: Path) -> None:
    assert main(["--count", "10", "--seed", "2000", "--levels", "3", "--c", "--save", str(tmp_path)]) == 0
