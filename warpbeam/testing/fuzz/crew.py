"""Worker processes with limits of time and memory, whose deaths are results."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from warpbeam.driver.kernels import sharing

Work = Callable[[Any, Callable[[str], None]], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task. kind: "done", "raised", "crash" or "timeout"; stage: the last that the work noted."""

    task: Any
    kind: str
    value: Any
    stage: str
    seconds: float


@contextlib.contextmanager
def economical() -> Iterator[None]:
    """What tasks inside have in common is compiled once: kernels are shared in a worker, and by a disk cache of theirs
    among workers.
    """
    before = os.environ.get("WARPBEAM_CACHE_DIR")
    with tempfile.TemporaryDirectory() as cache, sharing():
        os.environ["WARPBEAM_CACHE_DIR"] = cache
        try:
            yield
        finally:
            os.environ.pop("WARPBEAM_CACHE_DIR")
            if before is not None:
                os.environ["WARPBEAM_CACHE_DIR"] = before


def brief(text: str) -> str:
    """A traceback as its place and its last line; other text as it is."""
    lines = text.strip().splitlines()
    places = [line.strip() for line in lines if line.startswith("  File ")]
    return f"{lines[-1][:500]}, {places[-1]}" if places else text


class _Worker:
    def __init__(self, work: Work, memory: int) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, memory), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Any = None
        self.stage = ""
        self.began = 0.0

    def give(self, task: Any) -> None:
        self.task, self.stage, self.began = task, "", time.monotonic()
        self.pipe.send(task)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_all(tasks: Iterable[Any], work: Work, jobs: int, seconds: float, memory: int) -> Iterator[Outcome]:
    """Runs `work(task, note)` on each task in worker processes and yields outcomes as they come.

    Args:
        seconds: for one task. A worker that takes longer is killed.
        memory: bytes of address space that a worker may use beyond what it has at the start; 0: any number.
    """
    todo = iter(tasks)
    workers: list[_Worker] = []
    try:
        while True:
            while len(workers) < jobs:
                task = next(todo, None)
                if task is None:
                    break
                workers.append(_Worker(work, memory))
                workers[-1].give(task)
            if not workers:
                return
            ready = wait([w.pipe for w in workers], timeout=0.2)
            for worker in list(workers):
                outcome = _heard(worker, seconds) if worker.pipe in ready else _late(worker, seconds)
                if outcome is None:
                    continue
                yield outcome
                task = next(todo, None) if outcome.kind in ("done", "raised") else None
                if task is not None:
                    worker.give(task)
                else:
                    worker.end()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.end()


def _heard(worker: _Worker, seconds: float) -> Outcome | None:
    """What a worker has sent; None for a note of its stage."""
    took = time.monotonic() - worker.began
    try:
        kind, value = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join(5)
        code = worker.process.exitcode
        why = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return Outcome(worker.task, "crash", why, worker.stage, took)
    if kind == "stage":
        worker.stage = value
        return _late(worker, seconds)
    return Outcome(worker.task, kind, value, worker.stage, took)


def _late(worker: _Worker, seconds: float) -> Outcome | None:
    took = time.monotonic() - worker.began
    return Outcome(worker.task, "timeout", f"after {took:.0f} s", worker.stage, took) if took > seconds else None


def _serve(pipe: Connection, work: Work, memory: int) -> None:
    """A worker's life."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            value = ("done", work(task, lambda stage: pipe.send(("stage", stage))))
        except BaseException:
            value = ("raised", traceback.format_exc()[-4000:])
        pipe.send(value)
