"""Small programs and the comparison that every schedule test makes: scheduled, and lowered, equal to unscheduled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tolerance import close

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import Var, call, const_int, if_then_else, land, maximum
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import apply_layout
from warpbeam.tir.stmt import Block, PrimFunc
from warpbeam.tir.transform import lower


def arrays(func: PrimFunc, sizes: dict[str, int], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    found = []
    for b in func.buffers:
        shape = [s if isinstance(s, int) else sizes[s.name] for s in b.shape]
        if dt.is_float(b.dtype):
            found.append(rng.standard_normal(shape).astype(b.dtype))
        else:
            found.append(rng.integers(0, 5, shape).astype(b.dtype))
    return found


def check(ref: PrimFunc, func: PrimFunc, outputs: int = 1, sizes: dict[str, int] | None = None) -> PrimFunc:
    """Runs both and the lowered second; gives the lowered program."""
    sizes = sizes or {}
    args = arrays(ref, sizes)
    want = [a.copy() for a in args]
    run(ref, *want, *sizes.values())
    lowered = lower(func)
    layouts = func.attrs.get("layouts", {})
    packed = [apply_layout(a, layouts[b.name]) if b.name in layouts else a for a, b in zip(args, ref.buffers)]
    for program in (func, lowered):
        got = [a.copy() for a in packed]
        for g in got[len(got) - outputs :]:
            g[...] = -77
        run(program, *got, *sizes.values())
        for b, g, w in list(zip(ref.buffers, got, want))[len(got) - outputs :]:
            if b.name in layouts:  # padding is left as it was
                there = apply_layout(np.ones_like(w), layouts[b.name]) == 1
                g, w = g[there], apply_layout(w, layouts[b.name])[there]
            close(g, w, _terms(ref, sizes))
    return lowered


def _terms(func: PrimFunc, sizes: dict[str, int]) -> int:
    """Roundings behind an element: a block adds one, a reduction the extent of its axes."""
    total = 0
    for block in (n for n in post_order(func.body) if isinstance(n, Block)):
        extents = [a.extent for a in block.axes if a.kind != "spatial"]
        total += 1 + math.prod(sizes[d.name] if isinstance(d, Var) else const_int(d) or 1 for d in extents)
    return total


def pointwise(*shape: Any) -> PrimFunc:
    """B = A * 2; C = B + A."""
    a = te.placeholder(shape, name="A")
    b = te.compute(shape, lambda *i: a(*i) * 2.0, name="B")
    c = te.compute(shape, lambda *i: b(*i) + a(*i), name="C")
    return create_prim_func([a], [c], "pointwise")


def matmul(m: Any, n: Any, k: Any) -> PrimFunc:
    """E = relu(A @ B + bias), the epilogue in two blocks D and E."""
    a, b = te.placeholder((m, k), name="A"), te.placeholder((k, n), name="B")
    bias = te.placeholder((n,), name="bias")
    r = te.reduce_axis(k, "k")
    c = te.compute((m, n), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="C")
    d = te.compute((m, n), lambda i, j: c[i, j] + bias[j], name="D")
    out = te.compute((m, n), lambda i, j: maximum(d[i, j], 0.0), name="E")
    return create_prim_func([a, b, bias], [out], "matmul")


def convolution(h: int, w: int, ic: int, oc: int, k: int, stride: int, pad: int) -> PrimFunc:
    """P pads, C convolves (NHWC), E is relu."""
    x = te.placeholder((1, h, w, ic), name="X")
    wt = te.placeholder((k, k, ic, oc), name="W")
    oh, ow = (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1
    p: Any = x
    if pad:
        p = te.compute(
            (1, h + 2 * pad, w + 2 * pad, ic),
            lambda n, i, j, c: if_then_else(
                land(i >= pad, i < h + pad, j >= pad, j < w + pad), x[n, i - pad, j - pad, c], 0.0
            ),
            name="P",
        )
    kh, kw, kc = te.reduce_axis(k, "kh"), te.reduce_axis(k, "kw"), te.reduce_axis(ic, "ic")
    c = te.compute(
        (1, oh, ow, oc),
        lambda n, i, j, o: te.sum(p[n, i * stride + kh, j * stride + kw, kc] * wt[kh, kw, kc, o], axis=[kh, kw, kc]),
        name="C",
    )
    out = te.compute((1, oh, ow, oc), lambda n, i, j, o: maximum(c[n, i, j, o], 0.0), name="E")
    return create_prim_func([x, wt], [out], "convolution")


def softmax(m: Any, n: Any) -> PrimFunc:
    """Row maximum mx, exponentials ex, their sum sm, quotients dv."""
    x = te.placeholder((m, n), name="X")
    r, q = te.reduce_axis(n, "r"), te.reduce_axis(n, "q")
    mx = te.compute((m,), lambda i: te.max(x[i, r], axis=r), name="mx")
    ex = te.compute((m, n), lambda i, j: call("exp", x[i, j] - mx[i]), name="ex")
    sm = te.compute((m,), lambda i: te.sum(ex[i, q], axis=q), name="sm")
    dv = te.compute((m, n), lambda i, j: ex[i, j] / sm[i], name="dv")
    return create_prim_func([x], [dv], "softmax")
