"""Hot shapes: which requests get a module of their own, when, and that nobody waits for it."""

import time
from typing import Any

import numpy as np
import onnx.parser
import pytest

import warpbeam
from warpbeam import op
from warpbeam.driver import hot_shapes
from warpbeam.driver.hot_shapes import OFTEN, TRIALS, Trial
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.transform import PassContext
from warpbeam.relay import text
from warpbeam.runtime.errors import ArtifactError, RunError

WEIGHTS = "<float[4, 4] w = {1, 0, 0, 2, 0, 1, 0, 0, 0, 0, 1, 0, 3, 0, 0, 1}>"
GRAPH = f"g (float[b, seq, 4] x) => (float[b, seq, 4] y) {WEIGHTS} {{ y = MatMul(x, w) }}"
MODEL = f'<ir_version: 9, opset_import: ["" : 17]> {GRAPH}'
W = np.array([[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [3, 0, 0, 1]], np.float32)


def asked(hot: Any, shape: tuple[int, int], times: int = 1) -> None:
    """So many requests, each of them answered rightly."""
    for i in range(times):
        x = np.full((*shape, 4), i + 1, np.float32)
        np.testing.assert_array_equal(hot(x), x @ W)


@pytest.fixture
def hot() -> Any:
    found = warpbeam.compile(onnx.parser.parse_model(MODEL), hot_shapes=2, cache=False)
    yield found
    found.close()


def test_sizes_that_come_often_get_their_own_module(hot: Any) -> None:
    asked(hot, (1, 3), OFTEN - 1)
    asked(hot, (2, 3), OFTEN - 1)
    assert hot.wait(0) and not hot.modules
    asked(hot, (2, 3))
    assert hot.wait(120)
    asked(hot, (2, 3), 2 * TRIALS - 1)
    assert not hot.modules, "both are measured first"
    asked(hot, (2, 3))
    own = hot.modules.get((2, 3))
    assert own is None or [s.shape for s in own.artifact.manifest.inputs] == [(2, 3, 4)]
    asked(hot, (2, 3), 3)
    with pytest.raises(RunError, match="has shape"):
        hot.run({"x": np.zeros((2, 3), np.float32)})


def test_no_more_modules_than_asked_for(hot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(sizes: dict[str, int], maker: Any) -> Any:
        made.append(tuple(sizes.values()))
        return hot.whole

    monkeypatch.setattr(hot, "_make", make)
    for n in (5, 6, 7, 8):
        asked(hot, (1, n), OFTEN + 1)
        assert hot.wait(60)
    assert made == [(1, 5), (1, 6)]


def test_a_request_does_not_wait_for_the_compiler(hot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    go = []

    def make(sizes: dict[str, int], maker: Any) -> Any:
        while not go:
            time.sleep(0.001)
        return hot.whole

    monkeypatch.setattr(hot, "_make", make)
    asked(hot, (1, 5), 5 * OFTEN)
    assert not hot.wait(0)
    go.append(1)
    assert hot.wait(60)


def test_sizes_that_cannot_be_compiled_stay_with_the_module_for_all(hot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    process, told = hot_shapes.start_process, []
    monkeypatch.setattr(hot_shapes, "start_process", lambda command, log: process(["warpbeam.no_such_module"], log))
    monkeypatch.setattr(hot_shapes.warnings, "warn", lambda words, **_: told.append(words))
    asked(hot, (1, 5), OFTEN)
    assert hot.wait(60)
    assert len(told) == 1 and "the compiling process ended early" in told[0] and "no_such_module" in told[0]
    asked(hot, (1, 5), 2 * OFTEN)
    assert hot.wait(0) and not hot.modules


def test_settings_that_cannot_be_sent_are_refused_at_once() -> None:
    with PassContext(config={"warpbeam.choice": {1, 2}}), pytest.raises(CompileError) as error:
        warpbeam.compile(onnx.parser.parse_model(MODEL), hot_shapes=2)
    assert "the current PassContext" in str(error.value) and "told in JSON" in str(error.value)
    assert "give plain numbers, texts, lists and dicts" in str(error.value)


def test_any_error_of_ours_leaves_the_sizes_and_the_rest_goes_on(hot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def make(sizes: dict[str, int], maker: Any) -> Any:
        raise ArtifactError("damaged on its way")

    monkeypatch.setattr(hot, "_make", make)
    monkeypatch.setattr(hot_shapes.warnings, "warn", lambda words, **_: told.append(words))
    for n in (5, 6):
        asked(hot, (1, n), OFTEN)
        assert hot.wait(60)
    assert len(told) == 2 and "damaged on its way" in told[1]


class Slept:
    """A module that takes a time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.calls = seconds, 0

    def run(self, inputs: Any) -> dict[str, Any]:
        self.calls += 1
        return {"y": self.seconds}


@pytest.mark.parametrize("new, pays", [(1.0, True), (3.0, False), (2.0, False)])
def test_the_faster_module_is_kept(new: float, pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    trial = Trial(Slept(new), Slept(2.0))
    monkeypatch.setattr(hot_shapes.time, "perf_counter", lambda: clock[0])
    for module in trial.modules:
        inner = module.run
        monkeypatch.setattr(module, "run", lambda inputs, f=inner: (clock.append(clock.pop() + f(inputs)["y"]), {})[1])
    calls = 0
    while not trial.done:
        trial.run({})
        calls += 1
    assert calls == 2 * TRIALS and trial.pays is pays


@pytest.mark.parametrize("options, words", [
    ({"hot_shapes": 0}, "from 1 to 64"),
    ({"hot_shapes": True}, "from 1 to 64"),
    ({"hot_shapes": 2, "shapes": {"x": (1, 2, 4)}}, "without open sizes"),
    ({"hot_shapes": 2, "buckets": {"seq": [4]}}, "hot_shapes and buckets"),
    ({"hot_shapes": 2, "state": {"x": "y"}}, "hot_shapes of a model that keeps state"),
    ({"hot_shapes": 2, "shapes": {"x": (np.int64(2), "s", 4)}}, "hot_shapes with shapes={'x': (np.int64(2), 's', 4)}"),
    ({"hot_shapes": 2, "buckets": {"seq": [4]}, "state": {"x": "y"}}, "hot_shapes of a model that keeps state"),
    ({"hot_shapes": 2, "target": "cortex-a53"}, "for another machine"),
])  # fmt: skip
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(CompileError) as error:
        warpbeam.compile(onnx.parser.parse_model(MODEL), **options)
    assert words in str(error.value)


def test_a_module_of_this_process_is_refused() -> None:
    mod = text.parse("def @main(%x: Tensor[(2, 4), float32]) { exp(%x) }", op.get)
    with pytest.raises(CompileError, match=r"save it to a \.relay file"):
        warpbeam.compile(mod, hot_shapes=2)
