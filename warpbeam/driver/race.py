"""Which of several variants is the fastest, by a bounded number of interleaved measurements.

The rule: the first variant, which the prior prefers, is kept unless another is faster by more than the noise: faster in
so many rounds that chance alone would give that once in a hundred times at most (a sign test), and by 3 % at least in
the median. Of those that are, the one with the least median is kept. In a round all variants are measured, one after
the other, so that whatever disturbs the machine meets all of them; one whose fastest time is above the best one's upper
quartile is measured no more. A variant that fails is out; if the first one does, the fastest of the others is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import comb

from warpbeam.runtime.measure import BenchmarkResult

EARLY_ROUNDS = 5  # before a variant can lose; to win it takes at least seven, by the sign test
MOST_ROUNDS = 40
_CLEARLY = 0.97
_CHANCE = 0.01


class Dropped(Exception):
    """A variant that cannot be measured: it crashed, took too long, or was not compiled. Its text says which."""


@dataclass(slots=True)
class Lane:
    """One variant's measurements in seconds by round. `out`: why it was measured no more, empty if it was."""

    times: dict[int, float] = field(default_factory=dict)
    out: str = ""
    failed: bool = False

    @property
    def result(self) -> BenchmarkResult:
        return BenchmarkResult(tuple(self.times.values()), 1)


def chance(times: Mapping[int, float], others: Mapping[int, float]) -> float:
    """How probable it is that so many of `times` are less than those of `others` in the same rounds, if neither is
    faster.
    """
    pairs = [(a, others[k]) for k, a in times.items() if k in others and a != others[k]]
    wins = sum(a < b for a, b in pairs)
    return sum(comb(len(pairs), k) for k in range(wins, len(pairs) + 1)) / 2.0 ** len(pairs)


def race(
    count: int, sample: Callable[[int], float], clock: Callable[[], float], seconds: float
) -> tuple[int, list[Lane]]:
    """(the variant that is kept, measurements of all).

    Args:
        count: how many variants there are; 0 is the one the prior prefers.
        sample: measures one variant once; raises Dropped if it cannot.
        clock: seconds; no measurement begins when `seconds` of it have passed.
    """
    lanes = [Lane() for _ in range(count)]
    end = clock() + seconds
    for turn in range(MOST_ROUNDS):
        running = [k for k, lane in enumerate(lanes) if not lane.out]
        if len(running) < 2:
            break
        for k in [*running[turn % len(running) :], *running[: turn % len(running)]]:
            if clock() >= end:
                return kept(lanes), lanes
            try:
                lanes[k].times[turn] = sample(k)
            except Dropped as error:
                lanes[k].out, lanes[k].failed = str(error), True
                for lane in lanes:  # they may have lost to this one only
                    lane.out = lane.out if lane.failed else ""
        _stop_losers(lanes)
    return kept(lanes), lanes


def _stop_losers(lanes: list[Lane]) -> None:
    """Measures no more what cannot win. The first variant goes on: the others are compared with it."""
    known = [lane for lane in lanes if not lane.failed and len(lane.times) >= EARLY_ROUNDS]
    best = min((lane.result.quantile(0.75) for lane in known), default=0.0)
    for lane in lanes[1:]:
        if not lane.out and lane in known and min(lane.times.values()) > best:
            lane.out = "slower"


def kept(lanes: list[Lane]) -> int:
    """The variant that the rule keeps."""
    first = lanes[0]
    usable = [k for k, lane in enumerate(lanes) if lane.times and not lane.failed]
    if first.failed:
        return min(usable, key=lambda k: lanes[k].result.median, default=0)
    better = [
        k for k in usable
        if chance(lanes[k].times, first.times) <= _CHANCE and lanes[k].result.median <= _CLEARLY * first.result.median
    ]  # fmt: skip
    return min(better, key=lambda k: lanes[k].result.median, default=0)
