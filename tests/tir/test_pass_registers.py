"""Passes that keep values in registers: tiles, repeated updates, caches written in te."""

from __future__ import annotations

import numpy as np
import pass_check as check
import pytest
from pass_check import becomes

from warpbeam.ir.rewrite import post_order
from warpbeam.tir.expr import Call
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import BufferStore, For
from warpbeam.tir.transform.accumulate_registers import accumulate_registers
from warpbeam.tir.transform.expand_loops import expand_loops
from warpbeam.tir.transform.pipeline import lower
from warpbeam.tir.transform.promote_registers import promote_registers, unroll_tiles


def test_tiles_are_unrolled_and_become_registers():
    before = """
        def f(A: float32[6, 4], B: float32[4]):
            alloc acc: float32[4] @local
            for i in range(4):
                acc[i] = 0.0
            for k in range(6):
                for i in unrolled(4):
                    acc[i] = acc[i] + A[k, i]
            for i in vectorized(4):
                B[i] = acc[i]
        """
    got = becomes(unroll_tiles, before, before.replace("for i in range(4)", "for i in unrolled(4)"))
    final = promote_registers(expand_loops(got))
    scopes = {n.buffer.name: n.buffer.scope for n in post_order(final.body) if isinstance(n, BufferStore)}
    assert scopes == {"acc": "register", "B": "global"}
    check.agree(check.program(before), final)


def test_tiles_that_are_indexed_by_variables_or_do_not_fit_stay_in_memory():
    text = """
        def f(A: float32[6], B: float32[6]):
            alloc t: float32[6] @local
            for i in range(6):
                t[i] = A[i]
            for i in range(6):
                B[i] = t[5 - i]
        """
    becomes(lambda f: promote_registers(unroll_tiles(f)), text, text)
    big = check.program(text.replace("6", "2000").replace("5 - i", "i").replace("range(2000)", "range(1)"))
    assert promote_registers(big) is big


def test_updates_of_one_element_are_kept_in_a_register():
    becomes(
        accumulate_registers,
        """
        def f(A: float32[8, 64], B: float32[8]):
            for i in range(8):
                B[i] = 0.0
                for k in range(64):
                    B[i] = B[i] + A[i, k]
        """,
        """
        def f(A: float32[8, 64], B: float32[8]):
            for i in range(8):
                alloc B_r: float32[1, 1] @register
                B_r[0, 0] = 0.0
                for k in range(64):
                    B_r[0, 0] = B_r[0, 0] + A[i, k]
                B[i] = B_r[0, 0]
        """,
    )


def test_updates_in_a_row_are_stored_once():
    becomes(
        accumulate_registers,
        """
        def f(A: float32[64, 4], B: float32[64]):
            for i in range(64):
                B[i] = A[i, 0]
                B[i] = B[i] + A[i, 1]
                B[i] = B[i] + A[i, 2]
        """,
        """
        def f(A: float32[64, 4], B: float32[64]):
            for i in range(64):
                alloc B_r: float32[1, 1] @register
                B_r[0, 0] = A[i, 0]
                B_r[0, 0] = B_r[0, 0] + A[i, 1]
                B_r[0, 0] = B_r[0, 0] + A[i, 2]
                B[i] = B_r[0, 0]
        """,
    )


@pytest.mark.parametrize(
    ("inner", "update"),
    [
        ("range(4)", "B[i] = B[i] + B[i + k + 1]"),  # other elements of the same buffer
        ("range(4)", "B[k] = B[k] + A[k]"),  # the element moves
        ("parallel(1)", "B[i] = B[i] + A[k]"),
    ],
)
def test_updates_that_stay_in_memory(inner, update):
    text = f"""
        def f(A: float32[16], B: float32[16]):
            for i in range(8):
                for k in {inner}:
                    {update}
        """
    becomes(accumulate_registers, text, text, 2)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_loops_that_may_not_run_keep_memory_as_it_was(size):
    text = """
        def f(A: float32[7], B: float32[8], n: size):
            for i in range(8):
                for k in range(n):
                    B[i] = B[i] + A[k]
        """
    func = check.program(text)
    assert accumulate_registers(func) is func
    started = check.program(text.replace("for k", "B[i] = 1.0\n                for k"))
    got = accumulate_registers(started)
    assert got is not started
    a = np.arange(7, dtype=np.float32)
    for call in (lambda *x: run(got, *x), check.native(lower(got))):
        out = np.zeros(8, np.float32)
        call(a, out, size)
        np.testing.assert_array_equal(out, np.full(8, 1 + a[:size].sum(), np.float32))


def test_a_cache_in_te_becomes_registers_and_pragmas_unroll():
    from warpbeam import te as classic
    from warpbeam.te.schedule.lower import lower as scheduled

    a, b = classic.placeholder((20, 9), name="A"), classic.placeholder((9, 32), name="B")
    k = classic.reduce_axis((0, 9), "k")
    c = classic.compute((20, 32), lambda i, j: classic.sum(a[i, k] * b[k, j], axis=k), name="C")
    s = classic.create_schedule(c.op)
    tile = s.cache_write(c, "global")
    _, jo, _, ji = s[c].tile(c.op.axis[0], c.op.axis[1], 6, 16)
    s[c].vectorize(ji)
    s[tile].compute_at(s[c], jo)
    i, j = s[tile].op.axis
    s[tile].reorder(s[tile].op.reduce_axis[0], i, j)
    s[tile].unroll(i)
    s[tile].vectorize(j)
    func = scheduled(s, [a, b, c], "product", None)
    fmas = [n for n in post_order(lower(func).body) if isinstance(n, Call) and n.op == "fma"]
    assert fmas and {f.args[2].buffer.scope for f in fmas} == {"register"}
    check.agree(func, func)

    plain = classic.create_schedule(c.op)
    plain[c].pragma(c.op.axis[0], "auto_unroll_max_step", 32)
    plain[c].pragma(c.op.axis[0], "unroll_explicit", True)
    loops = [f.var.name for f in post_order(lower(scheduled(plain, [a, b, c], "p", None)).body) if isinstance(f, For)]
    assert not any(name.startswith("k") for name in loops)


def test_memory_that_each_iteration_has_anew_is_not_kept_over_iterations():
    text = """
        def f(A: float32[6, 4], B: float32[6, 4]):
            for i in range(6):
                for j in range(4):
                    alloc t: float32[8] @local
                    t[i] = 0.0
                    for k in range(4):
                        t[i] = t[i] + A[i, k]
                    B[i, j] = t[i]
        """
    program = check.program(text)
    check.agree(program, accumulate_registers(program))
    check.agree(program, lower(program))
