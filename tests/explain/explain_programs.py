"""Schedules to be shown: a tiled product, a producer at a symbolic consumer, a scan."""

from __future__ import annotations

from typing import Any

from warpbeam import te


def tiled_matmul(n: int = 64) -> tuple[Any, list[Any]]:
    """A product with a cached tile, placed, split, reordered, vectorized."""
    A = te.placeholder((n, n), name="A")
    B = te.placeholder((n, n), name="B")
    k = te.reduce_axis((0, n), name="k")
    C = te.compute((n, n), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C")
    s = te.create_schedule(C.op)
    CC = s.cache_write(C, "local")
    xo, yo, _, yi = s[C].tile(*s[C].op.axis, 8, 16)
    s[CC].compute_at(s[C], yo)
    ko, ki = s[CC].split(s[CC].op.reduce_axis[0], 4)
    x, y = s[CC].op.axis
    s[CC].reorder(ko, x, ki, y)
    s[CC].vectorize(y)
    s[C].vectorize(yi)
    s[C].parallel(xo)
    s[CC].unroll(ki)
    return s, [A, B, C]


def symbolic_chain() -> tuple[Any, list[Any]]:
    """Two stages over n elements, the first computed inside the second."""
    n = te.var("n")
    A = te.placeholder((n,), name="A")
    D = te.compute((n,), lambda i: A[i] * 2, name="D")
    E = te.compute((n,), lambda i: D[i] + D[i], name="E")
    s = te.create_schedule(E.op)
    outer, _ = s[E].split(E.op.axis[0], 32)
    s[D].compute_at(s[E], outer)
    return s, [A, E]


def running_sum() -> tuple[Any, list[Any]]:
    """A scan over ten steps."""
    X = te.placeholder((10, 4), name="X")
    state = te.placeholder((10, 4), name="state")
    init = te.compute((1, 4), lambda t, i: X[t, i], name="init")
    update = te.compute((10, 4), lambda t, i: state[t - 1, i] + X[t, i], name="update")
    R = te.scan(init, update, state, inputs=[X], name="R")
    return te.create_schedule(R.op), [X, R]
