"""Models one step beside the round sizes that benchmarks have: none of them may fall back to plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from tolerance import close
from work import work

from warpbeam.cost import winograd_prior
from warpbeam.cost.winograd_prior import Layer
from warpbeam.driver.api import compile_with_report
from warpbeam.frontend.onnx import import_model
from warpbeam.relay import interp
from warpbeam.target import get

TILED = get("generic-x86-64-v4").replace(cores=1)
RNG = np.random.default_rng(0)
Model = tuple[str, dict[str, Any]]  # text of a graph behind its name's bracket, and weights or their shapes


def pointwise(size: int, inputs: int, outputs: int) -> Model:
    text = f"float[1,{inputs},{size},{size}] x) => (float[1,{outputs},{size},{size}] y) {{ y = Conv(x, w) }}"
    return text, {"w": (outputs, inputs, 1, 1)}


MODELS = {
    **{
        f"pointwise {s}": pointwise(*s)
        for s in [(14, 128, 100), (13, 64, 33), (10, 64, 64), (7, 128, 64), (17, 30, 48)]
    },
    "rows that are a multiple of an open number": (
        "float[1,n,48] x) => (float[1,k,32] y) { a = Concat <axis = 1> (x, x, x)  y = MatMul(a, w) }",
        {"w": (48, 32)},
    ),
    "turned at the end": (
        "float[48,64] x) => (float[64,48] y) { a = MatMul(x, w)  b = Relu(a)  c = MatMul(b, v)"
        "  y = Transpose <perm = [1, 0]> (c) }",
        {"w": (64, 64), "v": (64, 64)},
    ),
    "turned at both ends": (
        "float[64,96] x) => (float[32,96] y) { a = Transpose <perm = [1, 0]> (x)  b = MatMul(a, w)"
        "  y = Transpose <perm = [1, 0]> (b) }",
        {"w": (64, 32)},
    ),
    "attention turned at the end": (
        "float[1,3,40,24] q, float[1,3,24,40] k, float[1,3,40,24] v) => (float[1,3,24,40] y)"
        "{ s = MatMul(q, k)  p = Softmax <axis = -1> (s)  o = MatMul(p, v)  y = Transpose <perm = [0, 1, 3, 2]> (o) }",
        {},
    ),
    "attention of odd sizes": (
        "float[1,11,37,20] q, float[1,11,20,37] k, float[1,11,37,20] v) => (float[1,37,11,20] y)"
        "{ s = MatMul(q, k)  p = Softmax <axis = -1> (s)  o = MatMul(p, v)  y = Transpose <perm = [0, 2, 1, 3]> (o) }",
        {},
    ),
}


def conv(
    inputs: int, outputs: int, size: int, window: int = 3, groups: int = 1
) -> tuple[str, dict[str, tuple[int, ...]]]:
    text = f"float[1,{inputs},{size},{size}] x) => (float[1,{outputs},{size},{size}] y)"
    around = ",".join([str(window // 2)] * 4)
    text += f"{{ y = Conv <pads = [{around}], group = {groups}> (x, w) }}"
    return text, {"w": (outputs, inputs // groups, window, window)}


def softmax_down(columns: int) -> Model:
    return f"float[3,24,{columns}] x) => (float[3,24,{columns}] y) {{ y = Softmax <axis = 1> (x) }}", {}


def bytes_product(rows: int, inner: int, zero: int = 0, outputs: int = 64) -> Model:
    """A product of bytes by constant ones, less what a zero point adds."""
    weights = {"w": RNG.integers(0, 255, (inner, outputs), np.uint8), "a": np.uint8(3), "b": np.uint8(128 + zero)}
    return f"uint8[{rows},{inner}] x) => (int32[{rows},{outputs}] y) {{ y = MatMulInteger(x, w, a, b) }}", weights


def bytes_conv(outputs: int, kind: str = "int8") -> Model:
    weights = {"w": RNG.integers(-127, 127, (outputs, 64, 3, 3), np.int8), "a": np.zeros((), kind), "b": np.int8(0)}
    text = f"{kind}[1,64,8,8] x) => (int32[1,{outputs},8,8] y) {{ y = ConvInteger <pads = [1, 1, 1, 1]> (x, w, a, b) }}"
    return text, weights


def whole_range(*shape: int) -> Model:
    size, axes = ",".join(map(str, shape)), ",".join(map(str, range(len(shape))))
    return f"float[{size}] x) => (float[] y) {{ y = ReduceMax <axes = [{axes}], keepdims = 0> (x) }}", {}


#: a model beside one that goes well, and how many times that one's work it may be
BESIDE = {
    **{f"softmax down {c} columns": (softmax_down(c), softmax_down(-(-c // 16) * 16), 1.1) for c in (61, 67, 129)},
    **{
        f"bytes {k} {zero}": (bytes_product(32, k, zero), bytes_product(32, 64, zero), 1.3)
        for k in (61, 62)
        for zero in (0, 5)
    },
    **{
        f"bytes to {n}": (bytes_product(32, 64, 0, n), bytes_product(32, 64, 0, -(-n // 16) * 16), 1.1)
        for n in (61, 77, 109)
    },
    **{f"windows of bytes to {n}": (bytes_conv(n), bytes_conv(-(-n // 16) * 16), 1.1) for n in (61, 109)},
    "signed bytes": (bytes_conv(64), bytes_conv(64, "uint8"), 1.05),
    **{f"maximum of {s}": (whole_range(*s), whole_range(64, 256), 1.1) for s in [(64, 255), (16, 3, 5, 61)]},
    "groups of three": (conv(48, 48, 14, 3, 16), conv(64, 64, 14, 3, 16), 1.1),
    "four results of each channel": (conv(16, 64, 14, 3, 16), conv(16, 32, 14, 3, 16), 2.2),
    **{f"depthwise 7x7 of {n}": (conv(16, 16, n, 7, 16), conv(16, 16, n, 5, 16), 49 / 25 + 0.2) for n in (28, 14)},
    **{f"{n} results of a map of {h}": (conv(32, n, h), conv(32, 3, 32), n / 3 + 0.3) for n, h in [(4, 32), (3, 31)]},
}


def parsed(text: str, weights: dict[str, Any]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g ({text}')
    for name, w in weights.items():
        value = RNG.standard_normal(w, np.float32) if isinstance(w, tuple) else np.asarray(w)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def right(model: onnx.ModelProto, terms: int) -> list[str]:
    """The sketches of a model's kernels, whose results are right."""
    module, report = compile_with_report(model, cache=False)
    inputs = module.random_inputs(0)
    found = import_model(model)
    want = interp.evaluate(found.module, [inputs[n] for n in found.inputs], dtype="float64")
    close(module.run(inputs)["y"], want, terms, scale=float(np.abs(want).max()))
    return [row["sketch"] for row in report.rows]


@pytest.mark.parametrize("name", MODELS)
def test_has_a_sketch_and_is_right(name: str) -> None:
    text, weights = MODELS[name]
    terms = sum(shape[1] for shape in weights.values()) or 64  # a sum for each product
    assert "generic" not in right(parsed(text, weights), terms)


@pytest.mark.parametrize("name", BESIDE)
def test_takes_no_more_work_than_good_sizes(name: str) -> None:
    near, whole, times = BESIDE[name]
    assert work(parsed(*near)) <= times * work(parsed(*whole))


@pytest.mark.parametrize("name", BESIDE)
def test_is_right_beside_good_sizes(name: str) -> None:
    text, weights = BESIDE[name][0]
    terms = max((int(np.prod(np.shape(w) if hasattr(w, "shape") else w[1:])) for w in weights.values()), default=64)
    assert "generic" not in right(parsed(text, weights), terms)


@pytest.mark.parametrize(("inputs", "outputs"), [(256, 248), (248, 256), (248, 248), (256, 200), (112, 208)])
def test_tiles_of_channels_that_leave_something_over(inputs: int, outputs: int) -> None:
    """Of a convolution with fewer products: as fast for each pair of channels as with whole parts of vectors."""
    near, good = (winograd_prior.plan(Layer(1, 7, 7, i, o, 16, 16), TILED) for i, o in [(inputs, outputs), (256, 256)])
    assert near is not None and good is not None
    whole = -(-inputs // 16) * -(-outputs // 16)  # vectors
    assert near.cycles <= 1.15 * good.cycles * whole / (16 * 16)


@pytest.mark.parametrize("channels", [32, 64, 128, 256])
@pytest.mark.parametrize("tiles", [29, 31, 37, 53, 67, 71, 74, 79, 83])
def test_tiles_of_maps_that_leave_something_over(tiles: int, channels: int) -> None:
    """A prime number of tiles in a row takes hardly longer than the next one that has equal parts of 8."""
    beside = -(-tiles // 8) * 8
    near, good = (winograd_prior.plan(Layer(1, n, n, channels, channels, 16, 16), TILED) for n in (tiles, beside))
    assert near is not None and good is not None
    assert near.cycles <= 1.1 * good.cycles * (tiles / beside)
