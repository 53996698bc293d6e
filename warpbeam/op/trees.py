"""Ensembles of decision trees as loops over arrays of nodes, and tables of keys by bisection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, tensors
from warpbeam.op.index_loops import Loops
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc

AT_ONCE = 8  # trees walked together, so that their chains of loads overlap
MODES = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")
MISSING = 8  # added to a mode: a value that is no number goes the true way
_TESTS: tuple[Any, ...] = tuple(
    lambda a, b, op=op: E.binary(op, a, b) for op in (E.LE, E.LT, E.GE, E.GT, E.EQ, E.NE)
)  # fmt: skip
_NUMPY = (np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal)


class TreeScores(Op):
    """What the leaves that rows of x reach in every tree give to each target.

    Operands: x (rows, features), of the dtype of thresholds; per node its feature, threshold, mode (place in MODES,
    plus MISSING), true child, false child and first entry of its leaf (one more entry at the end); per tree its root;
    the entries' targets and weights. A leaf is its own child. depth: steps to the deepest leaf. modes: those in use.
    combine: "sum", "min" or "max". Results: scores (rows, targets), and which of them any leaf gave (uint8).
    """

    name = "trees.scores"
    arity = 10
    defaults = {"targets": REQUIRED, "depth": REQUIRED, "modes": REQUIRED, "combine": "sum"}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, feature, threshold, mode, yes, no, first, _root, target, weight = tensors(self, types)
        if x.ndim != 2 or not dt.is_float(x.dtype) or {threshold.dtype, weight.dtype} != {x.dtype}:
            raise self.error("takes a float matrix and thresholds and weights of its dtype")
        if any(t.ndim != 1 or t.dtype != "int32" for t in (feature, mode, yes, no, first, target)):
            raise self.error("nodes are vectors of int32")
        if attrs["combine"] not in ("sum", "min", "max"):
            raise self.error(f"unknown combination {attrs['combine']!r}")
        shape = (x.shape[0], attrs["targets"])
        return TupleType((TensorType(shape, x.dtype), TensorType(shape, "uint8")))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, *nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        feature, threshold, mode, yes, no, first, root, target, weight = nodes
        rows = np.arange(x.shape[0])
        out = np.zeros((x.shape[0], attrs["targets"]), x.dtype)
        hit = np.zeros(out.shape, np.uint8)
        fold = {"sum": np.add, "min": np.minimum, "max": np.maximum}[attrs["combine"]]
        for r in root:
            at = np.full(x.shape[0], r)
            for _ in range(attrs["depth"]):
                value, limit, kind = x[rows, feature[at]], threshold[at], mode[at]
                taken = np.isnan(value) & (kind >= MISSING)
                for k, test in enumerate(_NUMPY):
                    taken |= (kind % MISSING == k) & test(value, limit)
                at = np.where(taken, yes[at], no[at])
            for row, node in enumerate(at):
                for e in range(first[node], first[node + 1]):
                    place = row, target[e]
                    out[place] = fold(out[place], weight[e]) if hit[place] else weight[e]
                    hit[place] = 1
        return out, hit

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, list(out_type.fields))
        x, feature, threshold, mode, yes, no, first, root, target, weight = loops.ins
        out, hit = loops.outs
        combine = {"sum": E.add, "min": E.minimum, "max": E.maximum}[attrs["combine"]]
        trees = root.shape[0]

        def index(buffer: Any, at: Any) -> Any:
            return E.cast("int64", buffer[at])

        def step(row: Any, cell: Any, k: int) -> Any:
            """One level down in tree k of those at hand."""
            at = cell[k]
            value = x[row, index(feature, at)]
            taken = _taken(attrs["modes"], value, threshold[at], mode[at])
            return loops.store(cell, k, E.select(taken, index(yes, at), index(no, at)))

        def collect(row: Any, at: Any) -> Any:
            def entry(e: Any) -> Any:
                t = index(target, index(first, at) + e)
                w = weight[index(first, at) + e]
                new = E.select(E.binary(E.NE, hit[row, t], E.const(0, "uint8")), combine(out[row, t], w), w)
                return [loops.store(out, (row, t), new), loops.store(hit, (row, t), E.const(1, "uint8"))]

            return loops.loop(index(first, at + 1) - index(first, at), entry, "e")

        def walk(row: Any, base: Any, count: int) -> Any:
            def body(cell: Any) -> list[Any]:
                starts = [loops.store(cell, k, index(root, base + k)) for k in range(count)]
                down = loops.loop(E.const(attrs["depth"]), lambda _: [step(row, cell, k) for k in range(count)], "d")
                return [*starts, down, *[collect(row, cell[k]) for k in range(count)]]

            return loops.cells("int64", count, body)

        def one(row: Any) -> list[Any]:
            def clear(t: Any) -> list[Any]:
                zero, none = E.const(0, out.dtype), E.const(0, "uint8")
                return [loops.store(out, (row, t), zero), loops.store(hit, (row, t), none)]

            whole, rest = divmod(trees, AT_ONCE)
            parts = [loops.loop(E.const(whole), lambda g: walk(row, g * AT_ONCE, AT_ONCE), "g")] if whole else []
            return [
                loops.loop(out.shape[1], clear, "t"),
                *parts,
                *([walk(row, E.const(whole * AT_ONCE), rest)] if rest else []),
            ]

        return loops.func(loops.nest((x.shape[0],), lambda at: one(at[0]), "r", parallel=True))


def _taken(modes: Sequence[int], value: Any, limit: Any, mode: Any) -> Any:
    """Whether a node's true child is next; `modes`: those that occur."""
    plain = sorted({m % MISSING for m in modes}) or [0]
    taken = _TESTS[plain[0]](value, limit)
    for m in plain[1:]:
        own = E.binary(E.EQ, mode % MISSING, E.const(m, "int32"))
        taken = E.select(own, _TESTS[m](value, limit), taken)
    if any(m >= MISSING for m in modes):
        lost = E.land(E.binary(E.NE, value, value), E.binary(E.GE, mode, E.const(MISSING, "int32")))
        taken = E.lor(lost, taken)
    return taken


class Lookup(Op):
    """The value of each element of x in a table: operands (x, keys in rising order, values, the value of all others).

    A last key that is not a number stands for all of them.
    """

    name = "lookup"
    arity = 4

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, keys, values, other = tensors(self, types)
        if keys.ndim != 1 or values.ndim != 1 or keys.shape != values.shape or keys.shape[0] == 0 or other.ndim:
            raise self.error("keys and values are two vectors of one length, the default is a scalar")
        if x.dtype != keys.dtype or values.dtype != other.dtype:
            raise self.error("data and keys, and values and default, have one dtype each")
        return TensorType(x.shape, values.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, keys: np.ndarray, values: np.ndarray, other: np.ndarray) -> np.ndarray:
        at = np.clip(np.searchsorted(keys, x, "right") - 1, 0, None)
        same = keys[at] == x
        if x.dtype.kind == "f":
            same |= np.isnan(keys[at]) & np.isnan(x)
        return np.where(same, values[at], other).astype(values.dtype)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        x, keys, values, other = loops.ins
        (out,) = loops.outs
        size = keys.shape[0]

        def before(key: Any, value: Any) -> Any:
            le = E.binary(E.LE, key, value)
            return E.lor(le, E.binary(E.NE, value, value)) if dt.is_float(x.dtype) else le

        def one(at: list[Any]) -> Any:
            value = x[tuple(at)]

            def search(place: Any) -> list[Any]:
                steps: list[Any] = [loops.store(place, 0, E.const(0))]
                width = 1 << max(size - 1, 1).bit_length() - 1
                while width:
                    ahead = place[0] + width
                    inside = E.binary(E.LT, ahead, E.const(size))
                    key = keys[E.minimum(ahead, E.const(size - 1))]
                    go = E.land(inside, before(key, value))
                    steps.append(loops.store(place, 0, E.select(go, ahead, place[0])))
                    width //= 2
                found = keys[place[0]]
                same = E.binary(E.EQ, found, value)
                if dt.is_float(x.dtype):
                    same = E.lor(same, E.land(E.binary(E.NE, found, found), E.binary(E.NE, value, value)))
                return [*steps, loops.store(out, at, E.select(same, values[place[0]], other[()]))]

            return loops.cells("int64", 1, search)

        return loops.func(loops.nest(x.shape, one, "i", parallel=True))
