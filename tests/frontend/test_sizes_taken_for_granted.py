"""Sizes that a model needs to be equal though its inputs do not tell: one artefact, a refusal where they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import warpbeam
from warpbeam import WarpbeamError

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(3)


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def compiled(nodes: list[Any], inputs: dict[str, Any], constants: dict[str, Any] | None = None) -> Any:
    """A module of nodes that end in `y`. inputs: name -> shape, or (shape, element type)."""
    infos = []
    for name, given in inputs.items():
        shape, kind = given if isinstance(given, tuple) else (given, FLOAT)
        infos.append(helper.make_tensor_value_info(name, kind, shape))
    fixed = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_empty_tensor_value_info("y")], fixed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return warpbeam.compile(model, cache=False)


def branch(*nodes: Any) -> Any:
    return helper.make_graph(list(nodes), "b", [], [helper.make_empty_tensor_value_info(nodes[-1].output[0])])


def squeezed_if_one(result: str) -> list[Any]:
    """What exporters write for "squeeze dimension 1": the number of dimensions depends on its size."""
    then = branch(helper.make_node("Squeeze", ["x", "one"], ["t"]))
    other = branch(helper.make_node("Identity", ["x"], ["e"]))
    return [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["size"]),
        helper.make_node("Equal", ["size", "one"], ["is_one"]),
        helper.make_node("If", ["is_one"], [result], then_branch=then, else_branch=other),
    ]


def test_the_branch_with_which_the_rest_fits_is_taken() -> None:
    one = {"one": np.int64([1])}
    flat = compiled([*squeezed_if_one("v"), helper.make_node("Unsqueeze", ["v", "one"], ["y"])], {"x": ["b", "n"]}, one)
    x = real(4, 1)
    np.testing.assert_array_equal(flat.run({"x": x})["y"], x)
    with pytest.raises(WarpbeamError, match="dimension 1, n, and the 1 that the model needs must agree"):
        flat.run({"x": real(4, 3)})
    turned = helper.make_node("Transpose", ["v"], ["y"], perm=[1, 0])  # needs two dimensions
    wide = compiled([*squeezed_if_one("v"), turned], {"x": ["b", "n"]}, one)
    x = real(4, 3)
    np.testing.assert_array_equal(wide.run({"x": x})["y"], x.T)
    with pytest.raises(WarpbeamError, match="branch that the condition asks for does not fit"):
        wide.run({"x": real(4, 1)})


def test_the_first_refusal_is_reported_where_neither_branch_will_do() -> None:
    nodes = [*squeezed_if_one("v"), helper.make_node("Transpose", ["v"], ["y"], perm=[2, 1, 0])]
    with pytest.raises(WarpbeamError, match=r"perm .* is no permutation of 1 dimensions"):
        compiled(nodes, {"x": ["b", "n"]}, {"one": np.int64([1])})


def test_a_branch_that_is_not_taken_takes_nothing_for_granted() -> None:
    def pooled(name: str, size: int) -> Any:
        pool = helper.make_node("MaxPool", ["x"], [f"{name}p"], kernel_shape=[size], strides=[size])
        return branch(pool, helper.make_node("Squeeze", [f"{name}p", "two"], [name]))

    node = helper.make_node("If", ["flag"], ["y"], then_branch=pooled("t", 2), else_branch=pooled("e", 4))
    module = compiled([node], {"x": [1, 3, "n"], "flag": ([], TensorProto.BOOL)}, {"two": np.int64([2])})
    for n, flag in ((2, True), (3, True), (4, False), (7, False)):
        x = real(1, 3, n)
        want = x[:, :, : 2 if flag else 4].max(axis=2)
        np.testing.assert_array_equal(module.run({"x": x, "flag": np.bool_(flag)})["y"], want)
    for n, flag in ((5, True), (8, False)):
        with pytest.raises(WarpbeamError, match="that the model needs must agree"):
            module.run({"x": real(1, 3, n), "flag": np.bool_(flag)})


def test_joined_sizes_are_taken_to_be_equal() -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[4], strides=[4]),
        helper.make_node("Transpose", ["p"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["t", "rows"], ["r"]),
        helper.make_node("Concat", ["r", "z"], ["y"], axis=1),
    ]
    module = compiled(nodes, {"x": ["b", 3, "h"], "z": ["b", 2]}, {"rows": np.int64([-1, 3])})
    for b, h in ((1, 4), (3, 7), (2, 5)):
        x, z = real(b, 3, h), real(b, 2)
        want = np.concatenate([x[:, :, :4].max(axis=2), z], axis=1)
        np.testing.assert_array_equal(module.run({"x": x, "z": z})["y"], want)
    with pytest.raises(WarpbeamError, match="that the model needs must agree"):
        module.run({"x": real(2, 3, 9), "z": real(2, 2)})


@pytest.mark.parametrize("times", [1, 2])
def test_a_size_may_be_one_or_a_large_number(times: int) -> None:
    """Rows of a size that is open meet a constant: they have as many elements as it, or one each."""
    node = helper.make_node("Add", ["rows", "c"], ["y"])
    joined = helper.make_node("Concat", ["x"] * times, ["rows"], axis=1)
    c = real(1, 1400)
    module = compiled([joined, node], {"x": ["b", "n"]}, {"c": c})
    for b in (1, 3):
        x = real(b, 1400 // times)
        np.testing.assert_array_equal(module.run({"x": x})["y"], np.concatenate([x] * times, axis=1) + c)
        if times == 1:
            x = real(b, 1)
            np.testing.assert_array_equal(module.run({"x": x})["y"], x + c)
    with pytest.raises(WarpbeamError, match="must agree"):
        module.run({"x": real(2, 699)})


def test_the_first_state_tells_how_many_sequences_there_are() -> None:
    w, r, h0 = real(1, 12, 3), real(1, 12, 4), real(1, 1, 4)
    nodes = [
        helper.make_node("GRU", ["x", "w", "r", "", "", "h0"], ["", "h"], hidden_size=4),
        helper.make_node("Squeeze", ["h"], ["y"]),
    ]
    module = compiled(nodes, {"x": ["steps", "batch", 3]}, {"w": w, "r": r, "h0": h0})
    for steps in (1, 5):
        assert module.run({"x": real(steps, 1, 3)})["y"].shape == (4,)
    with pytest.raises(WarpbeamError, match="must agree"):
        module.run({"x": real(2, 2, 3)})


@pytest.mark.parametrize("size", [1, 4])
def test_the_backend_asks_the_inputs_which_branch_is_taken(size: int) -> None:
    from warpbeam.frontend.onnx import backend

    then = branch(helper.make_node("Identity", ["x"], ["t"]))
    other = branch(helper.make_node("Unsqueeze", ["x", "zero"], ["e"]))
    nodes = [
        helper.make_node("Equal", ["n", "one"], ["same"]),
        helper.make_node("Squeeze", ["same"], ["c"]),
        helper.make_node("If", ["c"], ["r"], then_branch=then, else_branch=other),
        helper.make_node("Neg", ["r"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info("n", TensorProto.INT64, [1]), helper.make_tensor_value_info("x", FLOAT, [3])]
    fixed = [numpy_helper.from_array(np.int64([k]), name) for k, name in enumerate(("zero", "one"))]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_empty_tensor_value_info("y")], fixed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = real(3)
    (y,) = backend.prepare(model).run([np.int64([size]), x])
    np.testing.assert_array_equal(y, -x if size == 1 else -x[None])
