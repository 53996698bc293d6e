"""Probabilities of classes from probabilities of pairs of classes."""

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

STEPS = 100


class PairwiseCoupling(Op):
    """p of `classes` classes from r[i, j], the probability of i where it is i or j; operand: r for i < j, per row.

    The minimum of sum (r[j, i] p[i] - r[i, j] p[j])^2 by the iteration of Wu, Lin and Weng (2004), method two: at most
    100 rounds, until no gradient is 0.005 / classes away from what it must be.
    """

    name = "pairwise_coupling"
    arity = 1
    defaults = {"classes": REQUIRED}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (r,) = tensors(self, types)
        n = attrs["classes"]
        if r.ndim != 2 or r.dtype != "float32" or r.shape[1] != n * (n - 1) // 2:
            raise self.error("takes a float32 matrix with one column per pair of classes")
        return TensorType((r.shape[0], n), r.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, r: np.ndarray) -> np.ndarray:
        n = attrs["classes"]
        out = np.empty((r.shape[0], n), np.float32)
        upper = np.triu_indices(n, 1)
        for row, given in enumerate(r):
            pair = np.zeros((n, n), np.float32)
            pair[upper] = given
            pair.T[upper] = 1 - given
            q = -(pair.T * pair)
            np.fill_diagonal(q, (pair.T**2).sum(1))
            out[row] = self._solved(q, n)
        return out

    def _solved(self, q: np.ndarray, n: int) -> np.ndarray:
        p = np.full(n, 1 / n, np.float32)
        for _ in range(STEPS):
            grad = q @ p
            total = p @ grad
            if np.abs(grad - total).max() < np.float32(0.005) / n:
                break
            for i in range(n):
                d = (total - grad[i]) / q[i, i]
                p[i] += d
                total = (total + d * (d * q[i, i] + 2 * grad[i])) / (1 + d) / (1 + d)
                grad = (grad + d * q[i]) / (1 + d)
                p = p / (1 + d)
        return p

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        (r,), (p,) = loops.ins, loops.outs
        n = attrs["classes"]
        place = {(i, j): k for k, (i, j) in enumerate((i, j) for i in range(n) for j in range(i + 1, n))}
        f32 = "float32"

        def real(v: float) -> Any:
            return E.const(v, f32)

        def pair(row: Any, i: int, j: int) -> Any:
            return r[row, place[i, j]] if i < j else real(1.0) - r[row, place[j, i]]

        def filled(row: Any, q: Any) -> list[Any]:
            out = []
            for i in range(n):
                square = real(0.0)
                for j in (j for j in range(n) if j != i):
                    square = square + pair(row, j, i) * pair(row, j, i)
                    out.append(loops.store(q, i * n + j, real(0.0) - pair(row, j, i) * pair(row, i, j)))
                out.append(loops.store(q, i * n + i, square))
            return out

        def one(at: list[Any]) -> Any:
            row = at[0]
            start = loops.loop(E.const(n), lambda i: loops.store(p, (row, i), real(1.0 / n)), "s")

            def solve(q: Any) -> list[Any]:
                def rounds(g: Any) -> Any:
                    return loops.cells("int64", 2, lambda left: self._rounds(loops, p, row, q, g, left))

                return [*filled(row, q), loops.cells(f32, n + 1, rounds)]

            return [start, loops.cells(f32, n * n, solve)]

        return loops.func(loops.nest((r.shape[0],), one, "r", parallel=True))

    def _rounds(self, loops: Loops, p: Any, row: Any, q: Any, g: Any, left: Any) -> list[Any]:
        """The iteration. g: gradients, and their sum weighted by p; left: rounds to go, and whether one is needed."""
        f32, n = "float32", p.shape[1]
        total, limit = E.const(n), E.const(np.float32(0.005) / np.float32(n), f32)

        def gradient(i: Any) -> list[Any]:
            dot = loops.loop(E.const(n), lambda j: loops.store(g, i, g[i] + q[i * n + j] * p[row, j]), "j")
            return [loops.store(g, i, E.const(0, f32)), dot, loops.store(g, total, g[total] + p[row, i] * g[i])]

        def far(i: Any) -> Any:
            gap = g[i] - g[total]
            away = E.maximum(gap, E.const(0, f32) - gap)
            return loops.store(left, 1, E.select(E.binary(E.LT, away, limit), left[1], E.const(1)))

        def update(i: Any) -> Any:
            def moved(values: list[Any]) -> list[Any]:
                (d,) = values
                scale = E.const(1, f32) + d
                rise = g[total] + d * (d * q[i * n + i] + E.const(2, f32) * g[i])

                def each(j: Any) -> list[Any]:
                    new = (g[j] + d * q[i * n + j]) / scale
                    return [loops.store(g, j, new), loops.store(p, (row, j), p[row, j] / scale)]

                first = loops.store(p, (row, i), p[row, i] + d)
                return [first, loops.store(g, total, rise / scale / scale), loops.loop(E.const(n), each, "j")]

            return loops.lets([(g[total] - g[i]) / q[i * n + i]], moved)

        more = [loops.loop(E.const(n), update, "i"), loops.store(left, 0, left[0] - E.const(1))]
        body = [
            loops.store(g, total, E.const(0, f32)),
            loops.loop(E.const(n), gradient, "i"),
            loops.store(left, 1, E.const(0)),
            loops.loop(E.const(n), far, "i"),
            loops.when(E.binary(E.NE, left[1], E.const(0)), more, loops.store(left, 0, E.const(0))),
        ]
        going = E.binary(E.GT, left[0], E.const(0))
        return [loops.store(left, 0, E.const(STEPS)), loops.loop_while(going, body)]
