"""The road from a Relay function to an artefact: passes, kernels, plan, code, link.

Each stage is one call below, in order. Kernels are handed to the compiling workers as soon as they are lowered, so that
scheduling here and code generation there overlap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from warpbeam.codegen import facade, host
from warpbeam.codegen import llvm as llvm_codegen
from warpbeam.codegen.machine import linked_here
from warpbeam.codegen.support import support_ir
from warpbeam.driver import embed, guard, plan_report
from warpbeam.driver.cache import Cache
from warpbeam.driver.kernels import Kernel, KernelSet
from warpbeam.driver.pipeline import optimize
from warpbeam.driver.plan import Planner
from warpbeam.driver.plan_pieces import kernel_calls
from warpbeam.driver.report import Report
from warpbeam.driver.schedulers import scheduled_ahead, warm
from warpbeam.driver.shapes import to_shape_expr
from warpbeam.driver.state import Pairs, Ports, bind, ports_of
from warpbeam.driver.workers import Compiler
from warpbeam.ir import budget
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Function, IRModule
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.runtime.artifact import Artifact, KernelInfo, Manifest, TensorSpec
from warpbeam.runtime.cpu import runs_here
from warpbeam.runtime.errors import LinkError
from warpbeam.runtime.export_model import FREESTANDING, HOSTED, pack_objects
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.manifest import CALLS, LAYOUT, STRUCTURE
from warpbeam.runtime.pool_ll import EXPORTS as POOL_SYMBOLS
from warpbeam.runtime.pool_ll import pool_ir
from warpbeam.runtime.program import CallExternal, CallKernel, Check, Port, Program, SetSymbol, walk
from warpbeam.runtime.wasm import link_module
from warpbeam.runtime.wasm_object import is_wasm
from warpbeam.target import Target
from warpbeam.transform.to_mixed_precision import ATTRIBUTE

ENTRY = "wb_entry"
FACADE_LEVEL = 0  # the C interface runs once per call; unoptimised code takes a sixth of the time to make


@dataclass(slots=True)
class Options:
    """How to compile.

    Attributes:
        target: the machine; of a file for several machines, the first.
        others: further machines that the same file is to serve.
        workers: compiling processes (None: one per core); one less schedule beside this one.
        state: pairs of an input and an output that become one mutable parameter.
        guard: seconds that may be spent on measuring variants of the heaviest kernels; 0: the prior decides alone.
        measure_on: a session with the machine to measure on; None: this one.
    """

    target: Target
    opt_level: int = 3
    cache: Cache | None = None
    workers: int | None = None
    name: str = "model"
    dump: Any = None
    others: tuple[Target, ...] = ()
    state: Pairs = ()
    guard: float = 0.0
    measure_on: Any = None


@dataclass(slots=True)
class Built:
    """The artefact with what was learnt on the way."""

    artifact: Artifact
    report: Report
    kernels: dict[str, Kernel] = field(default_factory=dict)


def build(mod: IRModule, inputs: Sequence[str], outputs: Sequence[str], options: Options) -> Built:
    """Compiles the module's main function; `inputs` and `outputs` name its parameters and results."""
    report = Report(options.name, str(options.target.name))
    warm(options.workers, _most_groups(mod))
    with ExitStack() as stack:
        recorded = embed.RecordedConstants()
        parts = []
        for target in (options.target, *options.others):
            compiler = stack.enter_context(Compiler(target, options.cache, options.workers))
            with report.stage("passes"):
                first = report if not parts else None
                optimized = optimize(mod, options.opt_level, target, first)
            measured = guard.Decisions()
            if options.guard:
                optimized, measured = _guarded(mod, optimized, options, compiler, report, not parts)
            parts.append(_Part(optimized, inputs, outputs, replace(options, target=target), compiler, recorded))
            parts[-1].kernels.decided = measured.ranks
            parts[-1].kernels.built.update(measured.kernels)
            parts[-1].plan(report)
        return _finish(parts, report)


def _most_groups(mod: IRModule) -> int:
    """A bound of how many kernels will be scheduled: distinct calls of operators, up to names and constants."""
    calls = [n for f in mod.functions.values() for n in post_order(f) if isinstance(n, Call) and isinstance(n.op, Op)]
    return len({(c.op, c.attrs, tuple(a.ty for a in c.args)) for c in calls})


def rebuild(artifact: Artifact, options: Options) -> Built:
    """Compiles what an artefact was compiled from once more; its graph passes are not run again.

    Raises:
        CompileError: if the artefact does not hold the model's Relay text.
    """
    report = Report(options.name, str(options.target.name))
    with report.stage("read"):
        mod, _ = embed.restored(artifact)
    warm(options.workers, _most_groups(mod))
    ports = ports_of(artifact.manifest)
    with Compiler(options.target, options.cache, options.workers) as compiler:
        options = replace(options, state=ports.state)
        part = _Part(mod, ports.inputs, ports.outputs, options, compiler, embed.RecordedConstants())
        part.plan(report)
        return _finish([part], report)


def _guarded(
    mod: IRModule, optimized: IRModule, options: Options, compiler: Compiler, report: Report, tell: bool
) -> tuple[IRModule, guard.Decisions]:
    """The module after graph passes with what measuring decided, and that."""
    target = compiler.target
    why = guard.why_not(target, options.measure_on)
    if why:
        report.guard.append({"target": target.name, "out": why})
        return optimized, guard.Decisions()
    with report.stage("measure variants"):
        found = guard.decide(optimized, target, compiler, options.cache, options.guard, options.measure_on)
    report.guard += found.rows
    if found.changed:
        with report.stage("passes again"), guard.decided(found):
            if tell:
                report.choices.clear()
            optimized = optimize(mod, options.opt_level, target, report if tell else None)
    return optimized, found


def _finish(parts: Sequence[_Part], report: Report) -> Built:
    """Artefact and report of one or several machines' parts."""
    first = parts[0]
    with report.stage("compile"):
        for part in parts:
            part.interface()
        for part in parts:
            part.wait()
    with report.stage("link"):
        codes = [part.link() for part in parts]
    with report.stage("pack"):
        constants = memoryview(first.recorded.blob())
        relay, more = embed.sections(first.mod, first.recorded, first.options.target)
        made = {p.options.target.name: p.pack(code, constants, relay, more) for p, code in zip(parts, codes)}
        artifact = Artifact.join(made)
    report.kernels(first.program, first.kernels.kernels)
    return Built(artifact, report, first.kernels.kernels)


class _Part:
    """One machine's share of a compilation: the stages after the graph passes, in the order of the methods.

    Parts may share `recorded`, the constants; so the C interface, which states their size, comes after all are planned.
    For a target of kind "c" no machine code is made: its artefact can be exported as source; where the system's linker
    must link, as source or as an object.
    """

    def __init__(
        self, mod: IRModule, inputs: Sequence[str], outputs: Sequence[str], options: Options, compiler: Compiler,
        recorded: embed.RecordedConstants,
    ) -> None:  # fmt: skip
        self.mod = mod
        self.options = options
        self.compiler = compiler
        self.recorded = recorded
        self.source_only = options.target.kind == "c" or not linked_here(options.target.triple)
        self.jobs: list[tuple[str, Any]] = []
        if not self.source_only:
            triple = options.target.triple
            texts = {"wb_pool": pool_ir(triple), "wb_support": support_ir(triple)}
            self.jobs = [(name, compiler.submit(name, text)) for name, text in texts.items() if text]
        self.kernels = KernelSet(options.target, self._submit)
        self.ports = Ports(tuple(inputs), tuple(outputs), options.state)
        self.planner = Planner(mod, self.kernels, inputs, outputs)
        self.planner.constants = recorded

    def _submit(self, kernel: Kernel) -> None:
        if self.source_only:
            return
        text = llvm_codegen.print_kernel(kernel.func, self.options.target)
        if self.options.dump is not None:
            self.options.dump(kernel, text)
        self.jobs.append((kernel.symbol, self.compiler.submit(kernel.symbol, text)))

    def plan(self, report: Report) -> None:
        """Schedules and lowers; the workers compile meanwhile."""
        with report.stage("schedule and lower"):
            jobs = self.kernels.wanted(kernel_calls(self.mod))
            with scheduled_ahead(jobs, self.options.target, self.options.workers) as self.kernels.ahead:
                program = self.planner.build()
            self.program, self.params, self.params_bytes = bind(program, self.options.state)
            self.program.validate()
        arena = self.program.arena_bytes if isinstance(self.program.arena_bytes, int) else 0
        budget.check_memory(self.planner.constants.size + self.params_bytes + arena, "constants and working memory")
        report.memory = self.memory = plan_report.facts(self.program, self.planner.packing)

    def interface(self) -> None:
        """Prints the entry and the C interface."""
        target = self.options.target
        self.manifest = self._manifest()
        texts: dict[str, str] = {}
        if not self.source_only:
            entry = host.print_entry(_native(self.program), target, ENTRY)
            self.jobs.append((ENTRY, self.compiler.submit(ENTRY, entry)))
            texts = _facades(self.manifest, facade.Sizes(self.planner.constants.size, self.params_bytes), target)
        self.faces = [(name, self.compiler.submit(name, text, FACADE_LEVEL)) for name, text in texts.items()]

    def wait(self) -> None:
        """Waits for the machine code."""
        try:
            self.objects = [job.result(budget.seconds_left()) for _, job in self.jobs]
            self.facades = {name: job.result(budget.seconds_left()) for name, job in self.faces}
        except TimeoutError:
            for _, job in (*self.jobs, *self.faces):
                job.cancel()
            raise budget.late("machine code") from None

    def link(self) -> bytes:
        """The shared library, or WebAssembly module; empty where there is no machine code.

        Raises:
            CompileError: if the machine is none that the linker serves.
        """
        if self.source_only:
            return b""
        target = self.options.target
        exports = [ENTRY, *POOL_SYMBOLS, *self.kernels.kernels]
        try:
            if is_wasm(self.objects[0]):
                return b"".join(link_module(self.objects, {name: name for name in exports}))
            return link_shared(self.objects, exports)
        except LinkError as error:
            if runs_here(target.triple):
                raise
            what = f"models are not linked for target {target.name}"
            hint = 'export C source for it instead: target "c", or "c32" where addresses have 32 bits'
            raise CompileError(what, target.triple, str(error), hint) from error

    def pack(self, code: bytes, constants: memoryview, relay: str, more: dict[str, bytes]) -> Artifact:
        """The artefact."""
        packed = b"" if self.source_only else pack_objects(self.objects[1:], self.objects[0], self.facades)
        params = bytes(self.params_bytes)
        return Artifact.build(self.manifest, code, constants, self.program, relay, params, more, packed)

    def _manifest(self) -> Manifest:
        func, options = self.mod["main"], self.options
        ret = func.body.ty
        results = ret.fields if isinstance(ret, TupleType) else (ret,)
        constants = {"constants_bytes": str(self.planner.constants.size)}
        return Manifest(
            name=options.name,
            inputs=self._specs(self.program.inputs, self.ports.inputs, [p.ty for p in func.params]),
            outputs=self._specs(self.program.outputs, self.ports.outputs, results),
            entry=ENTRY,
            target=options.target.triple,
            cpu_features=options.target.required_features,
            arena_bytes=self.program.arena_bytes,
            kernels=_kernel_infos(self.program, self.kernels),
            precision=precision(func),
            compiler_version=_version(),
            params=self.params,
            extra=constants | _memory_facts(self.memory) | self.ports.fact() | _host_facts(func, self.program),
        )

    def _specs(self, ports: Sequence[Port], names: Sequence[str], types: Sequence[Any]) -> tuple[TensorSpec, ...]:
        """Inputs or outputs with the types that the function gives them."""
        known = dict(zip(names, types, strict=True))
        made = []
        for port in ports:
            ty = known[port.name]
            shape = tuple(to_shape_expr(d, self.planner.symbols) for d in ty.shape)
            made.append(TensorSpec(port.name, ty.dtype, shape, late=self.planner.late.is_late(*ty.shape)))
        return tuple(made)


def _facades(manifest: Manifest, sizes: facade.Sizes, target: Target) -> dict[str, str]:
    """The texts of the C interface by variant."""
    texts = {FREESTANDING: facade.print_facade(manifest, sizes, target, freestanding=True)}
    if facade.hosted(target):
        texts[HOSTED] = facade.print_facade(manifest, sizes, target)
    return texts


def _host_facts(func: Function, program: Program) -> dict[str, str]:
    """What the manifest says of host calls, strings, sequences and tuples."""
    calls = sorted({i.function for i in walk(program.body) if isinstance(i, CallExternal)})
    found = {CALLS: json.dumps(calls)} if calls else {}
    return found | {key: func.attrs[key] for key in (LAYOUT, STRUCTURE) if key in func.attrs}


def _native(program: Program) -> Program:
    """What the native entry does: a program that calls the host can only say so."""
    calls = sorted({i.function for i in walk(program.body) if isinstance(i, CallExternal)})
    if not calls:
        return program
    text = f"the model calls host functions ({', '.join(calls)})"[:120]
    symbols = dict.fromkeys(i.symbol for i in walk(program.body) if isinstance(i, SetSymbol))
    check = Check(0, f"{text}: run it with warpbeam.runtime")
    return replace(program, body=(check, *[SetSymbol(name, 0) for name in symbols]))


def _memory_facts(memory: dict[str, Any]) -> dict[str, str]:
    return {f"arena_{key}": str(memory[key]) for key in ("bound", "apart")}


def _kernel_infos(program: Program, kernels: KernelSet) -> tuple[KernelInfo, ...]:
    """What is known of each kernel: work, bytes of its operands and results (each counted once), source nodes."""
    origins: dict[str, list[str]] = {}
    traffic: dict[str, Any] = {}
    by_id = {v.id: v for v in program.values}
    for step in walk(program.body):
        if isinstance(step, CallKernel):
            for w in step.writes:
                origins.setdefault(step.kernel, []).extend(by_id[w].origins)
            traffic[step.kernel] = plan_report.traffic([by_id[a] for a in dict.fromkeys(step.args)])
    return tuple(
        KernelInfo(
            k.symbol,
            k.symbol,
            _flops(k),
            traffic.get(k.symbol, 0),
            tuple(dict.fromkeys(origins.get(k.symbol, ()))),
        )
        for k in kernels.kernels.values()
    )


def _flops(kernel: Kernel) -> Any:
    return kernel.flops if isinstance(kernel.flops, int) else 0


def precision(func: Function) -> str:
    """The number formats of the model's floating tensors, in words; first what was requested, if it was."""
    found = {n.ty.dtype for n in post_order(func.body) if isinstance(getattr(n, "ty", None), TensorType)}
    floats = sorted(d for d in found if dt.is_float(d))
    words = ", ".join(floats) if floats else "integers"
    return f"{func.attrs[ATTRIBUTE]} ({words})" if ATTRIBUTE in func.attrs else words


def _version() -> str:
    from warpbeam import __version__

    return __version__
