"""More operators of com.microsoft: what onnxruntime says of them, or NumPy where it has no kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tolerance import close

import warpbeam

MS = "com.microsoft"
F, Z = np.float32, np.uint8
RNG = np.random.default_rng(5)


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(F)


def u8(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(Z)


def model(op: str, inputs: dict[str, Any], outputs: int, domain: str, fixed: tuple[str, ...], attrs: Any) -> Any:
    protos = {k: numpy_helper.from_array(np.asarray(v), k) for k, v in inputs.items() if v is not None}
    infos = [helper.make_tensor_value_info(k, p.data_type, list(p.dims)) for k, p in protos.items() if k not in fixed]
    names = [k if v is not None else "" for k, v in inputs.items()]
    ys = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, ys, domain=domain, **attrs)
    results = [helper.make_empty_tensor_value_info(y) for y in ys]
    graph = helper.make_graph([node], "g", infos, results, [protos[k] for k in fixed])
    sets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=10)


def conv(**more: Any) -> dict[str, Any]:
    return {
        "x": u8(1, 5, 6, 4), "xs": F(0.02), "xz": Z(120), "w": u8(8, 4, 3, 3), "ws": F(0.01), "wz": Z(128),
        "ys": F(0.1), "yz": Z(100), "b": RNG.integers(-500, 500, 8).astype(np.int32), **more,
    }  # fmt: skip


def tables() -> dict[str, Any]:
    out: dict[str, Any] = {"i": np.int32([[1, 2, 0]]), "k": np.int32([[0, 1, 1]])}
    out |= {"w": u8(4, 8), "p": u8(5, 8), "t": u8(2, 8), "g": u8(8), "b": u8(8), "m": np.int32([[1, 1, 0]])}
    out |= {f"{n}s": F(s) for n, s in zip("wptgb", (0.01, 0.02, 0.015, 0.03, 0.01), strict=True)}
    return out | {f"{n}z": Z(z) for n, z in zip("wptgb", (128, 120, 130, 100, 128), strict=True)}


# operator -> (operands, attributes, number of results, names of those that are constants)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, tuple[str, ...]]] = {
    "CDist": ({"a": real(5, 7), "b": real(4, 7)}, {"metric": "euclidean"}, 1, ()),
    "ExpandDims": ({"x": real(2, 3), "a": np.int32(-1)}, {}, 1, ("a",)),
    "GatherBlockQuantized": (
        {"d": u8(6, 16), "i": np.int64([[4, 0], [1, 1]]), "s": real(6, 2), "z": u8(6, 1)},
        {"bits": 4, "block_size": 16, "gather_axis": 0, "quantize_axis": 1},
        1,
        (),
    ),
    "GatherND": ({"x": real(3, 4, 5), "i": np.int64([[2, 1], [0, 3]])}, {}, 1, ()),
    "GridSample": (
        {"x": real(1, 2, 4, 5), "g": RNG.uniform(-1, 1, (1, 3, 3, 2)).astype(F)},
        {"mode": "bilinear", "align_corners": 1},
        1,
        (),
    ),
    "MatMulBnb4": (
        {"a": real(3, 32), "w": u8(5 * 32 // 2), "s": np.abs(real(10))},
        {"K": 32, "N": 5, "block_size": 16, "quant_type": 1},
        1,
        ("w", "s"),
    ),
    "MatMulInteger16": (
        {
            "a": RNG.integers(-(2**15), 2**15, (3, 5)).astype(np.int16),
            "b": RNG.integers(-99, 99, (5, 4)).astype(np.int16),
        },
        {},
        1,
        (),
    ),
    "NhwcMaxPool": ({"x": u8(1, 6, 5, 3)}, {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}, 1, ()),
    "Pad": ({"x": real(2, 3), "p": np.int64([1, 0, 0, 2]), "v": np.ones(1, F)}, {"mode": "constant"}, 1, ("p",)),
    "QEmbedLayerNormalization": (tables(), {"epsilon": 1e-5}, 2, ()),
    "QLinearConv": (conv(), {"channels_last": 1, "pads": [1, 1, 1, 1]}, 1, ("w", "xs", "xz", "ws", "wz", "ys", "yz")),
    "QLinearWhere": (
        {
            "c": np.array([True, False, True]), "x": u8(2, 3), "xs": F(0.1), "xz": Z(7), "y": u8(2, 3), "ys": F(0.2),
            "yz": Z(3), "s": F(0.3), "z": Z(5),
        },
        {},
        1,
        ("xs", "xz", "ys", "yz", "s", "z"),
    ),
    "Range": ({"a": F(1), "b": F(7.5)}, {}, 1, ("a", "b")),
    "Trilu": ({"x": real(4, 4), "k": np.int64(1)}, {"upper": 0}, 1, ("k",)),
    "Unique": ({"x": F([3, 1, 3, 2, 1, 7])}, {}, 3, ()),
}  # fmt: skip


def agree(have: np.ndarray, want: np.ndarray) -> None:
    assert have.dtype == want.dtype and have.shape == want.shape
    if want.dtype.kind == "f":
        close(have, want, 2 * 64)  # sums of up to 64, in two implementations
    else:
        np.testing.assert_array_equal(have, want)


def ours(m: Any, inputs: dict[str, Any], fixed: tuple[str, ...]) -> list[np.ndarray]:
    feed = {k: np.asarray(v) for k, v in inputs.items() if v is not None and k not in fixed}
    return list(warpbeam.compile(m, cache=False).run(feed).values())


def by_onnxruntime(op: str, domain: str, case: Any) -> None:
    ort = pytest.importorskip("onnxruntime")
    inputs, attrs, outputs, fixed = case
    m = model(op, inputs, outputs, domain, fixed, attrs)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {k: np.asarray(v) for k, v in inputs.items() if k not in fixed})
    for have, want in zip(ours(m, inputs, fixed), wanted, strict=True):
        agree(have, want)


@pytest.mark.parametrize("op", sorted(CASES))
def test_as_onnxruntime(op: str) -> None:
    by_onnxruntime(op, MS, CASES[op])


def test_four_bit_floats_and_tables_without_zero_points() -> None:
    inputs, attrs, outputs, fixed = CASES["MatMulBnb4"]
    by_onnxruntime("MatMulBnb4", MS, (inputs, {**attrs, "quant_type": 0}, outputs, fixed))
    inputs, attrs, outputs, fixed = CASES["GatherBlockQuantized"]
    inputs = {k: v for k, v in inputs.items() if k != "z"}
    by_onnxruntime("GatherBlockQuantized", MS, (inputs, attrs, outputs, fixed))


def test_simplified_layer_normalization() -> None:
    case = ({"x": real(2, 3, 8), "s": real(8)}, {"epsilon": 1e-5, "axis": -1}, 2, ("s",))
    by_onnxruntime("SimplifiedLayerNormalization", "", case)


@pytest.mark.parametrize("unidirectional", [0, 1])
def test_quantised_attention_with_past(unidirectional: int) -> None:
    inputs = {
        "x": u8(2, 3, 8), "w": RNG.integers(-128, 128, (8, 24)).astype(np.int8), "b": real(24), "xs": F(0.02),
        "ws": F(0.02), "m": np.int32([4, 5]), "xz": Z(100), "wz": np.int8(0), "p": real(2, 2, 2, 2, 4),
    }  # fmt: skip
    fixed = ("xs", "ws", "xz", "wz")
    by_onnxruntime("QAttention", MS, (inputs, {"num_heads": 2, "unidirectional": unidirectional}, 2, fixed))


def test_quantised_mean() -> None:  # onnxruntime has no kernel for it
    x = u8(2, 3, 4)
    inputs = {"x": x, "xs": F(0.1), "xz": Z(7), "s": F(0.05), "z": Z(9)}
    fixed = ("xs", "xz", "s", "z")
    (y,) = ours(model("QLinearReduceMean", inputs, 1, MS, fixed, {"axes": [1], "keepdims": 0}), inputs, fixed)
    mean = ((x.astype(np.float64) - 7) * 0.1).mean(axis=1)
    want = np.clip(np.rint(mean / 0.05) + 9, 0, 255)
    assert np.abs(y - want).max() <= 1  # steps that fall between two are rounded from float32
    assert (y == want).mean() > 0.7
