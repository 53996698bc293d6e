"""Strings: numbers inside, moved and compared by compiled code, looked into by host calls. Against onnxruntime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parent))

from models import INT64, model
from test_sequences import onnxruntime, same, sequence

import warpbeam
from warpbeam.driver.api import compile_with_report
from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.runtime.errors import LoadError, RunError
from warpbeam.runtime.program import CallExternal, walk

STRING, BOOL = TensorProto.STRING, TensorProto.BOOL
WORDS = np.array([["apple", "pear", ""], ["apple", "Äpfel 🍐", "pear"]], object)
MORE = np.array(["apple", "x", ""], object)


def calls(module: Any) -> list[str]:
    return [i.function for i in walk(module.artifact.program().body) if isinstance(i, CallExternal)]


def check(proto: Any, **given: np.ndarray) -> Any:
    """The compiled module, whose results equal onnxruntime's."""
    module = warpbeam.compile(proto, cache=False)
    got = module.run(given)
    for g, w in zip(got.values(), onnxruntime(proto, given), strict=True):
        if w.dtype.kind in "OU":
            assert g.dtype == object and g.shape == w.shape
            np.testing.assert_array_equal(g, w)
        else:
            same(g, w)
    return module


def text(
    nodes: Any, outputs: Any, constants: Any = None, inputs: Any = (("x", [2, 3], STRING),), opset: int = 20
) -> Any:
    proto = model(nodes, inputs, outputs, constants, opset)
    proto.ir_version = 9
    return proto


def test_moves_and_equality_are_compiled() -> None:
    nodes = [
        ("Identity", "x", "i"), ("Gather", "i k", "g", {"axis": 1}), ("Reshape", "g s", "y"),
        ("Equal", "x c", "e"), ("Where", "e x c", "w"),
    ]  # fmt: skip
    outs = [("y", [4], STRING), ("e", [2, 3], BOOL), ("w", [2, 3], STRING)]
    held = {"k": np.array([2, 0]), "s": np.array([-1]), "c": MORE}
    module = check(text(nodes, outs, held), x=WORDS)
    assert not calls(module)


def test_strings_go_through_branches() -> None:
    then = helper.make_graph([helper.make_node("Identity", ["x"], ["a"])], "t", [], [sequence("a")][:0] or
                             [helper.make_tensor_value_info("a", STRING, None)])  # fmt: skip
    other = helper.make_graph([helper.make_node("Identity", ["c"], ["b"])], "e", [],
                              [helper.make_tensor_value_info("b", STRING, None)])  # fmt: skip
    nodes = [("If", "k", "y", {"then_branch": then, "else_branch": other})]
    proto = text(nodes, [("y", [3], STRING)], {"c": MORE}, (("x", [3], STRING), ("k", [], BOOL)))
    for choice in (True, False):
        assert not calls(check(proto, x=WORDS[0], k=np.array(choice)))


def test_concat() -> None:
    module = check(text([("StringConcat", "x c", "y")], [("y", [2, 3], STRING)], {"c": MORE}), x=WORDS)
    assert calls(module) == ["string.concat"]


@pytest.mark.parametrize("attrs", [{}, {"delimiter": "-"}, {"delimiter": "-", "maxsplit": 1}, {"maxsplit": 1}])
def test_split(attrs: dict[str, Any]) -> None:
    x = np.array([["a-b--c", "x y  z", "--a"], ["-", " ", "q"]], object)
    check(text([("StringSplit", "x", "y n", attrs)], [("y", [2, 3, None], STRING), ("n", [2, 3], INT64)]), x=x)


@pytest.mark.parametrize("case", ["LOWER", "UPPER", "NONE"])
@pytest.mark.parametrize("sensitive", [0, 1])
def test_normalizer(case: str, sensitive: int) -> None:
    attrs = {"case_change_action": case, "is_case_sensitive": sensitive, "stopwords": ["Monday", "x"], "locale": "C"}
    proto = text([("StringNormalizer", "x", "y", attrs)], [("y", [None], STRING)], inputs=(("x", [4], STRING),))
    for words in (["Monday", "monday", "X", "Tue"], ["Monday", "x", "Monday", "x"]):
        check(proto, x=np.array(words, object))


def test_normalizer_of_a_row() -> None:
    attrs = {"case_change_action": "UPPER", "stopwords": ["b"], "is_case_sensitive": 1, "locale": "C"}
    proto = text([("StringNormalizer", "x", "y", attrs)], [("y", [1, None], STRING)], inputs=(("x", [1, 3], STRING),))
    check(proto, x=np.array([["a", "b", "c"]], object))


@pytest.mark.parametrize("locale", ["../../etc/passwd", "de/DE", "..", "C" * 65, "\ufffd"])
def test_normalizer_refuses_what_names_no_locale(locale: str) -> None:
    nodes = [("StringNormalizer", "x", "y", {"locale": locale})]
    proto = text(nodes, [("y", [None], STRING)], inputs=(("x", [4], STRING),))
    with pytest.raises(warpbeam.WarpbeamError, match="locale"):
        warpbeam.compile(proto, cache=False)


def test_full_match() -> None:
    proto = text([("RegexFullMatch", "x", "y", {"pattern": "p?e?a(r|pple)"})], [("y", [2, 3], BOOL)])
    got = warpbeam.compile(proto, cache=False).run({"x": WORDS})["y"]
    np.testing.assert_array_equal(got, [[True, True, False], [True, False, True]])
    with pytest.raises(RunError, match="regular expression"):
        bad = text([("RegexFullMatch", "x", "y", {"pattern": "("})], [("y", [2, 3], BOOL)])
        warpbeam.compile(bad, cache=False).run({"x": WORDS})


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "bool", "int8"])
def test_casts(kind: str) -> None:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    x = np.array([-3, 0, 1, 100]).astype(kind) if kind != "float32" else np.float32([1 / 3, 1e-9, -2e30, np.inf])
    there = text([("Cast", "x", "y", {"to": STRING})], [("y", [4], STRING)], inputs=(("x", [4], code),))
    got = warpbeam.compile(there, cache=False).run({"x": x})["y"]
    if kind != "bool":
        np.testing.assert_array_equal(got, onnxruntime(there, {"x": x})[0])
    back = text([("Cast", "x", "y", {"to": code})], [("y", [4], code)], inputs=(("x", [4], STRING),))
    again = warpbeam.compile(back, cache=False).run({"x": got})["y"]
    assert again.dtype == x.dtype
    np.testing.assert_allclose(again.astype(float), x.astype(float), rtol=1e-7)


def test_a_string_that_is_no_number() -> None:
    back = text([("Cast", "x", "y", {"to": 1})], [("y", [3], 1)], inputs=(("x", [3], STRING),))
    with pytest.raises(RunError, match="'pear' is no number"):
        warpbeam.compile(back, cache=False).run({"x": np.array(["1", "pear", "2"], object)})


def test_constant_strings_are_computed_while_importing() -> None:
    nodes = [("Constant", "", "a", {"value_strings": ["p", "q"]}), ("StringConcat", "a c", "b"), ("Equal", "x b", "y")]
    proto = text(nodes, [("y", [2], BOOL)], {"c": np.array(["1", "2"], object)}, (("x", [2], STRING),))
    module = warpbeam.compile(proto, cache=False)
    assert not calls(module)
    np.testing.assert_array_equal(module.run({"x": np.array(["p1", "p2"], object)})["y"], [True, False])


def test_saved_modules_keep_their_strings(tmp_path: Path) -> None:
    proto = text([("StringConcat", "x c", "y")], [("y", [2, 3], STRING)], {"c": MORE})
    module, report = compile_with_report(proto, cache=False)
    assert report.data()["host_calls"] == [{"function": "string.concat", "nodes": ["y"]}]
    assert "host call string.concat" in report.text()
    module.save(tmp_path / "m.wb")
    again = warpbeam.load(tmp_path / "m.wb")
    np.testing.assert_array_equal(again.run({"x": WORDS})["y"], WORDS + MORE)
    with pytest.raises(LoadError, match=r"string\.concat"):
        again.export_library(tmp_path / "m.so")
    with pytest.raises(RunError, match="calls host functions"):
        again.run_tensors({"x": np.zeros((2, 3), np.int64)})


def test_what_strings_cannot_do() -> None:
    with pytest.raises(UnsupportedError, match="strings as operands"):
        import_model(text([("Unique", "x", "y")], [("y", [None], STRING)]))
    module = warpbeam.compile(text([("Identity", "x", "y")], [("y", [2, 3], STRING)]), cache=False)
    with pytest.raises(RunError, match="strings are expected"):
        module.run({"x": np.zeros((2, 3), np.int64)})
    with pytest.raises(RunError, match="shape"):
        module.run({"x": WORDS[0]})


def test_image_decoder() -> None:
    image = pytest.importorskip("PIL.Image")
    import io

    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    held = io.BytesIO()
    image.fromarray(pixels).save(held, "PNG")
    data = np.frombuffer(held.getvalue(), np.uint8)
    for form, want in (("RGB", pixels), ("BGR", pixels[:, :, ::-1])):
        nodes = [("ImageDecoder", "x", "y", {"pixel_format": form})]
        proto = text(nodes, [("y", [None, None, 3], TensorProto.UINT8)], inputs=(("x", [None], TensorProto.UINT8),))
        module = warpbeam.compile(proto, cache=False)
        np.testing.assert_array_equal(module.run({"x": data})["y"], want)
        with pytest.raises(RunError, match="no image"):
            module.run({"x": data[5:]})
