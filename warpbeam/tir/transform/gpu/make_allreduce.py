"""Gives a reduction whose axis is bound to threads a part per thread, because threads cannot add up one element.

    for tx in 32 (threadIdx.x):                     for tx in 32 (threadIdx.x):
        for k in 4:                                     for k in 4:
            B[i] += A[i, 32*k + tx]        ->               B_part[i] += A[i, 32*k + tx]
                                                    for tx in 32 (threadIdx.x):
                                                        thread_allreduce: B_all[i] = sum over tx of B_part[i]
                                                        B[i] = B_all[i]

The call `thread_allreduce(n; parts, destinations; x, y, combined; threads)` says how two partial results combine: over
n variables x and n variables y. `lower_thread_allreduce` writes it out, once it is known which threads there are.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import children
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, as_block, as_loop, binding_vars, free_vars, mentions, reduce_top
from warpbeam.tir.analysis.tree import Place, Tree, tree_of
from warpbeam.tir.expr import Buffer, BufferLoad, Call, PrimExpr, Var
from warpbeam.tir.schedule.guard import conjuncts
from warpbeam.tir.schedule.partition import replace_buffers
from warpbeam.tir.schedule.reduction import spatial_copy
from warpbeam.tir.schedule.step import Namer, nest
from warpbeam.tir.stmt import (
    Allocate,
    Block,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    IterVar,
    LetStmt,
    PrimFunc,
    SeqStmt,
    Stmt,
    seq,
)
from warpbeam.tir.transform.gpu.common import is_block_axis, is_private, is_thread


def make_allreduce(func: PrimFunc) -> PrimFunc:
    """The function with every reduction over threads in two parts.

    Raises:
        LowerError: for a reduction over blocks, or an update that does not combine its old value with a new one.
    """
    for name in list(tree_of(func).blocks):
        tree = tree_of(func)
        place = tree.block(name)
        loops = _bound(place)
        if loops:
            func = _split(tree, place, loops)
    return func


def _bound(place: Place) -> list[For]:
    """The hardware loops that carry the block's reduction."""
    names = binding_vars(as_block(place), "reduce")
    found = [f for f in place.loops() if is_thread(f) and f.var in names]
    for f in found:
        if is_block_axis(f.thread):
            raise LowerError(
                f"loop {f.var.name}, bound to {f.thread}, carries the reduction of {as_block(place).name}",
                why="blocks cannot wait for each other",
                hint="bind the reduction to threadIdx, or use rfactor and a second kernel",
            )
    return found


def _split(tree: Tree, place: Place, loops: list[For]) -> PrimFunc:
    block = as_block(place)
    top = reduce_top(place)
    assert top is not None
    stores = _updates(block)
    namer = Namer(tree)
    old = [s.buffer for s in stores]
    part = [Buffer(namer.buffer(f"{b.name}_part"), b.shape, b.dtype, "local") for b in old]
    whole = [Buffer(namer.buffer(f"{b.name}_all"), b.shape, b.dtype, "local") for b in old]
    table = dict(zip(old, part, strict=True))
    first = Block(
        block.name, block.axes, block.bindings, block.predicate,
        None if block.init is None else replace_buffers(block.init, table),
        replace_buffers(block.body, table), block.annotations,
    )  # fmt: skip
    inner, fresh = spatial_copy(place, top, namer, "_all")
    threads = {f.var: Var(namer.loop(f"{f.var.name}_all"), f.var.dtype) for f in loops}
    second = _combining(block, stores, part, whole, fresh, list(threads.values()), namer)
    around = [
        For(threads[f.var], f.min, f.extent, "thread_binding", f.body, {"cooperative": True}, f.thread) for f in loops
    ]
    changed = tree_of(tree.update({place: first}))
    marked = _cooperative(changed, {f.var.name for f in loops})
    outer = marked.loop(as_loop(top).var.name)
    body = marked.replace({outer: seq(outer.stmt, nest(around, nest(inner, second)))})
    for b in reversed([*part, *whole]):
        body = Allocate(b, body)
    func = tree.func
    return PrimFunc(func.name, func.params, _with_allocs(marked, body), func.attrs)


def _cooperative(tree: Tree, names: set[str]) -> Tree:
    """The program with loops marked as shared out among threads, also inside of another loop over their axis."""
    for n in names:
        f = as_loop(tree.loop(n))
        notes = f.annotations.updated(cooperative=True)
        made = For(f.var, f.min, f.extent, f.kind, f.body, notes, f.thread)
        tree = tree_of(tree.update({tree.loop(n): made}))
    return tree


def _with_allocs(tree: Tree, body: Any) -> Stmt:
    for a in reversed(tree.allocs):
        body = Allocate(a.buffer, body, a.annotations)
    return body  # type: ignore[no-any-return]


def _updates(block: Block) -> list[BufferStore]:
    """The stores of an update, with values that a let names put in."""
    body: Any = block.body
    values: dict[Any, Any] = {}
    while isinstance(body, LetStmt):
        values[body.var] = substitute(body.value, values)
        body = body.body
    stores: list[Any] = list(body.stmts) if isinstance(body, SeqStmt) else [body]
    if block.init is None or not all(isinstance(s, BufferStore) for s in stores):
        raise LowerError(
            f"the reduction of {block.name} is bound to threads, but it is no plain update with a start",
            hint="bind it before decompose_reduction, and combine values with a reducer (te.sum, te.comm_reducer)",
        )
    return [BufferStore(s.buffer, substitute(s.value, values), s.indices) for s in stores]


def _combining(
    block: Block, stores: list[BufferStore], part: list[Buffer], whole: list[Buffer], fresh: dict[Var, PrimExpr],
    threads: list[Var], namer: Namer,
) -> Block:  # fmt: skip
    """The block that combines the parts of all threads and stores the result."""
    old = [s.buffer for s in stores]
    x = [Var(f"x{k}", b.dtype) for k, b in enumerate(old)]
    y = [Var(f"y{k}", b.dtype) for k, b in enumerate(old)]
    combined = _combined(block, stores, x, y)
    at = stores[0].indices
    used = binding_vars(block, "reduce")
    kept = substitute(e.land(*[c for c in conjuncts(block.predicate) if not mentions(c, used)]), fresh)
    starts = _updates(block.replace(body=block.init))
    parts = [e.if_then_else(kept, BufferLoad(b, at), s.value) for b, s in zip(part, starts, strict=True)]
    places = [BufferLoad(b, at) for b in whole]
    call = Call("int32", "thread_allreduce", (len(old), *parts, *places, *x, *y, *combined, *threads))
    axes, bindings = [], []
    for a, b in zip(block.axes, block.bindings, strict=True):
        if a.kind != "reduce":
            axes.append(IterVar(a.var, a.extent, a.kind))
            bindings.append(substitute(b, fresh))
    own = seq(*[BufferStore(b, BufferLoad(w, at), at) for b, w in zip(old, whole, strict=True)])
    if not all(is_private(b.scope) for b in old):
        own = IfThenElse(e.land(*[v < 1 for v in threads]), own)
    body = own if isinstance(kept, e.IntImm) else IfThenElse(kept, own)
    return Block(namer.block(f"{block.name}_all"), axes, bindings, True, None, seq(Evaluate(call), body))


def _combined(block: Block, stores: list[BufferStore], x: list[Var], y: list[Var]) -> list[PrimExpr]:
    """The updates as functions of two partial results: the old values are x, the new terms y."""
    mine: dict[Any, Any] = {BufferLoad(s.buffer, s.indices): v for s, v in zip(stores, x, strict=True)}
    values = [rewrite(s.value, lambda n: mine.get(n)) for s in stores]
    terms: dict[Any, Any] = {}
    for value, var in zip(values, y, strict=True):
        found = list(dict.fromkeys(_terms(value, set(x))))
        if len(found) != 1:
            raise _unknown(block)
        terms[found[0]] = var
    values = [rewrite(v, lambda n: terms.get(n)) for v in values]
    axes = {a.var for a in block.axes}
    if any(free_vars(v) & axes or accesses(v)[0] for v in values):
        raise _unknown(block)
    return values


def _terms(value: Any, old: set[Var]) -> list[PrimExpr]:
    """The largest parts of a result that do not depend on the old values; conditions of choices are no results."""
    if isinstance(value, Var | e.IntImm | e.FloatImm) and (value in old or not isinstance(value, Var)):
        return []
    if free_vars(value).isdisjoint(old):
        return [value]
    if isinstance(value, e.Select):
        return [*_terms(value.a, old), *_terms(value.b, old)]
    if isinstance(value, Call) and value.op == "if_then_else":
        return [*_terms(value.args[1], old), *_terms(value.args[2], old)]
    return [t for c in children(value) for t in _terms(c, old)]


def _unknown(block: Block) -> LowerError:
    return LowerError(
        f"the reduction of {block.name} is bound to threads, but two partial results cannot be combined",
        why="its update is not seen to be a function of the old value and one new term",
        hint="reduce with te.sum, te.max, te.min or a te.comm_reducer",
    )
