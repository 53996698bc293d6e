"""Random schedules of small programs: each accepted step keeps the meaning, as does lowering what came out."""

from __future__ import annotations

import random

import pytest
import tir_programs as programs
from tir_programs import check

from warpbeam.ir.diagnostics import LowerError, ScheduleError
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import if_then_else, land
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import PrimFunc


def stencil() -> PrimFunc:
    """Padding, a 1-D window over two scales, a column sum."""
    x = te.placeholder((11, 9), name="x")
    p = te.compute((13, 9), lambda i, j: if_then_else(land(i >= 1, i < 12), x[i - 1, j], 0.0), name="p")
    r = te.reduce_axis(3, "r")
    w = te.compute((11, 9), lambda i, j: te.max(p[i + r, j], axis=r), name="w")
    h = te.compute((5, 9), lambda i, j: w[i * 2, j] + w[i * 2 + 1, j], name="h")
    q = te.reduce_axis(9, "q")
    s = te.compute((5,), lambda i: te.sum(h[i, q], axis=q), name="s")
    out = te.compute((5, 9), lambda i, j: h[i, j] - s[i], name="out")
    return create_prim_func([x], [out], "stencil")


PROGRAMS = {
    "pointwise": lambda: programs.pointwise(7, 10),
    "matmul": lambda: programs.matmul(9, 20, 6),
    "convolution": lambda: programs.convolution(7, 6, 3, 5, 3, 2, 1),
    "softmax": lambda: programs.softmax(5, 19),
    "stencil": stencil,
}


STEPS = [
    *("split", "split", "split", "fuse", "reorder", "reorder", "parallel", "vectorize", "unroll", "partition"),
    *("compute_inline", "reverse_compute_inline", "compute_at", "compute_at", "compute_at", "reverse_compute_at"),
    *("cache_write", "cache_read", "clone", "set_scope", "decompose", "rfactor", "layout"),
]


def random_step(s: Schedule, rng: random.Random) -> None:
    blocks = s.blocks()
    block = rng.choice(blocks)
    loops = s.loops(block)
    loop = rng.choice(loops) if loops else ""
    other = s.loops(rng.choice(blocks)) or [""]
    name = rng.choice(STEPS)
    if name == "split":
        s.split(loop, rng.choice([[None, 2], [None, 4], [3, None], [None, 2, 2], [2, None, 3]]))
    elif name == "fuse":
        k = rng.randrange(max(1, len(loops)))
        s.fuse(*loops[k : k + 2])
    elif name == "reorder":
        s.reorder(*rng.sample(loops, min(len(loops), rng.choice([2, 3]))))
    elif name in ("parallel", "vectorize", "unroll", "rfactor"):
        getattr(s, name)(loop)
    elif name == "partition":
        s.partition(loop, rng.randrange(4))
    elif name in ("compute_inline", "reverse_compute_inline"):
        getattr(s, name)(block)
    elif name in ("compute_at", "reverse_compute_at"):
        getattr(s, name)(block, rng.choice(other))
    elif name == "cache_write":
        s.cache_write(block, rng.choice(["local", "global"]))
    elif name == "cache_read":
        s.cache_read(block, rng.choice(["A", "x", "X", "p", "ex"]), "global")
    elif name == "clone":
        s.clone(block, rng.choice(blocks))
    elif name == "set_scope":
        s.set_scope(block, "local")
    elif name == "decompose":
        s.decompose_reduction(block, loop)
    else:
        s.transform_layout(rng.choice(["A", "W", "x", "h", "C"]), lambda *i: (i[-1] // 4, *i[:-1], i[-1] % 4))


@pytest.mark.parametrize("name", list(PROGRAMS))
@pytest.mark.parametrize("seed", range(12))
def test_random_schedules_keep_the_meaning(name, seed):
    rng = random.Random(f"{name}{seed}")
    f = PROGRAMS[name]()
    s = Schedule(f)
    for _ in range(14):
        before = s.func
        try:
            random_step(s, rng)
        except ScheduleError:
            assert s.func is before
    try:
        check(f, s.func)
    except LowerError as refused:
        assert any(text in str(refused) for text in ("not constant", "stack", "overlap")), refused
