"""Takes an axis apart whose quotient is what an operand is read by, so that sketches see a batch of contractions.

A convolution in groups computes out[p, c] from x[p + k, c // 48 * 48 + i] and w[k, i, c]: the axis c is in both
operands, so neither of them is the one that a tile broadcasts. As out[p, g, o] from x[p + k, g * 48 + i] and
w[k, i, g, o] it is a contraction per g. All stages that walk the axis in step are taken apart with it, and the tensors
between them. Memory does not change: tensors are compact, so [a*b] and [a, b] are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.sketch.collapse import readers_of
from warpbeam.te.tensor import ComputeOp, Operation, PlaceholderOp, ProducerLoad, Tensor, loads, operations
from warpbeam.tir.arith import Facts, simplify
from warpbeam.tir.expr import FloorDiv, PrimExpr, Var, as_expr, const_int
from warpbeam.tir.stmt import IterVar

LEAST = 3  # neighbours that are worth a vector
_WHOLE = 16  # results of one channel that are a vector by themselves


def divide(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """(inputs, outputs) of the same computation with such axes of its sums taken apart; inputs keep their order."""
    ins, outs = list(inputs), list(outputs)
    while True:
        found = _first(outs)
        if found is None:
            return ins, outs
        ins, outs = _taken_apart(ins, outs, *found)


def _first(outputs: Sequence[Tensor]) -> tuple[dict[Operation, int], int] | None:
    """The dimensions to take apart, by operation, and the size of the inner part; None where there are none."""
    for op in operations(list(outputs)):
        if not isinstance(op, ComputeOp) or not op.reduce_axis:
            continue
        for k, axis in enumerate(op.axis):
            size = _divisor(op, axis)
            if size is not None:
                at = _in_step(outputs, op, k)
                if at is not None:
                    return at, size
    return None


def _divisor(op: ComputeOp, axis: IterVar) -> int | None:
    """The constant by which an operand's index divides an axis that another operand is read by as it is."""
    extent, sizes, plain, summed = const_int(axis.extent), set(), False, False
    reduced = {a.var for a in op.reduce_axis}
    for load in loads(op):
        for index in load.indices:
            plain = plain or index is axis.var
            found = {const_int(n.b) for n in post_order(index) if isinstance(n, FloorDiv) and n.a is axis.var}
            sizes |= found
            summed = summed or (bool(found) and bool(reduced & {*post_order(index)}))
    size = sizes.pop() if len(sizes) == 1 else None
    if size is None or extent is None or not plain or (not summed and size < _WHOLE):  # several results of one channel
        return None
    return size if LEAST <= size < extent and extent % size == 0 else None


def _in_step(outputs: Sequence[Tensor], op: ComputeOp, axis: int) -> dict[Operation, int] | None:
    """Every operation with the dimension that must be taken apart with an axis of one; None where one cannot be."""
    at: dict[Operation, int] = {}
    readers, work = readers_of(outputs), [(op, axis)]
    while work:
        one, k = work.pop()
        if one in at:
            if at[one] != k:
                return None
            continue
        at[one] = k
        if isinstance(one, ComputeOp):
            var = one.axis[k].var
            work += [(x.tensor.op, d) for x in loads(one) for d, index in enumerate(x.indices) if index is var]
        for reader in readers.get(one, ()):
            own = [a.var for a in reader.axis]
            for index in (x.indices[k] for x in loads(reader) if x.tensor.op is one):
                if index not in own:
                    return None
                work.append((reader, own.index(index)))
    return at


def _taken_apart(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], at: dict[Operation, int], size: int
) -> tuple[list[Tensor], list[Tensor]]:
    new: dict[Operation, Operation] = {}
    for op in dict.fromkeys([t.op for t in inputs] + operations(list(outputs))):
        if isinstance(op, ComputeOp):
            new[op] = _rebuilt(op, at, size, new)
        elif isinstance(op, PlaceholderOp) and op in at:
            k = at[op]
            count = const_int(op.shape[k])
            assert count is not None
            new[op] = PlaceholderOp(op.name, (*op.shape[:k], count // size, size, *op.shape[k + 1 :]), op.dtype)
        else:
            new[op] = op
    return [new[t.op].output(t.index) for t in inputs], [new[t.op].output(t.index) for t in outputs]


def _rebuilt(op: ComputeOp, at: dict[Operation, int], size: int, new: dict[Operation, Operation]) -> Operation:
    """A stage over new operands, with its own axis taken apart where it is one of those."""
    axes, facts, parts, whole = list(op.axis), Facts(), {}, {}
    for a in (*op.axis, *op.reduce_axis):
        facts.bind(a.var, 0, a.extent)
    if op in at:
        old = axes[at[op]]
        outer, inner = Var(f"{old.var.name}_o", old.var.dtype), Var(f"{old.var.name}_i", old.var.dtype)
        count = const_int(old.extent)
        assert count is not None
        axes[at[op] : at[op] + 1] = [IterVar(outer, as_expr(count // size)), IterVar(inner, as_expr(size))]
        facts.bind(outer, 0, count // size)
        facts.bind(inner, 0, size)
        parts, whole = {old.var: (outer, inner)}, {old.var: outer * size + inner}

    def step(node: Any) -> Any:
        if not isinstance(node, ProducerLoad):
            return None
        indices: list[PrimExpr] = []
        for k, index in enumerate(node.indices):
            if at.get(node.tensor.op) == k:
                indices += parts[index]
            else:
                changed = substitute(index, whole)
                indices.append(index if changed is index else simplify(changed, facts))
        return ProducerLoad(new[node.tensor.op].output(node.tensor.index), tuple(indices))

    bodies = tuple(substitute(rewrite(b, step), whole) for b in op.body)
    return ComputeOp(op.name, tuple(axes), bodies, op.attrs)  # type: ignore[no-any-return]
