"""Sequences and optionals of known length and state vanish while importing; results are those of onnxruntime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

from models import INT64, model, node, value

import warpbeam
from warpbeam.frontend.onnx import backend, import_model
from warpbeam.ir.diagnostics import ImportModelError, UnsupportedError
from warpbeam.runtime.errors import RunError
from warpbeam.runtime.program import CallExternal, walk

BOOL = TensorProto.BOOL
RNG = np.random.default_rng(8)


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def sequence(name: str, shape: Any = None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_sequence_value_info(name, kind, shape)


def optional(name: str, inner: Any) -> Any:
    return helper.make_value_info(name, helper.make_optional_type_proto(inner.type))


def proto(nodes: list[Any], inputs: list[Any], outputs: list[Any], opset: int = 17) -> ModelProto:
    found = [node(*n) for n in nodes]
    graph = helper.make_graph(found, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def onnxruntime(model_: ModelProto, given: dict[str, Any]) -> list[Any]:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model_.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, given))


def same(got: Any, want: Any) -> None:
    if isinstance(want, list):
        assert isinstance(got, list) and len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            same(g, w)
        return
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-6)


def check(model_: ModelProto, **given: Any) -> Any:
    """Our results equal onnxruntime's, and no host call is left."""
    compiled = backend.prepare(model_)
    got = compiled.run(given)
    same(list(got), onnxruntime(model_, given))
    (module, _), *_ = compiled.modules.values()
    assert not any(isinstance(i, CallExternal) for i in walk(module.artifact.program().body))
    return got


PIECES = [real(2, 3), real(1, 3), real(4, 3)]


@pytest.mark.parametrize("at", [0, 2, -1, 3, None])
def test_insert_and_concatenate(at: int | None) -> None:
    ins = [sequence("s"), value("x", [2, 3])] + ([value("p", [], INT64)] if at is not None else [])
    names = "s x p" if at is not None else "s x"
    m = proto([("SequenceInsert", names, "t"), ("ConcatFromSequence", "t", "y", {"axis": 0})], ins, [value("y", None)])
    check(m, s=PIECES, x=real(2, 3), **({"p": np.array(at)} if at is not None else {}))


@pytest.mark.parametrize("at", [0, -2])
def test_erase_at_length(at: int) -> None:
    nodes = [
        ("SequenceErase", "s p", "t"), ("SequenceAt", "t p", "y"), ("SequenceLength", "t", "n"), ("Identity", "t", "u"),
    ]  # fmt: skip
    ins = [sequence("s"), value("p", [], INT64)]
    check(proto(nodes, ins, [value("y", None), value("n", [], INT64), sequence("u")]), s=PIECES, p=np.array(at))


def test_construct_stack_empty() -> None:
    nodes = [
        ("SequenceConstruct", "a b", "s"), ("ConcatFromSequence", "s", "y", {"axis": 1, "new_axis": 1}),
        ("SequenceEmpty", "", "e", {"dtype": INT64}), ("SequenceLength", "e", "n"),
    ]  # fmt: skip
    ins = [value("a", [2, 3]), value("b", [2, 3])]
    y, n = check(proto(nodes, ins, [value("y", None), value("n", [], INT64)]), a=real(2, 3), b=real(2, 3))
    assert y.shape == (2, 2, 3) and n == 0


@pytest.mark.parametrize("attrs", [{}, {"keepdims": 0}, {"axis": 1}, {"axis": -1, "keepdims": 0}])
@pytest.mark.parametrize("split", [None, np.array(2), np.array([1, 3])])
def test_split_to_sequence(attrs: dict[str, int], split: Any) -> None:
    ins = [value("x", [4, 4])] + ([] if split is None else [value("p", list(split.shape), INT64)])
    m = proto([("SplitToSequence", "x p" if split is not None else "x", "s", attrs)], ins, [sequence("s")])
    x, axis = real(4, 4), attrs.get("axis", 0)
    got = backend.prepare(m).run({"x": x} | ({} if split is None else {"p": split}))[0]
    places = {0: [2], 1: [1]}[split.ndim] if split is not None else [1, 2, 3]
    want = list(np.split(x, places, axis))
    if split is None and not attrs.get("keepdims", 1):  # onnxruntime heeds keepdims where sizes are given; it must not
        want = [np.squeeze(w, axis) for w in want]
    same(got, want)


def body(nodes: list[Any], ins: list[Any], outs: list[Any]) -> Any:
    return helper.make_graph([node(*n) for n in nodes], "body", ins, outs)


def test_map_over_two_sequences_and_a_tensor() -> None:
    inner = body(
        [("Add", "a b", "c"), ("Mul", "c w", "d"), ("Shape", "d", "e")],
        [value("a", None), value("b", None), value("w", [3])], [value("d", None), value("e", [2], INT64)],
    )  # fmt: skip
    nodes = [("SequenceMap", "s t w", "d e", {"body": inner})]
    outs = [sequence("d"), sequence("e", None, INT64)]
    m = proto(nodes, [sequence("s"), sequence("t"), value("w", [3])], outs)
    check(m, s=PIECES, t=PIECES[::-1][2:] + PIECES[1:], w=real(3))


@pytest.mark.parametrize("steps", [0, 3])
def test_loop_that_carries_a_sequence(steps: int) -> None:
    inner = body(
        [("Identity", "go", "again"), ("Cast", "i", "f", {"to": 1}), ("Add", "x f", "y"),
         ("SequenceInsert", "s y", "t")],
        [value("i", [], INT64), value("go", [], BOOL), sequence("s")], [value("again", [], BOOL), sequence("t")],
    )  # fmt: skip
    nodes = [("SequenceEmpty", "", "e"), ("Loop", "n _ e", "r", {"body": inner}), ("SequenceLength", "r", "k")]
    m = proto(nodes, [value("n", [], INT64), value("x", [2])], [sequence("r"), value("k", [], INT64)])
    got = backend.prepare(m).run({"n": np.array(steps), "x": np.float32([5, 6])})
    same(got[0], [np.float32([5 + i, 6 + i]) for i in range(steps)])
    assert got[1] == steps


@pytest.mark.parametrize("choice", [True, False])
def test_branches_that_give_sequences(choice: bool) -> None:
    then = body([("SequenceConstruct", "x x", "a")], [], [sequence("a")])
    other = body([("Neg", "x", "m"), ("SequenceConstruct", "m x", "b")], [], [sequence("b")])
    m = proto([("If", "c", "s", {"then_branch": then, "else_branch": other})],
              [value("c", [], BOOL), value("x", [3])], [sequence("s")])  # fmt: skip
    compiled = backend.prepare(m)
    x = real(3)
    got = compiled.run({"c": np.array(choice), "x": x})
    same(got[0], [x, x] if choice else [-x, x])
    assert not compiled.bound  # one module for both conditions


@pytest.mark.parametrize("choice", [True, False])
def test_branches_of_different_lengths_are_chosen_by_the_contents(choice: bool) -> None:
    then = body([("SequenceConstruct", "x", "a")], [], [sequence("a")])
    other = body([("SequenceConstruct", "x x", "b")], [], [sequence("b")])
    m = proto([("If", "c", "s", {"then_branch": then, "else_branch": other})],
              [value("c", [], BOOL), value("x", [3])], [sequence("s")])  # fmt: skip
    x = real(3)
    same(backend.prepare(m).run({"c": np.array(choice), "x": x})[0], [x] if choice else [x, x])


@pytest.mark.parametrize("given", [None, real(3)])
def test_optionals(given: Any) -> None:
    nodes = [("OptionalHasElement", "o", "h"), ("Identity", "o", "p")]
    ins = [optional("o", value("t", [3]))]
    got = backend.prepare(proto(nodes, ins, [value("h", [], BOOL), optional("p", value("t", [3]))], 18)).run([given])
    assert bool(got[0]) == (given is not None)
    assert got[1] is None if given is None else np.array_equal(got[1], given)


def test_optional_of_a_sequence() -> None:
    nodes = [("Optional", "s", "o"), ("OptionalGetElement", "o", "t"), ("SequenceAt", "t i", "y")]
    m = proto(nodes, [sequence("s"), value("i", [], INT64)], [value("y", None)], 18)
    got = backend.prepare(m).run({"s": PIECES, "i": np.array(1)})
    np.testing.assert_array_equal(got[0], PIECES[1])


def test_a_compiled_module_takes_and_gives_lists() -> None:
    m = proto([("SequenceInsert", "s x", "t")], [sequence("s"), value("x", [3])], [sequence("t")])
    module = warpbeam.compile(m, shapes={"s": [(2,), (4,)]}, cache=False)
    assert [i.name for i in module.inputs] == ["s[0]", "s[1]", "x"]
    a, b, x = real(2), real(4), real(3)
    same(module.run({"s": [a, b], "x": x})["t"], [a, b, x])
    with pytest.raises(RunError, match="sequence of 1"):
        module.run({"s": [a], "x": x})
    with pytest.raises(RunError, match="missing"):
        module.run({"s": [a, b]})


def test_refusals() -> None:
    m = proto([("SequenceAt", "s i", "y")], [sequence("s"), value("i", [], INT64)], [value("y", None)])
    with pytest.raises(ImportModelError, match="position"):
        import_model(m, {"s": [(2,)]}, constants={"i": np.array(1)})
    with pytest.raises(ImportModelError, match=r"seq\(tensor\(float\)\), which this operator does not take"):
        import_model(proto([("Relu", "s", "y")], [sequence("s")], [value("y", None)]), {"s": [(2,)]})
    empty = proto([("Optional", "", "o", {"type": value("t", [2]).type}), ("OptionalGetElement", "o", "y")],
                  [], [value("y", [2])])  # fmt: skip
    with pytest.raises(ImportModelError, match="empty optional"):
        import_model(empty)
    with pytest.raises(ImportModelError, match="same name"):
        import_model(model([("Relu", "x", "y")], [("x", [2])], [("y", [2]), ("y", [2])]))


# ------------------------------------------------------------------------------------- lengths found at run time


def calls(module: Any) -> set[str]:
    return {i.function for i in walk(module.artifact.program().body) if isinstance(i, CallExternal)}


def test_a_loop_of_unknown_length_that_collects_a_sequence() -> None:
    inner = body(
        [("Identity", "go", "again"), ("Add", "i one", "n"), ("Unsqueeze", "n zero", "m"), ("Slice", "x first m", "p"),
         ("SequenceInsert", "s p", "t")],
        [value("i", [], INT64), value("go", [], BOOL), sequence("s")], [value("again", [], BOOL), sequence("t")],
    )  # fmt: skip
    nodes = [
        ("SequenceEmpty", "", "e"), ("Loop", "k _ e", "r", {"body": inner}), ("SequenceLength", "r", "c"),
        ("ConcatFromSequence", "r", "y", {"axis": 0}), ("SequenceAt", "r j", "a"), ("Exp", "a", "z"),
    ]  # fmt: skip
    outs = [sequence("r"), value("c", [], INT64), value("y", [None]), value("z", [None])]
    m = proto(nodes, [value("k", [], INT64), value("j", [], INT64), value("x", [6])], outs)
    held = {"one": np.array(1), "zero": np.array([0]), "first": np.array([0])}
    m.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in held.items())
    module = warpbeam.compile(m, cache=False)
    assert calls(module) >= {"sequence.insert", "sequence.joined", "sequence.at", "sequence.length"}
    x = real(6)
    for k, j in ((1, 0), (4, -1), (6, 2)):
        got = module.run({"k": np.array(k), "j": np.array(j), "x": x})
        want = [x[: i + 1] for i in range(k)]
        same(got["r"], want)
        assert got["c"] == k
        np.testing.assert_array_equal(got["y"], np.concatenate(want))
        np.testing.assert_allclose(got["z"], np.exp(want[j]), rtol=1e-6)
    with pytest.raises(RunError, match="position 3 of a sequence of 2"):
        module.run({"k": np.array(2), "j": np.array(3), "x": x})


@pytest.mark.parametrize("count", [1, 3])
def test_inputs_of_unknown_length(count: int) -> None:
    nodes = [
        ("SequenceErase", "s", "u"), ("SequenceInsert", "u x p", "t"), ("SequenceAt", "t p", "y"),
        ("ConcatFromSequence", "t", "z", {"axis": -1, "new_axis": 1}),
    ]  # fmt: skip
    ins = [sequence("s", [None, 3]), value("x", [2, 3]), value("p", [], INT64)]
    m = proto(nodes, ins, [sequence("t"), value("y", None), value("z", None)])
    module = warpbeam.compile(m, cache=False)
    s, x = [real(2, 3) for _ in range(count)], real(2, 3)
    got = module.run({"s": s, "x": x, "p": np.array(0)})
    same(got["t"], [x, *s[:-1]])
    same(got["y"], x)
    same(got["z"], np.stack([x, *s[:-1]], -1))
    with pytest.raises(RunError, match="with 1 dimensions"):
        module.run({"s": [real(3), real(3)], "x": x, "p": np.array(1)})


def test_strings_in_sequences_and_branches_of_different_lengths() -> None:
    then = body([("SequenceConstruct", "x", "a")], [], [sequence("a", None, TensorProto.STRING)])
    other = body([("SequenceConstruct", "x x", "b")], [], [sequence("b", None, TensorProto.STRING)])
    m = proto([("If", "c", "s", {"then_branch": then, "else_branch": other})],
              [value("c", [], BOOL), value("x", [3], TensorProto.STRING)],
              [sequence("s", None, TensorProto.STRING)])  # fmt: skip
    module = warpbeam.compile(m, cache=False)
    words = np.array(["a", "bc", ""], object)
    for choice in (True, False):
        got = module.run({"c": np.array(choice), "x": words})["s"]
        assert [list(g) for g in got] == [list(words)] * (1 if choice else 2)


def test_unknown_ranks_are_refused() -> None:
    m = proto([("SequenceAt", "s i", "y")], [sequence("s"), value("i", [], INT64)], [value("y", None)])
    with pytest.raises(UnsupportedError, match="rank is not known"):
        import_model(m)
    with pytest.raises(UnsupportedError, match="unknown length"):
        import_model(m, host_sequences=False)
