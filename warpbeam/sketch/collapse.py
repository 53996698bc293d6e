"""Joins neighbouring axes that the whole group walks in step, so that kernels see long loops: [1, 56, 56, 64] 1x1 ->
[3136, 64].

Two adjacent axes x, y of an output may become one when every read that uses them does so as adjacent indices [.., x,
y, ..] of
a tensor whose dimension under y is y's extent, and the stages that define those tensors may join the same axes. So may
two adjacent axes of a reduction. Memory does not change: tensors are compact, so [a, b] and [a*b] are the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.te.tensor import ComputeOp, Operation, PlaceholderOp, ProducerLoad, Reduce, Tensor, operations
from warpbeam.tir.expr import IntImm, PrimExpr, Var, as_expr, select, simplify_dim
from warpbeam.tir.stmt import IterVar

Pair = tuple[Operation, int]


def drop_units(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Removes dimensions of size 1 from every tensor and axes of extent 1 from every stage. What reduces one
    element is that element, combined with its start.
    """
    new: dict[Operation, Operation] = {}
    for op in dict.fromkeys([t.op for t in inputs] + operations(list(outputs))):
        if isinstance(op, PlaceholderOp):
            shape = tuple(d for d in op.shape if not _is_one(d))
            new[op] = op if len(shape) == len(op.shape) else PlaceholderOp(op.name, shape, op.dtype)
        else:
            assert isinstance(op, ComputeOp)
            new[op] = _without_units(op, new)
    return [new[t.op].output(t.index) for t in inputs], [new[t.op].output(t.index) for t in outputs]


def _is_one(dim: Any) -> bool:
    return (dim.value if isinstance(dim, IntImm) else dim) == 1 if isinstance(dim, IntImm | int) else False


def _without_units(op: ComputeOp, new: dict[Operation, Operation]) -> ComputeOp:
    drop = [a for a in op.reduce_axis if _is_one(a.extent)]
    gone = [a for a in op.axis if _is_one(a.extent)] + drop
    if not gone and all(new[t.op] is t.op for t in op.input_tensors):
        return op

    def step(node: Any) -> Any:
        if isinstance(node, Reduce) and drop:
            kept = tuple(a for a in node.axis if a not in drop)
            if not kept:
                return _of_one(node)
            return Reduce(node.combiner, node.source, kept, node.condition, node.value_index, node.init)
        if isinstance(node, ProducerLoad):
            dims = zip(node.indices, node.tensor.shape, strict=True)
            indices = tuple(_add_zero(i) for i, d in dims if not _is_one(d))
            return ProducerLoad(new[node.tensor.op].output(node.tensor.index), indices)
        return None

    memo: dict[Any, Any] = {a.var: as_expr(0, a.var.dtype) for a in gone}
    memo.update({a: a for a in op.reduce_axis})
    bodies = tuple(rewrite(b, step, dict(memo)) for b in op.body)
    axes = tuple(a for a in op.axis if not _is_one(a.extent))
    return ComputeOp(op.name, axes, bodies, op.attrs)  # type: ignore[no-any-return]


def _of_one(reduction: Reduce) -> PrimExpr:
    """The value of a reduction over one element."""
    r, k = reduction.combiner, reduction.value_index
    start = reduction.init or r.identity
    combined = substitute(
        r.result[k], {**dict(zip(r.lhs, start, strict=True)), **dict(zip(r.rhs, reduction.source, strict=True))}
    )
    return select(reduction.condition, combined, start[k])


def _add_zero(index: PrimExpr) -> PrimExpr:
    from warpbeam.tir.arith import simplify

    return index if isinstance(index, Var | IntImm) else simplify(index)


def collapse(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """(inputs, outputs) of the same computation with as few axes as possible; inputs keep their order."""
    if any(not isinstance(op, ComputeOp | PlaceholderOp) for op in operations(list(outputs))):
        return list(inputs), list(outputs)
    ins, outs = drop_units(inputs, outputs)
    while True:
        pairs = next((p for start in _starts(outs) if (p := _joinable(outs, start))), None)
        if pairs is None:
            return ins, outs
        ins, outs = _join(ins, outs, pairs)


def _starts(outputs: Sequence[Tensor]) -> Iterator[list[Pair]]:
    """What may be joined: an axis of all outputs with the next, or of one reduction. Axes of a reduction count on from
    those of its result.
    """
    for axis in range(max((len(t.shape) for t in outputs), default=0) - 1):
        if all(len(t.shape) == len(outputs[0].shape) for t in outputs):
            yield [(t.op, axis) for t in outputs]
    for op in operations(list(outputs)):
        if isinstance(op, ComputeOp):
            yield from ([(op, len(op.axis) + k)] for k in range(len(op.reduce_axis) - 1))


def _joinable(outputs: Sequence[Tensor], start: list[Pair]) -> set[Pair] | None:
    """Every (operation, axis) that must join its axis with the next for those of `start` to do so; None if one may not.
    Of the outputs all do, or none.
    """
    need: set[Pair] = set()
    work = list(start)
    out_ops = {t.op for t in outputs}
    readers = readers_of(outputs)
    while work:
        op, at = work.pop()
        if (op, at) in need:
            continue
        need.add((op, at))
        if isinstance(op, ComputeOp):
            found = _pairs_read(op, at)
            if found is None:
                return None
            work.extend(found)
        for user in readers.get(op, ()) if at + 1 < _rank(op) else ():
            up = _pair_in_reader(user, op, at)
            if up is None:
                return None
            if isinstance(up, int):
                work.append((user, up))
    touched = {op for op, _ in need}
    joined = out_ops & {op for op, at in need if at + 1 < _rank(op)}
    return need if joined in (set(), out_ops) and len(touched) == len(need) else None


def _rank(op: Any) -> int:
    """Dimensions of an operation's result."""
    return len(op.axis) if isinstance(op, ComputeOp) else len(op.shape)


def _axes(op: ComputeOp) -> list[IterVar]:
    """Axes of the result, then of the reduction."""
    return [*op.axis, *op.reduce_axis]


def readers_of(outputs: Sequence[Tensor]) -> dict[Operation, list[ComputeOp]]:
    """The stages that read each operation's result."""
    table: dict[Operation, list[ComputeOp]] = {}
    for op in operations(list(outputs)):
        if isinstance(op, ComputeOp):
            for t in op.input_tensors:
                if op not in table.setdefault(t.op, []):
                    table[t.op].append(op)
    return table


def _loads(op: ComputeOp) -> list[ProducerLoad]:
    return [n for n in post_order(*op.body) if isinstance(n, ProducerLoad)]


def _uses(expr: PrimExpr, *variables: Var) -> bool:
    return any(n in variables for n in post_order(expr) if isinstance(n, Var))


def _pairs_read(op: ComputeOp, at: int) -> list[Pair] | None:
    """Operand pairs that a stage reads with axes (at, at+1); None when it uses them in any other way."""
    axes = _axes(op)
    if at + 1 >= len(axes) or at + 1 == len(op.axis):
        return None
    x, y, ext = axes[at].var, axes[at + 1].var, axes[at + 1].extent
    found: list[Pair] = []
    inside: set[int] = set()
    for load in _loads(op):
        hit = [k for k, i in enumerate(load.indices) if _uses(i, x, y)]
        inside.update(id(load.indices[k]) for k in hit)
        if not hit:
            continue
        k = hit[0]
        exact = len(hit) == 2 and hit[1] == k + 1 and load.indices[k] is x and load.indices[k + 1] is y
        if not exact or as_expr(load.tensor.shape[k + 1], "int64") is not ext:
            return None
        found.append((load.tensor.op, k))
    return None if _used_outside(op, x, y) else found


def _used_outside(op: ComputeOp, x: Var, y: Var) -> bool:
    """Whether x or y occur other than as a read's index (in a condition or as a value), or as an axis."""
    inside = post_order(*op.body, enter=lambda n: not isinstance(n, ProducerLoad | IterVar))
    return any(node is x or node is y for node in inside)


def _pair_in_reader(user: ComputeOp, op: Operation, at: int) -> int | bool | None:
    """Axis of `user` that reads (at, at+1) of `op` in step; True when it reads them at 0 each; None if neither."""
    axes = [a.var for a in _axes(user)]
    result: int | bool | None = None
    for load in _loads(user):
        if load.tensor.op is not op:
            continue
        i, j = load.indices[at], load.indices[at + 1]
        if i not in axes or j not in axes:
            return None
        p, q = axes.index(i), axes.index(j)
        if q != p + 1 or q == len(user.axis) or (result is not None and result != p):
            return None
        result = p
    return True if result is None else result


def _join(inputs: Sequence[Tensor], outputs: Sequence[Tensor], pairs: set[Pair]) -> tuple[list[Tensor], list[Tensor]]:
    at = dict(pairs)
    read = {op: k for op, k in at.items() if k + 1 < _rank(op)}
    new: dict[Operation, Operation] = {}
    for op in dict.fromkeys([t.op for t in inputs] + operations(list(outputs))):
        if op not in at:
            new[op] = op if isinstance(op, PlaceholderOp) else _rebuilt(op, None, new, read)
        elif isinstance(op, PlaceholderOp):
            k = at[op]
            joined = (*op.shape[:k], simplify_dim(as_expr(op.shape[k]) * op.shape[k + 1]), *op.shape[k + 2 :])
            new[op] = PlaceholderOp(op.name, joined, op.dtype)
        else:
            new[op] = _rebuilt(op, at[op], new, read)
    return [new[t.op].output(t.index) for t in inputs], [new[t.op].output(t.index) for t in outputs]


def _rebuilt(op: Any, at: int | None, new: dict[Operation, Operation], joined: dict[Operation, int]) -> Operation:
    """A stage over new operands, with its own axes (at, at+1) joined."""
    axes, rank = _axes(op), len(op.axis)
    fused: Var | None = None
    if at is not None:
        x, y = axes[at], axes[at + 1]
        fused = Var(f"{x.var.name}_{y.var.name}")
        axes[at : at + 2] = [IterVar(fused, x.extent * y.extent, x.kind)]
        rank -= at < rank

    def step(node: Any) -> Any:
        if isinstance(node, Reduce):
            return Reduce(node.combiner, node.source, tuple(axes[rank:]), node.condition, node.value_index, node.init)
        if not isinstance(node, ProducerLoad):
            return None
        target = new[node.tensor.op].output(node.tensor.index)
        k = joined.get(node.tensor.op)
        indices = node.indices if k is None else (*node.indices[:k], _one(node, k, fused), *node.indices[k + 2 :])
        return ProducerLoad(target, indices)

    bodies = tuple(rewrite(b, step) for b in op.body)
    return ComputeOp(op.name, tuple(axes[:rank]), bodies, op.attrs)  # type: ignore[no-any-return]


def _one(load: ProducerLoad, k: int, fused: Var | None) -> PrimExpr:
    """The index of a joined dimension: the fused axis."""
    assert fused is not None, f"read of {load.tensor.name} joins axes its reader does not have"
    return fused
