"""What a model needs of sizes that its inputs do not tell: taken for granted, checked where the program gets there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.frontend.onnx.build import shape_of
from warpbeam.frontend.onnx.inputs import Dims
from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.ir.rewrite import post_order
from warpbeam.op import get
from warpbeam.relay.expr import Expr
from warpbeam.relay.types import TensorType
from warpbeam.tir.arith import Facts, bounds
from warpbeam.tir.expr import PrimExpr, Var
from warpbeam.topi import dims

_LARGEST = 1 << 40  # of a size, for reckoning with it


def assumed(x: Expr, shape: Sequence[Any]) -> Expr:
    """`x` with dimensions written otherwise; the same expression where they are its own."""
    if all(dims.same(a, b) for a, b in zip(shape_of(x), shape, strict=True)):
        return x
    return get("assume_shape")(x, shape=tuple(shape))  # type: ignore[no-any-return]


def with_size(x: Expr, axis: int, size: Any) -> Expr:
    """`x` with one dimension taken to be `size`; sizes that tensors' contents tell are compared anyway."""
    have = shape_of(x)
    if dims.same(have[axis], size) is not None or dims.counted_in(have[axis], size):
        return x
    return assumed(x, (*have[:axis], size, *have[axis + 1 :]))


def settle(view: NodeView, pair: tuple[Any, Any], plain: tuple[bool, bool]) -> bool:
    """Two dimensions that a node needs to be equal: its operands get the simpler one of them in the other's place.

    One that cannot be more than 1 gets a 1 in its place: it may be meant to be repeated.

    plain: which of them are sizes of the model's inputs. False where that does not help, or is for others to decide.
    """
    if all(plain) or dims.counted_in(*pair) or dims.same(*pair) is not None:
        return False
    single = next((d for d in pair if isinstance(d, PrimExpr) and _at_most_one(d)), None)
    simple, other = (1, single) if single is not None else sorted(pair, key=_length)
    changed = False
    for k, entry in enumerate(view.entries):
        if entry is None or entry.missing or not isinstance(entry.type, TensorType):
            continue
        have = entry.type.shape
        want = tuple(simple if isinstance(d, PrimExpr) and dims.same(d, other) else d for d in have)
        if any(a is not b for a, b in zip(have, want, strict=True)):
            view.entries[k] = Entry(assumed(entry.expr, want), string=entry.string)
            changed = True
    return changed


def _at_most_one(value: PrimExpr) -> bool:
    """Whether a dimension is 1 or 0 whatever the sizes are."""
    facts = Facts()
    for size in post_order(value):
        if isinstance(size, Var):
            facts.bind(size, 1, _LARGEST)
    _, most = bounds(value, facts)
    return most is not None and most <= 1


def _length(value: Any) -> int:
    """How much there is to a dimension: nothing to a number, little to the size of an input."""
    if not isinstance(value, PrimExpr):
        return 0
    return 1 if isinstance(value, Var) else sum(1 for _ in post_order(value))


def unify(named: Dims, cause: BaseException | None, aliases: dict[str, str]) -> bool:
    """Two input dimensions that the model needs to be equal become one; False where that is not what went wrong."""
    if not isinstance(cause, dims.Undecided) or len(aliases) >= 64:
        return False
    first, second = (named.name_of(v) for v in cause.pair)
    if first is None or second is None:
        return False
    aliases.update({n: first for n, to in aliases.items() if to == second})
    aliases[second] = first
    return True


def other_choice(chosen: list[tuple[str, int]]) -> dict[str, int] | None:
    """The choices with the last one that can be made otherwise made so; None where none can."""
    for k in range(len(chosen) - 1, -1, -1):
        if chosen[k][1] == 0:
            return {**dict(chosen[:k]), chosen[k][0]: 1}
    return None
