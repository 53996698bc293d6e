"""Small pieces of LLVM text for what some targets have no instruction for."""

from __future__ import annotations

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


def fail_function() -> str:
    """Copies a message into the context and returns status 1."""
    return FAIL.replace("CONTEXT", CONTEXT)


def remainder_function(scalar: str) -> tuple[str, str]:
    """Name and text of C's fmod for float or double."""
    suffix = "f32" if scalar == "float" else "f64"
    text = _REMAINDER.replace("NAME", f"wb_fmod_{suffix}").replace("INF", "0x7FF0000000000000")
    return f"wb_fmod_{suffix}", text.replace("T ", f"{scalar} ").replace(".S(", f".{suffix}(")


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
