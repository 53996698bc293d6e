"""Hybrid scripts: the same function as a tensor expression and as Python on arrays."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import te, tir
from warpbeam.te.hybrid import HybridError
from warpbeam.tir.interp import run

# ruff: noqa: F821  (the script's words are no Python names)


def ints(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def both(script, *arrays, outs=1):
    """Runs a script as a program and as Python; both agree, and the program's results are returned."""
    tensors = [te.placeholder(a.shape, str(a.dtype), f"p{k}") for k, a in enumerate(arrays)]
    made = script(*tensors)
    made = made if isinstance(made, list) else [made]
    assert len(made) == outs and isinstance(made[0].op, te.ExternOp)
    results = [np.zeros([int(d) for d in t.shape], t.dtype) for t in made]
    run(te.create_prim_func([*tensors, *made]), *arrays, *results)
    plain = script(*arrays)
    for a, b in zip(results, plain if outs > 1 else [plain], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    return results if outs > 1 else results[0]


@te.hybrid.script
def outer(a, b):
    """The outer product."""
    c = output_tensor((a.shape[0], b.shape[0]), "float32")
    for i in range(a.shape[0]):
        for j in parallel(b.shape[0]):
            c[i, j] = a[i] * b[j]
    return c


def test_outer_product_and_its_use_in_a_schedule():
    x, y = ints(5), ints(6, seed=1)
    np.testing.assert_array_equal(both(outer, x, y), np.outer(x, y))
    a, b = te.placeholder((te.var("n"),), name="a"), te.placeholder((6,), name="b")
    c = outer(a, b)
    d = te.compute(c.shape, lambda i, j: c[i, j] + 1, name="d")
    s = te.create_schedule(d.op)
    s[d].parallel(d.op.axis[0])
    func = te.schedule.lower(s, [a, b, d])
    out = np.zeros((5, 6), np.float32)
    run(func, x, y, out)
    np.testing.assert_array_equal(out, np.outer(x, y) + 1)


WEIGHT = 0.5


@te.hybrid.script
def blur(a):
    out = output_tensor(a.shape, "float32")
    line = allocate((3,), "float32", "local")
    for i in range(1, a.shape[0] - 1):
        for k in const_range(3):
            line[k] = a[i + k - 1] * WEIGHT
        total = 0.0
        for k in unroll(3):
            total += line[k]
        out[i] = total if total > 1.0 else -total
    for i in range(0, len(a), 9):
        out[i] = float32(i) + max(a[i], 1.0) - min(a[0], 2.0) ** 2
    return out


def test_scalars_allocations_constants_and_steps():
    x = ints(10)
    got = both(blur, x)
    total = (x[:-2] + x[1:-1] + x[2:]) * 0.5
    np.testing.assert_allclose(got[1:-1], np.where(total > 1, total, -total))


@te.hybrid.script
def count(a):
    found = output_tensor((1,), "int32")
    first = output_tensor((1,), "int32")
    found[0] = int32(0)
    first[0] = int32(-1)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            if 0 < a[i][j] <= 3 and not (i == j or i > 2):
                found[0] += 1
                if first[0] < 0:
                    first[0] = int32(i * a.shape[1] + j)
            else:
                pass
    return found, first


def test_conditions_and_two_outputs():
    x = ints(4, 5)
    i, j = np.indices(x.shape)
    hits = (x > 0) & (x <= 3) & ~((i == j) | (i > 2))
    found, first = both(count, x, outs=2)
    assert found[0] == hits.sum() and first[0] == np.flatnonzero(hits)[0]


@te.hybrid.script
def bound(a):
    b = output_tensor(a.shape, "float32")
    for bx in bind("blockIdx.x", a.shape[0] // 4):
        for tx in bind("threadIdx.x", 4):
            b[bx * 4 + tx] = exp(a[bx * 4 + tx])
    return b


def test_thread_loops():
    x = ints(8)
    np.testing.assert_allclose(both(bound, x), np.exp(x), rtol=1e-6)


def test_what_a_script_must_not_say():
    a = te.placeholder((4,), name="a")

    @te.hybrid.script
    def no_return(a):
        b = output_tensor((4,), "float32")
        b[0] = a[0]

    @te.hybrid.script
    def unknown_loop(a):
        b = output_tensor((4,), "float32")
        for _ in enumerate(4):
            b[0] = a[0]
        return b

    @te.hybrid.script
    def unknown_name(a):
        b = output_tensor((4,), "float32")
        b[0] = nothing
        return b

    @te.hybrid.script
    def wrong_result(a):
        return a

    @te.hybrid.script
    def odd_statement(a):
        b = output_tensor((4,), "float32")
        with a:
            pass
        return b

    @te.hybrid.script
    def wrong_rank(a):
        b = output_tensor((4,), "float32")
        b[0, 1] = a[0]
        return b

    for script, text in (
        (no_return, "does not end with a return"), (unknown_loop, "enumerate is no loop"),
        (unknown_name, "name 'nothing' has no value"), (wrong_result, "no output tensor"),
        (odd_statement, "With is no statement"), (wrong_rank, "has 1 dimensions, indexed with 2"),
    ):  # fmt: skip
        with pytest.raises(HybridError, match=text) as err:
            script(a)
        assert "test_hybrid.py:" in str(err.value)
    with pytest.raises(ValueError, match="takes 2 arguments"):
        outer(a)
    assert isinstance(outer(a, a).op.body, tir.Stmt)
