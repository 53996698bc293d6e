"""Statements written with the builder, the public names of tir, and walks over programs."""

from __future__ import annotations

import numpy as np
import pytest

import warpbeam as wb
from warpbeam import te, tir
from warpbeam.tir.interp import run


def function(ib, *params):
    """The function of a builder; its text reads back."""
    func = tir.PrimFunc("f", params, ib.get())
    assert str(tir.parse(str(func))) == str(func)
    return func


def test_loops_branches_lets_and_allocations():
    n = te.var("n")
    a, b = tir.decl_buffer((n,), name="A"), tir.decl_buffer((n,), name="B")
    ib = tir.ir_builder.create()
    src, dst = ib.buffer_ptr(a), ib.buffer_ptr(b)
    with ib.for_range(0, n, name="i", kind="parallel") as i:
        with ib.if_scope(ib.likely(i % 2 == 0)):
            t = ib.allocate("float32", (2,), name="t", scope="local")
            t[0] = src[i]
            t[1] = 1
            dst[i] = t[0] + t[1]
        with ib.else_scope():
            dst[i] = 0.0
            with ib.for_range(1, 3, "j", dtype="int32") as j:
                x = ib.let("x", src[i] * 2.0)
                dst[i] += x + j
    func = function(ib, a, b, n)
    x = np.arange(7, dtype=np.float32)
    out = np.zeros_like(x)
    run(func, x, out)
    np.testing.assert_array_equal(out, np.where(np.arange(7) % 2 == 0, x + 1, x * 4 + 3))
    got = wb.nd.array(np.zeros_like(x))
    wb.build(func, target="llvm")(wb.nd.array(x), got)
    np.testing.assert_array_equal(got.numpy(), out)


def test_while_loops_and_flat_indices():
    a, b = tir.decl_buffer((3, 4), "int32", "A"), tir.decl_buffer((2,), "int64", "B")
    ib = tir.ir_builder.create()
    src, found = ib.buffer_ptr(a), ib.buffer_ptr(b)
    found[0] = 0
    with ib.while_loop(tir.all(found[0] < 12, src[found[0]] != 7)):
        found[0] = found[0] + 1
    found[1] = src[1, 2]
    func = function(ib, a, b)
    x = np.arange(12, dtype=np.int32).reshape(3, 4)
    out = np.zeros(2, np.int64)
    run(func, x, out)
    assert out.tolist() == [7, 6]


def test_thread_axes_and_notes():
    a = tir.decl_buffer((64,), name="A")
    ib = tir.ir_builder.create()
    dst = ib.buffer_ptr(a)
    bx, tx = te.thread_axis("blockIdx.x"), te.thread_axis("threadIdx.x")
    ib.scope_attr(bx, "thread_extent", 4)
    ib.scope_attr(tx, "thread_extent", 16)
    ib.scope_attr(None, "pragma_unroll_explicit", 0)
    dst[bx * 16 + tx] = tx.astype("float32")
    func = function(ib, a)
    assert 'thread_binding("blockIdx.x", 4)' in str(func) and '{"pragma_unroll_explicit": 0}' in str(func)
    out = np.zeros(64, np.float32)
    run(func, out)
    np.testing.assert_array_equal(out, np.arange(64) % 16)


def test_names_are_its_own_and_vectors_are_stored():
    a = tir.decl_buffer((8,), name="A")
    ib = tir.ir_builder.create()
    dst = ib.buffer_ptr(a)
    for k in range(2):
        with ib.for_range(0, 2, "i", kind="unroll") as i:
            dst[tir.Ramp(i * 2 + k * 4, tir.const(1), 2)] = 1.5
    func = function(ib, a)
    assert "for i in unrolled(2)" in str(func) and "for i_1 in unrolled(2)" in str(func)
    out = np.zeros(8, np.float32)
    run(func, out)
    np.testing.assert_array_equal(out, 1.5)


def test_a_builder_out_of_order():
    ib = tir.ir_builder.create()
    a = ib.buffer_ptr(tir.decl_buffer((2, 3, 4), name="A"))
    with pytest.raises(ValueError, match="can only follow an if_scope"):
        ib.else_scope()
    with pytest.raises(ValueError, match="has 3 dimensions, indexed with 2"):
        a[0, 1] = 1.0
    with pytest.raises(ValueError, match="stored into A of float32"):
        a[0] = tir.const(1.0, "float64") + te.var("x", "float64")
    with pytest.raises(ValueError, match="emit is given int"):
        ib.emit(3)
    with pytest.raises(ValueError, match="needs a thread axis"):
        ib.scope_attr(te.var("x"), "thread_extent", 4)
    scope = ib.for_range(0, 3)
    with pytest.raises(ValueError, match="still open"):
        ib.get()
    scope.close()
    ib.get()


# -------------------------------------------------------------------------------------------------------------- buffers


def test_declared_buffers():
    n = te.var("n")
    plain = tir.decl_buffer((n, 4))
    assert (plain.dtype, plain.name, plain.scope, plain.strides, plain.elem_offset) == (
        "float32", "buffer", "global", (), 0,
    )  # fmt: skip
    assert plain.plain and plain.ndim == 2 and plain.scope_name() == "global"
    own = tir.decl_buffer(
        (4, 8), "int8", "W", strides=[te.var("s"), 1], offset_factor=4, data_alignment=64, scope="local"
    )
    assert own.elem_offset.name == "W_elem_offset" and own.strides[1] == 1 and not own.plain
    assert (own.offset_factor, own.data_alignment, own.scope) == (4, 64, "local")
    with pytest.raises(Exception, match="2 dimensions and 1 strides"):
        tir.decl_buffer((4, 8), strides=[1])


def test_vectors_pointers_and_places():
    a = tir.decl_buffer((4, 8), name="A")
    assert str(a.vload([1, 0])) == "A[1, 0]" and str(a.vload((1, 4), "float32x4")) == "A[1, ramp(4, 1, 4)]"
    assert str(a.vstore((0, 0), tir.const(2.0, "float32x8"))) == "A[0, ramp(0, 1, 8)] = broadcast(2.0, 8)"
    assert str(a.access_ptr("w")) == "access_ptr[handle](A, 0, 32, 2)".replace("[handle]", "")
    assert a.access_ptr("rw", offset=8).args[2].value == 24 and a.access_ptr(1).args[3].value == 1
    assert str(a.offset_of([2, 3])) == "19" and str(a.data) == "A" and a.data.dtype == "handle"
    assert tir.address_of(a[1, 2]).op == "address_of"
    with pytest.raises(Exception, match="unknown access"):
        a.access_ptr("x")


def test_strides_are_flattened_by_lowering():
    from warpbeam.tir.transform import lower

    s = te.var("s")
    a = tir.decl_buffer((3, 4), name="A", strides=[s, 2], elem_offset=1)
    b = tir.decl_buffer((3, 4), name="B")
    ib = tir.ir_builder.create()
    with ib.for_range(0, 3) as i, ib.for_range(0, 4, "j") as j:
        ib.emit(b.vstore((i, j), a[i, j] + 1.0))
    func = function(ib, a, b, s)
    low = lower(func)
    assert low.params[0].plain and str(low.params[0].shape[0]) == "s * 2 + 8"
    memory = np.arange(40, dtype=np.float32)
    out = np.zeros((3, 4), np.float32)
    run(low, memory[: 2 * 10 + 8], out, 10)
    np.testing.assert_array_equal(out, np.lib.stride_tricks.as_strided(memory[1:], (3, 4), (40, 8)) + 1)


# ------------------------------------------------------------------------------------------------------ names and calls


def test_literals_and_choices_take_the_classic_forms():
    assert tir.IntImm("int32", 3) is tir.const(3, "int32") and tir.FloatImm("float32", 0.5) is tir.const(0.5)
    assert tir.Select(te.var("b", "bool"), 1, te.var("x")).true_value.value == 1
    chosen = tir.Select(condition=te.var("b", "bool"), true_value=te.var("x"), false_value=2)
    assert chosen.false_value.value == 2
    assert tir.SizeVar("n", "int32").nonneg and tir.Var("x", "float32").dtype == "float32"
    assert tir.Range(2, 5).extent.value == 3 and tir.Range.from_min_extent(1, 4).min.value == 1
    assert (
        tir.ForKind.VECTORIZED == "vectorized" and tir.For(te.var("i"), 0, 4, 2, tir.Evaluate(0)).kind == "vectorized"
    )
    assert "exp" in dir(tir) and "create_schedule" in dir(te)
    with pytest.raises(AttributeError):
        tir.no_such_name  # noqa: B018


def test_calls():
    a = tir.decl_buffer((4,), name="A")
    x = te.var("x", "float32")
    assert (
        str(tir.call_intrin("float32", "tir.exp", x)) == "exp(x)"
        and tir.call_pure_intrin("float32", "exp", x).op == "exp"
    )
    assert tir.call_intrin("float32", "tir.power", x, x).op == "pow"
    call = tir.call_extern("int32", "fill", a.data, a.access_ptr("w"), 3)
    assert (call.dtype, call.op, call.attrs["name"], len(call.args)) == ("int32", "call_extern", "fill", 3)
    assert tir.call_pure_extern("float32", "expf", x).op == "call_pure_extern"
    assert tir.call_packed("f", a, "text").args[1].value == "text"
    llvm = tir.call_llvm_pure_intrin("float32", "llvm.fabs.f32", tir.const(1, "uint32"), x)
    assert llvm.attrs["name"] == "llvm.fabs.f32" and llvm.args == (x,)
    assert tir.call_llvm_intrin("float32", "llvm.fabs.f32", x).op == "call_llvm_intrin"


def test_walks_and_rewrites():
    a = te.placeholder((8,), name="A")
    func = te.create_prim_func([a, te.compute((8,), lambda i: a[i] + 1.0, name="B")])
    loops = []
    tir.stmt_functor.post_order_visit(func.body, lambda n: loops.append(n) if isinstance(n, tir.For) else None)
    tir.stmt_functor.pre_order_visit(func.body, lambda n: not isinstance(n, tir.Block))

    def by_two(loop):
        if loop not in loops:
            return None
        outer, inner = te.var(loop.loop_var.name + ".outer"), te.var(loop.loop_var.name + ".inner")
        body = tir.stmt_functor.substitute(loop.body, {loop.loop_var: outer * 2 + inner})
        body = tir.For(inner, 0, 2, tir.ForKind.VECTORIZED, body)
        return tir.For(outer, 0, loop.extent.value // 2, tir.ForKind.SERIAL, body)

    new = func.with_body(tir.stmt_functor.ir_transform(func.body, None, by_two, ["tir.For"]))
    assert "for i.inner in vectorized(2)" in str(new)
    x, out = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    run(new, x, out)
    np.testing.assert_array_equal(out, x + 1)
    early = tir.stmt_functor.ir_transform(
        func.body, lambda n: tir.const(2.0) if isinstance(n, tir.FloatImm) else None, None
    )
    run(func.with_body(early), x, out)
    np.testing.assert_array_equal(out, x + 2)
    assert (
        func.with_attr("tag", 1).attrs["tag"] == 1 and "tag" not in func.with_attr({"tag": 1}).without_attr("tag").attrs
    )
    with pytest.raises(Exception, match="returned int"):
        tir.stmt_functor.ir_transform(func.body, lambda n: 3, None)


def test_blocks_refuse_axes_that_do_not_start_at_zero():
    axis = tir.IterVar(te.var("k"), 4, "reduce", 2)
    with pytest.raises(Exception, match="no block axis"):
        tir.Block("b", (axis,), (0,), True, None, tir.Evaluate(0))
    with pytest.raises(Exception, match="unknown axis kind"):
        tir.IterVar(te.var("k"), 4, "other")
    with pytest.raises(Exception, match="has no extent"):
        tir.IterVar(te.var("k"), None)
    assert str(axis) == "iter_var(k, range(min=2, ext=4), reduce)"


def test_questions_about_programs():
    a, n = te.placeholder((8, 4), name="A"), te.var("n")
    func = te.create_prim_func([a, te.compute((8, 4), lambda i, j: a[i, j] * 2.0 + n, name="B")])
    assert tir.analysis.verify_ssa(func) and tir.analysis.undefined_vars(func.body, func.params[2:]) == []
    assert tir.analysis.undefined_vars(n + 1) == [n] and tir.analysis.undefined_vars(func.body) == [n]
    assert tir.analysis.expr_deep_equal(n + 1, n + 1) and not tir.analysis.expr_deep_equal(n + 1, n + 2)
    assert tir.analysis.estimate_tir_flops(func) == 64 and not tir.analysis.verify_memory(func)
    s = tir.Schedule(func)
    i, j = s.loops("B")
    s.bind(i, "blockIdx.x")
    s.bind(j, "threadIdx.x")
    assert tir.analysis.verify_memory(s.func)
    assert tir.analysis.verify_gpu_code(s.func, {"max_threads_per_block": 4})
    assert not tir.analysis.verify_gpu_code(s.func, {"max_threads_per_block": 3})
    assert not tir.analysis.verify_gpu_code(s.func, {"max_thread_x": 2})
    twice = tir.SeqStmt((func.body, func.body))
    assert not tir.analysis.verify_ssa(func.with_body(twice))


def test_a_pointer_with_dimensions_of_its_own():
    ib = tir.ir_builder.create()
    a, b = tir.decl_buffer((12,), "float32", "a"), tir.decl_buffer((4, 3), "float32", "b")
    x, y = ib.buffer_ptr(a, shape=[3, 4]), ib.buffer_ptr(b, (2, 6))
    with ib.for_range(0, 12) as i:
        y[i // 6, i % 6] = x[i // 4, i % 4] * 2.0
    assert x.shape == (3, 4)
    func = function(ib, a, b)
    given, got = np.arange(12, dtype="float32"), np.zeros((4, 3), "float32")
    run(func, given, got)
    np.testing.assert_array_equal(got.reshape(-1), given * 2)
