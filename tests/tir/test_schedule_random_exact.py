"""A sample of the random schedules and illegal calls; the whole of it is marked slow, see random_schedules.py."""

from __future__ import annotations

import pytest
import random_schedules as harness
import schedule_illegal
import schedule_programs


@pytest.mark.parametrize("name", list(schedule_programs.PROGRAMS))
def test_a_sample_keeps_every_element(name):
    total = harness.Tally()
    for seed in range(6):
        total.add(harness.attempt(name, seed, llvm=seed < 2))
    assert not total.failures, "\n".join(total.failures)
    assert total.sequences == 6 and sum(total.accepted.values()) > 20


def test_a_sample_of_illegal_calls_is_refused():
    text, accepted = schedule_illegal.run_many(150, 1)
    assert accepted == 0, text


@pytest.mark.slow
@pytest.mark.parametrize("name", list(schedule_programs.PROGRAMS))
def test_many_schedules_keep_every_element(name):
    total = harness.Tally()
    for seed in range(1000, 1200):
        total.add(harness.attempt(name, seed, llvm=True))
    assert not total.failures, "\n".join(total.failures)


@pytest.mark.slow
def test_many_illegal_calls_are_refused():
    text, accepted = schedule_illegal.run_many(5000, 2)
    assert accepted == 0, text
