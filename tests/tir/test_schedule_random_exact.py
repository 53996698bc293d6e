"""A sample of the random schedules and illegal calls; the whole of it is marked slow, see random_schedules.py.

What was covered is printed with the seeds: `python -m pytest -s`.
"""

from __future__ import annotations

import os

import pytest
import random_schedules as harness
import schedule_illegal
import schedule_programs

from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir.analysis.regions import Range
from warpbeam.tir.expr import IntImm
from warpbeam.tir.schedule import loops, place

SAMPLE, WHOLE, ILLEGAL = 50_000, 100_000, 2  # first seeds


@pytest.fixture(scope="module")
def covered():
    """The tally of the sample; at the end, what it covered is printed."""
    total = harness.Tally()
    yield total
    print(f"\n{total.text()}\nseeds {SAMPLE} to {SAMPLE + 5}")
    assert total.sequences < 72 or sum(n > 0 for n in total.accepted.values()) > len(harness.PRIMITIVES) - 6


@pytest.mark.parametrize("name", list(schedule_programs.PROGRAMS))
def test_a_sample_keeps_every_element(name, covered):
    total = harness.Tally()
    for seed in range(SAMPLE, SAMPLE + 6):
        total.add(harness.attempt(name, seed, llvm=seed < SAMPLE + 2))
    covered.add(total)
    assert not total.failures, "\n".join(total.failures)
    assert total.sequences == 6 and sum(total.accepted.values()) > 20


def test_a_sample_of_illegal_calls_is_refused():
    text, accepted = schedule_illegal.run_many(150, 1)
    print(f"\n{text}\nseed 1")
    assert accepted == 0, text


def _wrong_by(step, name, seeds=24):
    """Failures of sequences on one program in which a step was accepted, as texts."""
    found, taken = [], 0
    for seed in range(SAMPLE, SAMPLE + seeds):
        total = harness.attempt(name, seed, llvm=False)
        taken += total.accepted[step]
        found += total.failures
    assert taken
    return found


def test_a_guard_that_is_off_by_one_is_seen(monkeypatch):
    """The harness can fail: with a wrong condition of guarded splits it tells program, seed and step."""
    right = loops.guarded
    short = lambda cond: substitute(cond, {b: b - 1 for b in post_order(cond) if isinstance(b, IntImm)})  # noqa: E731
    monkeypatch.setattr(loops, "guarded", lambda stmt, cond: right(stmt, short(cond)))
    failures = _wrong_by("split_guard", "rows")
    assert any("guard=True)\n    ^ the first after which" in text for text in failures), failures


def test_a_region_that_is_too_small_is_seen(monkeypatch):
    """Likewise with a producer that computes one element less than its consumers read."""
    right = place.region_nest

    def small(block, ranges, *rest):
        less = {v: Range(r.lows, tuple(h - 1 for h in r.highs)) for v, r in ranges.items()}
        return right(block, less, *rest)

    monkeypatch.setattr(place, "region_nest", small)
    failures = _wrong_by("compute_at", "primes")
    assert any("ComputeAt(" in text.splitlines()[-2] for text in failures), failures


@pytest.mark.slow
def test_twenty_thousand_schedules_keep_every_element():
    """The whole of it: through the interpreter and LLVM, every fourth seed through C, every primitive 300 times."""
    total = harness.run_many(20_000, WHOLE, llvm=True, every=4, jobs=os.cpu_count() or 1)
    print(f"\n{total.text()}\nseeds from {WHOLE}")
    assert not total.failures, "\n".join(total.failures)
    assert total.sequences >= 20_000
    assert {name for name in harness.PRIMITIVES if total.accepted[name] < 300} == set()


@pytest.mark.slow
def test_many_illegal_calls_are_refused():
    text, accepted = schedule_illegal.run_many(5000, ILLEGAL)
    print(f"\n{text}\nseed {ILLEGAL}")
    assert accepted == 0, text
