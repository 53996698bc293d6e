"""Expressions in C, one lane at a time. Shared or long ones become variables, so text does not grow with sharing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from warpbeam.codegen import analysis
from warpbeam.codegen.c import external
from warpbeam.codegen.c.dialect import C11, Dialect
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import Node
from warpbeam.tir import expr as E
from warpbeam.tir import intrin_llvm
from warpbeam.tir.mathscale import LOOKUP
from warpbeam.tir.transform.expand_math import IN_STEPS, in_steps

if TYPE_CHECKING:
    from warpbeam.codegen.c.kernel import KernelPrinter

_ARITH = {E.Add: "add", E.Sub: "sub", E.Mul: "mul", E.Div: "div", E.Mod: "mod", E.FloorDiv: "floordiv",
          E.FloorMod: "floormod", E.Min: "min", E.Max: "max"}  # fmt: skip
_SIGNS = {E.Add: "+", E.Sub: "-", E.Mul: "*", E.Div: "/"}
_COMPARE = {E.EQ: "==", E.NE: "!=", E.LT: "<", E.LE: "<=", E.GT: ">", E.GE: ">="}
_CALLS = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "round", "nearbyint": "round",
          "rint": "round", "abs": "abs", "fabs": "abs", "copysign": "copysign", "fma": "fma", "shift_left": "shl",
          "shift_right": "shr", "popcount": "popcount", "clz": "clz"}  # fmt: skip
_BITWISE = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"}


def memory_type(dtype: str, d: Dialect = C11) -> str:
    """The type of an element in memory."""
    base = dt.scalar(dtype)
    if base in d.memory:
        return d.memory[base]
    if base == "bool":
        return "uint8_t"
    if base in ("float16", "bfloat16"):
        return "uint16_t"
    return value_type(base)


def value_type(dtype: str) -> str:
    """The C type of one lane of a value; 16-bit floats are kept as rounded floats."""
    base = dt.scalar(dtype)
    kind, bits, _ = dt.parse(base)
    if kind == "bool":
        return "int"
    if kind in ("int", "uint") and bits in (8, 16, 32, 64):
        return f"{'u' if kind == 'uint' else ''}int{bits}_t"
    if base in ("float16", "bfloat16", "float32"):
        return "float"
    if base == "float64":
        return "double"
    raise LowerError(f"dtype {base} cannot be computed with in C", hint="cast it to a supported type first")


def suffix(dtype: str) -> str:
    """The ending of the prelude's functions for a type."""
    kind, bits, _ = dt.parse(dt.scalar(dtype))
    if kind in ("float", "bfloat"):
        return "f64" if bits == 64 else "f32"
    return f"{'i' if kind == 'int' else 'u'}{bits}"


def rounded(text: str, dtype: str) -> str:
    """A float result, rounded to 16 bits if that is its type."""
    short = {"float16": "f16", "bfloat16": "bf16"}.get(dt.scalar(dtype))
    return f"wb_{short}_to_f32(wb_f32_to_{short}({text}))" if short else text


def literal(node: E.IntImm | E.FloatImm, d: Dialect = C11) -> str:
    """A literal of either kind."""
    if isinstance(node, E.IntImm):
        if dt.is_bool(node.dtype):
            return str(int(bool(node.value)))
        bits, unsigned = dt.bits(node.dtype), dt.is_unsigned(node.dtype)
        if node.value == -(1 << 63):
            return "INT64_MIN"
        ending = (
            f"U{'LL' if bits == 64 else ''}" if unsigned else "LL" if bits == 64 and abs(node.value) > 2**31 - 1 else ""
        )
        text = f"{node.value}{ending}"
        if node.value == -(1 << 31):
            text = "INT32_MIN"
        return f"({text})" if node.value < 0 else text
    value, double = node.value, node.dtype == "float64"
    if math.isnan(value) or math.isinf(value):
        special = {True: ("0x7ff8000000000000", "0x7ff0000000000000"), False: ("0x7fc00000", "0x7f800000")}[double]
        text = f"wb_from_{'f64' if double else 'f32'}({special[math.isinf(value)]}u{'ll' if double else ''})"
        return f"(-{text})" if math.copysign(1, value) < 0 else text
    text = (value.hex() if d.hex_floats else _decimal(value, double)) + ("" if double else "f")
    return f"({text})" if text.startswith("-") else text


def _decimal(value: float, double: bool) -> str:
    """The shortest decimal text that is read back to the same value."""
    text = repr(value) if double else str(np.float32(value))
    return text if set(text) & set(".e") else f"{text}.0"


class Lanes:
    """Prints the expressions of one statement at lane `lane` (C text; empty for scalars)."""

    def __init__(self, printer: KernelPrinter, lane: str) -> None:
        self.p = printer
        self.d = printer.dialect
        self.lane = lane
        self.done: dict[Node, str] = {}
        self.uses: dict[Node, int] = {}
        self.data: set[Node] = set()

    def value(self, expr: E.PrimExpr, index: bool = False) -> str:
        """The C text of an expression, after the lines that it needs. An index is plain arithmetic (no overflow)."""
        self._count(expr)
        if not index:
            self._mark_data(expr)
        stack = [expr]
        while stack:
            node = stack[-1]
            if node in self.done:
                stack.pop()
                continue
            parts = _parts(node)
            missing = [x for x in parts if x not in self.done]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            text = self._text(node, [self.done[x] for x in parts])
            plain = isinstance(node, (E.IntImm, E.FloatImm, E.Var, E.Broadcast))
            if not plain and (len(text) > self.d.limit or self.uses.get(node, 0) > 1):
                text = self._name(node, text)
            self.done[node] = text
        return self.done[expr]

    def _count(self, expr: E.PrimExpr) -> None:
        stack, seen = [expr], set()
        while stack:
            node = stack.pop()
            for x in _parts(node):
                self.uses[x] = self.uses.get(x, 0) + 1
                if x not in seen:
                    seen.add(x)
                    stack.append(x)

    def _mark_data(self, expr: E.PrimExpr) -> None:
        """Notes the nodes that are values of the computation and not only indices of loads."""
        stack = [expr]
        while stack:
            node = stack.pop()
            if node not in self.data:
                self.data.add(node)
                if not isinstance(node, E.BufferLoad):
                    stack.extend(_parts(node))

    def _name(self, node: E.PrimExpr, text: str) -> str:
        name = self.p.fresh("v")
        self.p.line(f"const {self._type(node)} {name} = {text};")
        return name

    def _type(self, node: E.PrimExpr) -> str:
        return "wb_index" if self._is_index(node) else value_type(node.dtype)

    def _is_index(self, node: E.PrimExpr) -> bool:
        return node not in self.data and dt.scalar(node.dtype) == "int64"

    def _text(self, node: E.PrimExpr, parts: list[str]) -> str:
        if isinstance(node, (E.IntImm, E.FloatImm)):
            return literal(node, self.d)
        if isinstance(node, E.Var):
            name = self.p.variable(node)
            return f"{name}[{self.lane}]" if node in self.p.vectors else name
        if isinstance(node, E.BufferLoad):
            return self.p.from_memory(f"{self.p.element(node.buffer, parts)}", node.buffer.dtype)
        if isinstance(node, E.Broadcast):
            return parts[0]
        if isinstance(node, E.Ramp):
            return f"({parts[0]} + {self.lane} * {parts[1]})"
        if isinstance(node, E.Let):
            self.p.bind(node.var, self.value(node.value))
            return Lanes(self.p, self.lane).value(node.body)
        if isinstance(node, E.Shuffle):
            return self._shuffle(node)
        if isinstance(node, E.Call):
            return self._call(node, parts)
        if self._is_index(node) and self.p.plain_division(node):
            return f"({parts[0]} {'/' if isinstance(node, E.FloorDiv) else '%'} {parts[1]})"
        return _simple(node, parts, self._is_index(node), self.p.small, self.d)

    def _call(self, node: E.Call, parts: list[str]) -> str:
        op = node.op
        if op == "if_then_else":
            return self._lazy(node, parts[0])
        if op in IN_STEPS:
            return parts[0]
        if op == LOOKUP:
            return self._lookup(node, parts)
        if op in external.OPS:
            return external.call(self, node, parts)
        if op.startswith("vector_reduce_"):
            return self._reduce(node)
        if op in ("dot4", "dot2"):
            return self._dot(node, parts[0])
        if op == "add_pairs":
            return self._add_pairs(node, parts[0])
        if _regroups(node):
            return self._regroup(node)
        if op in intrin_llvm.CALLS:
            raise LowerError(
                f"LLVM's function {node.attrs['name']} on {node.dtype} cannot be printed in {self.d.name}",
                where=self.p.func.name,
                why="tir/intrin_llvm.py knows no equivalent, or the name does not fit the operands",
                hint="build it for a target of LLVM, or call an intrinsic of tir/intrin.py in its place",
            )
        text = self.p.device_call(node, parts) or call(node, parts, self.d)
        if text is None:
            raise LowerError(
                f"intrinsic {op!r} on {node.dtype} cannot be printed in {self.d.name}", where=self.p.func.name,
                why="mathematical functions must be expanded first, and other names are unknown",
                hint="run tir.transform.expand_math",
            )  # fmt: skip
        return text

    def _lazy(self, node: E.Call, cond: str) -> str:
        name = self.p.fresh("v")
        self.p.line(f"{self._type(node)} {name};")
        for head, arm in ((f"if ({cond}) {{", node.args[1]), ("} else {", node.args[2])):
            self.p.line(head)
            with self.p.indented():
                inner = Lanes(self.p, self.lane)
                self.p.line(f"{name} = {inner.value(arm)};")
        self.p.line("}")
        return name

    def _array(self, vectors: tuple[E.PrimExpr, ...]) -> str:
        """An array with the lanes of vectors one after the other."""
        total = sum(dt.lanes(v.dtype) for v in vectors)
        name = self.p.fresh("a")
        self.p.array(value_type(vectors[0].dtype), vectors[0].dtype, name, total)
        at = 0
        for v in vectors:
            with self.p.lanes(dt.lanes(v.dtype)) as lane:
                self.p.line(f"{name}[{at} + {lane}] = {Lanes(self.p, lane).value(v)};")
            at += dt.lanes(v.dtype)
        return name

    def _shuffle(self, node: E.Shuffle) -> str:
        array = self._array(node.vectors)
        table = self.p.fresh("t")
        self.p.line(f"{self.d.table} uint16_t {table}[] = {{{', '.join(map(str, node.indices))}}};")
        return f"{array}[{table}[{self.lane or 0}]]"

    def _lookup(self, node: E.Call, parts: list[str]) -> str:
        table, (index, *numbers) = self.p.fresh("t"), parts
        self.p.line(f"{self.d.table} {value_type(node.dtype)} {table}[] = {{{', '.join(numbers)}}};")
        return f"{table}[({index}) & {len(numbers) - 1}]"

    def _reduce(self, node: E.Call) -> str:
        source = node.args[0]
        kind = node.op.removeprefix("vector_reduce_")
        array, count = self._array((source,)), dt.lanes(source.dtype)
        half = 1 << (count.bit_length() - 1)
        if half < count:
            self._fold(array, kind, source.dtype, count - half, half)
        while half > 1:
            half //= 2
            self._fold(array, kind, source.dtype, half, half)
        return f"{array}[0]"

    def _fold(self, array: str, kind: str, dtype: str, count: int, distance: int) -> None:
        with self.p.lanes(count) as lane:
            a, b = f"{array}[{lane}]", f"{array}[{lane} + {distance}]"
            cls: Any = {"add": E.Add, "mul": E.Mul, "min": E.Min, "max": E.Max, "and": E.And, "or": E.Or}[kind]
            var = E.Var("x", dt.scalar(dtype))
            self.p.line(f"{a} = {_simple(cls(var, var), [a, b], d=self.d)};")

    def _dot(self, node: E.Call, acc: str) -> str:
        group = int(node.op[3:])
        left, right = self._array((node.args[1],)), self._array((node.args[2],))
        total, k = self.p.fresh("v"), self.p.fresh("k")
        self.p.line(f"{value_type(node.dtype)} {total} = {acc};")
        a, b = (f"{x}[{group} * {self.lane or 0} + {k}]" for x in (left, right))
        if dt.is_float(node.dtype):
            step = self.d.apply("fma", "f32", a, b, total)
        else:
            ending = suffix(node.dtype)
            a, b = (cast(x, v.dtype, node.dtype) for x, v in zip((a, b), node.args[1:], strict=True))
            step = self.d.apply("add", ending, total, self.d.apply("mul", ending, a, b))
        loop = f"{k} = {group - 1}; {k} >= 0; --{k}" if dt.is_float(node.dtype) else f"{k} = 0; {k} < {group}; ++{k}"
        self.p.line(f"for (int {loop}) {total} = {step};")
        return total

    def _add_pairs(self, node: E.Call, acc: str) -> str:
        array, lane, ending = self._array((node.args[1],)), self.lane or 0, suffix(node.dtype)
        a, b = (cast(f"{array}[2 * {lane} + {k}]", node.args[1].dtype, node.dtype) for k in range(2))
        return self.d.apply("add", ending, acc, self.d.apply("add", ending, a, b))

    def _regroup(self, node: E.Call) -> str:
        """The bits of a vector as lanes of another width, the first lane lowest."""
        source, target = dt.scalar(node.args[0].dtype), dt.scalar(node.dtype)
        old, new = dt.bits(source), dt.bits(target)
        array, lane = self._array(node.args), (self.lane or "0") if dt.lanes(node.dtype) > 1 else "0"
        if new > old:
            count = new // old
            raw = [_reinterpret(f"{array}[{lane} * {count} + {k}]", source, f"uint{old}") for k in range(count)]
            bits = " | ".join(f"(uint{new}_t)((uint{new}_t){x} << {old * k})" for k, x in enumerate(raw))
        else:
            count = old // new
            raw = [_reinterpret(f"{array}[{lane} / {count}]", source, f"uint{old}")]
            bits = f"(uint{new}_t)({raw[0]} >> ({new} * ({lane} % {count})))"
        return _reinterpret(f"({bits})", f"uint{new}", target)


def _regroups(node: E.Call) -> bool:
    return node.op == "reinterpret" and dt.lanes(node.dtype) != dt.lanes(node.args[0].dtype)


def crosses_lanes(node: E.PrimExpr) -> bool:
    """Whether a lane of the result is made of other lanes than its own."""
    if isinstance(node, E.Call):
        groups = node.op.startswith("vector_reduce_") or node.op in ("dot4", "dot2", "add_pairs")
        return groups or node.op in external.OPS or _regroups(node)
    return isinstance(node, E.Shuffle)


def _parts(node: E.PrimExpr) -> tuple[E.PrimExpr, ...]:
    """Operands printed before a node."""
    if isinstance(node, (E.BinaryExpr, E.CmpExpr)):
        return node.a, node.b
    if isinstance(node, E.Call):
        steps = in_steps(node)
        if steps is not None:
            return (steps,)
        if node.op in external.OPS:
            return external.operands(node)
        if node.op == "if_then_else" or node.op in ("dot4", "dot2", "add_pairs"):
            return node.args[:1]
        return () if node.op.startswith("vector_reduce_") or _regroups(node) else node.args
    if isinstance(node, E.Select):
        return node.cond, node.a, node.b
    if isinstance(node, (E.Cast, E.Broadcast)):
        return (node.value,)
    if isinstance(node, E.BufferLoad):
        return node.indices
    if isinstance(node, E.Ramp):
        return node.base, node.stride
    return (node.a,) if isinstance(node, E.Not) else ()


def _simple(node: Any, parts: list[str], index: bool = False, small: bool = False, d: Dialect = C11) -> str:
    """Arithmetic, comparisons, choices, casts."""
    kind = type(node)
    if kind in _COMPARE:
        return f"({parts[0]} {_COMPARE[kind]} {parts[1]})"
    if kind in (E.And, E.Or):
        return f"({parts[0]} {'&' if kind is E.And else '|'} {parts[1]})"
    if kind is E.Not:
        return f"(!{parts[0]})"
    if kind is E.Select:
        return f"({parts[0]} ? {parts[1]} : {parts[2]})"
    if kind is E.Cast:
        return cast(parts[0], node.value.dtype, node.dtype, d)
    if kind not in _ARITH:
        raise LowerError(f"a {kind.__name__} cannot be printed in {d.name}", hint="run tir.transform.lower first")
    base = dt.scalar(node.dtype)
    if dt.is_float(base):
        if kind in _SIGNS:
            return rounded(f"({parts[0]} {_SIGNS[kind]} {parts[1]})", base)
        return rounded(d.apply(_ARITH[kind], suffix(base), *parts), base)
    if dt.is_bool(base):
        return f"({parts[0]} {'&' if kind in (E.Mul, E.Min) else '|'} {parts[1]})"
    if index and kind in (E.Add, E.Sub, E.Mul):
        return f"({parts[0]} {_SIGNS[kind]} {parts[1]})"
    ending = "i32" if index and small else suffix(base)
    return d.apply(_ARITH[kind], ending, *parts)


def cast(text: str, source: str, target: str, d: Dialect = C11) -> str:
    """A conversion as `tir.Cast` defines it."""
    a, b = dt.scalar(source), dt.scalar(target)
    if a == b:
        return text
    if dt.is_bool(b):
        return f"({text} != 0)"
    if b in ("float16", "bfloat16"):
        return rounded(f"wb_to_odd({text})" if a == "float64" else f"(float){text}", b)
    if dt.is_float(a) and not dt.is_float(b):
        return d.apply("to", suffix(b), text)
    return f"({value_type(b)}){text}"


def call(node: E.Call, parts: list[str], d: Dialect = C11) -> str | None:
    """A plain intrinsic, or None."""
    base = dt.scalar(node.dtype)
    source = dt.scalar(node.args[0].dtype) if node.args else base
    if node.op == "likely":
        return parts[0]
    if node.op in _BITWISE:
        return f"({value_type(base)})({parts[0]} {_BITWISE[node.op]} {parts[1]})"
    if node.op == "bitwise_not":
        return f"(!{parts[0]})" if dt.is_bool(base) else f"({value_type(base)})~{parts[0]}"
    if node.op in ("isnan", "isinf", "isfinite"):
        if not dt.is_float(source):
            return "1" if node.op == "isfinite" else "0"
        test = {"isnan": f"({parts[0]} != {parts[0]})", "isfinite": f"({parts[0]} - {parts[0]} == 0)"}
        x = parts[0]
        return test.get(node.op, f"(({x} == {x}) & ({x} - {x} != {x} - {x}))")
    if node.op == "reinterpret":
        return _reinterpret(parts[0], source, base)
    if node.op in _CALLS:
        text: str | None = d.apply(_CALLS[node.op], suffix(source), *parts)
    else:
        text = d.function_of(node.op, base, parts)
    if text is None:
        return None
    return rounded(text, base) if dt.is_float(base) else text


def _reinterpret(text: str, source: str, target: str) -> str:
    if dt.bits(source) != dt.bits(target):
        raise LowerError(f"reinterpret of {source} as {target}", why="they have different sizes")
    shorts = {"float16": "f16", "bfloat16": "bf16"}
    if source in shorts:
        text = f"wb_f32_to_{shorts[source]}({text})"
    elif dt.is_float(source):
        text = f"wb_bits_{suffix(source)}({text})"
    if target in shorts:
        return f"wb_{shorts[target]}_to_f32((uint16_t){text})"
    if dt.is_float(target):
        return f"wb_from_{suffix(target)}((uint{dt.bits(target)}_t){text})"
    return f"({value_type(target)}){text}"


def constant(value: Any) -> int | None:
    return analysis.const_int(value)
