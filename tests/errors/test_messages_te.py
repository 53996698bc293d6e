"""Every message of the te language and its schedules, with a program that is refused with it."""

from __future__ import annotations

from typing import Any

from message_cases import Case, Scan, Te, add_one, refused

from warpbeam import te, tir


def _two_outputs() -> Any:
    a = te.placeholder((4,), name="a")
    return te.compute((4,), lambda i: (a[i], a[i] * 2.0), name="two")


def _partial_reduction(same: bool) -> Any:
    pair = te.comm_reducer(lambda x, y: (x[0] + y[0], x[1] + y[1]), lambda *t: (te.const(0, t[0]), te.const(0, t[1])))
    a, k, q = te.placeholder((4, 4), name="a"), te.reduce_axis(4, "k"), te.reduce_axis(4, "q")

    def values(i: Any) -> Any:
        first = pair((a[i, k], a[i, k]), axis=k)
        return (first[0], first[0]) if same else (first[0], te.sum(a[i, q], axis=q))

    out = te.compute((4,), values, name="out")
    return te.create_prim_func([a, *out])


def _scan(init: Any = None, update: Any = None, state: Any = None) -> Any:
    p = Scan()
    return te.scan(init or p.init, update or p.update, state or p.state, inputs=[p.X], name="again")


def _opaque_in_scan() -> Any:
    p = Scan()
    body = te.extern((10, 4), [p.state], lambda i, o: tir.call_packed("f", i[0], o[0]), name="ext")
    update = te.compute((10, 4), lambda t, i: body[t - 1, i], name="up")
    return te.schedule.lower(te.create_schedule(te.scan(p.init, update, p.state, name="R2").op), [p.X])


def _two_scans() -> Any:
    p = Scan()
    short = te.placeholder((9, 4), name="short")
    up = te.compute((9, 4), lambda t, i: short[t - 1, i] + 1.0)
    return te.scan([p.init, p.init], [p.update, up], [p.state, short], name="two")


def _scan_update(method: str) -> None:
    p = Scan()
    stage = next(g for g in p.s.groups)
    getattr(stage, method)(*([p.s[p.R], p.R.op.scan_axis] if method == "compute_at" else []))


def _te(act: Any) -> Any:
    """A case on a fresh Te; what it gives is lowered where it asks for that by returning the Te."""

    def run() -> None:
        p = Te()
        if act(p) is p:
            p.lower()

    return run


def _fused_all(p: Te, to: Any) -> Any:
    stage = p.s[p.D]
    stage.reorder(p.D.op.axis[0], p.D.op.axis[1], p.k)
    return to(stage, stage.fuse(p.D.op.axis[1], p.k))


def _transformed_then(p: Te, act: Any) -> Any:
    p.s[p.B].transform_layout(lambda i, j: [j, i])
    return act(p.s)


def _intrin_stage() -> Any:
    a = te.placeholder((16, 4), name="a")
    return te.compute((16, 4), lambda i: add_one()(a[i, 0:4]), name="calls")


def _split_then_cache() -> None:
    t = _intrin_stage()
    s = te.create_schedule(t.op)
    s[t].split(t.op.axis[0], 4)
    s.cache_write(t, "local")


def _inline_opaque() -> None:
    p = Te()
    x = te.extern((16, 16), [p.B], lambda i, o: tir.call_packed("f", i[0], o[0]), name="x")
    s = te.create_schedule(te.compute((16, 16), lambda i, j: x[i, j] + 1.0, name="y").op)
    s[x].compute_inline()
    te.schedule.lower(s, [p.A, s.outputs[0].output(0)])


def _at_opaque() -> None:
    p = Te()
    x = te.extern((16, 16), [p.B], lambda i, o: tir.call_packed("f", i[0], o[0]), name="x")
    y = te.compute((16, 16), lambda i, j: x[i, j] + p.B[i, j], name="y")
    s = te.create_schedule(y.op)
    s[p.B].compute_at(s[y], y.op.axis[0])
    te.schedule.lower(s, [p.A, y])


def _inline_pair() -> None:
    u, v = _two_outputs()
    w = te.compute((4,), lambda i: u[i] + v[i], name="w")
    s = te.create_schedule(w.op)
    s[u].compute_inline()
    te.schedule.lower(s, [u.op.input_tensors[0], w])


def _thread_without_extent() -> None:
    p = Scan()
    p.s[p.R].env_threads([te.thread_axis("threadIdx.x")])
    te.schedule.lower(p.s, [p.X, p.R])


def _store_where(p: Te) -> Te:
    p.s[p.C].set_store_predicate(te.var("other").equal(0))
    return p


def _prefetch_stranger(p: Te) -> Te:
    p.s[p.C].prefetch(te.placeholder((4,), name="Z"), p.C.op.axis[0], 1)
    return p


def _half_fused(p: Te) -> None:
    stage = p.s[p.D]
    outer, inner = stage.split(p.k, 4)
    stage.fuse(p.D.op.axis[1], outer)
    p.s.rfactor(p.D, inner)


def _sum_and_more() -> Any:
    """An operation that te.compute would not make."""
    p = Te()
    op = p.D.op
    return te.create_prim_func([p.A, type(op)("more", op.axis, (op.body[0] + 1.0,)).output(0)])


def _inlined_group(p: Te) -> Te:
    p.s.create_group(p.B, p.A).compute_inline()
    return p


def _map_without_bounds(p: Te) -> Any:
    p.s[p.B].transform_layout(lambda i, j: [i * j, j])


def _slice_case(index: Any) -> Any:
    a = te.placeholder((16, 4, 4), name="a")
    return te.compute((16, 4), lambda i: add_one()(index(a, i)), name="calls")


def _short_slice() -> Any:
    a = te.placeholder((4, 4), name="a")
    b = te.compute((4, 4), lambda i, j: a[i, j] + 1.0, name="b")
    two = te.decl_tensor_intrin(b.op, lambda ins, outs: tir.call_extern("int32", "two", outs[0].access_ptr("w")))
    return te.compute((16, 4, 4), lambda i: two(Te().A[i, 0:4]), name="calls")


def _matrix(statement: Any, buffer: Any = None) -> Any:
    """A copy that an instruction for the start of a sum is to do."""
    a = te.placeholder((16, 16), name="a")
    b = te.compute((16, 16), lambda i, j: a[i, j], name="b")

    def made(ins: Any, outs: Any) -> Any:
        to = outs[0] if buffer is None else buffer
        call = tir.call_intrin("handle", "tir.tvm_fill_fragment", to.data, 16, 16, 16, 0, 0.0)
        found = statement(call, to)
        return tir.SeqStmt(tuple(tir.Evaluate(c) for c in found)) if isinstance(found, list) else found

    return te.decl_tensor_intrin(b.op, made)


def _nested_tag(inner: bool) -> None:
    with te.tag_scope("outer"):
        if inner:
            with te.tag_scope("inner"):
                pass
        te.compute((4,), lambda i: i, tag="own")


CASES: list[Case] = [
    # the language
    ("placeholder A is read by main but is not among its inputs", lambda: te.create_prim_func([Te().B])),
    ("the outputs of out are not the values of one reduction", lambda: _partial_reduction(False)),
    ("out stores only a part of its reduction's values", lambda: _partial_reduction(True)),
    ("extern x has 1 inputs and 2 in_buffers", lambda: te.extern(
        (4,), [Te().A], lambda i, o: tir.Evaluate(0), name="x", dtype="float32",
        in_buffers=[tir.decl_buffer((16, 16)), tir.decl_buffer((4,))])),
    ("extern x has 2 outputs and 1 dtypes", lambda: te.extern(
        [(4,), (4,)], [Te().A], lambda i, o: tir.Evaluate(0), name="x", dtype=["float32"])),
    ("fcompute of nothing returns no value", lambda: te.compute((4,), lambda i: None, name="nothing")),
    ("nested tag_scope is not allowed", lambda: _nested_tag(True)),
    ("nested tag 'own' is not allowed", lambda: _nested_tag(False)),
    # scans
    ("init of a scan holds 3, which is no tensor", lambda: te.scan(3, Scan().update, Scan().state)),
    ("the states of scan two do not advance together", _two_scans),
    ("differ in their number of dimensions", lambda: _scan(init=te.compute((1,), lambda t: 0.0, name="flat"))),
    ("ExternOp ext depends on the state of scan R2", _opaque_in_scan),
    ("Cannot specify compute_at for scan updates", lambda: _scan_update("compute_at")),
    ("Cannot specify compute_at for scan updates", lambda: _scan_update("compute_inline")),
    ("Cannot specify compute_at for scan updates", lambda: _scan_update("compute_root")),
    ("thread axis threadIdx.x around stage(R) has no extent", _thread_without_extent),
    ("Cannot launch i, which is no thread axis", lambda: (lambda p: p.s[p.R].env_threads([p.init.op.axis[1]]))(Scan())),
    # tensor intrinsics
    ("takes no where", lambda: add_one()(Te().A[0, 0:4], where=1)),
    ("is called with 3", lambda: add_one()(3)),
    ("has 0 scalars, got 1", lambda: add_one()(Te().A[0, 0:4], scalar_inputs=[1])),
    ("leaves 2 dimensions to the intrinsic", lambda: te.compute(
        (16, 4, 4), lambda i: add_one()(Te().A[i, 0:4]), name="calls")),
    ("does not reduce, so reduce_axis has no meaning", lambda: te.compute(
        (16, 4), lambda i: add_one()(Te().A[i, 0:4], reduce_axis=te.reduce_axis(4)), name="calls")),
    ("a slice of a does not have the dimensions", lambda: _slice_case(lambda a, i: a[i, 0:4, 0:4])),
    ("a slice of A has fewer dimensions", _short_slice),
    ("has no constant shape", lambda: add_one(te.var("n"))),
    ("tvm_fill_fragment is not alone in the statement", lambda: _matrix(lambda call, o: [call, call])),
    ("tvm_fill_fragment does not compute", lambda: _matrix(lambda call, o: call)),
    ("tvm_fill_fragment uses other", lambda: _matrix(lambda call, o: call, tir.decl_buffer((16, 16), name="other"))),
    # stages
    ("create_schedule needs an operation", lambda: te.create_schedule([])),
    ("SpecializedCondition needs a condition", lambda: te.SpecializedCondition([])),
    ("Operate on iter var i that is not part of the schedule",
     _te(lambda p: p.s[p.C].prefetch(p.B, p.B.op.axis[0], 1))),
    ("prefetch takes a tensor, an axis and a distance", _te(lambda p: p.s[p.C].prefetch("B", p.C.op.axis[0], 1))),
    ("a storage scope is a name, got 3", _te(lambda p: p.s[p.B].set_scope(3))),
    ("Cannot reorder IterVar(Opaque)", lambda: (lambda p: p.s[p.R].reorder(p.R.op.spatial_axis_[0]))(Scan())),
    ("Cannot split by 0", _te(lambda p: p.s[p.C].tile(*p.C.op.axis, 0, 4))),
    ("Cannot split on Opaque", lambda: (
        lambda p: p.s[p.R].tile(p.R.op.scan_axis, p.R.op.spatial_axis_[0], 2, 2))(Scan())),
    ("Can only transform the layout of a ComputeOp",
     _te(lambda p: p.s[p.A].transform_layout(lambda i, j: [j, i]))),
    ("the axes of the result are not consecutive loops", _te(
        lambda p: (p.s[p.D].reorder(p.D.op.axis[0], p.k, p.D.op.axis[1]),
                   p.s[p.D].transform_layout(lambda i, j: [j, i])))),
    ("the index map gives no indices", _te(lambda p: p.s[p.B].transform_layout(lambda i, j: []))),
    ("is not proven to be invertible", _te(_map_without_bounds)),
    ("compute_at takes a stage and one of its axes", _te(lambda p: p.s[p.B].compute_at(p.C, p.C.op.axis[0]))),
    ("Cannot compute stage(B) inside itself", _te(lambda p: p.s[p.B].compute_at(p.s[p.B], p.B.op.axis[0]))),
    ("create_group takes tensors", _te(lambda p: p.s.create_group(p.C.op, p.A))),
    # caches and partial results
    ("a storage scope is a name, got 3", _te(lambda p: p.s.cache_read(p.B, 3, [p.C]))),
    ("cache_read takes a tensor", _te(lambda p: p.s.cache_read(p.B.op, "local", [p.C]))),
    ("cache_read needs readers", _te(lambda p: p.s.cache_read(p.B, "local", []))),
    ("size of tensor_array must be greater than 0", _te(lambda p: p.s.cache_write([], "local"))),
    ("cache_write takes a tensor, or the tensors of one operation", _te(lambda p: p.s.cache_write(p.C.op, "local"))),
    ("must be generated by ONE computeOp", lambda: (
        lambda p, q: te.create_schedule([q[0].op, p.C.op]).cache_write([q[0], p.C], "local"))(Te(), _two_outputs())),
    ("j.k.fused is fused of data-parallel and reduction axes", _te(
        lambda p: _fused_all(p, lambda stage, fused: p.s.cache_write(p.D, "local")))),
    ("which calls an intrinsic, after splitting its loops", _split_then_cache),
    ("rfactor takes a tensor", _te(lambda p: p.s.rfactor(p.D.op, p.k))),
    ("Factor axis touches normal axis", _te(
        lambda p: _fused_all(p, lambda stage, fused: p.s.rfactor(p.D, fused)))),
    ("the layout of stage(B) was transformed", _te(
        lambda p: _transformed_then(p, lambda s: s.cache_write(p.B, "local")))),
    ("Factor axis touches normal axis", _te(_half_fused)),
    # what lowering finds
    ("a reduction below other arithmetic in main", _sum_and_more),
    ("stage(B) is attached to nothing that is computed", _te(_inlined_group)),
    ("Cannot inline x, which is no compute operation", _inline_opaque),
    ("Cannot inline two, which has several outputs", _inline_pair),
    ("stage(B) cannot be computed inside i", _at_opaque),
    ("the store predicate of stage(C) depends on ['other'], which are no loops", _te(_store_where)),
    ("Z, to be prefetched, is not part of the program", _te(_prefetch_stranger)),
]  # fmt: skip


test_the_message_comes = refused(CASES)
