"""Index maps given by a user: of transform_layout."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.te.schedule.errors import require
from warpbeam.tir.expr import as_expr


class AxisSeparator:
    """Stands in an index map where one dimension of physical memory ends and the next begins."""

    def __repr__(self) -> str:
        return "te.AXIS_SEPARATOR"


AXIS_SEPARATOR = AxisSeparator()


def final_indices(mapping: Callable[..., Any], axes: Sequence[Any]) -> list[Any]:
    """What an index map gives for the axes, separators among it; `*args` in the middle takes what is left over."""
    require(callable(mapping), f"an index map is a function, not a {type(mapping).__name__}", "lambda i, j: [j, i]")
    parameters = list(inspect.signature(mapping).parameters.values())
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    keyword = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    count = len(named) + len(keyword)
    require(
        count == len(axes) or (rest and count <= len(axes)),
        f"the index map takes {count} indices, the result has {len(axes)} dimensions",
    )
    values = [a.var for a in axes]
    cut = len(values) - len(keyword)
    given = mapping(*values[:cut], **dict(zip(keyword, values[cut:], strict=True)))
    items = list(given) if isinstance(given, list | tuple) else [given]
    require(bool(items), "the index map gives no indices")
    return [i if i is AXIS_SEPARATOR else as_expr(i) for i in items]
