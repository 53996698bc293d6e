"""Results of an If whose branches give them different sizes, as results of one type and the sizes they really have.

Each branch puts zeros behind what it gives, up to the larger of the two sizes, and says how much is its own; after the
If that much is cut out, with sizes that are found at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.frontend.onnx.found import Found
from warpbeam.ir.rewrite import post_order
from warpbeam.op import get
from warpbeam.relay.expr import Call, Expr, If, Tuple, TupleGetItem, const
from warpbeam.relay.types import TensorType
from warpbeam.tir.expr import as_expr, maximum
from warpbeam.topi import dims
from warpbeam.topi.dim_bounds import upper


class Evened:
    """The results of both branches with one type, `pairs`: of them, then of the sizes of those that differ.

    outer: the sizes that were found before the branches. unbounded: the number of a result that may be of any size.
    """

    def __init__(self, name: str, pairs: list[tuple[Expr, Expr]], found: Found, outer: set[Any]) -> None:
        self.name, self.found = name, found
        self.count = len(pairs)
        self.unbounded: int | None = None
        self.most: dict[int, dict[int, Any]] = {}  # number of a result -> axis -> what both sizes do not exceed
        bounds = [_bounds(e, outer) for e in zip(*pairs, strict=True)]
        for k, pair in enumerate(pairs):
            for axis, sizes in enumerate(zip(*map(_shape, pair), strict=True)):
                if dims.same(*sizes) is True:
                    continue
                most = [_most(s, known, outer) for s, known in zip(sizes, bounds, strict=True)]
                if any(s is None for s in most):
                    self.unbounded = k
                    return
                self.most.setdefault(k, {})[axis] = dims.dim(maximum(*map(as_expr, most)))
        self.pairs = [self._both(pair, self._filled, self.most.get(k, {})) for k, pair in enumerate(pairs)]
        self.pairs += [self._both(pairs[k], self._sizes, most) for k, most in self.most.items()]

    def _both(self, pair: tuple[Expr, Expr], fn: Callable[..., Expr], most: dict[int, Any]) -> tuple[Expr, Expr]:
        return fn(pair[0], most), fn(pair[1], most)

    def _filled(self, x: Expr, most: dict[int, Any]) -> Expr:
        widths = tuple((0, dims.dim(most[d] - as_expr(s)) if d in most else 0) for d, s in enumerate(_shape(x)))
        if all(isinstance(w, int) and w == 0 for _, w in widths):
            return x
        padded = get("nn.pad")(x, const(0, x.ty.dtype), pad_width=widths)  # type: ignore[attr-defined]
        return self.found.guarded(padded, [x])

    def _sizes(self, x: Expr, most: dict[int, Any]) -> Expr:
        return self.found.content([_shape(x)[d] for d in most])

    def joined(self, cond: Expr) -> list[Expr]:
        """The results of the If, each of the size that the branch taken gives it."""
        if len(self.pairs) == 1:
            return [If(cond, *self.pairs[0])]
        value = If(cond, *[Tuple(values) for values in zip(*self.pairs, strict=True)])
        parts: list[Expr] = [TupleGetItem(value, k) for k in range(len(self.pairs))]
        out = parts[: self.count]
        for sizes, (k, most) in zip(parts[self.count :], self.most.items(), strict=True):
            for element, (axis, bound) in enumerate(most.items()):
                size = self.found.size(self.name, sizes, element)
                out[k] = _first(out[k], axis, sizes, {"extents": ((size, 1, element),), "bounds": (bound,)})
        return out


def _shape(x: Expr) -> tuple[Any, ...]:
    return x.ty.shape if isinstance(x.ty, TensorType) else ()  # type: ignore[attr-defined]


def _bounds(results: tuple[Expr, ...], outer: set[Any]) -> dict[Any, Any]:
    """What the sizes that a branch finds are at most, in those found before it."""
    known: dict[Any, Any] = {}
    for n in post_order(*results):
        if not isinstance(n, Call):
            continue
        for (size, *_), most in zip(n.attrs.get("extents", ()), n.attrs.get("bounds", ()), strict=False):
            if size not in outer and most is not None and known.get(size) is None:
                known[size] = _most(most, known, outer)
    return known


def _most(size: Any, known: dict[Any, Any], outer: set[Any]) -> Any:
    return upper(size, lambda v: v if v in outer else known.get(v))


def _first(x: Expr, axis: int, sizes: Expr, attrs: dict[str, Any]) -> Expr:
    """The first entries along an axis."""
    rank = len(_shape(x))
    front = (axis, *(d for d in range(rank) if d != axis))
    back = tuple(front.index(d) for d in range(rank))
    if axis:
        x = get("transpose")(x, axes=front)
    x = get("counted.cut")(x, sizes, **attrs)
    return get("transpose")(x, axes=back) if axis else x  # type: ignore[no-any-return]
