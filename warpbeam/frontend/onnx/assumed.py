"""What a model needs of sizes that its inputs do not tell: taken for granted, checked where the program gets there."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warpbeam.frontend.onnx.build import shape_of
from warpbeam.frontend.onnx.inputs import Dims
from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.ir.rewrite import post_order
from warpbeam.op import get
from warpbeam.relay.expr import Expr
from warpbeam.relay.types import TensorType
from warpbeam.tir.arith import Facts, bounds
from warpbeam.tir.expr import PrimExpr, Var, maximum
from warpbeam.topi import dims


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


def settle(view: NodeView, need: dims.Undecided, plain: tuple[bool, bool]) -> bool:
    """Two dimensions that a node needs to be equal: its operands get the simpler one of them in the other's place.

    Where operands broadcast, one that is 1 at all sizes that work gets a 1 in its place; where it is 1 at some and
    equal to the other at few, it is repeated or not when the program runs.

    plain: which of them are sizes of the model's inputs. False where that does not help, or is for others to decide.
    """
    pair = need.pair
    if all(plain) or dims.counted_in(*pair) or dims.same(*pair) is True:
        return False
    axis = need.axis if view.op_type in _BROADCASTS else None
    way = _EQUAL if axis is None else _way(*pair)
    if way == _SPREAD:
        assert axis is not None
        return _spread(view, pair, axis)
    if way == _EQUAL and dims.same(*pair) is False:
        return False
    simple, other = (1, pair[way]) if way in (0, 1) else sorted(pair, key=_length)

    def settled(shape: Sequence[Any]) -> list[Any]:
        return [simple if isinstance(d, PrimExpr) and dims.same(d, other) else d for d in shape]

    return _rewritten(view, lambda x, shape: assumed(x, settled(shape)))


_BROADCASTS = {
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Mean", "Sum", "And", "Or", "Xor", "Equal", "Greater",
    "Less", "GreaterOrEqual", "LessOrEqual", "Where", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift", "Expand",
    "MatMul",
}  # fmt: skip
_EQUAL, _SPREAD = 2, 3  # besides 0 and 1: which of the two is 1
_SAMPLES = 40  # values of each size at which dimensions are compared
_FARTHEST = 1 << 31  # sizes up to which a number is looked for
_OFTEN = 8  # an equality at one of so many sizes is meant


def _way(a: Any, b: Any) -> int:
    """How two dimensions are meant to broadcast, by what they are at small sizes. It is a guess that is checked at run
    time: the first of "the one is 1", "the other is 1", "they are equal" that holds wherever any of them does.
    """
    found = [(x, y) for x, y in _values(a, b) if 1 in (x, y) or x == y]
    for k in (0, 1):
        if found and all(pair[k] == 1 for pair in found):
            return k
    equal = sum(x == y for x, y in found)
    return _EQUAL if equal == len(found) or equal * _OFTEN >= _SAMPLES else _SPREAD


def _values(a: Any, b: Any) -> list[tuple[int, int]]:
    """Two dimensions at some sizes of what they depend on: all sizes the same, one after another moved on, and where
    one of the two is a number that is further away, the size at which the other one gets there.
    """
    sizes = [n for n in post_order(*(d for d in (a, b) if isinstance(d, PrimExpr))) if isinstance(n, Var)]
    drawn = [[(n * (k + 1) - 1) % _SAMPLES + 1 for k in range(len(sizes))] for n in range(1, _SAMPLES + 1)]
    for number, other in ((a, b), (b, a)):
        if isinstance(number, int) and number > _SAMPLES:
            at = bisect_left(range(_FARTHEST), number, key=lambda n: _at(other, dict.fromkeys(sizes, n)) or 0)
            drawn.append([at] * len(sizes))
    pairs = [[_at(d, dict(zip(sizes, some, strict=True))) for d in (a, b)] for some in drawn]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _at(value: Any, sizes: Mapping[Var, Any]) -> int | None:
    """What a dimension is at some sizes."""
    if isinstance(value, int):
        return value
    facts = Facts()
    for size, n in sizes.items():
        facts.bind(size, n, 1)
    found = bounds(value, facts)[0]
    return None if found is None else int(found)


def _spread(view: NodeView, pair: tuple[Any, Any], axis: int) -> bool:
    """Operands are repeated along an axis, counted from the end, where they turn out to be 1 there."""
    number = next((d for d in pair if isinstance(d, int)), None)
    common = number if number is not None else dims.dim(maximum(*pair))

    def spread(x: Expr, shape: Sequence[Any]) -> Expr:
        if len(shape) < -axis or not any(dims.same(shape[axis], d) for d in pair) or dims.same(shape[axis], common):
            return x
        at = len(shape) + axis
        return get("spread")(x, shape=(*shape[:at], common, *shape[at + 1 :]))  # type: ignore[no-any-return]

    return _rewritten(view, spread)


def _rewritten(view: NodeView, change: Callable[[Expr, Sequence[Any]], Expr]) -> bool:
    """Replaces a node's operands that are tensors; whether that changed any."""
    changed = False
    for k, entry in enumerate(view.entries):
        if entry is not None and not entry.missing and isinstance(entry.type, TensorType):
            new = change(entry.expr, entry.type.shape)
            if new is not entry.expr:
                view.entries[k] = Entry(new, string=entry.string)
                changed = True
    return changed


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
