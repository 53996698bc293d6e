"""Some of LLVM's functions in the words of TIR, so that programs that call them by name can be interpreted and printed
in other languages:

call_llvm_pure_intrin(acc, x, y) {"name": "llvm.x86.avx512.vpdpbusd.512"}
    ->  dot4(acc, reinterpret[uint8x64](x), reinterpret[int8x64](y))
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import intrin
from warpbeam.tir.expr import Call, PrimExpr
from warpbeam.tir.intrin import Meaning, Values
from warpbeam.tir.stmt import PrimFunc

CALLS = ("call_llvm_intrin", "call_llvm_pure_intrin")


@dataclass(frozen=True)
class Same:
    """What one of LLVM's functions is: `op` of tir/intrin.py, its operands read as lanes of the dtypes `reads` ("" for
    as they are)."""

    op: str
    reads: tuple[str, ...] = ()


#: pattern of LLVM's name -> meaning; operands as in LLVM's Intrinsics*.td. Groups: bits, lanes and scalar of the result
_LLVM: list[tuple[str, Same]] = [
    (r"llvm\.x86\.avx512\.vpdpbusd\.(?P<bits>128|256|512)", Same("dot4", ("", "uint8", "int8"))),
    (r"llvm\.x86\.avx512bf16\.dpbf16ps\.(?P<bits>128|256|512)", Same("dot2")),
    (r"llvm\.aarch64\.neon\.sdot\.v(?P<lanes>\d)i32\.v\d+i8", Same("dot4", ("", "int8", "int8"))),
    (r"llvm\.aarch64\.neon\.udot\.v(?P<lanes>\d)i32\.v\d+i8", Same("dot4", ("", "uint8", "uint8"))),
    (r"llvm\.hexagon\.V6\.vrmpybusv\.acc(\.128B)?", Same("dot4", ("", "uint8", "int8"))),
    (r"llvm\.hexagon\.V6\.vrmpyubv\.acc(\.128B)?", Same("dot4", ("", "uint8", "uint8"))),
    (r"llvm\.hexagon\.V6\.vrmpybv\.acc(\.128B)?", Same("dot4", ("", "int8", "int8"))),
    (r"llvm\.arm\.neon\.vpadal[su]\.v(?P<lanes>\d)i32\.v\di16", Same("add_pairs")),
    *(
        (rf"llvm\.{name}\.(v(?P<lanes>\d+))?(?P<scalar>{kind}\d+)", Same(op))
        for name, op, kind in (
            ("fma", "fma", "f"), ("sqrt", "sqrt", "f"), ("fabs", "abs", "f"), ("copysign", "copysign", "f"),
            ("floor", "floor", "f"), ("ceil", "ceil", "f"), ("trunc", "trunc", "f"),
            ("(rint|nearbyint|roundeven)", "round", "f"), ("ctpop", "popcount", "i"),
        )
    ),
]  # fmt: skip


def _same(name: str) -> tuple[Same, dict[str, str | None]] | None:
    for pattern, same in _LLVM:
        found = re.fullmatch(pattern, name)
        if found:
            return same, found.groupdict()
    return None


def meaning_of(name: str) -> Meaning:
    """The meaning of one of LLVM's functions.

    Raises:
        IRError: for a function that is not in the table here.
    """
    found = _same(name)
    if found is None:
        raise IRError(
            f"the interpreter does not know LLVM's function {name}",
            hint="add its meaning in tir/intrin_llvm.py, or compile the program",
        )
    same = found[0]

    def meaning(values: Values, dtype: str) -> np.ndarray:
        read = [
            np.ascontiguousarray(v).view(dt.to_numpy(as_type)) if as_type else v
            for v, as_type in zip(values, same.reads or ("",) * len(values), strict=True)
        ]
        return np.asarray(intrin.evaluate(same.op, read, dtype))

    return meaning


def equivalent(node: Call) -> PrimExpr | None:
    """A call of one of LLVM's functions in the words of TIR; None where the table here has none for it, or its name
    does not fit its operands."""
    found = _same(str(node.attrs["name"]))
    if found is None or len(node.args) != intrin.get(found[0].op).arity:
        return None
    same, says = found
    lanes, scalar = dt.lanes(node.dtype), dt.scalar(node.dtype)
    if says.get("bits") not in (None, str(lanes * dt.bits(node.dtype))):
        return None
    if "lanes" in says and int(says["lanes"] or 1) != lanes:
        return None
    if says.get("scalar") not in (None, f"{'f' if dt.is_float(scalar) else 'i'}{dt.bits(node.dtype)}"):
        return None
    return Call(
        node.dtype, same.op,
        [_read(a, t) for a, t in zip(node.args, same.reads or ("",) * len(node.args), strict=True)],
    )  # fmt: skip


def _read(value: PrimExpr, dtype: str) -> PrimExpr:
    """The bits of a value as lanes of a scalar dtype."""
    if dtype in ("", dt.scalar(value.dtype)):
        return value
    count = dt.lanes(value.dtype) * dt.bits(value.dtype) // dt.bits(dtype)
    return Call(dt.with_lanes(dtype, count), "reinterpret", (value,))


def without_llvm(func: PrimFunc) -> PrimFunc:
    """The function with those calls of LLVM's functions that TIR has words for in these words."""
    if not any(isinstance(n, Call) and n.op in CALLS for n in post_order(func.body)):
        return func
    body = rewrite(func.body, lambda n: equivalent(n) if isinstance(n, Call) and n.op in CALLS else None)
    return func.replace(body=body)  # type: ignore[no-any-return]
