"""`time_evaluator`: how long a compiled function takes, measured around a native loop of calls."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import RunError
from .function_call import CompiledFunction, Frame
from .measure import BenchmarkResult
from .ndarray import Device
from .packed import get_global_func

_GROWTH = 1.618  # at least, while `number` grows


@dataclass(slots=True)
class TimeEvaluator:
    """Measures a function; see `FunctionModule.time_evaluator` for the fields."""

    function: CompiledFunction
    device: Device | None
    number: int
    repeat: int
    min_repeat_ms: int
    limit_zero_time_iterations: int
    cooldown_interval_ms: int
    repeats_to_cooldown: int
    cache_flush_bytes: int
    f_preproc: str

    def __call__(self, *args: Any) -> BenchmarkResult:
        """Measures with these arguments; one call comes first that does not count.

        Raises:
            RunError: if the device is not the processor, or as calling the function does.
        """
        if self.device is not None and not self.device.exist:
            raise RunError(f"no code runs on {self.device} here", hint="measure on cpu(0)")
        preproc = get_global_func(self.f_preproc) if self.f_preproc else None
        trash = np.zeros(self.cache_flush_bytes, np.uint8) if self.cache_flush_bytes > 0 else None
        frame, keep = self.function.frame(args)
        self.function.repeat(frame, 1)
        times = []
        number = self.number
        for i in range(self.repeat):
            if preproc is not None:
                preproc(*args)
            seconds, number = self._measure(frame, number, trash)
            times.append(seconds)
            if self.cooldown_interval_ms > 0 and (i + 1) % self.repeats_to_cooldown == 0:
                time.sleep(self.cooldown_interval_ms / 1e3)
        del keep
        return BenchmarkResult(tuple(times), number)

    def _measure(self, frame: Frame, number: int, trash: Any) -> tuple[float, int]:
        """Seconds of one call, and how many calls the measurement took."""
        zeros = 0
        while True:
            if trash is not None:
                trash += 1
            start = time.perf_counter()
            self.function.repeat(frame, number)
            seconds = time.perf_counter() - start
            zeros += seconds == 0
            if seconds * 1e3 >= self.min_repeat_ms or zeros >= self.limit_zero_time_iterations:
                return seconds / number, number
            wanted = self.min_repeat_ms / 1e3 / max(seconds / number, 1e-9) + 1
            number = int(max(wanted, number * _GROWTH + 1))
