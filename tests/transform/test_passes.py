"""Each graph pass by its text before and after, and by value."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import op
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Call, Constant, Function, IRModule, Tuple, const, var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.structural import assert_structural_equal
from warpbeam.relay.text import parse
from warpbeam.transform import Sequential, passes, simplify_rules
from warpbeam.transform.table import PASSES, find

X = "%x: Tensor[(2, 3), float32]"


def check(make, before, after, *more):
    """The pass turns the program `before` into `after`."""
    params = ", ".join([X, *more])
    mods = [parse(f"def @main({params}) {{ {t} }}", op.get) for t in (before, after)]
    assert_structural_equal(make(mods[0]), mods[1])


SIMPLIFY = [
    ("add(%x, 0f)", "%x"),
    ("add(const([0, 0, 0], float32), %x)", "%x"),
    ("multiply(subtract(%x, 0f), 1f)", "%x"),
    ("add(exp(%x), const([[[0]]], float32))", "%0 = exp(%x); add(%0, const([[[0]]], float32))"),
    ("divide(%x, 4f)", "multiply(%x, 0.25f)"),
    ("divide(%x, 3f)", "divide(%x, 3f)"),
    ("power(%x, 2f)", "multiply(%x, %x)"),
    ("power(%x, 0.5f)", "sqrt(%x)"),
    ("divide(1f, sqrt(abs(%x)))", "rsqrt(abs(%x))"),
    ("negative(negative(%x))", "%x"),
    ("subtract(%x, negative(%x))", "add(%x, %x)"),
    ("nn.relu(nn.relu(%x))", "nn.relu(%x)"),
    ("clip(clip(%x, a_min=0.0, a_max=6.0), a_min=-1.0, a_max=3.0)", "clip(%x, a_min=0.0, a_max=3.0)"),
    ("where(True, %x, exp(%x))", "%x"),
    ('cast(cast(%x, dtype="float64"), dtype="float32")', "%x"),
    ('cast(cast(%x, dtype="float16"), dtype="float32")', 'cast(cast(%x, dtype="float16"), dtype="float32")'),
    ("transpose(transpose(%x))", "%x"),
    ("transpose(reshape(%x, newshape=[1, 6, 1]), axes=[1, 0, 2])", "reshape(%x, newshape=[6, 1, 1])"),
    ("reshape(reshape(%x, newshape=[6]), newshape=[3, 2])", "reshape(%x, newshape=[3, 2])"),
    ("squeeze(expand_dims(%x, axis=1), axis=[1])", "%x"),
    ("strided_slice(%x, begin=[0, 0], end=[2, 3])", "%x"),
    (
        "strided_slice(%x, begin=[-1], end=[-10], strides=[-1])",
        "strided_slice(%x, begin=[-1], end=[-10], strides=[-1])",
    ),
    ("nn.pad(%x, 0f, pad_width=[[0, 0], [0, 0]])", "%x"),
    ("concatenate(%x)", "%x"),
    ("take(%x, 1, axis=0)", "reshape(strided_slice(%x, begin=[1], end=[2], axes=[0]), newshape=[3])"),
    ("take(%x, -1, axis=1)", "reshape(strided_slice(%x, begin=[2], end=[3], axes=[1]), newshape=[2])"),
    ("take(%x, 7, axis=0)", "take(%x, 7, axis=0)"),
    (
        "strided_slice(transpose(%x), begin=[1], end=[3], axes=[0])",
        "transpose(strided_slice(%x, begin=[1], end=[3], axes=[1]))",
    ),
    ("concatenate(concatenate(%x, %x), %x)", "concatenate(%x, %x, %x)"),
    ("%0 = split(%x, indices_or_sections=3, axis=1); concatenate(%0.0, %0.1, %0.2, axis=1)", "%x"),
    ("add(broadcast_to(const([1, 2, 3], float32), shape=[2, 3]), %x)", "add(%x, const([1, 2, 3], float32))"),
    ("mean(expand_dims(%x, axis=0), axis=[0])", "%x"),
]


@pytest.mark.parametrize("before, after", SIMPLIFY)
def test_simplify_expr(before, after):
    check(passes.SimplifyExpr(), before, after)


def test_integer_sums_are_joined_and_floats_are_not():
    y = "%y: Tensor[(4,), int32]"
    check(passes.SimplifyExpr(), "add(add(%y, 1), 2)", "add(%y, 3)", y)
    check(passes.SimplifyExpr(), "add(add(%x, 1f), 2f)", "add(add(%x, 1f), 2f)")


def test_every_rule_states_its_identity_and_holds_for_random_values():
    assert len({id(r) for rules in simplify_rules.RULES.values() for r in rules}) > 30
    rng = np.random.default_rng(1)
    for rules in simplify_rules.RULES.values():
        assert all("=" in (r.__doc__ or "") for r in rules)
    for before, _ in SIMPLIFY:
        mod = parse(f"def @main({X}) {{ {before} }}", op.get)
        x = rng.uniform(0.1, 3, (2, 3)).astype("f")
        a, b = evaluate(mod, [x]), evaluate(passes.SimplifyExpr()(mod), [x])
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_fold_constant():
    fold = passes.FoldConstant()
    check(fold, "add(%x, exp(multiply(0f, 3f)))", "add(%x, 1f)")
    check(fold, "let %c = add(1f, 2f); let %d = add(%c, 1f); add(%x, %d)", "add(%x, 4f)")
    check(fold, "if (less(1, 2)) { %x } else { exp(%x) }", "%x")
    check(
        fold, "%0 = split(const([1, 2], float32), indices_or_sections=2); add(%x, %0.1)", "add(%x, const([2], float32))"
    )
    wide = "add(%x, sum(broadcast_to(1f, shape=[1000, 1000])))"
    check(fold, wide, wide)
    with PassContext(config={"relay.FoldConstant.max_bytes": 2}):
        check(fold, "add(%x, exp(0f))", "add(%x, exp(0f))")


def test_batch_norm_becomes_scale_and_shift():
    args = ", ".join(f"const([{v}, 2, 3], float32)" for v in (1, 4, 2, 5))
    mod = parse(f"def @main({X}) {{ nn.batch_norm(%x, {args}) }}", op.get)
    out = passes.SimplifyInference()(mod)
    assert [n.op.name for n in _calls(out)] == ["multiply", "add"]
    x = np.random.default_rng(0).standard_normal((2, 3)).astype("f")
    np.testing.assert_allclose(evaluate(mod, [x]), evaluate(out, [x]), rtol=1e-5, atol=1e-6)
    unknown = "%g: Tensor[(3,), float32], %v: Tensor[(3,), float32]"
    mod = parse(f"def @main({X}, {unknown}) {{ nn.batch_norm(%x, %g, %g, %v, %v) }}", op.get)
    both = [evaluate(m, [x, x[0], np.abs(x[1])]) for m in (mod, passes.SimplifyInference()(mod))]
    np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-6)


def _calls(mod):
    from warpbeam.ir.rewrite import post_order

    return [n for n in post_order(mod["main"].body) if isinstance(n, Call)]


def _random(rng, *shape):
    return const((rng.standard_normal(shape) * 0.3).astype("f"))


def scale_programs():
    rng = np.random.default_rng(0)
    g, r = op.get, _random
    x = var("x", shape=(1, 4, 6, 6))
    conv, grouped = g("nn.conv2d")(x, r(rng, 8, 4, 3, 3)), g("nn.conv2d")(x, r(rng, 8, 2, 3, 3), groups=2)
    positive = const(np.abs(rng.standard_normal((8, 1, 1))).astype("f"))
    up = g("nn.conv2d_transpose")(x, r(rng, 4, 5, 2, 2), strides=2)
    pooled = g("nn.max_pool2d")(g("nn.relu")(g("add")(conv, r(rng, 8, 1, 1))), pool_size=(2, 2), strides=2)
    rows = var("x", shape=(2, 5, 6))
    dense = g("nn.matmul")(rows, r(rng, 6, 7))
    scaled_in = g("multiply")(x, r(rng, 4, 1, 1))
    backward = {
        "conv": (x, g("add")(g("multiply")(g("add")(conv, r(rng, 8, 1, 1)), r(rng, 8, 1, 1)), r(rng, 8, 1, 1))),
        "scalar": (x, g("multiply")(grouped, const(0.5))),
        "grouped": (x, g("divide")(grouped, positive)),
        "transposed": (x, g("multiply")(up, r(rng, 5, 1, 1))),
        "pool": (x, g("multiply")(pooled, positive)),
        "matmul": (rows, g("multiply")(dense, r(rng, 7))),
        "through transpose": (rows, g("multiply")(g("transpose")(dense, axes=(0, 2, 1)), r(rng, 7, 1))),
        "conv input": (x, g("nn.conv2d")(scaled_in, r(rng, 8, 4, 3, 3), padding=1)),
        "grouped input": (x, g("nn.conv2d")(scaled_in, r(rng, 8, 2, 3, 3), groups=2)),
        "depthwise input": (x, g("nn.conv2d")(scaled_in, r(rng, 8, 1, 3, 3), groups=4)),
        "transposed input": (x, g("nn.conv2d_transpose")(scaled_in, r(rng, 4, 5, 2, 2))),
        "relu input": (rows, g("nn.dense")(g("nn.relu")(g("multiply")(rows, const(2.0))), r(rng, 3, 6))),
    }
    return backward


@pytest.mark.parametrize("name", list(scale_programs()))
def test_scales_move_into_weights(name):
    x, body = scale_programs()[name]
    mod = IRModule.from_expr(Function((x,), body))
    with PassContext(opt_level=3):
        out = passes.FoldScaleAxis()(mod)
    assert not {"multiply", "divide"} & {n.op.name for n in _calls(out)}
    value = np.random.default_rng(3).standard_normal(x.ty.shape).astype("f")
    np.testing.assert_allclose(evaluate(mod, [value]), evaluate(out, [value]), rtol=2e-4, atol=2e-5)


def test_scales_stay_where_moving_is_wrong():
    rng = np.random.default_rng(0)
    g, x = op.get, var("x", shape=(1, 4, 6, 6))
    conv = g("nn.conv2d")(x, _random(rng, 8, 4, 3, 3))
    grouped_up = g("nn.conv2d_transpose")(x, _random(rng, 4, 5, 2, 2), groups=2)
    negative = const(-np.ones((8, 1, 1), "f"))
    kept = [
        g("multiply")(g("nn.relu")(conv), negative),
        Tuple((conv, g("multiply")(conv, negative))),
        g("multiply")(conv, _random(rng, 4, 4)),
        g("multiply")(g("sigmoid")(conv), negative),
        g("multiply")(grouped_up, _random(rng, 10, 1, 1)),  # the kernel holds a group's output channels only
    ]
    for body in kept:
        mod = IRModule.from_expr(Function((x,), body))
        with PassContext(opt_level=3):
            assert passes.FoldScaleAxis()(mod)["main"].body is body


def test_canonical_forms():
    check(passes.CanonicalizeOps(), "nn.bias_add(%x, const([1, 2, 3], float32))", "add(%x, const([1, 2, 3], float32))")
    check(
        passes.CanonicalizeOps(),
        "nn.bias_add(%x, const([1, 2], float32), axis=0)",
        "add(%x, const([[1], [2]], float32))",
    )
    check(passes.CanonicalizeOps(), "squeeze(expand_dims(%x, axis=0), axis=[0])",
          "reshape(reshape(%x, newshape=[1, 2, 3]), newshape=[2, 3])")  # fmt: skip


def test_equal_constants_are_merged():
    data = np.arange(1000, dtype="f")
    x = var("x", shape=(1000,))
    add = op.get("add")
    body = Tuple((add(x, Constant(data)), add(x, Constant(data.copy()))))
    out = passes.EliminateCommonSubexpr()(IRModule.from_expr(Function((x,), body)))["main"].body
    assert out.fields[0] is out.fields[1] and body.fields[0] is not body.fields[1]


def test_dead_code():
    dce = passes.DeadCodeElimination()
    check(dce, "let %a = exp(%x); let %b = exp(%a); %x", "%x")
    keep = "let %r = ref(%x); let %u = ref_write(%r, exp(%x)); ref_read(%r)"
    check(dce, keep, keep)
    check(passes.DeadCodeElimination(inline_once=True), "let %a = exp(%x); let %b = exp(%a); add(%b, %x)",
          "add(exp(exp(%x)), %x)")  # fmt: skip
    mod = parse("def @dead() { 1 } def @used() -> int32 { 2 } def @main() { @used() }", op.get)
    assert sorted(g.name for g in passes.RemoveUnusedFunctions()(mod)) == ["main", "used"]


def test_finished_functions_are_left_alone():
    text = "def @main(%x: float32) { %0 = fn (%p: float32, Primitive=1) { add(%p, 0f) }; add(%0(%x), 0f) }"
    out = passes.SimplifyExpr()(parse(text, op.get))
    assert [n.op.name for n in _calls(out) if hasattr(n.op, "name")] == ["add"]


def test_the_table_knows_every_pass_by_its_name():
    for name in PASSES:
        assert find(name).info.name == name
    with pytest.raises(AttributeError, match="there is no pass 'Nothing'"):
        _ = passes.Nothing


def test_levels_gate_in_a_pipeline():
    mod = parse(f"def @main({X}) {{ add(%x, exp(0f)) }}", op.get)
    seq = Sequential([passes.SimplifyExpr(), passes.FoldConstant(), passes.ConvertLayout("NHWC")])
    with PassContext(opt_level=1):
        assert seq(mod)["main"] is mod["main"]
    with PassContext(opt_level=2):
        assert len(_calls(seq(mod))) == 1
