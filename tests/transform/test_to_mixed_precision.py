"""Shorter numbers on request: where casts are put, what each entry of the table does, and how far results may move."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import warpbeam
from tests.tolerance import unit
from warpbeam import op
from warpbeam.driver.api import compile_with_report
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext
from warpbeam.op.table import OPS
from warpbeam.relay.expr import Call, Constant, Expr, Function, IRModule, Tuple, Var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.types import TensorType
from warpbeam.target import get
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name
from warpbeam.transform.to_mixed_precision import CATEGORIES, MOVES, WIDENS, Request, parse

SHORT = {"bf16": "bfloat16", "fp16": "float16"}
PAIRS = get("sapphirerapids")  # has the instruction, whatever machine this runs on
RNG = np.random.default_rng(3)


def tensor(name: str, *shape: Any, dtype: str = "float32") -> Var:
    return Var(name, TensorType(shape, dtype))


def weights(*shape: int) -> Constant:
    return Constant((RNG.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32))


def short(body: Expr, precision: str = "bf16", target: Any = PAIRS) -> Function:
    params = [n for n in post_order(body) if isinstance(n, Var)]
    mod = IRModule({"main": Function(params, body)})
    made = passes.ToMixedPrecision(precision, target)(mod)["main"]
    assert made.body.ty == body.ty
    return made


def calls(fn: Function, name: str) -> list[Any]:
    return [n for n in post_order(fn.body) if isinstance(n, Call) and op_name(n) == name]


def mlp(x: Expr, depth: int = 2, width: int = 64) -> Expr:
    for _ in range(depth):
        x = op.get("nn.relu")(op.get("nn.dense")(x, weights(width, x.ty.shape[-1])))
    return x


def test_a_product_takes_short_operands_and_sums_in_float32() -> None:
    fn = short(mlp(tensor("x", 128, 64)))
    for node in calls(fn, "nn.dense"):
        assert [a.ty.dtype for a in node.args] == ["bfloat16", "bfloat16"] and node.ty.dtype == "float32"
    assert [c.args[0].ty.dtype for c in calls(fn, "cast")] == ["float32"] * 2  # of the input, and of the first layer
    assert all(n.ty.dtype == "float32" for n in calls(fn, "nn.relu"))


def test_half_floats_are_storage_only() -> None:
    fn = short(mlp(tensor("x", 128, 64)), "fp16")
    for node in calls(fn, "nn.dense"):
        assert [a.ty.dtype for a in node.args] == ["float32", "float16"] and node.ty.dtype == "float32"


def test_without_the_instruction_only_weights_are_short() -> None:
    fn = short(mlp(tensor("x", 128, 64)), target=get("generic-x86-64-v3"))
    assert {a.ty.dtype for n in calls(fn, "nn.dense") for a in n.args[:1]} == {"float32"}
    assert {n.args[1].ty.dtype for n in calls(fn, "nn.dense")} == {"bfloat16"}


def test_nothing_happens_without_a_request() -> None:
    mod = IRModule({"main": Function([x := tensor("x", 128, 64)], mlp(x))})
    assert passes.ToMixedPrecision()(mod)["main"] is mod["main"]
    assert passes.ToMixedPrecision("fp32")(mod)["main"] is mod["main"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_twice_is_once(precision: str) -> None:
    x = tensor("x", 1, 16, 16, 32)
    conv = op.get("nn.conv2d")
    attrs = {"padding": 1, "data_layout": "NHWC", "kernel_layout": "HWIO"}
    y = op.get("nn.relu")(conv(x, weights(3, 3, 32, 32), **attrs))
    z = op.get("nn.max_pool2d")(op.get("add")(conv(y, weights(3, 3, 32, 32), **attrs), y), pool_size=2, strides=2,
                                layout="NHWC")  # fmt: skip
    out = op.get("nn.softmax")(mlp(op.get("reshape")(z, newshape=(64, 32))))
    once = short(Tuple((out, y)), precision)
    again = passes.ToMixedPrecision(precision, PAIRS)(IRModule({"main": once}))["main"]
    assert again is once or str(again) == str(once)
    assert [f.ty.dtype for f in once.body.fields] == ["float32"] * 2


def test_values_are_rounded_once_where_they_are_stored() -> None:
    """A residual block: the sum reads what the convolution reads; nothing within a kernel is rounded."""
    x = tensor("x", 1, 16, 16, 32)
    attrs = {"data_layout": "NHWC", "kernel_layout": "HWIO"}
    conv, relu, add = op.get("nn.conv2d"), op.get("nn.relu"), op.get("add")
    a = relu(conv(x, weights(1, 1, 32, 32), **attrs))
    b = relu(add(conv(a, weights(1, 1, 32, 32), **attrs), a))
    fn = short(conv(b, weights(1, 1, 32, 64), **attrs))
    down = [c for c in calls(fn, "cast") if c.ty.dtype == "bfloat16"]
    up = [c for c in calls(fn, "cast") if c.ty.dtype == "float32"]
    assert [op_name(c.args[0]) for c in down] == ["", "nn.relu", "nn.relu"]
    assert len(up) == 1 and up[0].args[0] is down[1]


def test_what_only_float32_readers_read_stays_long() -> None:
    x = tensor("x", 128, 64)
    rows = op.get("nn.softmax")(mlp(x, 1))
    fn = short(op.get("nn.dense")(rows, weights(64, 64)))
    (softmax,) = calls(fn, "nn.softmax")
    assert softmax.args[0].ty.dtype == "float32" and softmax.ty.dtype == "float32"
    (last,) = [n for n in calls(fn, "nn.dense") if n.args[0].ty.dtype == "bfloat16" and n is fn.body]
    assert op_name(last.args[0]) == "cast" and last.args[0].args[0] is softmax


@pytest.mark.parametrize("taps, channels, strides, padding", [
    (3, 3, 2, 1), (7, 3, 2, 3), (3, 5, 1, (0, 1, 2, 3)), (1, 3, 1, 0), (2, 3, 3, 0), (2, 3, 1, 0), (4, 5, 2, 0),
])  # fmt: skip
def test_few_channels_and_taps_are_summed_as_one_run(taps: int, channels: int, strides: int, padding: Any) -> None:
    x, w = tensor("x", 1, 16, 17, channels), weights(taps, taps, channels, 16)
    y = op.get("nn.conv2d")(x, w, strides=strides, padding=padding, data_layout="NHWC", kernel_layout="HWIO")
    fn = short(y)
    (node,) = calls(fn, "nn.conv2d")
    run = taps * channels + taps * channels % 2
    assert node.args[1].ty.shape == (taps, run, 1, 16) and node.args[0].ty.shape[-1] == 1
    data = RNG.standard_normal((1, 16, 17, channels)).astype(np.float32)
    got, want = (np.asarray(evaluate(IRModule({"main": f}), [data])) for f in (fn, Function([x], y)))
    size = np.abs(want).max()
    assert np.abs(got - want).max() <= 4 * unit(ml_dtypes.bfloat16) * math.sqrt(taps * run) * size


@pytest.mark.parametrize(
    "inputs, outputs, data, kernel",
    [
        (8, 8, "bfloat16", "bfloat16"),
        (4, 3, "bfloat16", "bfloat16"),
        (3, 8, "float32", "float32"),  # odd: each number would be converted once per use
        (8, 2, "float32", "float32"),  # too few results for a vector of one group
        (1, 1, "bfloat16", "float32"),  # depthwise: a vector of data is converted at once
    ],
)
def test_convolutions_by_groups(inputs: int, outputs: int, data: str, kernel: str) -> None:
    """By pairs where the channels of a group are even in number and its results fill vectors."""
    groups = 64
    x = tensor("x", 1, 12, 12, groups * inputs)
    y = op.get("nn.conv2d")(
        op.get("nn.relu")(op.get("nn.max_pool2d")(x, pool_size=1, layout="NHWC")), weights(3, 3, inputs, outputs * 64),
        padding=1, groups=groups, data_layout="NHWC", kernel_layout="HWIO",
    )  # fmt: skip
    (conv,) = calls(short(y), "nn.conv2d")
    assert [a.ty.dtype for a in conv.args] == [data, kernel] and conv.ty.dtype == "float32"


def test_groups_multiply_the_rounded_numbers() -> None:
    """Against the rounded operands the only error is that of sums in float32, and the instruction is used."""
    w, x = weights(3, 3, 6, 40), tensor("x", 1, 9, 10, 24)
    attrs = {"padding": 1, "groups": 4, "data_layout": "NHWC", "kernel_layout": "HWIO"}
    module, report = compile_with_report(
        Function([x], op.get("nn.conv2d")(x, w, **attrs)), precision="bf16", cache=False, workers=1
    )
    data = RNG.standard_normal((1, 9, 10, 24)).astype(np.float32)
    found = "avx512bf16" in get("native").required_features
    a, b = (v.astype(ml_dtypes.bfloat16 if found else np.float32).astype(np.float64) for v in (data, w.numpy()))
    conv = op.get("nn.conv2d")
    want, sizes = (conv.numpy(conv.attrs(attrs), f(a), f(b)) for f in (np.asarray, np.abs))
    assert np.abs(run(module, data) - want).max() <= 2 * 9 * 6 * unit(np.float32) * sizes.max()
    assert any("dot" in row["decisions"] for row in report.rows) == found


def test_tables_of_rows_are_kept_short() -> None:
    ids = tensor("ids", 128, dtype="int64")
    rows = op.get("take")(weights(512, 64), ids, axis=0)
    fn = short(op.get("nn.dense")(rows, weights(64, 64)))
    (take,) = calls(fn, "take")
    assert take.args[0].ty.dtype == take.ty.dtype == "bfloat16" and not calls(fn, "cast")


def _subject(name: str) -> Expr | None:
    """A call of an operator on the result of another kernel, 4096 numbers and more; None where it takes no such."""
    x = op.get("nn.max_pool2d")(tensor("x", 1, 16, 16, 32), pool_size=1, layout="NHWC")
    o = op.get(name)
    special: dict[str, Any] = {
        "where": lambda: o(tensor("c", 1, 16, 16, 32, dtype="bool"), x, x),
        "nn.bias_add": lambda: o(x, weights(32), axis=3), "nn.prelu": lambda: o(x, weights(32), axis=3),
        "clip": lambda: o(x, a_min=0.0, a_max=6.0), "cumsum": lambda: o(x, axis=3),
        "nn.layer_norm": lambda: o(x, weights(32), weights(32)), "nn.rms_norm": lambda: o(x, weights(32)),
        "nn.group_norm": lambda: o(x, weights(16), weights(16), num_groups=2),
        "nn.instance_norm": lambda: o(x, weights(16), weights(16)),
        "reshape": lambda: o(x, newshape=(256, 32)), "transpose": lambda: o(x, axes=(0, 3, 1, 2)),
        "squeeze": lambda: o(x, axis=(0,)), "expand_dims": lambda: o(x, axis=0), "copy": lambda: o(x),
        "strided_slice": lambda: o(x, begin=(0,), end=(8,), strides=(1,), axes=(1,)),
        "concatenate": lambda: o(x, x, axis=1), "stack": lambda: o(x, x, axis=0),
        "broadcast_to": lambda: o(x, shape=(2, 16, 16, 32)), "tile": lambda: o(x, reps=(2, 1, 1, 1)),
        "repeat": lambda: o(x, repeats=2, axis=1), "reverse": lambda: o(x, axis=1),
        "nn.pad": lambda: o(x, Constant(np.zeros((), np.float32)), pad_width=((0, 0), (1, 1), (1, 1), (0, 0))),
    }  # fmt: skip
    if name in special:
        return special[name]()
    if name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power"):
        return o(x, x)
    if "_pool2d" in name:
        return o(x, layout="NHWC", **({} if "global" in name else {"pool_size": 2, "strides": 2}))
    if name in MOVES or "pool" in name or "conv" in name or name in ("nn.dense", "nn.matmul", "nn.batch_matmul"):
        return None
    return o(x)


@pytest.mark.parametrize("name", sorted(n for n in CATEGORIES if _subject(n) is not None))
def test_each_entry_of_the_table(name: str) -> None:
    """What a kernel hands to an operator is rounded where its entry says "follow" or "always", and not for "never"."""
    subject = _subject(name)
    assert subject is not None
    for category in ("follow", "never"):
        words = "bf16" if CATEGORIES[name] == category else f"bf16,{name}={category}"
        # what moves numbers hands on what its own reader wants: a product, which wants short ones
        reader = subject
        if name in MOVES:
            flat = op.get("reshape")(subject, newshape=(math.prod(subject.ty.shape) // 32, 32))
            reader = op.get("nn.dense")(flat, weights(64, 32))
        (x,) = {a for a in post_order(subject) if op_name(a) == "nn.max_pool2d" and a.attrs["pool_size"] == 1}
        other = op.get("nn.max_pool2d")(x, pool_size=4, strides=4, layout="NHWC")  # so that x is stored
        fn = short(Tuple((reader, other)), words)
        pools = [n for n in calls(fn, "nn.max_pool2d") if n.attrs["pool_size"] == 1]
        users = [n for n in post_order(fn.body) if isinstance(n, Call) and any(a in pools for a in n.args)]
        rounded = any(op_name(n) == "cast" and n.ty.dtype == "bfloat16" for n in users)
        assert rounded == (category == "follow"), (name, category)


def test_entries_name_operators() -> None:
    assert set(CATEGORIES) <= set(OPS) and set(CATEGORIES) >= MOVES and set(CATEGORIES) >= WIDENS
    assert set(CATEGORIES.values()) == {"always", "follow", "never"}


@pytest.mark.parametrize("name", [n for n, c in CATEGORIES.items() if c == "always"])
def test_products_can_be_left_alone(name: str) -> None:
    x: Expr
    if "winograd" in name:
        deep, layout = {"1": ([], "NWC"), "2": ([], "NHWC"), "3": ([3], "NDHWC")}[name.partition("conv")[2][0]]
        u = weights(1 if layout == "NWC" else 4, 4, *deep, 32, 16)
        y = op.get(name)(
            tensor("x", 1, *deep, *[8] * layout.count("H"), 8, 32), u, tile_size=2, padding=1, data_layout=layout
        )
    elif "conv" in name:
        nd = int(name[-2])
        s = "DHW"[3 - nd :]
        x = tensor("x", 1, *[8] * nd, 32)
        layouts = {"data_layout": f"N{s}C", "kernel_layout": f"{s}IO"}
        y = op.get(name)(x, weights(*[3] * nd, 32, 16), **layouts)
    else:
        lead = (1,) if name == "nn.batch_matmul" else ()
        y = op.get(name)(tensor("x", *lead, 64, 32), weights(*lead, 32, 32))
    assert {a.ty.dtype for n in calls(short(y), name) for a in n.args} == {"bfloat16"}
    assert {a.ty.dtype for n in calls(short(y, f"bf16,{name}=never"), name) for a in n.args} == {"float32"}


def test_requests_as_text() -> None:
    assert str(parse("bf16, nn.softmax=follow,nn.dense=never")) == "bf16,nn.dense=never,nn.softmax=follow"
    assert parse("fp16") == Request("fp16") and parse("fp32").dtype == "float32"
    for wrong in ("bf8", "bf16,nn.softmax=sometimes", "bf16,no.operator=never", ""):
        with pytest.raises(IRError):
            parse(wrong)


def run(module: Any, data: np.ndarray) -> np.ndarray:
    """The one result of a model with one input."""
    (name,) = [i.name for i in module.artifact.manifest.inputs]
    (got,) = module.run({name: data}).values()
    return np.asarray(got)


def _network() -> tuple[Function, int]:
    """A convolution, depthwise, pooling, dense, softmax; and the longest sum."""
    attrs = {"padding": 1, "data_layout": "NCHW", "kernel_layout": "OIHW"}
    x = tensor("x", 1, 3, 20, 20)
    conv, relu = op.get("nn.conv2d"), op.get("nn.relu")
    y = relu(conv(x, weights(32, 3, 3, 3), **attrs))
    y = relu(conv(y, weights(32, 1, 3, 3), groups=32, **attrs))
    y = op.get("add")(conv(y, weights(32, 32, 3, 3), **attrs), y)
    y = op.get("nn.max_pool2d")(y, pool_size=2, strides=2)
    y = op.get("reshape")(op.get("nn.global_avg_pool2d")(y), newshape=(1, 32))
    return Function([x], op.get("nn.dense")(y, weights(10, 32))), 32 * 9


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_network_stays_within_what_rounding_can_do(precision: str) -> None:
    fn, terms = _network()
    data = RNG.standard_normal((1, 3, 20, 20)).astype(np.float32)
    module, report = compile_with_report(fn, precision=precision, cache=False, workers=1)
    got = run(module, data)
    want = np.asarray(evaluate(IRModule({"main": fn}), [data], dtype="float64"))
    assert got.dtype == np.float32
    u = unit(ml_dtypes.bfloat16 if precision == "bf16" else np.float16)
    size = float(np.abs(want).max())
    # 3 products one after another, each of two rounded operands: errors of (1 + u)^2 per layer relative to the sum of
    # magnitudes of what is summed; those of random signs exceed the sum itself by sqrt(terms) at most
    assert float(np.abs(got - want).max()) <= 4 * 2 * u * math.sqrt(terms) * size
    assert float(np.abs(got - want).max()) > 0
    told = report.precision
    assert told["precision"] == precision and told["rounded"] + told["products"] + told["weights"] > 2
    assert f"precision {precision}: " in report.text()
    assert module.artifact.manifest.precision.startswith(f"{precision} (")


def test_a_product_is_that_of_the_rounded_numbers() -> None:
    """Against the rounded operands the only error is that of sums in float32, whatever the target's instruction."""
    w = weights(48, 256)
    fn = Function([x := tensor("x", 33, 256)], op.get("nn.dense")(x, w))
    data = RNG.standard_normal((33, 256)).astype(np.float32)
    module, _ = compile_with_report(fn, precision="bf16", cache=False, workers=1)
    got = run(module, data)
    a, b = (v.astype(ml_dtypes.bfloat16).astype(np.float64) for v in (data, w.numpy()))
    if "avx512bf16" not in get("native").required_features:
        a = data.astype(np.float64)  # without it only weights are short
    assert np.abs(got - a @ b.T).max() <= 2 * 256 * unit(np.float32) * (np.abs(a) @ np.abs(b).T).max()


def test_weights_take_half_the_bytes_and_float32_is_as_it_was(tmp_path: Any) -> None:
    fn = Function([x := tensor("x", 16, 256)], mlp(x, 3, 256))
    sizes: dict[Any, int] = {}
    texts: dict[Any, bytes] = {}
    for precision in (None, "fp32", "bf16", "fp16"):
        module, _ = compile_with_report(fn, precision=precision, cache=False, workers=1)
        sizes[precision] = len(module.artifact.data("constants"))
        module.artifact.save(tmp_path / "model.wb")
        texts[precision] = (tmp_path / "model.wb").read_bytes()
    assert sizes["bf16"] <= sizes[None] // 2 + 4096 and sizes["fp16"] <= sizes[None] // 2 + 4096
    assert sizes["fp32"] == sizes[None] and texts["fp32"] == texts[None]


def test_the_cache_keeps_precisions_apart(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from warpbeam.driver.api import _key, precise
    from warpbeam.driver.cache import Cache

    keys = set()
    for words in (None, "fp32", "bf16", "fp16", "bf16,nn.dense=never"):
        with precise(words):
            keys.add(_key(b"model", [PAIRS], (None,), 3, Cache(tmp_path)))
    assert len(keys) == 4


def test_the_context_asks_as_the_argument_does() -> None:
    fn = Function([x := tensor("x", 16, 64)], mlp(x))
    with PassContext(config={"warpbeam.precision": "bf16"}):
        module = warpbeam.compile(fn, cache=False, workers=1)
        plain = warpbeam.compile(fn, cache=False, workers=1, precision="fp32")
    assert module.artifact.manifest.precision.startswith("bf16 (")
    assert plain.artifact.manifest.precision == "float32"


@pytest.mark.parametrize("columns", [24, 40, 7, 18])
def test_the_last_vector_of_a_panel_uses_the_instruction_too(columns: int) -> None:
    from warpbeam.sketch.select import schedule
    from warpbeam.te import tensor as te

    x, w = te.placeholder((56, 64), "bfloat16", "x"), te.placeholder((columns, 64), "bfloat16", "w")
    out = op.get("nn.dense").compute({"out_dtype": "float32"}, [x, w], TensorType((56, columns), "float32"))
    plan = schedule([x, w], [out], PAIRS, frozenset({"w"}))
    assert plan.lowered is not None
    text = str(plan.lowered)
    assert "dot2(" in text and "fma(" not in text


def test_division_by_constants_is_a_product() -> None:
    x, y = tensor("x", 64, 64), tensor("y", 64, 64)
    divide = op.get("divide")
    fn = short(Tuple((divide(x, weights(64)), divide(x, y), divide(x, Constant(np.zeros((), np.float32))))))
    assert [op_name(f) for f in fn.body.fields] == ["multiply", "divide", "divide"]
