"""Runs what a te schedule lowers to: on the interpreter as it is, lowered, and as machine code; with threads also by
the executor of a GPU's model. All must be exact."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from warpbeam import target, te
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import interp_gpu
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import For, PrimFunc
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import lower as lower_tir
from warpbeam.tir.transform.gpu.pipeline import lower_gpu

sys.path.insert(0, str(Path(__file__).parents[1] / "codegen"))

import cg_native

Array = np.ndarray[Any, Any]


def arrays(args: list[Any], sizes: dict[str, int] | None = None, seed: int = 0) -> list[Array]:
    """Small whole numbers for every tensor, so that all orders of summation agree."""
    rng = np.random.default_rng(seed)
    found = []
    for t in args:
        if hasattr(t, "shape"):
            shape = [int(d) if isinstance(d, int) else (sizes or {})[d.name] for d in t.shape]
            found.append(rng.integers(-3, 4, shape).astype(t.dtype))
    return found


def without_threads(func: PrimFunc) -> PrimFunc:
    """Threads of a device as the plain loops that they mean."""

    def plain(n: Any) -> Any:
        if isinstance(n, For) and n.thread:
            return For(n.var, n.min, n.extent, "serial", n.body, n.annotations)
        return None

    return PrimFunc(func.name, func.params, rewrite(func.body, plain), func.attrs)


def native(func: PrimFunc, args: list[Any], numbers: list[int]) -> None:
    """Runs a lowered program as machine code; its workspace is made here."""
    extra = func.buffers[len(args) :]
    sizes = dict(zip([p for p in func.params if not hasattr(p, "shape")], numbers, strict=True))
    more = [np.full([int(sizes.get(d, d)) for d in b.shape] or [1], 7, b.dtype) for b in extra]
    cg_native.build(func)(*args, *more, *numbers)


def check(
    s: Any,
    args: list[Any],
    reference: Callable[..., Any],
    sizes: dict[str, int] | None = None,
    machine: bool = True,
) -> PrimFunc:
    """Lowers and runs on all roads; the last arguments are the results of `reference`. Gives the scheduled program."""
    func = te.schedule.lower(s, args)
    given = arrays(args, sizes)
    want = reference(*given)
    want = list(want) if isinstance(want, list | tuple) else [want]
    numbers = [(sizes or {})[p.name] for p in func.params if not hasattr(p, "shape")]
    lowered = lower_tir(func)
    roads: list[Callable[[list[Array]], Any]] = [
        lambda a: run(func, *a, *numbers),
        lambda a: run(lowered, *a, *numbers),
    ]
    if machine:
        serial = lower_tir(without_threads(func))
        roads.append(lambda a: native(serial, a, numbers))
    if any(isinstance(n, For) and n.thread for n in post_order(func.body)):
        host, devices = lower_gpu(func, target.get("cuda"))
        roads.append(lambda a: interp_gpu.run(host, devices, *a, *numbers))
    for road in roads:
        got = [a.copy() for a in given]
        for g in got[len(got) - len(want) :]:
            g[...] = -77
        road(got)
        for g, w in zip(got[len(got) - len(want) :], want, strict=True):
            np.testing.assert_array_equal(g, w)
    return func


def loops(func: PrimFunc) -> list[str]:
    """The loops and blocks of a program, one a line, indented: its shape without its contents."""
    kept = []
    for line in to_text(func).splitlines():
        text = line.strip()
        if text.startswith(("for ", "block ")):
            head = text.split(" (")[0] if text.startswith("block") else text.rstrip(":")
            kept.append(line[4 : len(line) - len(line.lstrip())] + head)
    return kept


def matmul(n: Any, m: Any, k: Any) -> tuple[Any, Any, Any, Any]:
    """A, B, C and the reduction axis of C = A @ B."""
    a, b = te.placeholder((n, k), name="A"), te.placeholder((k, m), name="B")
    r = te.reduce_axis((0, k), name="k")
    c = te.compute((n, m), lambda x, y: te.sum(a[x, r] * b[r, y], axis=r), name="C")
    return a, b, c, r


def product(a: Array, b: Array, _: Array) -> Array:
    return a @ b
