"""Replays a Program's plan of memory without computing anything, and proves that no value is read after it was
overwritten.

Every byte remembers whose contents it holds. A value is what its chain of views ends at; a call may read a value only
where all of its bytes hold just that, and may not write where it still reads, except over what it is said to destroy.
Sizes that only contents tell are taken as 1. Branches are replayed both, loops twice. Where the program itself refuses
sizes, after it has begun, nothing follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import CompileError
from warpbeam.runtime import program as P
from warpbeam.runtime.shape_expr import evaluate

#: whether every plan is checked as it is made; tests switch it on
ALWAYS = False
_NOBODY = -1


def check_plan(program: P.Program, dims: Mapping[tuple[int, int], int] | None = None) -> None:
    """Checks one program for sizes of its inputs' symbolic axes: {(input, axis): extent}, by default small primes.

    Raises:
        CompileError: naming the value that is lost, and the call that would miss it.
    """
    _Replay(program, dims or {}).run()


class _Replay:
    def __init__(self, program: P.Program, dims: Mapping[tuple[int, int], int]) -> None:
        self.program = program
        self.values = {v.id: v for v in program.values}
        self.dims = dims
        self.env: dict[str, int] = {}
        self.primes = iter((3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37) * 9)
        self.chosen: dict[tuple[int, int], int] = {}
        self.spaces: dict[Any, np.ndarray] = {}
        self.sizes: dict[int, int] = {}
        self.pointers: dict[int, int] = {}
        self.grain = 0

    def run(self) -> None:
        if any(v.storage[0] in ("alloc", "object", "param") for v in self.program.values):
            return  # the executor's own memory is not planned
        for symbol in self.program.symbols:
            self.env[symbol.name] = self.eval(symbol.expr)
        for i in P.walk(self.program.body):
            if isinstance(i, P.SetSymbol | P.ShapeOf):
                self.env.setdefault(i.symbol, 1)
            elif isinstance(i, P.Loop):
                self.env[i.index] = 0
        self._symbols(self.program.body)
        self.grain = self._grain()
        if not self._body(self.program.body, entry=True):
            return
        for port in self.program.outputs:
            self._read(port.value, "the caller")

    def eval(self, expr: Any) -> int:
        return expr if isinstance(expr, int) else evaluate(expr, self.env, self._special)

    def _special(self, operator: str, operands: tuple[int, ...]) -> int:
        if operator == "dim":
            key = operands[0], operands[1]
            if key not in self.chosen:
                self.chosen[key] = self.dims.get(key) or next(self.primes)
            return self.chosen[key]
        return 1

    def _symbols(self, body: P.Body) -> None:
        """Where values without a bound lie: the symbols that say so are set on the way."""
        for i in P.walk(body):
            if isinstance(i, P.SetSymbol):
                self.env[i.symbol] = self.eval(i.expr)

    # --------------------------------------------------------------------------------------------------- memory

    def _bytes(self, value: P.Value) -> int:
        size = dt.nbytes(value.dtype)
        for extent in value.shape:
            size *= max(self.eval(extent), 0)
        return size

    def _content(self, value_id: int) -> int:
        """The value whose contents another one shows."""
        value = self.values[value_id]
        while value.storage[0] == "view":
            value = self.values[int(value.storage[1])]  # type: ignore[arg-type]
        return value.id

    def _place(self, value_id: int) -> tuple[Any, int]:
        """(memory, first byte)."""
        value, offset = self.values[value_id], 0
        while value.storage[0] == "view":
            offset += self.eval(value.storage[2])
            value = self.values[int(value.storage[1])]  # type: ignore[arg-type]
        kind = value.storage[0]
        if kind in ("input", "output"):
            return (kind, value.storage[1]), offset
        return (kind, 0), offset + self.eval(value.storage[1])

    def _rows(self, value_id: int) -> tuple[Any, list[tuple[int, int]]]:
        """(memory, pieces of it from and to) that a value takes."""
        value = self.values[value_id]
        space, start = self._place(value_id)
        if not value.strides:
            return space, [(start, start + self._bytes(value))]
        shape, strides = [self.eval(x) for x in value.shape], [self.eval(x) for x in value.strides]
        size = dt.nbytes(value.dtype)
        run, axis = 1, len(shape)
        while axis and strides[axis - 1] == run:
            axis -= 1
            run *= shape[axis]
        places = np.zeros(1, np.int64)
        for extent, step in zip(shape[:axis], strides[:axis], strict=True):
            places = (places[:, None] + np.arange(extent) * step).reshape(-1)
        return space, [(start + int(p) * size, start + (int(p) + run) * size) for p in places]

    def _grain(self) -> int:
        """The largest unit of bytes in which all places and sizes can be counted."""
        grain = 0
        ends: dict[Any, int] = {}
        for v in self.program.values:
            space, rows = self._rows(v.id)
            for begin, end in rows:
                grain = gcd(grain, begin, end)
            ends[space] = max(ends.get(space, 0), max((end for _, end in rows), default=0))
        grain = max(grain, 1)
        for space, end in ends.items():
            if space[0] in ("arena", "output"):
                self.spaces[space] = np.full(end // grain, _NOBODY, np.int64)
        return grain

    def _units(self, value_id: int) -> tuple[Any, list[slice]]:
        space, rows = self._rows(value_id)
        return space, [slice(a // self.grain, b // self.grain) for a, b in rows]

    # ---------------------------------------------------------------------------------------------------- steps

    def _read(self, value_id: int, who: str) -> None:
        space, units = self._units(value_id)
        if space not in self.spaces:
            return
        mine = self._content(value_id)
        for u in units:
            held = self.spaces[space][u]
            wrong = held[held != mine]
            if wrong.size:
                there = int(wrong[0])
                what = f"%{there} {self.values[there].name}".rstrip() if there >= 0 else "nothing"
                raise self._error(
                    f"{who} reads %{value_id} {self.values[value_id].name}".rstrip() + f", where {what} is by then"
                )

    def _write(self, value_id: int, who: str) -> None:
        space, units = self._units(value_id)
        if space not in self.spaces:
            raise self._error(f"{who} writes %{value_id}, which is of {space[0]}")
        for u in units:
            self.spaces[space][u] = self._content(value_id)

    def _error(self, what: str) -> CompileError:
        return CompileError(
            f"the plan of memory is wrong: {what}",
            f"program {self.program.name}",
            "a value was overwritten before its last use",
            "this is a fault of the compiler: please report it",
        )

    def _body(self, body: P.Body, entry: bool = False) -> bool:
        """Replays a body; False where it stops. What is refused at entry is replayed anyway: sizes are examples."""
        for i in body:
            entry = entry and isinstance(i, P.Check)
            if isinstance(i, P.CallKernel):
                self._call(i)
            elif isinstance(i, P.CallExternal):
                for a in i.args:
                    self._read(a, i.function)
                for r in i.results:
                    self._write(r, i.function)
            elif isinstance(i, P.Move):
                self._read(i.source, "a copy")
                self._write(i.result, "a copy")
            elif isinstance(i, P.SetSymbol):
                self._loads(i.expr, "a size")
            elif isinstance(i, P.Check):
                self._loads(i.condition, "a check")
                if not entry and self._refuses(i.condition):
                    return False
            elif isinstance(i, P.Branch):
                if not self._branch(i):
                    return False
            elif isinstance(i, P.Loop):
                for _ in range(2):
                    self._loads(i.condition, "a loop")
                    if not self._body(i.body):
                        return False
                self._loads(i.condition, "a loop")
        return True

    def _refuses(self, condition: Any) -> bool:
        """Whether a condition on sizes known at entry does not hold for those chosen here."""
        todo, known = [condition], {s.name for s in self.program.symbols}
        while todo:
            e = todo.pop()
            if isinstance(e, tuple) and e:
                if e[0] == "load":
                    return False
                todo += e[1:]
            elif isinstance(e, str) and e not in known:
                return False
        return not self.eval(condition)

    def _loads(self, expr: Any, who: str) -> None:
        todo = [expr]
        while todo:
            e = todo.pop()
            if isinstance(e, tuple) and e:
                if e[0] == "load":
                    self._read(int(e[1]), who)
                else:
                    todo += e[1:]

    def _call(self, i: P.CallKernel) -> None:
        read = [a for a in i.args if a not in i.writes]
        for a in read:
            self._read(a, i.kernel)
        kept = [a for a in read if a not in i.donates]
        for w in i.writes:
            for other in (*kept, *(x for x in i.writes if x != w)):
                if self._meet(w, other):
                    raise self._error(f"{i.kernel} writes %{w} over %{other}, which it does not give up")
        for w in i.writes:
            self._write(w, i.kernel)

    def _meet(self, a: int, b: int) -> bool:
        (s, x), (t, y) = self._units(a), self._units(b)
        return s == t and s in self.spaces and any(u.start < v.stop and v.start < u.stop for u in x for v in y)

    def _branch(self, i: P.Branch) -> bool:
        self._loads(i.condition, "a branch")
        before = {k: v.copy() for k, v in self.spaces.items()}
        then = self._body(i.then)
        after, self.spaces = self.spaces, before
        other = self._body(i.other)
        if not other:
            self.spaces = after
        elif then:
            for key, held in self.spaces.items():
                held[held != after[key]] = _NOBODY
        return then or other


def sample_dims(program: P.Program, extents: Sequence[int]) -> dict[tuple[int, int], int]:
    """Extents in turn for the symbolic axes of a program's inputs."""
    axes = [s.expr[1:] for s in program.symbols if isinstance(s.expr, tuple) and s.expr[0] == "dim"]
    return {(int(a[0]), int(a[1])): extents[k % len(extents)] for k, a in enumerate(axes)}  # type: ignore[arg-type]
