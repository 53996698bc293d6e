"""Running computations of the library on arrays: shared by the tests of this folder."""

from __future__ import annotations

import numpy as np

from warpbeam import te
from warpbeam.ir import dtype as dt
from warpbeam.tir import interp

RNG = np.random.default_rng(7)


def value(fn, *arrays, outputs=1):
    """fn of placeholders for the arrays, run by the interpreter."""
    ins = [te.placeholder(a.shape, dt.from_numpy(a.dtype), f"x{i}") for i, a in enumerate(arrays)]
    outs = fn(*ins)
    outs = list(outs) if isinstance(outs, list | tuple) else [outs]
    found = [np.zeros([int(d) for d in t.shape], dt.to_numpy(t.dtype)) for t in outs]
    interp.run(te.create_prim_func(ins, outs, "f"), *arrays, *found)
    return found if len(outs) > 1 else found[0]


def floats(*shape):
    return RNG.uniform(-2, 2, shape).astype(np.float32)


def ints(*shape, low=-5, high=6):
    return RNG.integers(low, high, shape).astype(np.int32)
