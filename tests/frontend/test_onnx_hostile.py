"""Broken and malicious model files are refused with one message of ours, quickly."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, parser

sys.path.insert(0, str(Path(__file__).parent))

from models import FLOAT, INT64, model, node, run, value

import warpbeam
from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import ImportModelError

GOOD = model([("Add", "x w", "y")], [("x", [2, 3])], [("y", [2, 3])], {"w": np.ones((2, 3), np.float32)})


def refused(proto: Any, pattern: str | None = None) -> None:
    with pytest.raises(ImportModelError, match=pattern) as e:
        import_model(proto)
    assert len(str(e.value)) < 4000


@pytest.mark.parametrize("cut", [0, 1, 10, 60, -1])
def test_truncated(cut: int, tmp_path: Path) -> None:
    data = GOOD.SerializeToString()[:cut]
    refused(data)
    (tmp_path / "m.onnx").write_bytes(data)
    refused(tmp_path / "m.onnx")


def test_no_such_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "cannot be read")


@pytest.mark.parametrize("data", [b"\x80\x04\x95abc", b"hello, this is text" * 9, os.urandom(0) + bytes(range(256))])
def test_not_a_model(data: bytes) -> None:
    refused(data)


def test_versions() -> None:
    for change in ({"ir_version": 99999}, {"ir_version": -1}, {"opset": 99999}, {"opset": -1}, {"opset": None}):
        m = type(GOOD)()
        m.CopyFrom(GOOD)
        if "ir_version" in change:
            m.ir_version = change["ir_version"]
        elif change["opset"] is None:
            del m.opset_import[:]
        else:
            m.opset_import[0].version = change["opset"]
        refused(m)


def test_huge_dimensions_are_refused_before_anything_is_allocated() -> None:
    big = TensorProto(name="w", data_type=FLOAT, dims=[1 << 40, 4], raw_data=b"1234")
    m = model([("Relu", "w", "y")], [], [("y", None)])
    m.graph.initializer.append(big)
    refused(m, "needs 17592186044416 bytes")
    refused(model([("Relu", "x", "y")], [("x", [1 << 40, 4])], [("y", None)]), "bytes")
    held = {"s": np.int64([1 << 20, 1 << 20, 4])}
    refused(model([("ConstantOfShape", "s", "y")], [], [("y", None)], held), "bytes")
    refused(model([("Expand", "x s", "y")], [("x", [4])], [("y", None)], held), "bytes")


@pytest.mark.parametrize(
    ("dims", "raw"), [([2, 3], b"12345678"), ([-2, -3], b"1" * 24), ([2], b""), ([1 << 62], b"1" * 24)]
)
def test_tensor_data_must_fit(dims: list[int], raw: bytes) -> None:
    m = model([("Relu", "w", "y")], [], [("y", None)])
    m.graph.initializer.append(TensorProto(name="w", data_type=FLOAT, dims=dims, raw_data=raw))
    refused(m)


def structure_cases() -> dict[str, Any]:
    x, y = [("x", [2, 3])], [("y", None)]
    return {
        "cycle": model([("Add", "x b", "a"), ("Relu", "a", "b"), ("Neg", "b", "y")], x, y),
        "self": model([("Add", "x y", "y")], x, y),
        "missing input": model([("Add", "x q", "y")], x, y),
        "output never made": model([("Relu", "x", "z")], x, y),
        "defined twice": model([("Relu", "x", "y"), ("Neg", "x", "y")], x, y),
        "shadows input": model([("Relu", "x", "x")], x, [("x", None)]),
        "input twice": model([("Relu", "x", "y")], x + x, y),
        "too few": model([("Add", "x", "y")], x, y),
        "too many": model([("Relu", "x x x", "y")], x, y),
        "unknown attribute": model([("Relu", "x", "y", {"wrong": 1})], x, y),
        "unknown operator": model([("__class__", "x", "y")], x, y),
        "newer than its set": model([("Gelu", "x", "y")], x, y),
        "wrong type": model([("And", "x x", "y")], x, y),
        "declared otherwise": model([("Relu", "x", "y")], x, [("y", [2, 3], INT64)]),
        "shapes": model([("Add", "x w", "y")], x, y, {"w": np.ones(4, np.float32)}),
        "reference outside": model([node("Elu", "x", "y")], x, y),
        "reshape": model([("Reshape", "x s", "y")], x, y, {"s": np.int64([-5, 3])}),
        "step": model(
            [("Slice", "x a b a s", "y")], x, y, {"a": np.int64([0]), "b": np.int64([2]), "s": np.int64([0])}
        ),
        "axis": model([("Concat", "x x", "y", {"axis": 9})], x, y),
        "permutation": model([("Transpose", "x", "y", {"perm": [0, 5]})], x, y),
        "cast": model([("Cast", "x", "y", {"to": 999})], x, y),
        "equation": model([("Einsum", "x", "y", {"equation": "!!@@"})], x, y),
        "blocks": model([("DepthToSpace", "x", "y", {"blocksize": 0})], x, y),
    }


@pytest.mark.parametrize("name", structure_cases())
def test_broken_structure(name: str) -> None:
    m = structure_cases()[name]
    if name == "reference outside":
        m.graph.node[0].attribute.add(name="alpha", type=1, ref_attr_name="a")
    refused(m)


def test_functions_that_explode_are_refused_at_once() -> None:
    functions = []
    for level in range(12):
        kind = f"F{level - 1}" if level else "Leaf"
        body = [helper.make_node(kind, ["a"] if k == 0 else [f"t{k - 1}"], [f"t{k}"], domain="own") for k in range(10)]
        functions.append(helper.make_function("own", f"F{level}", ["a"], ["t9"], body, [helper.make_opsetid("own", 1)]))
    m = model([helper.make_node("F11", ["x"], ["y"], domain="own")], [("x", [4])], [("y", None)], functions=functions)
    m.opset_import.add(domain="own", version=1)
    refused(m, "when inlined")


def external(location: str, **more: str) -> Any:
    proto = TensorProto(name="w", data_type=FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **more}.items():
        proto.external_data.add(key=key, value=text)
    m = model([("Add", "x w", "y")], [("x", [2, 3])], [("y", None)])
    m.graph.initializer.append(proto)
    return m


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "model"
    (home / "sub").mkdir(parents=True)
    values = np.arange(6, dtype=np.float32)
    (home / "w.bin").write_bytes(values.tobytes())
    (home / "sub" / "w.bin").write_bytes(b"\0" * 8 + values.tobytes())
    (tmp_path / "secret.bin").write_bytes(values.tobytes())
    (home / "link.bin").symlink_to(home / "w.bin")
    (home / "out").symlink_to(tmp_path)
    os.link(tmp_path / "secret.bin", home / "hard.bin")
    os.mkfifo(home / "fifo.bin")
    return home


@pytest.mark.parametrize(("location", "more"), [("w.bin", {}), ("./sub/w.bin", {"offset": "8", "length": "24"})])
def test_external_data_beside_the_model(folder: Path, location: str, more: dict[str, str]) -> None:
    (folder / "m.onnx").write_bytes(external(location, **more).SerializeToString())
    got = run(folder / "m.onnx", np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(got, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("location", "more"),
    [
        ("../secret.bin", {}),
        ("sub/../../secret.bin", {}),
        ("/etc/passwd", {}),
        ("out/secret.bin", {}),
        ("link.bin", {}),
        ("hard.bin", {}),
        ("fifo.bin", {}),
        ("sub", {}),
        ("", {}),
        (".", {}),
        ("none.bin", {}),
        ("w.bin\0.txt", {}),
        ("w.bin", {"offset": "-8"}),
        ("w.bin", {"offset": "4"}),
        ("w.bin", {"offset": "1e3"}),
        ("w.bin", {"length": "8"}),
        ("w.bin", {"length": "abc"}),
        ("w.bin", {"offset": str(1 << 62)}),
        ("w.bin", {"checksum": "0" * 40}),
    ],
)
def test_external_data_elsewhere_is_refused(folder: Path, location: str, more: dict[str, str]) -> None:
    (folder / "m.onnx").write_bytes(external(location, **more).SerializeToString())
    refused(folder / "m.onnx")


def test_external_data_without_a_folder() -> None:
    refused(external("w.bin"), "no folder")
    refused(external("w.bin").SerializeToString(), "no folder")


def test_names_are_only_names() -> None:
    for name in ("a b", '"); import os', "%s%n", "../../x", "🧨", "main", "__init__"):
        m = model([node("Relu", "x", "y", name=name)], [("x", [3])], [("y", None)])
        m.graph.input[0].name = m.graph.node[0].input[0] = name
        np.testing.assert_array_equal(run(m, np.float32([-1, 0, 1])), [0, 0, 1])


def test_undefined_types() -> None:
    m = model([("Relu", "x", "y")], [], [("y", None)])
    m.graph.input.append(value("x", [3], 0))
    refused(m)
    m.graph.input[0].type.tensor_type.elem_type = 999
    refused(m)


@pytest.mark.parametrize(("trips", "refused"), [(1 << 62, True), (1 << 20, False)])
def test_loops_that_would_never_be_done_are_refused(trips: int, refused: bool) -> None:
    body = "g (int64 i, bool c, float[2] v) => (bool d, float[2] w) { d = Identity(c)\n w = Tanh(v) }"
    head = '<ir_version: 8, opset_import: ["": 17]> m (float[2] x) => (float[2] y)'
    text = f"{head} <int64 n = {{{trips}}}, bool c = {{1}}> {{ y = Loop (n, c, x) <body = {body}> }}"
    proto = parser.parse_model(text)
    if refused:
        with pytest.raises(ImportModelError, match="iterations that no condition ends, the limit is"):
            import_model(proto)
    else:
        assert import_model(proto).outputs == ["y"]


def told_by_constants() -> dict[str, tuple[Any, str]]:
    """What constants say already: (model, what its refusal says)."""
    x, y = [("x", [2, 3])], [("y", None)]
    lens, steps = np.int64([1, 9]), [("x", [4, 2])]
    boxes = [("b", [1, 4, 4]), ("s", [1, 1, 6])]
    image, w = [("x", [1, 3, 8, 8])], np.ones((4, 3, 3, 3), np.float32)
    return {
        "gather": (
            model([("Gather", "x i", "y", {"axis": 1})], x, y, {"i": np.int64([0, 3])}),
            "index 3 in dimension 1",
        ),
        "negative": (model([("Gather", "x i", "y")], x, y, {"i": np.int64(-3)}), "index -3 in dimension 0"),
        "elements": (model([("GatherElements", "x i", "y")], x, y, {"i": np.int64([[2]])}), "index 2 in dimension 0"),
        "lengths": (model([("ReverseSequence", "x n", "y")], steps, y, {"n": lens}), "lengths from 1 to 9"),
        "window": (model([("HannWindow", "n", "y")], [], y, {"n": np.int64(-3)}), "a window of -3 elements"),
        "boxes": (model([("NonMaxSuppression", "b s", "y")], boxes, [("y", None, INT64)]), "4 boxes, and scores of 6"),
        "kernel": (
            model([("Conv", "x w", "y", {"kernel_shape": [5, 5]})], image, y, {"w": w}),
            r"is \[5, 5\], the wei",
        ),
    }


@pytest.mark.parametrize("name", told_by_constants())
def test_what_constants_say_is_compared_at_once(name: str) -> None:
    refused(*told_by_constants()[name])


def test_indices_at_the_edges_are_right() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    m = model([("Gather", "x i", "y", {"axis": 1})], [("x", [2, 3])], [("y", None)], {"i": np.int64([-3, 2])})
    np.testing.assert_array_equal(run(m, x), x[:, [0, 2]])


@pytest.mark.parametrize(("kind", "count"), [("Concat", 700), ("Concat", 65), ("Sum", 700)])
def test_nodes_of_very_many_operands(kind: str, count: int) -> None:
    names = [f"r{k}" for k in range(count)]
    nodes = [("Mul", f"x c{k}", n) for k, n in enumerate(names)]
    scale = {f"c{k}": np.float32(k) for k in range(count)}
    attrs = {"axis": 1} if kind == "Concat" else {}
    m = model([*nodes, (kind, " ".join(names), "y", attrs)], [("x", [2, 2])], [("y", None)], scale)
    x = np.float32([[1, 2], [3, 4]])
    parts = [x * np.float32(k) for k in range(count)]
    want = np.concatenate(parts, axis=1) if kind == "Concat" else sum(parts)
    np.testing.assert_allclose(warpbeam.compile(m, cache=False).run({"x": x})["y"], want, rtol=1e-5)
