"""From a tensor-expression DAG to a loop program: one block per operation, naive serial loops, producers first.

def f(A, B, C):
    for i, j, k:
        block C(i, j, k):  init C[i, j] = 0;  C[i, j] = C[i, j] + A[i, k] * B[k, j]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.names import fresh_name
from warpbeam.ir.node import Attrs, Node
from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.te.errors import TEError
from warpbeam.te.operation import (
    ComputeOp,
    ExternOp,
    Operation,
    PlaceholderOp,
    ProducerLoad,
    ScanOp,
    Tensor,
    operations,
)
from warpbeam.te.recurrence import Scan, Time, find_scans
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var, as_expr, cast, const_int, if_then_else, mul
from warpbeam.tir.reducer import Reduce
from warpbeam.tir.stmt import Allocate, Block, BufferStore, For, IterVar, LetStmt, PrimFunc, Stmt, seq
from warpbeam.tir.text.free import free_binders


class Names:
    """Hands out names that are unique within one function: `i`, `i_1`, `i_2`, …"""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)

    def fresh(self, base: str) -> str:
        """`base`, or `base` with the first free number appended; the result is taken from now on."""
        return fresh_name(base, self.taken)


@dataclass(frozen=True, slots=True)
class Conversion:
    """A loop program and where things of the DAG are in it: an operation's block, an axis's loop, a tensor's buffer."""

    func: PrimFunc
    blocks: dict[Operation, str]
    loops: dict[Operation, dict[IterVar, str]]
    buffers: dict[Tensor, Buffer]


def create_prim_func(
    inputs: Sequence[Any],
    outputs: Sequence[Tensor] | None = None,
    name: str = "main",
    args: Sequence[Any] | None = None,
    binds: Mapping[Tensor, Buffer] | None = None,
) -> PrimFunc:
    """The loop program that computes `outputs` from `inputs`.

    Parameters are the inputs, the outputs, then the symbolic sizes in order of first appearance. An input may be the
    result of an operation: the program then starts from it. Intermediate tensors are root allocations of scope
    "global". In the short form `create_prim_func([A, B, C])` placeholders are inputs and the others outputs.
    args: the parameters in their order (tensors, buffers, variables); outputs that are not among them stay inside.
    binds: the buffers to use for some tensors. Raises IRError for a placeholder that is no input and for a reduction
    below other arithmetic.
    """
    return convert(inputs, outputs, name, args, binds).func


def convert(
    inputs: Sequence[Any],
    outputs: Sequence[Tensor] | None = None,
    name: str = "main",
    args: Sequence[Any] | None = None,
    binds: Mapping[Tensor, Buffer] | None = None,
) -> Conversion:
    """`create_prim_func`, telling also what became of operations, axes and tensors."""
    if outputs is None:
        if isinstance(inputs, Tensor) or not isinstance(inputs, Iterable):
            raise TEError(f"create_prim_func takes a list of tensors, not a {type(inputs).__name__}")
        args = list(inputs)
        tensors = [t for t in args if isinstance(t, Tensor)]
        inputs = [t for t in tensors if isinstance(t.op, PlaceholderOp)]
        outputs = [t for t in tensors if not isinstance(t.op, PlaceholderOp)]
    creator = _Creator(list(inputs), list(outputs), name, binds)
    return Conversion(creator.build(args), creator.block_of, creator.loops_of, creator.buffers)


class _Creator:
    """The state of one conversion: tensors to buffers, names handed out."""

    def __init__(
        self, inputs: list[Tensor], outputs: list[Tensor], name: str, binds: Mapping[Tensor, Buffer] | None = None
    ) -> None:
        self.inputs, self.outputs, self.name, self.binds = inputs, outputs, name, dict(binds or {})
        self.order = operations(outputs, inputs)
        self.scans = find_scans(self.order, inputs, outputs)
        self.buffer_names, self.loop_names, self.block_names = Names(), Names(), Names()
        self.buffers: dict[Tensor, Buffer] = {}
        self.params: list[Buffer] = []
        self.inner: list[Buffer] = []
        self.copies: list[tuple[Buffer, Tensor]] = []
        self.block_of: dict[Operation, str] = {}
        self.loops_of: dict[Operation, dict[IterVar, str]] = {}

    def build(self, args: Sequence[Any] | None = None) -> PrimFunc:
        self._make_buffers(args)
        scalars = [a for a in args or () if isinstance(a, Var)]
        sizes = list(dict.fromkeys([*scalars, *self._sizes()]))
        self.loop_names.taken.update(v.name for v in sizes)
        inside = {op for s in self.scans for op in s.inner}
        nests: list[Stmt] = []
        for op in self.order:
            if isinstance(op, ComputeOp) and op not in inside:
                nests.append(self._nest(op))
            elif isinstance(op, ExternOp):
                nests.append(self._extern(op))
            elif isinstance(op, ScanOp):
                nests += self._scan(next(s for s in self.scans if s.op is op))
        nests += [self._copy(dst, src) for dst, src in self.copies]
        body = seq(*nests)
        for buffer in reversed(self.inner):
            body = Allocate(buffer, body)
        params: list[Any] = list(self.params) if args is None else [self._param(a) for a in args]
        params += [v for v in sizes if v not in params]
        func = PrimFunc(self.name, params, body, Attrs({"global_symbol": self.name}))
        if any(isinstance(op, ExternOp) for op in self.order) or not all(b.plain for b in func.buffers):
            more = [b for b in free_binders(func) if isinstance(b, Var)]
            func = PrimFunc(self.name, (*params, *more), body, func.attrs)
        return func

    def _param(self, arg: Any) -> Any:
        if not isinstance(arg, Tensor | Buffer | Var):
            raise TEError(f"{self.name} has the parameter {arg!r}", hint="parameters are tensors, buffers, variables")
        return self.buffers[arg] if isinstance(arg, Tensor) else arg

    def _make_buffers(self, args: Sequence[Any] | None) -> None:
        wanted = None if args is None else {a for a in args if isinstance(a, Tensor | Buffer)}
        for t in self.inputs:
            buffer = self._buffer(t)
            self.params.append(buffer)
            self.buffers.setdefault(t, buffer)
        made = set(self.inputs)
        for t in self.outputs:
            if wanted is not None and t not in wanted and self.binds.get(t) not in wanted:
                continue
            if t in made and wanted is not None:
                continue
            buffer = self._buffer(t)
            self.params.append(buffer)
            if t in made or isinstance(t.op, PlaceholderOp):
                self.copies.append((buffer, t))
            else:
                made.add(t)
                self.buffers[t] = buffer
        shared = {t: out for s in self.scans for t, out in s.shared.items()}
        for op in self.order:
            for k in range(op.num_outputs):
                t = op.output(k)
                if t in self.buffers or t in shared:
                    continue
                if isinstance(op, PlaceholderOp):
                    raise IRError(
                        f"placeholder {t.name} is read by {self.name} but is not among its inputs",
                        hint="add it to the inputs of create_prim_func",
                    )
                self.buffers[t] = self._buffer(t)
                self.inner.append(self.buffers[t])
        self.buffers.update({t: self.buffers[out] for t, out in shared.items()})

    def _buffer(self, t: Tensor) -> Buffer:
        bound = self.binds.get(t)
        if bound is not None:
            self.buffer_names.taken.add(bound.name)
            return bound
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

    def _nest(self, op: ComputeOp, time: Time | None = None) -> Stmt:
        targets = [self.buffers[op.output(k)] for k in range(op.num_outputs)]
        index = tuple(a.var for a in op.axis)
        init: Stmt | None = None
        if isinstance(op.body[0], Reduce):
            init, values = self._reduction(op, targets, index)
        else:
            values = [rewrite(b, self._load) for b in op.body]
        return self._loops(op, op.name, (*op.axis, *op.reduce_axis), init, _stores(targets, values, index), time)

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

    def _copy(self, dst: Buffer, src: Tensor, name: str = "", time: Any = None) -> Stmt:
        axes = tuple(IterVar(Var(f"i{k}"), d) for k, d in enumerate(src.shape))
        index = tuple(a.var for a in axes)
        body = BufferStore(dst, BufferLoad(self.buffers[src], index), index)
        at = None if time is None else Time(axes[0], *time)
        return self._loops(None, name or f"{src.name}_copy", axes, None, body, at)

    def _extern(self, op: ExternOp) -> Stmt:
        mapping: dict[Any, Any] = dict(zip(op.input_placeholders, (self.buffers[t] for t in op.inputs), strict=True))
        for k, b in enumerate(op.output_placeholders):
            mapping[b] = self.buffers[op.output(k)]
        for declared, real in list(mapping.items()):
            mapping.update(_place_of(declared, real))
        name = self.block_of[op] = self.block_names.fresh(op.name)
        self.loops_of[op] = {}
        return Block(name, (), (), True, None, substitute(op.body, mapping))

    def _scan(self, scan: Scan) -> list[Stmt]:
        """The states' first rows where they are copied, and the loop over time with all that happens in it."""
        op, axis = scan.op, scan.op.scan_axis
        starts = [self._copy(self.buffers[op.output(k)], op.init[k], f"{op.name}_init") for k in scan.copied_init]
        at = Var(self.loop_names.fresh(axis.name))
        self.loops_of[op] = {axis: at.name}
        body = [self._nest(i, Time(scan.times[i], at, axis, scan.offsets[i])) for i in scan.inner]
        for k in scan.copied_update:
            body.append(self._copy(self.buffers[op.output(k)], op.update[k], f"{op.name}_update", (at, axis)))
        return [*starts, For(at, 0, axis.extent, "serial", seq(*body))]

    def _loops(
        self,
        op: Operation | None,
        name: str,
        axes: tuple[IterVar, ...],
        init: Stmt | None,
        body: Stmt,
        time: Time | None = None,
    ) -> Stmt:
        """Serial loops over the axes around one block; the axis of `time` is led by a loop that is already there."""
        shift: dict[Any, Any] = {}
        own: list[IterVar] = []
        for a in axes:
            if time is not None and a is time.axis:
                shift[a.var] = a.var + (time.span.start + time.offset)
                a = IterVar(a.var, time.span.extent, "ordered")
            elif const_int(a.start) != 0:
                shift[a.var] = a.var + a.start
                a = IterVar(a.var, a.extent, a.kind)
            own.append(a)
        if shift:
            body = simplify(substitute(body, shift))
            init = None if init is None else simplify(substitute(init, shift))
        led = None if time is None else time.loop
        loops = [led if led is not None and time is not None and a is time.axis else self._loop_var(a) for a in axes]
        block = self.block_names.fresh(name)
        if op is not None:
            self.block_of[op] = block
            self.loops_of[op] = {a: v.name for a, v in zip(axes, loops, strict=True)}
        # a tag is a hint to who schedules the tensors
        notes = Attrs({k: v for k, v in getattr(op, "attrs", Attrs()).items() if k != "tag"})
        stmt: Stmt = Block(block, own, loops, True, init, body, notes)
        for a, v in zip(reversed(own), reversed(loops), strict=True):
            if v is not led:
                stmt = For(v, 0, a.extent, "serial", stmt)
        return stmt

    def _loop_var(self, axis: IterVar) -> Var:
        return Var(self.loop_names.fresh(axis.name), axis.dtype)


def _place_of(declared: Buffer, real: Buffer) -> dict[Any, Any]:
    """Values of the variables by which a declared buffer leaves open where it lies."""
    steps: list[Any] = [1]
    for d in reversed(real.shape[1:]):
        steps.insert(0, mul(d, steps[0]))
    known = [*zip(declared.shape, real.shape), *zip(declared.strides, real.strides or steps)]
    known.append((declared.elem_offset, real.elem_offset))
    return {v: as_expr(x) for v, x in known if isinstance(v, Var) and v is not x}


def _stores(targets: list[Buffer], values: list[PrimExpr], index: tuple[Var, ...]) -> Stmt:
    """Stores of all values; several are computed before the first is stored, since they may read the old ones."""
    if len(targets) == 1:
        return BufferStore(targets[0], values[0], index)
    held = [Var(f"{t.name}_new", v.dtype) for t, v in zip(targets, values, strict=True)]
    stmt = seq(*[BufferStore(t, v, index) for t, v in zip(targets, held, strict=True)])
    for v, value in zip(reversed(held), reversed(values), strict=True):
        stmt = LetStmt(v, value, stmt)
    return stmt
