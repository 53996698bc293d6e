"""Interleaved measurement: one process a peer, short slices in turn, so that all see the same machine."""

from __future__ import annotations

import compileall
import functools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def installed() -> dict[str, str]:
    """The environment for a fresh process that is timed: bytecode of the package lies ready, as pip leaves it."""
    compileall.compile_dir(ROOT / "warpbeam", quiet=2, workers=1)
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


class WorkerFailed(RuntimeError):
    """A peer's process died, refused or did not answer in time."""


class PeerProcess:
    """The parent's end of one worker."""

    def __init__(self, peer: str, threads: int, precision: str = "fp32", module: str = "benchmarks.worker") -> None:
        self.peer, self.threads = peer, threads
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        env = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), PYTHONUNBUFFERED="1")
        cpus = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, peer, precision],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        if cpus:
            os.sched_setaffinity(self.process.pid, cpus)

    def ask(self, timeout: float = 900.0, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write((json.dumps(request) + "\n").encode())
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerFailed(self.tail()) from error
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.process.kill()
            raise WorkerFailed(f"no answer within {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerFailed(self.tail() or "the process ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def tail(self) -> str:
        """The last line that the worker wrote to stderr."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End the worker."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(b'{"do": "quit"}\n')
            self.process.stdin.close()
            self.process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()


@dataclass
class Result:
    """One peer on one case. Times are seconds; `rel_diff` is against onnxruntime; `error` excludes the rest."""

    peer: str
    version: str = ""
    precision: str = ""
    load_s: float = 0.0
    first_s: float = 0.0
    median: float = 0.0
    p10: float = 0.0
    p90: float = 0.0
    slices: list[float] = field(default_factory=list)
    rel_diff: float | None = None
    rss: int = 0
    flops: float = 0.0
    error: str = ""


@dataclass
class Row:
    """One case at one thread count. `foreign` is the mean number of cores that other processes used meanwhile."""

    name: str
    threads: int
    flops: float
    results: dict[str, Result]
    foreign: float = 0.0

    def best_peer(self) -> Result | None:
        """The fastest system that is neither Warpbeam nor the peak loop; of those in our precision, if there are."""
        ok = [r for n, r in self.results.items() if n not in ("warpbeam", "peak") and not r.error]
        ours = self.results.get("warpbeam")
        ok = [r for r in ok if ours and r.precision == ours.precision] or ok
        return min(ok, key=lambda r: r.median, default=None)

    def ratio(self) -> float | None:
        """Best peer's median over Warpbeam's: above one, Warpbeam is faster."""
        ours, best = self.results.get("warpbeam"), self.best_peer()
        return best.median / ours.median if ours and best and not ours.error else None

    def peak(self) -> float | None:
        """FLOP/s of the multiply-add loop measured in the same rounds; twice as many if we run in bf16."""
        loop, ours = self.results.get("peak"), self.results.get("warpbeam")
        pairs = 2 if ours and ours.precision == "bf16" else 1  # an instruction takes twice as many numbers
        return pairs * loop.flops / loop.median if loop and not loop.error else None

    def to_json(self) -> dict[str, Any]:
        """Everything, with the derived numbers."""
        best = self.best_peer()
        data = asdict(self)
        data.update(best_peer=best.peer if best else None, ratio=self.ratio(), peak_flops=self.peak())
        return data


def _cpu_seconds(pids: Iterable[int]) -> tuple[float, float]:
    """(busy seconds of all cores, busy seconds of these processes); zeros where there is no /proc."""
    tick = os.sysconf("SC_CLK_TCK")
    try:
        whole = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        own = 0
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            own += int(fields[11]) + int(fields[12])
    except OSError:
        return 0.0, 0.0
    return (sum(whole) - whole[3] - whole[4]) / tick, own / tick


def relative_difference(ours: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> float:
    """max |a - b| over all outputs, each relative to the reference's max |value| (NaN and Inf count as 1e9)."""
    worst = 0.0
    for name, want in reference.items():
        have = ours[name]
        if have.shape != want.shape:
            return 1e9
        diff = np.abs(np.asarray(have, np.float64) - np.asarray(want, np.float64)).max(initial=0.0)
        scale = np.abs(np.asarray(want, np.float64)).max(initial=0.0)
        value = diff / max(float(scale), 1e-30)
        worst = max(worst, float(value) if np.isfinite(value) else 1e9)
    return worst


class Bench:
    """Workers for a set of peers at one thread count, timed by one of `worker.CLOCKS`; reusable for many cases."""

    def __init__(self, peers: list[str], threads: int, precision: str = "fp32", clock: str = "wall") -> None:
        self.peers, self.threads, self.precision, self.clock = peers, threads, precision, clock
        self.workers: dict[str, PeerProcess] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    def measure(self, name: str, ref: str, path: Path, flops: float, rounds: int, seconds: float) -> Row:
        """Load the case in every peer, compare outputs, then time `rounds` slices of `seconds` in turn."""
        row = Row(name, self.threads, flops, {})
        with tempfile.TemporaryDirectory(prefix="wb-bench-") as folder:
            for peer in self.peers:
                row.results[peer] = self._load(peer, ref, path, Path(folder))
            self._compare(row, Path(folder))
        live = [p for p in self.peers if not row.results[p].error]
        samples: dict[str, list[float]] = {p: [] for p in live}
        pids = [os.getpid()] + [self.workers[p].process.pid for p in live]
        busy, own = _cpu_seconds(pids)
        start = time.perf_counter()
        for index in range(rounds):
            for peer in live[index % len(live) :] + live[: index % len(live)] if live else []:
                time.sleep(0.02)  # lets the previous peer's threads stop spinning
                self._slice(row.results[peer], samples[peer], seconds)
        wall = time.perf_counter() - start
        after, own_after = _cpu_seconds(pids)
        row.foreign = max(0.0, (after - busy) - (own_after - own)) / max(wall, 1e-9)
        for peer in live:
            self._summarise(row.results[peer], samples[peer])
        return row

    def _load(self, peer: str, ref: str, path: Path, folder: Path) -> Result:
        worker = self.workers.get(peer)
        if worker is None or worker.process.poll() is not None:
            worker = self.workers[peer] = PeerProcess(peer, self.threads, self.precision)
        result = Result(peer)
        try:
            answer = worker.ask(
                do="load",
                ref=ref,
                path=str(path),
                threads=self.threads,
                save=str(folder / f"{peer}.npz") if peer != "peak" else "",
            )
        except WorkerFailed as error:
            result.error = str(error)[:300]
            return result
        for key, value in answer.items():
            setattr(result, key, value)
        return result

    def _compare(self, row: Row, folder: Path) -> None:
        reference = folder / "ort.npz"
        if not reference.exists():
            return
        with np.load(reference) as want:
            for peer in self.peers:
                if peer != "peak" and not row.results[peer].error:
                    with np.load(folder / f"{peer}.npz") as have:
                        row.results[peer].rel_diff = relative_difference(dict(have), dict(want))

    def _slice(self, result: Result, samples: list[float], seconds: float) -> None:
        if result.error:
            return
        try:
            got = self.workers[result.peer].ask(do="slice", seconds=seconds, clock=self.clock)["samples"]
        except WorkerFailed as error:
            result.error = str(error)[:300]
            return
        samples += got
        result.slices.append(float(np.median(got)))

    def _summarise(self, result: Result, samples: list[float]) -> None:
        if result.error:
            return
        result.p10, result.median, result.p90 = (float(v) for v in np.percentile(samples, (10, 50, 90)))
        result.rss = self.workers[result.peer].ask(do="stat")["rss"]
