"""A lowered PrimFunc as LLVM IR text."""

from __future__ import annotations

from collections.abc import Iterable

from warpbeam.codegen import analysis
from warpbeam.codegen.llvm.control import statement
from warpbeam.codegen.llvm.debug import DebugInfo, Lines
from warpbeam.codegen.llvm.emitter import Module, Value
from warpbeam.codegen.llvm.function import FunctionPrinter
from warpbeam.codegen.llvm.types import value_type
from warpbeam.target import Target
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc


def print_kernel(func: PrimFunc, target: Target, lines: bool = False) -> str:
    """The module text of one kernel: `i32 @name(ptr ctx, ptr buffers…, i64 sizes…)`.

    lines: each instruction says (as `!dbg`) to which line of the function's text it belongs; assembly then has `.loc`.

    Raises:
        LowerError: if the function is not lowered or uses what the target cannot do.
    """
    if not lines:
        return print_kernels([func], target)
    module = Module(target, debug=DebugInfo(func.name))
    add_kernel(module, func)
    return module.text()


def print_kernels(funcs: Iterable[PrimFunc], target: Target) -> str:
    """The text of one module with several kernels."""
    module = Module(target)
    for func in funcs:
        add_kernel(module, func)
    return module.text()


def add_kernel(module: Module, func: PrimFunc) -> None:
    """Prints `func` into a module."""
    fn = FunctionPrinter(module, analysis.collect(analysis.check_lowered(func)), func.name)
    fn.noalias = bool(func.attrs.get("noalias", True))
    params = ["ptr %ctx"]
    buffers = [p for p in func.params if isinstance(p, E.Buffer)]
    scalars = [p for p in func.params if not isinstance(p, E.Buffer)]
    for i, b in enumerate(buffers):
        fn.pointers[b] = Value(f"%b{i}", "ptr", fn.root)
        params.append(f"ptr {'noalias ' if fn.noalias else ''}%b{i}")
    for i, v in enumerate(scalars):
        fn.bind(v, Value(f"%s{i}", value_type(v.dtype), fn.root))
        params.append(f"{value_type(v.dtype)} %s{i}")
    about = ""
    if module.debug is not None:
        fn.lines = Lines(module.debug, func)
        about = fn.lines.share(fn, func.name)
    statement(fn, func.body)
    head = f"define i32 @{func.name}({', '.join(params)}) #0{about} {{"
    names = ", ".join(p.name for p in (*buffers, *scalars))
    module.functions.append("\n".join([f"; {func.name}({names})", head, fn.body(), "  ret i32 0", "}", ""]))
