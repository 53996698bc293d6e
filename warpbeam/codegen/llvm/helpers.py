"""Small pieces of LLVM text for what some targets have no instruction for."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING

from warpbeam.codegen.llvm.emitter import Value

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter

CONTEXT = "{ i32, i32, ptr, i64, ptr, ptr, ptr, ptr, ptr, ptr, i32, i32, [176 x i8] }"
FAIL = """define internal i32 @wb_fail(ptr %ctx, ptr %text, i64 %bytes) noinline #0 {
entry:
  %message = getelementptr CONTEXT, ptr %ctx, i32 0, i32 12
  br label %copy
copy:
  %i = phi i64 [ 0, %entry ], [ %next, %copy ]
  %from = getelementptr i8, ptr %text, i64 %i
  %to = getelementptr i8, ptr %message, i64 %i
  %byte = load i8, ptr %from
  store i8 %byte, ptr %to
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %bytes
  br i1 %more, label %copy, label %done
done:
  ret i32 1
}
"""

# Subtracts the divisor times falling powers of two. Every subtraction is exact (Sterbenz), and so are the halvings,
# because no scaled divisor is smaller than the divisor.
_REMAINDER = """define internal T @NAME(T %a, T %b) noinline #0 {
entry:
  %x = call T @llvm.fabs.S(T %a)
  %y = call T @llvm.fabs.S(T %b)
  %finite = fcmp olt T %x, INF
  %positive = fcmp ogt T %y, 0.0
  %ok = and i1 %finite, %positive
  br i1 %ok, label %scale, label %bad
bad:
  %nan = fdiv T 0.0, 0.0
  ret T %nan
scale:
  %t = phi T [ %y, %entry ], [ %t2, %grow ]
  %half = fmul T %x, 0.5
  %up = fcmp ole T %t, %half
  br i1 %up, label %grow, label %reduce
grow:
  %t2 = fmul T %t, 2.0
  br label %scale
reduce:
  %r = phi T [ %x, %scale ], [ %r2, %step ]
  %d = phi T [ %t, %scale ], [ %d2, %step ]
  %go = fcmp oge T %d, %y
  br i1 %go, label %step, label %done
step:
  %fits = fcmp oge T %r, %d
  %less = fsub T %r, %d
  %r2 = select i1 %fits, T %less, T %r
  %d2 = fmul T %d, 0.5
  %last = fcmp ole T %d, %y
  br i1 %last, label %end, label %reduce
end:
  %out1 = call T @llvm.copysign.S(T %r2, T %a)
  ret T %out1
done:
  %out2 = call T @llvm.copysign.S(T %r, T %a)
  ret T %out2
}
"""

# Where x / y < 2^p the rounded quotient's whole part is at most one too large, and what it leaves is a multiple of y's
# last place no larger than y: exact in one fused step, and so is putting y back. Other lanes take the loop above.
_QUICK = Template("""define internal $V @$name($V %a, $V %b) noinline #0 {
entry:
  %x = call $V @llvm.fabs.$suffix($V %a)
  %y = call $V @llvm.fabs.$suffix($V %b)
  %ratio = fdiv $V %x, %y
  %quick = fcmp olt $V %ratio, $limit
  $rounding
  $step
  %below = fcmp olt $V %rest, zeroinitializer
  %back = fadd $V %rest, %y
  %fixed = select $F %below, $V %back, $V %rest
  %less = fcmp olt $V %x, %y
  %size = select $F %less, $V %x, $V %fixed
  %first = call $V @llvm.copysign.$suffix($V %size, $V %a)
  %flags = bitcast $F %quick to i$count
  %all = icmp eq i$count %flags, -1
  br i1 %all, label %done, label %lane
lane:
  %i = phi i64 [ 0, %entry ], [ %next, %after ]
  %v = phi $V [ %first, %entry ], [ %v2, %after ]
  %ready = extractelement $F %quick, i64 %i
  br i1 %ready, label %after, label %one
one:
  %p = extractelement $V %a, i64 %i
  %q = extractelement $V %b, i64 %i
  %r = call $T @$one($T %p, $T %q)
  %v1 = insertelement $V %v, $T %r, i64 %i
  br label %after
after:
  %v2 = phi $V [ %v, %lane ], [ %v1, %one ]
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, $count
  br i1 %more, label %lane, label %done
done:
  %out = phi $V [ %first, %entry ], [ %v2, %after ]
  ret $V %out
}
""")
_FUSED = """%minus = fneg $V %whole
  %rest = call $V @llvm.fma.$suffix($V %minus, $V %y, $V %x)"""
_WIDE = """%wx = fpext $V %x to $W
  %wy = fpext $V %y to $W
  %wq = fpext $V %whole to $W
  %product = fmul $W %wq, %wy
  %left = fsub $W %wx, %product
  %rest = fptrunc $W %left to $V"""


def fail_function() -> str:
    """Copies a message into the context and returns status 1."""
    return FAIL.replace("CONTEXT", CONTEXT)


def remainder_function(scalar: str) -> tuple[str, str]:
    """Name and text of C's fmod for float or double."""
    suffix = "f32" if scalar == "float" else "f64"
    text = _REMAINDER.replace("NAME", f"wb_fmod_{suffix}").replace("INF", "0x7FF0000000000000")
    return f"wb_fmod_{suffix}", text.replace("T ", f"{scalar} ").replace(".S(", f".{suffix}(")


def quick_remainder(fn: FunctionPrinter, type: str, lanes: int, scalar: str, one: str) -> str | None:
    """Name of fmod for vectors of a type, calling `one` for what is not quick; None where there is no exact step."""
    from warpbeam.codegen.llvm.arith import float_suffix

    single, fused, native = scalar == "float", fn.target.fma, fn.target.native_round
    if not (single or (fused and (native or fn.target.pointer_bits == 64))):
        return None  # whole parts of double would be calls of a library
    suffix, whole = float_suffix(type), f"<{lanes} x {'i32' if single else 'i64'}>"
    name = f"wb_fmod_{suffix}"
    words = {"V": type, "F": f"<{lanes} x i1>", "T": scalar, "W": f"<{lanes} x double>", "name": name, "one": one}
    words |= {"suffix": suffix, "count": str(lanes), "limit": fn.real(2.0**24 if single else 2.0**53, type)}
    rounding = "%whole = call $V @llvm.trunc.$suffix($V %ratio)"
    if not native:
        rounding = f"%number = fptosi $V %ratio to {whole}\n  %whole = sitofp {whole} %number to $V"
    parts = {
        k: Template(v).substitute(words) for k, v in (("rounding", rounding), ("step", _FUSED if fused else _WIDE))
    }
    fn.module.helpers[name] = _QUICK.substitute(words, **parts)
    for word, count in {"fabs": 1, "copysign": 2, "trunc": native, "fma": 3 * fused}.items():
        if count:
            fn.module.declare(f"llvm.{word}.{suffix}", type, ", ".join([type] * count))
    return name


def software_rounding(fn: FunctionPrinter, kind: str, value: Value) -> Value:
    """Rounding by adding and subtracting 2^23 (2^52): exact below it, and above it every value is an integer."""
    from warpbeam.codegen.llvm.arith import _flags, float_suffix

    type = value.type
    suffix = float_suffix(type)
    limit = 2.0**23 if suffix.endswith("f32") else 2.0**52
    flags = _flags(value)
    magic = fn.real(limit, type)
    size = fn.call(f"llvm.fabs.{suffix}", type, value)
    up = fn.op(f"fadd {size}, {magic}", type, size)
    near = fn.op(f"fsub {up}, {magic}", type, up)
    out = near
    signed = fn.call(f"llvm.copysign.{suffix}", type, near, value)
    one = fn.real(1.0, type)
    if kind == "trunc":
        over = fn.op(f"fcmp ogt {near}, {size.name}", flags, near, size)
        less = fn.op(f"fsub {near}, {one}", type, near)
        out = fn.op(f"select {over}, {less}, {near}", type, over, less, near)
    elif kind in ("floor", "ceil"):
        word, step = ("ogt", "fsub") if kind == "floor" else ("olt", "fadd")
        wrong = fn.op(f"fcmp {word} {signed}, {value.name}", flags, signed, value)
        moved = fn.op(f"{step} {signed}, {one}", type, signed)
        out = fn.op(f"select {wrong}, {moved}, {signed}", type, wrong, moved, signed)
    out = fn.call(f"llvm.copysign.{suffix}", type, out, value)
    small = fn.op(f"fcmp olt {size}, {magic}", flags, size)
    return fn.op(f"select {small}, {out}, {value}", type, small, out, value)
