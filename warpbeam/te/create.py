"""From a tensor-expression DAG to a loop program: one block per operation, naive serial loops, producers first.

def f(A, B, C):
    for i, j, k:
        block C(i, j, k):  init C[i, j] = 0;  C[i, j] = C[i, j] + A[i, k] * B[k, j]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Attrs, Node
from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.te.tensor import ComputeOp, Operation, ProducerLoad, Reduce, Tensor
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var, cast, if_then_else
from warpbeam.tir.stmt import Allocate, Block, BufferStore, For, IterVar, LetStmt, PrimFunc, Stmt, seq


class Names:
    """Hands out names that are unique within one function: `i`, `i_1`, `i_2`, …"""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)

    def fresh(self, base: str) -> str:
        """`base`, or `base` with the first free number appended; the result is taken from now on."""
        name, count = base, 0
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name


def create_prim_func(inputs: Sequence[Tensor], outputs: Sequence[Tensor], name: str = "main") -> PrimFunc:
    """The loop program that computes `outputs` from `inputs`.

    Parameters are the inputs, the outputs, then the symbolic sizes in order of first appearance. An input may be the
    result of an operation: the program then starts from it. Intermediate tensors are root allocations of scope
    "global". Raises IRError for a placeholder that is no input and for a reduction below other arithmetic.
    """
    return _Creator(list(inputs), list(outputs), name).build()


class _Creator:
    """The state of one conversion: tensors to buffers, names handed out."""

    def __init__(self, inputs: list[Tensor], outputs: list[Tensor], name: str) -> None:
        self.inputs, self.outputs, self.name = inputs, outputs, name
        self.order = _operations(inputs, outputs)
        self.buffer_names, self.loop_names, self.block_names = Names(), Names(), Names()
        self.buffers: dict[Tensor, Buffer] = {}
        self.params: list[Buffer] = []
        self.inner: list[Buffer] = []
        self.copies: list[tuple[Buffer, Tensor]] = []

    def build(self) -> PrimFunc:
        self._make_buffers()
        sizes = self._sizes()
        self.loop_names.taken.update(v.name for v in sizes)
        nests = [self._nest(op) for op in self.order if isinstance(op, ComputeOp)]
        nests += [self._copy(dst, src) for dst, src in self.copies]
        body = seq(*nests)
        for buffer in reversed(self.inner):
            body = Allocate(buffer, body)
        return PrimFunc(self.name, (*self.params, *sizes), body, Attrs({"global_symbol": self.name}))

    def _make_buffers(self) -> None:
        for t in self.inputs:
            buffer = self._buffer(t)
            self.params.append(buffer)
            self.buffers.setdefault(t, buffer)
        made = set(self.inputs)
        for t in self.outputs:
            buffer = self._buffer(t)
            self.params.append(buffer)
            if t in made or not isinstance(t.op, ComputeOp):
                self.copies.append((buffer, t))
            else:
                made.add(t)
                self.buffers[t] = buffer
        for op in self.order:
            for t in _results(op):
                if t not in self.buffers:
                    if not isinstance(op, ComputeOp):
                        raise IRError(
                            f"placeholder {t.name} is read by {self.name} but is not among its inputs",
                            hint="add it to the inputs of create_prim_func",
                        )
                    self.buffers[t] = self._buffer(t)
                    self.inner.append(self.buffers[t])

    def _buffer(self, t: Tensor) -> Buffer:
        return Buffer(self.buffer_names.fresh(t.name), t.shape, t.dtype, "global")

    def _sizes(self) -> list[Var]:
        """Free variables of shapes, then of bodies, in order of first appearance."""
        found: dict[Var, None] = {}
        bound: set[Node] = set()
        for t in [*self.inputs, *self.outputs]:
            for dim in t.shape:
                if isinstance(dim, PrimExpr):
                    found.update(dict.fromkeys(n for n in post_order(dim) if isinstance(n, Var)))
        for op in self.order:
            if isinstance(op, ComputeOp):
                bound.update(a.var for a in (*op.axis, *op.reduce_axis))
                for body in op.body:
                    if isinstance(body, Reduce):
                        bound.update((*body.combiner.lhs, *body.combiner.rhs))
                roots = [*(a.extent for a in op.axis), *op.body]
                found.update(dict.fromkeys(n for n in post_order(*roots) if isinstance(n, Var)))
        return [v for v in found if v not in bound]

    def _load(self, node: Node) -> Node | None:
        if isinstance(node, ProducerLoad):
            return BufferLoad(self.buffers[node.tensor], tuple(cast("int64", i) for i in node.indices))
        if isinstance(node, Reduce):
            raise IRError(
                f"a reduction below other arithmetic in {self.name}",
                hint="make the reduction a te.compute of its own and use its tensor",
            )
        return None

    def _nest(self, op: ComputeOp) -> Stmt:
        targets = [self.buffers[t] for t in _results(op)]
        index = tuple(a.var for a in op.axis)
        if isinstance(op.body[0], Reduce):
            init, values = self._reduction(op, targets, index)
        else:
            init, values = None, [rewrite(b, self._load) for b in op.body]
        body = _stores(targets, values, index)
        axes = (*op.axis, *op.reduce_axis)
        notes = Attrs({k: v for k, v in op.attrs.items() if k != "tag"})  # a tag is a hint to who schedules the tensors
        return self._loops(self.block_names.fresh(op.name), axes, init, body, notes)

    def _reduction(self, op: ComputeOp, targets: list[Buffer], index: tuple[Var, ...]) -> tuple[Stmt, list[PrimExpr]]:
        bodies = [b for b in op.body if isinstance(b, Reduce)]
        first = bodies[0]
        combiner = first.combiner
        if len(bodies) < len(op.body) or any(b.combiner is not combiner or b.source != first.source for b in bodies):
            raise IRError(f"the outputs of {op.name} are not the values of one reduction", hint="split the compute")
        by_value = {b.value_index: t for t, b in zip(targets, bodies, strict=True)}
        if set(by_value) != set(range(len(combiner.lhs))):
            raise IRError(f"{op.name} stores only a part of its reduction's values", hint="keep all of the tuple")
        start = first.init or combiner.identity
        init = seq(*[BufferStore(t, rewrite(start[k], self._load), index) for k, t in by_value.items()])
        memo: dict[Any, Any] = {}
        where = rewrite(first.condition, self._load)
        for k, (lhs, rhs) in enumerate(zip(combiner.lhs, combiner.rhs, strict=True)):
            memo[lhs] = BufferLoad(by_value[k], index)
            memo[rhs] = if_then_else(where, rewrite(first.source[k], self._load), combiner.identity[k])
        return init, [substitute(combiner.result[b.value_index], memo) for b in bodies]

    def _copy(self, dst: Buffer, src: Tensor) -> Stmt:
        axes = tuple(IterVar(Var(f"i{k}"), d) for k, d in enumerate(dst.shape))
        index = tuple(a.var for a in axes)
        body = BufferStore(dst, BufferLoad(self.buffers[src], index), index)
        return self._loops(self.block_names.fresh(f"{src.name}_copy"), axes, None, body, Attrs())

    def _loops(self, name: str, axes: tuple[IterVar, ...], init: Stmt | None, body: Stmt, attrs: Attrs) -> Stmt:
        loop_vars = tuple(Var(self.loop_names.fresh(a.var.name), a.var.dtype) for a in axes)
        stmt: Stmt = Block(name, axes, loop_vars, True, init, body, attrs)
        for a, v in zip(reversed(axes), reversed(loop_vars), strict=True):
            stmt = For(v, 0, a.extent, "serial", stmt)
        return stmt


def _operations(inputs: list[Tensor], outputs: list[Tensor]) -> list[Operation]:
    """Operations between inputs (excluded when all their tensors are inputs) and outputs, producers first."""
    given = set(inputs)
    order: list[Operation] = []
    seen: set[Operation] = set()
    stack: list[tuple[Operation, bool]] = [(t.op, False) for t in reversed(outputs) if t not in given]
    while stack:
        op, done = stack.pop()
        if done:
            order.append(op)
        elif op not in seen:
            seen.add(op)
            stack.append((op, True))
            stack.extend((t.op, False) for t in reversed(op.input_tensors) if t not in given and t.op not in seen)
    return order


def _results(op: Operation) -> list[Tensor]:
    count = len(op.body) if isinstance(op, ComputeOp) else 1
    return [op.output(i) for i in range(count)]


def _stores(targets: list[Buffer], values: list[PrimExpr], index: tuple[Var, ...]) -> Stmt:
    """Stores of all values; several are computed before the first is stored, since they may read the old ones."""
    if len(targets) == 1:
        return BufferStore(targets[0], values[0], index)
    held = [Var(f"{t.name}_new", v.dtype) for t, v in zip(targets, values, strict=True)]
    stmt = seq(*[BufferStore(t, v, index) for t, v in zip(targets, held, strict=True)])
    for v, value in zip(reversed(held), reversed(values), strict=True):
        stmt = LetStmt(v, value, stmt)
    return stmt
