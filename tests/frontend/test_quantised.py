"""Quantised models: exact where the arithmetic is of integers, else within a step of onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import warpbeam

MS = "com.microsoft"
RNG = np.random.default_rng(7)


def model(
    op: str, inputs: dict[str, Any], outputs: int = 1, domain: str = "", fixed: tuple[str, ...] = (), **attrs: Any
) -> Any:
    """One node; operands whose names are in `fixed` are constants; None leaves one out."""
    given = {k: v for k, v in inputs.items() if v is not None}
    protos = {k: numpy_helper.from_array(np.asarray(v), k) for k, v in given.items()}
    infos = [helper.make_tensor_value_info(k, p.data_type, list(p.dims)) for k, p in protos.items() if k not in fixed]
    names = [k if v is not None else "" for k, v in inputs.items()]
    ys = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, ys, domain=domain, **attrs)
    results = [helper.make_empty_tensor_value_info(y) for y in ys]
    graph = helper.make_graph([node], "g", infos, results, [protos[k] for k in fixed if k in protos])
    sets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=10)


def ours(m: Any, inputs: dict[str, Any], fixed: tuple[str, ...]) -> list[np.ndarray]:
    feed = {k: np.asarray(v) for k, v in inputs.items() if v is not None and k not in fixed}
    return list(warpbeam.compile(m, cache=False).run(feed).values())


def bytes_of(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape).astype(dtype)


def reals(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "left", "right", "constant"),
    [
        ((33, 77, 50), "uint8", "int8", True),
        ((14, 64, 32), "int8", "int8", True),
        ((14, 64, 32), "uint8", "uint8", True),
        ((5, 8, 16), "int8", "uint8", False),
    ],
)
def test_matmul_integer(shape: tuple[int, int, int], left: str, right: str, constant: bool) -> None:
    m, k, n = shape
    a, b = bytes_of((m, k), left), bytes_of((k, n), right)
    az, bz = bytes_of((m,), left), bytes_of((n,), right)
    inputs = {"a": a, "b": b, "az": az, "bz": bz}
    fixed = ("b", "bz") if constant else ()
    (y,) = ours(model("MatMulInteger", inputs, fixed=fixed), inputs, fixed)
    np.testing.assert_array_equal(y, (a.astype(np.int32) - az.astype(np.int32)[:, None]) @ (b.astype(np.int32) - bz))


def test_weights_are_laid_out_for_the_dot_instruction() -> None:
    from warpbeam import target
    from warpbeam.driver.api import compile_with_report

    inputs = {"a": bytes_of((40, 64), np.uint8), "b": bytes_of((64, 48), np.int8)}
    m = model("MatMulInteger", inputs, fixed=("b",))
    module, report = compile_with_report(m, target=target.get("cascadelake"), cache=False)
    assert [r["decisions"].get("dot") for r in report.rows] == ["avx512vnni.u8s8s32"]
    if set(target.get("cascadelake").required_features) <= set(target.get("native").required_features):
        (y,) = module.run({"a": inputs["a"]}).values()
        np.testing.assert_array_equal(y, inputs["a"].astype(np.int32) @ inputs["b"].astype(np.int32))


def test_symbolic_rows() -> None:
    b = bytes_of((64, 32), np.int8)
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    info = [helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, ["rows", 64])]
    out = [helper.make_tensor_value_info("y", onnx.TensorProto.INT32, None)]
    graph = helper.make_graph([node], "g", info, out, [numpy_helper.from_array(b, "b")])
    module = warpbeam.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    for rows in (1, 7, 30):
        a = bytes_of((rows, 64), np.uint8)
        (y,) = module.run({"a": a}).values()
        np.testing.assert_array_equal(y, a.astype(np.int32) @ b.astype(np.int32))


def qconv_case(channels: int, outputs: int, x: str, w: str, group: int = 1) -> dict[str, Any]:
    return {
        "x": bytes_of((1, channels, 9, 10), x), "xs": np.float32(0.02), "xz": np.array(3, x),
        "w": bytes_of((outputs, channels // group, 3, 3), w),
        "ws": RNG.uniform(0.001, 0.01, outputs).astype(np.float32),
        "wz": np.full(outputs, 0 if w == "int8" else 128, w), "ys": np.float32(0.7), "yz": np.array(10, x),
        "b": RNG.integers(-1000, 1000, outputs).astype(np.int32),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("channels", "outputs", "group", "x", "w"),
    [
        (3, 20, 1, "uint8", "int8"),
        (16, 32, 1, "uint8", "uint8"),
        (16, 16, 1, "int8", "int8"),
        (8, 8, 8, "uint8", "uint8"),
        (8, 12, 2, "int8", "int8"),
    ],
)
def test_qlinear_conv(channels: int, outputs: int, group: int, x: str, w: str) -> None:
    c = qconv_case(channels, outputs, x, w, group)
    fixed = tuple(k for k in c if k != "x")
    m = model("QLinearConv", c, fixed=fixed, pads=[1, 1, 1, 1], strides=[2, 1], group=group)
    (y,) = ours(m, c, fixed)
    padded = np.pad(c["x"].astype(np.int64) - 3, ((0, 0), (0, 0), (1, 1), (1, 1)))
    weights = c["w"].astype(np.int64) - c["wz"].astype(np.int64)[:, None, None, None]
    total = np.zeros((1, outputs, 5, 10), np.int64)
    for o in range(outputs):
        first = o // (outputs // group) * (channels // group)
        part = padded[:, first : first + channels // group]
        for i in range(3):
            for j in range(3):
                total[:, o] += np.einsum("nchw,c->nhw", part[:, :, i : i + 9 : 2, j : j + 10], weights[o, :, i, j])
    total += c["b"][None, :, None, None]
    scaled = total.astype(np.float32) * (c["xs"] * c["ws"] / c["ys"])[None, :, None, None]
    info = np.iinfo(x)
    np.testing.assert_array_equal(y, np.clip(np.rint(scaled) + 10, info.min, info.max).astype(x))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_quantize_rounds_half_to_even_and_clamps(dtype: str) -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, np.inf, -np.inf, 7.3], np.float32)
    inputs = {"x": x, "s": np.float32(1), "z": np.array(1, dtype)}
    (y,) = ours(model("QuantizeLinear", inputs, fixed=("s", "z")), inputs, ("s", "z"))
    info = np.iinfo(dtype)
    np.testing.assert_array_equal(y, np.clip(np.rint(x.astype(np.float64)) + 1, info.min, info.max).astype(dtype))


def u8(*shape: int) -> np.ndarray:
    return bytes_of(shape, np.uint8)


F, Z = np.float32, np.uint8
CONTRIB: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "QLinearAdd": (
        {"a": u8(2, 9), "as": F(0.1), "az": Z(7), "b": u8(9), "bs": F(0.2), "bz": Z(3), "s": F(0.3), "z": Z(5)},
        {},
        1,
    ),
    "QLinearMul": (
        {"a": u8(2, 9), "as": F(0.1), "az": Z(7), "b": u8(9), "bs": F(0.2), "bz": Z(3), "s": F(2), "z": Z(5)},
        {},
        1,
    ),
    "QLinearSigmoid": ({"x": u8(20), "xs": F(0.05), "xz": Z(128), "s": F(1 / 256), "z": Z(0)}, {}, 1),
    "QLinearLeakyRelu": ({"x": u8(20), "xs": F(0.05), "xz": Z(128), "s": F(0.04), "z": Z(20)}, {"alpha": 0.1}, 1),
    "QLinearGlobalAveragePool": (
        {"x": u8(1, 3, 5, 5), "xs": F(0.05), "xz": Z(128), "s": F(0.04), "z": Z(110)},
        {"channels_last": 0},
        1,
    ),
    "QLinearAveragePool": (
        {"x": u8(1, 3, 6, 6), "xs": F(0.05), "xz": Z(128), "s": F(0.04), "z": Z(110)},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        1,
    ),
    "QLinearConcat": (
        {"s": F(0.1), "z": Z(9), "a": u8(2, 3), "as": F(0.2), "az": Z(4), "b": u8(2, 4), "bs": F(0.05), "bz": Z(1)},
        {"axis": 1},
        1,
    ),
    "QLinearSoftmax": (
        {"x": u8(3, 8), "xs": F(0.05), "xz": Z(128), "s": F(1 / 256), "z": Z(0)},
        {"axis": -1, "opset": 13},
        1,
    ),
    "MatMulIntegerToFloat": (
        {
            "a": u8(4, 12),
            "b": bytes_of((12, 6), np.int8),
            "as": F(0.1),
            "bs": np.abs(reals(6)),
            "az": Z(4),
            "bz": None,
            "c": reals(6),
        },
        {},
        1,
    ),
    "DynamicQuantizeMatMul": (
        {"a": reals(4, 12), "b": bytes_of((12, 6), np.int8), "bs": F(0.1), "bz": None, "c": reals(6)},
        {},
        1,
    ),
    "QGemm": (
        {
            "a": u8(4, 12),
            "as": F(0.1),
            "az": Z(4),
            "b": u8(12, 6),
            "bs": F(0.02),
            "bz": Z(120),
            "c": None,
            "ys": F(2),
            "yz": Z(100),
        },
        {},
        1,
    ),
    "QAttention": (
        {
            "x": u8(2, 4, 8),
            "w": bytes_of((8, 24), np.int8),
            "b": reals(24),
            "xs": F(0.02),
            "ws": F(0.02),
            "m": np.array([4, 2], np.int32),
            "xz": Z(100),
            "wz": np.int8(0),
        },
        {"num_heads": 2},
        1,
    ),
    "MatMulNBits": (
        {"a": reals(3, 40), "w": u8(5, 3, 8), "s": np.abs(reals(15)), "z": u8(10)},
        {"K": 40, "N": 5, "bits": 4, "block_size": 16},
        1,
    ),
    "FusedMatMul": ({"a": reals(2, 5, 4), "b": reals(2, 6, 5)}, {"alpha": 0.5, "transA": 1, "transB": 1}, 1),
    "FusedGemm": (
        {"a": reals(4, 5), "b": reals(5, 6), "c": reals(6)},
        {"activation": "LeakyRelu", "activation_alpha": 0.2},
        1,
    ),
    "FusedConv": (
        {"x": reals(1, 3, 6, 6), "w": reals(4, 3, 3, 3), "b": reals(4)},
        {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
        1,
    ),
    "Gelu": ({"x": reals(20)}, {}, 1),
    "BiasGelu": ({"x": reals(3, 5), "b": reals(5)}, {}, 1),
    "FastGelu": ({"x": reals(3, 5), "b": reals(5)}, {}, 1),
    "QuickGelu": ({"x": reals(20)}, {"alpha": 1.5}, 1),
    "SkipLayerNormalization": (
        {"x": reals(2, 3, 8), "s": reals(2, 3, 8), "g": reals(8), "b": reals(8), "c": reals(8)},
        {"epsilon": 1e-5},
        1,
    ),
    "SkipSimplifiedLayerNormalization": (
        {"x": reals(2, 3, 8), "s": reals(2, 3, 8), "g": reals(8)},
        {"epsilon": 1e-5},
        1,
    ),
    "EmbedLayerNormalization": (
        {
            "i": np.array([[1, 2, 0]], np.int32),
            "k": np.array([[0, 1, 1]], np.int32),
            "w": reals(4, 8),
            "p": reals(5, 8),
            "t": reals(2, 8),
            "g": reals(8),
            "b": reals(8),
            "m": np.array([[1, 1, 0]], np.int32),
        },
        {},
        2,
    ),
    "RotaryEmbedding": ({"x": reals(1, 2, 4, 8), "p": np.array([1]), "c": reals(9, 4), "s": reals(9, 4)}, {}, 1),
}


@pytest.mark.parametrize("op", sorted(CONTRIB))
def test_contrib(op: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    inputs, attrs, outputs = CONTRIB[op]
    fixed = tuple(k for k, v in inputs.items() if v is not None and np.ndim(v) == 0) + tuple(
        k for k in ("w", "s", "z") if op == "MatMulNBits"
    )
    m = model(op, inputs, outputs, MS, fixed, **attrs)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {k: v for k, v in inputs.items() if v is not None and k not in fixed})
    for have, want in zip(ours(m, inputs, fixed), wanted, strict=True):
        assert have.dtype == want.dtype and have.shape == want.shape
        if want.dtype.kind == "f":
            np.testing.assert_allclose(have, want, rtol=2e-4, atol=2e-5)
        else:  # onnxruntime takes short cuts that may cost a step
            assert np.abs(have.astype(int) - want.astype(int)).max() <= (1 if op.startswith("Q") else 0)
