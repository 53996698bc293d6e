"""What belongs into the time loop of a scan: the operations between its state and its update, and their time axes."""

from __future__ import annotations

from dataclasses import dataclass, field

from warpbeam.te.errors import TEError
from warpbeam.te.operation import ComputeOp, Operation, ScanOp, Tensor, loads
from warpbeam.tir.expr import Add, PrimExpr, Sub, Var, const_int
from warpbeam.tir.stmt import IterVar


@dataclass(frozen=True, slots=True)
class Time:
    """`axis` of a computation is the time: led by the loop `loop`, over the range of `span`, `offset` steps later."""

    axis: IterVar
    loop: Var
    span: IterVar
    offset: int = 0


@dataclass(slots=True)
class Scan:
    """A scan of a program.

    inner: operations inside the time loop, producers first; times: their time axes; offsets: how many steps apart from
    the update's time they are read (a copy of the state at t - 1: -1). shared: tensors that live in a
    state's buffer (its placeholder, and init and update where nothing else needs them elsewhere), each with the scan's
    output; copied_init, copied_update: states whose rows are copied instead.
    """

    op: ScanOp
    inner: list[ComputeOp] = field(default_factory=list)
    times: dict[Operation, IterVar] = field(default_factory=dict)
    offsets: dict[Operation, int] = field(default_factory=dict)
    shared: dict[Tensor, Tensor] = field(default_factory=dict)
    copied_init: list[int] = field(default_factory=list)
    copied_update: list[int] = field(default_factory=list)


def find_scans(order: list[Operation], inputs: list[Tensor], outputs: list[Tensor]) -> list[Scan]:
    """The scans of a program whose operations stand in `order`, producers first."""
    found: list[Scan] = []
    taken: set[Tensor] = {*inputs, *outputs}
    given = {t.op for t in inputs}
    for op in order:
        if isinstance(op, ScanOp):
            scan = Scan(op)
            scan.inner = _inner(op, order, given)
            scan.times, scan.offsets = _times(scan)
            _share(scan, taken)
            found.append(scan)
    return found


def _inner(op: ScanOp, order: list[Operation], given: set[Operation]) -> list[ComputeOp]:
    below: set[Operation] = {t.op for t in op.state_placeholder}
    steps = {t.op for t in op.update}
    inner: list[ComputeOp] = []
    for o in order:
        if o is op:
            break
        depends = any(t.op in below for t in o.input_tensors)
        if not depends and not (o in steps and o not in given):
            continue
        if not isinstance(o, ComputeOp):
            raise TEError(
                f"{type(o).__name__} {o.name} depends on the state of scan {op.name}",
                hint="between a scan's state and its update there are te.compute operations only",
            )
        below.add(o)
        inner.append(o)
    return inner


def _times(scan: Scan) -> tuple[dict[Operation, IterVar], dict[Operation, int]]:
    """The axis of each inner operation that moves with time: what its readers index with their own time, a constant
    number of steps apart."""
    times: dict[Operation, IterVar] = {t.op: t.op.axis[0] for t in scan.op.update if isinstance(t.op, ComputeOp)}
    offsets: dict[Operation, int] = dict.fromkeys(times, 0)
    choice: dict[Operation, set[tuple[int, int]]] = {}
    inner = set(scan.inner)
    for op in reversed(scan.inner):
        if op not in times:
            dims = choice.get(op)
            if not dims:
                raise TEError(
                    f"{op.name} depends on the state of scan {scan.op.name} but has no axis of time",
                    why="its readers inside the scan do not index one of its dimensions with their own time axis",
                    hint="give it the time as its first dimension and read it at [t, ...]",
                )
            dim, offsets[op] = min(dims)
            times[op] = op.axis[dim]
        time = times[op].var
        for read in loads(op):
            producer = read.tensor.op
            if producer in inner:
                apart = [(d, _steps(i, time)) for d, i in enumerate(read.indices)]
                at = {(d, offsets[op] + c) for d, c in apart if c is not None}
                choice[producer] = choice.get(producer, at) & at
    return times, offsets


def _steps(index: PrimExpr, time: Var) -> int | None:
    """The constant that an index adds to the time; None where it is something else."""
    if index is time:
        return 0
    if isinstance(index, Add | Sub) and index.a is time:
        step = const_int(index.b)
        return None if step is None else step if isinstance(index, Add) else -step
    return None


def _share(scan: Scan, taken: set[Tensor]) -> None:
    op = scan.op
    for k, state in enumerate(op.state_placeholder):
        out = op.output(k)
        scan.shared[state] = out
        for t, copied, fits in (
            (op.init[k], scan.copied_init, isinstance(op.init[k].op, ComputeOp) and op.init[k].op not in scan.inner),
            (op.update[k], scan.copied_update, op.update[k].op in scan.inner),
        ):
            if fits and t not in taken:
                taken.add(t)
                scan.shared[t] = out
            else:
                copied.append(k)
