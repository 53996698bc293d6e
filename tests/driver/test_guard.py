"""Measured choices of variants: the rule, crashes, the budget, what is remembered. No test depends on real times."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import warpbeam
from warpbeam import relay
from warpbeam.codegen.llvm import compile_text
from warpbeam.driver import guard, pipeline, race
from warpbeam.driver.api import accurate, compile_with_report
from warpbeam.driver.cache import Cache
from warpbeam.driver.race import Dropped
from warpbeam.driver.timing import Entry, Timer
from warpbeam.ir.diagnostics import CompileError
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.pool_ll import EXPORTS, pool_ir
from warpbeam.target import get
from warpbeam.tir.expr import SizeVar

# ------------------------------------------------------------------------------------------------------------- the rule


class Clock:
    """Seconds that pass only while something is measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(times: Sequence[Callable[[int], float]], seconds: float = 1e9) -> tuple[int, list[race.Lane]]:
    """A race in which measurement i of variant k takes times[k](i)."""
    clock, done = Clock(), [0] * len(times)

    def sample(k: int) -> float:
        done[k] += 1
        took = times[k](done[k] - 1)
        clock.now += took
        return took

    return race.race(len(times), sample, clock, seconds)


def test_what_is_faster_by_more_than_the_noise_is_kept() -> None:
    kept, lanes = run([lambda i: 1.0 + 0.01 * (i % 3), lambda i: 0.9 + 0.01 * (i % 5), lambda i: 0.8 + 0.01 * (i % 4)])
    assert kept == 2
    assert all(len(lane.times) >= race.EARLY_ROUNDS for lane in lanes)


def test_what_is_faster_by_less_than_three_percent_is_not() -> None:
    assert run([lambda i: 1.0, lambda i: 0.98])[0] == 0


def test_what_is_faster_as_often_as_by_chance_is_not() -> None:
    """The median is a tenth less, but 22 of 40 rounds are no evidence."""
    slow, fast = 1.0, 0.9
    assert run([lambda i: 1.0 if i % 2 else 0.95, lambda i: fast if i < 22 else 1.2 * slow])[0] == 0


def test_noise_that_meets_all_variants_of_a_round_hides_nothing() -> None:
    """Times vary fourfold from round to round; what is a tenth faster in each of them wins."""

    def noise(i: int) -> float:
        return 1.0 + (i * 7 % 4)

    kept, lanes = run([noise, lambda i: 0.9 * noise(i)])
    assert kept == 1
    assert lanes[0].result.quantile(0.25) < lanes[1].result.quantile(0.75)


def test_chance_is_that_of_a_fair_coin() -> None:
    assert race.chance(dict.fromkeys(range(7), 1.0), dict.fromkeys(range(9), 2.0)) == 0.5**7
    assert race.chance({0: 1.0, 1: 3.0, 5: 0.1}, {0: 2.0, 1: 2.0}) == 0.75
    assert race.chance({0: 1.0}, {0: 1.0}) == 1.0


def test_clear_losers_stop_early_and_the_rest_goes_on() -> None:
    kept, lanes = run([lambda i: 1.0, lambda i: 3.0, lambda i: 0.5])
    assert kept == 2
    assert len(lanes[1].times) == race.EARLY_ROUNDS and lanes[1].out == "slower"
    assert len(lanes[2].times) == race.MOST_ROUNDS


def test_no_measurement_begins_after_the_budget() -> None:
    kept, lanes = run([lambda i: 1.0, lambda i: 0.5], seconds=6.0)
    assert sum(sum(lane.times.values()) for lane in lanes) <= 6.0 + 1.0
    assert kept == 0, "four rounds are too few to change anything"
    assert run([lambda i: 1.0, lambda i: 0.5], seconds=0.0)[1][0].times == {}


def failing(after: int) -> Callable[[int], float]:
    def time(i: int) -> float:
        if i >= after:
            raise Dropped("crashed")
        return 0.1

    return time


def test_a_variant_that_fails_is_out() -> None:
    kept, lanes = run([lambda i: 1.0, failing(0), failing(20), lambda i: 0.8])
    assert kept == 3
    assert [lane.out for lane in lanes] == ["", "crashed", "crashed", ""]


def test_the_fastest_of_the_others_is_kept_if_the_first_fails() -> None:
    assert run([failing(3), lambda i: 1.0, lambda i: 0.99])[0] == 2
    assert run([failing(0), failing(0)])[0] == 0


# ---------------------------------------------------------------------------------------------------------- the process

KERNELS = """
define i32 @good(ptr %ctx, ptr %a, ptr %b) { store float 1.0, ptr %b ret i32 0 }
define i32 @traps(ptr %ctx, ptr %a, ptr %b) { call void @llvm.trap() unreachable }
define i32 @fails(ptr %ctx, ptr %a, ptr %b) { ret i32 3 }
define i32 @hangs(ptr %ctx, ptr %a, ptr %b) { br label %l
l: br label %l }
declare void @llvm.trap()
"""


def test_variants_that_crash_hang_or_fail_only_drop_themselves() -> None:
    target = get("native")
    code = link_shared(
        [compile_text(text, target, name="k") for text in (KERNELS, pool_ir(target.triple))],
        [*EXPORTS, "good", "traps", "fails", "hangs"],
    )
    buffers = ((64, "float32", True), (64, "float32", False))
    with Timer(target, seconds=20.0) as timer:
        timer.load(code, [Entry(name, buffers, ()) for name in ("good", "traps", "fails", "hangs")])
        assert timer.sample(0) >= 0
        with pytest.raises(Dropped, match="crashed"):
            timer.sample(1)
        assert timer.sample(0) >= 0
        with pytest.raises(Dropped, match="status 3"):
            timer.sample(2)
        timer.seconds = 1.0
        with pytest.raises(Dropped, match="took more than 1 s"):
            timer.sample(3)
        timer.seconds = 20.0
        assert timer.sample(0) >= 0


def test_without_processes_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with Timer(get("native")) as timer:
        timer.load(b"", [Entry("k", (), ())])
        with pytest.raises(Dropped, match="no process could be started"):
            timer.sample(0)


# ------------------------------------------------------------------------------------------------------------ decisions


def convolution(x: relay.Expr, channels: int, seed: int, taps: int = 3) -> relay.Expr:
    rng = np.random.default_rng(seed)
    w = relay.const((0.05 * rng.standard_normal((taps, taps, channels, channels))).astype(np.float32))
    pad = taps // 2
    return relay.nn.relu(relay.nn.conv2d(x, w, padding=(pad, pad), data_layout="NHWC", kernel_layout="HWIO"))


def model(layers: int = 1, taps: int = 3, size: int = 14, channels: int = 32) -> relay.IRModule:
    x = relay.var("x", shape=(1, size, size, channels))
    y = x
    for k in range(layers):
        y = convolution(y, channels, k, taps)
    return relay.IRModule.from_expr(relay.Function([x], y))


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    return Cache(folder)


def by(prefer: Callable[[guard.Variant], bool], seen: list[guard.Case]) -> guard.Tools:
    """Tools that find what is preferred twice as fast as all else."""

    def sampler(case: guard.Case) -> Callable[[int], float]:
        seen.append(case)
        return lambda k: 0.5 if prefer(case.variants[k]) else 1.0

    return guard.Tools(sampler, Clock())


def decided(
    mod: relay.IRModule, store: Cache | None, prefer: Callable[[guard.Variant], bool], seconds: float = 2.0
) -> tuple[guard.Decisions, list[guard.Case]]:
    seen: list[guard.Case] = []
    target = get("native")
    fused = pipeline.optimize(mod, 3, target)
    return guard.decide_with(fused, target, store, seconds, by(prefer, seen)), seen


def test_a_verdict_is_remembered_with_the_kernel(store: Cache) -> None:
    first, seen = decided(model(), store, lambda v: v.rank == 1)
    assert len(seen) == 1 and list(first.ranks.values()) == [1]
    second, seen = decided(model(), store, lambda v: v.rank == 2)
    assert not seen, "nothing is measured twice"
    assert (second.ranks, second.tiles) == (first.ranks, first.tiles)
    assert [row["cached"] for row in (*first.rows, *second.rows)] == [False, True]
    third, seen = decided(model(), store, lambda v: v.rank == 2, seconds=3.0)
    assert seen and list(third.ranks.values()) == [2], "another budget is another question"


def test_a_kernel_that_several_layers_share_is_measured_once() -> None:
    found, seen = decided(model(layers=3), None, lambda v: v.rank == 1)
    assert len(seen) == len({case.symbol for case in seen}) == len(found.rows) == 1


def test_variants_differ_and_the_prior_comes_first() -> None:
    _, (case,) = decided(model(), None, lambda v: False)
    labels = [v.label for v in case.variants]
    assert len(set(labels)) == len(labels) >= 3
    assert (case.variants[0].rank, case.variants[0].tile) == (0, None)


@pytest.mark.parametrize(("accuracy", "ways"), [("exact", set()), ("default", {0, 2}), ("fast", {0, 2, 4})])
def test_only_algorithms_that_the_accuracy_allows_are_tried(
    accuracy: str, ways: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_FAR", 1e9)
    with accurate(accuracy):
        _, (case,) = decided(model(), None, lambda v: False)
    tried = {v.tile for v in case.variants if v.tile is not None}
    assert tried == ways - {case.tile}


@pytest.fixture
def preferring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[guard.Variant], bool]], None]]:
    """Makes compilations find what a function prefers twice as fast as all else."""
    monkeypatch.setattr(guard, "_FAR", 1e9)

    def use(prefer: Callable[[guard.Variant], bool]) -> None:
        monkeypatch.setattr(guard, "_sampler", lambda case, compiler, timer: by(prefer, []).sampler(case))

    yield use


def outputs(module: warpbeam.Module, mod: relay.IRModule) -> np.ndarray:
    shape = mod["main"].params[0].ty.shape
    return np.asarray(module(np.random.default_rng(9).standard_normal(shape).astype(np.float32)))


def test_another_algorithm_is_taken_for_the_whole_model(preferring) -> None:  # type: ignore[no-untyped-def]
    mod = model(layers=2, size=28, channels=64)
    _, report = compile_with_report(mod, cache=False, workers=1)
    assert {c["chosen"] for c in report.choices} == {"winograd F(2x2,3x3)"}, "else the test shows nothing"
    preferring(lambda v: v.tile == 0)
    module, report = compile_with_report(mod, cache=False, workers=1, guard=True)
    assert [c["chosen"] for c in report.choices] == ["direct"] * 2
    assert {row["sketch"] for row in report.rows} == {"tile"}
    exact = warpbeam.compile(mod, accuracy="exact", cache=False, workers=1)
    assert np.array_equal(outputs(module, mod), outputs(exact, mod))


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("rank", [1, 2])
def test_other_decisions_change_no_bit_of_a_result(taps: int, rank: int, preferring) -> None:  # type: ignore[no-untyped-def]
    """Every tile sums over the reduction in the same order."""
    mod = model(taps=taps, size=13)
    plain, report = compile_with_report(mod, cache=False, workers=1)
    assert report.guard == [] and not any("_rank_" in row["kernel"] for row in report.rows)
    preferring(lambda v: v.rank == rank)
    module, report = compile_with_report(mod, cache=False, workers=1, guard=0.5)
    assert any(f"_rank_{rank}" in row["kernel"] for row in report.rows)
    assert report.data()["guard"][0]["kept"] == rank
    assert "kept" in report.text() and "measured" in report.text()
    assert np.array_equal(outputs(module, mod), outputs(plain, mod))


def test_real_measurements_give_a_model_that_is_right() -> None:
    mod = model(size=7)
    plain = warpbeam.compile(mod, cache=False, workers=1, accuracy="exact")
    module, report = compile_with_report(mod, cache=False, workers=1, guard=0.2, accuracy="exact")
    assert report.guard and all(v["out"] in ("", "slower") for v in report.guard[0]["variants"])
    assert np.array_equal(outputs(module, mod), outputs(plain, mod))


def test_symbolic_sizes_are_measured_at_likely_values() -> None:
    rows = SizeVar("n")
    x = relay.var("x", shape=(rows, 96))
    w = relay.const(np.random.default_rng(0).standard_normal((256, 96)).astype(np.float32))
    mod = relay.IRModule.from_expr(relay.Function([x], relay.nn.relu(relay.nn.dense(x, w))))
    _, (case,) = decided(mod, None, lambda v: False)
    entry = guard._entry("k", case.variants[0].kernel, case.constants)
    assert entry.dims == (16,)
    assert [size for size, _, _ in entry.buffers][:3] == [16 * 96 * 4, 256 * 96 * 4, 16 * 256 * 4]
    assert [constant for _, _, constant in entry.buffers] == [False, True, False]
    plain = warpbeam.compile(mod, cache=False, workers=1)
    module, report = compile_with_report(mod, cache=False, workers=1, guard=0.2)
    assert all(v["measurements"] for v in report.guard[0]["variants"])
    for n in (1, 5, 33):
        data = np.random.default_rng(n).standard_normal((n, 96)).astype(np.float32)
        assert np.array_equal(module(data), plain(data))


def test_level_four_is_level_three_with_a_guard(preferring) -> None:  # type: ignore[no-untyped-def]
    preferring(lambda v: False)
    _, report = compile_with_report(model(size=7), cache=False, workers=1, opt_level=4)
    assert report.guard
    _, report = compile_with_report(model(size=7), cache=False, workers=1, opt_level=4, guard=False)
    assert not report.guard


def test_machines_that_cannot_run_here_are_not_measured() -> None:
    assert "does not run here" in guard.why_not(get("hexagon"))
    _, report = compile_with_report(model(size=7), target="c", cache=False, workers=1, guard=True)
    assert "nothing was measured" in report.text()


@pytest.mark.parametrize("wrong", [-1, float("nan"), "2"])
def test_budgets_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(CompileError, match="guard="):
        warpbeam.compile(model(), guard=wrong)  # type: ignore[arg-type]
