"""Text of loop programs: `to_text(func)` prints, `parse(text)` reads it back to an equal program.

    def scale(A: float32[n, 16], B: float32[n, 16], n: size):
        for i in parallel(n):
            for j in range(16):
                block "B" (vi: spatial[n] = i, vj: spatial[16] = j):
                    B[vi, vj] = A[vi, vj] * 2.0

Literals without a type are int64, float32 (with a point or exponent) and bool; others say it: int8(3), float64(0.5).
`/` truncates for integers, `//` and `%` round down. Binders get unique names; `free` declares what nothing binds.
"""

from __future__ import annotations

from warpbeam.tir.text.parser import parse
from warpbeam.tir.text.printer import brief, to_text

__all__ = ["brief", "parse", "to_text"]
