"""Analytic prior for two products with a softmax between them whose rows are taken in parts: a block of rows passes one
part of the columns after the other, and sums so far are multiplied by what they weigh less when a row's maximum grows.

A part is a chain of its own (`cost.chain_prior`) with the part's columns; to that come, for each part, the copy of its
right operands and the sums of the block.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

from warpbeam.cost import chain_prior
from warpbeam.cost.chain_prior import Block, Blocks, Chain
from warpbeam.cost.tile_prior import EXPOSED, STACK, cache_rate
from warpbeam.target import Target

_ROWS = (16, 32, 48, 60, 64, 66, 72, 78, 84, 90, 96, 108, 120, 128, 144, 156, 168, 192)  # of a block
_SIZES = (96, 128, 192, 256, 384, 512, 768, 1024)  # columns of a part, about
_COPY_CYCLES = (3.0, 6.5)  # to copy a vector of an operand, and to turn one
_ROW_CYCLES = 60.0  # to begin and end the reductions of a row, and bring what it sums up to date
_VECTOR_CYCLES = 8.0  # of the reductions of a row, for each vector of it
_ONCE_CYCLES = 1.0  # to leave out of a vector of scores what the part before has counted
_SUM_CYCLES = 3.0  # to bring a vector of results up to date
_STATE = 8  # numbers of a row besides: maxima and totals


@dataclass(frozen=True, slots=True)
class Online(Blocks):
    """The decisions for one part, and how many columns a part has. parallel may also be "both" batch and rows."""

    size: int = field(kw_only=True)


@lru_cache(maxsize=256)
def plan(chain: Chain, target: Target) -> Online | None:
    """The best decisions; None where no buffers fit a thread's stack."""
    found = ranked(chain, target, 1)
    return found[0] if found else None


def ranked(chain: Chain, target: Target, count: int) -> list[Online]:
    """Up to `count` decisions, the best first."""
    rows = sorted({min(chain.rows, n) for n in _ROWS})
    entries = [
        found
        for size in _sizes(chain.products[0].columns)
        for n in rows
        if (found := _score(chain, size, n, target)) is not None
    ]
    return sorted(entries, key=lambda x: (float(f"{x.cycles:.3g}"), -x.size, -x.whole.rows))[:count]


def _sizes(columns: int) -> list[int]:
    """Columns of a part: what divides all of them near each of some numbers, or the number itself."""
    found = set()
    for size in (n for n in _SIZES if n < columns):
        near = [n for n in range(size * 3 // 4, size * 5 // 4 + 1) if columns % n == 0 and n < columns]
        found.add(min(near, key=lambda n: (abs(n - size), n)) if near else size)
    return sorted(found)


def pays(chain: Chain, target: Target) -> bool | None:
    """Whether one kernel is expected to be no slower than the products and the softmax apart; None where it cannot
    be.
    """
    one = plan(chain, target)
    return None if one is None else one.cycles <= chain_prior.separate(chain, target)


def _score(chain: Chain, size: int, rows: int, target: Target) -> Online | None:
    count, rest = divmod(chain.rows, rows)
    part = part_of(chain, size)
    if ((1 + (rest > 0)) * part.rights + (rows + rest) * _row(part)) * chain.bytes > (STACK if target.l2 else 0):
        return None
    whole = _block(chain, size, rows, target)
    last = _block(chain, size, rest, target) if rest else None
    parts = -(-chain.products[0].columns // size)
    each = whole.cycles * count + (last.cycles if last else 0.0)
    total = each * parts * chain.batch
    cores = target.cores if target.threads else 1
    blocks = count + (rest > 0)
    options = [("batch", chain.batch), *([("both", chain.batch * count)] if not rest else [])]
    options += [("rows", blocks)]
    forks = {"rows": chain.batch}
    shared = [
        (total * -(-n // cores) / n + forks.get(name, 1) * target.fork_cycles, k, name)
        for k, (name, n) in enumerate(options)
        if n > 1
    ]
    if cores == 1 or not shared or total <= 4 * target.fork_cycles:
        return Online(whole, last, "none", total, size=size)
    cycles, _, parallel = min(shared)
    return Online(whole, last, parallel, cycles, size=size)


def part_of(chain: Chain, size: int) -> Chain:
    """The chain that one part of the columns is, without its reductions."""
    first, second = chain.products
    return replace(chain, products=(replace(first, columns=size, reduced=False), replace(second, inner=size)))


def _block(chain: Chain, size: int, rows: int, target: Target) -> Block:
    """A block of rows of one part, with what it makes of the right operands, its reductions, and the sums so far."""
    part = part_of(chain, size)
    found = chain_prior.block(part, rows, target)
    vectors, result = -(-size // part.lanes), -(-part.products[-1].columns // part.lanes)
    held = chain.bytes * (part.rights + rows * _row(part))
    passed = EXPOSED * 3 * rows * size * chain.bytes * cache_rate(held, target)  # scores read, powers written and read
    copies = sum(_COPY_CYCLES[p.moved] * p.inner * p.columns for p in part.products if p.made) / part.lanes
    uneven = chain.products[0].columns % size > 0
    each = _ROW_CYCLES + (_VECTOR_CYCLES + _ONCE_CYCLES * uneven) * vectors + _SUM_CYCLES * result
    return replace(found, cycles=found.cycles + passed + copies + rows * each)


def _row(part: Chain) -> int:
    """Elements of the buffers that a block has for each row: operands, scores, powers, results, and what sums up."""
    return part.left + 2 * part.products[0].columns + part.products[-1].columns + _STATE
