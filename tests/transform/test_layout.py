"""ConvertLayout: transposes only at the borders, values unchanged, nothing moved without a reason."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import op
from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Function, IRModule, Tuple, TupleGetItem, const, var
from warpbeam.relay.interp import evaluate
from warpbeam.target import get
from warpbeam.tir.expr import SizeVar
from warpbeam.transform import Sequential, passes
from warpbeam.transform.convert_layout import transpose_cost
from warpbeam.transform.graph import op_name

G = op.get


class Net:
    """Layers with random weights."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def weight(self, *shape):
        return const((self.rng.standard_normal(shape) * 0.2).astype("f"))

    def conv(self, x, channels, kernel, stride=1, groups=1, relu=True):
        w = self.weight(channels, x.ty.shape[1] // groups, kernel, kernel)
        y = G("nn.conv2d")(x, w, strides=stride, padding=kernel // 2, groups=groups)
        stats = (self.weight(channels), self.weight(channels), self.weight(channels))
        y = G("nn.batch_norm")(y, *stats, const(self.rng.uniform(0.5, 2, channels).astype("f")))
        return G("nn.relu")(y) if relu else y

    def squeeze_excite(self, x):
        c = x.ty.shape[1]
        s = G("nn.relu")(G("nn.conv2d")(G("nn.global_avg_pool2d")(x), self.weight(4, c, 1, 1)))
        return G("multiply")(x, G("sigmoid")(G("nn.conv2d")(s, self.weight(c, 4, 1, 1))))


def resnet(x):
    net = Net()
    y = G("nn.max_pool2d")(net.conv(x, 16, 3, 2), pool_size=(3, 3), strides=2, padding=1)
    y = G("nn.relu")(G("add")(y, net.conv(net.conv(y, 16, 3), 16, 3, relu=False)))
    z = net.conv(net.conv(y, 32, 3, 2), 32, 3, relu=False)
    y = G("nn.relu")(G("add")(net.conv(y, 32, 1, 2, relu=False), z))
    y = G("reshape")(G("nn.global_avg_pool2d")(y), newshape=(x.ty.shape[0], 32))
    return G("nn.bias_add")(G("nn.dense")(y, net.weight(10, 32)), net.weight(10))


def mobilenet(x):
    net = Net()
    y = net.conv(x, 16, 3, 2)
    z = net.squeeze_excite(net.conv(net.conv(y, 16, 1), 16, 3, 1, 16))
    y = G("add")(y, net.conv(z, 16, 1, relu=False))
    y = G("multiply")(y, G("divide")(G("clip")(G("add")(y, const(3.0)), a_min=0.0, a_max=6.0), const(6.0)))
    return G("nn.softmax")(G("nn.dense")(G("mean")(y, axis=(2, 3)), net.weight(5, 16)))


def zoo(x):
    """What else a layout must pass through."""
    net = Net()
    y = net.conv(x, 16, 3)
    y = net.conv(G("nn.pad")(y, const(0.5), pad_width=((0, 0), (0, 0), (1, 2), (0, 1)), pad_mode="constant"), 16, 3, 2)
    y = G("image.resize")(y, size=(18, 20), axes=(2, 3))
    parts = G("split")(G("concatenate")(y, G("tanh")(y), axis=1), indices_or_sections=2, axis=1)
    y = G("where")(G("greater")(y, const(0.0)), TupleGetItem(parts, 0), TupleGetItem(parts, 1))
    y = G("strided_slice")(y, begin=(0, 2), end=(7, 18), strides=(2, 1), axes=(1, 2))
    y = G("nn.softmax")(G("nn.prelu")(y, net.weight(4)), axis=1)
    y = G("nn.instance_norm")(y, net.weight(4), net.weight(4))
    y = G("nn.depth_to_space")(y, block_size=2)
    y = G("subtract")(y, G("max")(y, axis=(1,), keepdims=True))
    y = G("reverse")(G("tile")(y, reps=(1, 3, 1, 1)), axis=1)
    return G("sum")(G("transpose")(y, axes=(0, 2, 3, 1)), axis=(1, 2))


def patches(x):
    net = Net()
    y = G("nn.bias_add")(G("nn.conv2d")(x, net.weight(16, 3, 8, 8), strides=8), net.weight(16))
    y = G("reshape")(y, newshape=(x.ty.shape[0], 16, 16))
    return G("nn.dense")(G("transpose")(y, axes=(0, 2, 1)), net.weight(4, 16))


def optimise(mod):
    names = (
        "InferType",
        "SimplifyInference",
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
    with PassContext(opt_level=3):
        return Sequential([getattr(passes, n)() for n in names])(mod)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("model", [resnet, mobilenet, zoo, patches])
def test_only_an_image_without_borders_is_transposed(model, batch):
    """With borders it is copied anyway, and the first convolution makes channels last of the plain copy."""
    x = var("x", shape=(batch, 3, 32, 32))
    mod = IRModule.from_expr(Function((x,), model(x)))
    out = optimise(mod)
    moved = [n for n in post_order(out["main"].body) if op_name(n) == "transpose"]
    assert [n.args[0].name for n in moved] == (["x"] if model is patches else [])
    first, *others = (n for n in post_order(out["main"].body) if op_name(n).startswith("nn.conv"))
    assert (first.attrs["data_layout"], first.attrs["out_layout"]) in (("NCHW", "NHWC"), ("NHWC", ""))
    assert {n.attrs["data_layout"] for n in others} <= {"NHWC"}
    value = np.random.default_rng(1).standard_normal((batch, 3, 32, 32)).astype("f")
    a, b = evaluate(mod, [value]), evaluate(out, [value])
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("model", [resnet, mobilenet])
def test_symbolic_batch(model):
    x = var("x", shape=(SizeVar("n"), 3, 32, 32))
    mod = IRModule.from_expr(Function((x,), model(x)))
    out = optimise(mod)
    assert transpose_cost(out["main"])[0] == 0
    value = np.random.default_rng(1).standard_normal((3, 3, 32, 32)).astype("f")
    np.testing.assert_allclose(evaluate(mod, [value]), evaluate(out, [value]), rtol=1e-4, atol=1e-5)


def test_transposes_of_other_frameworks_cancel():
    net, x = Net(), var("x", shape=(1, 8, 8, 4))
    y = G("transpose")(x, axes=(0, 3, 1, 2))
    y = G("transpose")(net.conv(net.conv(y, 4, 3), 4, 1), axes=(0, 2, 3, 1))
    out = optimise(IRModule.from_expr(Function((x,), y)))
    assert transpose_cost(out["main"]) == (0, 0)


def test_graphs_without_convolutions_stay_as_they_are():
    x = var("x", shape=(1, 4, 8, 8))
    y = G("nn.softmax")(G("transpose")(G("nn.max_pool2d")(x, pool_size=(2, 2)), axes=(0, 2, 1, 3)))
    fn = Function((x,), y)
    assert passes.ConvertLayout("NHWC")(IRModule.from_expr(fn))["main"] is fn


def test_one_and_three_spatial_dimensions_and_transposed_convolution():
    net = Net()
    a, b = var("a", shape=(1, 4, 16)), var("b", shape=(1, 2, 6, 6, 6))
    ya = G("nn.max_pool1d")(G("nn.conv1d")(a, net.weight(4, 4, 3)), pool_size=(2,), strides=2)
    yb = G("nn.conv3d")(b, net.weight(4, 2, 3, 3, 3))
    yb = G("nn.conv3d_transpose")(yb, net.weight(4, 2, 2, 2, 2), strides=2)
    mod = IRModule.from_expr(Function((a, b), Tuple((ya, yb))))
    out = optimise(mod)
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal(v.ty.shape).astype("f") for v in (a, b)]
    for want, have in zip(evaluate(mod, inputs), evaluate(out, inputs), strict=True):
        np.testing.assert_allclose(want, have, rtol=1e-4, atol=1e-5)
    assert transpose_cost(out["main"])[0] == 4


def test_wishes_are_understood_or_refused():
    x = var("x", shape=(1, 3, 8, 8))
    mod = IRModule.from_expr(Function((x,), Net().conv(x, 4, 3)))
    for none in ("NCHW", None, {"nn.conv2d": ["NCHW", "default"]}, {"nn.conv3d": ["NDHWC", "default"]}):
        assert passes.ConvertLayout(none)(mod)["main"] is mod["main"]
    assert passes.ConvertLayout({"nn.conv2d": ["NHWC", "default"]})(mod)["main"] is not mod["main"]
    with pytest.raises(UnsupportedError, match="NCHW16c"):
        passes.ConvertLayout({"nn.conv2d": ["NCHW16c", "default"]})


def layouts(shape, build, desired="NHWC"):
    """(data layouts of the convolutions, number of transposes) of a function of a network and an image."""
    x = var("x", shape=shape)
    fn = Function((x,), build(Net(), x))
    with PassContext(opt_level=3):
        new = Sequential([passes.ConvertLayout(desired)])(IRModule.from_expr(fn))["main"]
    found = [n.attrs["data_layout"] for n in post_order(new.body) if op_name(n).startswith("nn.conv2d")]
    return found, transpose_cost(new)[0]


PLAIN, READ, TURNED = (["NCHW"], 0), (["NCHW"], 1), (["NHWC"], 2)


def test_few_maps_with_borders_are_read_as_they_are():
    """Elements of few channels are near each other in any order; of many, or of a group's, only with channels last."""
    for channels in (2, 3, 8):
        assert layouts((1, channels, 16, 16), lambda n, x: n.conv(x, 32, 3, 2)) == READ
        assert layouts((1, channels, 16, 16), lambda n, x: n.conv(x, 32, 3, 2), {"nn.conv2d": ["NHWC"]}) == TURNED
    assert layouts((SizeVar("n"), 3, SizeVar("h"), 16), lambda n, x: n.conv(x, 32, 3, 2)) == READ
    assert layouts((1, 32, 16, 16), lambda n, x: n.conv(x, 32, 3, 2)) == TURNED
    assert layouts((1, 4, 16, 16), lambda n, x: n.conv(x, 32, 3, 2, 2)) == TURNED
    assert layouts((1, 3, 16, 16), lambda n, x: n.conv(n.conv(x, 8, 3, 2), 32, 3)) == (["NCHW", "NHWC"], 1)
    assert layouts((1, 3, 16, 16), lambda n, x: G("nn.conv2d")(x, n.weight(32, 3, 2, 2), strides=2)) == TURNED
    x = var("x", shape=(1, 3, 16, 16))
    mod = IRModule.from_expr(Function((x,), Net().conv(x, 32, 3, 2)))
    with PassContext(opt_level=3):
        turned = Sequential([passes.ConvertLayout(pictures=False)])(mod)["main"]
    assert transpose_cost(turned)[0] == 2


def test_depthwise_alone_keeps_plain_maps_and_follows_others():
    shape = (1, 16, 12, 12)
    assert layouts(shape, lambda n, x: n.conv(x, 16, 3, 1, 16)) == PLAIN
    assert layouts(shape, lambda n, x: n.conv(x, 16, 7, 1, 16)) == PLAIN
    assert layouts(shape, lambda n, x: n.conv(x, 16, 9, 1, 16)) == TURNED  # 81 taps
    assert layouts(shape, lambda n, x: n.conv(x, 32, 3, 1, 16)) == TURNED  # two results of each channel
    assert layouts(shape, lambda n, x: n.conv(n.conv(x, 16, 1), 16, 3, 1, 16)) == (["NHWC", "NHWC"], 2)
    assert layouts(shape, lambda n, x: n.conv(x, 16, 3, 1, 16), {"nn.conv2d": ["NHWC", "default"]}) == TURNED
    assert layouts((SizeVar("n"), 16, 12, 12), lambda n, x: n.conv(x, 16, 3, 1, 16)) == TURNED
    turned = layouts((1, 12, 12, 16), lambda n, x: n.conv(G("transpose")(x, axes=(0, 3, 1, 2)), 16, 3, 1, 16))
    assert turned == (["NHWC"], 1)  # that of the result


def test_pointwise_alone_keeps_large_plain_maps():
    assert layouts((1, 16, 16, 16), lambda n, x: n.conv(x, 16, 1)) == PLAIN
    assert layouts((1, 16, 15, 16), lambda n, x: n.conv(x, 16, 1)) == TURNED  # 240 positions
    assert layouts((1, 16, 32, 32), lambda n, x: n.conv(x, 16, 1, 2)) == TURNED  # every other position
    assert layouts((1, 1200, 16, 16), lambda n, x: n.conv(x, 16, 1)) == TURNED  # many channels of few positions
    assert layouts((1, 16, 16, 16), lambda n, x: n.conv(n.conv(x, 16, 3), 16, 1)) == (["NHWC", "NHWC"], 2)


@pytest.mark.parametrize("channels, results, turned", [(64, 128, True), (63, 128, False), (64, 1, False)])
def test_pointwise_products_of_pairs_have_their_channels_last(channels, results, turned):
    """Where an instruction takes two channels at once, and that saves more than turning data and result takes."""
    x = var("x", shape=(1, channels, 32, 32))
    mod = IRModule.from_expr(Function((x,), Net().conv(x, results, 1)))
    found = []
    for pairs in (0, 2):
        with PassContext(opt_level=3):
            new = passes.ConvertLayout("NHWC", get("sapphirerapids"), pairs=pairs)(mod)["main"]
        found.append(any(op_name(n) == "transpose" for n in post_order(new.body)))
    assert found == [False, turned]


def test_few_results_do_not_ask_for_channels_last():
    def transposed(count):
        return lambda n, x: G("nn.conv2d_transpose")(x, n.weight(16, count, 4, 4), strides=2, padding=1)

    assert layouts((1, 16, 32, 32), lambda n, x: n.conv(x, 3, 3)) == PLAIN
    for count in (3, 4, 5, 8):
        for size in (15, 31, 56):
            assert layouts((1, 16, size, size), lambda n, x: n.conv(x, count, 3)) == PLAIN  # noqa: B023
    assert layouts((1, 16, 56, 56), lambda n, x: n.conv(x, 16, 3)) == TURNED  # a vector of results
    assert layouts((1, 3, 56, 56), lambda n, x: n.conv(x, 15, 3)) == READ  # a result that is larger than the data
    assert layouts((1, 256, 31, 31), lambda n, x: n.conv(x, 12, 3)) == TURNED  # faster by tiles
    assert layouts((1, 16, 16, 16), transposed(1)) == PLAIN
    assert layouts((1, 16, 16, 16), transposed(3)) == TURNED  # one convolution of 12 results


def test_bytes_have_their_channels_last_where_there_are_dot_products():
    x = var("x", shape=(1, 16, 16, 16), dtype="uint8")
    w = const(np.ones((16, 16, 1, 1), np.int8))
    fn = Function((x,), G("nn.conv2d")(x, w, out_dtype="int32"))
    for target, layout in (("haswell", "NCHW"), ("cascadelake", "NHWC")):
        with PassContext(opt_level=3):
            new = Sequential([passes.ConvertLayout("NHWC", get(target))])(IRModule.from_expr(fn))["main"]
        (found,) = [n for n in post_order(new.body) if op_name(n) == "nn.conv2d"]
        assert found.attrs["data_layout"] == layout
