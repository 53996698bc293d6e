"""Sizes that contents decide: one artefact for all of them, against onnxruntime and the interpreter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

from models import INT64, model, node, value

import warpbeam
from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.relay.interp import evaluate

ort = pytest.importorskip("onnxruntime")

BOOL, FLOAT = TensorProto.BOOL, TensorProto.FLOAT
RNG = np.random.default_rng(5)
F32 = np.float32


def bits(*shape: int) -> np.ndarray:
    return RNG.integers(0, 2, shape).astype(F32)


def real(*shape: int) -> np.ndarray:
    return RNG.random(shape, F32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def check(proto: Any, *calls: dict[str, np.ndarray]) -> Any:
    """One compilation; every call gives what onnxruntime and the interpreter give."""
    module = warpbeam.compile(proto, cache=False)
    found = import_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for feeds in calls:
        want = session.run(None, feeds)
        told = evaluate(found.module, {n: feeds[n] for n in found.inputs}, check=True)
        got = module.run(feeds)
        for w, t, g in zip(want, told if isinstance(told, tuple) else (told,), got.values(), strict=True):
            assert g.shape == t.shape == w.shape and g.dtype == w.dtype
            np.testing.assert_allclose(t, w, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6)
    return module


def test_nonzero_and_what_follows_it() -> None:
    nodes = [
        ("NonZero", "x", "at"), ("Transpose", "at", "rows"), ("GatherND", "x rows", "v"), ("Mul", "v v", "w"),
        ("Shape", "w", "s"), ("ReduceSum", "w", "sum", {"keepdims": 0}),
    ]  # fmt: skip
    outs = [("at", None, INT64), ("w", None), ("s", None, INT64), ("sum", None)]
    m = model(nodes, [("x", ["a", "b"])], outs)
    module = check(m, {"x": bits(3, 4)}, {"x": np.zeros((5, 4), F32)}, {"x": bits(50, 40)}, {"x": np.ones((1, 1), F32)})
    count = module.outputs[1].shape[0]
    assert isinstance(count, str) and module.outputs[0].shape == (2, count)


def test_what_uses_only_the_size_waits_for_it() -> None:
    nodes = [
        ("NonZero", "x", "at"), ("Shape", "at", "s"), ("ConstantOfShape", "s", "full"),
        ("Gather", "s one", "n"), ("Range", "zero n one", "numbers"),
    ]  # fmt: skip
    held = {"one": np.array(1), "zero": np.array(0)}
    m = model(nodes, [("x", [3, 4])], [("full", None), ("s", None, INT64), ("numbers", None, INT64)], held)
    check(m, {"x": bits(3, 4)}, {"x": np.zeros((3, 4), F32)})


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_compress(axis: int | None) -> None:
    attrs = {} if axis is None else {"axis": axis}
    n = {None: 12, 0: 3, 1: 4}[axis]
    m = model([("Compress", "x c", "y", attrs)], [("x", [3, 4]), ("c", [n], BOOL)], [("y", None)])
    masks = [RNG.integers(0, 2, n).astype(bool), np.zeros(n, bool), np.ones(n, bool)]
    check(m, *[{"x": real(3, 4), "c": c} for c in masks])


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_unique(order: int, axis: int | None) -> None:
    attrs = {"sorted": order} | ({} if axis is None else {"axis": axis})
    outs = [("y", None), *[(n, None, INT64) for n in ("first", "inverse", "counts")]]
    m = model([("Unique", "x", "y first inverse counts", attrs)], [("x", ["n", 7])], outs)
    check(m, {"x": bits(3, 7)}, {"x": np.ones((1, 7), F32)}, {"x": RNG.integers(0, 9, (20, 7)).astype(F32)})


@pytest.mark.parametrize("largest", [0, 1])
def test_topk_with_k_at_run_time(largest: int) -> None:
    nodes = [("TopK", "x k", "v i", {"largest": largest}), ("Exp", "v", "e")]
    m = model(nodes, [("x", [3, "n"]), ("k", [1], INT64)], [("e", None), ("i", None, INT64)])
    module = check(m, *[{"x": real(3, n), "k": ints(k)} for n, k in ((7, 3), (7, 7), (70, 1), (5, 0))])
    with pytest.raises(warpbeam.WarpbeamError):
        module.run({"x": real(3, 4), "k": ints(5)})


@pytest.mark.parametrize("center", [0, 1])
def test_non_max_suppression(center: int) -> None:
    ins = [("b", [1, 20, 4]), ("s", [1, 2, 20]), ("m", [1], INT64), ("i", [1]), ("t", [1])]
    m = model([("NonMaxSuppression", "b s m i t", "y", {"center_point_box": center})], ins, [("y", None, INT64)])
    calls = [(5, 0.1, 0.2), (0, 0.5, 0.0), (50, 0.0, 0.0), (3, 0.3, 2.0)]
    feeds = [{"m": ints(k), "i": np.array([i], F32), "t": np.array([t], F32)} for k, i, t in calls]
    check(m, *[{"b": real(1, 20, 4), "s": real(1, 2, 20), **f} for f in feeds])


def test_reshape() -> None:
    m = model([("Reshape", "x s", "v"), ("Relu", "v", "y")], [("x", ["n", 6]), ("s", [2], INT64)], [("y", None)])
    module = check(m, *[{"x": real(4, 6), "s": ints(*s)} for s in ((3, 8), (-1, 2), (0, 6), (24, -1))])
    with pytest.raises(warpbeam.WarpbeamError, match="number of elements"):
        module.run({"x": real(4, 6), "s": ints(5, 5)})


def test_reshape_with_one_size_at_run_time_has_a_bound() -> None:
    nodes = [("Concat", "k four", "s", {"axis": 0}), ("Reshape", "x s", "v"), ("MatMul", "v w", "y")]
    held = {"four": ints(4), "w": real(4, 3)}
    m = model(nodes, [("x", ["n", 2]), ("k", [1], INT64)], [("y", None)], held)
    check(m, {"x": real(6, 2), "k": ints(3)}, {"x": real(20, 2), "k": ints(-1)})


def test_expand_and_tile() -> None:
    m = model([("Expand", "x s", "v"), ("Relu", "v", "y")], [("x", ["n", 1]), ("s", [3], INT64)], [("y", None)])
    calls = ((3, (2, 3, 4)), (1, (2, 5, 1)), (3, (100, 1, 50)), (2, (0, 2, 3)))
    check(m, *[{"x": real(n, 1), "s": ints(*s)} for n, s in calls])
    m = model([("Tile", "x r", "y")], [("x", [2, 3]), ("r", [2], INT64)], [("y", None)])
    check(m, *[{"x": real(2, 3), "r": ints(*s)} for s in ((3, 8), (1, 1), (0, 2))])


def test_constant_of_shape_and_one_hot() -> None:
    seven = {"value": numpy_helper.from_array(np.array([7], F32))}
    m = model([("ConstantOfShape", "s", "y", seven)], [("s", [2], INT64)], [("y", None)])
    check(m, *[{"s": ints(*s)} for s in ((3, 8), (1, 1), (0, 2), (2, 0))])
    m = model([("OneHot", "i d v", "y")], [("i", [3], INT64), ("d", [], INT64), ("v", [2])], [("y", None)])
    check(m, *[{"i": ints(0, 2, 1), "d": np.array(d), "v": np.array([0, 1], F32)} for d in (3, 5, 1)])


@pytest.mark.parametrize("kind", ["float32", "int64", "int32"])
def test_range(kind: str) -> None:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    m = model([("Range", "a b c", "v"), ("Add", "v v", "y")], [(n, [], code) for n in "abc"], [("y", None, code)])
    calls = ((0, 10, 3), (10, 0, -1), (5, 5, 1), (5, 0, 2))
    module = check(m, *[{n: np.array(v, kind) for n, v in zip("abc", call, strict=True)} for call in calls])
    with pytest.raises(warpbeam.WarpbeamError, match="step of 0"):
        module.run({n: np.array(v, kind) for n, v in (("a", 0), ("b", 3), ("c", 0))})


def test_slice() -> None:
    ins = [("x", [5, "n"]), *[(k, [2], INT64) for k in ("s", "e", "st")]]
    m = model([("Slice", "x s e _ st", "y")], ins, [("y", None)])
    calls = [
        ((0, 0), (5, 6), (1, 1)), ((1, -1), (4, -9), (2, -1)), ((3, 3), (3, 2), (1, 1)), ((-2, 0), (100, 2), (1, 3)),
        ((0, 0), (2**63 - 1, 2**63 - 1), (2, 2)),
    ]  # fmt: skip
    check(m, *[{"x": real(5, 6), "s": ints(*s), "e": ints(*e), "st": ints(*t)} for s, e, t in calls])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pad(mode: str) -> None:
    ins = [("x", [4, 5]), ("p", [4], INT64), ("c", [])]
    m = model([("Pad", "x p c", "y", {"mode": mode})], ins, [("y", None)], opset=18)
    calls = [(0, 0, 0, 0), (1, 2, 3, 1), (0, 3, 2, 2), *([(-1, 0, 2, -2)] if mode == "constant" else [])]
    check(m, *[{"x": real(4, 5), "p": ints(*p), "c": np.array(7, F32)} for p in calls])


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_resize_to_sizes(mode: str) -> None:
    ins = [("x", [1, 2, 4, 5]), ("s", [4], INT64)]
    m = model([("Resize", "x _ _ s", "y", {"mode": mode})], ins, [("y", None)])
    check(m, *[{"x": real(1, 2, 4, 5), "s": ints(1, 2, *s)} for s in ((8, 10), (3, 3), (4, 5))])


# --------------------------------------------------------------------------------------------------------- control flow


def gathering(trip: bool, condition: bool, most: int | None = None) -> Any:
    """s doubles until it reaches 20 (with a condition); each iteration gives s + x."""
    nodes = [
        node("Less", "s limit", "more") if condition else node("Identity", "go", "more"),
        node("Add", "s s", "twice"), node("Add", "s x", "row"),
    ]  # fmt: skip
    ins = [value("i", [], INT64), value("go", [], BOOL), value("s", [])]
    body = helper.make_graph(nodes, "b", ins, [value("more", [], BOOL), value("twice", []), value("row", [3])])
    operands = f"{'n' if trip or most is not None else '_'} {'c' if condition else '_'} start"
    given = [
        ("x", [3]),
        ("start", []),
        *([("n", [], INT64)] if trip else []),
        *([("c", [], BOOL)] if condition else []),
    ]
    held = ({"limit": np.array(20, F32)} if condition else {}) | ({} if most is None else {"n": np.array(most)})
    nodes = [("Loop", operands, "last rows", {"body": body}), ("Neg", "rows", "y")]
    return model(nodes, given, [("last", None), ("y", None)], held)


def feeds(start: float, n: int | None = None, c: bool | None = None) -> dict[str, np.ndarray]:
    out = {"x": real(3), "start": np.array(start, F32)}
    return out | ({} if n is None else {"n": np.array(n)}) | ({} if c is None else {"c": np.array(c)})


def test_a_loop_gathers_as_often_as_it_runs() -> None:
    check(gathering(True, False), feeds(1, 5), feeds(1, 0), feeds(1, 2))
    check(gathering(True, True), feeds(1, 3, True), feeds(1, 50, True), feeds(1, 5, False), feeds(1, 0, True))
    for most in (None, 2**63 - 1):  # nothing bounds the count: the loop runs once to find it
        check(gathering(False, True, most), feeds(1, None, True), feeds(1, None, False), feeds(0.01, None, True))


def test_sizes_within_a_loop_are_found_in_each_iteration() -> None:
    nodes = [
        node("Identity", "go", "more"), node("Unsqueeze", "i zero", "i1"),
        node("Concat", "i1 three", "shape", {"axis": 0}),
        node("ConstantOfShape", "shape", "zeros"), node("Add", "zeros x", "e"),
        node("ReduceSum", "e", "part", {"keepdims": 0}), node("Add", "s part", "new"),
    ]  # fmt: skip
    ins = [value("i", [], INT64), value("go", [], BOOL), value("s", [])]
    body = helper.make_graph(nodes, "b", ins, [value("more", [], BOOL), value("new", [])])
    held = {"zero": ints(0), "three": ints(3)}
    given = [("x", [3]), ("start", []), ("n", [], INT64)]
    m = model([("Loop", "n _ start", "y", {"body": body})], given, [("y", None)], held)
    check(m, feeds(1, 5), feeds(1, 0), feeds(3, 100))


def growing(nodes: list[Any], start: list[Any], limit: bool = False) -> Any:
    """A loop of `n` iterations whose state `s` becomes `new`; with `limit`, until the sum of `x` times i is 20."""
    nodes = [*nodes, *([] if limit else [node("Identity", "go", "more")])]
    if limit:
        nodes += [
            node("Cast", "i", "f", {"to": FLOAT}), node("ReduceSum", "x", "all", {"keepdims": 0}),
            node("Mul", "f all", "far"), node("Less", "far twenty", "more"),
        ]  # fmt: skip
    ins = [value("i", [], INT64), value("go", [], BOOL), value("s", None)]
    body = helper.make_graph(nodes, "b", ins, [value("more", [], BOOL), value("new", None)])
    held = {
        "zero": ints(0), "one": ints(1), "three": ints(3), "twenty": np.array(20, F32), "axes": ints(0), "last": ints(1)
    }  # fmt: skip
    given = [("x", ["k"]), ("start", start), ("n", [], INT64)]
    return model([("Loop", "n _ start", "end", {"body": body}), ("Neg", "end", "y")], given, [("y", None)], held)


def grown(start: tuple[int, ...], *counts: int, size: int = 4) -> list[dict[str, np.ndarray]]:
    return [{"x": real(size), "start": real(*start), "n": np.array(n)} for n in counts]


def test_a_state_that_grows() -> None:
    """How exporters make lists: each iteration puts something behind what there is, empty at first or not."""
    row = [node("Cast", "i", "f", {"to": FLOAT}), node("Mul", "x f", "xf"), node("Unsqueeze", "xf axes", "row")]
    along_rows = [*row, node("Concat", "s row", "new", {"axis": 0})]
    check(growing(along_rows, ["m", "k"]), *grown((0, 4), 0, 1, 5), *grown((2, 4), 0, 3))
    twice = [*row, node("Concat", "s row row", "new", {"axis": 0})]
    check(growing(twice, [0, "k"]), *grown((0, 4), 0, 1, 7))
    column = [*row[:2], node("Unsqueeze", "xf last", "column"), node("Concat", "s column", "new", {"axis": 1})]
    check(growing(column, ["k", 2]), *grown((4, 2), 0, 1, 6))


def test_a_state_that_grows_until_a_condition() -> None:
    row = [node("Unsqueeze", "x axes", "row"), node("Concat", "s row", "new", {"axis": 0})]
    check(growing(row, [0, "k"], limit=True), *grown((0, 4), 0, 2, 50), *grown((0, 30), 9, size=30))


def test_a_state_that_grows_by_pieces_of_sizes_that_each_iteration_finds() -> None:
    """They are as long as the state all the same; that is checked."""
    nodes = [
        node("Unsqueeze", "i zero", "i1"), node("ConstantOfShape", "i1", "front"),
        node("Sub", "three i1", "rest"), node("ConstantOfShape", "rest", "back"),
        node("Concat", "front back", "whole", {"axis": 0}), node("Unsqueeze", "whole axes", "row"),
        node("Concat", "s row", "new", {"axis": 0}),
    ]  # fmt: skip
    m = growing(nodes, [0, 3])
    module = check(m, *grown((0, 3), 0, 1, 3))
    with pytest.raises(warpbeam.WarpbeamError):  # from i = 4 on there are -1 zeros behind
        module.run(grown((0, 3), 6)[0])


def test_a_state_that_grows_and_is_read_is_refused() -> None:
    nodes = [
        node("ReduceSum", "s", "sum", {"keepdims": 0}), node("Mul", "x sum", "y0"), node("Unsqueeze", "y0 axes", "row"),
        node("Concat", "s row", "new", {"axis": 0}),
    ]  # fmt: skip
    with pytest.raises(UnsupportedError, match="a loop whose state 0"):
        import_model(growing(nodes, [1, "k"]))


def test_sizes_within_a_branch() -> None:
    then = helper.make_graph(
        [
            node("NonZero", "x", "at"),
            node("Cast", "at", "f", {"to": FLOAT}),
            node("ReduceSum", "f", "o", {"keepdims": 0}),
        ],
        "t",
        [],
        [value("o", None)],
    )
    other = helper.make_graph([node("ReduceSum", "x", "p", {"keepdims": 0})], "e", [], [value("p", None)])
    m = model(
        [("If", "c", "y", {"then_branch": then, "else_branch": other})], [("x", [9]), ("c", [], BOOL)], [("y", None)]
    )
    check(m, {"x": bits(9), "c": np.array(True)}, {"x": bits(9), "c": np.array(False)})


def two_branches(then: list[Any], other: list[Any], outs: list[tuple[str, str]]) -> dict[str, Any]:
    """Attributes of an If whose branches give these pairs of outputs."""
    graphs = [
        helper.make_graph(nodes, name, [], [value(o[k], None) for o in outs])
        for k, (name, nodes) in enumerate((("t", then), ("e", other)))
    ]
    return {"then_branch": graphs[0], "else_branch": graphs[1]}


def test_branches_that_find_different_sizes() -> None:
    """Each result is as large as the branch taken makes it."""
    then = [node("NonZero", "x", "a"), node("Cast", "a", "o", {"to": FLOAT})]
    other = [node("NonZero", "w", "b"), node("Cast", "b", "p", {"to": FLOAT})]
    nodes = [("If", "c", "y", two_branches(then, other, [("o", "p")])), ("Shape", "y", "s"), ("Neg", "y", "z")]
    m = model(nodes, [("x", [9]), ("w", ["n"]), ("c", [], BOOL)], [("z", None), ("s", None, INT64)])
    yes, no = np.array(True), np.array(False)
    check(
        m, {"x": bits(9), "w": bits(4), "c": yes}, {"x": bits(9), "w": bits(30), "c": no},
        {"x": np.zeros(9, F32), "w": bits(3), "c": yes}, {"x": bits(9), "w": np.zeros(3, F32), "c": no},
    )  # fmt: skip


def test_nothing_or_what_suppression_leaves() -> None:
    """How detectors guard their last step: without boxes nothing, else as many as are left."""
    held = {
        "none": np.zeros((0, 3), np.int64),
        "most": np.array(10),
        "overlap": np.array(0.5, F32),
        "zero": np.array(0),
    }
    other = [
        node("Unsqueeze", "boxes axis0", "b"), node("Unsqueeze", "scores axes01", "s"),
        node("NonMaxSuppression", "b s most overlap", "kept"),
    ]  # fmt: skip
    attrs = two_branches([node("Identity", "none", "o")], other, [("o", "kept")])
    for g in attrs.values():
        g.output[0].type.tensor_type.elem_type = INT64
    held |= {"axis0": np.array([0]), "axes01": np.array([0, 1]), "two": np.array([2]), "last": np.array(2)}
    nodes = [
        ("Size", "scores", "count"), ("Equal", "count zero", "c"), ("If", "c", "found", attrs),
        ("Gather", "found last", "at", {"axis": 1}), ("Gather", "boxes at", "y", {"axis": 0}),
    ]  # fmt: skip
    m = model(nodes, [("boxes", ["n", 4]), ("scores", ["n"])], [("y", None), ("found", None, INT64)], held)

    def feeds(n: int) -> dict[str, np.ndarray]:
        corner = RNG.random((n, 2), F32) * 5
        return {"boxes": np.concatenate([corner, corner + 1 + RNG.random((n, 2), F32)], 1), "scores": real(n)}

    check(m, feeds(8), feeds(1), feeds(0), feeds(40))


def test_branches_that_differ_along_inner_axes_and_in_some_results() -> None:
    then = [node("Transpose", "x", "o"), node("Relu", "x", "q")]
    other = [node("Concat", "x x", "p", {"axis": 1}), node("Neg", "x", "r")]
    attrs = two_branches(then, other, [("o", "p"), ("q", "r")])
    nodes = [("If", "c", "y z", attrs), ("Exp", "y", "v")]
    m = model(nodes, [("x", ["a", "b"]), ("c", [], BOOL)], [("v", None), ("z", None)])
    shapes = [(3, 5), (1, 7), (6, 2), (4, 4)]
    check(m, *[{"x": real(*s), "c": np.array(c)} for s in shapes for c in (True, False)])


def test_sizes_without_a_bound_in_a_branch_are_refused() -> None:
    then = [node("Range", "zero k one", "o")]
    attrs = two_branches(then, [node("NonZero", "x", "b"), node("Squeeze", "b zeros", "p")], [("o", "p")])
    held = {"zero": np.array(0), "one": np.array(1), "zeros": np.array([0])}
    given = [("x", [9]), ("k", [], INT64), ("c", [], BOOL)]
    with pytest.raises(UnsupportedError, match="may differ in shape"):
        import_model(model([("If", "c", "y", attrs)], given, [("y", None, INT64)], held))
