"""How much of each buffer the parts of a program touch: the working sets that decide which cache serves a loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import as_block, as_loop, opaque_buffers, read, written
from warpbeam.tir.analysis.queries import estimate_tir_flops
from warpbeam.tir.analysis.regions import Env, Range, clip, interval, loop_range, union, upper_bound
from warpbeam.tir.analysis.tree import Place, facts_at, kids, tree_of
from warpbeam.tir.arith import Facts, simplify
from warpbeam.tir.stmt import Block, BufferStore, For, LetStmt, PrimFunc, Stmt

Box = tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Touched:
    """The part of a buffer that one run of a statement touches.

    elements: of the smallest box around it, which strides and gaps do not make smaller. bytes: at most so many; None
    where the box has no constant bound. row: bytes of its last dimension, which lie side by side.
    """

    buffer: e.Buffer
    elements: e.PrimExpr
    bytes: int | None
    read: bool
    written: bool
    row: int = 1

    def lines(self, line: int) -> int | None:
        """Bytes of the cache lines that hold it, if its rows start at lines and lie apart."""
        if self.bytes is None:
            return None
        return self.bytes // max(self.row, 1) * -(-self.row // line) * line


@dataclass(frozen=True, slots=True)
class Level:
    """A loop or block, what one run of it touches and computes, and the levels inside.

    flops: floating operations of one run. trips: iterations of a loop, 1 for a block, None where that is not constant.
    """

    stmt: For | Block
    depth: int
    trips: int | None
    touched: tuple[Touched, ...]
    flops: float
    inside: tuple[Level, ...]

    @property
    def bytes(self) -> int | None:
        """The working set: bytes of all buffers together, or None."""
        sizes = [t.bytes for t in self.touched]
        return None if None in sizes else sum(s for s in sizes if s is not None)

    def lines(self, line: int) -> int | None:
        """The room that the working set takes in a cache with lines of so many bytes."""
        sizes = [t.lines(line) for t in self.touched]
        return None if None in sizes else sum(s for s in sizes if s is not None)


def footprint(stmt: Stmt, facts: Facts | None = None) -> tuple[Touched, ...]:
    """What one run of a statement touches, in order of appearance; the variables from outside are fixed.

    facts: what is known of those variables.
    """
    known = Facts() if facts is None else facts
    found: dict[e.Buffer, tuple[Box, bool, bool]] = {}
    todo: list[tuple[Any, Env]] = [(stmt, {})]
    while todo:
        s, env = todo.pop()
        if isinstance(s, For):
            todo.append((s.body, {**env, s.var: loop_range(s, env)}))
        elif isinstance(s, Block):
            inner = dict(env)
            for axis, binding in zip(s.axes, s.bindings, strict=True):
                inner[axis.var] = clip(interval(binding, env), axis.extent, known)
            _note(found, s.predicate, env, known)
            todo += [(part, inner) for part in (s.body, s.init) if part is not None]
        elif isinstance(s, LetStmt):
            _note(found, s.value, env, known)
            todo.append((s.body, {**env, s.var: interval(s.value, env)}))
        else:
            below = kids(s)
            if not below:
                _note(found, s, env, known)
            elif hasattr(s, "cond"):
                _note(found, s.cond, env, known)
            todo += [(c, env) for c in reversed(below)]
    return tuple(_touched(b, *seen, known) for b, seen in found.items())


def _note(found: dict[e.Buffer, tuple[Box, bool, bool]], node: Any, env: Env, facts: Facts) -> None:
    """Adds the accesses of a statement without others inside, or of an expression."""
    whole = [(b, w, tuple(clip(None, d, facts) for d in b.shape)) for b, w in opaque_buffers(node)]
    for n in post_order(node):
        if isinstance(n, e.BufferLoad | BufferStore):
            box = tuple(clip(interval(i, env), d, facts) for i, d in zip(n.indices, n.buffer.shape, strict=True))
            whole.append((n.buffer, isinstance(n, BufferStore), box))
    whole.sort(key=lambda entry: not entry[1])  # what is written comes first
    for buffer, writes, box in whole:
        old, was_read, was_written = found.get(buffer, (box, False, False))
        both = tuple(
            union(a, b, facts) or clip(None, size, facts) for a, b, size in zip(old, box, buffer.shape, strict=True)
        )
        found[buffer] = both, was_read or not writes, was_written or writes


def _touched(buffer: e.Buffer, box: Box, read: bool, written: bool, facts: Facts) -> Touched:
    count: e.PrimExpr = e.const(1)
    size: int | None = dt.nbytes(buffer.dtype)
    row = dt.nbytes(buffer.dtype)
    for k, r in enumerate(box):
        extent = r.extent(facts)
        most = upper_bound(extent, facts)
        if most is not None and k == len(box) - 1:
            row *= max(most, 0)
        size = None if size is None or most is None else size * max(most, 0)
        count = e.mul(count, extent if most is None else most)
    return Touched(buffer, simplify(count, facts), size, read, written, row)


def levels(func: PrimFunc) -> tuple[Level, ...]:
    """The loops and blocks of a program as trees, in program order. What lies in no block is counted in its loop.

    An intermediate that lives inside one iteration of a loop counts, there and further out, with what one iteration
    makes of it: lowering gives it no more memory than that.
    """
    return _levels(func.body, 0, Facts(), _homes(func))


_Homes = dict[e.Buffer, tuple[frozenset[Stmt], Touched]]  # the loops around all of a buffer's uses; their part of it


def _homes(func: PrimFunc) -> _Homes:
    """Intermediates that all uses of lie inside one loop."""
    tree = tree_of(func)
    users: dict[e.Buffer, list[Place]] = {}
    for place in tree.blocks.values():
        block = as_block(place)
        for b in {*read(block, own=True), *written(block)}:
            users.setdefault(b, []).append(place)
    found: _Homes = {}
    for b, places in users.items():
        shared = [p for p in places[0].ancestors() if isinstance(p.stmt, For) and all(q.within(p) for q in places)]
        if shared and b not in func.buffers:
            once = footprint(as_loop(shared[0]).body, facts_at(shared[0], inside=True))
            found[b] = frozenset(p.stmt for p in shared), next(t for t in once if t.buffer is b)
    return found


def _levels(root: Stmt, depth: int, facts: Facts, homes: _Homes) -> tuple[Level, ...]:
    """Recursion is as deep as loops nest."""
    made: list[Level] = []
    todo: list[Any] = [root]
    while todo:
        s = todo.pop()
        if not isinstance(s, For | Block):
            todo += reversed(kids(s))
            continue
        with facts.scope():
            whole = footprint(s, facts)
            inside: tuple[Level, ...] = ()
            trips: int | None = 1
            touched = tuple(homes[t.buffer][1] if s in homes.get(t.buffer, ((),))[0] else t for t in whole)
            if isinstance(s, For):
                facts.bind(s.var, s.min, s.extent)
                inside, trips = _levels(s.body, depth + 1, facts, homes), e.const_int(s.extent)
        made.append(Level(s, depth, trips, touched, estimate_tir_flops(s), inside))
    return tuple(made)


def walk(roots: Sequence[Level]) -> list[Level]:
    """The levels of some trees in program order."""
    found: list[Level] = []
    todo = list(reversed(roots))
    while todo:
        level = todo.pop()
        found.append(level)
        todo += reversed(level.inside)
    return found
