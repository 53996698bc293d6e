"""What a compilation may take: seconds, and bytes that the compiled model needs.

Whoever does the work asks here between two pieces of it: nodes of a model, passes, kernels, machine code. So one piece
may run over; it is not interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from warpbeam.ir.diagnostics import CompileError


@dataclass(frozen=True, slots=True)
class Budget:
    """seconds: as they were given; end: when they are over, on time.monotonic; memory: bytes. None: any number."""

    seconds: float | None = None
    end: float | None = None
    memory: int | None = None


_NONE = Budget()
_CURRENT: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def limited(memory: int | None = None, seconds: float | None = None) -> Iterator[None]:
    """Limits of what is compiled inside; None: as outside.

    Raises:
        CompileError: for limits that are no numbers above zero, and, inside, where one is exceeded.
    """
    for name, value in (("max_memory", memory), ("max_compile_seconds", seconds)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise CompileError(f"{name}={value!r}", "compile", "it is a number above zero, or None")
    outer = _CURRENT.get() or _NONE
    end = outer.end if seconds is None else time.monotonic() + seconds
    inner = Budget(outer.seconds if seconds is None else seconds, end, outer.memory if memory is None else int(memory))
    token = _CURRENT.set(inner)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def check_time(doing: str) -> None:
    """Raises CompileError where the seconds are over. doing: what would come next."""
    if (left := seconds_left()) is not None and left <= 0:
        raise late(doing)


def seconds_left() -> float | None:
    """Seconds until the end, 0 or less after it; None: any number."""
    end = (_CURRENT.get() or _NONE).end
    return None if end is None else end - time.monotonic()


def late(doing: str) -> CompileError:
    """The error for an end that has come."""
    seconds = (_CURRENT.get() or _NONE).seconds or 0.0
    return CompileError(
        f"compiling takes more than {seconds:g} s", doing, "that is the limit", "raise max_compile_seconds"
    )


def most_memory() -> int | None:
    """Bytes that a compiled model may need; None: any number."""
    return (_CURRENT.get() or _NONE).memory


def check_memory(need: int, what: str) -> None:
    """Raises CompileError where so many bytes are more than a compiled model may need."""
    most = most_memory()
    if most is not None and need > most:
        raise CompileError(f"the model needs {need} bytes", what, f"the limit is {most}", "raise max_memory")
