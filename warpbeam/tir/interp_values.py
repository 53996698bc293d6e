"""Expressions for the interpreter: each is compiled once to a flat list of NumPy steps over many iterations at a time.

A value has one axis per batched loop, newest first, and the lanes of a vector last: shape (…, axis1, axis0, lanes), any
of them 1 where the value does not vary; a value without axes may be a NumPy scalar. Broadcasting does the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.tir import expr as e
from warpbeam.tir import interp_foreign, intrin, intrin_llvm

if TYPE_CHECKING:
    from warpbeam.tir.interp_control import Control

Step = Callable[[Any, list[Any]], Any]


class Code:
    """One expression as steps; step k fills slot k, the last is the result."""

    __slots__ = ("steps",)

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps

    def run(self, m: Control) -> Any:
        slots: list[Any] = []
        for step in self.steps:
            slots.append(step(m, slots))
        return slots[-1]


def uniform(value: Any) -> bool:
    """Whether the value is the same for all iterations and lanes."""
    return value.size == 1  # type: ignore[no-any-return]


def scalar_int(value: Any) -> int:
    return int(value.item())


def expanded(value: Any, count: int) -> Any:
    """The value with its lanes written out."""
    value = np.asarray(value)
    if value.ndim == 0:
        return np.full((count,), value)
    return value if value.shape[-1] == count else np.broadcast_to(value, (*value.shape[:-1], count))


def convert(value: Any, source: str, target: str) -> Any:
    """Value conversion of `Cast`: float to int saturates and maps NaN to 0, int to int wraps, to bool is != 0."""
    kind = dt.to_numpy(target)
    value = np.asarray(value)
    if dt.is_bool(target):
        return value != 0
    if dt.is_float(source) and dt.is_int(target):
        low, high = dt.int_range(dt.scalar(target))
        wide = np.trunc(value.astype(np.float64))
        inside = np.where((wide >= low) & (wide < float(high + 1)), wide, 0).astype(kind)
        top, bottom = kind.type(high), kind.type(low)
        return np.where(wide >= float(high + 1), top, np.where(wide < low, bottom, inside)).astype(kind)
    return value.astype(kind)


def truncated_div(a: Any, b: Any) -> Any:
    """Integer quotient toward zero; x/0 is 0."""
    q = np.floor_divide(a, b)
    fix = (np.fmod(a, b) != 0) & ((a < 0) != (b < 0))
    return np.where(np.asarray(b) == 0, 0, q + fix).astype(np.asarray(q).dtype)


def _div(a: Any, b: Any) -> Any:
    return truncated_div(a, b) if np.asarray(a).dtype.kind in "iu" else np.divide(a, b)


_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    e.Add: np.add,
    e.Sub: np.subtract,
    e.Mul: np.multiply,
    e.Div: _div,
    e.Mod: np.fmod,
    e.FloorDiv: np.floor_divide,
    e.FloorMod: np.remainder,
    e.Min: np.minimum,
    e.Max: np.maximum,
    e.EQ: np.equal,
    e.NE: np.not_equal,
    e.LT: np.less,
    e.LE: np.less_equal,
    e.GT: np.greater,
    e.GE: np.greater_equal,
    e.And: np.logical_and,
    e.Or: np.logical_or,
}


def choose(cond: Any, a: Any, b: Any) -> Any:
    if uniform(cond):
        return a if cond.item() else b
    return np.where(cond, a, b)


class Compiler:
    """Compiles expressions; one per run, so that equal expressions share their code."""

    def __init__(self, access: Callable[[e.BufferLoad, Compiler], Step]) -> None:
        self.access = access
        self.codes: dict[e.PrimExpr, Code] = {}

    def compile(self, expr: e.PrimExpr) -> Code:
        found = self.codes.get(expr)
        if found is None:
            found = self.codes[expr] = self._compile(expr)
        return found

    def _compile(self, expr: e.PrimExpr) -> Code:
        steps: list[Step] = []
        slot: dict[Any, int] = {}
        stack: list[tuple[Any, bool]] = [(expr, False)]
        while stack:
            n, ready = stack.pop()
            if n in slot:
                continue
            below = _operands(n)
            if not ready and below:
                stack.append((n, True))
                stack.extend((x, False) for x in reversed(below) if x not in slot)
                continue
            steps.append(self.step(n, [slot[x] for x in below]))
            slot[n] = len(steps) - 1
        return Code(steps)

    def step(self, n: Any, at: list[int]) -> Step:
        cls = type(n)
        op = _BINARY.get(cls)
        if op is not None:
            i, j = at
            return lambda m, s: op(s[i], s[j])
        if cls in (e.IntImm, e.FloatImm):
            literal = dt.to_numpy(n.dtype).type(n.value)
            return lambda m, s: literal
        if cls is e.Var:
            return lambda m, s: m.lookup(n)
        if cls is e.BufferLoad:
            return self.access(n, self)
        handler = _HANDLERS.get(cls)
        if handler is None:
            raise IRError(
                f"the interpreter has no meaning for {cls.__name__}", hint="lower it to tir expressions first"
            )
        return handler(self, n, at)

    def not_(self, n: Any, at: list[int]) -> Step:
        return lambda m, s: np.logical_not(s[at[0]])

    def select(self, n: Any, at: list[int]) -> Step:
        c, i, j = at
        return lambda m, s: choose(s[c], s[i], s[j])

    def cast(self, n: Any, at: list[int]) -> Step:
        source, target = n.value.dtype, n.type
        return lambda m, s: convert(s[at[0]], source, target)

    def ramp(self, n: Any, at: list[int]) -> Step:
        lanes = np.arange(n.count, dtype=dt.to_numpy(n.dtype))
        return lambda m, s: s[at[0]] + s[at[1]] * lanes

    def broadcast(self, n: Any, at: list[int]) -> Step:
        return lambda m, s: s[at[0]]

    def shuffle(self, n: Any, at: list[int]) -> Step:
        counts = [dt.lanes(v.dtype) for v in n.vectors]
        picks = np.array(n.indices)

        def run(m: Control, s: list[Any]) -> Any:
            parts = [expanded(s[i], c) for i, c in zip(at, counts, strict=True)]
            outer = np.broadcast_shapes(*[p.shape[:-1] for p in parts])
            whole = np.concatenate([np.broadcast_to(p, (*outer, p.shape[-1])) for p in parts], axis=-1)
            return whole[..., picks]

        return run

    def let(self, n: Any, at: list[int]) -> Step:
        body = self.compile(n.body)

        def run(m: Control, s: list[Any]) -> Any:
            m.bind(n.var, s[at[0]])
            return body.run(m)

        return run

    def call(self, n: Any, at: list[int]) -> Step:
        if n.op in interp_foreign.CALLS:
            return interp_foreign.step(n, at, self.compile)
        row = intrin.get(n.op)
        if n.op == "if_then_else":
            return self.lazy(n, at[0])
        if n.op in ("call_llvm_intrin", "call_llvm_pure_intrin"):
            row = dataclasses.replace(row, numpy=intrin_llvm.meaning_of(str(n.attrs["name"])), across=True)
        if row.numpy is None:
            raise IRError(
                f"the interpreter cannot call {n.op}", hint="give the intrinsic a NumPy meaning in tir/intrin.py"
            )
        fn, dtype = row.numpy, dt.scalar(n.dtype)
        if row.across:
            counts = [dt.lanes(a.dtype) for a in n.args]
            return lambda m, s: fn([expanded(s[i], c) for i, c in zip(at, counts, strict=True)], dtype)
        return lambda m, s: fn([s[i] for i in at], dtype)

    def lazy(self, n: Any, cond: int) -> Step:
        """if_then_else: a side is evaluated only for the iterations that choose it."""
        yes, no = self.compile(n.args[1]), self.compile(n.args[2])

        def run(m: Control, s: list[Any]) -> Any:
            c = s[cond]
            if uniform(c):
                return (yes if c.item() else no).run(m)
            with m.masked(c):
                a = yes.run(m) if m.active() else None
            with m.masked(np.logical_not(c)):
                b = no.run(m) if m.active() else None
            if a is None or b is None:
                return b if a is None else a
            return np.where(c, a, b)

        return run


_HANDLERS: dict[type, Callable[[Compiler, Any, list[int]], Step]] = {
    e.Not: Compiler.not_,
    e.Select: Compiler.select,
    e.Cast: Compiler.cast,
    e.Ramp: Compiler.ramp,
    e.Broadcast: Compiler.broadcast,
    e.Shuffle: Compiler.shuffle,
    e.Let: Compiler.let,
    e.Call: Compiler.call,
}


def _operands(n: Any) -> list[Any]:
    """The operands that are evaluated before the node; the others it evaluates itself."""
    cls = type(n)
    if cls in _BINARY:
        return [n.a, n.b]
    if cls is e.Call:
        if n.op in ("if_then_else", "address_of"):
            return list(n.args[:1]) if n.op == "if_then_else" else []
        return [a for a in n.args if type(a) not in (e.StringImm, e.BufferRef)]
    if cls is e.Let:
        return [n.value]
    if cls is e.Not:
        return [n.a]
    if cls is e.Select:
        return [n.cond, n.a, n.b]
    if cls is e.Ramp:
        return [n.base, n.stride]
    if cls in (e.Cast, e.Broadcast):
        return [n.value]
    return list(n.vectors) if cls is e.Shuffle else []
