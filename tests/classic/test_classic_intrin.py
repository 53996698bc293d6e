"""Functions from elsewhere: extern, registered functions, statements by hand, tensorize, passes of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classic_run import check, numbers

import warpbeam as tvm
from warpbeam import te
from warpbeam.contrib import cblas, clang

tir = tvm.tir


def test_extern_and_blas() -> None:
    n, depth, m = 5, 6, 7
    a, b = te.placeholder((n, depth), name="A"), te.placeholder((depth, m), name="B")
    bias = te.var("bias", dtype="float32")
    x, y = numbers(n, depth), numbers(depth, m, seed=1)
    by_name = te.extern(
        (n, m), [a, b],
        lambda ins, outs: tir.call_packed("tvm.contrib.cblas.matmul", ins[0], ins[1], outs[0], False, False), name="C",
    )  # fmt: skip
    for c in (by_name, cblas.matmul(a, b)):
        d = te.compute(c.shape, lambda i, j, c=c: c[i, j] + bias, name="D")
        mod, out = tvm.build(te.create_schedule(d.op), [a, b, d, bias], "llvm"), tvm.nd.empty((n, m))
        mod(tvm.nd.array(x), tvm.nd.array(y), out, 10.0)
        np.testing.assert_allclose(out.numpy(), x @ y + 10)


def test_registered_functions() -> None:
    seen = []

    @tvm.register_func("classic.add_three", override=True)
    def add_three(x: Any, y: Any) -> None:
        seen.append(type(x))
        tvm.nd.array(x.numpy() + 3).copyto(y)

    a = te.placeholder((9,), name="A")
    b = te.extern(a.shape, [a], lambda i, o: tir.call_packed("classic.add_three", i[0], o[0]), name="B")
    check(te.create_schedule(b.op), [a, b], [numbers(9)], [numbers(9) + 3])
    assert seen == [tvm.nd.NDArray] and tvm.get_global_func("classic.add_three") is not None
    assert tvm.get_global_func("classic.nothing", allow_missing=True) is None


def test_extern_with_buffers_and_several_outputs() -> None:
    a = te.placeholder((8,), name="A")
    near = tir.decl_buffer((8,), "float32", name="near")

    def body(ins: Any, outs: Any) -> Any:
        ib = tir.ir_builder.create()
        source, low, high = ib.buffer_ptr(ins[0]), ib.buffer_ptr(outs[0]), ib.buffer_ptr(outs[1])
        with ib.for_range(0, 8, name="i") as i:
            with ib.if_scope(i < 4):
                low[i] = source[i]
            with ib.else_scope():
                low[i] = -source[i]
            high[i] = tir.call_pure_extern("float32", "fabsf", source[i])
        return ib.get()

    x = numbers(8)
    outs = te.extern([(8,), (8,)], [a], body, name="B", dtype=["float32", "float32"], in_buffers=[near])
    want = np.where(np.arange(8) < 4, x, -x)
    check(te.create_schedule(outs[0].op), [a, *outs], [x], [want, np.abs(x)])


def test_functions_of_c_and_llvm() -> None:
    n = te.var("n")
    a = te.placeholder((n,), name="A")
    x = np.random.default_rng(0).random(9, np.float32)
    for value, want in (
        (lambda i: tir.call_pure_extern("float32", "expf", a[i]), np.exp(x)),
        (lambda i: tir.call_intrin("float32", "tir.exp", a[i]), np.exp(x)),
        (lambda i: tir.call_llvm_pure_intrin("float32", "llvm.sqrt.f32", tir.const(1, "uint32"), a[i]), np.sqrt(x)),
    ):
        b = te.compute((n,), value, name="B")
        check(te.create_schedule(b.op), [a, b], [x], [want], rtol=1e-5)


ROWS = """
define i32 @rows_update(ptr %c, ptr %a, ptr %b, i32 %m, i32 %l, i32 %stride) {
entry:
  br label %outer
outer:
  %i = phi i32 [0, %entry], [%i1, %done]
  %pc = getelementptr float, ptr %c, i32 %i
  %c0 = load float, ptr %pc
  %row = mul i32 %i, %stride
  br label %inner
inner:
  %j = phi i32 [0, %outer], [%j1, %inner]
  %sum = phi float [%c0, %outer], [%sum1, %inner]
  %pa = getelementptr float, ptr %a, i32 %j
  %va = load float, ptr %pa
  %at = add i32 %row, %j
  %pb = getelementptr float, ptr %b, i32 %at
  %vb = load float, ptr %pb
  %p = fmul float %va, %vb
  %sum1 = fadd float %sum, %p
  %j1 = add i32 %j, 1
  %more = icmp slt i32 %j1, %l
  br i1 %more, label %inner, label %done
done:
  store float %sum1, ptr %pc
  %i1 = add i32 %i, 1
  %next = icmp slt i32 %i1, %m
  br i1 %next, label %outer, label %end
end:
  ret i32 0
}
define i32 @rows_reset(ptr %c, i32 %m) {
  %bytes = mul i32 %m, 4
  call void @llvm.memset.p0.i32(ptr %c, i8 0, i32 %bytes, i1 false)
  ret i32 0
}
declare void @llvm.memset.p0.i32(ptr, i8, i32, i1)
"""


def rows(m: int, length: int, parts: bool) -> Any:
    """c[i] (+)= sum(a[k] * b[i, k])"""
    a, b = te.placeholder((length,), name="a"), te.placeholder((m, length), name="b")
    k = te.reduce_axis((0, length), name="k")
    c = te.compute((m,), lambda i: te.sum(a[k] * b[i, k], axis=k), name="c")
    at = tir.decl_buffer(a.shape, a.dtype, name="A", offset_factor=1, strides=[1])
    bt = tir.decl_buffer(b.shape, b.dtype, name="B", offset_factor=1, strides=[te.var("s1"), 1])
    ct = tir.decl_buffer(c.shape, c.dtype, name="C", offset_factor=1, strides=[1])

    def calls(ins: Any, outs: Any) -> Any:
        aa, bb = ins
        (cc,) = outs

        def emit(*args: Any) -> Any:
            ib = tir.ir_builder.create()
            ib.emit(tir.call_extern("int32", *args))
            return ib.get()

        def update() -> Any:
            pointers = cc.access_ptr("w"), aa.access_ptr("r"), bb.access_ptr("r")
            return emit("rows_update", *pointers, m, length, bb.strides[0])

        return (update(), emit("rows_reset", cc.access_ptr("w"), m), update()) if parts else update()

    return te.decl_tensor_intrin(c.op, calls, name="rows", binds={a: at, b: bt, c: ct})


@pytest.mark.parametrize("parts", [False, True])
def test_tensorize(parts: bool) -> None:
    n, m, length, factor = 8, 32, 12, 16
    a, b = te.placeholder((n, length), name="A"), te.placeholder((m, length), name="B")
    k = te.reduce_axis((0, length), name="k")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, k] * b[j, k], axis=k), name="C")
    s = te.create_schedule(c.op)
    x, y = c.op.axis
    (z,) = c.op.reduce_axis
    yo, yi = s[c].split(y, factor=factor)
    if parts:
        zo, zi = s[c].split(z, factor=4)
        s[c].reorder(x, yo, zo, yi, zi)
    else:
        s[c].reorder(x, yo, yi, z)
    s[c].tensorize(yi, rows(factor, 4 if parts else length, parts))
    assert "rows_update" in str(tvm.lower(s, [a, b, c], simple_mode=True))
    s[c].pragma(x, "import_llvm", ROWS)
    p, q = numbers(n, length), numbers(m, length, seed=1)
    if parts:
        check(s, [a, b, c], [p, q], [p @ q.T])
        return
    out = tvm.nd.array(np.zeros((n, m), np.float32))  # the function adds to what is there
    tvm.build(s, [a, b, c], "llvm", name="rows")(p, q, out)
    assert np.array_equal(out.numpy(), p @ q.T)


def test_tensorize_that_does_not_match() -> None:
    a, b = te.placeholder((4, 12), name="A"), te.placeholder((16, 12), name="B")
    k = te.reduce_axis((0, 12), name="k")
    c = te.compute((4, 16), lambda i, j: te.sum(a[i, k] + b[j, k], axis=k), name="C")
    s = te.create_schedule(c.op)
    s[c].tensorize(c.op.axis[1], rows(16, 12, True))
    with pytest.raises(tvm.TVMError, match="rows"):
        tvm.lower(s, [a, b, c])
    with pytest.raises(ValueError, match="composition"):
        te.decl_tensor_intrin(te.compute((4,), lambda i: c[0, i]).op, lambda ins, outs: None)


def test_source_of_another_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(tvm.TVMError, match="clang was not found"):
        clang.find_clang()
    text = clang.create_llvm('extern "C" int f(void);') if clang_is_there() else ""
    assert isinstance(text, str)


def clang_is_there() -> bool:
    try:
        return bool(clang.find_clang())
    except tvm.TVMError:
        return False


def test_own_pass() -> None:
    a = te.placeholder((32,), name="a")
    b = te.compute((4, 8), lambda i, j: a[i * 8 + j] + 1, name="b")
    s = te.create_schedule(b.op)
    found: list[Any] = []

    def wide(node: Any) -> None:
        if isinstance(node, tir.For) and isinstance(node.extent, tir.IntImm) and node.extent.value == 8:
            found.append(node)

    def vectors(node: Any) -> Any:
        if node not in found:
            return None
        name = node.loop_var.name
        outer, inner = te.var(f"{name}.outer"), te.var(f"{name}.inner")
        body = tir.stmt_functor.substitute(node.body, {node.loop_var: outer * 8 + inner})
        body = tir.For(inner, 0, 8, tir.ForKind.VECTORIZED, body)
        return tir.For(outer, 0, node.extent.value // 8, tir.ForKind.SERIAL, body)

    @tir.transform.prim_func_pass(opt_level=0)
    def vectorize(f: Any, mod: Any, ctx: Any) -> Any:
        tir.stmt_functor.post_order_visit(f.body, wide)
        return f.with_body(tir.stmt_functor.ir_transform(f.body, None, vectors, ["tir.For"]))

    with tvm.transform.PassContext(config={"tir.add_lower_pass": [(1, vectorize)]}):
        assert "ramp" in str(tvm.lower(s, [a, b]))
        check(s, [a, b], [numbers(32)], [numbers(32).reshape(4, 8) + 1])
    assert found


def test_printed_passes(capsys: pytest.CaptureFixture[str]) -> None:
    a = te.placeholder((4,), name="a")
    b = te.compute((4,), lambda i: a[i], name="b")
    mod = tvm.lower(te.create_schedule(b.op), [a, b])
    out = tvm.transform.Sequential([tir.transform.Simplify(), tvm.transform.PrintIR("after")])(mod)
    text = capsys.readouterr().out
    assert text.startswith("PrintIR(after)") and "b[i] = a[i]" in text and tvm.ir.structural_equal(out, mod)
    again = tvm.ir.load_json(tvm.ir.save_json(mod))
    assert tvm.ir.structural_equal(again, mod) and tvm.transform.PassContext.current().opt_level == 2


def test_functions_by_hand() -> None:
    place = tir.decl_buffer((10,), "float32", name="place")
    ib = tir.ir_builder.create()
    p = ib.buffer_ptr(place)
    with ib.for_range(0, 10, kind="parallel") as i:
        p[i] = p[i] + 1.0
    func = tir.PrimFunc([place], ib.get()).with_attr("global_symbol", "main")
    for mod in (tvm.build(tvm.IRModule({"main": func})), tvm.build(func)):
        x = tvm.nd.array(numbers(10))
        mod(x)
        assert np.array_equal(x.numpy(), numbers(10) + 1)


def test_temporary_files() -> None:
    temp = tvm.contrib.utils.tempdir()
    Path(temp.relpath("f.txt")).write_text("x")
    assert temp.listdir() == ["f.txt"]
