"""Random numbers as a function of a seed: Philox 4x32-10, a generator without state.

Element number i of a result is made from the counter (i mod 2**32, i >> 32, 0, 0) and the seed's 64 bits as the key, so
that any number of threads, any order and any machine give the same bits. Source: J. Salmon et al., Parallel random
numbers: as easy as 1, 2, 3 (SC 2011). Every run of a compiled model gives the same numbers; another seed, others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, tensor_type
from warpbeam.op.index_loops import Loops
from warpbeam.relay.types import TensorType, Type
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc
from warpbeam.topi import dims

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_LOW = 0xFFFFFFFF


def philox(counter: np.ndarray, key: int) -> list[np.ndarray]:
    """Four words of 32 bits (as uint64) for each 128-bit counter, given as an array of shape (4, n) of words."""
    c = [w.astype(np.uint64) for w in counter]
    k = [np.uint64(key & _LOW), np.uint64((key >> 32) & _LOW)]
    low, half = np.uint64(_LOW), np.uint64(32)
    for _ in range(ROUNDS):
        first, second = (c[0] * np.uint64(MULTIPLIERS[0]), c[2] * np.uint64(MULTIPLIERS[1]))
        c = [(second >> half) ^ c[1] ^ k[0], second & low, (first >> half) ^ c[3] ^ k[1], first & low]
        k = [(k[n] + np.uint64(WEYL[n])) & low for n in range(2)]
    return c


def _rounds(loops: Loops, index: Any, seed: Any, body: Callable[[list[Any]], Any]) -> Any:
    """`body(words)` with the four words of element `index`, as uint64 variables below 2**32."""
    low, half = E.const(_LOW, "uint64"), E.const(32, "uint64")

    def high(x: Any) -> Any:
        return E.call("shift_right", x, half)

    def both(x: Any) -> Any:
        return E.call("bitwise_and", x, low)

    def xor(*items: Any) -> Any:
        out = items[0]
        for item in items[1:]:
            out = E.call("bitwise_xor", out, item)
        return out

    def step(c: list[Any], k: list[Any], left: int) -> Any:
        if not left:
            return body(c)

        def mixed(product: list[Any]) -> Any:
            first, second = product
            words = [xor(high(second), c[1], k[0]), both(second), xor(high(first), c[3], k[1]), both(first)]
            keys = [both(k[n] + E.const(WEYL[n], "uint64")) for n in range(2)]
            return loops.lets([*words, *keys], lambda v: step(v[:4], v[4:], left - 1), "w")

        factors = [E.const(m, "uint64") for m in MULTIPLIERS]
        return loops.lets([c[0] * factors[0], c[2] * factors[1]], mixed, "p")

    at, key = E.cast("uint64", index), E.cast("uint64", seed)
    zero = E.const(0, "uint64")
    start = [both(at), high(at), zero, zero, both(key), high(key)]
    return loops.lets(start, lambda v: step(v[:4], v[4:], ROUNDS), "c")


class Random(Op):
    """Base: operand seed (int64 scalar), a result of `shape` and `dtype` (float32 or float64)."""

    defaults = {"shape": REQUIRED, "dtype": "float32"}
    folds = False
    kind: ClassVar[str] = ""

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        seed = tensor_type(self, types[0], "the seed")
        if seed.dtype != "int64" or seed.ndim:
            raise self.error("the seed must be an int64 scalar")
        if attrs["dtype"] not in ("float32", "float64"):
            raise self.error(f"makes float32 and float64, not {attrs['dtype']}", "cast the result")
        return TensorType(attrs["shape"], attrs["dtype"])  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, seed: np.ndarray) -> np.ndarray:
        shape, single = tuple(int(d) for d in attrs["shape"]), attrs["dtype"] == "float32"
        index = np.arange(math.prod(shape), dtype=np.uint64)
        zero = np.zeros_like(index)
        counter = np.stack([index & np.uint64(_LOW), index >> np.uint64(32), zero, zero])
        w = philox(counter, int(seed.reshape(()).astype(np.uint64)))
        pairs = [(w[0], None), (w[1], None)] if single else [(w[0], w[1]), (w[2], w[3])]
        units = [_unit_reference(*p).astype(dt.to_numpy(attrs["dtype"])) for p in pairs]
        return self.reference(units).reshape(shape)

    def reference(self, units: list[np.ndarray]) -> np.ndarray:
        """The numbers from two uniform ones each (NumPy side)."""
        raise NotImplementedError

    def element(self, units: list[Any], dtype: str) -> Any:
        """A number from two uniform ones."""
        raise NotImplementedError

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        (seed,), (out,) = loops.ins, loops.outs
        dtype = out.dtype

        def give(at: list[Any]) -> Any:
            flat: Any = E.const(0)
            for place, size in zip(at, out.shape, strict=True):
                flat = flat * size + place

            def put(w: list[Any]) -> Any:
                pairs = [(w[0], None), (w[1], None)] if dtype == "float32" else [(w[0], w[1]), (w[2], w[3])]
                return loops.lets(
                    [_unit(a, b, dtype) for a, b in pairs], lambda u: loops.store(out, at, self.element(u, dtype)), "u"
                )

            return _rounds(loops, flat, seed[()], put)

        return loops.func(loops.nest(out.shape, give, parallel=True))

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod(out_type.shape) * 8 * ROUNDS


def _unit_reference(first: np.ndarray, second: np.ndarray | None) -> np.ndarray:
    """Uniform in [0, 1): 24 bits of one word, or 53 bits of two."""
    if second is None:
        return (first >> np.uint64(8)).astype(np.float64) * 2.0**-24
    high, low = (first >> np.uint64(5)).astype(np.float64), (second >> np.uint64(6)).astype(np.float64)
    return (high * 2.0**26 + low) * 2.0**-53  # type: ignore[no-any-return]


def _unit(first: Any, second: Any, dtype: str) -> Any:
    def bits(word: Any, drop: int) -> Any:
        return E.cast(dtype, E.cast("int64", E.call("shift_right", word, E.const(drop, "uint64"))))

    if second is None:
        return bits(first, 8) * E.const(2.0**-24, dtype)
    return (bits(first, 5) * E.const(2.0**26, dtype) + bits(second, 6)) * E.const(2.0**-53, dtype)


class Uniform(Random):
    """Uniform numbers in [0, 1)."""

    name = "random.uniform"

    def reference(self, units: list[np.ndarray]) -> np.ndarray:
        return units[0]

    def element(self, units: list[Any], dtype: str) -> Any:
        return units[0]


class Normal(Random):
    """Normal numbers of mean 0 and variance 1: the cosine half of the Box-Muller transform."""

    name = "random.normal"

    def reference(self, units: list[np.ndarray]) -> np.ndarray:
        one = np.asarray(1, units[0].dtype)
        radius = np.sqrt(-2 * np.log(one - units[0]))  # the logarithm of (0, 1]
        return (radius * np.cos(units[1] * np.asarray(2 * math.pi, one.dtype))).astype(one.dtype)  # type: ignore[no-any-return]

    def element(self, units: list[Any], dtype: str) -> Any:
        radius = E.call("sqrt", E.const(-2.0, dtype) * E.call("log", E.const(1.0, dtype) - units[0]))
        return radius * E.call("cos", units[1] * E.const(2 * math.pi, dtype))
