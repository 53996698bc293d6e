"""Integer reasoning: normal forms, bounds, proofs, iterator maps.

simplify(expr, facts)   normal form         bounds(expr, facts)    constant range
prove(cond, facts)      yes / no / open     modular(expr, facts)   residue (coef, base)
linear(expr, vars)      coefficients        detect_iter_map(...)   split/fuse structure of indices
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.tir.arith import poly as _poly
from warpbeam.tir.arith.bounds import atom_bounds, poly_bounds, poly_residue
from warpbeam.tir.arith.facts import Bounds, Facts
from warpbeam.tir.arith.iter_map import (
    IterSplit,
    IterSum,
    detect_iter_map,
    is_bijective,
    is_injective,
    stride,
    subspace,
)
from warpbeam.tir.arith.prove import prove
from warpbeam.tir.arith.simplify import simplify
from warpbeam.tir.expr import PrimExpr, Var

__all__ = [
    "Bounds",
    "Facts",
    "IterSplit",
    "IterSum",
    "bounds",
    "detect_iter_map",
    "is_bijective",
    "is_injective",
    "linear",
    "modular",
    "prove",
    "simplify",
    "stride",
    "subspace",
]


def bounds(expr: Any, facts: Facts | None = None) -> Bounds:
    """(lo, hi), both inclusive, of an integer or bool expression; None where there is no constant bound.

    A vector's bounds hold for all lanes.
    """
    facts = Facts() if facts is None else facts
    new = simplify(expr, facts)
    if dt.is_int(new.dtype) and dt.lanes(new.dtype) == 1:
        return poly_bounds(_poly.of_expr(new), facts)
    return atom_bounds(new, facts)


def modular(expr: Any, facts: Facts | None = None) -> tuple[int, int]:
    """(coef, base) with expr == base (mod coef); (0, v): it is the constant v; (1, 0): nothing is known."""
    facts = Facts() if facts is None else facts
    return poly_residue(_poly.of_expr(simplify(expr, facts)), facts)


def linear(
    expr: Any, variables: Sequence[Var], facts: Facts | None = None
) -> tuple[dict[Var, PrimExpr], PrimExpr] | None:
    """({var: coefficient}, rest) with expr = sum(var*coefficient) + rest; None where expr is not linear in `variables`.

    Coefficients and rest are expressions free of `variables` (IntImm where constant); absent variables are left out.
    """
    from warpbeam.ir.rewrite import post_order

    new = simplify(expr, facts)
    wanted = set(variables)
    slopes: dict[Var, _poly.Poly] = {}
    rest: _poly.Poly = {}
    for mono, coef in _poly.of_expr(new).items():
        inside = [a for a in mono if a in wanted]
        others = tuple(a for a in mono if a not in wanted)
        if len(inside) > 1 or any(n in wanted for n in post_order(*others)):
            return None
        if inside:
            var = inside[0]
            slopes[var] = _poly.plus(slopes.get(var, {}), {others: coef})  # type: ignore[index, call-overload]
        else:
            rest[mono] = coef
    found = {v: _poly.to_expr(slopes[v], new.dtype) for v in variables if v in slopes}
    return found, _poly.to_expr(rest, new.dtype)
