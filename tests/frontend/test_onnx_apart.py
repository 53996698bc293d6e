"""Large model files are read in two parts; the result is that of reading them whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from warpbeam.frontend.onnx import apart, import_model
from warpbeam.frontend.onnx.apart import LARGE
from warpbeam.ir.diagnostics import ImportModelError

RNG = np.random.default_rng(0)
BIG = RNG.standard_normal((LARGE // 8, 4)).astype(np.float32)
SMALL = RNG.standard_normal(4).astype(np.float32)


def model(*initializers: TensorProto) -> onnx.ModelProto:
    """The sum of the initializers and of x."""
    names = [i.name for i in initializers]
    nodes = [helper.make_node("Add", [f"s{k}" if k else "x", n], [f"s{k + 1}"]) for k, n in enumerate(names)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, BIG.shape)
    y = helper.make_tensor_value_info(f"s{len(names)}", TensorProto.FLOAT, BIG.shape)
    graph = helper.make_graph(nodes, "sum", [x], [y], list(initializers), doc_string="d" * 300)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], producer_name="p" * 200)


def raw(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def typed(name: str, array: np.ndarray) -> TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.reshape(-1).tolist())


def apart_of(path: Path) -> apart.Apart | None:
    with path.open("rb") as file:
        return apart.taken_apart(file)


def saved(tmp_path: Path, proto: onnx.ModelProto) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_message_and_contents_are_the_whole(tmp_path: Path) -> None:
    proto = model(raw("a", SMALL), raw("b", BIG), typed("c", BIG), raw("d", BIG + 1))
    found = apart_of(saved(tmp_path, proto))
    assert found is not None and sorted(found.contents) == [1, 3]
    rest = onnx.ModelProto.FromString(found.message)
    for number, contents in found.contents.items():
        rest.graph.initializer[number].raw_data = contents.tobytes()
    assert rest == proto


def test_imports_the_same(tmp_path: Path) -> None:
    proto = model(raw("a", SMALL), raw("b", BIG), typed("c", BIG), raw("d", BIG + 1))
    got, want = import_model(saved(tmp_path, proto)).parameters, import_model(proto).parameters
    assert list(got) == list(want) == ["a", "b", "c", "d"]
    for name, constant in want.items():
        np.testing.assert_array_equal(got[name].data.array, constant.data.array)


def test_memory_is_that_of_the_arrays(tmp_path: Path) -> None:
    array = np.zeros((1 << 20, 8), np.float32)
    path = saved(tmp_path, model(raw("a", array)))
    tracemalloc.start()
    with path.open("rb") as file:
        assert apart.taken_apart(file) is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert array.nbytes <= peak < array.nbytes + (1 << 20)


def test_several_graph_fields_are_one(tmp_path: Path) -> None:
    """The format allows a message in pieces: initializers are numbered through."""
    head, more = model(raw("a", BIG)), onnx.ModelProto()
    more.graph.initializer.append(raw("b", BIG + 2))
    path = tmp_path / "m.onnx"
    path.write_bytes(head.SerializeToString() + more.SerializeToString())
    found = apart_of(path)
    assert found is not None
    np.testing.assert_array_equal(found.contents[1].view(np.float32).reshape(BIG.shape), BIG + 2)
    assert list(import_model(path).parameters) == ["a", "b"]


def test_a_wrong_size_is_refused(tmp_path: Path) -> None:
    tensor = raw("a", BIG)
    tensor.raw_data = tensor.raw_data[:-1]
    with pytest.raises(ImportModelError, match="bytes of data, needs"):
        import_model(saved(tmp_path, model(tensor)))


def with_tail(data: bytes, tensor_tail: bytes) -> bytes:
    """A model of one initializer, whose message ends with more fields."""
    tensor = raw("a", BIG).SerializeToString() + tensor_tail
    graph = apart._head(5, len(tensor)) + tensor
    return data + apart._head(7, len(graph)) + graph


@pytest.mark.parametrize(
    "tail",
    [
        b"\x4a\x02ab",  # raw data a second time
        b"\x4b\x4c",  # a group
        b"\x4f",  # a wire type that is not there
        b"\x4a\xff\xff\xff\xff\x0f",  # longer than its message
        b"\x08" + b"\xff" * 10,  # a number without end
        b"\x08",  # cut short
    ],
)
def test_what_is_unusual_is_left_whole(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(with_tail(b"", tail))
    assert apart_of(path) is None


def test_files_of_many_small_fields_are_left_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_MOST_FIELDS", 8)
    assert apart_of(saved(tmp_path, model(raw("a", BIG)))) is None


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, model(raw("a", BIG)))
    path.write_bytes(path.read_bytes()[: LARGE + 500])
    with pytest.raises(ImportModelError, match="truncated or damaged"):
        import_model(path)


def test_a_file_that_shrinks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, model(raw("a", BIG)))

    class Shrinking(apart._Cutter):
        def model(self) -> bytes:
            message = super().model()
            self.found = {n: (start, stop + path.stat().st_size) for n, (start, stop) in self.found.items()}
            return message

    monkeypatch.setattr(apart, "_Cutter", Shrinking)
    with pytest.raises(ImportModelError, match="became shorter while it was read"):
        import_model(path)
