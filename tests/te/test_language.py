"""The language of tensor expressions: what scripts write, through the interpreter, with NumPy as oracle."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import te, tir
from warpbeam.te.errors import TEError
from warpbeam.tir.interp import run
from warpbeam.tir.text import parse, to_text
from warpbeam.tir.transform import lower


def call(args, *values, rtol=0.0):
    """Runs the program of some tensors; the text of it reads back, and lowering changes results by `rtol` at most."""
    func = te.create_prim_func(args)
    assert to_text(parse(to_text(func))) == to_text(func)
    before = [v.copy() for v in values if isinstance(v, np.ndarray)]
    run(func, *values)
    low = lower(func)
    arrays = iter(before)
    again = [next(arrays) if isinstance(v, np.ndarray) else v for v in values]
    run(low, *again)
    for a, b in zip(values, again, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=rtol)
    return values[-1]


def ints(*shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


# --------------------------------------------------------------------------------------------------------- placeholders


def test_placeholders_and_shapes():
    n = te.var("n")
    a = te.placeholder((n, 4), name="A")
    assert (a.dtype, a.name, a.op.name, a.ndim, len(a.shape)) == ("float32", "A", "A", 2, 2)
    assert a.shape[0] == n and a.shape[1] == 4 and a.shape[1].value == 4
    assert str(a.shape) == "(n, 4)" and repr(a) == "Tensor(shape=[n, 4], op.name=A)"
    assert te.placeholder((3,), "int8").dtype == "int8" and te.placeholder(5).shape == (5,)
    assert te.placeholder((3,)) is not te.placeholder((3,))
    assert isinstance(a.op, te.PlaceholderOp) and a.op.num_outputs == 1 and a.op.output(0) is a
    with pytest.raises(ValueError, match="has no output 1"):
        a.op.output(1)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_variables_of_both_widths_are_sizes_indices_and_arguments(dtype):
    n = te.var("n", dtype)
    a = te.placeholder((n, n + 1), name="A")
    b = te.compute((n,), lambda i: a[i, n] + n, name="B")
    assert a.shape[0] == n
    func = te.create_prim_func([n, a, b])
    assert [p.name for p in func.params] == ["n", "A", "B"] and func.params[0] is n
    x, out = ints(3, 4), zeros(3)
    run(func, x, out)
    np.testing.assert_array_equal(out, x[:, 3] + 3)
    np.testing.assert_array_equal(call([a, b], x, zeros(3)), out)


def test_scalars_of_any_dtype_are_arguments():
    scale = te.var("scale", "float32")
    a = te.placeholder((4,), name="A")
    b = te.compute((4,), lambda i: a[i] * scale, name="B")
    func = te.create_prim_func([a, scale, b])
    assert [p.name for p in func.params] == ["A", "scale", "B"]
    out = zeros(4)
    run(func, ints(4), out, 2.5)
    np.testing.assert_array_equal(out, ints(4) * 2.5)


# -------------------------------------------------------------------------------------------------------------- compute


def test_compute_by_position_varargs_and_both():
    a = te.placeholder((2, 3, 4), name="A")
    x = ints(2, 3, 4)
    np.testing.assert_array_equal(call([a, te.compute(a.shape, lambda *i: a(*i) * 2)], x, zeros(2, 3, 4)), x * 2)
    b = te.compute((4, 2, 3), lambda k, *ij: a(*ij, k), name="B")
    assert [v.name for v in b.op.axis] == ["k", "i1", "i2"]
    np.testing.assert_array_equal(call([a, b], x, zeros(4, 2, 3)), x.transpose(2, 0, 1))
    named = te.compute(a.shape, lambda *i: a(*i), varargs_names=["u", "v", "w"])
    assert [v.var.name for v in named.op.axis] == ["u", "v", "w"]
    scalar = te.compute((), lambda: a[1, 2, 3] + 1, name="S")
    np.testing.assert_array_equal(call([a, scalar], x, zeros()), x[1, 2, 3] + 1)
    with pytest.raises(TEError, match="takes 1 indices, the shape has 3"):
        te.compute(a.shape, lambda i: i)
    with pytest.raises(TEError, match="varargs_names"):
        te.compute(a.shape, lambda *i: a(*i), varargs_names=["u"])


def test_attributes_of_a_compute():
    a = te.placeholder((4, 5), name="A")
    k = te.reduce_axis((0, 5), name="k")
    c = te.compute((4,), lambda i: te.sum(a[i, k], axis=k), name="C", tag="row", attrs={"note": 1})
    op = c.op
    assert (op.name, op.tag, op.attrs["note"], op.num_outputs) == ("C", "row", 1, 1)
    assert op.input_tensors == [a] and op.reduce_axis == (k,) and op.output(0) is c
    assert [x.iter_type for x in (*op.axis, *op.reduce_axis)] == [te.IterVar.DataPar, te.IterVar.CommReduce]
    assert op.axis[0].dom.extent.value == 4 and op.axis[0].dom.min.value == 0
    assert "A[i, k]" in str(op.body[0]) and isinstance(op.body[0], tir.Reduce)


def test_several_outputs():
    a = te.placeholder((4,), name="A")
    b, c = te.compute((4,), lambda i: (a[i] + 1, a[i] * 2), name="BC")
    assert b.op is c.op and (b.value_index, c.value_index) == (0, 1)
    x, ob, oc = ints(4), zeros(4), zeros(4)
    call([a, b, c], x, ob, oc)
    np.testing.assert_array_equal(ob, x + 1)
    np.testing.assert_array_equal(oc, x * 2)


def test_slices_are_completed_by_further_indices():
    a = te.placeholder((3, 4, 5), name="A")
    assert a[0][1][2] is a[0, 1, 2] and a[0, 1][2] is a(0, 1, 2)
    assert a[0].shape == (4, 5) and a[0].dtype == "float32"
    with pytest.raises(TEError, match="2 indices of tensor A are no element"):
        te.compute((3,), lambda i: a[i][0])
    with pytest.raises(TEError, match="indexed with 4"):
        a[0, 1, 2, 3]
    with pytest.raises(TEError, match="cannot be iterated"):
        list(a)
    with pytest.raises(TEError, match="used as a number"):
        te.compute((3,), lambda i: te.exp(a))


def test_tensors_add_up_with_broadcasting():
    a, b = te.placeholder((3, 4), name="A"), te.placeholder((4,), name="B")
    x, y = ints(3, 4), ints(4, seed=1)
    np.testing.assert_array_equal(call([a, b, a + b], x, y, zeros(3, 4)), x + y)
    np.testing.assert_array_equal(call([a, 2 * a - 1], x, zeros(3, 4)), 2 * x - 1)
    np.testing.assert_array_equal(call([a, -a / 2], x, zeros(3, 4)), -x / 2)


def test_operands_of_different_dtypes_meet():
    a = te.placeholder((4,), "float32", "A")
    b = te.placeholder((4,), "int8", "B")
    assert (a[0] * b[0]).dtype == "float32" and (b[0] + te.const(1, "int32")).dtype == "int32"
    assert (te.const(1, "uint8") + b[0]).dtype == "int8" and (a[0] > b[0]).dtype == "bool"
    out = te.compute((4,), lambda i: te.if_then_else(b[i] > 0, a[i], i), name="C")
    y = np.array([1, 0, -1, 2], np.int8)
    np.testing.assert_array_equal(call([a, b, out], ints(4), y, zeros(4)), np.where(y > 0, ints(4), np.arange(4)))


# ----------------------------------------------------------------------------------------------------------- reductions


@pytest.mark.parametrize("reducer, oracle", [(te.sum, np.sum), (te.max, np.max), (te.min, np.min), (te.prod, np.prod)])
def test_reducers(reducer, oracle):
    a = te.placeholder((3, 4, 5), name="A")
    j, k = te.reduce_axis((0, 4), "j"), te.reduce_axis((0, 5), "k")
    out = te.compute((3,), lambda i: reducer(a[i, j, k], axis=[j, k]), name="R")
    np.testing.assert_array_equal(call([a, out], ints(3, 4, 5), zeros(3)), oracle(ints(3, 4, 5), (1, 2)))


def test_reduction_over_a_part_and_where_and_init():
    a = te.placeholder((3, 9), name="A")
    k = te.reduce_axis((2, 7), "k")
    assert k.dom.min.value == 2 and k.dom.extent.value == 5
    x = ints(3, 9)
    out = te.compute((3,), lambda i: te.sum(a[i, k], axis=k, where=te.all(k != 4, k < 6)), name="R")
    np.testing.assert_array_equal(call([a, out], x, zeros(3)), x[:, [2, 3, 5]].sum(1))
    out = te.compute((3,), lambda i: te.sum(a[i, k], axis=k, init=10.0), name="R")
    np.testing.assert_array_equal(call([a, out], x, zeros(3)), x[:, 2:7].sum(1) + 10)
    n = te.var("n")
    m = te.reduce_axis(tir.Range(1, n), "m")
    b = te.placeholder((n,), name="B")
    tail = te.compute((1,), lambda i: te.sum(b[m], axis=m), name="T")
    np.testing.assert_array_equal(call([b, tail], ints(6), zeros(1)), [ints(6)[1:].sum()])


def test_reducers_combine_values_too():
    a = te.placeholder((4,), name="A")
    relu = te.compute((4,), lambda i: te.max(a[i], 0.0), name="relu")
    np.testing.assert_array_equal(call([a, relu], ints(4), zeros(4)), np.maximum(ints(4), 0))
    three = te.compute((4,), lambda i: te.min(a[i], 1.0, -2.0), name="three")
    np.testing.assert_array_equal(call([a, three], ints(4), zeros(4)), np.minimum(ints(4), -2))
    with pytest.raises(ValueError, match="takes 0 indices"):
        te.compute((4,), lambda: a[0])


def test_tuple_reducer():
    def combine(x, y):
        return tir.Select(x[1] >= y[1], x[0], y[0]), tir.Select(x[1] >= y[1], x[1], y[1])

    argmax = te.comm_reducer(combine, lambda t0, t1: (tir.const(-1, t0), te.min_value(t1)), name="argmax")
    idx, val = te.placeholder((3, 8), "int32", "idx"), te.placeholder((3, 8), name="val")
    k = te.reduce_axis((0, 8), "k")
    where, best = te.compute((3,), lambda i: argmax((idx[i, k], val[i, k]), axis=k), name="T")
    x = np.random.default_rng(3).permutation(24).reshape(3, 8).astype(np.float32)
    got, top = zeros(3, dtype=np.int32), zeros(3)
    call([idx, val, where, best], np.tile(np.arange(8, dtype=np.int32), (3, 1)), x, got, top)
    np.testing.assert_array_equal(got, x.argmax(1))
    np.testing.assert_array_equal(top, x.max(1))


def test_reductions_that_do_not_fit():
    a = te.placeholder((4, 5), name="A")
    k = te.reduce_axis((0, 5), "k")
    with pytest.raises(Exception, match="only allowed at the top level"):
        te.create_prim_func([a, te.compute((4,), lambda i: te.sum(a[i, k], axis=k) + 1)])
    with pytest.raises(Exception, match="no reduction axis"):
        te.compute((4,), lambda i: te.sum(a[i, 0], axis=te.thread_axis("threadIdx.x")))
    with pytest.raises(TEError, match="pair"):
        te.reduce_axis((0, 1, 2))
    two = te.comm_reducer(lambda x, y: (x[0] + y[0],), lambda t, u: (te.const(0, t), te.const(0, u)))
    with pytest.raises(Exception, match="combines to 1"):
        te.compute((4,), lambda i: two((a[i, k], a[i, k]), axis=k))


# ------------------------------------------------------------------------------------------------------------ functions

_UNARY = {
    "exp": np.exp, "tanh": np.tanh, "sqrt": np.sqrt, "log": np.log, "log2": np.log2, "log10": np.log10, "sin": np.sin,
    "cos": np.cos, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint, "nearbyint": np.rint,
    "abs": np.abs, "rsqrt": lambda x: 1 / np.sqrt(x), "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "atan": np.arctan,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(_UNARY))
def test_functions_of_one_value(name):
    a = te.placeholder((16,), name="A")
    x = np.linspace(0.3, 3.7, 16, dtype=np.float32)
    out = te.compute((16,), lambda i: getattr(te, name)(a[i]), name="B")
    np.testing.assert_allclose(call([a, out], x, zeros(16), rtol=1e-6), _UNARY[name](x), rtol=2e-6)


def test_division_of_integers_rounds_as_asked():
    a, b = te.placeholder((6,), "int32", "A"), te.placeholder((6,), "int32", "B")
    x, y = np.array([7, -7, 7, -7, 6, -6], np.int32), np.array([2, 2, -2, -2, 3, 3], np.int32)
    expected = {
        "floordiv": x // y, "floormod": x % y, "indexdiv": x // y, "indexmod": x % y,
        "truncdiv": np.trunc(x / y), "truncmod": np.fmod(x, y), "div": np.trunc(x / y),
    }  # fmt: skip
    for name, value in expected.items():
        out = te.compute((6,), lambda i, name=name: getattr(te, name)(a[i], b[i]), name="C")
        np.testing.assert_array_equal(call([a, b, out], x, y, zeros(6, dtype=np.int32)), value, name)
    assert (te.truncmod(-7, 2).value, te.floormod(-7, 2).value, te.floordiv(-7, 2).value) == (-1, 1, -4)


def test_conditions_limits_and_bits():
    a = te.placeholder((8,), "int32", "A")
    x = np.arange(-4, 4, dtype=np.int32)
    out = te.compute((8,), lambda i: te.if_then_else(te.any(a[i] < -2, te.all(a[i] > 0, i < 6)), 1, 0), name="B")
    expected = (x < -2) | ((x > 0) & (np.arange(8) < 6))
    np.testing.assert_array_equal(call([a, out], x, zeros(8, dtype=np.int64)), expected)
    bits = te.compute((8,), lambda i: te.popcount(((a[i] << 1) ^ 3) & ~(a[i] >> 1) | 4), name="P")
    y = ((x << 1) ^ 3) & ~(x >> 1) | 4
    np.testing.assert_array_equal(
        call([a, bits], x, zeros(8, dtype=np.int32)), [bin(v & 0xFFFFFFFF).count("1") for v in y.tolist()]
    )
    assert te.max_value("int8").value == 127 and te.min_value("uint8").value == 0
    assert te.max_value("float32").value == np.finfo(np.float32).max and te.infinity("float16").value == np.inf
    with pytest.raises(Exception, match="conditions"):
        te.all(a[0])
    with pytest.raises(Exception, match="no truth value"):
        bool(a[0] < 3)


def test_tests_of_floats_and_two_operands():
    a = te.placeholder((4,), name="A")
    x = np.array([1.5, np.nan, np.inf, -2.5], np.float32)
    for name in ("isnan", "isinf", "isfinite"):
        out = te.compute((4,), lambda i, name=name: getattr(te, name)(a[i]), name="B")
        np.testing.assert_array_equal(call([a, out], x, zeros(4, dtype=bool)), getattr(np, name)(x))
    out = te.compute((4,), lambda i: te.power(a[i], 2.0) + te.fmod(a[i], 2.0), name="B")
    y = np.array([1.5, 2.5, -3.5, 4], np.float32)
    np.testing.assert_allclose(call([a, out], y, zeros(4)), y**2 + np.fmod(y, 2))


# ------------------------------------------------------------------------------------------------------ scan and extern


def test_scan_is_a_running_sum():
    m, n = te.var("m"), te.var("n")
    x = te.placeholder((m, n), name="X")
    state = te.placeholder((m, n), name="S")
    init = te.compute((1, n), lambda _, i: x[0, i], name="init")
    update = te.compute((m, n), lambda t, i: state[t - 1, i] + x[t, i], name="update")
    total = te.scan(init, update, state, inputs=[x], name="total")
    assert isinstance(total.op, te.ScanOp) and total.shape == (m, n)
    assert total.op.scan_axis.iter_type == te.IterVar.Ordered and len(total.op.spatial_axis_) == 1
    assert total.op.scan_axis.dom.min.value == 1 and total.op.input_tensors == [init, update]
    data = ints(6, 4)
    np.testing.assert_array_equal(call([x, total], data, zeros(6, 4)), np.cumsum(data, 0))
    func = te.create_prim_func([x, total])
    assert "ordered[m - 1]" in to_text(func) and "alloc" not in to_text(func)


def test_scan_with_stages_inside_and_a_reduction_over_the_state():
    t_max, n = 5, 3
    x, w = te.placeholder((t_max, n), name="X"), te.placeholder((n, n), name="W")
    state = te.placeholder((t_max, n), name="S")
    k = te.reduce_axis((0, n), "k")
    product = te.compute((t_max, n), lambda t, i: te.sum(state[t - 1, k] * w[i, k], axis=k), name="product")
    update = te.compute((t_max, n), lambda t, i: te.max(product[t, i] + x[t, i], 0.0), name="update")
    out = te.scan(te.compute((1, n), lambda _, i: x[0, i]), update, state, inputs=[x, w])
    after = te.compute((t_max, n), lambda t, i: out[t, i] * 2, name="after")
    a, b = ints(t_max, n), ints(n, n, seed=1)
    expected = a.copy()
    for t in range(1, t_max):
        expected[t] = np.maximum(b @ expected[t - 1] + a[t], 0)
    np.testing.assert_array_equal(call([x, w, after], a, b, zeros(t_max, n)), expected * 2)


def test_scan_of_two_states_with_two_first_rows():
    n = 6
    a, b = te.placeholder((n,), "int32", "a"), te.placeholder((n,), "int32", "b")
    first = te.compute((2,), lambda t: te.if_then_else(t == 0, te.const(0, "int32"), te.const(1, "int32")))
    ones = te.placeholder((2,), "int32", "ones")
    fib = te.compute((n,), lambda t: a[t - 1] + a[t - 2])
    acc = te.compute((n,), lambda t: b[t - 1] + a[t - 1])
    got = te.scan([first, ones], [fib, acc], [a, b])
    assert isinstance(got, list) and len(got) == 2
    o1, o2 = zeros(n, dtype=np.int32), zeros(n, dtype=np.int32)
    call([ones, *got], np.ones(2, np.int32), o1, o2)
    np.testing.assert_array_equal(o1, [0, 1, 1, 2, 3, 5])
    np.testing.assert_array_equal(o2, [1, 1, 2, 3, 5, 8])


def test_scans_that_do_not_fit():
    n = te.var("n")
    s = te.placeholder((n, 4), name="s")
    init = te.compute((1, 4), lambda *i: 0.0)
    step = te.compute((n, 4), lambda t, i: s[t - 1, i])
    with pytest.raises(ValueError, match="1 init, 1 update and 2 state"):
        te.scan(init, step, [s, s])
    with pytest.raises(ValueError, match="dimension 1 of scan"):
        te.scan(te.compute((1, 5), lambda *i: 0.0), step, s)
    with pytest.raises(ValueError, match="init is int32"):
        te.scan(te.compute((1, 4), lambda *i: te.const(0, "int32")), step, s)
    with pytest.raises(ValueError, match="is computed"):
        te.scan(init, step, step)
    flat = te.compute((4,), lambda i: s[0, i] * 2, name="flat")
    out = te.scan(init, te.compute((n, 4), lambda t, i: flat[i] + s[t - 1, i]), s)
    with pytest.raises(ValueError, match="no axis of time"):
        te.create_prim_func([out])


def test_extern_with_a_statement():
    n = te.var("n")
    a = te.placeholder((n, 3), name="A")

    def body(ins, outs):
        ib = tir.ir_builder.create()
        src, dst, count = ib.buffer_ptr(ins[0]), ib.buffer_ptr(outs[0]), ib.buffer_ptr(outs[1])
        count[0] = 0
        with ib.for_range(0, n * 3) as i:
            dst[i] = src[i] * 2
            with ib.if_scope(src[i] > 0):
                count[0] += 1
        return ib.get()

    double, positive = te.extern([(n, 3), (1,)], [a], body, name="both", dtype=["float32", "int32"])
    assert isinstance(double.op, te.ExternOp) and double.op.num_outputs == 2 and double.op.input_tensors == [a]
    after = te.compute((n, 3), lambda i, j: double[i, j] + 1, name="after")
    x = ints(4, 3)
    out, number = zeros(4, 3), zeros(1, dtype=np.int32)
    call([a, positive, after], x, number, out)
    np.testing.assert_array_equal(out, x * 2 + 1)
    assert number[0] == (x > 0).sum()


def test_extern_with_a_registered_function():
    from warpbeam.runtime.packed import register_func, remove_global_func

    register_func("tests.language.matmul", lambda a, b, c: c.copyfrom(a.numpy() @ b.numpy()), override=True)
    a, b = te.placeholder((3, 4), name="A"), te.placeholder((4, 2), name="B")
    c = te.extern((3, 2), [a, b], lambda i, o: tir.call_packed("tests.language.matmul", i[0], i[1], o[0]), name="C")
    out = te.compute((3, 2), lambda i, j: c[i, j] + 1)
    x, y = ints(3, 4), ints(4, 2, seed=1)
    func = te.create_prim_func([a, b, out])
    got = zeros(3, 2)
    run(func, x, y, got)
    np.testing.assert_array_equal(got, x @ y + 1)
    remove_global_func("tests.language.matmul")
    with pytest.raises(Exception, match=r"tests\.language\.matmul"):
        run(func, x, y, got)


def test_extern_with_buffers_that_leave_open_where_they_lie():
    a = te.placeholder((3, 4), name="A")
    rows, step, n = te.var("rows"), te.var("step"), te.var("n")
    declared = tir.decl_buffer((rows, 4), name="a", strides=[step, 1], elem_offset=n)
    b = te.extern((3, 4), [a], lambda i, o: o[0].vstore((1, 2), i[0][1, 1] + (step * 10 + rows + n).astype("float32")),
                  name="B", in_buffers=declared)  # fmt: skip
    x, out = ints(3, 4), zeros(3, 4)
    func = te.create_prim_func([a, b])
    run(func, x, out)
    assert out[1, 2] == x[1, 1] + 43 and len(func.params) == 2


def test_externs_that_do_not_fit():
    a = te.placeholder((4,), name="A")
    with pytest.raises(ValueError, match="returned int"):
        te.extern((4,), [a], lambda i, o: 3)
    with pytest.raises(ValueError, match="needs a dtype"):
        te.extern((4,), [a, te.placeholder((4,), "int8")], lambda i, o: o[0].vstore(0, 1.0))
    with pytest.raises(ValueError, match="inputs are te tensors"):
        te.extern((4,), [3], lambda i, o: o[0].vstore(0, 1.0))


# ----------------------------------------------------------------------------------------------------------- parameters


def test_buffers_bound_to_tensors_and_intermediate_results_as_arguments():
    m = te.var("m")
    a = te.placeholder((4, m), name="A")
    b = te.compute((4, m), lambda i, j: a[i, j] + 1, name="B")
    c = te.compute((4, m), lambda i, j: b[i, j] * 2, name="C")
    whole = tir.decl_buffer((4, m), name="Ab", strides=[te.var("s0"), te.var("s1")])
    func = te.create_prim_func([a], [b, c], args=[whole, c], binds={a: whole})
    assert [p.name for p in func.params] == ["Ab", "C", "m", "s0", "s1"] and "alloc B" in to_text(func)
    assert to_text(parse(to_text(func))) == to_text(func)
    x = ints(8, 10)[::2, ::2]
    out = zeros(4, 5)
    run(func, x, out)
    np.testing.assert_array_equal(out, (x + 1) * 2)
    kept = te.create_prim_func([a, b, c])
    assert [p.name for p in kept.params] == ["A", "B", "C", "m"]
    with pytest.raises(ValueError, match="parameters are tensors"):
        te.create_prim_func([a], [c], args=[a, 3])


def test_thread_axes():
    t = te.thread_axis("threadIdx.x")
    assert (t.thread_tag, t.dom, t.iter_type, t.var.name) == (
        "threadIdx.x",
        None,
        te.IterVar.ThreadIndex,
        "threadIdx.x",
    )
    u = te.thread_axis((0, 16), "vthread", name="vx")
    assert u.dom.extent.value == 16 and u.var.name == "vx"
    assert (t.var == te.thread_axis("threadIdx.x").var) is not True and t != u
    assert str(t.var.equal(0)) == "threadIdx.x == 0"
    with pytest.raises(ValueError, match="needs a tag"):
        te.thread_axis((0, 4))
