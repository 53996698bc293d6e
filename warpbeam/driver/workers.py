"""Warm compiling workers: processes that turn LLVM IR text into object bytes, kept for the life of this process.

LLVM's calls do not run side by side in one process, and it aborts on some inputs, so it runs elsewhere: several
kernels compile at once, a crash is an error that names its kernel, and time and memory are limited. Which worker
compiles what has no influence on the result.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from warpbeam.codegen.llvm.compile import machine_of, refused
from warpbeam.driver.cache import Cache
from warpbeam.ir.diagnostics import CompileError
from warpbeam.target import Target

SECONDS_LIMIT = 300.0
MEMORY_LIMIT = 8 << 30


def start_process(command: list[str], log: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """A Python process that runs one of our modules (with arguments) and answers on stdout; stderr goes to `log`."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Closes a process's streams, so that it ends; one that does not soon is killed."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_words(process: subprocess.Popen[bytes] | None, log: IO[bytes]) -> str:
    """What a process that ended wrote to its log, at most eight lines; the log is emptied."""
    if process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
    log.seek(0)
    words = log.read().decode(errors="replace").strip()
    log.truncate(0)
    log.seek(0)
    return "\n".join(words.splitlines()[:8])


def asked(
    process: subprocess.Popen[bytes], request: dict[str, Any], payload: bytes, seconds: float
) -> tuple[dict[str, Any] | None, bytes, bool]:
    """A process's answer to a request, what follows it, and whether the process was killed because it took too long.

    The answer is None where none came: the process crashed, or was killed. "bytes" in it is the length of what follows.
    """
    assert process.stdin is not None and process.stdout is not None
    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n" + payload)
        process.stdin.flush()
        line = process.stdout.readline()
        answer = json.loads(line) if line else None
        size = 0 if answer is None else answer.get("bytes", 0)
        rest = process.stdout.read(size) if size else b""
    except (OSError, ValueError):
        return None, b"", late.is_set()
    finally:
        timer.cancel()
    return (answer if len(rest) == size else None), rest, late.is_set()


class _Worker:
    """One process and the thread that feeds it."""

    def __init__(self, jobs: queue.SimpleQueue[Any]) -> None:
        self.jobs = jobs
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process: subprocess.Popen[bytes] | None = self._start()
        self.thread = threading.Thread(target=self._feed, name="warpbeam-compile", daemon=True)
        self.thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        return start_process(["warpbeam.driver.worker_main", str(MEMORY_LIMIT)], self.log)

    def _feed(self) -> None:
        while (job := self.jobs.get()) is not None:
            future, name, head, text, seconds = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._compile(name, head, text, seconds))
            except BaseException as error:  # the caller of result() gets it
                future.set_exception(error)
        self.stop()

    def _compile(self, name: str, head: dict[str, Any], text: bytes, seconds: float) -> bytes:
        if self.process is None:
            self.process = self._start()
        answer, payload, late = asked(self.process, head, text, seconds)
        if answer is None:
            raise self._crashed(name, seconds if late else None)
        if not answer["ok"]:
            raise refused(name, payload.decode(errors="replace"))
        return payload

    def _crashed(self, name: str, seconds: float | None) -> CompileError:
        words = last_words(self.process, self.log)
        self.stop()
        if seconds is not None:
            what, why = f"compiling kernel {name!r} took more than {seconds:g} s", "it was stopped"
        else:
            what, why = f"LLVM crashed on kernel {name!r}", words or "it said nothing"
        return CompileError(
            what, why=why, hint="this is a fault of the code generator; please report it with the kernel"
        )

    def stop(self) -> None:
        """Ends the process; a later job starts a new one."""
        process, self.process = self.process, None
        if process is not None:
            end_process(process)


class _Pool:
    """The workers of this process; more are started when a caller asks for more."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.workers: list[_Worker] = []

    def grow(self, count: int) -> None:
        while len(self.workers) < count:
            self.workers.append(_Worker(self.jobs))

    def shut_down(self) -> None:
        if self.pid != os.getpid():
            return
        for _ in self.workers:
            self.jobs.put(None)
        for worker in self.workers:
            worker.thread.join(2)
        self.workers.clear()


_POOL: _Pool | None = None
_LOCK = threading.Lock()


def _pool(count: int) -> _Pool:
    """The process's pool with at least `count` workers; a forked child makes its own."""
    global _POOL
    with _LOCK:
        if _POOL is None or _POOL.pid != os.getpid():
            _POOL = _Pool()
            atexit.register(_POOL.shut_down)
        _POOL.grow(count)
        return _POOL


def default_workers() -> int:
    """Compiling processes when the caller does not say: the cores of this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Compiler:
    """Compiles texts for one target through the cache and the workers. Use as a context manager.

    with Compiler(target) as compiler:
        jobs = [compiler.submit(name, text) for name, text in texts]
        objects = [job.result() for job in jobs]
    """

    def __init__(self, target: Target, cache: Cache | None = None, workers: int | None = None, level: int = 1) -> None:
        """Starts the workers in the background.

        Args:
            target: the machine to compile for.
            cache: where objects are looked up and kept; None: nowhere.
            workers: number of processes; None: one per core; 0: compile in this process.
            level: LLVM's code generation level.
        """
        self.machine = machine_of(target)
        self.target = target
        self.cache = cache
        self.level = level
        self.seconds = SECONDS_LIMIT
        self._jobs: list[Future[bytes]] = []
        count = default_workers() if workers is None else workers
        self._pool = _pool(count) if count > 0 and sys.executable else None

    def submit(self, name: str, text: str, level: int | None = None) -> Future[bytes]:
        """Starts compiling at `level` (None: the compiler's own); the future gives object bytes, or raises CompileError
        naming `name`.
        """
        level = self.level if level is None else level
        future: Future[bytes] = Future()
        self._jobs.append(future)
        key = self.cache.object_key(text, self.machine, level) if self.cache is not None else ""
        found = self.cache.get(key) if self.cache is not None else None
        if found is not None:
            future.set_result(found)
            return future
        if self.cache is not None:
            future.add_done_callback(lambda done: self._keep(key, done))
        if self._pool is None:
            self._here(future, name, text, level)
        else:
            data = text.encode()
            head = {"name": name, "bytes": len(data), "machine": self.machine, "level": level}
            self._pool.jobs.put((future, name, head, data, self.seconds))
        return future

    def map(self, texts: Iterable[tuple[str, str]]) -> list[bytes]:
        """Objects of (name, text) pairs, in their order."""
        return [job.result() for job in [self.submit(name, text) for name, text in texts]]

    def _keep(self, key: str, done: Future[bytes]) -> None:
        if self.cache is not None and not done.cancelled() and done.exception() is None:
            self.cache.put(key, done.result())

    def _here(self, future: Future[bytes], name: str, text: str, level: int) -> None:
        from warpbeam.codegen.llvm.compile import compile_text

        try:
            future.set_result(compile_text(text, self.target, level, name))
        except CompileError as error:
            future.set_exception(error)

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancels what was not waited for."""
        for job in self._jobs:
            job.cancel()
        self._jobs.clear()
