"""Statements: loops with register values as phis, branches, stores, assertions, allocation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from warpbeam.codegen import analysis
from warpbeam.codegen.llvm import memory, parallel
from warpbeam.codegen.llvm.emitter import Scope, Value
from warpbeam.codegen.llvm.types import element_bytes, memory_type, value_type
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.tir import expr as E
from warpbeam.tir import stmt as S

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter

_STACK_LIMIT = 1 << 20


def statement(fn: FunctionPrinter, node: S.Stmt) -> None:
    """Prints a statement. Recursion is as deep as loops and branches nest; chains of bindings are walked."""
    if fn.lines is None:
        _print(fn, node)
        return
    with fn.lines.visit(fn):
        _print(fn, node)


def _print(fn: FunctionPrinter, node: S.Stmt) -> None:
    while isinstance(node, S.LetStmt | S.Allocate):
        if fn.lines is not None:
            fn.lines.enter(fn, node)
        if isinstance(node, S.LetStmt):
            fn.bind(node.var, fn.value(node.value))
            if fn.nonneg(node.value):
                fn.known_nonneg.add(node.var)
        else:
            allocate(fn, node.buffer)
        node = node.body
    if fn.lines is not None:
        fn.lines.enter(fn, node)
    handler = _HANDLERS.get(type(node))
    if handler is None:
        raise LowerError(
            f"a {type(node).__name__} cannot be printed", where=fn.func_name, hint="run tir.transform.lower first"
        )
    handler(fn, node)


def allocate(fn: FunctionPrinter, buffer: E.Buffer) -> None:
    """Register buffers get undefined slots, others room on the stack at function entry."""
    if buffer in fn.facts.slots:
        for start, lanes in fn.facts.slots[buffer]:
            type = value_type(dt.with_lanes(buffer.dtype, lanes))
            fn.registers[buffer, start] = fn.undefined(type)
        return
    count = 1
    for extent in buffer.shape:
        size = analysis.const_int(extent)
        if size is None:
            raise LowerError(
                f"buffer {buffer.name!r} of scope {buffer.scope} has a symbolic size",
                where=fn.func_name,
                why="memory on the stack must have a constant size",
                hint="lowering turns global allocations of any size into workspace parameters",
            )
        count *= size
    if count * element_bytes(buffer.dtype) > _STACK_LIMIT:
        raise LowerError(
            f"buffer {buffer.name!r} takes {count * element_bytes(buffer.dtype)} bytes of stack",
            where=fn.func_name,
            why=f"at most {_STACK_LIMIT} are allowed",
            hint="give it scope global at the root of the function, so that it becomes a workspace",
        )
    if buffer in fn.pointers:
        return
    value = Value(fn.name(buffer.name), "ptr", fn.root)
    align = 64 if count * element_bytes(buffer.dtype) >= 64 else 16
    fn.entry.append(f"  {value.name} = alloca [{max(count, 1)} x {memory_type(buffer.dtype)}], align {align}")
    fn.pointers[buffer] = value


def _sequence(fn: FunctionPrinter, node: S.SeqStmt) -> None:
    """Statements one after the other; of stores of long computations, some are computed together."""
    k = 0
    while k < len(node.stmts):
        count = analysis.abreast(node.stmts, k) if fn.noalias else 1
        together = node.stmts[k : k + count]
        if count > 1:
            fn.ahead = dict(zip(together, fn.values([s.value for s in together]), strict=True))
        for s in together:
            statement(fn, s)
        k += count


def _store(fn: FunctionPrinter, node: S.BufferStore) -> None:
    memory.store(fn, node.buffer, node.indices, node.value, fn.ahead.pop(node, None))


def _evaluate(fn: FunctionPrinter, node: S.Evaluate) -> None:
    value = node.value
    if isinstance(value, E.Call) and value.op == "prefetch":
        memory.prefetch(fn, value)
    elif not isinstance(value, E.IntImm | E.FloatImm | E.Var | E.StringImm):
        fn.value(value)


def _assert(fn: FunctionPrinter, node: S.AssertStmt) -> None:
    """Fails the function with status 1 and a message in the context."""
    cond = fn.value(node.cond)
    fail(fn, cond, node.message)


def fail(fn: FunctionPrinter, cond: Value, message: str) -> None:
    """Continues if `cond`; else returns 1 with `message`."""
    symbol, size = parallel.message(fn.module, message)
    bad, good = fn.label("failed"), fn.label("holds")
    fn.line(f"br i1 {cond.name}, label %{good}, label %{bad}")
    fn.block(bad)
    status = fn.name("status")
    fn.line(f"{status} = call i32 @wb_fail(ptr %ctx, ptr {symbol}, i64 {size})")
    fn.line(f"ret i32 {status}")
    fn.block(good)


# --------------------------------------------------------------------------------------------------------------- loops


def _for(fn: FunctionPrinter, node: S.For) -> None:
    extent = analysis.const_int(node.extent)
    if extent is not None and extent <= 0:
        return
    if fn.nonneg(node.min):
        fn.known_nonneg.add(node.var)
    if extent == 1:
        fn.bind(node.var, fn.value(node.min))
        statement(fn, node.body)
    elif node.kind == "parallel" and fn.module.target.threads and not fn.in_parallel:
        parallel.parallel_for(fn, node)
    else:
        _loop(fn, node, extent)


def _loop(fn: FunctionPrinter, node: S.For, extent: int | None) -> None:
    low, count = fn.value(node.min), fn.value(node.extent)
    type = low.type
    outer, label = fn.scope, fn.label("loop")
    stores = fn.facts.stores[node.body]
    fn.stored(*stores)
    scope = fn.open(label, extent is None, stores, all_stores=bool(stores) and not fn.noalias)
    index = Value(fn.name(node.var.name), type, scope)
    fn.bind(node.var, index)
    before, phis = _open_phis(fn, scope, stores)
    statement(fn, node.body)
    fn.close()
    after = fn.label("after")
    after_lines: list[str] = []
    with fn.at(outer):
        zero_low = low.name == "0"
        end = count if zero_low else fn.op(f"add {low}, {count.name}", type, low, count)
        guard = None if extent else fn.op(f"icmp sgt {count}, 0", "i1", count)
    step, more = fn.name("next"), fn.name("more")
    sources = f"[ {low.name}, %{outer.label} ], [ {step}, %{scope.label} ]"
    head = [f"{label}:", f"  {index.name} = phi {type} {sources}{fn.mark}"]
    head += _close_phis(fn, before, phis, outer.label, scope.label)
    tail = [
        f"  {step} = add nsw {type} {index.name}, 1{fn.mark}",
        f"  {more} = icmp ne {type} {step}, {end.name}{fn.mark}",
        f"  br i1 {more}, label %{label}, label %{after}{fn.mark}",
    ]
    if guard is not None:
        after_lines = _merge(fn, outer, [(before, outer.label), (dict(fn.registers), scope.label)])
    enter = f"  br label %{label}" if guard is None else f"  br i1 {guard.name}, label %{label}, label %{after}"
    outer.lines += [enter + fn.mark, *head, *scope.lines, *tail, f"{after}:", *after_lines]
    outer.label = after


def _open_phis(
    fn: FunctionPrinter, scope: Scope, stores: frozenset[E.Buffer]
) -> tuple[dict[analysis.Slot, Value], dict[analysis.Slot, Value]]:
    """New values for the register slots that a loop changes; returns the old values and the new ones."""
    before = dict(fn.registers)
    phis: dict[analysis.Slot, Value] = {}
    for slot, value in before.items():
        if slot[0] in stores:
            phis[slot] = Value(fn.name(slot[0].name), value.type, scope, pure=False)
    fn.registers.update(phis)
    return before, phis


def _close_phis(
    fn: FunctionPrinter,
    before: dict[analysis.Slot, Value],
    phis: dict[analysis.Slot, Value],
    entered: str,
    latch: str,
) -> list[str]:
    lines = []
    for slot, phi in phis.items():
        first, last = before[slot], fn.registers[slot]
        sources = f"[ {first.name}, %{entered} ], [ {last.name}, %{latch} ]"
        lines.append(f"  {phi.name} = phi {phi.type} {sources}{fn.mark}")
    _rescope(fn, before)
    return lines


def _rescope(fn: FunctionPrinter, before: dict[analysis.Slot, Value]) -> None:
    """After a loop or branch: slots allocated inside are gone, changed ones belong to the scope around."""
    for slot in list(fn.registers):
        if slot not in before:
            del fn.registers[slot]
        elif fn.registers[slot] is not before[slot]:
            v = fn.registers[slot]
            fn.registers[slot] = Value(v.name, v.type, fn.scope, pure=False)


def _merge(fn: FunctionPrinter, outer: Scope, ways: list[tuple[dict[analysis.Slot, Value], str]]) -> list[str]:
    """Phis for slots whose values differ between the ways that meet; sets the registers."""
    lines = []
    for slot in list(fn.registers):
        values = [(way[slot], label) for way, label in ways if slot in way]
        if len({v.name for v, _ in values}) <= 1:
            continue
        value = Value(fn.name(slot[0].name), values[0][0].type, outer, pure=False)
        sources = ", ".join(f"[ {v.name}, %{label} ]" for v, label in values)
        lines.append(f"  {value.name} = phi {value.type} {sources}{fn.mark}")
        fn.registers[slot] = value
    return lines


def _while(fn: FunctionPrinter, node: S.While) -> None:
    outer, label, body, after = fn.scope, fn.label("while"), fn.label("body"), fn.label("after")
    stores = fn.facts.stores[node.body]
    fn.stored(*stores)
    scope = fn.open(label, True, stores, all_stores=bool(stores) and not fn.noalias)
    before, phis = _open_phis(fn, scope, stores)
    cond = fn.value(node.cond)
    fn.line(f"br i1 {cond.name}, label %{body}, label %{after}")
    fn.block(body)
    statement(fn, node.body)
    fn.close()
    head = [f"{label}:", *_close_phis(fn, before, phis, outer.label, scope.label)]
    back = f"  br label %{label}{fn.mark}"
    outer.lines += [back, *head, *scope.lines, back, f"{after}:"]
    outer.label = after
    for slot, phi in phis.items():  # the loop ends at its head
        fn.registers[slot] = Value(phi.name, phi.type, outer, pure=False)
    fn.known = {k: v for k, v in fn.known.items() if v.scope is not scope}


def _if(fn: FunctionPrinter, node: S.IfThenElse) -> None:
    known = analysis.const_int(node.cond)
    if known is not None:
        chosen = node.then if known else node.orelse
        if chosen is not None:
            statement(fn, chosen)
        return
    cond = fn.value(node.cond)
    outer = fn.scope
    yes, no, after = fn.label("then"), fn.label("else"), fn.label("after")
    before = dict(fn.registers)
    ways: list[tuple[dict[analysis.Slot, Value], str]] = []
    lines: list[str] = []
    for label, body in ((yes, node.then), (no, node.orelse)):
        fn.registers = dict(before)
        scope = fn.open(label, may_skip=True)
        if body is not None:
            statement(fn, body)
        fn.close()
        ways.append((fn.registers, scope.label))
        lines += [f"{label}:", *scope.lines, f"  br label %{after}{fn.mark}"]
    fn.registers = dict(before)
    phis = _merge(fn, outer, ways)
    outer.lines += [f"  br i1 {cond.name}, label %{yes}, label %{no}{fn.mark}", *lines, f"{after}:", *phis]
    outer.label = after


_HANDLERS: dict[type, Callable[[Any, Any], None]] = {
    S.SeqStmt: _sequence,
    S.BufferStore: _store,
    S.Evaluate: _evaluate,
    S.AssertStmt: _assert,
    S.For: _for,
    S.While: _while,
    S.IfThenElse: _if,
}
