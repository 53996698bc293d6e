"""Random graphs compute the same with every pass as without."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpbeam import op
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Constant, Function, If, IRModule, Let, Tuple, TupleGetItem, Var, const, var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.types import TensorType
from warpbeam.target import get
from warpbeam.transform import Sequential, passes
from warpbeam.transform.graph import rewrite_function

G = op.get
SHAPE = (2, 4, 3, 3)
UNARY = ("tanh", "nn.relu", "negative", "abs", "sigmoid", "copy")
ALL = (
    "InferType",
    "SimplifyInference",
    "CanonicalizeOps",
    "FoldConstant",
    "SimplifyExpr",
    "ConvertLayout",
    "FoldConstant",
    "FoldScaleAxis",
    "SimplifyExpr",
    "FoldConstant",
    "EliminateCommonSubexpr",
    "DeadCodeElimination",
)


def _constant(draw):
    shape = draw(st.sampled_from([(), (4, 1, 1), (3,), SHAPE, (1, 4, 1, 1)]))
    seed = draw(st.integers(0, 5))
    if seed < 2:
        return const(np.full(shape, seed, "f"))
    return const(np.random.default_rng(seed).uniform(-1, 1, shape).astype("f"))


def _step(draw, pool, c, i):
    a, b = (pool[draw(st.integers(0, len(pool) - 1))] for _ in range(2))
    kind = draw(st.integers(0, 13))
    rng = np.random.default_rng(i)
    if kind == 0:
        return G(draw(st.sampled_from(UNARY)))(a)
    if kind == 1:
        return G(draw(st.sampled_from(["add", "multiply", "subtract", "maximum"])))(a, b)
    if kind == 2:
        return G(draw(st.sampled_from(["add", "multiply", "subtract"])))(a, _constant(draw))
    if kind == 3:
        groups = draw(st.sampled_from([1, 2, 4]))
        w = const(rng.uniform(-0.5, 0.5, (4, 4 // groups, 3, 3)).astype("f"))
        return G("nn.conv2d")(a, w, padding=1, groups=groups)
    if kind == 4:
        perm = draw(st.permutations(range(4)))
        back = tuple(perm.index(i) for i in range(4))
        return G("transpose")(G("tanh")(G("transpose")(a, axes=perm)), axes=back)
    if kind == 5:
        shape = draw(st.sampled_from([(2, 36), (8, 9), (2, 4, 9), (2, 2, 2, 3, 3)]))
        return G("reshape")(G("abs")(G("reshape")(a, newshape=shape)), newshape=SHAPE)
    if kind == 6:
        axis = draw(st.integers(0, 3))
        return G("subtract")(a, G("mean")(a, axis=(axis,), keepdims=True))
    if kind == 7:
        parts = G("split")(a, indices_or_sections=2, axis=1)
        order = draw(st.permutations(range(2)))
        return G("concatenate")(*(TupleGetItem(parts, k) for k in order), axis=1)
    if kind == 8:
        return If(c, a, G("tanh")(b))
    if kind == 9:
        v = Var("v", a.ty)
        return Let(v, a, G("add")(v, b))
    if kind == 10:
        stats = [const(rng.uniform(0.5, 1.5, 4).astype("f")) for _ in range(4)]
        return G("nn.batch_norm")(a, *stats)
    if kind == 11:
        return G("nn.max_pool2d")(a, pool_size=(3, 3), padding=1)
    if kind == 12:
        return G("nn.softmax")(a, axis=draw(st.integers(0, 3)))
    return G("where")(G("greater")(a, b), a, G("multiply")(b, const(0.5)))


@st.composite
def programs(draw):
    x, c = var("x", shape=SHAPE), Var("c", TensorType((), "bool"))
    pool = [x]
    for i in range(draw(st.integers(1, 10))):
        pool.append(_step(draw, pool, c, i))
    return IRModule.from_expr(Function((x, c), Tuple(tuple(pool[-2:]))))


def _compare(mod, out):
    x = np.random.default_rng(7).uniform(-1, 1, SHAPE).astype("f")
    for flag in (True, False):
        pairs = zip(evaluate(mod, [x, flag], dtype="float64"), evaluate(out, [x, flag], dtype="float64"), strict=True)
        for want, have in pairs:
            np.testing.assert_allclose(want, have, rtol=1e-3, atol=1e-4)


@settings(max_examples=80, deadline=None)
@given(programs())
def test_the_whole_pipeline_keeps_values(mod):
    with PassContext(opt_level=3):
        _compare(mod, Sequential([getattr(passes, n)() for n in ALL])(mod))


@pytest.mark.parametrize("name", sorted(set(ALL)))
def test_each_pass_alone_keeps_values(name):
    @settings(max_examples=12, deadline=None)
    @given(programs())
    def check(mod):
        with PassContext(opt_level=3):
            _compare(mod, getattr(passes, name)()(mod))

    check()


def _rounded(fn):
    """The function with constants that both short types hold exactly."""

    def visit(n):
        if not isinstance(n, Constant) or n.ty.dtype != "float32":
            return None
        return const(n.numpy().astype(ml_dtypes.bfloat16).astype("f"))

    return rewrite_function(fn, visit)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("layout", [False, True])
def test_shorter_numbers_change_rounding_only(precision, layout):
    """In exact arithmetic nothing changes, types stay, and what is short is not made short again."""

    @settings(max_examples=25, deadline=None)
    @given(programs())
    def check(mod):
        with PassContext(opt_level=3):
            mod = Sequential([getattr(passes, n)() for n in (ALL if layout else ALL[:2])])(mod).map(_rounded)
            make = passes.ToMixedPrecision(precision, get("sapphirerapids"))
            out = make(mod)
            assert out["main"].body.ty == mod["main"].body.ty
            _compare(mod, out)
            again = make(out)
            assert again["main"] is out["main"] or str(again["main"]) == str(out["main"])

    check()
