"""Times variants of a kernel in another process, which may crash or hang: then only the variant is out."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from warpbeam.driver.race import Dropped
from warpbeam.driver.workers import MEMORY_LIMIT, asked, last_words, start_process
from warpbeam.target import Target

SECONDS_LIMIT = 5.0  # for one answer
_SAMPLE = 2e-4  # seconds that a measurement should take at least
_MOST_CALLS = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """A kernel of a library: its symbol, [bytes, dtype, constant] of its buffers, and the values of its sizes."""

    symbol: str
    buffers: tuple[tuple[int, str, bool], ...]
    dims: tuple[int, ...]


def calls_for(seconds: float) -> int:
    """How many calls of so many seconds a measurement is made of."""
    return max(1, min(_MOST_CALLS, round(_SAMPLE / max(seconds, 1e-7))))


class Timer:
    """Measures kernels of one library at a time. Use as a context manager; the process starts when it is needed."""

    def __init__(self, target: Target, seconds: float = SECONDS_LIMIT) -> None:
        self.command = ["warpbeam.driver.timing_main", str(MEMORY_LIMIT), str(target.l3 or target.l2 or target.l1)]
        self.seconds = seconds
        self.code = b""
        self.entries: Sequence[Entry] = ()
        self.ids: dict[int, int] = {}
        self.number = 0
        self.loaded = False
        self.process: subprocess.Popen[bytes] | None = None
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    def load(self, code: bytes, entries: Sequence[Entry]) -> None:
        """Takes the variants of another kernel: a shared library and what it exports."""
        self.code, self.entries, self.number = code, entries, 0
        self.ids.clear()
        self.loaded = False
        with contextlib.suppress(Dropped):  # then the first measurement tries again, and says so
            self._ready()

    def sample(self, which: int) -> float:
        """Seconds of one call of a variant.

        Raises:
            Dropped: if it cannot be measured.
        """
        self.prepare(which)
        return self._run(which, self.number)

    def prepare(self, which: int) -> None:
        """Gives a variant its memory and calls it a first time, if that was not done; raises as `sample`."""
        self._ready()
        if which not in self.ids:
            e = self.entries[which]
            made = self._send({"op": "kernel", "symbol": e.symbol, "buffers": e.buffers, "dims": e.dims})
            self.ids[which] = made["id"]
            self._run(which, 1)
            once = self._run(which, 1)
            self.number = self.number or calls_for(once)

    def _ready(self) -> None:
        """Has a process with the library."""
        if self.process is None:
            try:
                self.process = start_process(self.command, self.log)
            except OSError as error:
                raise Dropped(f"no process could be started: {error}") from error
        if not self.loaded:
            self._send({"op": "load", "bytes": len(self.code)}, self.code)
            self.loaded = True

    def _run(self, which: int, number: int) -> float:
        return float(self._send({"op": "run", "id": self.ids[which], "number": number})["seconds"])

    def _send(self, request: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
        process = self.process
        assert process is not None
        reply, _, late = asked(process, request, payload, self.seconds)
        if reply is None:
            why = f"took more than {self.seconds:g} s" if late else f"crashed {last_words(process, self.log)}"
            self.stop()
            raise Dropped(why.strip())
        if not reply["ok"]:
            raise Dropped(reply["why"])
        return reply

    def stop(self) -> None:
        """Ends the process; the next measurement starts another."""
        process, self.process = self.process, None
        self.loaded = False
        self.ids.clear()
        if process is not None:
            process.kill()
            process.communicate()

    def __enter__(self) -> Timer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self.log.close()
