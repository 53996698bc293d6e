"""Tiles along one dimension: convolutions by 3 taps along one axis and 1 along the other, right at every border and
remainder, within the stated error bound, in the bits of any number of threads.
"""

from dataclasses import replace

import numpy as np
import pytest
from on_threads import same_bits
from winograd_bound import dilated, direct, error_bound

from warpbeam.driver.api import compile_with_report
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Call, Function, IRModule, const, var
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.expr import SizeVar
from warpbeam.topi.nn.winograd import winograd
from warpbeam.transform import passes
from warpbeam.transform.choose_convolution import DECIDED, ChooseConvolution, others, signature
from warpbeam.transform.graph import call, op_name

TARGET = replace(get("generic-x86-64-v4"), cores=2)
NWC = {c: i for i, c in enumerate("NWC")}
LINE = {"data_layout": "NWC", "kernel_layout": "WIO"}
MAP = {"data_layout": "NHWC", "kernel_layout": "HWIO"}
N = SizeVar("n")


def weights(taps, c, o, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((*taps, c, o)) / np.sqrt(3 * c)).astype(np.float32)


def network(shape, w, tail=False, **attrs):
    """conv(x), or relu(conv(x) + bias + residual); in one dimension of w [3, C, O]."""
    x, kind = var("x", shape=shape), "nn.conv1d" if w.ndim == 3 else "nn.conv2d"
    y = call(kind, x, const(w), **(LINE if w.ndim == 3 else MAP), **attrs)
    if not tail:
        return IRModule.from_expr(Function([x], y))
    r = var("r", shape=passes.InferType()(IRModule.from_expr(Function([x], y)))["main"].body.ty.shape)
    y = call("add", call("add", y, const(np.linspace(-1, 1, w.shape[-1], dtype=np.float32))), r)
    return IRModule.from_expr(Function([x, r], call("nn.relu", y)))


def built(mod, tile=2, accuracy="default"):
    """With tiles, whether they pay or not, and several threads however little there is to do."""
    nodes = post_order(passes.InferType()(mod)["main"].body)
    (conv,) = (n for n in nodes if isinstance(n, Call) and op_name(n).startswith("nn.conv"))
    with PassContext(opt_level=3, config={DECIDED: {signature(conv): tile}}):
        target = replace(TARGET, fork_cycles=1)
        module, report = compile_with_report(mod, cache=False, target=target, accuracy=accuracy)
    assert [r["sketch"] for r in report.rows] == ["winograd"]
    return module, report


def tell(report):
    return [c["chosen"] for c in report.choices]


LINES = [
    ((1, 64, 32), 48, (1, 1), 1),
    ((1, 45, 37), 50, (0, 3), 1),  # odd length, channels that are no multiple of a vector
    ((3, 33, 16), 32, (2, 0), 1),  # several images
    ((1, 64, 32), 48, (1, 1), 2),
    ((2, 131, 40), 64, (0, 0), 2),
    ((N, 30, 16), 32, (1, 1), 1),  # open batch
    ((N, 31, 16), 48, (1, 0), 2),
]


@pytest.mark.parametrize("shape, o, borders, stride", LINES)
@pytest.mark.parametrize("tail", [False, True], ids=["plain", "epilogue"])
def test_lines(shape, o, borders, stride, tail):
    w = weights((3,), shape[-1], o)
    module, report = built(network(shape, w, tail, padding=borders, strides=stride))
    assert tell(report) == ["winograd F(2,3)"]
    for n in (5, 38) if N in shape else (0,):
        rng = np.random.default_rng(n)
        x = rng.standard_normal([n if d is N else d for d in shape]).astype(np.float32)
        flat, around = (x[:, None], w[None]), (0, borders[0], 0, borders[1])
        want, bound = (fn(*flat, around, stride=stride)[:, 0] for fn in (direct, error_bound))
        inputs = {"x": x}
        if tail:
            inputs["r"] = rng.standard_normal(want.shape).astype(np.float32)
            bias = np.linspace(-1, 1, o, dtype=np.float32)
            bound = bound + 2.0**-23 * (np.abs(want) + np.abs(bias) + np.abs(inputs["r"]))
            want = np.maximum(want + bias + inputs["r"], 0)
        assert (np.abs(same_bits(module, inputs) - want) <= bound).all()


MAPS = [
    ((1, 9, 14, 32), (1, 3), 48, (0, 1, 0, 1), 1),
    ((1, 9, 14, 32), (3, 1), 48, (1, 0, 1, 0), 1),
    ((2, 8, 13, 37), (1, 3), 50, (1, 0, 0, 3), 1),  # a border along the axis of one tap too
    ((2, 13, 8, 37), (3, 1), 50, (0, 1, 3, 0), 1),
    ((3, 7, 16, 16), (1, 3), 32, (0, 0, 0, 0), 2),
    ((3, 16, 7, 16), (3, 1), 32, (1, 0, 1, 0), 2),
    ((N, 9, 14, 16), (1, 3), 32, (0, 1, 0, 1), 1),
    ((N, 9, 14, 16), (3, 1), 32, (1, 0, 1, 0), 1),
]


@pytest.mark.parametrize("shape, taps, o, borders, stride", MAPS)
def test_maps(shape, taps, o, borders, stride):
    w = weights(taps, shape[-1], o)
    steps = tuple(1 if t == 1 else stride for t in taps)
    module, report = built(network(shape, w, padding=borders, strides=steps))
    assert tell(report) == ["winograd F(1x2,1x3)" if taps == (1, 3) else "winograd F(2x1,3x1)"]
    for n in (3, 11) if N in shape else (0,):
        x = np.random.default_rng(n).standard_normal([n if d is N else d for d in shape]).astype(np.float32)
        want, bound = (fn(x, w, borders, stride=stride) for fn in (direct, error_bound))
        assert (np.abs(same_bits(module, {"x": x}) - want) <= bound).all()


@pytest.mark.parametrize("shape", [(1, 61, 64), (2, 40, 48)])
def test_taps_that_lie_apart(shape):
    w = weights((3,), shape[-1], 32)
    module, _ = built(network(shape, w, padding=(3, 1), dilation=3))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    parts = (x[:, None], w[None], (0, 3, 0, 1), (1, 3))
    want, bound = (dilated(fn, *parts)[:, 0] for fn in (direct, error_bound))
    assert (np.abs(same_bits(module, {"x": x}) - want) <= bound).all()


@pytest.mark.parametrize("shape, taps", [((2, 41, 64), (3,)), ((1, 9, 10, 64), (1, 3)), ((3, 9, 10, 64), (3, 1))])
def test_groups(shape, taps):
    w = weights(taps, 32, 64)
    module, _ = built(network(shape, w, padding=0, groups=2))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = same_bits(module, {"x": x})
    if w.ndim == 3:
        x, w, got = x[:, None], w[None], got[:, None]
    for g in range(2):
        part = slice(32 * g, 32 * g + 32)
        want, bound = (fn(x[..., part], w[..., part], (0, 0, 0, 0)) for fn in (direct, error_bound))
        assert (np.abs(got[..., part] - want) <= bound).all()


@pytest.mark.parametrize("taps, name", [((3,), "F(4,3)"), ((1, 3), "F(1x4,1x3)"), ((3, 1), "F(4x1,3x1)")])
def test_larger_tiles(taps, name):
    """Where digits may be lost, which is told, measured with the weights at hand."""
    w = weights(taps, 256, 256)
    shape = (1, 101, 256) if len(taps) == 1 else (1, 21, 22, 256)
    module, report = built(network(shape, w), 4, "fast")
    (choice,) = report.choices
    assert choice["chosen"] == f"winograd {name}" and set(choice["errors"]) == {f"winograd {name}", "direct"}
    assert 0 < choice["errors"]["direct"] < choice["errors"][f"winograd {name}"] < 1e-4
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = same_bits(module, {"x": x})
    if w.ndim == 3:
        x, w, got = x[:, None], w[None], got[:, None]
    want, bound = direct(x, w, (0, 0, 0, 0)), error_bound(x, w, (0, 0, 0, 0), 4)
    assert (np.abs(got - want) <= bound).all()


@pytest.mark.parametrize("shape, taps", [((1, N, 32), (3,)), ((1, N, 17, 32), (3, 1)), ((1, 16, N, 32), (3, 1))])
def test_open_lengths_are_plain_sums(shape, taps):
    _, report = compile_with_report(network(shape, weights(taps, 32, 48)), cache=False)
    assert not report.choices


def test_open_lengths_are_found_by_structure():
    x, u = te.placeholder((1, N, 32), "float32", "x"), te.placeholder((1, 4, 32, 32), "float32", "u")
    y = winograd(x, u, (1, 2), (NWC, NWC), (1,), (1, N, 32))
    assert schedule([x, u], [y], TARGET, frozenset({"u"})).sketch == "winograd"


def test_exact_keeps_plain_sums():
    module, report = compile_with_report(network((1, 64, 32), weights((3,), 32, 48)), cache=False, accuracy="exact")
    assert not report.choices and [r["sketch"] for r in report.rows] != ["winograd"] and module is not None


WAYS = [((1, 64, 32), (3,), "F(2,3)"), ((1, 16, 17, 32), (1, 3), "F(1x2,1x3)"), ((1, 16, 17, 32), (3, 1), "F(2x1,3x1)")]


@pytest.mark.parametrize("shape, taps, name", WAYS)
def test_other_ways(shape, taps, name):
    """Of tiles the plain sum with the same weights' type as it had, and of that the tiles."""
    mod = passes.InferType()(network(shape, weights(taps, 32, 48)))
    with PassContext(opt_level=3, config={DECIDED: {signature(mod["main"].body): 2}}):
        tiled = ChooseConvolution(TARGET)(mod)["main"]

    def group(fn):
        w = var("w", shape=fn.body.args[1].ty.shape)
        y = call(fn.body.op.name, fn.params[0], w, **dict(fn.body.attrs))
        return passes.InferType()(IRModule.from_expr(Function([fn.params[0], w], y)))["main"]

    (back,), (there,) = others(group(tiled), "default"), others(group(mod["main"]), "default")
    assert (back.name, back.tile, back.own) == ("direct", 0, 2) and back.group.params[1].ty.shape == (*taps, 32, 48)
    assert (there.tile, there.own) == (2, 0) and there.group.params[1].ty == tiled.body.args[1].ty
    assert there.name == f"winograd {name}" and back.signature == there.signature


@pytest.mark.parametrize("steps, taps", [((2, 2), (1, 3)), ((1, 2), (3, 1)), ((3,), (3,))])
def test_other_strides_are_plain_sums(steps, taps):
    shape = (1, 64, 32) if len(taps) == 1 else (1, 16, 17, 32)
    _, report = compile_with_report(network(shape, weights(taps, 32, 48), strides=steps), cache=False)
    assert tell(report) in ([], ["direct"])
