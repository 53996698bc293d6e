"""The errors of Warpbeam: each says what was found, where, why it cannot work and what to do about it."""

from __future__ import annotations

__all__ = [
    "ArgumentError", "ArtifactError", "FunctionError", "LinkError", "LoadError", "RunError", "TVMError",
    "WarpbeamError",
]  # fmt: skip


class WarpbeamError(Exception):
    """Root of all errors raised on purpose.

    Args:
        what: what was found, one sentence.
        where: the place (file, node, argument) it was found at; empty if `what` already says so.
        why: why it cannot work.
        hint: what the reader can do about it.
    """

    def __init__(self, what: str, where: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what, where, why, hint)
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  {label}: {text}" for label, text in self._notes() if text]
        return "\n".join(lines)

    def _notes(self) -> list[tuple[str, str]]:
        return [("where", self.where), ("why", self.why), ("what to do", self.hint)]


class ArtifactError(WarpbeamError):
    """A compiled file is damaged, forged, or of a version or machine that this runtime cannot serve."""


class LinkError(WarpbeamError):
    """Object files cannot be linked into a shared library."""


class LoadError(WarpbeamError):
    """Machine code or one of its symbols cannot be loaded into this process."""


class RunError(WarpbeamError):
    """A model was called with the wrong arrays, or reported a failure while running."""


class ArgumentError(RunError, ValueError):
    """A compiled function was called with arguments that do not fit what it was built for."""


class FunctionError(RunError, ValueError):
    """A function is not registered under a name, or a name is registered twice."""


#: the classic name of the root
TVMError = WarpbeamError
