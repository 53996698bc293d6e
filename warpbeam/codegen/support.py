"""What LLVM calls from a compiler's own library on some machines, as LLVM IR: generated code brings its own.

Hexagon: integer division (shift and subtract), and the square root of float32 (rounded to nearest, ties to even).
Weak, so that a compiler's library may take their place when a static archive is linked.
"""

from __future__ import annotations

import string

_DIVISION = """
define internal {$T, $T} @wb_divide_$T($T %a, $T %b) noinline nounwind {
entry:
  %zeros = call $T @llvm.ctlz.$T($T %a, i1 false)
  %bits = sub $T $W, %zeros
  br label %loop
loop:
  %i = phi $T [ %bits, %entry ], [ %i1, %step ]
  %q = phi $T [ 0, %entry ], [ %q1, %step ]
  %r = phi $T [ 0, %entry ], [ %r1, %step ]
  %more = icmp ne $T %i, 0
  br i1 %more, label %step, label %done
step:
  %i1 = sub $T %i, 1
  %shifted = lshr $T %a, %i1
  %bit = and $T %shifted, 1
  %carry = icmp slt $T %r, 0
  %twice = shl $T %r, 1
  %next = or $T %twice, %bit
  %above = icmp uge $T %next, %b
  %fits = or i1 %carry, %above
  %less = sub $T %next, %b
  %r1 = select i1 %fits, $T %less, $T %next
  %one = zext i1 %fits to $T
  %q2 = shl $T %q, 1
  %q1 = or $T %q2, %one
  br label %loop
done:
  %pair = insertvalue {$T, $T} poison, $T %q, 0
  %out = insertvalue {$T, $T} %pair, $T %r, 1
  ret {$T, $T} %out
}
declare $T @llvm.ctlz.$T($T, i1)

define internal $T @wb_size_$T($T %a) noinline nounwind {
  %negative = icmp slt $T %a, 0
  %minus = sub $T 0, %a
  %size = select i1 %negative, $T %minus, $T %a
  ret $T %size
}
"""

# Part $K of the quotient and remainder: the sign is that of the dividend, times that of $SIGN.
_PART = """
define weak hidden $T @__hexagon_u$F$S($T %a, $T %b) nounwind {
  %pair = call {$T, $T} @wb_divide_$T($T %a, $T %b)
  %part = extractvalue {$T, $T} %pair, $K
  ret $T %part
}

define weak hidden $T @__hexagon_$F$S($T %a, $T %b) nounwind {
  %x = call $T @wb_size_$T($T %a)
  %y = call $T @wb_size_$T($T %b)
  %pair = call {$T, $T} @wb_divide_$T($T %x, $T %y)
  %part = extractvalue {$T, $T} %pair, $K
  %signs = xor $T %a, $SIGN
  %negative = icmp slt $T %signs, 0
  %minus = sub $T 0, %part
  %out = select i1 %negative, $T %minus, $T %part
  ret $T %out
}
"""

# The argument is m * 2^(e - 23), m of 24 bits. n = m * 2^25 or m * 2^26, so that what is left is an even power of two;
# the root of n has 25 bits, one more than the result. It is rounded up if that last bit is set: no root lies half-way
# between two floats, since an odd root's square is odd and n is even.
_SQUARE_ROOT = """
define weak hidden float @__hexagon_sqrtf(float %x) nounwind {
entry:
  %bits = bitcast float %x to i32
  %magnitude = and i32 %bits, 2147483647
  %zero = icmp eq i32 %magnitude, 0
  %negative = icmp slt i32 %bits, 0
  %infinite = icmp eq i32 %bits, 2139095040
  %not.a.number = icmp ugt i32 %magnitude, 2139095040
  %same.1 = or i1 %zero, %infinite
  %same = or i1 %same.1, %not.a.number
  br i1 %same, label %itself, label %sign
itself:
  ret float %x
sign:
  br i1 %negative, label %nan, label %normal
nan:
  ret float 0x7FF8000000000000
normal:
  %field = lshr i32 %magnitude, 23
  %low = and i32 %magnitude, 8388607
  %tiny = icmp eq i32 %field, 0
  %with = or i32 %low, 8388608
  %zeros = call i32 @llvm.ctlz.i32(i32 %low, i1 false)
  %up = sub i32 %zeros, 8
  %up.some = select i1 %tiny, i32 %up, i32 0
  %start = select i1 %tiny, i32 %low, i32 %with
  %m = shl i32 %start, %up.some
  %e.1 = sub i32 %field, 127
  %is.tiny = zext i1 %tiny to i32
  %e.2 = add i32 %e.1, %is.tiny
  %e = sub i32 %e.2, %up.some
  %odd = and i32 %e, 1
  %s = add i32 %odd, 25
  %wide = zext i32 %m to i64
  %s.wide = zext i32 %s to i64
  %n = shl i64 %wide, %s.wide
  br label %loop
loop:
  %bit = phi i64 [ 16777216, %normal ], [ %bit1, %loop ]
  %root = phi i64 [ 0, %normal ], [ %root1, %loop ]
  %trial = or i64 %root, %bit
  %square = mul i64 %trial, %trial
  %fits = icmp ule i64 %square, %n
  %root1 = select i1 %fits, i64 %trial, i64 %root
  %bit1 = lshr i64 %bit, 1
  %more = icmp ne i64 %bit1, 0
  br i1 %more, label %loop, label %done
done:
  %near = add i64 %root1, 1
  %half = lshr i64 %near, 1
  %q = trunc i64 %half to i32
  %power.1 = sub i32 %e, 23
  %power.2 = sub i32 %power.1, %s
  %power = ashr i32 %power.2, 1
  %exponent = add i32 %power, 150
  %high = shl i32 %exponent, 23
  %out = add i32 %high, %q
  %result = bitcast i32 %out to float
  ret float %result
}
"""


def support_ir(triple: str) -> str:
    """The text of a module with what a machine lacks; empty where it lacks nothing."""
    if not triple.startswith("hexagon"):
        return ""
    parts = []
    for width, suffix in ((32, "si3"), (64, "di3")):
        given = {"T": f"i{width}", "W": width, "S": suffix}
        parts.append(string.Template(_DIVISION).substitute(given))
        for k, (name, sign) in enumerate((("div", "%b"), ("mod", "0"))):
            parts.append(string.Template(_PART).substitute(given, F=name, K=k, SIGN=sign))
    return "\n".join([f'target triple = "{triple}"', *parts, _SQUARE_ROOT])
