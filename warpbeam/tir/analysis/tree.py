"""Where the loops and blocks of a program stand, and how to rebuild it with one statement changed.

A `Tree` is made once per function and kept for the last few: schedules look at the same program many times.
Blocks are leaves here; statements nest only as deep as loops do, and the chain of root allocations is one flat list.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import substitute
from warpbeam.tir.arith.facts import Facts
from warpbeam.tir.expr import Buffer, IntImm, PrimExpr, Var
from warpbeam.tir.stmt import (
    Allocate,
    Block,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    PrimFunc,
    SeqStmt,
    Stmt,
    While,
    seq,
)


def kids(stmt: Any) -> tuple[Stmt, ...]:
    """The statements directly below `stmt`; a block has none."""
    cls = type(stmt)
    if cls is SeqStmt:
        return stmt.stmts  # type: ignore[no-any-return]
    if cls is For or cls is Allocate or cls is LetStmt or cls is While:
        return (stmt.body,)
    if cls is IfThenElse:
        return (stmt.then,) if stmt.orelse is None else (stmt.then, stmt.orelse)
    return ()


def allocated(stmt: Stmt) -> set[Buffer]:
    """The buffers that exist within a statement only: each iteration of a loop has its own."""
    found, todo = set(), [stmt]
    while todo:
        n = todo.pop()
        if isinstance(n, Allocate):
            found.add(n.buffer)
        todo.extend(kids(n))
    return found


def own_parts(s: Any) -> list[Any]:
    """The expressions that a statement evaluates itself."""
    if isinstance(s, BufferStore):
        return [s.value, *s.indices]
    if isinstance(s, For):
        return [s.min, s.extent]
    if isinstance(s, IfThenElse):
        return [s.cond]
    if isinstance(s, LetStmt | Evaluate):
        return [s.value]
    return [s.cond] if hasattr(s, "cond") else []


def with_kids(stmt: Any, new: list[Stmt | None]) -> Stmt | None:
    """`stmt` with its children replaced; None children vanish, and so does a statement left empty."""
    if type(stmt) is SeqStmt:
        left = [s for s in new if s is not None]
        return seq(*left) if left else None
    if type(stmt) is IfThenElse:
        orelse = new[1] if len(new) > 1 else None
        if new[0] is None:
            return None if orelse is None else stmt.replace(then=SeqStmt(()), orelse=orelse)
        return IfThenElse(stmt.cond, new[0], orelse)
    if new[0] is None:
        return None
    return rebuilt(stmt, new[0])


def rebuilt(stmt: Any, body: Stmt) -> Stmt:
    """A loop, allocation, let or while with another body."""
    if stmt.body is body:
        return stmt  # type: ignore[no-any-return]
    if type(stmt) is For:
        return For(stmt.var, stmt.min, stmt.extent, stmt.kind, body, stmt.annotations, stmt.thread)
    return stmt.replace(body=body)  # type: ignore[no-any-return]


class Place:
    """A statement at its place: `parent` is the enclosing place, `index` the number among its children."""

    __slots__ = ("depth", "index", "parent", "stmt")

    def __init__(self, stmt: Stmt, parent: Place | None, index: int) -> None:
        self.stmt, self.parent, self.index = stmt, parent, index
        self.depth: int = 0 if parent is None else parent.depth + 1

    def ancestors(self) -> Iterator[Place]:
        """Enclosing places, inner to outer, without this one."""
        place = self.parent
        while place is not None:
            yield place
            place = place.parent

    def loops(self) -> list[For]:
        """Enclosing loops, outer to inner."""
        found = [p.stmt for p in self.ancestors() if isinstance(p.stmt, For)]
        return found[::-1]

    def within(self, other: Place) -> bool:
        """Whether this place is `other` or below it."""
        place: Place | None = self
        while place is not None and place.depth > other.depth:
            place = place.parent
        return place is other


class Tree:
    """Places of all loops and blocks of one function, by name and in program order."""

    def __init__(self, func: PrimFunc) -> None:
        self.func = func
        self.allocs: list[Allocate] = []
        body = func.body
        while isinstance(body, Allocate):
            self.allocs.append(body)
            body = body.body
        self.root = Place(body, None, 0)
        self.loops: dict[str, Place] = {}
        self.blocks: dict[str, Place] = {}
        self.inner_allocs: list[Buffer] = []
        stack = [self.root]
        while stack:
            place = stack.pop()
            stmt = place.stmt
            if isinstance(stmt, For):
                self.loops[stmt.var.name] = place
            elif isinstance(stmt, Block):
                self.blocks[stmt.name] = place
            elif isinstance(stmt, Allocate):
                self.inner_allocs.append(stmt.buffer)
            below = kids(stmt)
            for i in range(len(below) - 1, -1, -1):
                stack.append(Place(below[i], place, i))

    @property
    def buffers(self) -> dict[str, Buffer]:
        """Parameters and allocated buffers by name."""
        inner = [*(a.buffer for a in self.allocs), *self.inner_allocs]
        return {b.name: b for b in [*self.func.buffers, *inner]}

    def loop(self, name: str) -> Place:
        """The place of a loop, or ScheduleError."""
        place = self.loops.get(name)
        if place is None:
            raise ScheduleError(
                f"there is no loop {name!r} in {self.func.name}", hint=f"loops: {', '.join(self.loops)}"
            )
        return place

    def block(self, name: str) -> Place:
        """The place of a block, or ScheduleError."""
        place = self.blocks.get(name)
        if place is None:
            raise ScheduleError(
                f"there is no block {name!r} in {self.func.name}", hint=f"blocks: {', '.join(self.blocks)}"
            )
        return place

    def blocks_below(self, place: Place) -> list[Place]:
        """Blocks at or under a place, in program order."""
        return [b for b in self.blocks.values() if b.within(place)]

    def replace(self, changes: dict[Place, Stmt | None]) -> Stmt:
        """The body below the root allocations with some statements replaced (None: removed)."""
        levels: dict[int, dict[Place, Stmt | None]] = {}
        for place, new in changes.items():
            levels.setdefault(place.depth, {})[place] = new
        for depth in range(max(levels, default=0), 0, -1):
            edits: dict[Place, dict[int, Stmt | None]] = {}
            for place, new in levels.get(depth, {}).items():
                edits.setdefault(place.parent, {})[place.index] = new  # type: ignore[arg-type]
            above = levels.setdefault(depth - 1, {})
            for parent, new_kids in edits.items():
                below: list[Stmt | None] = list(kids(parent.stmt))
                for i, s in new_kids.items():
                    below[i] = s
                if parent in above:
                    raise ScheduleError("a statement and one below it are changed at once")
                above[parent] = with_kids(parent.stmt, below)
        root = levels.get(0, {}).get(self.root, self.root.stmt)
        return SeqStmt(()) if root is None else root

    def rebuild(self, body: Stmt, add: tuple[Buffer, ...] = (), drop: tuple[Buffer, ...] = ()) -> PrimFunc:
        """The function with another body below its root allocations, some of which are added or dropped."""
        for buffer in reversed(add):
            body = Allocate(buffer, body)
        for a in reversed(self.allocs):
            if a.buffer not in drop:
                body = Allocate(a.buffer, body, a.annotations)
        return PrimFunc(self.func.name, self.func.params, body, self.func.attrs)

    def update(self, changes: dict[Place, Stmt | None]) -> PrimFunc:
        """`rebuild(replace(changes))`."""
        return self.rebuild(self.replace(changes))


_TREES: OrderedDict[PrimFunc, Tree] = OrderedDict()


def tree_of(func: PrimFunc) -> Tree:
    """The tree of a function, from a small cache."""
    tree = _TREES.get(func)
    if tree is None:
        tree = _TREES[func] = Tree(func)
        if len(_TREES) > 16:
            _TREES.popitem(last=False)
    return tree


def map_structure(stmt: Any, expr: Callable[[PrimExpr], PrimExpr], block: Callable[[Block], Block | None]) -> Stmt:
    """Rebuilds loops and conditions with `expr` applied to their bounds, and each block by `block` (None keeps it)."""
    cls = type(stmt)
    if cls is For:
        body = map_structure(stmt.body, expr, block)
        low, extent = expr(stmt.min), expr(stmt.extent)
        if body is stmt.body and low is stmt.min and extent is stmt.extent:
            return stmt  # type: ignore[no-any-return]
        return For(stmt.var, low, extent, stmt.kind, body, stmt.annotations, stmt.thread)
    if cls is SeqStmt:
        new = [map_structure(s, expr, block) for s in stmt.stmts]
        return stmt if all(a is b for a, b in zip(new, stmt.stmts, strict=True)) else seq(*new)
    if cls is Block:
        return block(stmt) or stmt
    if cls is IfThenElse:
        orelse = None if stmt.orelse is None else map_structure(stmt.orelse, expr, block)
        return IfThenElse(expr(stmt.cond), map_structure(stmt.then, expr, block), orelse)
    if cls is LetStmt:
        return LetStmt(stmt.var, expr(stmt.value), map_structure(stmt.body, expr, block))
    if cls is Allocate:
        return rebuilt(stmt, map_structure(stmt.body, expr, block))
    if cls is While:
        return While(expr(stmt.cond), map_structure(stmt.body, expr, block))
    if cls is BufferStore:
        return BufferStore(stmt.buffer, expr(stmt.value), tuple(expr(i) for i in stmt.indices))
    if cls is Evaluate:
        return Evaluate(expr(stmt.value))
    return stmt  # type: ignore[no-any-return]


def rebind(block: Block, expr: Callable[[PrimExpr], PrimExpr]) -> Block:
    """The block with `expr` applied to its bindings and predicate."""
    bindings = tuple(expr(b) for b in block.bindings)
    predicate = block.predicate if isinstance(block.predicate, IntImm) else expr(block.predicate)
    if predicate is block.predicate and all(a is b for a, b in zip(bindings, block.bindings, strict=True)):
        return block
    return Block(block.name, block.axes, bindings, predicate, block.init, block.body, block.annotations)


def subst_structure(stmt: Stmt, mapping: dict[Var, PrimExpr]) -> Stmt:
    """Substitutes loop variables in loop bounds and block bindings; block bodies never mention them."""
    memo: dict[Any, Any] = {}

    def expr(e: PrimExpr) -> PrimExpr:
        if isinstance(e, IntImm):
            return e
        if isinstance(e, Var):
            return mapping.get(e, e)
        new = memo.get(e)
        if new is None:
            new = memo[e] = substitute(e, mapping)
        return new  # type: ignore[no-any-return]

    return map_structure(stmt, expr, lambda b: rebind(b, expr))


def facts_at(place: Place, inside: bool = False) -> Facts:
    """What holds at a place: ranges of the enclosing loops (with `inside`, of the place's own loop too) and guards."""
    facts = Facts()
    chain = [place, *place.ancestors()]
    for k in reversed(range(0 if inside else 1, len(chain))):
        stmt = chain[k].stmt
        if isinstance(stmt, For):
            facts.bind(stmt.var, stmt.min, stmt.extent)
        elif isinstance(stmt, IfThenElse) and k and chain[k - 1].index == 0:
            facts.assume(stmt.cond)
    return facts


def annotated(notes: Attrs, key: str, value: Any) -> Attrs:
    """Attributes with one key set."""
    return Attrs({**notes, key: value})
