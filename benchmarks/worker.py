"""The child process that holds one peer. It reads one JSON request a line and answers with one JSON line.

Requests: {"do": "load", "ref", "path", "threads", "save"}, {"do": "slice", "seconds", "clock"}, {"do": "stat"},
{"do": "quit"}.
Whatever a library prints goes to stderr, never into the protocol.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MAX_SAMPLES = 400  # kept of one slice


CLOCKS = {"wall": time.perf_counter_ns, "cpu": time.process_time_ns}


def timed_slice(run: Callable[[], Any], seconds: float, batch: int, clock: str = "wall") -> list[float]:
    """Seconds a run, each sample the mean of `batch` runs, after an untimed warm-up of a tenth of the slice.

    clock: "wall", or "cpu" for the time of all the process's threads, which others' work on the machine adds little to.
    """
    now, taken, samples = time.perf_counter_ns, CLOCKS[clock], []
    warm = now() + int(seconds * 1e8)
    run()
    while now() < warm:
        run()
    end = now() + int(seconds * 1e9)
    while True:
        start = taken()
        for _ in range(batch):
            run()
        samples.append((taken() - start) / (1e9 * batch))
        if now() >= end:
            break
    return samples[:: max(1, math.ceil(len(samples) / MAX_SAMPLES))]


def peak_rss() -> int:
    """The process's highest resident set so far, in bytes (ru_maxrss would inherit the parent's on Linux)."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if lines:
            return int(lines[0].split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Worker:
    """The state between requests: the peer with its loaded model."""

    def __init__(self, name: str, precision: str = "fp32") -> None:
        from .peers import PEERS

        self.kind = PEERS[name]
        self.precision = precision
        self.peer: Any = None
        self.batch = 1

    def load(self, ref: str, path: str, threads: int, save: str) -> dict[str, Any]:
        """Load a model, run it once, save its outputs; answers times and facts."""
        from .peers import inputs_of

        self.peer = None
        gc.collect()
        peer, file = self.kind(), Path(path)
        peer.ask(self.precision)
        peer.prepare(ref, file)
        inputs = inputs_of(file)
        start = time.perf_counter()
        peer.load(file, inputs, threads)
        loaded = time.perf_counter()
        peer.run()
        ran = time.perf_counter()
        if save:
            np.savez(save, **peer.results())  # type: ignore[arg-type]
        peer.run()
        start_again = time.perf_counter()
        peer.run()
        one = time.perf_counter() - start_again
        self.peer, self.batch = peer, max(1, math.ceil(1e-4 / max(one, 1e-7)))
        flops = peer.loop.flops if hasattr(peer, "loop") else 0.0
        return {
            "load_s": loaded - start,
            "first_s": ran - loaded,
            "precision": peer.precision,
            "version": peer.version(),
            "flops": flops,
            "rss": peak_rss(),
        }

    def slice(self, seconds: float, clock: str = "wall") -> dict[str, Any]:
        """Run for a while; answers the samples."""
        gc.collect()
        gc.disable()
        try:
            return {"samples": timed_slice(self.peer.run, seconds, self.batch, clock)}
        finally:
            gc.enable()

    def stat(self) -> dict[str, Any]:
        """Peak resident memory of this process."""
        return {"rss": peak_rss()}


def main(make: Callable[..., Any] = Worker) -> None:
    """Serve requests until the parent closes the pipe or says quit. `make` gets the arguments of the command line."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        action = request.pop("do")
        if action == "quit":
            break
        try:
            worker = worker or make(*sys.argv[1:])
            answer = getattr(worker, action)(**request)
        except Exception as error:  # the parent shows it in the table and goes on
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(answer) + "\n")
    os._exit(0)  # some peers crash while unloading


if __name__ == "__main__":
    main()
