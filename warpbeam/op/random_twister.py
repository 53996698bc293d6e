"""Uniform numbers of the Mersenne Twister MT19937, seeded as NumPy's RandomState(seed) is.

The reference of the ONNX standard draws the mask of a Dropout with a seed from it, so this mask is the same.
Unlike `op.random_ops` it is one sequence: numbers come in order, 312 to a block, by one thread.
Source: M. Matsumoto, T. Nishimura, Mersenne Twister, ACM TOMACS 8 (1998).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, tensor_type
from warpbeam.op.index_loops import Loops
from warpbeam.relay.types import TensorType, Type
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc, Stmt
from warpbeam.topi import dims

WORDS, MIDDLE, MATRIX, GROWTH = 624, 397, 0x9908B0DF, 1812433253
_LOW, _UPPER, _LOWER = 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF


def _word(value: int) -> Any:
    return E.const(value, "uint64")


def _right(x: Any, bits: int) -> Any:
    return E.call("shift_right", x, _word(bits))


def _left(x: Any, bits: int) -> Any:
    return E.call("shift_left", x, _word(bits))


def _and(x: Any, mask: int) -> Any:
    return E.call("bitwise_and", x, _word(mask))


def _xor(a: Any, b: Any) -> Any:
    return E.call("bitwise_xor", a, b)


class Twister(Op):
    """Uniform float64 numbers in [0, 1) of 53 bits: operand seed (int64 scalar, of which 32 bits count)."""

    name = "random.twister"
    defaults = {"shape": REQUIRED}
    folds = False

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        seed = tensor_type(self, types[0], "the seed")
        if seed.dtype != "int64" or seed.ndim:
            raise self.error("the seed must be an int64 scalar")
        return TensorType(attrs["shape"], "float64")  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, seed: np.ndarray) -> np.ndarray:
        shape = tuple(int(d) for d in attrs["shape"])
        source = np.random.RandomState(int(seed) & _LOW)
        return source.random_sample(math.prod(shape)).reshape(shape)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        (seed,), (out,) = loops.ins, loops.outs
        state, total = loops.temp((WORDS,), "uint64"), dims.prod(out.shape)

        def block(b: Any) -> Stmt:
            def number(j: Any) -> Stmt:
                flat = b * (WORDS // 2) + j
                at = loops.unflatten(flat, out.shape)
                pair = [_tempered(state[2 * j]), _tempered(state[2 * j + 1])]
                put = loops.lets(pair, lambda w: loops.store(out, at, _unit(*w)), "w")
                return loops.when(flat < total, put)

            return [_twist(loops, state), loops.loop(WORDS // 2, number, "j")]  # type: ignore[return-value]

        blocks = (total + (WORDS // 2 - 1)) // (WORDS // 2)
        return loops.func(*_seeded(loops, state, seed[()]), loops.loop(blocks, block, "b"))

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod(out_type.shape) * 40


def _seeded(loops: Loops, state: Any, seed: Any) -> list[Stmt]:
    """The first state: each word from the one before it."""

    def grow(i: Any) -> Stmt:
        def put(before: list[Any]) -> Stmt:
            mixed = _xor(before[0], _right(before[0], 30)) * _word(GROWTH)
            return loops.store(state, i + 1, _and(mixed + E.cast("uint64", i + 1), _LOW))

        return loops.lets([state[i]], put, "s")

    return [loops.store(state, 0, _and(E.cast("uint64", seed), _LOW)), loops.loop(WORDS - 1, grow, "i")]


def _twist(loops: Loops, state: Any) -> Stmt:
    """The next 624 words, in place."""

    def step(k: Any) -> Stmt:
        joined = E.call("bitwise_or", _and(state[k], _UPPER), _and(state[(k + 1) % WORDS], _LOWER))

        def put(y: list[Any]) -> Stmt:
            turned = _xor(state[(k + MIDDLE) % WORDS], _right(y[0], 1))
            return loops.store(state, k, _xor(turned, _and(y[0], 1) * _word(MATRIX)))

        return loops.lets([joined], put, "y")

    return loops.loop(WORDS, step, "k")


def _tempered(word: Any) -> Any:
    y = _xor(word, _right(word, 11))
    y = _xor(y, _and(_left(y, 7), 0x9D2C5680))
    y = _xor(y, _and(_left(y, 15), 0xEFC60000))
    return _xor(y, _right(y, 18))


def _unit(first: Any, second: Any) -> Any:
    """53 bits: 27 of the first word, 26 of the second."""
    high, low = (E.cast("float64", E.cast("int64", _right(w, d))) for w, d in ((first, 5), (second, 6)))
    return (high * E.const(2.0**26, "float64") + low) * E.const(2.0**-53, "float64")
