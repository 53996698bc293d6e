"""Importing ONNX: symbolic sizes, known shapes, functions, errors that list everything."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from effort import calls
from onnx import helper

sys.path.insert(0, str(Path(__file__).parent))

from models import INT64, model, node, run, value

from warpbeam.frontend.onnx import NeedsContentError, from_onnx, import_model
from warpbeam.ir.diagnostics import ImportModelError, UnsupportedError
from warpbeam.ir.rewrite import origins, post_order
from warpbeam.relay.expr import Call
from warpbeam.relay.interp import evaluate
from warpbeam.tir.expr import Var
from warpbeam.topi import dims

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def shape_text(found: Any) -> str:
    return dims.shape_text(found.module["main"].body.ty.shape)


def test_dimensions_of_one_name_are_one_variable() -> None:
    m = model([("Add", "a b", "c")], [("a", ["N", 4]), ("b", ["N", 4])], [("c", None)])
    found = import_model(m)
    assert list(found.sizes) == ["N"] and isinstance(found.sizes["N"], Var)
    assert shape_text(found) == "(N, 4)"


def test_unnamed_dimensions_that_must_agree_become_one() -> None:
    m = model([("Concat", "a b", "c", {"axis": 1})], [("a", [None, 4]), ("b", [None, 2])], [("c", None)])
    found = import_model(m)
    assert len(found.sizes) == 1 and shape_text(found) == "(a_0, 6)"


def test_names_of_dimensions_are_made_plain() -> None:
    found = import_model(model([("Relu", "a", "c")], [("a", ["9**9; exit()", "9**9, exit()"])], [("c", None)]))
    names = [v.name for v in found.sizes.values()]
    assert len(set(names)) == 2 and all(n.isidentifier() for n in names)


@pytest.mark.parametrize("shapes", [{"a": (5, 4)}, {"N": 5}, {"a": ("M", None)}])
def test_shapes_bind_dimensions(shapes: Any) -> None:
    m = model([("Add", "a b", "c")], [("a", ["N", 4]), ("b", ["N", 4])], [("c", None)])
    found = import_model(m, {**shapes, **({"b": ("M", 4)} if "M" in str(shapes) else {})})
    assert shape_text(found) == ("(M, 4)" if "M" in str(shapes) else "(5, 4)")


def test_conflicting_shapes_are_refused() -> None:
    m = model([("Add", "a b", "c")], [("a", ["N", 4]), ("b", ["N", 4])], [("c", None)])
    with pytest.raises(ImportModelError, match="given as 2 and as 3"):
        import_model(m, {"a": (2, 4), "b": (3, 4)})
    with pytest.raises(ImportModelError, match="no input 'z'"):
        import_model(m, {"z": (2, 4)})


def test_shape_arithmetic_becomes_attributes() -> None:
    """The usual flatten: Shape, Gather, Mul, Concat, Reshape."""
    nodes = [
        ("Shape", "x", "s"),
        ("Gather", "s zero", "n"),
        ("Slice", "s one three", "tail"),
        ("ReduceProd", "tail", "rest", {"axes": [0], "keepdims": 1}),
        ("Unsqueeze", "n zero1", "n1"),
        ("Concat", "n1 rest", "to", {"axis": 0}),
        ("Reshape", "x to", "y"),
    ]
    held = {"zero": np.int64(0), "one": np.int64([1]), "three": np.int64([3]), "zero1": np.int64([0])}
    m = model(nodes, [("x", ["N", 3, "W"])], [("y", None)], held)
    found = import_model(m)
    assert shape_text(found) == "(N, (W * 3))"
    assert [c.op.name for c in post_order(found.module["main"].body) if isinstance(c, Call)] == ["reshape"]
    np.testing.assert_array_equal(run(m, X), X.reshape(2, 12))


def test_minus_one_divides_symbolic_sizes() -> None:
    m = model([("Reshape", "x to", "y")], [("x", ["N", 6, "W"])], [("y", None)], {"to": np.int64([0, 2, -1])})
    assert shape_text(import_model(m)) == "(N, 2, (W * 3))"


def test_a_shape_as_a_result_is_computed() -> None:
    m = model([("Shape", "x", "s"), ("Add", "s s", "y")], [("x", ["N", 3, "W"])], [("y", None, INT64)])
    np.testing.assert_array_equal(run(m, X), [4, 6, 8])


@pytest.mark.parametrize("kind", ["Resize", "Upsample"])
@pytest.mark.parametrize(
    "meant", ["7/10", "13/5", "13/10", "9/10", "1/3", "2/7", "5/8", "37/224", "1000/333", "3", "1.2345678"]
)
def test_a_scale_is_the_fraction_it_was_written_as(kind: str, meant: str) -> None:
    scale = np.float32([float(Fraction(meant))])
    held = {"s": np.concatenate([np.ones(2, np.float32), scale])}
    operands, attributes = ("x _ s", {"axes": [0, 1, 2]}) if kind == "Resize" else ("x s", {})
    m = model(
        [(kind, operands, "y", attributes)],
        [("x", [1, 1, "N"])],
        [("y", None)],
        held,
        opset=18 if kind == "Resize" else 9,
    )
    for n in (10, 35, 90, 224, 7000):
        wanted = (1, 1, math.floor(n * Fraction(meant)))
        known = import_model(m, {"x": (1, 1, n)})
        assert known.module["main"].body.ty.shape == wanted
        assert run(m, np.zeros((1, 1, n), np.float32)).shape == wanted, "the symbolic size is another"


def test_symbolic_slice_states_its_assumption() -> None:
    nodes = [("Shape", "x", "s"), ("Slice", "s zero one", "n"), ("Slice", "table zero n zero", "y")]
    held = {"zero": np.int64([0]), "one": np.int64([1]), "table": np.arange(8, dtype=np.float32)}
    m = model(nodes, [("x", ["N", 3])], [("y", None)], held)
    found = import_model(m)
    assert len(found.module["main"].attrs["assumptions"]) == 1
    np.testing.assert_array_equal(run(m, np.zeros((3, 3), np.float32)), [0, 1, 2])


def mystery(kind: str, source: str, result: str, name: str) -> onnx.NodeProto:
    return helper.make_node(kind, [source], [result], name=name, domain="com.example")


def of_example(m: onnx.ModelProto) -> onnx.ModelProto:
    m.opset_import.append(helper.make_opsetid("com.example", 1))
    return m


def test_everything_that_is_missing_is_listed_with_its_nodes() -> None:
    nodes = [
        mystery("Riddle", "x", "i", "even"),
        node("Relu", "x", "r"),
        mystery("Puzzle", "w", "q", "drawn"),
        mystery("Enigma", "r", "u", "noise"),
    ]
    m = model(nodes, [("x", [1, 8]), ("w", [1, 8])], [("i", None), ("q", None, 6), ("u", None)])
    with pytest.raises(UnsupportedError) as e:
        import_model(of_example(m))
    text = str(e.value)
    for part in ("Riddle", "even", "Puzzle", "drawn", "Enigma", "noise"):
        assert part in text


def test_missing_operators_within_a_branch_are_listed() -> None:
    nodes = [node("Relu", "x", "o"), mystery("Enigma", "o", "u", "inner")]
    branch = helper.make_graph(nodes, "b", [], [value("u", None)])
    m = model(
        [("If", "c", "y", {"then_branch": branch, "else_branch": branch})], [("c", [], 9), ("x", [3])], [("y", None)]
    )
    with pytest.raises(UnsupportedError, match=r"(?s)operator com.example.Enigma.*inner"):
        import_model(of_example(m))


def test_a_known_condition_takes_its_branch() -> None:
    yes = helper.make_graph([node("Neg", "x", "o")], "yes", [], [value("o", None)])
    no = helper.make_graph([node("Unique", "x", "o")], "no", [], [value("o", None)])
    m = model(
        [("If", "c", "y", {"then_branch": yes, "else_branch": no})], [("x", [3])], [("y", None)], {"c": np.array(True)}
    )
    np.testing.assert_array_equal(run(m, X[0, 0, :3]), -X[0, 0, :3])


def test_small_inputs_whose_contents_are_needed_are_named() -> None:
    m = model([("ReduceSum", "x axes", "y")], [("x", [2, 3, 4]), ("axes", [1], INT64)], [("y", None)])
    with pytest.raises(NeedsContentError) as e:
        import_model(m)
    assert e.value.inputs == ("axes",)
    np.testing.assert_array_equal(run(m, X, constants={"axes": np.int64([1])}), X.sum(1, keepdims=True))


def test_functions_of_the_model_are_inlined() -> None:
    inner = helper.make_function("own", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", 17)])
    body = [
        helper.make_node("Twice", ["a"], ["t"], domain="own"),
        helper.make_node("Elu", ["t"], ["b"]),
    ]
    body[1].attribute.add(name="alpha", type=1, ref_attr_name="slope")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    outer = helper.make_function("own", "Four", ["a"], ["b"], body, imports, ["slope"])
    call = helper.make_node("Four", ["x"], ["y"], domain="own", name="call", slope=2.0)
    m = model([call], [("x", [4])], [("y", None)], functions=[inner, outer])
    m.opset_import.add(domain="own", version=1)
    x = np.float32([-1, 0, 1, 2])
    np.testing.assert_allclose(run(m, x), np.where(x < 0, 2 * (np.exp(2 * x) - 1), 2 * x), rtol=1e-6)
    places = origins(import_model(m).module["main"].body)
    assert any(p.startswith("call/") for p in places)


def test_a_function_that_calls_itself_is_refused() -> None:
    f = helper.make_function(
        "own",
        "Loopy",
        ["a"],
        ["b"],
        [helper.make_node("Loopy", ["a"], ["b"], domain="own")],
        [helper.make_opsetid("own", 1)],
    )
    m = model([helper.make_node("Loopy", ["x"], ["y"], domain="own")], [("x", [4])], [("y", None)], functions=[f])
    with pytest.raises(ImportModelError, match="calls itself"):
        import_model(m)


def test_operators_defined_by_functions_are_expanded() -> None:
    m = model([("HannWindow", "n", "y")], [], [("y", None)], {"n": np.int64(8)})
    np.testing.assert_allclose(run(m), 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(8) / 8), atol=1e-6)


def test_the_classic_face_gives_parameters() -> None:
    m = model([("MatMul", "x w", "y")], [("x", ["N", 4])], [("y", None)], {"w": np.ones((4, 300), np.float32)})
    mod, params = from_onnx(m, shape={"x": (2, 4)})
    assert list(params) == ["w"] and [p.name for p in mod["main"].params] == ["x", "w"]
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(evaluate(mod, {"x": x, **params}), np.full((2, 300), 4, np.float32))
    frozen, none = from_onnx(m, freeze_params=True)
    assert not none and [p.name for p in frozen["main"].params] == ["x"]


def test_nodes_out_of_order_are_sorted() -> None:
    m = model([("Neg", "b", "c"), ("Relu", "a", "b")], [("a", [3])], [("c", None)])
    np.testing.assert_array_equal(run(m, np.float32([-1, 0, 2])), [0, 0, -2])


@pytest.mark.parametrize(("opset", "kind"), [(7, "attribute"), (13, "input")])
def test_split_of_old_and_new_sets(opset: int, kind: str) -> None:
    if kind == "attribute":
        m = model(
            [("Split", "x", "a b", {"axis": 2, "split": [1, 3]})],
            [("x", [2, 3, 4])],
            [("a", None), ("b", None)],
            opset=7,
        )
    else:
        held = {"sizes": np.int64([1, 3])}
        m = model([("Split", "x sizes", "a b", {"axis": 2})], [("x", [2, 3, 4])], [("a", None), ("b", None)], held, 13)
    a, b = run(m, X)
    np.testing.assert_array_equal(a, X[:, :, :1])
    np.testing.assert_array_equal(b, X[:, :, 1:])


def test_optional_inputs_left_out() -> None:
    m = model([("Clip", "x _ high", "y")], [("x", [2, 3, 4])], [("y", None)], {"high": np.float32(5)})
    np.testing.assert_array_equal(run(m, X), np.minimum(X, 5))


EQUATIONS = [
    "ij,jk->ik",
    "bij,bjk->bik",
    "...ij->...ji",
    "ii->i",
    "ij->",
    "ij,ij->i",
    "i,j->ij",
    "ij,jk,kl->il",
    "abc,cb->a",
]


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation: str) -> None:
    sizes = dict(zip("abcijkl", (2, 3, 4, 5, 6, 7, 3)))
    if equation.startswith("ii"):
        shapes = [(5, 5)]
    else:
        terms = equation.split("->")[0].split(",")
        shapes = [tuple(sizes[c] for c in t.replace("...", "ab")) for t in terms]
    arrays = [np.random.default_rng(0).standard_normal(s).astype(np.float32) for s in shapes]
    names = "uvw"[: len(arrays)]
    m = model(
        [("Einsum", " ".join(names), "y", {"equation": equation})],
        [(n, list(s)) for n, s in zip(names, shapes)],
        [("y", None)],
    )
    np.testing.assert_allclose(run(m, *arrays), np.einsum(equation, *arrays), rtol=1e-5, atol=1e-5)


def test_long_chains_take_linear_time() -> None:
    def effort(count: int) -> float:
        nodes = [node("Relu" if i % 2 else "Neg", f"v{i}", f"v{i + 1}") for i in range(count)]
        data = model(nodes, [("v0", ["N", 4])], [(f"v{count}", None)]).SerializeToString()
        assert shape_text(import_model(data)) == "(N, 4)"
        return calls(lambda: import_model(data)) / count

    short, long = effort(500), effort(5_000)
    assert long < 1.1 * short, "work per node grows with the length of the chain"
