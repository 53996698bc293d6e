"""What every code generator asks of a lowered function: stores below a statement, register slots, captures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from warpbeam.codegen import imports
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import Node, NodeMemo, children
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as E
from warpbeam.tir import stmt as S

Slot = tuple[E.Buffer, int]
_EMPTY: frozenset[Any] = frozenset()
_STRIDES: NodeMemo[list[E.PrimExpr]] = NodeMemo()


const_int = E.const_int
_TYPED = (E.Buffer, E.PrimExpr)
_CHAINS: NodeMemo[tuple[tuple[int, set[E.Buffer]] | None]] = NodeMemo()
_LONG = 24  # nodes of a computation that is worth being interleaved with its like
_ABREAST = 4  # such computations, whose values between fit the registers


def check_lowered(func: S.PrimFunc) -> list[Node]:
    """The nodes of the function's body, children first; refuses what only the lowering pipeline may see.

    Raises:
        LowerError: naming the first block, or loop of a kind that no printer knows.
    """
    nodes = list(post_order(func.body))
    for node in (*func.params, *nodes):
        if isinstance(node, _TYPED):
            if dt.is_small(node.dtype):
                raise LowerError(
                    f"dtype {dt.scalar(node.dtype)} is left in a function that is to be printed",
                    where=func.name,
                    why="printers take bytes and explicit arithmetic in place of types of less than 16 bits but for "
                    "int8, uint8 and bool",
                    hint="run tir.transform.lower first, or its FP8ComputeLegalize and ByteSmallTypes",
                )
        elif isinstance(node, S.Block):
            raise LowerError(
                f"block {node.name!r} is left in a function that is to be printed",
                where=func.name,
                why="printers take plain loops",
                hint="run tir.transform.lower first",
            )
        elif isinstance(node, S.For):
            _check_loop(node, func.name)
    return nodes


def _check_loop(loop: S.For, where: str) -> None:
    if loop.kind == "thread_binding":
        raise LowerError(
            f"loop {loop.var.name!r} is bound to {loop.thread}, which a CPU does not have",
            where=where,
            hint='build for a GPU (target="cuda" or "opencl"), or use parallel and vectorize in place of bind',
        )
    if loop.kind == "vectorized":
        raise LowerError(
            f"loop {loop.var.name!r} is still {loop.kind}",
            where=where,
            why="printers take serial, unrolled and parallel loops; vectors must be explicit",
            hint="run tir.transform.lower first",
        )


def flat_offset(buffer: E.Buffer, indices: tuple[E.PrimExpr, ...]) -> tuple[int, int] | None:
    """(element offset, lanes) of an access with constant indices and at most one trailing stride-1 Ramp, else None."""
    offset, lanes = 0, 1
    for axis, (index, extent) in enumerate(zip(indices, buffer.shape, strict=True)):
        first: E.PrimExpr = index
        if isinstance(index, E.Ramp) and axis == len(indices) - 1 and const_int(index.stride) == 1:
            first, lanes = index.base, index.count
        value, size = const_int(first), const_int(extent)
        if value is None or size is None:
            return None
        offset = offset * size + value
    return offset, lanes


@dataclass(slots=True)
class Facts:
    """Facts of one function, computed once.

    Attributes:
        stores: statement -> buffers stored anywhere below it.
        slots: register buffer -> list of (offset, lanes), a partition that every access falls into.
        demoted: register-scope buffers that are indexed with variables and live in memory instead.
    """

    stores: dict[Node, frozenset[E.Buffer]] = field(default_factory=dict)
    slots: dict[E.Buffer, list[tuple[int, int]]] = field(default_factory=dict)
    demoted: set[E.Buffer] = field(default_factory=set)

    def slot_of(self, buffer: E.Buffer, offset: int) -> tuple[int, int]:
        """The slot (offset, lanes) that holds element `offset`."""
        for start, lanes in self.slots[buffer]:
            if start <= offset < start + lanes:
                return start, lanes
        raise LowerError(f"register buffer {buffer.name} is accessed at {offset}, outside of its shape")


def collect(nodes: Iterable[Node]) -> Facts:
    """The facts of a lowered function with these nodes, children first."""
    facts = Facts()
    accesses: dict[E.Buffer, set[tuple[int, int]]] = {}
    calls: dict[Node, frozenset[E.Buffer]] = {}  # expression -> buffers that calls out in it may write
    for node in nodes:
        if isinstance(node, S.Stmt):
            found = _EMPTY.union(*(facts.stores.get(c, _EMPTY) for c in children(node) if isinstance(c, S.Stmt)))
            if calls:
                found = found.union(*(calls[c] for c in children(node) if c in calls))
            if isinstance(node, S.BufferStore):
                found = found | {node.buffer}
                _access(node, facts, accesses)
            facts.stores[node] = found
        elif isinstance(node, E.BufferRef):
            facts.demoted.add(node.buffer)
        elif isinstance(node, E.PrimExpr):
            found = _EMPTY.union(*(calls[c] for c in children(node) if c in calls)) if calls else _EMPTY
            if isinstance(node, E.Call) and node.op in ("call_extern", "call_packed"):
                found = found.union(imports.buffers_of(node))
            elif isinstance(node, E.BufferLoad):
                _access(node, facts, accesses)
            if found:
                calls[node] = found
    for buffer, places in accesses.items():
        if buffer not in facts.demoted:
            facts.slots[buffer] = _partition(places)
    return facts


def _access(node: E.BufferLoad | S.BufferStore, facts: Facts, accesses: dict[E.Buffer, set[tuple[int, int]]]) -> None:
    """Notes which elements of a register buffer an access is to."""
    if node.buffer.scope != "register":
        return
    place = flat_offset(node.buffer, node.indices)
    if place is None:
        facts.demoted.add(node.buffer)
    else:
        accesses.setdefault(node.buffer, set()).add(place)


def _partition(places: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merges overlapping accesses into disjoint slots."""
    out: list[tuple[int, int]] = []
    for start, lanes in sorted(places):
        if out and start < out[-1][0] + out[-1][1]:
            first, count = out[-1]
            out[-1] = (first, max(count, start + lanes - first))
        else:
            out.append((start, lanes))
    return out


def abreast(stmts: Sequence[S.Stmt], start: int) -> int:
    """How many statements from `start` on are stores of vectors whose values are best computed side by side: long
    computations of one form, each of which would wait for its own instructions, and none reads what one before stores.
    """
    first = _chain(stmts[start])
    if first is None:
        return 1
    end, stored = start, set[E.Buffer]()
    while end < min(start + _ABREAST, len(stmts)):
        s = stmts[end]
        found = _chain(s)
        if found is None or found[0] != first[0] or found[1] & stored:
            break
        assert isinstance(s, S.BufferStore)
        stored.add(s.buffer)
        end += 1
    return max(1, end - start)


def _chain(stmt: S.Stmt) -> tuple[int, set[E.Buffer]] | None:
    """How many vectors the long computation has that a statement stores as a vector, and the buffers it reads; None
    where it is short or asks a condition first.
    """
    if not isinstance(stmt, S.BufferStore) or dt.lanes(stmt.value.dtype) == 1 or _is_short(stmt.value):
        return None
    known = _CHAINS.get(stmt.value)
    if known is None:
        known = _CHAINS[stmt.value] = _measured(list(post_order(stmt.value)))
    return known[0]


def _is_short(value: E.PrimExpr) -> bool:
    """Whether a computation has few nodes even with each counted as often as it is used: a cheap first look."""
    stack: list[Node] = [value]
    for _ in range(_LONG):
        if not stack:
            return True
        stack.extend(children(stack.pop()))
    return False


def _measured(nodes: list[Any]) -> tuple[tuple[int, set[E.Buffer]] | None]:
    """What `_chain` says of a computation's nodes."""
    if len(nodes) < _LONG or any(type(n) is E.Let or (type(n) is E.Call and n.op == "if_then_else") for n in nodes):
        return (None,)
    vectors = sum(isinstance(n, E.PrimExpr) and dt.lanes(n.dtype) > 1 and type(n) is not E.Ramp for n in nodes)
    return ((vectors, {n.buffer for n in nodes if isinstance(n, E.BufferLoad | E.BufferRef)}),)


def first_access(stmt: S.Stmt, buffer: E.Buffer) -> str | None:
    """What a statement does first with a buffer: "store", where it surely stores into it before anything else; None
    where it leaves it alone; "other". Recursion is as deep as loops and branches nest."""
    todo: list[Any] = [stmt]
    while todo:
        s = todo.pop()
        parts = list(children(s))
        if any(buffer in _touched(x) for x in parts if isinstance(x, E.PrimExpr)):
            return "other"
        if isinstance(s, S.BufferStore):
            if s.buffer is buffer:
                return "store"
        elif isinstance(s, S.SeqStmt | S.LetStmt | S.Allocate):
            todo += reversed([x for x in parts if isinstance(x, S.Stmt)])
        else:
            found = {first_access(x, buffer) for x in parts if isinstance(x, S.Stmt)} - {None}
            runs = isinstance(s, S.For) and (const_int(s.extent) or 0) > 0
            if found:
                return "store" if runs and found == {"store"} else "other"
    return None


def _touched(x: E.PrimExpr) -> set[E.Buffer]:
    return {n.buffer for n in post_order(x) if isinstance(n, E.BufferLoad | E.BufferRef)}


def uses(*roots: Node) -> tuple[list[E.Var], list[E.Buffer]]:
    """Variables and buffers that occur below the roots and are not bound there, in order of first occurrence."""
    variables: dict[E.Var, None] = {}
    buffers: dict[E.Buffer, None] = {}
    bound: set[Node] = set()
    for node in post_order(*roots):
        if isinstance(node, E.Var):
            variables[node] = None
        elif isinstance(node, E.Buffer):
            buffers[node] = None
        elif isinstance(node, (S.For, S.LetStmt, E.Let)):
            bound.add(node.var)
        elif isinstance(node, S.Allocate):
            bound.add(node.buffer)
    for buffer in list(buffers):  # a Buffer is a leaf of traversal: the variables of its shape are found here
        for dim in buffer.shape:
            if isinstance(dim, Node):
                variables.update((v, None) for v in post_order(dim) if isinstance(v, E.Var))
    return [v for v in variables if v not in bound], [b for b in buffers if b not in bound]


def loads(root: Node) -> Iterator[E.BufferLoad]:
    """All loads below an expression."""
    return (n for n in post_order(root) if isinstance(n, E.BufferLoad))


def nonneg(expr: E.PrimExpr, known: set[E.Var]) -> bool:
    """Whether an integer expression is certainly >= 0, given variables that are."""
    stack = [expr]
    while stack:
        e = stack.pop()
        if isinstance(e, E.IntImm):
            if e.value < 0:
                return False
        elif isinstance(e, E.Var):
            if not (e.nonneg or e in known or dt.is_unsigned(e.dtype)):
                return False
        elif isinstance(e, E.FloorMod) and (const_int(e.b) or 0) > 0:
            continue
        elif isinstance(e, (E.Add, E.Mul, E.FloorDiv, E.FloorMod, E.Div, E.Mod, E.Min)):
            stack += (e.a, e.b)
        elif isinstance(e, E.Max):
            if not any(isinstance(s, E.IntImm) and s.value >= 0 for s in (e.a, e.b)):
                stack += (e.a, e.b)
        elif isinstance(e, (E.Broadcast, E.Cast)) and not dt.is_float(e.value.dtype):
            stack.append(e.value)
        elif isinstance(e, E.Ramp):
            stack += (e.base, e.stride)
        elif not (dt.is_unsigned(dt.scalar(e.dtype)) or dt.is_bool(e.dtype)):
            return False
    return True


def strides(buffer: E.Buffer) -> list[E.PrimExpr]:
    """Row-major strides in elements; found once for a buffer."""
    known = _STRIDES.get(buffer)
    if known is not None:
        return known
    out: list[E.PrimExpr] = []
    step: E.PrimExpr = E.as_expr(1)
    for extent in reversed(buffer.shape):
        out.append(step)
        step = E.mul(step, extent)
    out.reverse()
    _STRIDES[buffer] = out
    return out
