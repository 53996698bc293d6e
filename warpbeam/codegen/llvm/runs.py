"""Vectors put together from elements of few runs of memory: a few whole vectors are loaded and their lanes picked.

[A[0, i], A[1, i], A[0, i + 1], A[1, i + 1], …]   ->   lanes of A[0, i : i + 8] and A[1, i : i + 8] in turn

What is loaded lies between the first and the last element of a run, so it is memory of the buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from warpbeam.codegen.llvm import memory
from warpbeam.codegen.llvm.address import Terms, flatten, pointer
from warpbeam.codegen.llvm.emitter import Value
from warpbeam.codegen.llvm.types import element_bytes, memory_type, vector
from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as E

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter

_LEAST = 8  # lanes
_NEAR = 8  # elements between those of one run
_LANES_A_WINDOW = 2  # in each register; where there are fewer, they are loaded one by one


class _Windows(NamedTuple):
    """Where lanes come from: places in memory (buffer, terms, first element) of as many elements each, and for each
    lane a window and an element in it."""

    places: list[tuple[E.Buffer, Terms, int]]
    width: int
    lanes: list[tuple[int, int]]


def load(fn: FunctionPrinter, node: E.Shuffle) -> Value | None:
    """A vector put together from scalar loads, by loads of whole vectors and shuffles; None where that takes many."""
    count, dtype = len(node.indices), node.vectors[0].dtype
    loads = [v for v in node.vectors if isinstance(v, E.BufferLoad) and v.buffer not in fn.facts.slots]
    if fn.mask is not None or count < _LEAST or len(loads) < len(node.vectors) or dt.lanes(dtype) > 1:
        return None
    if any(dt.lanes(i.dtype) > 1 for v in loads for i in v.indices):
        return None
    found = _windows(fn, [loads[i] for i in node.indices])
    registers = -(-count * 8 * element_bytes(dtype) // fn.target.vector_bits)
    if found is None or len(found.places) * registers * _LANES_A_WINDOW > count:
        return None
    type = vector(memory_type(dtype), found.width)
    parts = [memory.load_at(fn, b, pointer(fn, b, terms, first), type) for b, terms, first in found.places]
    return memory.from_memory(fn, merge(fn, parts, found.lanes), dtype, count)


def _windows(fn: FunctionPrinter, loads: Sequence[E.BufferLoad]) -> _Windows | None:
    """Vectors as wide as the shortest run allows that cover all loads; None where that is a single element."""
    offsets: dict[tuple[E.Buffer, frozenset[tuple[Any, int]]], tuple[Terms, set[int]]] = {}
    lanes = []
    for load in loads:
        terms, at = flatten(fn, load.buffer, load.indices)
        key = load.buffer, frozenset(terms.items())
        offsets.setdefault(key, (terms, set()))[1].add(at)
        lanes.append((key, at))
    runs = [(k, run) for k, (_, places) in offsets.items() for run in _runs(sorted(places))]
    room = fn.target.vector_bits // (8 * element_bytes(loads[0].dtype))
    width = min(room, *(run[-1] - run[0] + 1 for _, run in runs))
    width = 1 << (width.bit_length() - 1)
    if width == 1:
        return None
    places: list[tuple[E.Buffer, Terms, int]] = []
    inside: dict[tuple[Any, int], tuple[int, int]] = {}
    for key, run in runs:
        start = run[0] - width
        for at in run:
            if at >= start + width:
                start = min(at, run[-1] - width + 1)
                places.append((key[0], offsets[key][0], start))
            inside[key, at] = len(places) - 1, at - start
    return _Windows(places, width, [inside[lane] for lane in lanes])


def _runs(places: list[int]) -> list[list[int]]:
    """Ascending numbers in groups of near ones."""
    out = [places[:1]]
    for at in places[1:]:
        if at - out[-1][-1] > _NEAR:
            out.append([])
        out[-1].append(at)
    return out


def merge(fn: FunctionPrinter, parts: Sequence[Value], lanes: Sequence[tuple[int, int]]) -> Value:
    """Lanes of several vectors of one type, each given as (vector, lane)."""
    have, count = memory.lanes_of(parts[0]), len(lanes)
    if len(parts) == 1:
        return memory.shuffle_one(fn, parts[0], [i for _, i in lanes])
    if len(parts) == 2:
        return memory.shuffle(fn, parts[0], parts[1], [p * have + i for p, i in lanes])
    room = max(have, count)
    wide = [v if have == room else memory.shuffle_one(fn, v, range(room)) for v in parts]
    out = wide[0]
    place = [i if p == 0 else -1 for p, i in lanes] + [-1] * (room - count)
    for k, part in enumerate(wide[1:], 1):
        place = [room + lanes[j][1] if j < count and lanes[j][0] == k else at for j, at in enumerate(place)]
        out = memory.shuffle(fn, out, part, place)
        place = [-1 if at < 0 else j for j, at in enumerate(place)]
    return out if room == count else memory.shuffle_one(fn, out, range(count))
