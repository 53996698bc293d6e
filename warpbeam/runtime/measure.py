"""Timing calls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """Times of one call in seconds, each the mean of `number` calls, in the order measured."""

    times: tuple[float, ...]
    number: int

    def quantile(self, q: float) -> float:
        """The time that a share `q` of the measurements is below: linear interpolation between order statistics."""
        ordered = sorted(self.times)
        at = q * (len(ordered) - 1)
        low = int(at)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (at - low)

    @property
    def median(self) -> float:
        """The middle time."""
        return self.quantile(0.5)

    @property
    def p10(self) -> float:
        """The time that one measurement in ten is below."""
        return self.quantile(0.1)

    @property
    def p90(self) -> float:
        """The time that nine measurements in ten are below."""
        return self.quantile(0.9)

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return sum(self.times) / len(self.times)

    @property
    def std(self) -> float:
        """The standard deviation."""
        mean = self.mean
        return float((sum((t - mean) ** 2 for t in self.times) / len(self.times)) ** 0.5)

    @property
    def min(self) -> float:
        """The shortest time."""
        return min(self.times)

    @property
    def max(self) -> float:
        """The longest time."""
        return max(self.times)

    @property
    def results(self) -> tuple[float, ...]:
        """The classic name of `times`."""
        return self.times

    def to_json(self) -> str:
        """All of it as JSON, times in seconds."""
        data: dict[str, Any] = {"number": self.number, "times": list(self.times)}
        data |= {name: getattr(self, name) for name in ("median", "p10", "p90", "mean", "std", "min", "max")}
        return json.dumps(data)

    def __str__(self) -> str:
        def show(seconds: float) -> str:
            return f"{seconds * 1e6:.2f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3f} ms"

        rounds = f"{len(self.times)} x {self.number}"
        return f"median {show(self.median)} (p10 {show(self.p10)}, p90 {show(self.p90)}, {rounds})"


def benchmark_call(function: Callable[[], Any], repeat: int, number: int, warmup: int) -> BenchmarkResult:
    """Calls `function` `repeat` times `number` times; with number 0, as many times as fill a millisecond."""
    clock = time.perf_counter
    for _ in range(max(warmup, 1)):
        start = clock()
        function()
        once = clock() - start
    count = number or max(1, min(100_000, int(1e-3 / max(once, 1e-8))))
    times = []
    for _ in range(max(repeat, 1)):
        start = clock()
        for _ in range(count):
            function()
        times.append((clock() - start) / count)
    return BenchmarkResult(tuple(times), count)
