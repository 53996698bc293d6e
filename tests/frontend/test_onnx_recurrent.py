"""Recurrent layers of ONNX models: against onnxruntime, and in float64 against the formulas."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from models import model, node, run
from onnx import TensorProto, helper

import warpbeam
from warpbeam.ir.diagnostics import WarpbeamError

ort = pytest.importorskip("onnxruntime")

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OPERANDS = ("X", "W", "R", "B", "L", "H", "C", "P")


def layer(kind: str, steps: int, batch: int, size: int, units: int, given: str = "XWRB", **attrs: Any) -> Any:
    """(model whose weights are constants, inputs by name) of one layer; `given`: initials of the operands used."""
    rng = np.random.default_rng([steps, batch, size, units])
    g, d = GATES[kind], 2 if attrs.get("direction") == "bidirectional" else 1
    swap = bool(attrs.get("layout"))
    state = (batch, d, units) if swap else (d, batch, units)
    shapes: dict[str, Any] = {
        "X": (batch, steps, size) if swap else (steps, batch, size),
        "W": (d, g * units, size),
        "R": (d, g * units, units),
        "B": (d, 2 * g * units),
        "H": state,
        "C": state,
        "P": (d, 3 * units),
    }
    data = {k: rng.uniform(-0.6, 0.6, s).astype(np.float32) for k, s in shapes.items()}
    data["L"] = rng.integers(1, steps + 1, batch).astype(np.int32)
    inputs = [k for k in OPERANDS if k in given and k in "XLHC"]
    names = [k if k in given else "_" for k in OPERANDS[: 8 if kind == "LSTM" else 6]]
    outs = "Y Yh Yc" if kind == "LSTM" else "Y Yh"
    proto = model(
        [node(kind, " ".join(names), outs, {"hidden_size": units, **attrs})],
        [(k, [None] * data[k].ndim, TensorProto.INT32 if k == "L" else TensorProto.FLOAT) for k in inputs],
        [(o, [None] * (4 if o == "Y" else 3)) for o in outs.split()],
        {k: data[k] for k in given if k not in inputs},
        opset=14,
    )
    return proto, {k: data[k] for k in inputs}


def expected(proto: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)  # type: ignore[no-any-return]


def close(got: Any, want: Any) -> None:
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


DIRECTIONS = ("forward", "reverse", "bidirectional")
VARIANTS: list[tuple[str, str, dict[str, Any]]] = [
    *(("LSTM", given, {"direction": d}) for d, given in itertools.product(DIRECTIONS, ("XWR", "XWRBL", "XWRBLHCP"))),
    *(
        ("GRU", given, {"direction": d, "linear_before_reset": k})
        for d, given, k in itertools.product(DIRECTIONS, ("XWR", "XWRBLH"), (0, 1))
    ),
    *(("RNN", given, {"direction": d}) for d, given in itertools.product(DIRECTIONS, ("XWR", "XWRBLH"))),
    ("LSTM", "XWRB", {"clip": 0.4}),
    ("GRU", "XWRB", {"clip": 0.4}),
    ("RNN", "XWRB", {"clip": 0.4}),
    ("LSTM", "XWRBHC", {"input_forget": 1}),
    ("RNN", "XWRB", {"activations": ["Relu"]}),
    ("RNN", "XWRB", {"activations": ["Elu"], "activation_alpha": [0.7]}),
    ("RNN", "XWRB", {"activations": ["Affine"], "activation_alpha": [0.7], "activation_beta": [0.1]}),
    ("RNN", "XWRB", {"activations": ["LeakyRelu"], "activation_alpha": [0.2]}),
    ("RNN", "XWRB", {"activations": ["ThresholdedRelu"], "activation_alpha": [0.1]}),
    ("LSTM", "XWRB", {"activations": ["HardSigmoid", "Softsign", "Softplus"], "activation_alpha": [0.3],
                      "activation_beta": [0.4]}),
    ("LSTM", "XWRBP", {"direction": "bidirectional", "activations": ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Relu",
                                                                     "Tanh"]}),
    ("GRU", "XWRB", {"activations": ["Sigmoid", "ScaledTanh"], "activation_alpha": [1.2], "activation_beta": [0.8]}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "attrs"), VARIANTS, ids=[f"{i}-{v[0]}" for i, v in enumerate(VARIANTS)])
def test_against_onnxruntime(kind: str, given: str, attrs: dict[str, Any]) -> None:
    proto, inputs = layer(kind, 5, 3, 4, 7, given, **attrs)
    close(run(proto, *inputs.values()), expected(proto, inputs))


@pytest.mark.parametrize("kind", sorted(GATES))
def test_batch_first(kind: str) -> None:
    """layout=1 is layout=0 with batch and time swapped."""
    proto, inputs = layer(kind, 4, 3, 5, 6, "XWRBLH", direction="bidirectional", layout=1)
    plain, _ = layer(kind, 4, 3, 5, 6, "XWRBLH", direction="bidirectional")
    y, *last = expected(plain, {k: v if k == "L" else v.swapaxes(0, 1) for k, v in inputs.items()})
    close(run(proto, *inputs.values()), [y.transpose(2, 0, 1, 3), *[t.swapaxes(0, 1) for t in last]])


@pytest.mark.parametrize(
    ("kind", "sizes", "given", "attrs"),
    [
        ("LSTM", (6, 1, 9, 20), "XWRBHC", {}),
        ("LSTM", (7, 5, 8, 36), "XWRBL", {"direction": "bidirectional"}),
        ("GRU", (6, 2, 8, 33), "XWRBL", {"direction": "reverse", "linear_before_reset": 1}),
        ("RNN", (3, 11, 4, 50), "XWRBH", {}),
    ],
)
def test_one_compiled_model_for_all_sizes(kind: str, sizes: Any, given: str, attrs: dict[str, Any]) -> None:
    proto, inputs = layer(kind, *sizes, given, **attrs)
    module = warpbeam.compile(proto, cache=False)
    for steps, batch in (sizes[:2], (1, 1), (sizes[0] + 3, sizes[1] + 8)):
        _, inputs = layer(kind, steps, batch, *sizes[2:], given, **attrs)
        close(dict(module.run(inputs)).values(), expected(proto, inputs))


def test_a_wrong_number_of_activations_is_refused() -> None:
    proto, inputs = layer("LSTM", 2, 2, 3, 4, activations=["Tanh"])
    with pytest.raises(WarpbeamError, match="activations"):
        run(proto, *inputs.values())


def test_weights_of_another_size_are_refused() -> None:
    proto, inputs = layer("GRU", 2, 2, 3, 4)
    proto.graph.node[0].attribute[0].i = 5
    with pytest.raises(WarpbeamError, match="hidden_size"):
        run(proto, *inputs.values())


def test_dynamically_quantised_lstm() -> None:
    """Weights in bytes; the input and each state are rounded before they are multiplied, as onnxruntime does."""
    rng, steps, size, units = np.random.default_rng(0), 6, 16, 20
    weights = {"W": (2, size, 4 * units), "R": (2, units, 4 * units)}
    held: dict[str, np.ndarray] = {k: rng.integers(-100, 100, s).astype(np.int8) for k, s in weights.items()}
    held["B"] = rng.uniform(-0.2, 0.2, (2, 8 * units)).astype(np.float32)
    for k, shape in (("W", (2, 4 * units)), ("R", (2,))):
        held[k + "s"] = rng.uniform(0.001, 0.004, shape).astype(np.float32)
        held[k + "z"] = np.zeros(shape, np.int8)
    layer = helper.make_node(
        "DynamicQuantizeLSTM",
        ["X", "W", "R", "B", "", "", "", "", "Ws", "Wz", "Rs", "Rz"],
        ["Y", "Yh", "Yc"],
        domain="com.microsoft",
        hidden_size=units,
        direction="bidirectional",
    )
    outs = [(o, [None] * n) for o, n in (("Y", 4), ("Yh", 3), ("Yc", 3))]
    proto = model([layer], [("X", (steps, 1, size))], outs, held, opset=14)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    x = rng.standard_normal((steps, 1, size)).astype(np.float32)
    close(run(proto, x), expected(proto, {"X": x}))


def test_rounded_inputs_are_multiplied_exactly() -> None:
    """Whole numbers are summed, not what they stand for: what cancels leaves nothing behind."""
    rng, steps, half, units = np.random.default_rng(1), 3, 450, 8
    w = rng.integers(-127, 128, (1, half, 4 * units)).astype(np.int8)
    held: dict[str, np.ndarray] = {"W": np.concatenate([w, -w], axis=1), "R": np.zeros((1, units, 4 * units), np.int8)}
    for k in ("W", "R"):
        held[k + "s"], held[k + "z"] = np.float32([0.013]), np.zeros(1, np.int8)
    operands = ["X", "W", "R", "", "", "", "", "", "Ws", "Wz", "Rs", "Rz"]
    layer = helper.make_node("DynamicQuantizeLSTM", operands, ["Y"], domain="com.microsoft", hidden_size=units)
    proto = model([layer], [("X", (steps, 1, 2 * half))], [("Y", [None] * 4)], held, opset=14)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    x = rng.uniform(-1, 1, (steps, 1, half)).astype(np.float32)
    y = run(proto, np.concatenate([x, x], axis=2))
    np.testing.assert_array_equal(y, np.zeros((steps, 1, 1, units), np.float32))
