"""Which convolutions become tiles: legality, the model's choice, accuracy, and that results stay what they were."""

import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from on_threads import same_bits

import warpbeam
from warpbeam.driver.api import compile_with_report
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.op.table import get as get_op
from warpbeam.relay.expr import Constant, Function, IRModule, const, var
from warpbeam.target import get
from warpbeam.tir.expr import SizeVar
from warpbeam.transform import passes
from warpbeam.transform.choose_convolution import ChooseConvolution, others
from warpbeam.transform.graph import call, op_name

sys.path.insert(0, str(Path(__file__).parents[1] / "sketch"))

from winograd_bound import dilated, direct, direct_3d, error_bound, error_bound_3d

TARGET = replace(get("generic-x86-64-v4"), cores=2)  # choices must not depend on the machine that tests


def weights(c, o, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((3, 3, c, o)) / np.sqrt(9 * c)).astype(np.float32)


def network(shape, o, borders=(1, 1, 1, 1), tail=True, kernel=None, **attrs):
    """relu(conv(x) + bias + residual), channels last; `kernel` in place of a constant one."""
    x, c = var("x", shape=shape), shape[3]
    w = const(weights(c, o)) if kernel is None else kernel
    given = {"padding": borders, "data_layout": "NHWC", "kernel_layout": "HWIO", **attrs}
    y = call("nn.conv2d", x, w, **given)
    params = [x] if kernel is None or isinstance(kernel, Constant) else [x, kernel]
    if not tail:
        return IRModule.from_expr(Function(params, y))
    r = var("r", shape=infer_module(y, *params)["main"].body.ty.shape)
    y = call("add", call("add", y, const(np.linspace(-1, 1, o, dtype=np.float32))), r)
    return IRModule.from_expr(Function([*params, r], call("nn.relu", y)))


def infer_module(body, *params):
    return passes.InferType()(IRModule.from_expr(Function(params, body)))


def chosen(mod, target=TARGET, **config):
    with PassContext(opt_level=3, config=config):
        new = ChooseConvolution(target)(passes.InferType()(mod))
    names = [op_name(n) for n in post_order(new["main"].body) if "conv" in op_name(n)]
    return any("winograd" in n for n in names)


def test_a_large_layer_is_computed_by_tiles():
    assert chosen(network((1, 28, 28, 128), 128))
    assert chosen(network((1, 28, 28, 128), 128, strides=2))
    assert chosen(network((1, 28, 28, 128), 128, strides=2), **{"warpbeam.accuracy": "fast"})
    assert chosen(network((1, 28, 28, 128), 128, dilation=2))
    assert chosen(network((1, 28, 28, 128), 128, dilation=(1, 3)))
    assert chosen(network((1, 14, 14, 256), 256, kernel=const(weights(64, 256)), groups=4))


def test_few_channels_are_enough_where_transforms_are_short():
    """A plane's vector takes two or three cycles, and each goes into the products of a chunk."""
    assert chosen(network((1, 28, 28, 128), 128, kernel=const(weights(16, 128)), groups=8))
    assert chosen(network((1, 56, 56, 64), 64, strides=2))
    assert not chosen(network((1, 56, 56, 64), 128, kernel=const(weights(16, 128)), groups=4, strides=2))


@pytest.mark.parametrize(
    "mod",
    [
        lambda: network((1, 28, 28, 128), 128, strides=3),
        lambda: network((1, 28, 28, 128), 128, strides=(2, 1)),
        lambda: network((1, 28, 28, 128), 128, dilation=2, strides=2),
        lambda: network((1, SizeVar("h"), 28, 128), 128, dilation=2),
        lambda: network((1, SizeVar("h"), 28, 256), 256, kernel=const(weights(64, 256)), groups=4),
        lambda: network((1, 28, 28, 128), 128, kernel=const(weights(1, 128)), groups=128),
        lambda: network((1, 28, 28, 128), 128, data_layout="NHWC", out_layout="NCHW", tail=False),
        lambda: network((1, 28, 28, 128), 128, kernel=var("w", shape=(3, 3, 128, 128))),
        lambda: network((1, 28, 28, 128), 128, kernel=var("w", shape=(3, 3, 128, 128)), tail=False),
    ],
    ids=[
        "stride",
        "strides differ",
        "dilation with a stride",
        "dilation over an open map",
        "groups over an open map",
        "groups of one channel",
        "layouts differ",
        "weights are an input",
        "weights are an input, bare",
    ],
)
def test_what_tiles_cannot_compute_stays(mod):
    assert not chosen(mod())


def test_the_prior_keeps_the_plain_sum_where_it_is_faster():
    assert not chosen(network((1, 8, 8, 4), 4)), "few channels: transforms cost more than they save"
    assert not chosen(network((1, 3, 3, 64), 64, borders=(0, 0, 0, 0))), "one result"
    assert not chosen(network((1, 4, 4, 1024), 1024)), "four tiles: nearly all time goes into fetching the weights"


def deep(shape, o, taps=3, **attrs):
    """A convolution by taps x 3 x 3."""
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((taps, 3, 3, shape[-1], o)) / np.sqrt(9 * taps * shape[-1])).astype(np.float32)
    x = var("x", shape=shape)
    given = {"padding": (taps // 2, 1, 1), "data_layout": "NDHWC", "kernel_layout": "DHWIO", **attrs}
    return IRModule.from_expr(Function([x], call("nn.conv3d", x, const(w), **given))), w


def test_three_dimensions_are_computed_by_tiles_of_the_inner_two():
    shape = (1, 4, 14, 14, 64)
    assert chosen(deep(shape, 64)[0]) and chosen(deep(shape, 64, taps=1)[0])
    assert not chosen(deep(shape, 64)[0], **{"warpbeam.accuracy": "exact"})
    assert not chosen(deep(shape, 64, strides=(2, 1, 1))[0]) and not chosen(deep(shape, 64, dilation=(2, 1, 1))[0])
    assert not chosen(deep((1, 4, 14, 14, 3), 64)[0]), "few channels: transforms cost more than they save"
    assert not chosen(deep((1, SizeVar("d"), 14, 14, 64), 64)[0])
    assert not chosen(deep((1, 1, 14, 14, 64), 64)[0]), "one map"


@pytest.mark.parametrize("taps", [1, 3])
def test_compiled_values_of_three_dimensions(taps):
    mod, w = deep((2, 3, 13, 14, 40), 48, taps)
    borders = (taps // 2, 1, 1) * 2
    x = np.random.default_rng(1).standard_normal((2, 3, 13, 14, 40)).astype(np.float32)
    module, report = compile_with_report(mod, cache=False, target=TARGET)
    assert [r["sketch"] for r in report.rows] == ["winograd"]
    got = same_bits(module, {"x": x})
    assert (np.abs(got - direct_3d(x, w, borders)) <= error_bound_3d(x, w, borders)).all()


def test_accuracy_decides_what_is_considered():
    mod = network((1, 28, 28, 128), 128)
    assert not chosen(mod, **{"warpbeam.accuracy": "exact"})
    with PassContext(opt_level=3, config={"warpbeam.accuracy": "fast"}):
        new = ChooseConvolution(TARGET)(passes.InferType()(mod))
    tiles = {n.attrs["tile_size"] for n in post_order(new["main"].body) if "winograd" in op_name(n)}
    assert tiles == {4}
    with pytest.raises(IRError, match=r"accuracy 'exakt'.*\n.*exact"):
        warpbeam.compile(mod, accuracy="exakt")


def test_weights_are_transformed_by_the_pass_and_once():
    """However large they are: an inference that transforms them would be slower than the plain sum."""
    x, w = var("x", shape=(1, 28, 28, 128)), const(weights(128, 128))
    attrs = {"padding": 1, "data_layout": "NHWC", "kernel_layout": "HWIO"}
    y = call("nn.conv2d", call("nn.conv2d", x, w, **attrs), w, **attrs)
    with PassContext(opt_level=3, config={"relay.FoldConstant.max_bytes": 1}):
        new = ChooseConvolution(TARGET)(infer_module(y, x))
    found = [n for n in post_order(new["main"].body) if "winograd" in op_name(n)]
    assert len(found) == 2 and isinstance(found[0].args[1], Constant) and found[0].args[1] is found[1].args[1]
    assert found[0].args[1].ty.shape == (4, 4, 128, 128)


def test_small_machines_keep_small_weights():
    assert not chosen(network((1, 28, 28, 128), 128), get("c32"))


def test_devices_keep_their_convolutions():
    assert not chosen(network((1, 28, 28, 128), 128), get("cuda"))


CASES = [
    ((1, 14, 14, 32), 48, (1, 1, 1, 1), 1),
    ((2, 11, 13, 40), 64, (1, 0, 2, 1), 1),
    ((3, 9, 10, 37), 50, (0, 0, 0, 0), 1),
    ((1, 28, 28, 128), 128, (1, 1, 1, 1), 2),
    ((2, 25, 22, 133), 128, (0, 0, 0, 0), 2),
]
NAMES = ["whole", "uneven", "odd channels", "stride 2", "stride 2, rows that nothing reads"]


@pytest.mark.parametrize("shape, o, borders, stride", CASES, ids=NAMES)
def test_compiled_values(shape, o, borders, stride, monkeypatch):
    """Against float64, with bias, residual and activation in the same kernel, on one and two threads."""
    monkeypatch.setattr("warpbeam.transform.choose_convolution._CLEARLY", 1e9)
    mod = network(shape, o, borders, strides=stride)
    module, report = compile_with_report(mod, cache=False)
    assert [r["sketch"] for r in report.rows] == ["winograd"]
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape).astype(np.float32)
    plain = direct(x, weights(shape[3], o), borders, stride)
    r = rng.standard_normal(plain.shape).astype(np.float32)
    bias = np.linspace(-1, 1, o, dtype=np.float32)
    bound = error_bound(x, weights(shape[3], o), borders, 2, stride) + 2.0**-23 * (
        np.abs(plain) + np.abs(bias) + np.abs(r)
    )
    got = same_bits(module, {"x": x, "r": r})
    assert (np.abs(got - np.maximum(plain + bias + r, 0)) <= bound).all()


def test_symbolic_batch(monkeypatch):
    monkeypatch.setattr("warpbeam.transform.choose_convolution._CLEARLY", 1e9)
    mod = network((SizeVar("n"), 10, 10, 32), 32, tail=False)
    module, report = compile_with_report(mod, cache=False)
    assert [r["sketch"] for r in report.rows] == ["winograd"]
    for n in (1, 3):
        x = np.random.default_rng(n).standard_normal((n, 10, 10, 32)).astype(np.float32)
        (got,) = module.run({"x": x}).values()
        error = np.abs(got - direct(x, weights(32, 32), (1, 1, 1, 1)))
        assert (error <= error_bound(x, weights(32, 32), (1, 1, 1, 1))).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_open_maps_of_one_image(stride, monkeypatch):
    """One image has no axis, and still its tiles are found."""
    monkeypatch.setattr("warpbeam.transform.choose_convolution._CLEARLY", 1e9)
    mod = network((1, SizeVar("h"), SizeVar("w"), 64), 64, tail=False, strides=stride)
    module, report = compile_with_report(mod, cache=False)
    assert [r["sketch"] for r in report.rows] == ["winograd"]
    for size in ((9, 14), (4, 5)):
        x = np.random.default_rng(1).standard_normal((1, *size, 64)).astype(np.float32)
        (got,) = module.run({"x": x}).values()
        error = np.abs(got - direct(x, weights(64, 64), (1, 1, 1, 1), stride))
        assert (error <= error_bound(x, weights(64, 64), (1, 1, 1, 1), 2, stride)).all()


@pytest.mark.parametrize("shape", [(1, 16, 14), (2, 13, 13), (SizeVar("n"), 17, 25)], ids=["even", "odd", "batch"])
def test_taps_that_lie_apart(shape, monkeypatch):
    """The same bits with any number of threads."""
    monkeypatch.setattr("warpbeam.transform.choose_convolution._CLEARLY", 1e9)
    borders, apart = (2, 1, 0, 3), (2, 3)
    mod = network((*shape, 64), 64, borders, tail=False, dilation=apart)
    module, report = compile_with_report(mod, cache=False, target=replace(TARGET, fork_cycles=1))
    assert [r["sketch"] for r in report.rows] == ["winograd"]
    count = shape[0] if isinstance(shape[0], int) else 3
    x = np.random.default_rng(0).standard_normal((count, *shape[1:], 64)).astype(np.float32)
    got = same_bits(module, {"x": x})
    want, bound = (dilated(fn, x, weights(64, 64), borders, apart) for fn in (direct, error_bound))
    assert (np.abs(got - want) <= bound).all()


def test_groups(monkeypatch):
    """Of several images, in the bits of any number of threads; each group's error is within its own bound."""
    monkeypatch.setattr("warpbeam.transform.choose_convolution._CLEARLY", 1e9)
    k = weights(64, 192)
    shape, borders = (SizeVar("n"), 15, 14, 192), (1, 0, 1, 2)
    mod = network(shape, 192, borders, tail=False, kernel=const(k), groups=3)
    module, report = compile_with_report(mod, cache=False, target=replace(TARGET, fork_cycles=1))
    assert [r["sketch"] for r in report.rows] == ["winograd"]
    x = np.random.default_rng(0).standard_normal((3, 15, 14, 192)).astype(np.float32)
    got = same_bits(module, {"x": x})
    for g in range(3):
        part = slice(64 * g, 64 * g + 64)
        error = np.abs(got[..., part] - direct(x[..., part], k[..., part], borders))
        assert (error <= error_bound(x[..., part], k[..., part], borders)).all()


def test_groups_in_pairs_of_short_numbers_are_plain_sums():
    mod = network((1, 28, 28, 256), 256, kernel=const(weights(64, 256)), groups=4)
    assert chosen(mod) and [op_name(n) for n in shortened(mod)] == ["nn.conv2d"]


def test_open_maps(monkeypatch):
    """One artefact for maps of any size, the same bits with any number of threads."""
    monkeypatch.setattr("warpbeam.transform.choose_convolution._CLEARLY", 1e9)
    mod = network((SizeVar("n"), SizeVar("h"), SizeVar("w"), 32), 48, tail=False)
    module, report = compile_with_report(mod, cache=False)
    assert [r["sketch"] for r in report.rows] == ["winograd"]
    for size in ((1, 1, 2), (1, 10, 10), (2, 7, 19), (3, 13, 3)):
        x = np.random.default_rng(size).standard_normal((*size, 32)).astype(np.float32)
        got = same_bits(module, {"x": x})
        error = np.abs(got - direct(x, weights(32, 48), (1, 1, 1, 1)))
        assert (error <= error_bound(x, weights(32, 48), (1, 1, 1, 1))).all()


def test_a_large_layer_over_an_open_map_is_computed_by_tiles():
    n, h, w = SizeVar("n"), SizeVar("h"), SizeVar("w")
    assert chosen(network((n, h, w, 128), 128))
    assert not chosen(network((n, h, w, 128), 128), **{"warpbeam.accuracy": "exact"})
    assert not chosen(network((n, h, w, SizeVar("c")), 8, kernel=var("k", shape=(3, 3, SizeVar("c"), 8))))


def test_fast_loses_a_digit_or_two_and_no_more():
    mod = network((1, 28, 28, 64), 64, tail=False)
    x = np.random.default_rng(0).standard_normal((1, 28, 28, 64)).astype(np.float32)
    want = direct(x, weights(64, 64), (1, 1, 1, 1))
    error = {}
    for accuracy in ("exact", "default", "fast"):
        module = warpbeam.compile(mod, accuracy=accuracy, cache=False)
        error[accuracy] = np.abs(next(iter(module.run({"x": x}).values())) - want).max()
    bound = error_bound(x, weights(64, 64), (1, 1, 1, 1), 4)
    assert error["default"] < 8 * error["exact"] and error["fast"] < 100 * error["exact"]
    assert error["fast"] < bound.max()


def test_the_report_says_what_was_chosen_and_what_the_other_would_cost():
    mod = network((1, 28, 28, 64), 64)
    _, report = compile_with_report(mod, cache=False)
    (choice,) = report.data()["choices"]
    assert set(choice["cycles"]) == {"direct", "winograd F(2x2,3x3)"} and choice["chosen"] in choice["cycles"]
    for name, cycles in choice["cycles"].items():
        assert f"{name} {cycles / 1e3:.0f}" in report.text()


def shortened(mod, request="bf16", target=None, **config):
    """The convolutions of a module, and those of it after the passes for another precision."""
    machine = replace(get("sapphirerapids"), cores=2) if target is None else target
    with PassContext(opt_level=3, config=config):
        new = ChooseConvolution(machine, request)(passes.InferType()(mod))
        new = passes.ToMixedPrecision(request, machine)(new)
    return [n for n in post_order(new["main"].body) if "conv2d" in op_name(n)]


def test_tiles_in_pairs_of_short_numbers():
    """Planes and weights are short, sums are not; tiles of 4x4, whose transforms have large factors, are out."""
    mod = network((1, 28, 28, 128), 128)
    for accuracy in ("default", "fast"):
        (found,) = shortened(mod, **{"warpbeam.accuracy": accuracy})
        assert "winograd" in op_name(found) and found.attrs["tile_size"] == 2
        assert found.attrs["plane_dtype"] == "bfloat16" and found.ty.dtype == "float32"
        assert [a.ty.dtype for a in found.args] == ["bfloat16"] * 2
        u = get_op("nn.contrib_conv2d_winograd_weight_transform")
        want = u.numpy(u.attrs({"tile_size": 2, "kernel_layout": "HWIO"}), weights(128, 128))
        np.testing.assert_array_equal(found.args[1].numpy(), want.astype(ml_dtypes.bfloat16))  # rounded once


def test_other_ways_to_sum_short_planes_are_no_tiles_of_4x4():
    """Also what is measured in place of what the prior has chosen."""
    for dtype, want in (("bfloat16", [0]), ("float32", [0, 4])):
        x, u = var("x", shape=(1, 28, 28, 128), dtype=dtype), var("u", shape=(4, 4, 128, 128), dtype=dtype)
        attrs = {"tile_size": 2, "padding": 1, "data_layout": "NHWC", "plane_dtype": dtype, "out_dtype": "float32"}
        y = call("nn.contrib_conv2d_winograd_without_weight_transform", x, u, **attrs)
        assert [o.tile for o in others(infer_module(y, x, u)["main"], "fast")] == want


def test_other_ways_know_groups_and_dilation():
    x, w = var("x", shape=(1, 14, 14, 64)), var("w", shape=(3, 3, 16, 64))
    attrs = {"padding": 2, "data_layout": "NHWC", "kernel_layout": "HWIO", "groups": 4, "dilation": 2}
    first = infer_module(call("nn.conv2d", x, w, **attrs), x, w)["main"]
    (tiles,) = others(first, "default")
    (plain,) = others(infer_module(tiles.group.body, *tiles.group.params)["main"], "default")
    node = plain.group.body
    assert (tiles.tile, plain.tile, plain.own) == (2, 0, 2) and tiles.signature == plain.signature
    assert plain.group.params[1].ty.shape == (3, 3, 16, 64)
    assert (node.attrs["groups"], node.attrs["dilation"], node.ty.shape) == (4, (2, 2), first.body.ty.shape)


@pytest.mark.parametrize(
    ("request_", "target", "config"),
    [
        ("bf16", None, {"warpbeam.accuracy": "exact"}),
        ("bf16", TARGET, {}),
        ("fp16", None, {}),
        ("bf16,nn.conv2d=never", None, {}),
    ],
    ids=["exact", "no instruction", "storage only", "left alone"],
)
def test_without_pairs_there_are_no_tiles(request_, target, config):
    (found,) = shortened(network((1, 28, 28, 128), 128), request_, target, **config)
    assert op_name(found) == "nn.conv2d"
