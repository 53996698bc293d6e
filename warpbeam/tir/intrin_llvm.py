"""Meanings of some of LLVM's functions, so that programs that call them by name can be interpreted."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.tir.intrin import Meaning, evaluate


def _dot(group: int) -> Meaning:
    def meaning(values: Any, dtype: str) -> Any:
        return evaluate(f"dot{group}", values, dtype)

    return meaning


def _bytes_as(a: str, b: str) -> Meaning:
    """A dot product of words that hold four bytes each, read as dtypes `a` and `b`."""

    def meaning(values: Any, dtype: str) -> Any:
        acc, x, y = (np.ascontiguousarray(v) for v in values)
        return evaluate("dot4", [acc, x.view(dt.to_numpy(a)), y.view(dt.to_numpy(b))], dtype)

    return meaning


#: pattern of LLVM's name -> meaning; operands as in LLVM's Intrinsics*.td
_LLVM: list[tuple[str, Meaning]] = [
    (r"llvm\.x86\.avx512\.vpdpbusd\.(128|256|512)", _bytes_as("uint8", "int8")),
    (r"llvm\.x86\.avx512bf16\.dpbf16ps\.(128|256|512)", _dot(2)),
    (r"llvm\.aarch64\.neon\.sdot\.v\di32\.v\d+i8", _bytes_as("int8", "int8")),
    (r"llvm\.aarch64\.neon\.udot\.v\di32\.v\d+i8", _bytes_as("uint8", "uint8")),
    (r"llvm\.hexagon\.V6\.vrmpybusv\.acc(\.128B)?", _bytes_as("uint8", "int8")),
    (r"llvm\.hexagon\.V6\.vrmpyubv\.acc(\.128B)?", _bytes_as("uint8", "uint8")),
    (r"llvm\.hexagon\.V6\.vrmpybv\.acc(\.128B)?", _bytes_as("int8", "int8")),
    (r"llvm\.arm\.neon\.vpadal[su]\.v\di32\.v\di16", lambda v, t: evaluate("add_pairs", v, t)),
    (r"llvm\.fma(\.v\d+)?\.?f\d+", lambda v, t: evaluate("fma", v, t)),
    (r"llvm\.sqrt(\.v\d+)?\.?f\d+", lambda v, t: evaluate("sqrt", v, t)),
    (r"llvm\.fabs(\.v\d+)?\.?f\d+", lambda v, t: evaluate("abs", v, t)),
    (r"llvm\.ctpop(\.v\d+)?\.?i\d+", lambda v, t: evaluate("popcount", v, t)),
]


def meaning_of(name: str) -> Meaning:
    """The meaning of one of LLVM's functions.

    Raises:
        IRError: for a function that is not in the table here.
    """
    for pattern, meaning in _LLVM:
        if re.fullmatch(pattern, name):
            return meaning
    raise IRError(
        f"the interpreter does not know LLVM's function {name}",
        hint="add its meaning in tir/intrin_llvm.py, or compile the program",
    )
