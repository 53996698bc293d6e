"""States of a loop that grow: what each iteration puts behind them is gathered, and put together after the loop.

    s = concat(s, piece)     ->     rows[i] = piece; after the loop s = concat(s, rows)

That is how lists of results come out of exporters that have no lists: a state begins empty and gets longer. In the
compiled program a state keeps its size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.op import get
from warpbeam.relay.expr import Expr, const
from warpbeam.topi import dims
from warpbeam.transform.graph import op_name


@dataclass(frozen=True, slots=True)
class Grown:
    """A state that was taken out of a loop: its number, what it begins as, the axis along which it grows."""

    number: int
    start: Any
    axis: int

    def whole(self, rows: Any) -> Expr:
        """The state after the loop. rows: (iterations, *shape of a piece)."""
        count, *piece = rows.ty.shape
        axes = (*range(1, self.axis + 1), 0, *range(self.axis + 1, len(piece) + 1))
        piece[self.axis] = dims.prod((count, piece[self.axis]))
        added = get("reshape")(get("transpose")(rows, axes=axes) if self.axis else rows, newshape=tuple(piece))
        if dims.same(self.start.ty.shape[self.axis], 0) is True:
            return added  # type: ignore[no-any-return]
        return get("concatenate")(self.start, added, axis=self.axis)  # type: ignore[no-any-return]


def take_out(body: Any, keeps: Callable[[Any, Any], bool]) -> list[Grown]:
    """Makes outputs of one entry per iteration, behind those that are there, of states that change their shape and
    that a loop does nothing with but put something behind them. keeps: whether two types are the same.
    """
    found = []
    for k, (var, after) in enumerate(zip(body.states, body.after, strict=True)):
        if keeps(var.ty, after.ty) or op_name(after) != "concatenate" or after.args[0] is not var:
            continue
        others = [e for j, e in enumerate(body.after) if j != k] + [row for row, _ in body.gathered]
        others += [*after.args[1:], *([body.running[2]] if body.running else [])]
        if any(n is var for n in post_order(*others)):
            continue
        axis = after.attrs["axis"] % after.ty.ndim
        found.append(Grown(k, body.starts[k], axis))
        body.gathered.append((_piece(after, axis), body.step))
    for grown in reversed(found):
        for held in (body.states, body.starts, body.after):
            del held[grown.number]
    return found


def _piece(after: Any, axis: int) -> Expr:
    """What an iteration puts behind a state, its other dimensions those of the state: if it is not known of them that
    they are, that is checked where it is put behind nothing of the state's shape.
    """
    parts = list(after.args[1:])
    along = [[d for k, d in enumerate(t.ty.shape) if k != axis] for t in (after, *parts)]
    if not all(dims.equal(along[0], own) for own in along[1:]):
        shape = tuple(0 if k == axis else d for k, d in enumerate(after.ty.shape))
        parts.insert(0, get("full")(const(0, after.ty.dtype), shape=shape, dtype=after.ty.dtype))
    return parts[0] if len(parts) == 1 else get("concatenate")(*parts, axis=axis)  # type: ignore[no-any-return]


def put_back(results: Sequence[Expr], found: Sequence[Grown]) -> list[Expr]:
    """What a loop gives, the states that were taken out in their places."""
    kept = list(results[: len(results) - len(found)])
    for grown, rows in zip(found, results[len(kept) :], strict=True):
        kept.insert(grown.number, grown.whole(rows))
    return kept
