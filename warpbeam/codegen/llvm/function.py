"""Printer of one function: binds variables and buffers, and turns expressions into values without recursion."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from warpbeam.codegen import analysis
from warpbeam.codegen.llvm import arith, external, intrinsics, memory, runs
from warpbeam.codegen.llvm.debug import Lines
from warpbeam.codegen.llvm.emitter import Emitter, Module, Scope, Value
from warpbeam.codegen.llvm.helpers import quick_remainder, remainder_function, software_rounding
from warpbeam.codegen.llvm.types import float_literal, int_literal, splat, value_type, vector
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import Node
from warpbeam.tir import expr as E
from warpbeam.tir import stmt as S

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.address import Terms


class FunctionPrinter(Emitter):
    """Expressions of one LLVM function. `facts` are those of the whole PrimFunc."""

    def __init__(self, module: Module, facts: analysis.Facts, name: str) -> None:
        super().__init__(module)
        self.facts = facts
        self.func_name = name
        self.env: dict[E.Var, Value] = {}
        self.pointers: dict[E.Buffer, Value] = {}
        self.registers: dict[analysis.Slot, Value] = {}
        self.known_nonneg: set[E.Var] = set()
        self.atom_order: dict[E.PrimExpr, int] = {}
        self.memo: dict[Node, Value] = {}
        self.ahead: dict[S.BufferStore, Value] = {}  # values of stores that are computed before their turn
        self.polynomials: dict[tuple[E.PrimExpr, int], tuple[Terms, int]] = {}
        self.places: dict[tuple[object, ...], Value] = {}  # addresses by buffer and what is added to it
        self.mask: Value | None = None
        self.noalias = True
        self.in_parallel = False
        self.bypass: frozenset[E.Buffer] = frozenset()  # at multiples of a line: whole lines go past the caches
        self.lines: Lines | None = None

    # ----------------------------------------------------------------------------------------------------------- bindin

    def bind(self, var: E.Var, value: Value) -> None:
        """Gives a variable its value; what was remembered of an older value is forgotten."""
        if var in self.env:
            self.memo.clear()
            self.places.clear()
        self.env[var] = value

    def base(self, buffer: E.Buffer) -> Value:
        """The address of a buffer."""
        found = self.pointers.get(buffer)
        if found is None:
            raise LowerError(
                f"buffer {buffer.name!r} is neither a parameter nor allocated here",
                where=self.func_name,
                hint="allocate it, or make it a parameter",
            )
        return found

    def stored_to(self, buffer: E.Buffer) -> None:
        """Notes a store; without noalias it may have hit any buffer."""
        if self.noalias:
            self.stored(buffer)
        else:
            self.stored(buffer, *self.pointers)

    def nonneg(self, expr: E.PrimExpr) -> bool:
        return analysis.nonneg(expr, self.known_nonneg)

    # ---------------------------------------------------------------------------------------------------------- literal

    def real(self, value: float, type: str) -> str:
        """The literal of a float or double, repeated over the lanes of `type`."""
        scalar = type[1:-1].split(" x ")[1] if type.startswith("<") else type
        text = float_literal(value, "float32" if scalar == "float" else "float64")
        return text if scalar == type else f"splat ({scalar} {text})"

    def _literal(self, node: E.PrimExpr, lanes: int) -> Value | None:
        if type(node) is E.IntImm:
            text = int_literal(node.value, node.dtype)
        elif type(node) is E.FloatImm:
            text = float_literal(node.value, node.dtype)
        else:
            return None
        scalar = value_type(node.dtype)
        return self.literal(splat(text, scalar, lanes), vector(scalar, lanes))

    # ------------------------------------------------------------------------------------------------------- expression

    def value(self, expr: E.PrimExpr) -> Value:
        """The value of an expression, each distinct node emitted once."""
        first = self._ready(expr)
        if first is not None:
            return first
        done: dict[Node, Value] = {}
        stack: list[E.PrimExpr] = [expr]
        while stack:
            self._advance(stack, done)
        return done[expr]

    def values(self, exprs: Sequence[E.PrimExpr]) -> list[Value]:
        """The values of several expressions, a node of each in turn: chains of dependent instructions side by side."""
        done: dict[Node, Value] = {}
        stacks: list[list[E.PrimExpr]] = [[e] for e in exprs]
        while any(stacks):
            for stack in stacks:
                self._advance(stack, done)
        return [done[e] for e in exprs]

    def _advance(self, stack: list[E.PrimExpr], done: dict[Node, Value]) -> None:
        """Goes on with what waits on the stack until a node is emitted or nothing waits."""
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            ready = self._ready(node)
            if ready is not None:
                done[stack.pop()] = ready
                continue
            parts = self._parts(node)
            missing = [p for p in parts if p not in done]
            if missing:
                stack.extend(reversed(missing))
                continue
            done[stack.pop()] = ready = self._emit(node, [done[p] for p in parts])
            if ready.pure and self.mask is None:
                self.memo[node] = ready
            return

    def _ready(self, node: E.PrimExpr) -> Value | None:
        if type(node) is E.Var:
            if node not in self.env:
                raise LowerError(f"variable {node.name!r} has no value here", where=self.func_name)
            return self.env[node]
        found = self.memo.get(node)
        if found is not None and self.visible(found.scope):
            return found
        if type(node) is E.Shuffle:
            return runs.load(self, node)
        if type(node) is E.Broadcast:
            return self._literal(node.value, node.count)
        return self._literal(node, 1)

    def _parts(self, node: E.PrimExpr) -> tuple[E.PrimExpr, ...]:
        """Operands that must have values before `node` is emitted."""
        if type(node) in _OPERANDS:
            return _OPERANDS[type(node)](node)  # type: ignore[no-any-return]
        if type(node) is E.Call:
            if node.op in external.HANDLERS:
                return external.operands(node)
            return node.args[:1] if node.op == "if_then_else" else node.args
        return ()

    def _emit(self, node: E.PrimExpr, parts: list[Value]) -> Value:
        if isinstance(node, E.BufferLoad):
            return memory.load(self, node)
        if isinstance(node, E.Call):
            if node.op == "if_then_else":
                return self._lazy(node, parts[0])
            if node.op in external.HANDLERS:
                return external.call(self, node, parts)
            return intrinsics.call(self, node, *parts)
        if isinstance(node, E.Let):
            self.bind(node.var, self.value(node.value))
            return self.value(node.body)
        handler = arith.HANDLERS.get(type(node))
        if handler is None:
            raise LowerError(f"a {type(node).__name__} cannot be printed", where=self.func_name)
        return handler(self, node, *parts)

    def _lazy(self, node: E.Call, cond: Value) -> Value:
        """if_then_else: a branch for a scalar condition, masked memory for a vector one."""
        variables, buffers = analysis.uses(*node.args)
        inputs = [self.env[v] for v in variables if v in self.env]
        names = tuple(v.name for v in inputs)
        in_registers = any(b in self.facts.slots for b in buffers)
        key = (node, names, tuple(self.version(b) for b in buffers), self.mask and self.mask.name)
        old = self.known.get(key)
        if old is not None and not in_registers and self.visible(old.scope):
            return old
        value = self._masked(node, cond) if cond.type.startswith("<") else self._branch(node, cond, inputs, buffers)
        value.pure = False
        self.known[key] = value
        return value

    def _masked(self, node: E.Call, cond: Value) -> Value:
        found = memory.load_or_zero(self, node)
        if found is not None:
            return found
        outer = self.mask
        arms = []
        for arm, inverted in ((node.args[1], False), (node.args[2], True)):
            on = self.op(f"xor {cond}, splat (i1 true)", cond.type, cond) if inverted else cond
            self.mask = on if outer is None else self.op(f"and {outer}, {on.name}", cond.type, outer, on)
            arms.append(self.value(arm))
        self.mask = outer
        if isinstance(node.args[1], E.BufferLoad) and _is_zero(node.args[2]):
            return arms[0]  # lanes of a load that are off are zero
        out = self.op(f"select {cond}, {arms[0]}, {arms[1]}", arms[0].type, cond, *arms)
        return Value(out.name, out.type, out.scope, pure=False)

    def _branch(self, node: E.Call, cond: Value, inputs: list[Value], buffers: list[E.Buffer]) -> Value:
        """A branch placed in the outermost scope where all that it reads is known and may be read."""
        place = max((v.scope for v in (cond, *inputs)), key=lambda s: s.depth)
        for b in buffers:
            deepest = self.scope if b in self.facts.slots else self.load_scope(b, place)
            place = max(place, deepest, key=lambda s: s.depth)
        with self.at(place):
            return self._diamond(place, node, cond)

    def _diamond(self, place: Scope, node: E.Call, cond: Value) -> Value:
        labels = [self.label("then"), self.label("else"), self.label("done")]
        results, texts = [], []
        for label, arm in zip(labels[:2], node.args[1:], strict=True):
            scope = self.open(label, may_skip=True)
            results.append((self.value(arm), scope))
            self.close()
            texts.append([f"{label}:", *scope.lines, f"  br label %{labels[2]}{self.mark}"])
        enter = f"  br i1 {cond.name}, label %{labels[0]}, label %{labels[1]}{self.mark}"
        place.lines += [enter, *texts[0], *texts[1]]
        place.lines.append(f"{labels[2]}:")
        place.label = labels[2]
        (a, sa), (b, sb) = results
        value = Value(self.name(), a.type, place, pure=False)
        sources = f"[ {a.name}, %{sa.label} ], [ {b.name}, %{sb.label} ]"
        place.lines.append(f"  {value.name} = phi {a.type} {sources}{self.mark}")
        return value

    # ---------------------------------------------------------------------------------------------------- shared helper

    def rounding(self, kind: str, value: Value) -> Value:
        """floor, ceil, trunc or rint of a float value."""
        if self.target.native_round:
            return self.call(f"llvm.{kind}.{arith.float_suffix(value.type)}", value.type, value)
        return software_rounding(self, kind, value)

    def remainder(self, a: Value, b: Value) -> Value:
        """C's fmod, exact."""
        lanes = memory.lanes_of(a)
        scalar = a.type if lanes == 1 else a.type[1:-1].split(" x ")[1]
        name, text = remainder_function(scalar)
        self.module.helpers[name] = text
        for word, args in (("fabs", scalar), ("copysign", f"{scalar}, {scalar}")):
            self.module.declare(f"llvm.{word}.{arith.float_suffix(scalar)}", scalar, args)
        whole = name if lanes == 1 else quick_remainder(self, a.type, lanes, scalar, name)
        if whole is not None:
            return self.op(f"call {a.type} @{whole}({a}, {b})", a.type, a, b)
        out = self.literal("poison", a.type)
        for i in range(lanes):
            x, y = memory.extract(self, a, i), memory.extract(self, b, i)
            one = self.op(f"call {scalar} @{name}({x}, {y})", scalar, x, y)
            out = self.op(f"insertelement {out}, {one}, i64 {i}", a.type, out, one)
        return out

    def template(self, template: str, *operands: Value) -> Value:
        """Instantiates an intrinsic template of the target: "call RET @name(TYPE $0, TYPE $1, …, TYPE literal, …)"."""
        found = re.fullmatch(r"call (.+?) @([\w.]+)\((.*)\)", template)
        if found is None:
            raise LowerError(f"the intrinsic template {template!r} is no call", where=f"target {self.target.name}")
        ret, name, args = found.groups()
        types = re.findall(r"(<[^>]*>|[\w]+) \$\d+", args)
        literals = re.sub(r"^.*\$\d+(, )?", "", args)
        values = []
        for v, t in zip(operands, types, strict=True):
            values.append(v if v.type == t else self.op(f"bitcast {v} to {t}", t, v))
        return self.call(name, ret, *values, extra=literals)


_OPERANDS: dict[type, Callable[[Any], tuple[E.PrimExpr, ...]]] = {
    **{c: attrgetter("a", "b") for base in (E.BinaryExpr, E.CmpExpr) for c in base.__subclasses__()},
    E.Select: attrgetter("cond", "a", "b"),
    E.Cast: lambda n: (n.value,),
    E.Broadcast: lambda n: (n.value,),
    E.Ramp: attrgetter("base", "stride"),
    E.Not: lambda n: (n.a,),
    E.Shuffle: attrgetter("vectors"),
}


def _is_zero(expr: E.PrimExpr) -> bool:
    """Whether an expression is zero in every lane, and of positive sign."""
    expr = expr.value if isinstance(expr, E.Broadcast) else expr
    if isinstance(expr, E.FloatImm):
        return expr.value == 0 and math.copysign(1, expr.value) > 0
    return isinstance(expr, E.IntImm) and expr.value == 0
