"""Schedules for GPUs: text for CUDA and OpenCL, run by the executor that keeps the rules of a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from classic_run import check_gpu, numbers

import warpbeam as tvm
from warpbeam import te, topi


def axes(*tags: str) -> list[Any]:
    return [te.thread_axis(t) for t in tags]


def spread(s: Any, t: Any, threads: int = 32) -> None:
    """Blocks of threads over the last axis."""
    block, thread = s[t].split(t.op.axis[-1], factor=threads)
    s[t].bind(block, te.thread_axis("blockIdx.x"))
    s[t].bind(thread, te.thread_axis("threadIdx.x"))


@pytest.mark.parametrize(("target", "words"), [
    ("cuda", ("__global__", "blockIdx.x", "threadIdx.x")), ("opencl", ("__kernel", "get_group_id", "get_local_id")),
])  # fmt: skip
def test_vector_add(target: str, words: tuple[str, ...]) -> None:
    n = te.var("n")
    a, b = te.placeholder((n,), name="A"), te.placeholder((n,), name="B")
    c = te.compute((n,), lambda i: a[i] + b[i], name="C")
    s = te.create_schedule(c.op)
    spread(s, c, 64)
    x, y = numbers(100), numbers(100, seed=1)
    text = check_gpu(s, [a, b, c], [x, y], [x + y], target=target)
    assert all(w in text for w in words)


def test_forgotten_bindings() -> None:
    a = te.placeholder((8,), name="A")
    b = te.compute((8,), lambda i: a[i] + 1, name="B")
    with pytest.raises(tvm.TVMError, match="Did you forget to bind"):
        tvm.build(te.create_schedule(b.op), [a, b], "cuda")


def test_product_in_shared_memory_and_registers() -> None:
    n, k_len = 32, 24
    a, b = te.placeholder((n, k_len), name="A"), te.placeholder((k_len, n), name="B")
    k = te.reduce_axis((0, k_len), "k")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    s = te.create_schedule(c.op)
    near = [s.cache_read(t, "shared", [c]) for t in (a, b)]
    regs = [s.cache_read(t, "local", [c]) for t in near]
    out = s.cache_write(c, "local")
    by, bx = axes("blockIdx.y", "blockIdx.x")
    ty, tx = te.thread_axis((0, 4), "threadIdx.y"), te.thread_axis((0, 4), "threadIdx.x")
    vy, vx = te.thread_axis((0, 2), "vthread", name="vy"), te.thread_axis((0, 2), "vthread", name="vx")
    yo, xo, yi, xi = s[c].tile(*c.op.axis, 16, 16)
    yv, yi = s[c].split(yi, nparts=2)
    xv, xi = s[c].split(xi, nparts=2)
    yt, yi = s[c].split(yi, nparts=4)
    xt, xi = s[c].split(xi, nparts=4)
    s[c].reorder(yo, xo, yv, xv, yt, xt, yi, xi)
    for loop, axis in zip((yo, xo, yv, xv, yt, xt), (by, bx, vy, vx, ty, tx), strict=True):
        s[c].bind(loop, axis)
    s[out].compute_at(s[c], xt)
    y, x = s[out].op.axis
    ko, ki = s[out].split(s[out].op.reduce_axis[0], factor=8)
    s[out].reorder(ko, ki, y, x)
    s[out].unroll(ki)
    for t in near:
        s[t].compute_at(s[out], ko)
        fused = s[t].fuse(*s[t].op.axis)
        fused, lane = s[t].split(fused, factor=4)
        o, fx = s[t].split(fused, factor=4)
        _, fy = s[t].split(o, factor=4)
        s[t].bind(fy, ty)
        s[t].bind(fx, tx)
        s[t].vectorize(lane)
        s[t].double_buffer()
    for t in regs:
        s[t].compute_at(s[out], ki)
    x, y = numbers(n, k_len), numbers(k_len, n, seed=1)
    text = check_gpu(s, [a, b, c], [x, y], [x @ y])
    assert "__shared__" in text and "__syncthreads" in text


def test_reduction_over_threads() -> None:
    n, m = te.var("n"), te.var("m")
    a, k = te.placeholder((n, m), name="A"), te.reduce_axis((0, m), "k")
    b = te.compute((n,), lambda i: te.sum(a[i, k], axis=k), name="B")
    s = te.create_schedule(b.op)
    _, ki = s[b].split(b.op.reduce_axis[0], factor=16)
    part = s.rfactor(b, ki)
    outer, inner = s[b].split(s[b].op.axis[0], factor=8)
    s[b].bind(outer, te.thread_axis("blockIdx.x"))
    s[b].bind(inner, te.thread_axis("threadIdx.y"))
    tx = te.thread_axis("threadIdx.x")
    s[b].bind(s[b].op.reduce_axis[0], tx)
    s[part].compute_at(s[b], s[b].op.reduce_axis[0])
    s[b].set_store_predicate(tx.var.equal(0))
    x = numbers(19, 45)
    check_gpu(s, [a, b], [x], [x.sum(1)])


def test_scan_on_a_device() -> None:
    m, n = te.var("m"), te.var("n")
    x, state = te.placeholder((m, n), name="X"), te.placeholder((m, n), name="state")
    init = te.compute((1, n), lambda _, i: x[0, i], name="init")
    update = te.compute((m, n), lambda t, i: state[t - 1, i] + x[t, i], name="update")
    scan = te.scan(init, update, state, inputs=[x])
    s = te.create_schedule(scan.op)
    spread(s, init, 16)
    spread(s, update, 16)
    given = numbers(5, 40)
    check_gpu(s, [x, scan], [given], [np.cumsum(given, 0, dtype=np.float32)])


def test_convolution_with_a_cooperative_copy_that_does_not_divide() -> None:
    data, kernel = te.placeholder((1, 3, 12, 12), name="data"), te.placeholder((4, 3, 5, 5), name="kernel")
    with tvm.target.Target("cuda"):
        out = topi.nn.relu(topi.cuda.conv2d_nchw(data, kernel, 1, 2, 1))
        s = topi.cuda.schedule_conv2d_nchw([out])
    x, w = numbers(1, 3, 12, 12), numbers(4, 3, 5, 5, seed=1)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))), (5, 5), (2, 3))
    want = np.maximum(np.einsum("ncyxij,ocij->noyx", windows, w), 0)
    check_gpu(s, [data, kernel, out], [x, w], [want])


def test_rows_by_topi() -> None:
    a, b = te.placeholder((6, 5, 5), name="a"), te.placeholder((5, 5), name="b")
    total = topi.sum(topi.elemwise_sum([a + b, a * b]) / 2.0)
    with tvm.target.cuda():
        s = topi.cuda.schedule_reduce(total)
        assert "threadIdx.x" in str(tvm.lower(s, [a, b], simple_mode=True)) and len(s.stages) > 4
    x, y = numbers(6, 5, 5), numbers(5, 5, seed=1)
    check_gpu(s, [a, b, total], [x, y], [np.asarray(((x + y + x * y) / 2).sum(), np.float32)], rtol=1e-5)
    t = te.placeholder((4, 33), name="t")
    soft = topi.nn.softmax(t)
    with tvm.target.Target("cuda"):
        s = topi.cuda.schedule_softmax(soft)
    z = np.random.default_rng(0).random((4, 33), np.float32)
    e = np.exp(z - z.max(1, keepdims=True))
    check_gpu(s, [t, soft], [z], [e / e.sum(1, keepdims=True)], rtol=1e-5)


def test_mathematics_by_name_and_by_rule() -> None:
    n = te.var("n")
    a = te.placeholder((n,), name="A")

    def text(value: Any, target: str = "cuda") -> str:
        b = te.compute((n,), value, name="B")
        s = te.create_schedule(b.op)
        spread(s, b)
        return str(tvm.build(s, [a, b], target, name="f").imported_modules[0].get_source())

    assert "__expf(" in text(lambda i: tvm.tir.call_pure_extern("float32", "__expf", a[i]))
    assert "expf(" in text(lambda i: te.exp(a[i])) and "exp(" in text(lambda i: te.exp(a[i]), "opencl")
    tir, seen = tvm.tir, []

    def rule(op: Any) -> Any:
        assert isinstance(op, tir.Call) and op.op.name == "tir.cosh" and op.op.same_as(tvm.ir.Op.get("tir.cosh"))
        seen.append(op.dtype)
        return tir.call_pure_extern("float32", "own_cosh", op.args[0]) if op.dtype == "float32" else op

    tvm.ir.register_intrin_lowering("tir.cosh", target="cuda", f=rule, level=99)
    assert "own_cosh(" in text(lambda i: te.cosh(a[i])) and seen == ["float32"]
    assert "own_cosh" not in text(lambda i: te.cosh(a[i]), "opencl")
    tvm.ir.register_op_attr("tir.halved", "TCallEffectKind", tir.CallEffectKind.Pure)
    tvm.ir.register_intrin_lowering("tir.halved", target="cuda", f=lambda op: op.args[0] * 0.5, level=99)
    assert "0.5f" in text(lambda i: tir.call_intrin(a.dtype, "tir.halved", a[i]))


def test_statements_by_hand() -> None:
    a = te.placeholder((64,), name="A")

    def flipped(ins: Any, outs: Any) -> Any:
        ib = tvm.tir.ir_builder.create()
        source, to = ib.buffer_ptr(ins[0]), ib.buffer_ptr(outs[0])
        block, thread = axes("blockIdx.x", "threadIdx.x")
        ib.scope_attr(block, "thread_extent", 4)
        ib.scope_attr(thread, "thread_extent", 16)
        near = ib.allocate("float32", (16,), name="near", scope="shared")
        near[thread] = source[block * 16 + thread]
        ib.emit(tvm.tir.call_intrin("int32", "tir.tvm_storage_sync", "shared"))
        with ib.if_scope(ib.likely(block * 16 + thread < 64)):
            to[block * 16 + thread] = near[15 - thread]
        return ib.get()

    b = te.extern((64,), [a], flipped, name="B", dtype="float32")
    x = numbers(64)
    text = check_gpu(te.create_schedule(b.op), [a, b], [x], [x.reshape(4, 16)[:, ::-1].ravel()])
    assert "__syncthreads();" in text


def fragment_intrin(op: Any, names: tuple[str, ...], scopes: list[str], parts: list[Any]) -> Any:
    """An intrinsic over tiles of 16 x 16, each in memory of a scope; `parts` make its calls."""
    tensors = [*op.input_tensors, op.output(0)]
    places = {
        t: tvm.tir.decl_buffer(t.shape, t.dtype, name=n, scope=s, data_alignment=32, offset_factor=256)
        for t, n, s in zip(tensors, names, scopes, strict=True)
    }

    def calls(ins: Any, outs: Any) -> Any:
        made = []
        for part in parts:
            ib = tvm.tir.ir_builder.create()
            ib.emit(part(ins, outs))
            made.append(ib.get())
        return made[0] if len(made) == 1 else (made[1], *made)

    return te.decl_tensor_intrin(op, calls, binds=places)


def test_matrix_instructions_of_a_warp() -> None:
    intrin, n = tvm.tir.call_intrin, 16
    a, b = te.placeholder((n, n), "float16", name="A"), te.placeholder((n, n), "float16", name="B")
    k = te.reduce_axis((0, n), "k")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k].astype("float") * b[k, j].astype("float"), axis=k), name="C")
    s = te.create_schedule(c.op)
    near = [s.cache_read(t, "shared", [c]) for t in (a, b)]
    frags = [s.cache_read(t, f"wmma.matrix_{w}", [c]) for t, w in zip(near, "ab", strict=True)]
    acc = s.cache_write(c, "wmma.accumulator")
    block = s[c].fuse()
    s[c].bind(block, te.thread_axis("blockIdx.x"))
    s[acc].compute_at(s[c], block)
    i, j = s[acc].op.axis
    ko, ki = s[acc].split(s[acc].op.reduce_axis[0], factor=n)
    s[acc].reorder(ko, i, j, ki)
    for t in frags:
        s[t].compute_at(s[acc], ko)
    for t in near:
        s[t].compute_at(s[acc], ko)
        _, lane = s[t].split(s[t].fuse(*s[t].op.axis), factor=32)
        s[t].bind(lane, te.thread_axis("threadIdx.x"))

    def at(p: Any) -> tuple[Any, Any]:
        return p.data, p.elem_offset // 256

    def load(ins: Any, outs: Any) -> Any:
        f, index = at(outs[0])
        return intrin("handle", "tir.tvm_load_matrix_sync", f, n, n, n, index, ins[0].access_ptr("r"), n, "row_major")

    def store(ins: Any, outs: Any) -> Any:
        f, index = at(ins[0])
        to = outs[0].access_ptr("w")
        return intrin("handle", "tir.tvm_store_matrix_sync", f, n, n, n, index, to, n, "row_major")

    def fill(ins: Any, outs: Any) -> Any:
        f, index = at(outs[0])
        return intrin("handle", "tir.tvm_fill_fragment", f, n, n, n, index, 0.0)

    def multiply(ins: Any, outs: Any) -> Any:
        return intrin("handle", "tir.tvm_mma_sync", *at(outs[0]), *at(ins[0]), *at(ins[1]), *at(outs[0]))

    def copied(dtype: str) -> Any:
        source = te.placeholder((n, n), dtype, name="source")
        return te.compute((n, n), lambda i, j: source[i, j], name="copy").op

    for t, w in zip(frags, "ab", strict=True):
        tile = fragment_intrin(copied("float16"), ("S", "F"), ["shared", f"wmma.matrix_{w}"], [load])
        s[t].tensorize(s[t].op.axis[0], tile)
    scopes = ["wmma.matrix_a", "wmma.matrix_b", "wmma.accumulator"]
    s[acc].tensorize(i, fragment_intrin(c.op, ("FA", "FB", "FC"), scopes, [fill, multiply]))
    s[c].tensorize(c.op.axis[0], fragment_intrin(copied("float32"), ("F", "G"), [scopes[2], "global"], [store]))
    x, y = numbers(n, n, dtype="float16"), numbers(n, n, dtype="float16", seed=1)
    text = check_gpu(s, [a, b, c], [x, y], [x.astype(np.float32) @ y.astype(np.float32)])
    kind = "wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, half, nvcuda::wmma::row_major>"
    calls = "wmma::fill_fragment(", "wmma::mma_sync(", "wmma::store_matrix_sync("
    for words in ("#include <mma.h>", kind, *calls, "__align__(32)"):
        assert words in text
    assert "threadIdx.x < 1" not in text  # the whole warp runs each of them


def parts(s: Any, t: Any, axis: Any, sizes: list[int]) -> list[Any]:
    """An axis as len(sizes) + 1 nested loops, the inner ones of the given sizes."""
    found = []
    for k in range(len(sizes)):
        outer, axis = s[t].split(axis, factor=int(np.prod(sizes[k:])))
        found.append(outer)
    return [*found, axis]


def test_depthwise_with_overlapping_tiles() -> None:
    c, n, k = 4, 12, 3
    x, w = te.placeholder((c, n, n), name="X"), te.placeholder((c, 1, k, k), name="W")
    padded = te.compute((c, n + 2, n + 2), lambda *i: te.if_then_else(
        te.any(i[-2] < 1, i[-2] >= n + 1, i[-1] < 1, i[-1] >= n + 1), 0, x[(*i[:-2], i[-2] - 1, i[-1] - 1)],
    ), name="padded")  # fmt: skip
    ry, rx = te.reduce_axis((0, k), "ry"), te.reduce_axis((0, k), "rx")
    y = te.compute((c, n, n), lambda f, i, j: te.sum(padded[f, i + ry, j + rx] * w[f, 0, ry, rx], axis=[ry, rx]))
    s = te.create_schedule(y.op)
    s[padded].compute_inline()
    near = [s.cache_read(t, "shared", [y]) for t in (padded, w)]
    regs = [s.cache_read(t, "local", [y]) for t in near]
    out = s.cache_write(y, "local")
    sizes = ([1, 2, 2], [2, 1, 2], [1, 4, 3])
    loops = [parts(s, y, a, z) for a, z in zip(s[y].op.axis, sizes, strict=True)]
    order = [loop[level] for level in range(4) for loop in loops]
    s[y].reorder(*order)
    tags = ["blockIdx.z", "blockIdx.y", "blockIdx.x", *["vthread"] * 3, "threadIdx.z", "threadIdx.y", "threadIdx.x"]
    threads = [te.thread_axis(t) for t in tags]
    for loop, axis in zip(order, threads, strict=False):
        s[y].bind(loop, axis)
    s[out].compute_at(s[y], order[8])
    for t in regs:
        s[t].compute_at(s[out], s[out].op.axis[0])
    for t in near:
        s[t].compute_at(s[y], order[2])
        fused = s[t].fuse(*s[t].op.axis)
        for size, axis in ((3, threads[8]), (2, threads[7]), (2, threads[6])):  # 3 divides neither rows nor all
            fused, lane = s[t].split(fused, factor=size)
            s[t].bind(lane, axis)
    s[out].pragma(s[out].op.axis[0], "auto_unroll_max_step", 512)
    s[out].pragma(s[out].op.axis[0], "unroll_explicit", False)
    a, b = numbers(c, n, n), numbers(c, 1, k, k, seed=1)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(a, ((0, 0), (1, 1), (1, 1))), (k, k), (1, 2))
    check_gpu(s, [x, w, y], [a, b], [np.einsum("cyxij,cij->cyx", windows, b[:, 0])])
