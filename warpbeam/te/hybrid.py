"""Tensors from Python functions with loops: `te.hybrid.script` reads the function's source.

    @te.hybrid.script
    def outer(a, b):
        c = output_tensor((a.shape[0], b.shape[0]), "float32")
        for i in range(a.shape[0]):
            for j in parallel(b.shape[0]):
                c[i, j] = a[i] * b[j]
        return c

    c = outer(te.placeholder((8,)), te.placeholder((9,)))       # a te tensor
    c = outer(numpy.ones(8), numpy.ones(9))                     # runs as Python

Loops: range, parallel, unroll, vectorize, const_range, bind(tag, extent). Memory: output_tensor, allocate. Statements:
assignments, if, while, assert, return. Functions: those of `te` by their bare names, casts by dtype names, likely,
ceil_div, max_num_threads.
"""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.te.hybrid_parse import HybridError, Script
from warpbeam.te.operation import ExternOp, Tensor
from warpbeam.tir.expr import PrimExpr

__all__ = ["HybridError", "HybridFunction", "script"]


class HybridFunction:
    """A script: gives te tensors for te tensors, arrays for arrays."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any) -> Any:
        if any(isinstance(a, Tensor | PrimExpr) for arg in args for a in _each(arg)):
            return self.tensors(*args)
        return self._emulated()(*args)

    def tensors(self, *args: Any) -> Any:
        """The tensor (or list of tensors) that the script returns for te tensors, variables and numbers."""
        found = Script(self.function, args).parse()
        op = ExternOp(found.name, found.inputs, found.input_buffers, found.outputs, found.body)
        outs = [op.output(k) for k in range(op.num_outputs)]
        return outs[0] if len(outs) == 1 else outs

    def _emulated(self) -> Callable[..., Any]:
        """The function with the script's words given a meaning in NumPy."""
        f: Any = self.function
        names = {**f.__globals__, **_numpy_words()}
        return types.FunctionType(f.__code__, names, f.__name__, f.__defaults__, f.__closure__)


def _each(arg: Any) -> Any:
    return arg if isinstance(arg, list | tuple) else (arg,)


def script(function: Callable[..., Any]) -> HybridFunction:
    """Makes a script of a Python function; see the module."""
    return HybridFunction(function)


def _numpy_words() -> dict[str, Any]:
    def zeros(shape: Any, dtype: str = "float32", scope: str = "global") -> Any:
        return np.zeros(shape, dtype)

    def loop(*bounds: Any) -> Any:
        return builtins.range(*(int(b) for b in bounds))

    words: dict[str, Any] = dict.fromkeys(("parallel", "unroll", "vectorize", "const_range"), loop)
    words |= {"output_tensor": zeros, "allocate": zeros, "bind": lambda tag, extent: builtins.range(int(extent))}
    words |= {"likely": lambda x: x, "ceil_div": lambda a, b: -(-a // b), "max_num_threads": lambda *_: 1024}
    words |= {
        n: getattr(np, n) for n in ("exp", "log", "sqrt", "tanh", "power", "round", "floor", "ceil", "sin", "cos")
    }
    words |= {"rsqrt": lambda x: 1 / np.sqrt(x), "sigmoid": lambda x: 1 / (1 + np.exp(-x))}
    words |= {"popcount": lambda x: int(x).bit_count()}
    kinds = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
    return words | {k: getattr(np, k) for k in kinds}
