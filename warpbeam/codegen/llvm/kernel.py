"""A lowered PrimFunc as LLVM IR text."""

from __future__ import annotations

from collections.abc import Iterable

from warpbeam.codegen import analysis
from warpbeam.codegen.llvm import memory
from warpbeam.codegen.llvm.control import statement
from warpbeam.codegen.llvm.debug import DebugInfo, Lines
from warpbeam.codegen.llvm.emitter import Module, Value
from warpbeam.codegen.llvm.function import FunctionPrinter
from warpbeam.codegen.llvm.types import value_type
from warpbeam.target import Target
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform.bypass_caches import KEY as BYPASS


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
    """Prints `func` into a module. What stores past the caches needs results that begin with a line: such a function is
    there twice, and their addresses say which one runs.
    """
    far = frozenset(func.params[k] for k in func.attrs.get(BYPASS, ()))
    if not far:
        module.functions.append(_text(module, func, func.name))
        return
    head = _head(func)
    args = ", ".join(f"{type} {name}" for type, name in head)
    mask = module.target.line - 1
    lines, bits = [f"define i32 @{func.name}({args}) #0 {{", "entry:"], "0"
    for k, b in enumerate(p for p in func.params if p in far):
        place = func.buffers.index(b)
        lines += [f"  %a{k} = ptrtoint ptr %b{place} to i64", f"  %o{k} = or i64 %a{k}, {bits}"]
        bits = f"%o{k}"
    lines += [
        f"  %low = and i64 {bits}, {mask}",
        "  %whole = icmp eq i64 %low, 0",
        "  br i1 %whole, label %far, label %near",
    ]
    for label, which in (("far", far), ("near", frozenset[E.Buffer]())):
        name = f"{func.name}.{label}"
        module.functions.append(_text(module, func, name, which, "internal "))
        lines += [f"{label}:", f"  %{label}.status = call i32 @{name}({args})", f"  ret i32 %{label}.status"]
    module.functions.append("\n".join([*lines, "}", "", ""]))


def _head(func: PrimFunc) -> list[tuple[str, str]]:
    """Types and names of a function's parameters."""
    scalars = [p for p in func.params if not isinstance(p, E.Buffer)]
    buffers = [("ptr", f"%b{i}") for i in range(len(func.buffers))]
    return [("ptr", "%ctx"), *buffers, *((value_type(v.dtype), f"%s{i}") for i, v in enumerate(scalars))]


def _text(
    module: Module, func: PrimFunc, name: str, bypass: frozenset[E.Buffer] = frozenset(), linkage: str = ""
) -> str:
    """The text of one function; whole lines of `bypass`, which begin with one, go past the caches."""
    fn = FunctionPrinter(module, analysis.collect(analysis.check_lowered(func)), name)
    fn.noalias, fn.bypass = bool(func.attrs.get("noalias", True)), bypass
    scalars = [p for p in func.params if not isinstance(p, E.Buffer)]
    for i, b in enumerate(func.buffers):
        fn.pointers[b] = Value(f"%b{i}", "ptr", fn.root)
    for i, v in enumerate(scalars):
        fn.bind(v, Value(f"%s{i}", value_type(v.dtype), fn.root))
    about = ""
    if module.debug is not None:
        fn.lines = Lines(module.debug, func)
        about = fn.lines.share(fn, name)
    statement(fn, func.body)
    memory.fence(fn)
    alone = "ptr noalias" if fn.noalias else "ptr"
    params = ", ".join(f"{alone if p.startswith('%b') else type} {p}" for type, p in _head(func))
    head = f"define {linkage}i32 @{name}({params}) #0{about} {{"
    names = ", ".join(p.name for p in (*func.buffers, *scalars))
    return "\n".join([f"; {name}({names})", head, fn.body(), "  ret i32 0", "}", ""])
