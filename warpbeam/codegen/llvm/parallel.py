"""Parallel loops: the body becomes a function of its own that gets what it uses through a structure on the stack.

@name.par0(ctx, closure, begin, end)        unpacks the structure and calls
@name.par0.body(ctx, buffers noalias…, scalars…, begin, end)

A loop that asks for nothing ahead of time, or hardly beyond one iteration (its note "either_way"), says so
(WB_EITHER_WAY), so that its parts may be taken from the back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from warpbeam.codegen import analysis
from warpbeam.codegen.llvm import memory
from warpbeam.codegen.llvm.emitter import Module, Value
from warpbeam.codegen.llvm.helpers import CONTEXT, fail_function
from warpbeam.codegen.llvm.types import value_type
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order
from warpbeam.runtime.abi import EITHER_WAY
from warpbeam.tir import expr as E
from warpbeam.tir import stmt as S
from warpbeam.tir.transform.alternate_loops import turning

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter

FLAGS, PARALLEL_FOR, MESSAGE_BYTES = 1, 6, 176
EITHER_WAY_NOTE = "either_way"


def message(module: Module, text: str) -> tuple[str, int]:
    """A constant with a message and its size; declares the function that copies it."""
    data = text.encode()[: MESSAGE_BYTES - 1] + b"\0"
    symbol = f"@wb_text.{len(module.globals)}"
    escaped = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in data)
    module.globals.append(f'{symbol} = private constant [{len(data)} x i8] c"{escaped}"')
    module.helpers["wb_fail"] = fail_function()
    return symbol, len(data)


def parallel_for(fn: FunctionPrinter, node: S.For) -> None:
    """Prints a parallel loop through ctx->parallel_for; a non-zero status ends the function."""
    variables, buffers = _captures(fn, node)
    count = fn.value(node.extent)
    fields: list[Value] = [fn.base(b) for b in buffers] + [fn.env[v] for v in variables] + [fn.value(node.min)]
    name = f"{fn.func_name}.par{len(fn.module.functions)}"
    fn.module.functions.append("")  # keeps the number
    slot = len(fn.module.functions) - 1
    type = "{ " + ", ".join(f.type for f in fields) + " }"
    closure = fn.name("closure")
    fn.entry.append(f"  {closure} = alloca {type}, align 8")
    for i, value in enumerate(fields):
        field = fn.name()
        fn.line(f"{field} = getelementptr {type}, ptr {closure}, i32 0, i32 {i}")
        fn.line(f"store {value}, ptr {field}")
    _call(fn, name, closure, count, EITHER_WAY_NOTE in node.annotations or not _asks_ahead(node))
    fn.stored(*fn.facts.stores[node.body])
    fn.module.functions[slot] = _wrapper(name, type, fields) + _body(fn, name, node, variables, buffers, fields)


def _captures(fn: FunctionPrinter, node: S.For) -> tuple[list[E.Var], list[E.Buffer]]:
    variables, buffers = analysis.uses(node.body)
    for b in buffers:
        if b in fn.facts.slots:
            raise LowerError(
                f"register buffer {b.name!r} is used in parallel loop {node.var.name!r} but lives outside of it",
                where=fn.func_name,
                why="registers belong to one thread",
                hint="allocate it inside of the loop, or give it scope local",
            )
    return [v for v in variables if v is not node.var and v in fn.env], buffers


def _asks_ahead(node: S.For) -> bool:
    return any(isinstance(n, E.Call) and n.op == "prefetch" for n in post_order(node.body))


def _call(fn: FunctionPrinter, name: str, closure: str, count: Value, either_way: bool) -> None:
    flags = fn.name() if either_way else ""
    address, function, status, bad = fn.name(), fn.name("parallel_for"), fn.name("status"), fn.name()
    failed, done = fn.label("failed"), fn.label("joined")
    fn.line(f"{address} = getelementptr {CONTEXT}, ptr %ctx, i32 0, i32 {PARALLEL_FOR}")
    fn.line(f"{function} = load ptr, ptr {address}")
    if either_way:  # workers may do the same in loops of their own
        fn.line(f"{flags} = getelementptr {CONTEXT}, ptr %ctx, i32 0, i32 {FLAGS}")
        fn.line(f"store atomic i32 {EITHER_WAY}, ptr {flags} monotonic, align 4")
    fn.line(f"{status} = call i32 {function}(ptr %ctx, ptr @{name}, ptr {closure}, {count})")
    if either_way:
        fn.line(f"store atomic i32 0, ptr {flags} monotonic, align 4")
    fn.line(f"{bad} = icmp ne i32 {status}, 0")
    fn.line(f"br i1 {bad}, label %{failed}, label %{done}")
    fn.block(failed)
    fn.line(f"ret i32 {status}")
    fn.block(done)


def _wrapper(name: str, type: str, fields: list[Value]) -> str:
    lines = [f"define internal i32 @{name}(ptr %ctx, ptr %closure, i64 %begin, i64 %end) #0 {{", "entry:"]
    args = ["ptr %ctx"]
    for i, f in enumerate(fields):
        lines.append(f"  %p{i} = getelementptr {type}, ptr %closure, i32 0, i32 {i}")
        lines.append(f"  %f{i} = load {f.type}, ptr %p{i}")
        args.append(f"{f.type} %f{i}")
    lines.append(f"  %status = call i32 @{name}.body({', '.join(args)}, i64 %begin, i64 %end)")
    return "\n".join([*lines, "  ret i32 %status", "}", "", ""])


def _body(
    fn: FunctionPrinter, name: str, node: S.For, variables: list[E.Var], buffers: list[E.Buffer], fields: list[Value]
) -> str:
    from warpbeam.codegen.llvm.control import statement
    from warpbeam.codegen.llvm.function import FunctionPrinter

    inner = FunctionPrinter(fn.module, fn.facts, fn.func_name)
    inner.in_parallel, inner.noalias, inner.bypass = True, fn.noalias, fn.bypass
    about = "" if fn.lines is None else fn.lines.share(inner, f"{name}.body")
    inner.known_nonneg = set(fn.known_nonneg)
    params = ["ptr %ctx"]
    for i, b in enumerate(buffers):
        inner.pointers[b] = Value(f"%b{i}", "ptr", inner.root)
        params.append(f"ptr {'noalias ' if fn.noalias else ''}%b{i}")
    for i, v in enumerate(variables):
        inner.bind(v, Value(f"%s{i}", value_type(v.dtype), inner.root))
        params.append(f"{value_type(v.dtype)} %s{i}")
    low = E.Var("low", node.var.dtype)
    inner.bind(low, Value("%low", value_type(low.dtype), inner.root))
    params.append(f"{fields[-1].type} %low")
    begin, end = E.Var("begin"), E.Var("end")
    for v in (begin, end):
        inner.bind(v, Value(f"%{v.name}", "i64", inner.root))
    inner.known_nonneg.add(begin)
    if fn.nonneg(node.min):
        inner.known_nonneg.add(low)
    first = low + begin if analysis.const_int(node.min) != 0 else begin
    loop = turning(S.For(node.var, first, end - begin, "serial", node.body, node.annotations), variables)
    for part in (loop, loop.body):
        inner.facts.stores.setdefault(part, fn.facts.stores[node.body])
    statement(inner, loop)
    memory.fence(inner)
    head = f"define internal i32 @{name}.body({', '.join(params)}, i64 %begin, i64 %end) noinline #0{about} {{"
    return "\n".join([head, inner.body(), "  ret i32 0", "}", ""])
