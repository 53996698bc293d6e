"""The road from a Relay function to an artefact: passes, kernels, plan, code, link.

Each stage is one call below, in order. Kernels are handed to the compiling workers as soon as they are lowered, so that
scheduling here and code generation there overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from warpbeam.codegen import facade, host
from warpbeam.codegen import llvm as llvm_codegen
from warpbeam.driver import embed
from warpbeam.driver.cache import Cache
from warpbeam.driver.kernels import Kernel, KernelSet
from warpbeam.driver.pipeline import optimize
from warpbeam.driver.plan import Planner
from warpbeam.driver.report import Report
from warpbeam.driver.shapes import fold, to_shape_expr
from warpbeam.driver.workers import Compiler
from warpbeam.ir import dtype as dt
from warpbeam.relay.expr import Function, IRModule
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.runtime.artifact import Artifact, KernelInfo, Manifest, TensorSpec
from warpbeam.runtime.export_model import FREESTANDING, HOSTED, pack_objects
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.pool_ll import EXPORTS as POOL_SYMBOLS
from warpbeam.runtime.pool_ll import pool_ir
from warpbeam.runtime.program import CallKernel, Program, Value, walk
from warpbeam.target import Target

ENTRY = "wb_entry"


@dataclass(slots=True)
class Options:
    """How to compile. `workers`: compiling processes (None: one per core)."""

    target: Target
    opt_level: int = 3
    cache: Cache | None = None
    workers: int | None = None
    name: str = "model"
    dump: Any = None


@dataclass(slots=True)
class Built:
    """The artefact with what was learnt on the way."""

    artifact: Artifact
    report: Report
    kernels: dict[str, Kernel] = field(default_factory=dict)


def build(mod: IRModule, inputs: Sequence[str], outputs: Sequence[str], options: Options) -> Built:
    """Compiles the module's main function; `inputs` and `outputs` name its parameters and results."""
    report = Report(options.name, str(options.target.name))
    with Compiler(options.target, options.cache, options.workers) as compiler:
        with report.stage("passes"):
            mod = optimize(mod, options.opt_level, options.target, report)
        return _build(mod, inputs, outputs, options, compiler, report)


def rebuild(artifact: Artifact, options: Options) -> Built:
    """Compiles what an artefact was compiled from once more; its graph passes are not run again.

    Raises:
        CompileError: if the artefact does not hold the model's Relay text.
    """
    report = Report(options.name, str(options.target.name))
    with report.stage("read"):
        mod, _ = embed.restored(artifact)
    names = artifact.manifest
    with Compiler(options.target, options.cache, options.workers) as compiler:
        return _build(mod, [s.name for s in names.inputs], [s.name for s in names.outputs], options, compiler, report)


def _build(
    mod: IRModule, inputs: Sequence[str], outputs: Sequence[str], options: Options, compiler: Compiler, report: Report
) -> Built:
    """The stages after the graph passes."""
    pool_job = compiler.submit("wb_pool", pool_ir(options.target.triple))
    jobs: list[tuple[str, Any]] = [("wb_pool", pool_job)]

    def on_new(kernel: Kernel) -> None:
        text = llvm_codegen.print_kernel(kernel.func, options.target)
        if options.dump is not None:
            options.dump(kernel, text)
        jobs.append((kernel.symbol, compiler.submit(kernel.symbol, text)))

    kernels = KernelSet(options.target, on_new)
    with report.stage("schedule and lower"):
        planner = Planner(mod, kernels, inputs, outputs)
        planner.constants = recorded = embed.RecordedConstants()
        program = planner.build()
        program.validate()
    with report.stage("compile"):
        jobs.append((ENTRY, compiler.submit(ENTRY, host.print_entry(program, options.target, ENTRY))))
        manifest = _manifest(mod["main"], program, kernels, planner, options)
        faces = [(n, compiler.submit(n, text)) for n, text in _facades(manifest, planner, options.target).items()]
        objects = [job.result() for _, job in jobs]
        facades = {name: job.result() for name, job in faces}
    with report.stage("link"):
        exports = [ENTRY, *POOL_SYMBOLS, *kernels.kernels]
        code = link_shared(objects, exports)
    with report.stage("pack"):
        constants = memoryview(planner.constants.blob())
        packed = pack_objects(objects[1:], objects[0], facades)
        relay, more = embed.sections(mod, recorded, options.target)
        artifact = Artifact.build(manifest, code, constants, program, relay, more=more, objects=packed)
    report.kernels(program, kernels.kernels)
    return Built(artifact, report, kernels.kernels)


def _facades(manifest: Manifest, planner: Planner, target: Target) -> dict[str, str]:
    """The texts of the C interface by variant."""
    sizes = facade.Sizes(planner.constants.size)
    texts = {FREESTANDING: facade.print_facade(manifest, sizes, target, freestanding=True)}
    if facade.hosted(target):
        texts[HOSTED] = facade.print_facade(manifest, sizes, target)
    return texts


def _manifest(func: Function, program: Program, kernels: KernelSet, planner: Planner, options: Options) -> Manifest:
    symbols = planner.symbols
    ret = func.body.ty
    types = ret.fields if isinstance(ret, TupleType) else (ret,)

    def spec(name: str, ty: TensorType) -> TensorSpec:
        shape = tuple(to_shape_expr(d, symbols) for d in ty.shape)
        return TensorSpec(name, ty.dtype, shape, late=planner.late.is_late(*ty.shape))

    infos = _kernel_infos(program, kernels)
    return Manifest(
        name=options.name,
        inputs=tuple(spec(p.name, v.ty) for p, v in zip(program.inputs, func.params, strict=True)),
        outputs=tuple(spec(p.name, t) for p, t in zip(program.outputs, types, strict=True)),
        entry=ENTRY,
        target=options.target.triple,
        cpu_features=options.target.required_features,
        arena_bytes=program.arena_bytes,
        kernels=infos,
        precision=precision(func),
        compiler_version=_version(),
        extra={"constants_bytes": str(planner.constants.size)},
    )


def _kernel_infos(program: Program, kernels: KernelSet) -> tuple[KernelInfo, ...]:
    """What is known of each kernel: work, bytes of its operands and results (each counted once), source nodes."""
    origins: dict[str, list[str]] = {}
    traffic: dict[str, Any] = {}
    by_id = {v.id: v for v in program.values}
    for step in walk(program.body):
        if isinstance(step, CallKernel):
            for w in step.writes:
                origins.setdefault(step.kernel, []).extend(by_id[w].origins)
            traffic[step.kernel] = _traffic([by_id[a] for a in dict.fromkeys(step.args)])
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


def _traffic(values: list[Value]) -> Any:
    """Bytes that a kernel reads and writes at least; its workspaces stay in cache."""
    total: Any = 0
    for v in values:
        if v.name == "workspace":
            continue
        size: Any = dt.nbytes(v.dtype)
        for extent in v.shape:
            size = fold("mul", size, extent)
        total = fold("add", total, size)
    return total


def _flops(kernel: Kernel) -> Any:
    return kernel.flops if isinstance(kernel.flops, int) else 0


def precision(func: Function) -> str:
    """The number formats of the model's floating tensors, in words."""
    from warpbeam.ir.rewrite import post_order

    found = {n.ty.dtype for n in post_order(func.body) if isinstance(getattr(n, "ty", None), TensorType)}
    floats = sorted(d for d in found if dt.is_float(d))
    return ", ".join(floats) if floats else "integers"


def _version() -> str:
    from warpbeam import __version__

    return __version__
