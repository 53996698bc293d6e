"""Predicates of blocks: conditions that loops need, marked `likely`, and conditions of the program itself.

A `likely` condition only keeps loops from running past the block's domain and says nothing about the computation, so
whoever makes a block's loops anew leaves it out. Any other predicate belongs to the program.
"""

from __future__ import annotations

from typing import Any

from warpbeam.tir import expr as e
from warpbeam.tir.expr import IntImm, PrimExpr
from warpbeam.tir.stmt import Block


def likely(cond: PrimExpr) -> PrimExpr:
    """The condition with the mark, literals as they are."""
    return cond if isinstance(cond, IntImm) else e.call("likely", cond)


def is_likely(cond: Any) -> bool:
    return type(cond) is e.Call and cond.op == "likely"


def conjuncts(cond: PrimExpr) -> list[PrimExpr]:
    """The parts of a conjunction in order; none for true."""
    return [c for c in e.flattened(cond, e.And) if not (isinstance(c, IntImm) and c.value)]


def own_condition(block: Block) -> PrimExpr:
    """The part of a block's predicate that is not due to the schedule's loops."""
    return e.land(*[c for c in conjuncts(block.predicate) if not is_likely(c)])


def unconditional(block: Block) -> bool:
    """Whether the program itself runs every instance of the block."""
    own = own_condition(block)
    return isinstance(own, IntImm) and bool(own.value)
