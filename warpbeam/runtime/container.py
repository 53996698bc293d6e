"""`runtime.container`: values that are made of values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["ADT", "tuple_object"]


class ADT(tuple[Any, ...]):
    """The fields of a tuple, which has tag 0, or of a case of a data type."""

    tag: int

    def __new__(cls, tag: int, fields: Iterable[Any]) -> ADT:
        made = super().__new__(cls, fields)
        made.tag = tag
        return made

    def __repr__(self) -> str:
        return f"ADT({self.tag}, {list(self)!r})"


def tuple_object(fields: Iterable[Any] | None = None) -> ADT:
    """A tuple of values."""
    return ADT(0, fields or ())
