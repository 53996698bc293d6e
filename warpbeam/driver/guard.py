"""Never a bad case, on request: the prior's decisions for the heaviest kernels are checked by measuring.

For each kernel that takes much of the predicted time, the few next best decisions that differ materially, and other
algorithms that the accuracy allows, are compiled and timed in another process (`timing`), by the rule of `race`. What
is kept is a value, `Decisions`: the graph passes and the scheduler are run with it, so nothing else about a compilation
changes. Verdicts are kept in the cache by the kernel, the machine and the budget; a second compilation measures nothing
and decides the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from warpbeam.codegen import llvm as llvm_codegen
from warpbeam.codegen.support import support_ir
from warpbeam.driver.cache import Cache, package_stamp
from warpbeam.driver.kernels import Kernel, KernelSet
from warpbeam.driver.plan_pieces import becomes_kernel
from warpbeam.driver.race import Dropped, Lane, race
from warpbeam.driver.shapes import to_shape_expr
from warpbeam.driver.timing import Entry, Timer
from warpbeam.driver.workers import Compiler
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Call, Constant, Function, IRModule
from warpbeam.runtime.cpu import missing_features, runs_here
from warpbeam.runtime.errors import LinkError
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.pool_ll import EXPORTS, pool_ir
from warpbeam.runtime.shape_expr import evaluate
from warpbeam.target import Target
from warpbeam.transform.choose_convolution import ACCURACY, DECIDED, Other, check_accuracy, others

_KERNELS = 12
_SHARE = 0.95  # of the predicted time, which the kernels that are looked at make up
_RANKS = 2  # decisions besides the best
_FAR = 1.6  # times the best prediction; what is predicted to be slower is not tried
_LIKELY = (16, 4, 1)  # values of symbolic sizes, the first that needs no more than this many bytes
_BYTES = 64 << 20


@dataclass(slots=True)
class Decisions:
    """What measuring decided. ranks: of the prior's decisions, by kernel; tiles: of convolutions, by signature."""

    kernels: dict[str, Kernel] = field(default_factory=dict)  # by the prior, of those that keep them
    ranks: dict[str, int] = field(default_factory=dict)
    tiles: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    changed: bool = False  # whether a convolution is to be computed in another way


def decided(found: Decisions) -> PassContext:
    """The current context, in which convolutions are computed as was decided."""
    ctx = PassContext.current()
    config = {**ctx.config, DECIDED: found.tiles}
    return PassContext(ctx.opt_level, ctx.required_pass, ctx.disabled_pass, ctx.instruments, config, ctx.events)


@dataclass(slots=True)
class Variant:
    """One way to compute what a kernel computes. tile: of a convolution by another algorithm, the `way`, else None."""

    kernel: Kernel
    rank: int
    tile: int | None = None
    way: str = ""

    @property
    def label(self) -> str:
        decided = ", ".join(f"{k}={v}" for k, v in self.kernel.plan.decisions.items())
        algorithm = f"{self.way}: " if self.way else ""
        return f"{algorithm}{self.kernel.plan.sketch} {decided}".strip()


@dataclass(slots=True)
class Case:
    """A kernel and its variants, the prior's first. `signature`: of its convolution, if it has one that can be computed
    in other ways, and `tile` by which it is computed.
    """

    symbol: str
    nodes: tuple[str, ...]
    constants: frozenset[int]
    variants: list[Variant]
    ways: list[Other] = field(default_factory=list)
    signature: str | None = None
    tile: int = 0


@dataclass(slots=True)
class Tools:
    """What measures: `sampler(case)` gives a function that times one variant of it once, or raises Dropped."""

    sampler: Callable[[Case], Callable[[int], float]]
    clock: Callable[[], float] = time.perf_counter
    where: str = ""  # on which other machine


def why_not(target: Target, device: Any = None) -> str:
    """What keeps kernels for a target from being measured here, or on a device; empty if nothing does."""
    if device is not None:
        from warpbeam.driver.remote_timer import why_not_there

        return why_not_there(device, target)
    if target.kind != "llvm" or not runs_here(target.triple):
        return f"code for {target.name} does not run here"
    missing = missing_features(target.required_features)
    return f"this processor lacks {', '.join(missing)}" if missing else ""


def decide(
    mod: IRModule, target: Target, compiler: Compiler, cache: Cache | None, seconds: float, device: Any = None
) -> Decisions:
    """What is kept for the kernels of a fused module; at most `seconds` are spent on measuring.

    Args:
        device: a session with the machine to measure on; None: this one.
    """
    if device is not None:
        from warpbeam.driver.remote_timer import RemoteTimer, machine_of

        with RemoteTimer(device, target) as there:
            tools = Tools(lambda case: there.sampler([(v.kernel, _sizes(v.kernel)) for v in case.variants]),
                          where=machine_of(device))  # fmt: skip
            return decide_with(mod, target, cache, seconds, tools)
    with Timer(target) as timer:
        return decide_with(mod, target, cache, seconds, Tools(lambda case: _sampler(case, compiler, timer)))


def decide_with(mod: IRModule, target: Target, cache: Cache | None, seconds: float, tools: Tools) -> Decisions:
    """As `decide`, with other tools to measure."""
    made = Decisions()
    accuracy = check_accuracy(PassContext.current().config.get(ACCURACY, "default"))
    kernels = KernelSet(target, deferred=True)
    found = heaviest(mod, kernels)
    left, ahead = seconds, sum(heavy.cycles for heavy in found)
    for heavy in found:
        share = left * heavy.cycles / max(ahead, 1e-9)  # what one does not need is for those after it
        ahead -= heavy.cycles
        case = _case(heavy, accuracy)
        if made.tiles.get(case.signature or "", case.tile) != case.tile:
            continue  # its convolution will be computed in another way
        key = _key(case, target, accuracy, repr(seconds) + tools.where, made.tiles)
        row = _remembered(cache, key)
        if row is None:
            _add_variants(case, heavy, target, made.tiles)
            if len(case.variants) < 2:
                continue
            sample = tools.sampler(case)
            start = tools.clock()
            kept, lanes = race(len(case.variants), sample, tools.clock, share)
            spent = tools.clock() - start
            left = max(0.0, left - spent)
            row = _row(case, kept, lanes, spent)
            if cache is not None and any(lane.times for lane in lanes):
                cache.put(key, json.dumps(row).encode())
        else:
            row = {**row, "cached": True, "nodes": list(case.nodes)}
        _take(made, case, row)
    made.kernels = {s: k for s, k in kernels.built.items() if s not in made.ranks}
    return made


def _take(made: Decisions, case: Case, row: dict[str, Any]) -> None:
    """Notes what was kept for a case."""
    made.rows.append(row)
    chosen = row["variants"][row["kept"]]
    if case.signature is not None:  # convolutions of one signature are computed one way: as the heaviest of them
        made.tiles.setdefault(case.signature, case.tile if chosen["tile"] is None else chosen["tile"])
        made.changed = made.changed or chosen["tile"] is not None
    if chosen["tile"] is None and chosen["rank"]:
        made.ranks[case.symbol] = chosen["rank"]


# ----------------------------------------------------------------------------------------------------------- candidates


@dataclass(slots=True)
class Heavy:
    """A kernel, the group it computes, the numbers of its constant operands, the predicted cycles of all its calls."""

    kernel: Kernel
    group: Function
    constants: frozenset[int]
    cycles: float = 0.0


def heaviest(mod: IRModule, kernels: KernelSet) -> list[Heavy]:
    """The kernels that take the most time, the heaviest first; all that the module has are built in `kernels`."""
    found: dict[str, Heavy] = {}
    for call in _calls(mod):
        kernel, _ = kernels.get(call.op, call.args)
        constants = frozenset(i for i, a in enumerate(call.args) if isinstance(a, Constant))
        heavy = found.setdefault(kernel.symbol, Heavy(kernel, call.op, constants))
        heavy.cycles += _predicted(kernel, kernels.target)
    ordered = sorted(found.values(), key=lambda h: (-h.cycles, h.kernel.symbol))
    total, covered = sum(h.cycles for h in ordered), 0.0
    taken = []
    for heavy in ordered[:_KERNELS]:
        if covered >= _SHARE * total:
            break
        taken.append(heavy)
        covered += heavy.cycles
    return taken


def _calls(mod: IRModule) -> Iterator[Any]:
    """Calls that become kernels, of all functions."""
    for fn in mod.functions.values():
        if isinstance(fn, Function):
            for n in post_order(fn.body, enter=lambda n: not isinstance(n, Function)):
                if isinstance(n, Call) and isinstance(n.op, Function) and becomes_kernel(n):
                    yield n


def _predicted(kernel: Kernel, target: Target) -> float:
    """Cycles by the prior, else a guess by arithmetic and bytes."""
    if kernel.plan.cycles is not None:
        return kernel.plan.cycles
    flops = kernel.flops if isinstance(kernel.flops, int) else 0
    size = sum(n for n, _, _ in _buffers(kernel, frozenset(), _sizes(kernel)))
    return max(flops / (2.0 * target.lanes("float32")), size / 16.0) / max(target.cores, 1)


def _case(heavy: Heavy, accuracy: str) -> Case:
    """A kernel with its one variant so far, and the other ways to compute its convolution."""
    ways = others(heavy.group, accuracy)
    nodes = tuple(heavy.group.attrs.get("origins", ()))
    case = Case(heavy.kernel.symbol, nodes, heavy.constants, [Variant(heavy.kernel, 0)], ways)
    if ways:
        case.signature, case.tile = ways[0].signature, ways[0].own
    return case


def _add_variants(case: Case, heavy: Heavy, target: Target, decided: Mapping[str, int]) -> None:
    """The next decisions of a kernel's sketch, and other algorithms, where the prior finds them near."""
    kernels, first = KernelSet(target), heavy.kernel
    limit = None if first.plan.cycles is None else _FAR * first.plan.cycles
    candidates: list[tuple[Function, int, Other | None]] = [(heavy.group, r, None) for r in range(1, _RANKS + 1)]
    if case.signature not in decided:
        candidates += [(o.group, 0, o) for o in case.ways]
    for group, rank, other in candidates:
        made = kernels.ranked(group, heavy.constants, rank)
        if made is None or (limit is not None and made.plan.cycles is not None and made.plan.cycles > limit):
            continue
        named = () if other is None else (other.tile, other.name)
        case.variants.append(Variant(made, rank, *named))


# ------------------------------------------------------------------------------------------------------------ measuring


def _sampler(case: Case, compiler: Compiler, timer: Timer) -> Callable[[int], float]:
    """Compiles and links a case's variants, and gives what measures them."""
    target = compiler.target
    texts = {"wb_pool": pool_ir(target.triple), "wb_support": support_ir(target.triple)}
    common = [compiler.submit(name, text) for name, text in texts.items() if text]
    names = [f"guard_{k}" for k in range(len(case.variants))]
    jobs = []
    for name, v in zip(names, case.variants, strict=True):
        text = llvm_codegen.print_kernel(v.kernel.func.replace(name=name), target)
        jobs.append(compiler.submit(name, text))
    failed: dict[int, str] = {}
    objects = [_object(job, k, failed) for k, job in enumerate(jobs)]
    good = [k for k, o in enumerate(objects) if o is not None]
    entries = [_entry(name, v.kernel, case.constants) for name, v in zip(names, case.variants, strict=True)]
    try:
        code = link_shared([*(j.result() for j in common), *(o for o in objects if o is not None)],
                           [*EXPORTS, *(names[k] for k in good)])  # fmt: skip
        timer.load(code, entries)
    except LinkError as error:
        failed.update((k, str(error.what)) for k in good)
        good = []
    for k in good:
        try:
            timer.prepare(k)
        except Dropped as error:
            failed[k] = str(error)

    def sample(which: int) -> float:
        if which in failed:
            raise Dropped(failed[which])
        return timer.sample(which)

    return sample


def _object(job: Future[bytes], which: int, failed: dict[int, str]) -> bytes | None:
    try:
        return job.result()
    except CompileError as error:
        failed[which] = error.what
        return None


def _entry(name: str, kernel: Kernel, constants: frozenset[int]) -> Entry:
    sizes = _sizes(kernel)
    return Entry(name, _buffers(kernel, constants, sizes), tuple(sizes[v] for v in kernel.dims))


def _sizes(kernel: Kernel) -> dict[Any, int]:
    """Likely values of a kernel's symbolic sizes."""
    for value in _LIKELY:
        sizes = dict.fromkeys(kernel.dims, value)
        if sum(n for n, _, _ in _buffers(kernel, frozenset(), sizes)) <= _BYTES:
            break
    return sizes


def _buffers(kernel: Kernel, constants: frozenset[int], sizes: Mapping[Any, int]) -> tuple[tuple[int, str, bool], ...]:
    """(bytes, dtype, whether it is a constant operand) of a kernel's buffers."""
    names = {v: v.name for v in sizes}
    values = {v.name: n for v, n in sizes.items()}
    made = []
    for i, buffer in enumerate(kernel.func.buffers):
        count = 1
        for extent in buffer.shape:
            count *= max(1, evaluate(to_shape_expr(extent, names), values))
        made.append((-(-count * dt.bits(buffer.dtype) // 8), str(buffer.dtype), i in constants))
    return tuple(made)


# ----------------------------------------------------------------------------------------------------- verdicts, report


def _key(case: Case, target: Target, accuracy: str, measured: str, decided: Mapping[str, int]) -> str:
    """By what a verdict is kept: this package, the machine, what is computed, what may be compared, the budget."""
    ways = [] if case.signature in decided else [o.tile for o in case.ways]
    parts = ("guard", package_stamp(), target.key, case.symbol, accuracy, measured, repr(ways))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _remembered(cache: Cache | None, key: str) -> dict[str, Any] | None:
    found = cache.get(key) if cache is not None else None
    return json.loads(found) if found is not None else None


def _row(case: Case, kept: int, lanes: Sequence[Lane], spent: float) -> dict[str, Any]:
    """What the report says of a case."""
    rows = []
    for v, lane in zip(case.variants, lanes, strict=True):
        quartiles = [1e6 * lane.result.quantile(q) for q in (0.25, 0.5, 0.75)] if lane.times else [None] * 3
        rows.append({
            "variant": v.label, "rank": v.rank, "tile": v.tile, "predicted_cycles": v.kernel.plan.cycles,
            "median_us": quartiles[1], "quartiles_us": quartiles[::2], "measurements": len(lane.times), "out": lane.out,
        })  # fmt: skip
    return {
        "kernel": case.symbol, "nodes": list(case.nodes), "kept": kept, "seconds": spent, "cached": False,
        "variants": rows,
    }  # fmt: skip
