"""From fused groups to kernels: every distinct computation is scheduled and lowered once.

Two groups with the same computation, types and constness of operands share one kernel; its symbol is named by a
digest of that
computation, so that names, caches and artefacts do not depend on the order of work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from warpbeam import te
from warpbeam.ir import budget
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.structural import structural_hash
from warpbeam.relay.expr import Call, Constant, Expr, Function, Tuple, TupleGetItem
from warpbeam.relay.infer_dims import dim_vars
from warpbeam.relay.op import Op
from warpbeam.sketch.base import Plan
from warpbeam.sketch.select import schedule, variant
from warpbeam.target import Target
from warpbeam.te.create import create_prim_func
from warpbeam.tir.analysis.overwrite import may_overwrite, overwriting
from warpbeam.tir.expr import Buffer, Var
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.schedule.partition import replace_buffers
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform import lower
from warpbeam.tir.transform.remove_no_op import remove_no_op
from warpbeam.tir.transform.widen_buffer import widen_buffer
from warpbeam.topi.dims import is_counted, is_positive, told_of
from warpbeam.transform.fuse_ops import group_tensors

if TYPE_CHECKING:
    from warpbeam.driver.schedulers import Ahead, Job

_PARALLEL_BYTES = 1 << 16
_KEPT = 1024
_SHARED: ContextVar[dict[Any, Kernel] | None] = ContextVar("shared_kernels", default=None)


@dataclass(slots=True)
class Kernel:
    """One compiled computation.

    func: lowered loop program. inputs, outputs: number of buffer parameters that are operands and results; the
    buffers after
    these are workspaces. sizes: symbolic sizes of the function it was built from. layouts: operand number -> layout
    that the kernel expects of a constant operand.
    """

    symbol: str
    func: PrimFunc
    inputs: int
    outputs: int
    plan: Plan
    layouts: dict[int, Any] = field(default_factory=dict)
    flops: Any = 0
    sizes: tuple[Var, ...] = ()
    over: tuple[tuple[int, int], ...] = ()

    @property
    def workspaces(self) -> list[Buffer]:
        return list(self.func.buffers[self.inputs + self.outputs :])

    @property
    def dims(self) -> list[Var]:
        return [p for p in self.func.params if isinstance(p, Var)]


@dataclass(frozen=True, slots=True)
class _Group:
    """A primitive function as tensors, its loops without a schedule, and the symbol of what it computes."""

    fn: Function
    constants: frozenset[int]
    inputs: Sequence[te.Tensor]
    outputs: Sequence[te.Tensor]
    plain: PrimFunc
    symbol: str

    @staticmethod
    def of(fn: Function, constants: frozenset[int]) -> _Group:
        inputs, outputs = group_tensors(fn)
        plain = create_prim_func(inputs, outputs, "kernel")
        symbol = _symbol(f"{structural_hash(plain)}:{sorted(constants)}")
        return _Group(fn, constants, inputs, outputs, plain, symbol)


@contextmanager
def sharing() -> Iterator[None]:
    """Compilations inside hand kernels to each other: what was scheduled for one is not scheduled again for another.

    The last 1,024 are kept, until the outermost `sharing` is left. What passes do must not change meanwhile.
    """
    token = _SHARED.set({}) if _SHARED.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _SHARED.reset(token)


@dataclass(slots=True)
class KernelSet:
    """Kernels by what they compute. `kernels`: those that a Program needs; `on_new` is called with each as soon as it
    is known to be needed: when it is asked for, or, with `deferred`, when `need` says so. `decided`: the rank of the
    prior's decisions that a kernel gets, by the symbol that it has without; the others get the best, rank 0. `built`:
    all that were made, by that symbol; some may be given. ahead: kernels that other processes schedule meanwhile.
    """

    target: Target
    on_new: Callable[[Kernel], None] | None = None
    kernels: dict[str, Kernel] = field(default_factory=dict)
    deferred: bool = False
    decided: Mapping[str, int] = field(default_factory=dict)
    built: dict[str, Kernel] = field(default_factory=dict)
    ahead: Ahead | None = None
    _overwrites: dict[tuple[str, int, int], bool] = field(default_factory=dict)
    _by_function: dict[tuple[Any, ...], tuple[Kernel, tuple[Var, ...]]] = field(default_factory=dict)

    def get(self, fn: Function, args: tuple[Expr, ...]) -> tuple[Kernel, tuple[Var, ...]]:
        """The kernel of a primitive function called with `args`, and the function's own sizes in the order of the
        kernel's `sizes`: a kernel shared by several functions was built with the sizes of the first.
        """
        key = _call_key(fn, args)
        constants = key[1]
        found = self._by_function.get(key) or self._elsewhere(key)
        if found is None:
            found = self._by_function[key] = self._build(fn, constants)
        if not self.deferred:
            self.need(found[0])
        return found

    def wanted(self, calls: Iterable[Call]) -> list[Job]:
        """The kernels that calls of primitive functions will ask for and that can be scheduled in another process,
        each once. None where something else has a say in what kernels become.
        """
        from warpbeam.driver.schedulers import Job

        jobs: dict[Any, Job] = {}
        if self.built or self.decided or _SHARED.get() is not None:
            return []
        for call in calls:
            if not is_direct(call.op):
                key = _call_key(call.op, call.args)
                if key not in jobs:
                    jobs[key] = Job(key, call.op, key[1], told_of(open_sizes(call.op)))
        return list(jobs.values())

    def _elsewhere(self, key: Any) -> tuple[Kernel, tuple[Var, ...]] | None:
        """The kernel that another process has begun; until that is done, this one makes others that wait."""
        job = self.ahead and self.ahead.begun(key)
        if not job or self.ahead is None:
            return None
        while not job.done.is_set() and (other := self.ahead.next()) is not None:
            with suppress(Exception):  # it is told if that kernel is asked for
                self._by_function[other.key] = self._build(other.fn, other.constants)
            other.done.set()
        made = job.made()
        if made is None:
            return None
        kernel, knows_others, places = made
        if knows_others:
            others = partial(_others, self.target, job.fn, job.constants)
            kernel.plan = replace(kernel.plan, others=others)
        own = open_sizes(job.fn)  # the kernel's are the other process's variables
        sizes = tuple(own[place] for place in places)
        found = self._by_function[key] = self.built.setdefault(kernel.symbol, kernel), sizes
        return found

    def need(self, kernel: Kernel) -> None:
        """Notes that a Program calls the kernel."""
        if kernel.symbol not in self.kernels:
            self.kernels[kernel.symbol] = kernel
            if self.on_new is not None:
                self.on_new(kernel)

    def keep(self, symbols: Iterable[str]) -> None:
        """Forgets kernels that turned out not to be needed."""
        wanted = set(symbols)
        self.kernels = {k: v for k, v in self.kernels.items() if k in wanted}

    def may_overwrite(self, kernel: Kernel, operand: int, result: int) -> bool:
        """Whether the kernel can write a result over an operand of the same type."""
        key = kernel.symbol, operand, result
        found = self._overwrites.get(key)
        if found is None:
            buffers = kernel.func.buffers
            found = operand not in kernel.layouts and may_overwrite(
                kernel.func, buffers[operand], buffers[kernel.inputs + result]
            )
            self._overwrites[key] = found
        return found

    def over(self, kernel: Kernel, pairs: tuple[tuple[int, int], ...]) -> Kernel:
        """The kernel with (operand, result) pairs made one buffer each."""
        if not pairs:
            return kernel
        symbol = "_".join([kernel.symbol, "over", *(f"{i}_{j}" for i, j in pairs)])
        if symbol not in self.built:
            func = kernel.func.replace(name=symbol)
            for i, j in pairs:
                func = overwriting(func, func.buffers[i], func.buffers[kernel.inputs + j])
            self.built[symbol] = replace(kernel, symbol=symbol, func=remove_no_op(func), over=pairs)
        return self.built[symbol]

    def _build(self, fn: Function, constants: frozenset[int]) -> tuple[Kernel, tuple[Var, ...]]:
        plain = _direct_prim(fn)
        if plain is not None:
            symbol = _symbol(structural_hash(plain))
            sizes = _sizes(plain)
            if symbol not in self.built:
                self.built[symbol] = self._kernel(symbol, fn, Plan(plain.replace(name=symbol), "given"), {}, sizes)
            return self.built[symbol], sizes
        group = _Group.of(fn, constants)
        symbol = group.symbol
        if symbol not in self.built:
            made = self._scheduled(group, self.decided.get(symbol, 0)) or self._scheduled(group, 0)
            assert made is not None
            self.built[symbol] = made
        return self.built[symbol], _sizes(group.plain)

    def of(self, fn: Function, constants: frozenset[int]) -> Kernel:
        """The kernel of a primitive function. constants: numbers of the operands whose contents are known."""
        return self._build(fn, constants)[0]

    def ranked(self, fn: Function, constants: frozenset[int], rank: int) -> Kernel | None:
        """A new kernel of a primitive function by the prior's decisions of a rank; None where there are none.

        constants: numbers of the operands whose contents are known.
        """
        return None if _direct_prim(fn) is not None else self._scheduled(_Group.of(fn, constants), rank)

    def _scheduled(self, group: _Group, rank: int) -> Kernel | None:
        symbol = f"{group.symbol}_rank_{rank}" if rank else group.symbol
        shared = _SHARED.get()
        if shared is None:
            return self._made(group, rank, symbol)
        key = symbol, self.target.key, tuple((is_counted(v), is_positive(v)) for v in _sizes(group.plain))
        found = shared.pop(key, None) or self._made(group, rank, symbol)
        if found is not None:
            shared[key] = found  # the newest stands last
            if len(shared) > _KEPT:
                del shared[next(iter(shared))]
        return found

    def _made(self, group: _Group, rank: int, symbol: str) -> Kernel | None:
        budget.check_time("scheduling kernels")
        inputs, outputs, plain = group.inputs, group.outputs, group.plain
        names = frozenset(inputs[i].op.name for i in group.constants)
        if rank:
            plan = variant(inputs, outputs, self.target, names, symbol, rank)
        else:
            plan = schedule(inputs, outputs, self.target, names, symbol)
        if plan is None:
            return None
        layouts = dict(plan.func.attrs.get("layouts", {}))
        numbered = {i: layouts[b.name] for i, b in enumerate(plain.buffers[: len(inputs)]) if b.name in layouts}
        return self._kernel(symbol, group.fn, plan, numbered, _sizes(plain))

    def _kernel(self, symbol: str, fn: Function, plan: Plan, layouts: dict[int, Any], sizes: tuple[Var, ...]) -> Kernel:
        low = lower(plan.func.replace(name=symbol), self.target) if plan.lowered is None else plan.lowered
        outputs = len(fn.body.ty.fields) if hasattr(fn.body.ty, "fields") else 1
        return Kernel(symbol, low, len(fn.params), outputs, plan, layouts, _flops(fn), sizes)

    def widened(self, kernel: Kernel, number: int, run: int, pitch: int) -> Kernel | None:
        """The kernel with gaps in an operand or, numbered after these, a result, so that runs of `run` elements begin
        `pitch` elements apart; None if that has no dimension that ends there.
        """
        buffer = kernel.func.buffers[number]
        symbol = f"{kernel.symbol}_wide_{number}_{run}_{pitch}"
        if symbol not in self.built:
            func = widen_buffer(kernel.func.replace(name=symbol), buffer, run, pitch)
            if func is None:
                return None
            self.built[symbol] = replace(kernel, symbol=symbol, func=func)
        return self.built[symbol]

    def copying(self, dtype: str, rows: int, run: int, pitch: int) -> Kernel:
        """The kernel that copies rows of `run` elements to places `pitch` elements apart."""
        symbol = _symbol(f"copy:{dtype}:{rows}:{run}:{pitch}")
        if symbol not in self.built:
            func = lower(_copy_rows(dtype, rows, run, self.target.vector_bits), self.target).replace(name=symbol)
            wide = widen_buffer(func, func.buffers[1], run, pitch)
            assert wide is not None
            self.built[symbol] = Kernel(symbol, wide, 1, 1, Plan(wide, "copy"))
        return self.built[symbol]


def _call_key(fn: Function, args: tuple[Expr, ...]) -> tuple[Any, frozenset[int]]:
    """Equal for calls that have one kernel: the function's signature, and which of its operands are constants."""
    return _signature(fn), frozenset(i for i, a in enumerate(args) if isinstance(a, Constant))


def _others(target: Target, fn: Function, constants: frozenset[int], count: int) -> list[tuple[dict[str, Any], float]]:
    """The next best decisions of a kernel that another process made."""
    others = KernelSet(target).of(fn, constants).plan.others
    return [] if others is None else others(count)


def open_sizes(fn: Function) -> list[Var]:
    """The symbolic sizes in a primitive function, its types and attributes, in an order that its copies elsewhere
    share.
    """
    nodes = [n for n in post_order(fn) if isinstance(n, Expr)]
    return dim_vars(*(n.ty for n in nodes), *(n.attrs for n in nodes if isinstance(n, Call)))


def _signature(fn: Function) -> tuple[Any, ...]:
    """Equal for functions that are the same up to names: operators, attributes, types and how values flow.

    It is cheap, and finds groups that repeat over the same sizes before anything is built for them.
    """
    number: dict[Any, Any] = {p: i for i, p in enumerate(fn.params)}
    rows: list[Any] = [p.ty for p in fn.params]
    for n in post_order(fn.body, enter=lambda n: isinstance(n, Call | Tuple | TupleGetItem)):
        if n in number:
            continue
        if isinstance(n, Call) and isinstance(n.op, Op):
            row: Any = (n.op, n.attrs, tuple(number[a] for a in n.args), n.ty)
        elif isinstance(n, Tuple):
            row = tuple(number[f] for f in n.fields)
        elif isinstance(n, TupleGetItem):
            row = (number[n.tuple_value], n.index)
        else:
            number[n] = n  # it stands for itself: constants, operators
            continue
        number[n] = len(rows)
        rows.append(row)
    return (*rows, number[fn.body])


def _copy_rows(dtype: str, rows: int, run: int, vector_bits: int) -> PrimFunc:
    """y[i, j] = x[i, j], in vectors along rows, rows in parallel where there is enough to do."""
    x = te.placeholder((rows, run), dtype, "x")
    y = te.compute((rows, run), lambda i, j: x[i, j], "y")
    sch = Schedule(create_prim_func([x], [y], "copy"))
    outer, along = sch.loops("y")
    lanes = vector_bits // (8 * dt.nbytes(dtype))
    if run >= lanes:
        sch.vectorize(sch.split(along, (None, lanes))[1])
    if rows * run * dt.nbytes(dtype) >= _PARALLEL_BYTES:
        sch.parallel(outer)
    return sch.func


def _sizes(func: PrimFunc) -> tuple[Var, ...]:
    """The symbolic sizes of a program, in the order of its parameters."""
    return tuple(p for p in func.params if isinstance(p, Var))


def _symbol(key: str) -> str:
    import hashlib

    return "wb_" + hashlib.sha256(key.encode()).hexdigest()[:16]


def is_direct(fn: Function) -> bool:
    """Whether a group's single operator gives its loop program itself."""
    return isinstance(fn.body, Call) and isinstance(fn.body.op, Op) and hasattr(fn.body.op, "compute_prim")


def _direct_prim(fn: Function) -> PrimFunc | None:
    """The loop program of a group whose single operator gives one itself, else None."""
    call = fn.body
    if isinstance(call, Call) and is_direct(fn):
        from warpbeam.transform.fuse_ops import group_inputs

        by_param = dict(zip(fn.params, group_inputs(fn), strict=True))
        prim = call.op.compute_prim(call.attrs, [by_param[a] for a in call.args], call.ty)
        return _without_repeats(prim, [fn.params.index(a) for a in call.args])  # type: ignore[arg-type]
    return None


def _without_repeats(prim: PrimFunc, places: list[int]) -> PrimFunc:
    """A loop program that takes each operand once, in the order of the group: operand i is its parameter places[i]."""
    if places == list(range(len(places))):
        return prim
    own, rest = prim.params[: len(places)], prim.params[len(places) :]
    first = {place: own[places.index(place)] for place in sorted(set(places))}
    swap = {b: first[p] for b, p in zip(own, places, strict=True) if b is not first[p]}
    return prim.replace(params=(*first.values(), *rest), body=replace_buffers(prim.body, swap))  # type: ignore[no-any-return]


def _flops(fn: Function) -> Any:
    total: Any = 0
    for n in post_order(fn.body):
        if isinstance(n, Call) and isinstance(n.op, Op):
            total = total + n.op.flops(n.attrs, [a.ty for a in n.args], n.ty)
    return total
