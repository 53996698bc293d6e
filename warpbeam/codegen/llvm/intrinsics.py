"""Intrinsic calls of expressions. Mathematical functions are not here: `expand_math` turns them into what is here.

fma(a, b, c)                         a*b + c, one rounding where the target has it (else two)
sqrt floor ceil trunc round          round: halves to even (also spelled nearbyint, rint)
abs copysign isnan isinf isfinite    abs of the smallest integer wraps
shift_left shift_right bitwise_*     shifts by the width or more give 0 (or the sign); popcount, clz
reinterpret                          same bits, other dtype
likely                               its operand
vector_reduce_{add,mul,min,max,and,or}   by halves: [0,h) with [h,2h), lanes above the largest power of two first
dot4(acc, a, b), dot2(acc, a, b)     acc[i] + sum over 4 (2) neighbours of a*b, the last first, as wide as acc
to_bfloat16(x)                       float32 as bfloat16, subnormal numbers as zero
scale2(x, n)                         x * 2^floor(n) rounded once
lookup(i, v0, …)                     v[i mod 16], of constants
add_pairs(acc, v)                    acc[i] + (v[2*i] + v[2*i+1]), as wide as acc
call_llvm_intrin(name, …)            a function of LLVM, whose signature is checked
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from warpbeam.codegen import machine
from warpbeam.codegen.llvm import arith, memory
from warpbeam.codegen.llvm.convert import convert, fn_true, from_compute, to_compute
from warpbeam.codegen.llvm.emitter import Value
from warpbeam.codegen.llvm.types import value_type, vector
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.tir import expr as E
from warpbeam.tir.mathscale import LOOKUP, PARTS
from warpbeam.tir.transform.expand_math import instruction

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter

_ROUND = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint", "nearbyint": "rint", "rint": "rint"}
_REDUCE = {"add": E.Add, "mul": E.Mul, "min": E.Min, "max": E.Max, "and": E.And, "or": E.Or}


def call(fn: FunctionPrinter, node: E.Call, *args: Value) -> Value:
    """The value of an intrinsic call.

    Raises:
        LowerError: for a name that is no intrinsic of the printers.
    """
    handler = _TABLE.get(node.op)
    if handler is None:
        raise LowerError(
            f"intrinsic {node.op!r} on {node.dtype} cannot be printed",
            where=fn.func_name,
            why="mathematical functions must be expanded first, and other names are unknown",
            hint="run tir.transform.expand_math, or add it to codegen/llvm/intrinsics.py",
        )
    return handler(fn, node, *args)


def _float(operation: Callable[..., Value]) -> Callable[..., Value]:
    """Runs a float operation in the type arithmetic is done in."""

    def run(fn: FunctionPrinter, node: E.Call, *args: Value) -> Value:
        wide = [to_compute(fn, v, a.dtype) for v, a in zip(args, node.args, strict=True)]
        return from_compute(fn, operation(fn, node, *wide), node.dtype)

    return run


def _fma(fn: FunctionPrinter, node: E.Call, a: Value, b: Value, c: Value) -> Value:
    if fn.target.fma:
        return fn.call(f"llvm.fma.{arith.float_suffix(a.type)}", a.type, a, b, c)
    product = fn.op(f"fmul {a}, {b.name}", a.type, a, b)
    return fn.op(f"fadd {product}, {c.name}", a.type, product, c)


def _sqrt(fn: FunctionPrinter, node: E.Call, a: Value) -> Value:
    return fn.call(f"llvm.sqrt.{arith.float_suffix(a.type)}", a.type, a)


def _rounding(fn: FunctionPrinter, node: E.Call, a: Value) -> Value:
    return fn.rounding(_ROUND[node.op], a)


def _abs(fn: FunctionPrinter, node: E.Call, a: Value) -> Value:
    if dt.is_float(node.dtype):
        wide = to_compute(fn, a, node.dtype)
        return from_compute(fn, fn.call(f"llvm.fabs.{arith.float_suffix(wide.type)}", wide.type, wide), node.dtype)
    if dt.is_unsigned(dt.scalar(node.dtype)) or dt.is_bool(dt.scalar(node.dtype)):
        return a
    return fn.call(f"llvm.abs.{arith.suffix(node.dtype)}", a.type, a, extra="i1 false")


def _copysign(fn: FunctionPrinter, node: E.Call, a: Value, b: Value) -> Value:
    return fn.call(f"llvm.copysign.{arith.float_suffix(a.type)}", a.type, a, b)


def _classify(fn: FunctionPrinter, node: E.Call, a: Value) -> Value:
    flags = vector("i1", memory.lanes_of(a))
    if not dt.is_float(node.args[0].dtype):
        return fn.literal(fn_true(memory.lanes_of(a)) if node.op == "isfinite" else fn.undefined(flags).name, flags)
    a = to_compute(fn, a, node.args[0].dtype)
    if node.op == "isnan":
        return fn.op(f"fcmp uno {a}, {a.name}", flags, a)
    size = fn.call(f"llvm.fabs.{arith.float_suffix(a.type)}", a.type, a)
    word = "oeq" if node.op == "isinf" else "olt"
    return fn.op(f"fcmp {word} {size}, {fn.real(float('inf'), a.type)}", flags, size)


def _shift(fn: FunctionPrinter, node: E.Call, a: Value, b: Value) -> Value:
    left = node.op == "shift_left"
    arithmetic = not left and not dt.is_unsigned(dt.scalar(node.dtype))
    word = "shl" if left else "ashr" if arithmetic else "lshr"
    bits = dt.bits(node.dtype)
    amount = arith._constant(node.args[1])
    if amount is not None and 0 <= amount < bits:
        return fn.op(f"{word} {a}, {b.name}", a.type, a, b)
    flags = vector("i1", memory.lanes_of(a))
    inside = fn.op(f"icmp ult {b}, {fn.number(bits, b.type).name}", flags, b)
    top = fn.number(bits - 1 if arithmetic else 0, b.type)
    safe = fn.op(f"select {inside}, {b}, {top}", b.type, inside, b)
    out = fn.op(f"{word} {a}, {safe.name}", a.type, a, safe)
    return out if arithmetic else fn.op(f"select {inside}, {out}, {fn.number(0, a.type)}", a.type, inside, out)


def _bitwise(fn: FunctionPrinter, node: E.Call, a: Value, b: Value) -> Value:
    return fn.op(f"{node.op.removeprefix('bitwise_')} {a}, {b.name}", a.type, a, b)


def _bitwise_not(fn: FunctionPrinter, node: E.Call, a: Value) -> Value:
    ones = fn_true(memory.lanes_of(a)) if dt.is_bool(dt.scalar(node.dtype)) else fn.number(-1, a.type).name
    return fn.op(f"xor {a}, {ones}", a.type, a)


def _count(fn: FunctionPrinter, node: E.Call, a: Value) -> Value:
    kind = arith.suffix(node.args[0].dtype)
    if node.op == "popcount":
        out = fn.call(f"llvm.ctpop.{kind}", a.type, a)
    else:
        out = fn.call(f"llvm.ctlz.{kind}", a.type, a, extra="i1 false")
    return convert(fn, out, node.args[0].dtype, node.dtype)


def _reinterpret(fn: FunctionPrinter, node: E.Call, a: Value) -> Value:
    type = value_type(node.dtype)
    if dt.nbytes(node.dtype) != dt.nbytes(node.args[0].dtype) or "i1" in (type, a.type):
        raise LowerError(f"reinterpret of {node.args[0].dtype} as {node.dtype}", why="they have different sizes")
    return a if a.type == type else fn.op(f"bitcast {a} to {type}", type, a)


def _reduce(fn: FunctionPrinter, node: E.Call, a: Value) -> Value:
    kind = _REDUCE[node.op.removeprefix("vector_reduce_")]
    dtype = node.args[0].dtype
    scalar, lanes = dt.scalar(dtype), dt.lanes(dtype)

    def combine(x: Value, y: Value, count: int) -> Value:
        if node.attrs.get("numbers"):
            return arith.larger(fn, kind is E.Max, x, y)
        var = E.Var("lane", dt.with_lanes(scalar, count))
        return arith.binary(fn, kind(var, var), x, y)

    def part(first: int, count: int) -> Value:
        """Neighbouring lanes; one lane is no vector."""
        return (
            memory.extract(fn, a, first) if count == 1 else memory.shuffle(fn, a, a, list(range(first, first + count)))
        )

    half = 1 << (lanes.bit_length() - 1)
    if half < lanes:
        rest = lanes - half
        head = combine(part(0, rest), part(half, rest), rest)
        if head.type.startswith("<"):
            wide = memory.shuffle(fn, head, head, [min(i, rest - 1) for i in range(half)])
        else:
            wide = memory.splat(fn, head, half)
        kept = memory.shuffle(fn, a, a, list(range(half)))
        a = memory.shuffle(fn, wide, kept, [i if i < rest else half + i for i in range(half)])
    while half > 1:
        half //= 2
        a = combine(part(0, half), part(half, half), half)
    return a if not a.type.startswith("<") else memory.extract(fn, a, 0)


def _dot(fn: FunctionPrinter, node: E.Call, acc: Value, a: Value, b: Value) -> Value:
    """acc[i] + sum_j a[n*i+j] * b[n*i+j]: the target's instruction where it has one, else products by shuffles."""
    group = int(node.op[3:])
    lanes = dt.lanes(node.dtype)
    types = [dt.scalar(x.dtype) for x in node.args[1:]]
    found = _by_instruction(fn, f"{node.op}.{types[0]}.{types[1]}", lanes, (acc, 1), (a, group), (b, group))
    if found is not None:
        return found
    for j in reversed(range(group)):
        picks = [i * group + j for i in range(lanes)]
        left, right = (
            convert(fn, memory.shuffle(fn, v, v, picks), dt.with_lanes(t, lanes), node.dtype)
            for v, t in zip((a, b), types, strict=True)
        )
        if dt.is_float(node.dtype):
            acc = _fma(fn, node, left, right, acc)
        else:
            product = fn.op(f"mul {left}, {right.name}", acc.type, left, right)
            acc = fn.op(f"add {acc}, {product.name}", acc.type, acc, product)
    return acc


def _to_bfloat16(fn: FunctionPrinter, node: E.Call, a: Value) -> Value:
    """float32 by the target's instruction (`expand_math` has left those only), which takes 16 lanes."""
    lanes = dt.lanes(node.dtype)
    made = _by_instruction(fn, instruction(node), lanes, (a, 1))
    if made is None:
        raise _not_expanded(fn, node)
    bits = "i16" if lanes == 1 else f"<{lanes} x i16>"
    return fn.op(f"bitcast {made} to {bits}", bits, made)


def _scale2(fn: FunctionPrinter, node: E.Call, a: Value, n: Value) -> Value:
    """a * 2^n by the target's instruction (`expand_math` has left those only)."""
    made = _by_instruction(fn, instruction(node), dt.lanes(node.dtype), (a, 1), (n, 1))
    if made is None:
        raise _not_expanded(fn, node)
    return made


def _lookup(fn: FunctionPrinter, node: E.Call, index: Value, *numbers: Value) -> Value:
    """Constants by the low bits of an index, by the target's instruction."""
    template = fn.target.intrinsic(f"{instruction(node)}.x{PARTS}")
    if template is None:
        raise _not_expanded(fn, node)
    lanes = dt.lanes(node.dtype)
    table = fn.literal(f"<{', '.join(map(str, numbers))}>", vector(numbers[0].type, PARTS))
    made = []
    for k in range(0, lanes, PARTS):
        picked = _resized(fn, index, PARTS) if lanes <= PARTS else memory.shuffle_one(fn, index, range(k, k + PARTS))
        made.append(fn.template(template, table, picked))
    while len(made) > 1:  # neighbours side by side
        made += made[-1:] * (len(made) % 2)
        both = list(range(2 * memory.lanes_of(made[0])))
        made = [memory.shuffle(fn, a, b, both) for a, b in zip(made[::2], made[1::2], strict=True)]
    return _resized(fn, made[0], lanes)


def _not_expanded(fn: FunctionPrinter, node: E.Call) -> LowerError:
    return LowerError(f"{node.op} to {node.dtype} cannot be printed", where=fn.func_name, hint="run expand_math")


def _by_instruction(fn: FunctionPrinter, name: str, lanes: int, *operands: tuple[Value, int]) -> Value | None:
    """An instruction of the target for so many lanes or the next wider one, of operands with a number of lanes for
    each of the result; None if there is none."""
    found = fn.target.at_least(name, lanes)
    if found is None:
        return None
    width, template = found
    return _resized(fn, fn.template(template, *(_resized(fn, v, width * n) for v, n in operands)), lanes)


def _resized(fn: FunctionPrinter, value: Value, count: int) -> Value:
    """A vector with lanes of no meaning added at its end, or lanes taken from it; one lane is no vector."""
    have = memory.lanes_of(value)
    if have == count:
        return value
    if have == 1:
        return memory.splat(fn, value, count)
    if count == 1:
        return memory.extract(fn, value, 0)
    return memory.shuffle_one(fn, value, range(count))


def _add_pairs(fn: FunctionPrinter, node: E.Call, acc: Value, a: Value) -> Value:
    """acc[i] + (a[2i] + a[2i+1])."""
    lanes, source = dt.lanes(node.dtype), dt.scalar(node.args[1].dtype)
    template = fn.target.intrinsic(f"add_pairs.{source}.x{lanes}")
    if template is not None:
        return fn.template(template, acc, a)
    even, odd = (
        convert(fn, memory.shuffle(fn, a, a, [2 * i + k for i in range(lanes)]), f"{source}x{lanes}", node.dtype)
        for k in range(2)
    )
    both = fn.op(f"add {even}, {odd.name}", acc.type, even, odd)
    return fn.op(f"add {acc}, {both.name}", acc.type, acc, both)


_HALVES = {"float16": "half", "bfloat16": "bfloat"}


def _llvm_call(fn: FunctionPrinter, node: E.Call, *args: Value) -> Value:
    """A function of LLVM by name; 16-bit floats, which are kept as their bits, are handed over as LLVM's own types."""
    name = str(node.attrs["name"])
    passed = []
    for value, operand in zip(args, node.args, strict=True):
        half = _HALVES.get(dt.scalar(operand.dtype))
        type = vector(half, memory.lanes_of(value)) if half else value.type
        passed.append(value if type == value.type else fn.op(f"bitcast {value} to {type}", type, value))
    half = _HALVES.get(dt.scalar(node.dtype))
    ret = vector(half, dt.lanes(node.dtype)) if half else value_type(node.dtype)
    problem = signature_problem(fn.target.triple, name, ret, tuple(v.type for v in passed))
    if problem:
        shown = ", ".join(v.type for v in passed)
        raise LowerError(
            f"call of {name} as {ret} ({shown}) cannot be printed",
            where=fn.func_name,
            why=problem,
            hint="see LLVM's Intrinsics*.td for the name and signature; the target must be of that architecture",
        )
    if node.op == "call_llvm_pure_intrin":
        out = fn.call(name, ret, *passed)
    else:
        fn.module.declare(name, ret, ", ".join(v.type for v in passed))
        out = Value(fn.name(), ret, fn.scope, pure=False)
        fn.line(f"{out.name} = call {ret} @{name}({', '.join(map(str, passed))})")
    kept = value_type(node.dtype)
    return out if ret == kept else fn.op(f"bitcast {out} to {kept}", kept, out)


@functools.cache
def signature_problem(triple: str, name: str, ret: str, args: tuple[str, ...]) -> str:
    """What LLVM has against a call of its function `name` with these types; empty if nothing."""
    params = ", ".join(f"{t} %a{i}" for i, t in enumerate(args))
    head = f'target triple = "{triple}"\n' if triple else ""
    text = (
        f"{head}declare {ret} @{name}({', '.join(args)})\n"
        f"define {ret} @wb_probe({params}) {{\n  %r = call {ret} @{name}({params})\n  ret {ret} %r\n}}\n"
    )
    llvm = machine.binding()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        return str(error).strip()
    return f"LLVM knows no function {name}" if "; Unknown intrinsic" in str(module) else ""


_TABLE: dict[str, Callable[..., Value]] = {
    "fma": _float(_fma),
    "sqrt": _float(_sqrt),
    **dict.fromkeys(_ROUND, _float(_rounding)),
    "abs": _abs,
    "fabs": _abs,
    "copysign": _float(_copysign),
    **dict.fromkeys(("isnan", "isinf", "isfinite"), _classify),
    **dict.fromkeys(("shift_left", "shift_right"), _shift),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), _bitwise),
    "bitwise_not": _bitwise_not,
    **dict.fromkeys(("popcount", "clz"), _count),
    "reinterpret": _reinterpret,
    "likely": lambda fn, node, a: a,
    **{f"vector_reduce_{k}": _reduce for k in _REDUCE},
    "to_bfloat16": _to_bfloat16,
    "scale2": _scale2,
    LOOKUP: _lookup,
    "dot4": _dot,
    "dot2": _dot,
    "add_pairs": _add_pairs,
    "call_llvm_intrin": _llvm_call,
    "call_llvm_pure_intrin": _llvm_call,
}
