"""Errors that teach: what was found, where, why it is refused, what to do about it.

Every error that Warpbeam raises on purpose derives from `WarpbeamError`, so one `except` catches them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from warpbeam.runtime.errors import WarpbeamError

__all__ = [
    "CompileError",
    "Diagnostics",
    "IRError",
    "ImportModelError",
    "LowerError",
    "ScheduleError",
    "Span",
    "TextError",
    "TypeCheckError",
    "UnsupportedError",
    "VerifyError",
    "WarpbeamError",
]


class IRError(WarpbeamError):
    """A node was built from parts that do not fit together."""


class TypeCheckError(WarpbeamError):
    """Types or shapes of operands contradict an operator's rule."""


class TextError(WarpbeamError):
    """A program text does not parse."""


class ScheduleError(WarpbeamError):
    """A schedule primitive's precondition does not hold; the program is unchanged."""


class LowerError(WarpbeamError):
    """A program cannot be lowered or printed for the target."""


class ImportModelError(WarpbeamError):
    """A model file is broken, hostile, or outside what the format allows."""


class UnsupportedError(ImportModelError):
    """A model is valid but uses something that has no implementation; lists all that is missing at once."""


class CompileError(WarpbeamError):
    """A module could not be compiled."""


class VerifyError(WarpbeamError):
    """Two executions of the same program disagree beyond the stated tolerance."""


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a source: a model file's node, or line and column of a text."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(slots=True)
class Diagnostics:
    """Collects problems so that all of them can be reported at once."""

    problems: list[tuple[str, Span | None]] = field(default_factory=list)

    def add(self, message: str, span: Span | None = None) -> None:
        self.problems.append((message, span))

    def __bool__(self) -> bool:
        return bool(self.problems)

    def render(self) -> str:
        return "\n".join(f"  - {text}" + (f"  (at {span})" if span else "") for text, span in self.problems)
