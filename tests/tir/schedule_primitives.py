"""One small scheduled program per primitive: for texts, and for what they compute on every back end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schedule_draw import intrinsics
from schedule_programs import weighted

from warpbeam import te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import const, if_then_else, land, maximum
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.text import parse


def maps() -> PrimFunc:
    """Three maps one after the other, of a size that 4 does not divide."""
    x = te.placeholder((6, 10), name="X")
    a = te.compute((6, 10), lambda i, j: x[i, j] + 1.0, name="A")
    b = te.compute((6, 10), lambda i, j: a[i, j] * 2.0, name="B")
    c = te.compute((6, 10), lambda i, j: maximum(b[i, j], a[i, j]), name="C")
    return create_prim_func([x], [c], "maps")


def product() -> PrimFunc:
    a, b = te.placeholder((5, 6), name="A"), te.placeholder((6, 8), name="B")
    k = te.reduce_axis(6, "k")
    c = te.compute((5, 8), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    d = te.compute((5, 8), lambda i, j: c[i, j] + 1.0, name="D")
    return create_prim_func([a, b], [d], "product")


def window() -> PrimFunc:
    """A map, and maxima of three rows of it."""
    x = te.placeholder((8, 6), name="X")
    p = te.compute((8, 6), lambda i, j: x[i, j] * 2.0, name="P")
    r = te.reduce_axis(3, "r")
    y = te.compute((6, 6), lambda i, j: te.max(p[i + r, j], axis=r), name="Y")
    return create_prim_func([x], [y], "window")


def bordered() -> PrimFunc:
    """Sums of three neighbours, weighted, of a line with a zero at each end."""
    x, w = te.placeholder((6, 4), name="X"), te.placeholder((3, 4), name="W")
    p = te.compute((8, 4), lambda i, c: if_then_else(land(i >= 1, i < 7), x[i - 1, c], const(0.0, "float32")), name="P")
    t = te.reduce_axis(3, "t")
    y = te.compute((6, 4), lambda i, c: te.sum(p[i + t, c] * w[t, c], axis=t), name="Y")
    return create_prim_func([x, w], [y], "bordered")


def triangle() -> PrimFunc:
    """A map of what is below the diagonal: a row of nothing at first."""
    return parse("""def triangle(X: float32[6, 6], Y: float32[6, 6]):
    for i in range(6):
        for j in range(i):
            block "Y" (v: spatial[6] = i, w: spatial[6] = j):
                Y[v, w] = X[v, w] * 2.0
""")


PRIMITIVES: dict[str, tuple[Callable[[], PrimFunc], Callable[[Schedule], Any]]] = {}


def primitive(program: Callable[[], PrimFunc]) -> Callable[[Callable[[Schedule], Any]], Callable[[Schedule], Any]]:
    """Adds a schedule of a program to the table, named like its function."""

    def add(fn: Callable[[Schedule], Any]) -> Callable[[Schedule], Any]:
        PRIMITIVES[fn.__name__] = (program, fn)
        return fn

    return add


def scheduled(name: str) -> tuple[PrimFunc, Schedule]:
    """The program as written, and its schedule."""
    program, fn = PRIMITIVES[name]
    func = program()
    s = Schedule(func)
    fn(s)
    return func, s


# --------------------------------------------------------------------------------------------------------------- loops


@primitive(maps)
def split(s: Schedule) -> None:
    s.split(s.loops("C")[1], [None, 4], names=["jo", "ji"])


@primitive(maps)
def split_guard(s: Schedule) -> None:
    s.split(s.loops("C")[1], [None, 4], guard=True)


@primitive(maps)
def fuse(s: Schedule) -> None:
    s.fuse(*s.loops("C"), name="ij")


@primitive(product)
def reorder(s: Schedule) -> None:
    i, j, k = s.loops("C")
    s.reorder(k, i, j)


@primitive(product)
def tile(s: Schedule) -> None:
    s.tile(*s.loops("D"), 2, 4)


@primitive(maps)
def loop_axes(s: Schedule) -> None:
    s.split(s.fuse(*s.loops("C")), [None, 8], guard="kept")
    s.loop_axes("C")


@primitive(maps)
def merge(s: Schedule) -> None:
    s.merge(s.loops("A")[0], s.loops("B")[0], s.loops("C")[0])


@primitive(maps)
def partition(s: Schedule) -> None:
    s.partition(s.loops("C")[0], 4)


@primitive(maps)
def parallel(s: Schedule) -> None:
    s.parallel(s.loops("C")[0])


@primitive(maps)
def vectorize(s: Schedule) -> None:
    s.vectorize(s.split(s.loops("C")[1], [None, 4])[1])


@primitive(maps)
def unroll(s: Schedule) -> None:
    s.unroll(s.loops("C")[0])


@primitive(maps)
def bind(s: Schedule) -> None:
    s.bind(s.loops("C")[0], "blockIdx.x")
    s.bind(s.loops("C")[1], "threadIdx.x")


@primitive(maps)
def annotate(s: Schedule) -> None:
    s.annotate(s.loops("C")[0], "note", 3)
    s.annotate("C", "kind", "last")


@primitive(maps)
def unannotate(s: Schedule) -> None:
    s.annotate("C", "note", 3)
    s.unannotate("C", "note")


@primitive(maps)
def pragma(s: Schedule) -> None:
    s.pragma(s.split(s.loops("C")[1], [None, 5])[0], "auto_unroll_max_step", 16)


# -------------------------------------------------------------------------------------------------------------- blocks


@primitive(maps)
def compute_inline(s: Schedule) -> None:
    s.compute_inline("A")


@primitive(product)
def reverse_compute_inline(s: Schedule) -> None:
    s.cache_write("D", "global")
    s.reverse_compute_inline("D_write")


@primitive(window)
def compute_at(s: Schedule) -> None:
    s.compute_at("P", s.loops("Y")[0])


@primitive(window)
def compute_root(s: Schedule) -> None:
    s.compute_at("P", s.loops("Y")[0])
    s.compute_root("P")


@primitive(product)
def reverse_compute_at(s: Schedule) -> None:
    s.reverse_compute_at("D", s.split(s.loops("C")[0], [None, 2])[0])


@primitive(product)
def decompose_reduction(s: Schedule) -> None:
    s.decompose_reduction("C", s.loops("C")[1])


@primitive(product)
def rfactor(s: Schedule) -> None:
    s.rfactor(s.split(s.loops("C")[2], [None, 2])[1])


@primitive(product)
def blockize(s: Schedule) -> None:
    i, j, k = s.loops("C")
    jo, ji = s.split(j, [None, 4])
    ko, ki = s.split(k, [None, 2])
    s.reorder(i, jo, ko, ji, ki)
    s.blockize(ji)


@primitive(product)
def pad_einsum(s: Schedule) -> None:
    s.pad_einsum("C", [4, 4, 4])


@primitive(weighted)
def rescale(s: Schedule) -> None:
    s.rescale("T", "W", ["N", "S"])


@primitive(bordered)
def skip_zeros(s: Schedule) -> None:
    s.decompose_reduction("Y", s.loops("Y")[2])
    s.skip_zeros("Y", "P", [0])


@primitive(product)
def tensorize(s: Schedule) -> None:
    i, j, k = s.loops("C")
    jo, ji = s.split(j, [None, 4])
    s.reorder(i, jo, k, ji)
    s.tensorize(ji, "fma.f32.1x4.v4")
    s.tensorize(s.split(s.loops("D")[1], [None, 4])[1], next(x for x in intrinsics() if x.name == "next4"))


# ------------------------------------------------------------------------------------------------------------- buffers


@primitive(product)
def cache_read(s: Schedule) -> None:
    s.compute_at(s.cache_read("C", "B", "local"), s.loops("C")[1])


@primitive(product)
def cache_write(s: Schedule) -> None:
    s.reverse_compute_at(s.cache_write("C", "local"), s.loops("C")[0])


@primitive(maps)
def clone(s: Schedule) -> None:
    s.clone("A", "C")


@primitive(maps)
def set_scope(s: Schedule) -> None:
    s.set_scope("A", "shared")


@primitive(product)
def storage_align(s: Schedule) -> None:
    s.storage_align("C", 0, 16, 1)


@primitive(product)
def transform_layout(s: Schedule) -> None:
    s.transform_layout("C", lambda i, j: (j // 4, i, j % 4))


@primitive(product)
def double_buffer(s: Schedule) -> None:
    i, j, k = s.loops("C")
    s.reorder(k, i, j)
    copy = s.cache_read("C", "B", "local")
    s.compute_at(copy, k)
    s.double_buffer(copy)


@primitive(window)
def rolling_buffer(s: Schedule) -> None:
    s.compute_at("P", s.loops("Y")[0])
    s.rolling_buffer("P")


@primitive(maps)
def prefetch(s: Schedule) -> None:
    s.prefetch(s.loops("A")[0], "X", 2)


@primitive(product)
def diagonal(s: Schedule) -> None:
    i, j, _ = s.loops("C")
    s.diagonal(i, j)


@primitive(triangle)
def enter(s: Schedule) -> None:
    s.enter("j")
    s.partition("j", s.loop("j").extent // 4 * 4)


@primitive(product)
def alternate(s: Schedule) -> None:
    i, j, _ = s.loops("C")
    s.alternate(j, i)


@primitive(window)
def pipeline(s: Schedule) -> None:
    loop = s.loops("Y")[0]
    s.compute_at("P", loop)
    s.pipeline(loop, (0, 1))
