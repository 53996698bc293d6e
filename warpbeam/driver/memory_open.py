"""Packs values of several open sizes into one arena, so that they share memory whatever the sizes come to.

Sizes are counted in steps of several units, one of them the byte: (64, 0, 3) is 64 bytes and three steps of the second
open unit. An offset is the largest of a few such sums, a `Front`. One lies below another if each of its sums is, in
every count, at most one of the other's: that holds for all sizes. Where that is not known, a value is put above all
that it must not touch. What is placed first goes by the sizes as they may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, le

Counts = tuple[int, ...]
Front = tuple[Counts, ...]


def joined(*fronts: Front) -> Front:
    """The largest of several, without sums that others hold."""
    kept: list[Counts] = []
    for one in dict.fromkeys(c for f in fronts for c in f):
        if not any(_within(one, other) for other in kept):
            kept = [*(other for other in kept if not _within(other, one)), one]
    return tuple(kept)


def _within(a: Counts, b: Counts) -> bool:
    return all(map(le, a, b))


def below(a: Front, b: Front) -> bool:
    """Whether one is at most the other for all sizes."""
    return all(any(_within(x, y) for y in b) for x in a)


def above(start: Front, size: Counts) -> Front:
    """Where a value ends."""
    return tuple(tuple(map(add, one, size)) for one in start)


def worth(front: Front, weights: Sequence[int]) -> int:
    """Bytes, for units of these sizes."""
    return max(sum(n * w for n, w in zip(one, weights, strict=True)) for one in front)


def place(
    sizes: Sequence[Counts], lives: Sequence[tuple[int, int]], order: Sequence[int], weights: Sequence[int]
) -> tuple[list[Front], Front]:
    """Offsets, and where the arena ends: in order, each at the lowest place where it meets no value alive with it.

    lives: first and last step. weights: bytes of a step of each unit, as they may be.
    """
    zero: Front = ((0,) * len(weights),)
    starts, ends = [zero] * len(sizes), [zero] * len(sizes)
    total = zero
    for n, i in enumerate(order):
        first, last = lives[i]
        met = [k for k in order[:n] if lives[k][0] <= last and lives[k][1] >= first]
        met.sort(key=lambda k: worth(ends[k], weights))
        starts[i] = _lowest(sizes[i], [(starts[k], ends[k]) for k in met], zero)
        ends[i] = above(starts[i], sizes[i])
        total = joined(total, ends[i])
    return starts, total


def in_tracks(lives: Sequence[tuple[int, int]]) -> list[int]:
    """An order for `place`: values in as few tracks as hold them one after the other, track by track.

    What a chain of layers makes takes two: all of the first lie at the bottom, each of the second above its neighbours.
    """
    ends: list[int] = []
    track = [0] * len(lives)
    for i in sorted(range(len(lives)), key=lambda k: lives[k]):
        first, last = lives[i]
        track[i] = next((t for t, end in enumerate(ends) if end < first), len(ends))
        ends[track[i] : track[i] + 1] = [last]
    return sorted(range(len(lives)), key=lambda k: (track[k], lives[k]))


def _lowest(size: Counts, met: Sequence[tuple[Front, Front]], zero: Front) -> Front:
    """The first place that is apart from all that is met: at the bottom, above the lowest, above the lowest two, …"""
    at = zero
    for k in range(len(met) + 1):
        at = joined(at, met[k - 1][1]) if k else zero
        top = above(at, size)
        if all(below(end, at) or below(top, start) for start, end in met):
            break
    return at


def busiest(sizes: Sequence[Counts], lives: Sequence[tuple[int, int]], units: int) -> Front:
    """What is alive at the busiest step: the largest of several sums."""
    found: Front = ((0,) * units,)
    for step in sorted({first for first, _ in lives}):
        alive = [s for s, (first, last) in zip(sizes, lives, strict=True) if first <= step <= last]
        found = joined(found, (tuple(map(sum, zip(*alive, strict=True))),))
    return found
