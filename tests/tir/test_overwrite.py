"""Writing a result over an operand: allowed exactly where running the merged program gives the same numbers."""

import numpy as np
import pytest

from warpbeam import te, tir
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te.create import create_prim_func
from warpbeam.tir.analysis.overwrite import may_overwrite, overwriting
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.transform import lower


def lowered(inputs, outputs):
    plan = schedule(inputs, outputs, get("generic-x86-64-v3"))
    return plan.lowered


def same_when_shared(func, source, result):
    """Whether the program computes the same over one buffer as over two, and that the new program says so itself."""
    rng = np.random.default_rng(0)
    shapes = [tuple(int(d.value if hasattr(d, "value") else d) for d in b.shape) for b in func.buffers]
    arrays = [rng.standard_normal(s).astype(b.dtype) for s, b in zip(shapes, func.buffers)]
    apart, shared = [a.copy() for a in arrays], [a.copy() for a in arrays]
    run(func, *apart)
    i, j = func.buffers.index(source), func.buffers.index(result)
    shared[j] = shared[i].reshape(shapes[j])
    run(overwriting(func, source, result), *shared)
    return np.array_equal(apart[j], shared[j])


def softmax(x):
    r = te.reduce_axis((0, x.shape[1]), "r")
    top = te.compute((x.shape[0],), lambda i: te.max(x[i, r], axis=r), "top")
    e = te.compute(x.shape, lambda i, j: tir.exp(x[i, j] - top[i]), "e")
    s = te.reduce_axis((0, x.shape[1]), "s")
    total = te.compute((x.shape[0],), lambda i: te.sum(e[i, s], axis=s), "total")
    return te.compute(x.shape, lambda i, j: e[i, j] / total[i], "y")


def residual(m, n, k):
    a, b, r = te.placeholder((m, k), name="a"), te.placeholder((k, n), name="b"), te.placeholder((m, n), name="r")
    t = te.reduce_axis((0, k), "t")
    c = te.compute((m, n), lambda i, j: te.sum(a[i, t] * b[t, j], axis=t), "c")
    return [a, b, r], te.compute((m, n), lambda i, j: c[i, j] + r[i, j], "d")


def window(x):
    r = te.reduce_axis((0, 3), "r")
    edge = x.shape[1] - 1
    at = lambda j: tir.max(tir.min(j + r - 1, edge), 0)  # noqa: E731
    return te.compute(x.shape, lambda i, j: te.sum(x[i, at(j)], axis=r), "w")


x1 = te.placeholder((5, 37), name="x")
y1 = te.placeholder((5, 37), name="y")
sq = te.placeholder((33, 33), name="x")
CASES = {
    "elementwise": ([x1], te.compute(x1.shape, lambda i, j: x1[i, j] * 2.0 + 1.0), "x", True),
    "two operands": ([x1, y1], te.compute(x1.shape, lambda i, j: x1[i, j] * y1[i, j]), "y", True),
    "a large one, in parallel": (
        [big := te.placeholder((64, 4099), name="x")],
        te.compute(big.shape, lambda i, j: tir.exp(big[i, j])),
        "x",
        True,
    ),
    "rows": ([x1], softmax(x1), "x", True),
    "transposed": ([sq], te.compute(sq.shape, lambda i, j: sq[j, i]), "x", False),
    "reversed": ([x1], te.compute(x1.shape, lambda i, j: x1[i, 36 - j]), "x", False),
    "shifted": ([x1], te.compute(x1.shape, lambda i, j: x1[i, (j + 36) % 37]), "x", False),
    "window": ([x1], window(x1), "x", False),
    "both": ([sq], te.compute(sq.shape, lambda i, j: sq[j, i] + sq[i, j]), "x", False),
    "residual of a product": (*residual(29, 70, 16), "r", True),
    "residual of a long product": (*residual(40, 96, 2000), "r", None),
    "first factor": (*residual(33, 33, 33), "a", None),
}


@pytest.mark.parametrize("name", CASES)
def test_scheduled_kernels(name):
    inputs, output, which, expected = CASES[name]
    func = lowered(inputs, [output])
    source = next(b for b in func.buffers if b.name == which)
    result = func.buffers[len(inputs)]
    found = may_overwrite(func, source, result)
    assert found == expected or expected is None
    assert not found or same_when_shared(func, source, result)


def test_wrong_merges_do_show():
    """The comparison that the other tests rely on can fail."""
    inputs, output, _, _ = CASES["shifted"]
    func = lowered(inputs, [output])
    assert not same_when_shared(func, func.buffers[0], func.buffers[1])


@pytest.mark.parametrize("seed", range(12))
def test_random_schedules_of_random_reads(seed):
    """Permissions are never wrong, and given where an element is only read at its own place."""
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(3, 9)), int(rng.integers(3, 20))
    x = te.placeholder((m, n), name="x")
    reads = [
        lambda i, j: x[i, j],
        lambda i, j: x[m - 1 - i, j],
        lambda i, j: x[i, tir.min(j + 1, n - 1)],
        lambda i, j: x[i, tir.max(j - 1, 0)],
        lambda i, j: x[tir.indexdiv(i * n + j, n), tir.indexmod(i * n + j, n)],
    ]
    for pick in ([0], [4], [0, 4], *([int(k)] for k in rng.integers(1, 4, 3)), [0, int(rng.integers(1, 4))]):
        y = te.compute((m, n), lambda i, j: sum(reads[k](i, j) for k in pick), "y")  # noqa: B023 - used at once
        sch = Schedule(create_prim_func([x], [y], "f"))
        loops = sch.loops("y")
        if rng.random() < 0.5:
            sch.reorder(*reversed(loops))
        a, b = (str(v) for v in rng.permutation(sch.loops("y")))
        _, inner = sch.split(a, (None, int(rng.integers(2, 6))))
        if rng.random() < 0.5:
            sch.reorder(b, inner)
        if rng.random() < 0.4:
            sch.vectorize(sch.loops("y")[-1])
        if rng.random() < 0.4:
            sch.parallel(sch.loops("y")[0])
        func = lower(sch.func)
        source, result = func.buffers
        found = may_overwrite(func, source, result)
        if pick == [0]:
            assert found
        if found:
            assert same_when_shared(func, source, result)


def test_symbolic_sizes():
    n = te.var("n", "int64")
    x = te.placeholder((n, 64), name="x")
    y = te.compute((n, 64), lambda i, j: x[i, j] + 1.0, "y")
    func = lowered([x], [y])
    assert may_overwrite(func, func.buffers[0], func.buffers[1])
    z = te.compute((n, 64), lambda i, j: x[n - 1 - i, j] + 1.0, "z")
    func = lowered([x], [z])
    assert not may_overwrite(func, func.buffers[0], func.buffers[1])
