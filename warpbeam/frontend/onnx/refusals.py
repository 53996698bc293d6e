"""Refusals of models that are valid but cannot be imported as they are."""

from __future__ import annotations

from warpbeam.ir.diagnostics import Diagnostics, ImportModelError, UnsupportedError, WarpbeamError
from warpbeam.topi.dims import Undecided


class NeedsContentError(UnsupportedError):
    """What is missing comes from small inputs that would have to be known while importing: `inputs` names them."""

    inputs: tuple[str, ...] = ()


class MisfitError(ImportModelError):
    """The operands of a well-formed node do not fit together: what fails only where the node is reached.

    Wrong:
        node = helper.make_node("Add", ["x", "w"], ["y"])
        w = helper.make_tensor("w", 1, [3], [1, 2, 3])
        tvm.compile(helper.make_model(helper.make_graph([node], "add", [x_info], [y_info], [w])))
    Right:
        w = helper.make_tensor("w", 1, [4], [1, 2, 3, 4])
        tvm.compile(helper.make_model(helper.make_graph([node], "add", [x_info], [y_info], [w])))
    """


def all_missing(problems: Diagnostics, source: str, asked: set[str]) -> UnsupportedError:
    """One error that lists everything that is missing, each with the nodes that need it."""
    grouped: dict[str, list[str]] = {}
    for text, span in problems.problems:
        grouped.setdefault(text, []).append(str(span) if span else "")
    lines = []
    for text, places in list(grouped.items())[:60]:
        named = [p for p in dict.fromkeys(places) if p]
        more = f" and {len(named) - 4} more" if len(named) > 4 else ""
        lines.append(f"  - {text}" + (f" (nodes {', '.join(n[:60] for n in named[:4])}{more})" if named else ""))
    if len(grouped) > 60:
        lines.append(f"  - and {len(grouped) - 60} more kinds")
    error = (NeedsContentError if asked else UnsupportedError)(
        "the model uses what has no implementation yet:\n" + "\n".join(lines),
        where=source,
        hint=f"give the contents of inputs {sorted(asked)} as constants" if asked else "",
    )
    if isinstance(error, NeedsContentError):
        error.inputs = tuple(sorted(asked))
    return error


def undecided(error: ImportModelError, asked: set[str], found: bool) -> WarpbeamError:
    """What to raise for an error: contents are asked for where they tell whether sizes found at run time agree."""
    if not isinstance(error.__cause__, Undecided) or not asked or not found:
        return error
    needs = NeedsContentError(error.what, error.where, error.why, f"give inputs {sorted(asked)} as constants")
    needs.inputs = tuple(sorted(asked))
    return needs
