"""Keeps an element that a loop updates again and again in a register, and stores it once when the loop is done.

for k in 64:                                        r[0] = C[i]
    C[i] = fma(A[i, k], B[k], C[i])          ->     for k in 64:
                                                        r[0] = fma(A[i, k], B[k], r[0])
                                                    C[i] = r[0]

It takes the outermost loop in which all accesses of the buffer are to elements that do not move, and, where no loop
does, runs of statements that update the same element.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.tree import allocated, kids, with_kids
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, Call, PrimExpr, Ramp, Var
from warpbeam.tir.intrin import is_pure
from warpbeam.tir.stmt import Allocate, BufferStore, Evaluate, For, IfThenElse, PrimFunc, SeqStmt, Stmt, While, seq
from warpbeam.tir.transform.mutate import peel, wrap
from warpbeam.tir.transform.setting import Setting

Index = tuple[PrimExpr, ...]
MOVING = ("global", "local", "")


def accumulate_registers(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """The program with repeated updates in registers; needs arguments that do not overlap."""
    at = at or Setting()
    if func.attrs.get("noalias", True) is False:
        return func
    allocs, body = peel(func.body)
    walk = _Walk(at.register_bytes * 3 // 4)
    new = walk.stmt(body, ())
    return func if new is body else func.replace(body=wrap(allocs, new))


@dataclass(frozen=True, slots=True)
class _Held:
    """Elements (or vectors) of one buffer that live in registers: index -> slot."""

    buffer: Buffer
    register: Buffer
    slots: dict[Index, int]

    def at(self, index: Index) -> Index:
        lanes = self.register.shape[1]
        last: PrimExpr = e.const(0)
        return (e.const(self.slots[index]), Ramp(last, e.const(1), lanes) if lanes > 1 else last)

    def fetch(self, run: list[BufferStore]) -> list[Stmt]:
        """Loads; not of elements that the first statement of a run to touch them overwrites."""
        fresh: dict[Index, bool] = {}
        for s in run:
            for x in accesses(s.value)[0]:
                if x.buffer is self.buffer:
                    fresh.setdefault(x.indices, False)
            if s.buffer is self.buffer:
                fresh.setdefault(s.indices, True)
        wanted = [i for i in self.slots if not fresh.get(i, False)]
        return [BufferStore(self.register, BufferLoad(self.buffer, i), self.at(i)) for i in wanted]

    def put(self) -> list[Stmt]:
        return [BufferStore(self.buffer, BufferLoad(self.register, self.at(i)), i) for i in self.slots]

    def change(self, n: Any) -> Any:
        if isinstance(n, BufferLoad) and n.buffer is self.buffer:
            return BufferLoad(self.register, self.at(n.indices))
        if isinstance(n, BufferStore) and n.buffer is self.buffer:
            return BufferStore(self.register, n.value, self.at(n.indices))
        return None


class _Walk:
    """Outer loops first; `known` are stores that stand right before a statement and prove their index valid."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.harmless: dict[Any, bool] = {}  # of what is stored: the same values are met in each loop around them

    def stmt(self, s: Any, known: tuple[BufferStore, ...]) -> Any:
        if isinstance(s, For) and s.kind == "serial":
            held = self.of_loop(s, known)
            if held:
                return self.wrapped(s, held, [])
        below = kids(s)
        if not below:
            return s
        if isinstance(s, SeqStmt):
            return self.sequence(s)
        new = [self.stmt(c, ()) for c in below]
        return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new)

    def wrapped(self, s: Stmt, held: list[_Held], run: list[BufferStore]) -> Stmt:
        body, before, after = s, [], []
        for h in held:
            before += h.fetch(run)
            body = rewrite(body, h.change)
            after += h.put()
        out = seq(*before, body, *after)
        for h in held:
            out = Allocate(h.register, out)
        return out

    def sequence(self, s: SeqStmt) -> Stmt:
        made: list[Stmt] = []
        run: list[BufferStore] = []
        for part in s.stmts:
            if isinstance(part, BufferStore):
                run.append(part)
                continue
            joined = self.started(run, part)
            if joined is None:
                made += self.straight(run)
                made.append(self.stmt(part, tuple(run)))
            else:
                made.append(joined)
            run = []
        made += self.straight(run)
        return s if all(a is b for a, b in zip(made, s.stmts)) and len(made) == len(s.stmts) else seq(*made)

    def started(self, run: list[BufferStore], part: Stmt) -> Stmt | None:
        """A loop with the statements before it that start its sums: these, too, go to registers."""
        held = self.of_loop(part, tuple(run)) if run and isinstance(part, For) and part.kind == "serial" else []
        whole = seq(*run, part)
        both = [self.held(whole, h.buffer, {part.var}) for h in held if isinstance(part, For)]
        if not held or any(b is None or b.slots.keys() != h.slots.keys() for b, h in zip(both, held, strict=True)):
            return None
        return self.wrapped(whole, [b for b in both if b is not None], run)

    def straight(self, run: list[BufferStore]) -> list[Stmt]:
        """Statements in a row: what several of them store is stored once."""
        count: dict[tuple[Buffer, Index], int] = {}
        for s in run:
            count[s.buffer, s.indices] = count.get((s.buffer, s.indices), 0) + 1
        wanted = {b for (b, _), n in count.items() if n > 1 and b.scope in MOVING}
        if not wanted:
            return list(run)
        whole = seq(*run)
        held = [h for b in wanted_in_order(run, wanted) if (h := self.held(whole, b, set())) is not None]
        return [self.wrapped(whole, held, run)] if held else list(run)

    # ---------------------------------------------------------------------------------------------------------- loops

    def of_loop(self, s: For, known: tuple[BufferStore, ...]) -> list[_Held]:
        """What a loop can keep in registers."""
        stores, bound = self.survey(s)
        if stores is None or bound is None:
            return []
        found = []
        inside = allocated(s)  # new in each iteration
        for b in dict.fromkeys(x.buffer for x in stores):
            if (
                b in inside
                or b.scope not in MOVING
                or any(free_vars(i) & bound for x in stores if x.buffer is b for i in x.indices)
            ):
                continue
            held = self.held(s, b, bound)
            if held is None or not (set(held.slots) <= {k.indices for k in known if k.buffer is b} or _runs(s, b)):
                continue
            if _under_branch(s.body, b):
                continue
            found.append(held)
        return found if sum(_bytes(h) for h in found) <= self.room else []

    def survey(self, s: For) -> tuple[list[BufferStore] | None, set[Var] | None]:
        """Stores below a loop and the variables bound there; None if it holds what may touch memory in other ways."""
        stores: list[BufferStore] = []
        bound = {s.var}
        todo: list[Any] = [s.body]
        while todo:
            n = todo.pop()
            if isinstance(n, BufferStore):
                stores.append(n)
            elif isinstance(n, For):
                if n.kind != "serial":
                    return None, None
                bound.add(n.var)
            elif isinstance(n, While) or (isinstance(n, Evaluate) and not _harmless(n.value)):
                return None, None
            elif hasattr(n, "var"):
                bound.add(n.var)
            todo.extend(kids(n))
        if any(x.buffer.scope in MOVING and not self._is_harmless(x.value) for x in stores):
            return None, None
        return stores, bound

    def _is_harmless(self, value: PrimExpr) -> bool:
        found = self.harmless.get(value)
        if found is None:
            found = self.harmless[value] = _harmless(value)
        return found

    def held(self, s: Stmt, b: Buffer, bound: set[Var]) -> _Held | None:
        """The buffer's elements under a statement, if they are few, stay put and do not overlap partly."""
        loads, stores = accesses(s)
        both: list[Any] = [*loads, *stores]
        touched = [x for x in both if x.buffer is b]
        lanes = {dt.lanes(x.indices[-1].dtype) if x.indices else 1 for x in touched}
        if len(lanes) != 1 or not b.plain:
            return None
        slots: dict[Index, int] = {}
        for x in touched:
            if x.indices in slots:
                continue
            if any(free_vars(i) & bound or _reads(i) for i in x.indices) or not _plain(x.indices):
                return None
            if not all(_disjoint(x.indices, other) for other in slots):
                return None
            slots[x.indices] = len(slots)
            if len(slots) * lanes_of(lanes) * dt.nbytes(b.dtype) > self.room:
                return None
        register = Buffer(f"{b.name}_r", (len(slots), lanes_of(lanes)), b.dtype, "register")
        return _Held(b, register, slots)


def lanes_of(lanes: set[int]) -> int:
    return next(iter(lanes))


def wanted_in_order(run: list[BufferStore], wanted: set[Buffer]) -> list[Buffer]:
    return [b for b in dict.fromkeys(s.buffer for s in run) if b in wanted]


def _bytes(h: _Held) -> int:
    return int(h.register.shape[0] * h.register.shape[1] * dt.nbytes(h.buffer.dtype))


def _harmless(x: Any) -> bool:
    for n in post_order(x):
        if isinstance(n, BufferRef) or (isinstance(n, Call) and n.op != "prefetch" and not is_pure(n.op)):
            return False
    return True


def _under_branch(s: Any, b: Buffer) -> bool:
    """Whether a branch decides about an access of the buffer."""
    todo: list[tuple[Any, bool]] = [(s, False)]
    while todo:
        n, inside = todo.pop()
        inside = inside or isinstance(n, IfThenElse)
        if inside and not kids(n):
            loads, stores = accesses(n)
            if any(x.buffer is b for x in loads) or any(x.buffer is b for x in stores):
                return True
        todo.extend((c, inside) for c in kids(n))
    return False


def _runs(s: For, b: Buffer) -> bool:
    """Whether every loop around an access of the buffer is known to run, so that its index is valid before them."""
    todo: list[tuple[Any, bool]] = [(s, True)]
    while todo:
        n, sure = todo.pop()
        if isinstance(n, For):
            sure = sure and (e.const_int(n.extent) or 0) > 0
        if not sure and not kids(n):
            loads, stores = accesses(n)
            if any(x.buffer is b for x in loads) or any(x.buffer is b for x in stores):
                return False
        todo.extend((c, sure) for c in kids(n))
    return True


def _reads(i: PrimExpr) -> bool:
    return bool(accesses(i)[0]) if not isinstance(i, e.IntImm | Var) else False


def _plain(index: Index) -> bool:
    """Scalars, with at most a trailing vector of neighbours."""
    for k, i in enumerate(index):
        if "x" in i.dtype and not (
            k == len(index) - 1 and isinstance(i, Ramp) and e.const_int(i.stride) == 1 and i.count <= 64
        ):
            return False
    return True


def _disjoint(a: Index, b: Index) -> bool:
    """Whether two indices certainly mean different elements."""
    for x, y in zip(a, b, strict=True):
        lanes = x.count if isinstance(x, Ramp) else 1
        first = x.base if isinstance(x, Ramp) else x
        other = y.base if isinstance(y, Ramp) else y
        gap = e.const_int(simplify(e.sub(first, other)))
        if gap is not None and abs(gap) >= lanes:
            return True
    return False
