"""Errors of the te schedule: each is a ScheduleError, and a ValueError where such code has always caught one."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import ScheduleError


class ScheduleValueError(ScheduleError, ValueError):
    """An argument of a te schedule primitive has a value that the primitive does not take.

    Wrong:
        s[B].split(B.op.axis[0])
    Right:
        s[B].split(B.op.axis[0], factor=2)
    """


def require(cond: Any, what: str, hint: str = "", why: str = "") -> None:
    """Raises a ScheduleValueError where `cond` does not hold; called before anything is changed."""
    if not cond:
        raise ScheduleValueError(what, why=why, hint=hint)
