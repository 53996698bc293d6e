"""Finds the first graph pass, the first kernel, and within it the first stage, whose result is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from warpbeam.driver import pipeline
from warpbeam.driver.source import Source
from warpbeam.driver.verify import Difference, difference, outputs_of
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.relay import interp
from warpbeam.relay.expr import Call, Constant, Function, IRModule
from warpbeam.runtime import executor
from warpbeam.runtime.program import CallKernel
from warpbeam.target import Target

Arrays = Sequence[np.ndarray]


def bisect(found: Source, module: Any, inputs: Arrays, target: Target, opt_level: int) -> list[str]:
    """What differs first, in sentences: of the graph passes, of the kernels, of the chosen kernel's stages."""
    out = []
    guilty = first_pass(found.module, inputs, target, opt_level)
    if guilty is not None:
        out.append(f"graph pass {guilty[0]} changes the result: {sentence(guilty[1])}")
    kernel = first_kernel(found.module, module, inputs, target, opt_level)
    if kernel is not None:
        call, names, diff, operands = kernel
        of = ", ".join(names) or "no source names"
        out.append(f"kernel {call.kernel} ({of}) is the first that differs: {sentence(diff)}")
        stage = first_stage(found.module, call.kernel, operands, target, opt_level)
        out.append(f"inside it, the first stage that differs: {stage}")
    if not out:
        out.append("every pass and every kernel alone is right: the host code or the storage plan must be wrong")
    return out


def sentence(d: Difference) -> str:
    """A difference in words."""
    if d.note:
        return f"{d.name}: {d.note}"
    share = f"{d.relative:.2g} of the largest value"
    return f"{d.name} at {list(d.where)} is {d.got:.6g} instead of {d.expected:.6g} ({share})"


# --------------------------------------------------------------------------------------------------------- graph passes


def passes_one_by_one(mod: IRModule, target: Target, opt_level: int) -> Iterator[tuple[str, IRModule]]:
    """(name, module after it) for each graph pass of a compilation, in order."""
    with PassContext(opt_level=opt_level) as ctx:
        for step in pipeline.graph_passes(target):
            if ctx.enabled(step.info):
                mod = step(mod)
                yield step.info.name, mod
    yield "FuseOps", pipeline.optimize(mod, opt_level, target)


def first_pass(mod: IRModule, inputs: Arrays, target: Target, opt_level: int) -> tuple[str, Difference] | None:
    """The first pass after which the interpreter says something else than before all passes."""
    expected = outputs_of(interp.evaluate(mod, inputs, dtype="float64"))
    for name, after in passes_one_by_one(mod, target, opt_level):
        now = outputs_of(interp.evaluate(after, inputs, dtype="float64"))
        for i, (a, b) in enumerate(zip(now, expected, strict=True)):
            diff = difference(f"output {i}", "interpreter", a, b)
            if diff.note or diff.relative > 1e-6:
                return name, diff
    return None


# -------------------------------------------------------------------------------------------------------------- kernels


def kernel_calls(mod: IRModule, target: Target, opt_level: int) -> list[Call]:
    """The calls of the optimised graph that become kernels, in the order of the Program."""
    func = pipeline.optimize(mod, opt_level, target)["main"]
    nodes = post_order(func.body, enter=lambda n: not isinstance(n, Function))
    return [n for n in nodes if isinstance(n, Call) and isinstance(n.op, Function) and not _is_view(n.op)]


def _is_view(fn: Function) -> bool:
    """Whether a group only renames the shape of its operand, so that no kernel is made of it."""
    return isinstance(fn.body, Call) and bool(getattr(fn.body.op, "view", False))


def first_kernel(
    mod: IRModule, module: Any, inputs: Arrays, target: Target, opt_level: int
) -> tuple[CallKernel, tuple[str, ...], Difference, list[np.ndarray]] | None:
    """Runs the compiled kernels one by one; the first whose result is not its group's meaning.

    Returns: (instruction, source nodes, difference, the operands it got), or None.
    """
    calls = kernel_calls(mod, target, opt_level)
    for call, (step, operands, results) in zip(calls, steps(module, inputs), strict=False):
        fn = call.op
        logical = [a.numpy() if isinstance(a, Constant) else v for a, v in zip(call.args, operands, strict=False)]
        expected = outputs_of(interp.evaluate(fn, logical, dtype="float64"))
        for i, (a, b) in enumerate(zip(results, expected, strict=False)):
            diff = difference(f"result {i}", "interpreter", a, b)
            if not diff.passed and not _same_precision(fn, logical, i, a):
                return step, tuple(fn.attrs.get("origins", ())), diff, logical
    return None


def _same_precision(fn: Function, operands: Arrays, index: int, got: np.ndarray) -> bool:
    """Whether a result is what the group gives in its own precision (integers, half precision)."""
    own = outputs_of(interp.evaluate(fn, operands))[index]
    return difference("", "interpreter", got, own).passed


def steps(module: Any, inputs: Arrays) -> Iterator[tuple[CallKernel, list[np.ndarray], list[np.ndarray]]]:
    """Runs a module's Program kernel by kernel: (instruction, operands before, results after), each a copy."""
    program = module.artifact.program()
    symbols = {k.name: k.symbol for k in module.artifact.manifest.kernels}
    machine = executor.Machine(
        module.library, module.host_context(), module.constants_view(), module.params_view(), symbols, {}
    )
    arrays = [np.asarray(a, order="C") for a in inputs]
    frame = executor._Frame(program, machine, {f.name: f for f in program.functions}, arrays, None, 0)
    for step in program.body:
        if not isinstance(step, CallKernel):
            frame.body((step,))
            continue
        written = set(step.writes)
        operands = [frame.get(a).copy() for a in step.args if a not in written]
        frame.body((step,))
        yield step, operands, [frame.get(a).copy() for a in step.writes]


# ------------------------------------------------------------------------------------------------- stages of a kernel


def first_stage(mod: IRModule, symbol: str, operands: Arrays, target: Target, opt_level: int) -> str:
    """Which of a kernel's stages (computation, schedule, lowering, code) is the first with a wrong result."""
    from warpbeam.driver.kernels import KernelSet
    from warpbeam.te.create import create_prim_func
    from warpbeam.transform.fuse_ops import group_tensors

    kernels = KernelSet(target)
    for call in kernel_calls(mod, target, opt_level):
        kernel, _ = kernels.get(call.op, call.args)
        if symbol != kernel.symbol and not symbol.startswith(f"{kernel.symbol}_"):  # a variant's name begins so
            continue
        fn = call.op
        expected = outputs_of(interp.evaluate(fn, operands, dtype="float64"))
        computed = create_prim_func(*group_tensors(fn), "kernel")
        staged: list[tuple[str, Any, Any]] = [
            ("the operators' computation (compute)", computed, {}),
            (f"the schedule (sketch {kernel.plan.sketch})", kernel.plan.func, kernel.layouts),
            ("lowering", kernel.func, kernel.layouts),
        ]
        for name, func, layouts in staged:
            try:
                results = _interpret(func, operands, expected, layouts)
            except WarpbeamError as error:
                return f"{name}: {error.what}"
            for i, (a, b) in enumerate(zip(results, expected, strict=True)):
                diff = difference(f"result {i}", "interpreter", a, b)
                if not diff.passed and not _same_precision(fn, operands, i, a):
                    return f"{name}: {sentence(diff)}"
        return "code generation"
    return "unknown: the kernel is not made again by a second compilation"


def _interpret(func: Any, operands: Arrays, expected: Arrays, layouts: Any) -> list[np.ndarray]:
    """Runs a loop program of a kernel in the TIR interpreter; gives its results."""
    from warpbeam.ir import dtype as dt
    from warpbeam.tir import interp as tir_interp
    from warpbeam.tir.expr import Buffer
    from warpbeam.tir.schedule.layout import apply_layout

    sizes = _sizes(func, operands)
    arguments: list[Any] = []
    for i, p in enumerate(func.params):
        if not isinstance(p, Buffer):
            arguments.append(sizes[p])
            continue
        shape = tuple(_extent(s, sizes) for s in p.shape)
        if i >= len(operands):
            arguments.append(np.zeros(shape, dt.to_numpy(p.dtype)))
        elif i in layouts:
            arguments.append(apply_layout(operands[i].reshape(layouts[i]["shape"]), layouts[i]))
        else:  # a sketch may have joined dimensions
            arguments.append(np.array(operands[i], order="C").reshape(shape))
    tir_interp.run(func, *arguments)
    first = len(operands)
    return [a.reshape(e.shape) for a, e in zip(arguments[first : first + len(expected)], expected, strict=True)]


def _sizes(func: Any, operands: Arrays) -> dict[Any, int]:
    """Values of a loop program's size parameters, from its operands."""
    from warpbeam.tir.expr import Var

    sizes: dict[Any, int] = {}
    for buffer, array in zip(func.buffers, operands, strict=False):
        for extent, actual in zip(buffer.shape, array.shape, strict=False):
            if isinstance(extent, Var):
                sizes[extent] = actual
    return sizes


def _extent(extent: Any, sizes: dict[Any, int]) -> int:
    from warpbeam.driver.shapes import to_shape_expr
    from warpbeam.runtime.shape_expr import evaluate

    return evaluate(to_shape_expr(extent, {v: v.name for v in sizes}), {v.name: n for v, n in sizes.items()})
