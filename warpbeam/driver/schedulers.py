"""Kernels scheduled beside this process: others make what the planner is going to ask for, while it does the rest.

    with scheduled_ahead(wanted, target, workers) as ahead: ...

Scheduling is Python's work and so fills one core; groups do not depend on each other, and a kernel comes out the same
wherever it is made. So groups wait in the order in which they will be asked for, other processes take one after the
other, and this one takes those that nobody has begun when it needs them, or while it waits. What another process
cannot make (it crashed, it lacks an operator that the program defines itself) is made here.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from warpbeam.driver.workers import MEMORY_LIMIT, SECONDS_LIMIT, default_workers, end_process, start_process
from warpbeam.ir import budget
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.transform import PassContext
from warpbeam.ir.wire import packed, unpacked
from warpbeam.target import Target

if TYPE_CHECKING:
    from warpbeam.driver.kernels import Kernel
    from warpbeam.relay.expr import Function
    from warpbeam.tir.expr import Var

FEWEST = 6  # kernels for each process: fewer are made here before it has begun
MOST = 7
PATIENCE = 20.0  # seconds for which a kernel is waited for when there is nothing else to do
_IN_FLIGHT = 2  # requests that a process has, so that it does not wait for this one between them
_MOST_BYTES = 1 << 15  # of a request: one that does not fit a pipe could wait for an answer that waits for it
_PLAIN = (bool, int, float, str, type(None))


@dataclass(eq=False, slots=True)
class Job:
    """A group to schedule. told: what is known of its sizes, as `dims.told_of` gives it. answer: what another process
    made, once `done` is set; nothing if it could not.
    """

    key: Hashable
    fn: Function
    constants: frozenset[int]
    told: tuple[tuple[Var, ...], ...] = ()
    answer: bytes = b""
    done: threading.Event = field(default_factory=threading.Event)

    def made(self) -> tuple[Kernel, bool, tuple[int, ...]] | None:
        """The kernel that another process made, whether its sketch knows runners-up, and the places of its sizes among
        the open ones of `fn`; None if it made none, or takes so long that something holds it up.

        Raises:
            CompileError: if the seconds of the compilation are over before it has answered.
        """
        left = budget.seconds_left()
        soon = left is not None and left < PATIENCE
        if self.done.wait(left if soon else PATIENCE):
            return unpacked(self.answer) if self.answer else None
        if soon:
            raise budget.late("scheduling kernels")
        return None


class Ahead:
    """The groups that wait, and those that other processes have."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.waiting = deque(jobs)
        self.jobs = {job.key: job for job in self.waiting}
        self._lock = threading.Lock()

    def next(self) -> Job | None:
        """The next group that nobody has begun; the caller begins it."""
        with self._lock:
            return self.waiting.popleft() if self.waiting else None

    def begun(self, key: Hashable) -> Job | None:
        """The group if another process has begun it; None if not: the caller makes it itself then."""
        job = self.jobs.get(key)
        with self._lock:
            if job in self.waiting:
                self.waiting.remove(job)  # type: ignore[arg-type]
                return None
        return job

    def stop(self) -> None:
        """Has no more groups begun by others."""
        while (job := self.next()) is not None:
            job.done.set()


class _Scheduler:
    """A process that schedules groups, one after the other."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.process = start_process(["warpbeam.driver.scheduler_main", str(MEMORY_LIMIT)], subprocess.DEVNULL)

    def work(self, ahead: Ahead, settings: Any) -> None:
        """Has groups scheduled until none waits; the process is free again after that, or has ended."""
        flying: deque[Job] = deque()
        try:
            while True:
                while len(flying) < _IN_FLIGHT and (job := ahead.next()) is not None:
                    flying.append(job)
                    self._send(job, settings)
                if not flying:
                    break
                with self._killed_late():
                    flying[0].answer = self._receive()
                flying.popleft().done.set()
            _free(self)
        except Exception:  # whatever it is, those kernels are made elsewhere, and errors of theirs are told there
            end_process(self.process)
        finally:
            for job in flying:
                job.done.set()

    def _send(self, job: Job, settings: Any) -> None:
        try:
            data = packed((job.fn, job.constants, job.told, settings), job.fn)
        except IRError:  # the other side answers that it could not read it
            data = b""
        if len(data) > _MOST_BYTES:
            data = b""
        stdin = self.process.stdin
        assert stdin is not None
        stdin.write(json.dumps({"bytes": len(data)}).encode() + b"\n" + data)
        stdin.flush()

    @contextmanager
    def _killed_late(self) -> Iterator[None]:
        """Kills the process if the body takes too long."""
        timer = threading.Timer(SECONDS_LIMIT, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _receive(self) -> bytes:
        stdout = self.process.stdout
        assert stdout is not None
        head = json.loads(stdout.readline())
        answer = stdout.read(head["bytes"])
        if len(answer) != head["bytes"]:
            raise OSError("the process ended")
        return answer if head["ok"] else b""


_READY: list[_Scheduler] = []  # processes that have nothing to do, kept for the life of this one
_ALL: weakref.WeakSet[_Scheduler] = weakref.WeakSet()  # these, and those that are busy
_LOCK = threading.Lock()


def _free(scheduler: _Scheduler) -> None:
    with _LOCK:
        _READY.append(scheduler)


def _alive(schedulers: Iterable[_Scheduler]) -> list[_Scheduler]:
    """Those whose processes run; a forked child leaves its parent's alone."""
    return [s for s in schedulers if s.pid == os.getpid() and s.process.poll() is None]


def _taken(count: int) -> list[_Scheduler]:
    """At most `count` processes that have nothing to do."""
    with _LOCK:
        usable = _alive(_READY)
        _READY[:] = usable[count:]
    return usable[:count]


@atexit.register
def _stop_all() -> None:
    """Ends all processes, also those that still make what nobody asks for any more."""
    with _LOCK:
        found = _alive(_ALL)
    for scheduler in found:
        scheduler.process.kill()
    for scheduler in found:
        scheduler.process.wait()


def warm(workers: int | None, groups: int) -> None:
    """Starts the processes that a compilation of about so many groups will have, so that they are ready when it has.

    Compilations side by side share them: there are never more than the largest of these needs alone.
    """
    count = _count(workers, groups)
    if not count:
        return
    with _LOCK, contextlib.suppress(OSError):  # no process can be started: all is made here
        for _ in range(count - len(_alive(_ALL))):
            scheduler = _Scheduler()
            _ALL.add(scheduler)
            _READY.append(scheduler)


def _count(workers: int | None, groups: int) -> int:
    """How many processes schedule beside this one, which leaves itself a core."""
    cores = default_workers() if workers is None else workers
    return max(0, min(cores - 1, groups // FEWEST, MOST)) if sys.executable else 0


@contextmanager
def scheduled_ahead(jobs: list[Job], target: Target, workers: int | None = None) -> Iterator[Ahead | None]:
    """Has groups scheduled by other processes while the body runs; None where that is not worth it, or passes are
    watched or changed by what is known in this process only.

    jobs: in the order in which they will be asked for. workers: processes, as for `Compiler`.
    """
    ctx = PassContext.current()
    own = ctx.instruments or ctx.events or not all(isinstance(v, _PLAIN) for v in ctx.config.values())
    crew = [] if own else _taken(_count(workers, len(jobs)))
    if not crew:
        yield None
        return
    ahead = Ahead(jobs)
    context = ctx.opt_level, sorted(ctx.required_pass), sorted(ctx.disabled_pass), ctx.config
    for scheduler in crew:
        work = threading.Thread(target=scheduler.work, args=(ahead, (target, context)), daemon=True)
        work.start()
    try:
        yield ahead
    finally:
        ahead.stop()
