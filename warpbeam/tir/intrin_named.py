"""Meanings of functions that programs call by name: C functions (registered by their users) and some of LLVM's own.

@register_extern("gemv_update")
def update(c, a, b, m, l, stride): c[:m] += …        # pointers arrive as flat NumPy views, numbers as numbers
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.tir.intrin import INTRINSICS, Meaning, evaluate

_EXTERNS: dict[str, Callable[..., Any]] = {}
_MATH = {"fabs": "abs", "rint": "round", "nearbyint": "round", "fmin": "min", "fmax": "max"}


def register_extern(name: str, fn: Callable[..., Any] | None = None) -> Any:
    """Gives a C function a meaning in Python, by which the interpreter runs calls of it; also a decorator."""

    def keep(meaning: Callable[..., Any]) -> Callable[..., Any]:
        _EXTERNS[name] = meaning
        return meaning

    return keep if fn is None else keep(fn)


def extern(name: str) -> Callable[..., Any]:
    """The Python meaning of a C function: one given by register_extern, or one registered with register_func.

    Raises:
        IRError: if there is neither.
    """
    from warpbeam.runtime.packed import get_global_func

    found = _EXTERNS.get(name) or get_global_func(name, allow_missing=True)
    if found is None:
        raise IRError(
            f"the interpreter cannot call the C function {name!r}",
            why="it has no meaning in Python",
            hint=f'give it one, @warpbeam.register_func("{name}"), or compile the program',
        )
    return found  # type: ignore[no-any-return]


def c_math(name: str) -> Meaning | None:
    """The meaning of a function of C's mathematics such as expf; None for other names."""
    base = name.lstrip("_")
    for plain in (base, base.removesuffix("f")):
        row = INTRINSICS.get(_MATH.get(plain, plain))
        if row is not None and row.numpy is not None and row.effect == "pure" and not row.across:
            return row.numpy
    return None


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


def of_llvm(name: str) -> Meaning:
    """The meaning of one of LLVM's functions.

    Raises:
        IRError: for a function that is not in the table here.
    """
    for pattern, meaning in _LLVM:
        if re.fullmatch(pattern, name):
            return meaning
    raise IRError(
        f"the interpreter does not know LLVM's function {name}",
        hint="add its meaning in tir/intrin_named.py, or compile the program",
    )
