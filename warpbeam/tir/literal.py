"""Python numbers as they enter expressions: everything else is refused by name. And how they are divided there."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import IRError


class NumberError(IRError, TypeError, ValueError):
    """A value that is no number stands where a number or an expression belongs.

    It is a TypeError and a ValueError too, as the conversion by Python would raise.

    Wrong:
        te.placeholder((None, 4))
    Right:
        te.placeholder((te.var("n"), 4))
    """


def integer(value: Any, what: str = "an integer or an expression", exact: bool = False) -> int:
    """The value as a Python int; `exact` refuses 2.5, which else becomes 2."""
    if type(value) is int:
        return value
    if exact and isinstance(value, float) and value % 1 > 0:
        raise NumberError(f"{value} stands where {what} belongs", hint="divide with //, which gives integers")
    return _converted(int, value, what)  # type: ignore[no-any-return]


def real(value: Any) -> float:
    """The value as a Python float."""
    if type(value) is float:
        return value
    return _converted(float, value, "a number or an expression")  # type: ignore[no-any-return]


def _converted(kind: type, value: Any, what: str) -> Any:
    if isinstance(value, int | float):
        if kind is float or (value == value and abs(value) != float("inf")):
            return kind(value)
    elif not isinstance(value, str | bytes):
        try:
            return kind(value)
        except (TypeError, ValueError, OverflowError):
            pass
    shown = repr(value) if isinstance(value, str | bytes | int | float | None) else f"a {type(value).__name__}"
    raise NumberError(f"{shown} stands where {what} belongs", hint="give a number")


def trunc_div(a: int, b: int) -> int:
    """Quotient rounded toward zero; 0 where the divisor is 0."""
    if b == 0:
        return 0
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q
