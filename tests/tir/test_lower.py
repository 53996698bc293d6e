"""Lowering: the kernels it is for, and each pass on what it has to get right."""

from __future__ import annotations

from typing import Any

import pytest
import tir_programs as programs
from effort import calls
from tir_programs import check

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import (
    Broadcast,
    Buffer,
    BufferLoad,
    Call,
    FloorDiv,
    FloorMod,
    IntImm,
    Ramp,
    Var,
    call,
    if_then_else,
    land,
)
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import BufferStore, For, IfThenElse, PrimFunc
from warpbeam.tir.transform import lower


def nodes(func: PrimFunc, cls: type) -> list[Any]:
    return [n for n in post_order(func.body) if isinstance(n, cls)]


def register_tile(f: PrimFunc, m: int, n: int) -> Schedule:
    """The fp32 GEMM kernel: 14 x 64 accumulators in registers, tails apart, constant weights packed."""
    s = Schedule(f)
    s.compute_inline("D")
    s.transform_layout("B", lambda k, j: (j // 64, k, j % 64))
    i, j = s.loops("E")
    mo, mi = s.split(i, [None, 14])
    no, ni, nv = s.split(j, [None, 4, 16])
    s.reorder(mo, no, mi, ni, nv)
    s.compute_at("C", no)
    cm, cn, ck = s.loops("C")[-3:]
    ci, cv = s.split(cn, [None, 16])
    ko, ki = s.split(ck, [None, 4])
    s.reorder(ko, ki, cm, ci, cv)
    s.decompose_reduction("C", ko)
    s.set_scope("C", "register")
    for block in ("C", "C_init", "E"):
        *_, rows, cols, lanes = s.loops(block)
        s.unroll(rows)
        s.unroll(cols)
        s.vectorize(lanes)
    s.unroll(ki)
    outer = [no]
    if m % 14:
        outer.append(s.partition(mo, m // 14)[2][no])
    for name in outer if n % 64 else []:
        s.partition(name, n // 64)
    return s


@pytest.mark.parametrize(("m", "n", "k"), [(49, 104, 64), (28, 128, 8), (5, 13, 4), (30, 70, 20)])
def test_gemm_register_tile(m, n, k):
    f = programs.matmul(m, n, k)
    func = register_tile(f, m, n).func
    lowered = check(f, func)
    assert lowered.attrs["workspace"] == 0
    for fma in (c for c in nodes(lowered, Call) if c.op == "fma"):
        a, b, acc = fma.args
        assert isinstance(a, Broadcast) and isinstance(a.value, BufferLoad)
        assert isinstance(b.indices[-1], Ramp) and b.indices[-1].stride.value == 1
        assert acc.buffer.scope == "register"
        assert all(isinstance(i.base if isinstance(i, Ramp) else i, IntImm) for i in acc.indices)
    assert not nodes(lowered, FloorDiv) and not nodes(lowered, FloorMod) and not nodes(lowered, IfThenElse)


def test_gemm_lowers_fast():
    f = programs.matmul(49, 104, 64)
    tiled = register_tile(f, 49, 104).func
    assert calls(lambda: lower(tiled)) < 1_200_000


@pytest.mark.parametrize("shape", [(14, 14, 8, 32, 3, 1, 1), (15, 13, 5, 40, 3, 2, 1), (9, 9, 3, 17, 1, 1, 0)])
@pytest.mark.parametrize("pad_at", ["root", "rows"])
def test_convolution_register_tile(shape, pad_at):
    h, w, _, _, k, stride, pad = shape
    f = programs.convolution(*shape)
    oh, ow = (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1
    s = Schedule(f)
    n, y, x, o = s.loops("E")
    yo, yi = s.split(y, [None, 2])
    xo, xi = s.split(x, [None, 7])
    oo, oi, ov = s.split(o, [None, 2, 16])
    s.reorder(n, yo, oo, xo, yi, xi, oi, ov)
    s.compute_at("C", xo)
    cn, cy, cx, co, kh, kw, kc = s.loops("C")[-7:]
    ci, cv = s.split(co, [None, 16])
    s.reorder(kh, kw, kc, cn, cy, cx, ci, cv)
    s.decompose_reduction("C", kh)
    s.vectorize(cv)
    s.vectorize(ov)
    s.vectorize(s.loops("C_init")[-1])
    if pad and pad_at == "rows":
        s.compute_at("P", yo)
    elif pad:
        s.parallel(s.fuse(*s.loops("P")[:2]))
    if oh % 2:
        other = s.partition(yo, oh // 2)[2]
        s.partition(other[xo], ow // 7)
    s.partition(xo, ow // 7)
    s.parallel(yo)
    lowered = check(f, s.func)
    assert lowered.attrs["workspace"] == (1 if pad and pad_at == "root" else 0)


def test_fused_rows_and_columns_of_a_pointwise_convolution_need_no_division():
    f = programs.convolution(12, 12, 6, 16, 1, 1, 0)
    s = Schedule(f)
    _, y, x, _ = s.loops("E")
    yx = s.fuse(y, x)
    tile, _ = s.split(yx, [None, 12])
    s.compute_at("C", tile)
    s.set_scope("C", "local")
    lowered = check(f, s.func)
    assert not nodes(lowered, FloorMod)


def softmax_rows(f: PrimFunc, lanes: int = 16) -> Schedule:
    s = Schedule(f)
    row, _ = s.loops("dv")
    s.parallel(row)
    for block in ("sm", "ex", "mx"):
        s.compute_at(block, row)
    for block in ("mx", "sm"):
        _, part = s.split(s.loops(block)[-1], [None, lanes])
        partial = s.rfactor(part)
        s.set_scope(partial, "local")
        s.set_scope(block, "register")
        s.vectorize(s.loops(partial)[-1])
        s.vectorize(s.loops(f"{partial}_init")[-1])
    for block in ("ex", "dv"):
        s.vectorize(s.split(s.loops(block)[-1], [None, lanes])[-1])
    return s


@pytest.mark.parametrize("columns", [64, 70, 7])
def test_row_reductions_in_one_pass_over_rows(columns):
    f = programs.softmax(6, columns)
    lowered = check(f, softmax_rows(f).func)
    assert lowered.attrs["workspace"] == 0
    found = {c.op for c in nodes(lowered, Call)}
    assert "vector_reduce_add" in found
    assert len([x for x in nodes(lowered, For) if x.kind == "parallel"]) == 1


def test_symbolic_rows_and_columns():
    m, n = te.size_var("m"), te.size_var("n")
    f = programs.softmax(m, n)
    s = Schedule(f)
    row, col = s.loops("dv")
    s.parallel(row)
    for block in ("sm", "ex", "mx"):
        s.compute_at(block, row)
    s.vectorize(s.split(col, [None, 16])[-1])
    for sizes in ({"m": 3, "n": 40}, {"m": 1, "n": 5}):
        lowered = check(f, s.func, sizes=sizes)
    assert lowered.attrs["workspace"] == 1  # a row of unknown length does not fit a stack


def test_lazy_choice_is_a_scalar_branch_or_a_serial_loop():
    x = te.placeholder((8, 32), name="x")
    by_row = te.compute((10, 32), lambda i, j: if_then_else(i < 8, x[i, j], 0.0), name="y")
    by_lane = te.compute((8, 40), lambda i, j: if_then_else(j < 30, x[i, j], 0.0), name="y")
    for out, vector in ((by_row, True), (by_lane, False)):
        f = create_prim_func([x], [out])
        s = Schedule(f)
        s.vectorize(s.split(s.loops("y")[-1], [None, 8])[-1])
        lowered = check(f, s.func)
        assert any(isinstance(st.indices[-1], Ramp) for st in nodes(lowered, BufferStore)) == vector


@pytest.mark.parametrize("rows, vector", [(8, True), (9, True), (None, False)])
def test_a_choice_known_lane_by_lane_is_put_together(rows, vector):
    """A border of zeros around short rows: each lane of a vector is inside or outside, or as all others are."""
    x = te.placeholder((8, 3), name="x")

    def element(i, j):
        inside = i * 4 + j < 26 if rows is None else land(j < 3, i < 8) if rows > 8 else j < 3
        return if_then_else(inside, x[i % 8, j % 3], 0.5)

    f = create_prim_func([x], [te.compute((rows or 8, 4), element, name="y")])
    s = Schedule(f)
    s.vectorize(s.loops("y")[-1])
    lowered = check(f, s.func)
    assert any(isinstance(st.indices[-1], Ramp) for st in nodes(lowered, BufferStore)) == vector


def test_a_gather_across_rows_is_built_from_scalars():
    x = te.placeholder((16, 9), name="x")
    y = te.compute((9, 16), lambda i, j: x[j, i] * 2.0, name="y")
    f = create_prim_func([x], [y])
    s = Schedule(f)
    s.vectorize(s.loops("y")[-1])
    check(f, s.func)


@pytest.mark.parametrize("kind", ["unrolled", "vectorized"])
@pytest.mark.parametrize("moving", [True, False])
def test_lanes_are_summed_inside_expanded_loops(kind, moving):
    a, c, i = Buffer("A", (4, 4)), Buffer("C", (4,)), Var("i")
    row = a[i if moving else 2, Ramp(IntImm(0), IntImm(1), 4)]
    store = BufferStore(c, call("vector_reduce_add", row, dtype="float32"), (i,))
    check(*[PrimFunc("sums", (a, c), For(i, IntImm(0), IntImm(4), k, store)) for k in ("serial", kind)])


def test_large_private_buffers_move_to_the_workspace_if_iterations_are_disjoint():
    f = programs.softmax(4, 100_000)
    s = Schedule(f)
    row, _ = s.loops("dv")
    s.parallel(row)
    for block in ("sm", "ex", "mx"):
        s.compute_at(block, row)
    assert check(f, s.func).attrs["workspace"] == 1


def test_large_overlapping_private_buffers_are_parts_of_the_workspace():
    x = te.placeholder((400_002,), name="x")
    a = te.compute((400_002,), lambda i: x[i] * 2.0, name="a")
    b = te.compute((400_000,), lambda i: a[i] + a[i + 2], name="b")
    f = create_prim_func([x], [b])
    s = Schedule(f)
    o, _ = s.split(s.loops("b")[0], [4, None])
    s.compute_at("a", o)
    s.parallel(o)
    assert [w.shape for w in check(f, s.func).buffers[2:]] == [(4, 100_002)]


def test_register_buffers_need_constant_indices():
    f = programs.matmul(4, 16, 8)
    s = Schedule(f)
    s.compute_inline("D")
    s.compute_at("C", s.loops("E")[0])
    s.set_scope("C", "register")
    with pytest.raises(LowerError, match="unroll or vectorize"):
        lower(s.func)


def test_fma_only_where_the_target_has_it():
    class Plain:
        fma = False

    f = programs.matmul(4, 16, 8)
    assert any(c.op == "fma" for c in nodes(lower(f), Call))
    assert not any(c.op == "fma" for c in nodes(lower(f, Plain()), Call))


def test_mathematical_functions_run_in_lanes():
    x = te.placeholder((33,), name="x")
    y = te.compute((33,), lambda i: call("tanh", x[i]) + i.astype("float32"), name="y")
    f = create_prim_func([x], [y])
    s = Schedule(f)
    s.vectorize(s.split(s.loops("y")[0], [None, 8])[-1])
    lowered = check(f, s.func)
    assert {st.value.dtype for st in nodes(lowered, BufferStore)} == {"float32x8", "float32"}
    assert not any(c.op == "tanh" for c in nodes(lowered, Call))


def test_a_deep_chain_of_blocks_lowers():
    x = te.placeholder((4,), name="x")

    def more(t: te.Tensor) -> te.Tensor:
        return te.compute((4,), lambda i: t[i] + 1.0, name="t")

    t = x
    for _ in range(1200):
        t = more(t)
    f = create_prim_func([x], [t])
    lowered = lower(f)
    assert lowered.attrs["workspace"] == 1  # each step takes the place of the one before
