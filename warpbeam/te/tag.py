"""`te.tag_scope`: one tag for all that is computed inside of it.

with te.tag_scope("conv"):          @te.tag_scope(tag="conv")
    C = te.compute(...)             def conv(...): ...
"""

from __future__ import annotations

from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import Any

from warpbeam.te.errors import TEError

_CURRENT: ContextVar[str] = ContextVar("tag", default="")


class TagScope(ContextDecorator):
    """The operations made inside have `tag`; as a context or a decorator."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self._tokens: list[Any] = []

    def __enter__(self) -> TagScope:
        if _CURRENT.get():
            raise TEError("nested tag_scope is not allowed", why=f"the tag {_CURRENT.get()!r} is in force")
        self._tokens.append(_CURRENT.set(self.tag))
        return self

    def __exit__(self, *error: Any) -> None:
        _CURRENT.reset(self._tokens.pop())


def tag_scope(tag: str) -> TagScope:
    """A scope whose operations all have `tag`."""
    return TagScope(tag)


def tag_of(given: str) -> str:
    """The tag of an operation that is made now; TEError where both it and a scope give one."""
    around = _CURRENT.get()
    if around and given:
        raise TEError(f"nested tag {given!r} is not allowed", why=f"the tag scope gives {around!r}",
                      hint="leave tag out, or the scope")  # fmt: skip
    return around or given
