"""`tvm.lower` and `tvm.build`: from a schedule, a loop program or a module to text, and to functions that run.

    mod = warpbeam.build(s, [A, B, C], target="llvm", name="add")
    mod(a, b, c)

The road: te schedule -> scheduled program -> plain loops (tir.transform) -> LLVM or C text -> object -> shared library
of our own linker. Kernels for other devices are printed and kept as imported modules.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from warpbeam.codegen.packed import Entry, explicit_args
from warpbeam.driver import intrin_rules, te_link
from warpbeam.ir.diagnostics import CompileError
from warpbeam.relay.expr import IRModule
from warpbeam.runtime.function_module import FunctionModule
from warpbeam.target import Target, parse
from warpbeam.te.create import create_prim_func
from warpbeam.te.schedule import Schedule
from warpbeam.te.schedule.lower import lower as lower_schedule
from warpbeam.te.tensor import PlaceholderOp, Tensor
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform.pipeline import lower as lower_func
from warpbeam.tir.transform.pipeline import lower_loops, lower_simple


class BuildError(CompileError, ValueError):
    """What was given to lower or build does not fit together.

    Wrong:
        tvm.build(s)
    Right:
        tvm.build(s, [A, B])
    """


def lower(
    inp: Schedule | PrimFunc | IRModule | Sequence[Tensor],
    args: Sequence[Any] | None = None,
    name: str = "main",
    binds: Mapping[Tensor, Any] | None = None,
    simple_mode: bool = False,
) -> IRModule:
    """The loops of a schedule as a module that can be printed, transformed and built.

    Args:
        inp: a te schedule, a loop program, a module of such, or tensors (all that they need is computed at the root).
        args: parameters of the function in order: Tensors, Buffers and Vars; only for schedules and tensors.
        name: the function's name in the module.
        binds: buffers with layouts of their own for some tensors.
        simple_mode: True stops when blocks have become loops, for reading; else vectors, unrolled loops and registers
            are made too.

    Raises:
        BuildError: (a ValueError) if arguments are missing or do not fit.
        WarpbeamError: what scheduling and lowering raise.
    """
    target = Target.current()
    step = lower_simple if simple_mode else lower_loops
    mod = _module_of(inp, args, name, binds)
    return IRModule({f.name: step(f, target) for f in mod.functions.values()})


def build(
    inputs: Any,
    args: Sequence[Any] | None = None,
    target: Any = None,
    target_host: Any = None,
    runtime: Any = None,
    name: str = "default_function",
    binds: Mapping[Tensor, Any] | None = None,
) -> FunctionModule:
    """Functions that run, of a schedule, a loop program, a module of such, or {target: module}.

    Args:
        args: parameters in order, as for `lower`; needed for a schedule.
        target: a Target or string; by default that of `with target:`, else "llvm", this machine.
        target_host: for what the host part of a device's program is compiled; by default this machine.
        runtime: accepted, with a warning: there is one runtime.
        name: the function's name, where `inputs` does not say it.

    Raises:
        BuildError: (a ValueError) if arguments are missing or do not fit.
        WarpbeamError: what scheduling, lowering and code generation raise.
    """
    if runtime is not None:
        warnings.warn("build ignores runtime: there is one", stacklevel=2)
    if isinstance(inputs, Mapping) and not isinstance(inputs, IRModule):
        return _build_each(inputs, target_host)
    found = Target.current() if target is None else parse(target)
    found = parse("llvm") if found is None else found
    if target_host is not None:
        found = parse(found, parse(target_host))
    mod = _module_of(inputs, args, name, binds)
    return _build(list(mod.functions.values()), found)


def _build_each(inputs: Mapping[Any, Any], target_host: Any) -> FunctionModule:
    """One module per target, the first in front."""
    if not inputs:
        raise BuildError("nothing to build", hint="give {target: module}")
    built = [build(mod, target=target, target_host=target_host) for target, mod in inputs.items()]
    for other in built[1:]:
        built[0].import_module(other)
    return built[0]


def _module_of(inp: Any, args: Sequence[Any] | None, name: str, binds: Mapping[Tensor, Any] | None) -> IRModule:
    """The scheduled programs by name."""
    if isinstance(inp, IRModule):
        odd = [type(f).__name__ for f in inp.functions.values() if not isinstance(f, PrimFunc)]
        if odd:
            raise BuildError(f"the module holds a {odd[0]}", why="only loop programs are lowered and built here",
                             hint="compile Relay modules with relay.build")  # fmt: skip
        return IRModule({g.name: f.replace(name=g.name) for g, f in inp.functions.items()})
    if isinstance(inp, PrimFunc):
        return IRModule({name: inp.replace(name=name)})
    if isinstance(inp, Schedule):
        if args is None:
            raise BuildError("args must be given for build from schedule", hint="build(s, [A, B, C])")
        if not isinstance(args, Sequence) or isinstance(args, str):
            raise BuildError(f"args is a {type(args).__name__}, not a list", hint="build(s, [A, B, C])")
        return IRModule({name: _with_args(lower_schedule(inp, list(args), name, binds), len(args))})
    if isinstance(inp, Tensor) or (isinstance(inp, list | tuple) and all(isinstance(t, Tensor) for t in inp)):
        tensors = [inp] if isinstance(inp, Tensor) else list(inp)
        given = [t for t in tensors if isinstance(t.op, PlaceholderOp)]
        func = create_prim_func(given, [t for t in tensors if t not in given], name)
        return IRModule({name: func})
    raise BuildError(f"a {type(inp).__name__} cannot be lowered", hint="give a Schedule, PrimFunc, IRModule or Tensors")


def _with_args(func: PrimFunc, count: int) -> PrimFunc:
    """Notes which parameters callers pass, where the function itself does not show it."""
    if explicit_args(func) == func.params[:count]:
        return func
    return func.replace(attrs=func.attrs.updated(num_args=count))


def _build(funcs: list[PrimFunc], target: Target) -> FunctionModule:
    sources = te_link.imported_sources(funcs)
    if target.device != "cpu":
        from warpbeam.driver import te_device

        return te_device.build(funcs, target)
    ready = [intrin_rules.apply(f, target) for f in funcs]
    entries = [entry(f, target) for f in ready]
    if target.kind == "c":
        return te_link.build_c(entries, target, sources)
    return te_link.build_llvm(entries, target, sources)


def entry(func: PrimFunc, target: Target) -> Entry:
    """The lowered function and what its callers pass."""
    args = explicit_args(func)
    return Entry(func if "workspace" in func.attrs else lower_func(func, target), args)
