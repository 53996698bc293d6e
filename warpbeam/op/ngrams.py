"""Counting of n-grams: sequences of n elements of a row, each a number of places after the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, tensors
from warpbeam.op.index_loops import Loops
from warpbeam.relay.types import TensorType, Type
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc


class CountNgrams(Op):
    """How often each known n-gram is in each row.

    Operands: data (rows, length), grams (count, n) in lexicographic order, places (count,): the column of the result
    that counts each gram. distances: how far the elements of an n-gram are apart. Result: int64 of (rows, size).
    """

    name = "count_ngrams"
    arity = 3
    defaults = {"size": REQUIRED, "distances": (1,)}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, grams, places = tensors(self, types)
        if x.ndim != 2 or grams.ndim != 2 or places.ndim != 1 or {x.dtype, grams.dtype, places.dtype} != {"int64"}:
            raise self.error("takes int64 data (rows, length), grams (count, n) and places (count,)")
        if not isinstance(grams.shape[1], int) or not isinstance(grams.shape[0], int):
            raise self.error("the grams must have a known shape")
        return TensorType((x.shape[0], attrs["size"]), "int64")  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, grams: np.ndarray, places: np.ndarray) -> np.ndarray:
        out = np.zeros((x.shape[0], attrs["size"]), np.int64)
        known = {tuple(g): int(p) for g, p in zip(grams.tolist()[::-1], places.tolist()[::-1], strict=True)}
        n = grams.shape[1]
        for row, line in enumerate(x.tolist()):
            for far in attrs["distances"]:
                for start in range(len(line) - (n - 1) * far):
                    place = known.get(tuple(line[start : start + (n - 1) * far + 1 : far]))
                    if place is not None and 0 <= place < attrs["size"]:
                        out[row, place] += 1
        return out

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        (x, grams, places), (out,) = loops.ins, loops.outs
        count, n = grams.shape

        def search(row: Any, start: Any, far: int) -> Any:
            """Adds one to the place of the gram that begins at `start`."""
            window = [x[row, start + k * far] for k in range(n)]

            def find(bound: E.Buffer) -> Any:
                def halve(_: Any) -> Any:
                    def part(mid: Any) -> Any:
                        below = _before([grams[mid, k] for k in range(n)], window)
                        return loops.when(below, loops.store(bound, 0, mid + 1), loops.store(bound, 1, mid))

                    inside = loops.let(E.floordiv(bound[0] + bound[1], 2), part, "mid")
                    return loops.when(bound[0] < bound[1], inside)

                def hit(place: Any) -> Any:
                    inside = E.land(place >= 0, place < E.as_expr(attrs["size"]))
                    return loops.when(inside, loops.store(out, [row, place], out[row, place] + 1))

                def found(at: Any) -> Any:
                    equal = E.land(*[E.binary(E.EQ, grams[at, k], window[k]) for k in range(n)])
                    return loops.when(equal, loops.let(places[at], hit, "place"))

                return [
                    loops.store(bound, 0, 0), loops.store(bound, 1, count),
                    loops.loop(int(count).bit_length(), halve, "half"),
                    loops.when(bound[0] < count, loops.let(bound[0], found, "at")),
                ]  # fmt: skip

            return loops.cells("int64", 2, find)

        def line(row: Any) -> Any:
            parts = [loops.loop(attrs["size"], lambda k: loops.store(out, [row, k], 0), "z")]
            for far in attrs["distances"] if count else ():
                last = E.maximum(E.as_expr(x.shape[1]) - (n - 1) * far, E.const(0))
                parts.append(loops.loop(last, lambda s, far=far: search(row, s, far), "s"))  # type: ignore[misc]
            return parts

        return loops.func(loops.loop(x.shape[0], line, "r", "parallel"))


def _before(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Whether a comes before b in lexicographic order."""
    out: Any = E.const(False)
    for x, y in zip(reversed(a), reversed(b), strict=True):
        out = E.lor(x < y, E.land(E.binary(E.EQ, x, y), out))
    return out
