"""Buckets: which artefact serves a request, and padding where it cannot reach anything."""

from typing import Any

import numpy as np
import onnx.parser
import pytest

import warpbeam
from warpbeam.ir.diagnostics import CompileError
from warpbeam.runtime.errors import RunError

RNG = np.random.default_rng(3)
WEIGHTS = {"w": (8, 16), "u": (16, 8), "g": (8,), "table": (30, 8)}


def model(inputs: str, body: str) -> Any:
    head = '<ir_version: 10, opset_import: ["" : 20]>'
    found = onnx.parser.parse_model(f"{head} g ({inputs}) => (float[b, seq, r] y) {{ {body} }}")
    found.graph.output[0].type.tensor_type.ClearField("shape")
    for name, shape in WEIGHTS.items():
        data = RNG.standard_normal(shape).astype(np.float32)
        found.graph.initializer.append(onnx.numpy_helper.from_array(data, name))
    return found


ROWS = "h = MatMul(x, w)  a = Gelu(h)  o = MatMul(a, u)  r = Add(o, x)  y = LayerNormalization(r, g)"
EMBEDDED = "e = Gather(table, t)  f = MatMul(e, w)  y = Softmax(f)"
SCORES = "k = Transpose <perm = [0, 2, 1]> (x)  s = MatMul(x, k)  p = Softmax(s)  y = MatMul(p, x)"
SAFE = {
    "rows": ("float[b, seq, 8] x", ROWS, lambda n: {"x": RNG.standard_normal((2, n, 8)).astype(np.float32)}),
    "embedding": ("int64[b, seq] t", EMBEDDED, lambda n: {"t": RNG.integers(0, 30, (2, n))}),
    "turned": ("float[b, seq, 8] x", "y = Transpose <perm = [1, 0, 2]> (x)",
               lambda n: {"x": RNG.random((2, n, 8), np.float32)}),
}  # fmt: skip
MIXING = {
    "scores": (SCORES, "reduces over seq"),
    "sum": ("y = ReduceSum <keepdims = 1, noop_with_empty_axes = 0> (x)", "reduces over"),
    "neighbours": ("c = Transpose <perm = [0, 2, 1]> (x)  p = MaxPool <kernel_shape = [3], pads = [1, 1]> (c)"
                   "  y = Exp(p)", "seq"),
    "length": ("s = Shape <start = 1, end = 2> (x)  f = Cast <to = 1> (s)  y = Mul(x, f)", ""),
    "flat": ("m = Constant <value_ints = [-1]> ()  y = Reshape(x, m)", ""),
    "last": ("z = Constant <value_int = -1> ()  y = Gather <axis = 1> (x, z)", ""),
    "turned round": ("s = Constant <value_ints = [-1]> ()  e = Constant <value_ints = [-99999]> ()"
                     "  a = Constant <value_ints = [1]> ()  y = Slice(x, s, e, a, s)", ""),
    "running sum": ("a = Constant <value_int = 1> ()  y = CumSum(x, a)", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFE)
def test_sizes_between_buckets_are_padded_where_nothing_mixes(name: str) -> None:
    inputs, body, make = SAFE[name]
    found = model(inputs, body)
    whole = warpbeam.compile(found)
    bucketed = warpbeam.compile(found, buckets={"seq": [8, 4]}, pad="always")
    assert bucketed.why == "" and list(bucketed.modules) == [(4,), (8,)]
    for n, bucket in ((1, 4), (3, 4), (4, 4), (5, 8), (8, 8)):
        request = make(n)
        assert bucketed.chosen(bucketed.sizes(request)) == (bucket,)
        want, got = whole.run(request)["y"], bucketed.run(request)["y"]
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    with pytest.raises(RunError, match="no bucket holds seq=9"):
        bucketed.run(make(9))


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_positions_is_not_padded(name: str) -> None:
    body, why = MIXING[name]
    found = model("float[2, seq, 8] x", body)
    with pytest.raises(CompileError, match="padding would change results") as error:
        warpbeam.compile(found, buckets={"seq": [4]}, pad="always")
    assert why in str(error.value)
    bucketed = warpbeam.compile(found, buckets={"seq": [4, 8]})
    assert bucketed.why and not bucketed.pads
    whole = warpbeam.compile(found)
    for n, bucket in ((3, None), (4, (4,)), (9, None)):
        x = RNG.random((2, n, 8), np.float32)
        assert bucketed.chosen(bucketed.sizes({"x": x})) == bucket
        np.testing.assert_allclose(bucketed(x), whole.run({"x": x})["y"], rtol=1e-5, atol=1e-5)


def test_several_sizes_and_the_module_for_all() -> None:
    found = model("float[b, seq, 8] x", ROWS)
    bucketed = warpbeam.compile(found, buckets={"b": [1, 4], "seq": [4, 16]})
    whole = warpbeam.compile(found)
    for shape, bucket in (((1, 4), (1, 4)), ((2, 3), (4, 4)), ((1, 5), (1, 16)), ((4, 17), None), ((5, 1), None)):
        x = RNG.random((*shape, 8), np.float32)
        assert bucketed.chosen(shape) == bucket
        np.testing.assert_allclose(bucketed.run({"x": x})["y"], whole.run({"x": x})["y"], rtol=1e-5, atol=1e-5)
    never = warpbeam.compile(found, buckets={"seq": [4]}, pad="never")
    assert never.chosen((3,)) is None and never.chosen((4,)) == (4,)
    with pytest.raises(RunError, match="has shape"):
        bucketed.run({"x": np.zeros((2, 8), np.float32)})
    with pytest.raises(RunError, match="is missing"):
        bucketed.run({})


@pytest.mark.parametrize("options, words", [
    ({"buckets": {"length": [4]}}, "the model's open sizes are: b, seq"),
    ({"buckets": {"seq": [0]}}, "numbers from 1 on"),
    ({"buckets": {}}, "no buckets"),
    ({"buckets": {"seq": [4]}, "pad": "some"}, "auto, always, never"),
    ({"buckets": {"seq": [4]}, "state": {"x": "y"}}, "buckets of a model that keeps state"),
])  # fmt: skip
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(CompileError) as error:
        warpbeam.compile(model("float[b, seq, 8] x", ROWS), **options)
    assert words in str(error.value)
