"""What random schedules are tried on: computations that are exact on small whole numbers, however sums are taken."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam import te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import call, const, floordiv, floormod, if_then_else, land, maximum, select
from warpbeam.tir.stmt import PrimFunc


def _clipped(value: Any, low: Any, high: Any) -> Any:
    return land(value >= low, value < high)


def matmul() -> PrimFunc:
    """E = relu(A @ B + bias)."""
    a, b, bias = te.placeholder((9, 6), name="A"), te.placeholder((6, 20), name="B"), te.placeholder((20,), name="bias")
    k = te.reduce_axis(6, "k")
    c = te.compute((9, 20), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    d = te.compute((9, 20), lambda i, j: c[i, j] + bias[j], name="D")
    out = te.compute((9, 20), lambda i, j: maximum(d[i, j], 0.0), name="E")
    return create_prim_func([a, b, bias], [out], "matmul")


def conv2d() -> PrimFunc:
    """Padding, a 3x3 convolution of stride 2, relu; channels last."""
    x, w = te.placeholder((1, 7, 6, 3), name="X"), te.placeholder((3, 3, 3, 5), name="W")
    p = te.compute(
        (1, 9, 8, 3),
        lambda n, i, j, c: if_then_else(
            land(_clipped(i, 1, 8), _clipped(j, 1, 7)), x[n, i - 1, j - 1, c], const(0.0, "float32")
        ),
        name="P",
    )
    r, s, c = te.reduce_axis(3, "r"), te.reduce_axis(3, "s"), te.reduce_axis(3, "c")
    y = te.compute(
        (1, 4, 3, 5),
        lambda n, i, j, o: te.sum(p[n, i * 2 + r, j * 2 + s, c] * w[r, s, c, o], axis=[r, s, c]),
        name="Y",
    )
    out = te.compute((1, 4, 3, 5), lambda n, i, j, o: maximum(y[n, i, j, o], 0.0), name="E")
    return create_prim_func([x, w], [out], "conv2d")


def depthwise() -> PrimFunc:
    """A 3x3 window per channel, then a scale per channel."""
    x, w = te.placeholder((4, 9, 8), name="X"), te.placeholder((4, 3, 3), name="W")
    r, s = te.reduce_axis(3, "r"), te.reduce_axis(3, "s")
    y = te.compute((4, 7, 6), lambda c, i, j: te.sum(x[c, i + r, j + s] * w[c, r, s], axis=[r, s]), name="Y")
    out = te.compute((4, 7, 6), lambda c, i, j: y[c, i, j] * w[c, 0, 0], name="E")
    return create_prim_func([x, w], [out], "depthwise")


def softmax() -> PrimFunc:
    """The shape of softmax (maximum, map, sum, map) with whole numbers."""
    x = te.placeholder((5, 19), name="X")
    r, q = te.reduce_axis(19, "r"), te.reduce_axis(19, "q")
    mx = te.compute((5,), lambda i: te.max(x[i, r], axis=r), name="mx")
    ex = te.compute((5, 19), lambda i, j: (x[i, j] - mx[i]) * 2.0, name="ex")
    sm = te.compute((5,), lambda i: te.sum(ex[i, q], axis=q), name="sm")
    dv = te.compute((5, 19), lambda i, j: ex[i, j] * 4.0 + sm[i], name="dv")
    return create_prim_func([x], [dv], "softmax")


def scan() -> PrimFunc:
    """Running sums down the columns of a map, then a map of them."""
    x = te.placeholder((7, 10), name="X")
    y = te.compute((7, 10), lambda t, i: x[t, i] * 2.0, name="Y")
    state = te.placeholder((7, 10), name="S")
    start = te.compute((1, 10), lambda _, i: y[0, i], name="start")
    update = te.compute((7, 10), lambda t, i: state[t - 1, i] + y[t, i], name="update")
    total = te.scan(start, update, state, inputs=[y])
    out = te.compute((7, 10), lambda t, i: total[t, i] + 1.0, name="E")
    return create_prim_func([x], [out], "scan")


def argmax() -> PrimFunc:
    """Index and value of each row's largest element, the first of equals."""

    def combine(a: Any, b: Any) -> Any:
        better = (a[1] > b[1]) | ((a[1].equal(b[1])) & (a[0] <= b[0]))
        return select(better, a[0], b[0]), select(better, a[1], b[1])

    reducer = te.comm_reducer(combine, lambda t0, t1: (const(1000, t0), const(-1000.0, t1)), name="argmax")
    x = te.placeholder((6, 11), name="X")
    k = te.reduce_axis(11, "k")
    y = te.compute((6, 11), lambda i, j: x[i, j] * 3.0, name="Y")
    at, value = te.compute((6,), lambda i: reducer((k.astype("int32"), y[i, k]), axis=k), name="best")
    out = te.compute((6,), lambda i: value[i] + at[i].astype("float32"), name="E")
    return create_prim_func([x], [out], "argmax")


def transposed() -> PrimFunc:
    """A transposed convolution in one dimension, stride 2: dilation, padding, window."""
    x, w = te.placeholder((3, 6), name="X"), te.placeholder((3, 4, 3), name="W")
    d = te.compute(
        (3, 15),
        lambda c, i: if_then_else(
            land(floormod(i - 2, 2).equal(0), _clipped(i, 2, 13)), x[c, floordiv(i - 2, 2)], const(0.0, "float32")
        ),
        name="D",
    )
    c, r = te.reduce_axis(3, "c"), te.reduce_axis(3, "r")
    y = te.compute((4, 13), lambda o, i: te.sum(d[c, i + r] * w[c, o, 2 - r], axis=[c, r]), name="Y")
    out = te.compute((4, 13), lambda o, i: y[o, i] + 1.0, name="E")
    return create_prim_func([x, w], [out], "transposed")


def primes() -> PrimFunc:
    """A stencil and a column sum over sizes that nothing divides."""
    x = te.placeholder((13, 11), name="X")
    h = te.compute((11, 11), lambda i, j: x[i, j] + x[i + 1, j] - x[i + 2, j], name="H")
    r = te.reduce_axis(11, "r")
    s = te.compute((11,), lambda j: te.sum(h[r, j], axis=r), name="S")
    out = te.compute((11, 11), lambda i, j: h[i, j] * 2.0 - s[j], name="E")
    return create_prim_func([x], [out], "primes")


def symbolic() -> PrimFunc:
    """A product of matrices with a symbolic number of rows, and a map."""
    n = te.size_var("n")
    a, b = te.placeholder((n, 5), name="A"), te.placeholder((5, 8), name="B")
    k = te.reduce_axis(5, "k")
    c = te.compute((n, 8), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    out = te.compute((n, 8), lambda i, j: c[i, j] + 1.0, name="E")
    return create_prim_func([a, b], [out], "symbolic")


def rows() -> PrimFunc:
    """Sums of rows and of their squares, joined."""
    x = te.placeholder((7, 33), name="X")
    r, q = te.reduce_axis(33, "r"), te.reduce_axis(33, "q")
    s = te.compute((7,), lambda i: te.sum(x[i, r], axis=r), name="S")
    t = te.compute((7,), lambda i: te.sum(x[i, q] * x[i, q], axis=q), name="T")
    out = te.compute((7,), lambda i: s[i] * 2.0 - t[i], name="E")
    return create_prim_func([x], [out], "rows")


def chain() -> PrimFunc:
    """Maps of which some have several consumers."""
    x = te.placeholder((6, 10), name="X")
    a = te.compute((6, 10), lambda i, j: x[i, j] + 1.0, name="A")
    b = te.compute((6, 10), lambda i, j: a[i, j] * 2.0, name="B")
    c = te.compute((6, 10), lambda i, j: a[i, 9 - j] - b[i, j], name="C")
    d = te.compute((10, 6), lambda i, j: b[j, i] + c[j, i], name="D")
    out = te.compute((10, 6), lambda i, j: d[i, j] * x[j, i], name="E")
    return create_prim_func([x], [out], "chain")


def tuples() -> PrimFunc:
    """A computation of two results, each with a reader of its own, and two outputs."""
    x = te.placeholder((8, 9), name="X")
    p, q = te.compute((8, 9), lambda i, j: (x[i, j] + 1.0, x[i, j] * 3.0), name="PQ")
    u = te.compute((8, 9), lambda i, j: p[i, j] - q[i, j], name="U")
    v = te.compute((9, 8), lambda i, j: q[j, i] + u[j, i], name="V")
    return create_prim_func([x], [u, v], "tuples")


def weighted() -> PrimFunc:
    """Sums of what lies at each row's largest element: others are so much less that their exponential is 0."""
    x, v = te.placeholder((6, 10), name="X"), te.placeholder((6, 10, 8), name="V")
    k, r, q = te.reduce_axis(10, "k"), te.reduce_axis(10, "r"), te.reduce_axis(10, "q")
    m = te.compute((6, 10), lambda i, j: x[i, j] * 1000.0, name="M")
    t = te.compute((6,), lambda i: te.max(m[i, k], axis=k, init=const(-9000.0, "float32")), name="T")
    w = te.compute((6, 10), lambda i, j: call("exp", m[i, j] - t[i], most=0.0), name="W")
    n = te.compute((6,), lambda i: te.sum(w[i, r] * x[i, r], axis=r), name="N")
    s = te.compute((6, 8), lambda i, c: te.sum(w[i, q] * v[i, q, c], axis=q), name="S")
    out = te.compute((6, 8), lambda i, c: s[i, c] - n[i], name="E")
    return create_prim_func([x, v], [out], "weighted")


PROGRAMS: dict[str, Callable[[], PrimFunc]] = {
    f.__name__: f  # type: ignore[attr-defined]
    for f in (
        *(matmul, conv2d, depthwise, softmax, scan, argmax),
        *(transposed, primes, symbolic, rows, chain, tuples, weighted),
    )
}
SIZES: dict[str, tuple[dict[str, int], ...]] = {"symbolic": ({"n": 1}, {"n": 7}, {"n": 32})}


@functools.cache
def program(name: str) -> PrimFunc:
    return PROGRAMS[name]()


@functools.cache
def reference(name: str, case: int) -> tuple[dict[str, int], list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """(sizes, arguments before, arguments after) of the program as it was written."""
    from warpbeam.tir.interp import run

    func = program(name)
    sizes = SIZES.get(name, ({},))[case]
    rng = np.random.default_rng(len(name) + case)
    args = []
    for b in func.buffers:
        shape = [s if isinstance(s, int) else sizes[s.name] for s in b.shape]
        args.append(rng.integers(-4, 5, shape).astype(b.dtype))
    want = [a.copy() for a in args]
    run(func, *want, *sizes.values())
    return sizes, args, want


def cases(name: str) -> int:
    return len(SIZES.get(name, ({},)))


def outputs(name: str) -> int:
    return 2 if name == "tuples" else 1
