"""Which buffers a block reads and writes, and which loops carry its reductions."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Node, NodeMemo
from warpbeam.ir.rewrite import post_order
from warpbeam.tir.analysis.tree import Place, Tree
from warpbeam.tir.expr import Add, Buffer, BufferLoad, BufferRef, Call, PrimExpr, Var, const_int
from warpbeam.tir.stmt import Block, BufferStore, For

_ACCESSES: NodeMemo[tuple[tuple[BufferLoad, ...], tuple[BufferStore, ...]]] = NodeMemo()
_OPAQUE: NodeMemo[tuple[tuple[Buffer, bool], ...]] = NodeMemo()
_VARS: NodeMemo[frozenset[Var]] = NodeMemo()


def accesses(root: Node) -> tuple[tuple[BufferLoad, ...], tuple[BufferStore, ...]]:
    """Distinct loads and stores at or below a node."""
    found = _ACCESSES.get(root)
    if found is None:
        nodes = list(post_order(root))
        loads = tuple(n for n in nodes if isinstance(n, BufferLoad))
        stores = tuple(n for n in nodes if isinstance(n, BufferStore))
        found = _ACCESSES[root] = loads, stores
    return found


def opaque_buffers(root: Node) -> tuple[tuple[Buffer, bool], ...]:
    """(buffer, written) for each buffer handed to a foreign function at or below a node: which elements is unknown."""
    found = _OPAQUE.get(root)
    if found is None:
        made: dict[tuple[Buffer, bool], None] = {}
        masks: dict[Node, int] = {}
        nodes = list(post_order(root))
        for n in nodes:
            if isinstance(n, Call) and n.op == "access_ptr" and isinstance(n.args[0], BufferRef):
                masks[n.args[0]] = masks.get(n.args[0], 0) | (const_int(n.args[3]) or 3)
        for n in nodes:
            if isinstance(n, BufferRef):
                mask = masks.get(n, 3)
                made.update({(n.buffer, w): None for w in (False, True) if mask & (2 if w else 1)})
        found = _OPAQUE[root] = tuple(made)
    return found


def free_vars(expr: Node) -> frozenset[Var]:
    """Every variable that occurs in an expression."""
    if isinstance(expr, Var):
        return frozenset((expr,))
    found = _VARS.get(expr)
    if found is None:
        found = _VARS[expr] = frozenset(n for n in post_order(expr) if isinstance(n, Var))
    return found


def _parts(block: Block) -> list[Node]:
    return [s for s in (block.init, block.body) if s is not None]


def written(block: Block) -> tuple[Buffer, ...]:
    """Buffers that a block stores to, in order."""
    stored = dict.fromkeys(s.buffer for part in _parts(block) for s in accesses(part)[1])
    given = dict.fromkeys(b for part in _parts(block) for b, write in opaque_buffers(part) if write)
    return tuple({**stored, **given})


def read(block: Block, own: bool = False) -> tuple[Buffer, ...]:
    """Buffers that a block loads from; those it also writes only with `own`."""
    parts = [*_parts(block), block.predicate]
    found = dict.fromkeys(n.buffer for part in parts for n in accesses(part)[0])
    found.update(dict.fromkeys(b for part in parts for b, write in opaque_buffers(part) if not write))
    if not own:
        for b in written(block):
            found.pop(b, None)
    return tuple(found)


def writers(tree: Tree, buffer: Buffer) -> list[Place]:
    """Places of the blocks that store to a buffer, in program order."""
    return [p for p in tree.blocks.values() if buffer in written(as_block(p))]


def readers(tree: Tree, buffer: Buffer) -> list[Place]:
    """Places of the blocks that load from a buffer without storing to it."""
    return [p for p in tree.blocks.values() if buffer in read(as_block(p))]


def as_block(place: Place) -> Block:
    """The block at a place."""
    assert isinstance(place.stmt, Block)
    return place.stmt


def as_loop(place: Place) -> For:
    """The loop at a place."""
    assert isinstance(place.stmt, For)
    return place.stmt


def is_param(tree: Tree, buffer: Buffer) -> bool:
    return any(buffer is p for p in tree.func.params)


def binding_vars(block: Block, kind: str) -> frozenset[Var]:
    """Variables in the bindings of the axes of one kind ("spatial" or "reduce")."""
    found: set[Var] = set()
    for axis, binding in zip(block.axes, block.bindings, strict=True):
        if axis.kind == kind:
            found |= free_vars(binding)
    return frozenset(found)


def carries(block: Block, var: Var) -> bool:
    """Whether iterations over `var` accumulate into the same elements of the block's result."""
    return var in binding_vars(block, "reduce")


def reduce_top(place: Place) -> Place | None:
    """The outermost loop that carries the block's reduction, or None."""
    block = as_block(place)
    names = binding_vars(block, "reduce")
    top = None
    for p in place.ancestors():
        if isinstance(p.stmt, For) and p.stmt.var in names:
            top = p
    return top


def plain_axes(block: Block, store: BufferStore) -> list[Var] | None:
    """The store's indices if they are distinct spatial axes of the block and nothing else."""
    spatial = {a.var for a in block.axes if a.kind == "spatial"}
    index: list[Any] = list(store.indices)
    if all(i in spatial for i in index) and len(set(index)) == len(index):
        return index
    return None


def shifted_axes(block: Block, store: BufferStore) -> list[tuple[Var, int]] | None:
    """The store's indices as distinct spatial or ordered axes of the block plus constants, or None."""
    own = {a.var for a in block.axes if a.kind != "reduce"}
    found: list[tuple[Var, int]] = []
    for i in store.indices:
        axis, shift = (i.a, const_int(i.b)) if isinstance(i, Add) else (i, 0)
        if not isinstance(axis, Var) or axis not in own or shift is None:
            return None
        found.append((axis, shift))
    return found if len({axis for axis, _ in found}) == len(found) else None


def mentions(expr: PrimExpr, names: frozenset[Var] | set[Var]) -> bool:
    """Whether an expression depends on one of the variables."""
    return not free_vars(expr).isdisjoint(names)
