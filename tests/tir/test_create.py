"""te to loop programs."""

from __future__ import annotations

import numpy as np
import pytest
import tir_programs as programs
from tolerance import close

from warpbeam.ir.diagnostics import IRError
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import Buffer, Var, select
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import Schedule


def test_names_are_unique_and_parameters_in_order():
    n = te.size_var("n")
    f = programs.matmul(n, 16, 8)
    assert [p.name for p in f.params] == ["A", "B", "bias", "E", "n"]
    assert [isinstance(p, Buffer) for p in f.params] == [True] * 4 + [False]
    s = Schedule(f)
    loops = [name for b in s.blocks() for name in s.loops(b)]
    assert s.blocks() == ["C", "D", "E"]
    assert len(set(loops)) == len(loops) == 7


def test_matmul_computes_matmul():
    f = programs.matmul(5, 6, 7)
    a, b, bias, out = programs.arrays(f, {})
    run(f, a, b, bias, out)
    close(out, np.maximum(a @ b + bias, 0), terms=7 + 1)


def test_tuple_reduction_reads_old_values_of_both():
    x = te.placeholder((4, 9), name="x")
    r = te.reduce_axis(9, "r")
    argmax = te.comm_reducer(
        lambda a, b: (select(a[1] >= b[1], a[0], b[0]), select(a[1] >= b[1], a[1], b[1])),
        lambda t0, t1: (te.as_expr(-1, t0), te.min_value(t1)),
    )
    idx, val = te.compute((4,), lambda i: argmax((r.var, x[i, r]), axis=r), name="best")
    f = create_prim_func([x], [idx, val])
    data = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)
    got, best = np.zeros(4, np.int64), np.zeros(4, np.float32)
    run(f, data, got, best)
    np.testing.assert_array_equal(got, data.argmax(1))
    np.testing.assert_array_equal(best, data.max(1))


def test_an_output_that_is_an_input_is_copied():
    x = te.placeholder((3,), name="x")
    f = create_prim_func([x], [x, x])
    data, a, b = np.arange(3, dtype=np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
    run(f, data, a, b)
    assert (a == data).all() and (b == data).all()


def test_an_intermediate_may_be_an_input():
    x = te.placeholder((3,), name="x")
    y = te.compute((3,), lambda i: x[i] + 1.0, name="y")
    z = te.compute((3,), lambda i: y[i] * 2.0, name="z")
    f = create_prim_func([y], [z])
    data, out = np.arange(3, dtype=np.float32), np.zeros(3, np.float32)
    run(f, data, out)
    assert (out == data * 2).all()


def test_condition_of_a_reduction():
    x = te.placeholder((8,), name="x")
    r = te.reduce_axis(8, "r")
    y = te.compute((1,), lambda i: te.sum(x[r], axis=r, where=r.var < 3), name="y")
    data, out = np.arange(8, dtype=np.float32), np.zeros(1, np.float32)
    run(create_prim_func([x], [y]), data, out)
    assert out[0] == 3


def test_size_variables_are_found_in_bodies_too():
    k = Var("k")
    x = te.placeholder((8,), name="x")
    y = te.compute((8,), lambda i: x[(i + k) % 8], name="y")
    assert [p.name for p in create_prim_func([x], [y]).params] == ["x", "y", "k"]


def test_refusals():
    x = te.placeholder((8,), name="x")
    r = te.reduce_axis(8, "r")
    with pytest.raises(IRError, match="top level of compute"):
        te.compute((1,), lambda i: te.sum(x[r], axis=r) * 2.0, name="y")
    z = te.compute((8,), lambda i: x[i] * 2.0, name="z")
    with pytest.raises(IRError, match="not among its inputs"):
        create_prim_func([], [z])
