"""Cases of recurrent layers: (operator, attributes, operands), random data of fixed seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases_nn import Case, real

GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def layer(
    kind: str,
    steps: int = 4,
    batch: int = 3,
    size: int = 5,
    units: int = 6,
    extra: tuple[str, ...] = (),
    dtype: Any = np.float32,
    **attrs: Any,
) -> Case:
    """One layer with the operands x, w, r and those named in `extra`."""
    g, d = GATES[kind], 2 if attrs.get("direction") == "bidirectional" else 1
    swap = bool(attrs.get("layout"))
    state = (batch, d, units) if swap else (d, batch, units)
    made = {
        "x": real(*((batch, steps) if swap else (steps, batch)), size, dtype=dtype),
        "w": real(d, g * units, size, dtype=dtype) * dtype(0.3),
        "r": real(d, g * units, units, dtype=dtype) * dtype(0.3),
        "rs": np.abs(real(d, g * units, dtype=dtype)) * dtype(0.01),
        "b": real(d, 2 * g * units, dtype=dtype) * dtype(0.3),
        "lens": np.array([(steps - 2 * k) % (steps + 1) for k in range(batch)], np.int32),
        "h0": real(*state, dtype=dtype),
        "c0": real(*state, dtype=dtype) * dtype(0.7),
        "p": real(d, 3 * units, dtype=dtype),
    }
    names = tuple(n for n in made if n in ("x", "w", "r", *extra))
    if "rs" in extra:
        made["r"] = (made["r"] * 100).astype(np.int8)
    return f"nn.{kind}", {**attrs, "operands": names}, tuple(made[n] for n in names)


def stepping(kind: str, extra: tuple[str, ...] = (), **attrs: Any) -> Case:
    """One layer whose products with the inputs are made."""
    steps, batch, units, g = 3, 2, 5, GATES[kind]
    made = {
        "z": real(steps, batch, 1, g, units),
        "r": real(1, units, g, units) * np.float32(0.3),
        "rb": real(1, units),
        "h0": real(1, batch, units),
    }
    names = tuple(n for n in made if n in ("z", "r", *extra))
    return f"nn.{kind}", {**attrs, "operands": names}, tuple(made[n] for n in names)


_GRU_ACTS = ("HardSigmoid", "ScaledTanh", "LeakyRelu", "Softsign")

CASES: list[Case] = [
    layer("lstm"),
    layer("lstm", extra=("b", "lens", "h0", "c0", "p"), direction="bidirectional"),
    layer("lstm", extra=("b", "lens"), direction="reverse", layout=1, clip=0.5),
    layer("lstm", extra=("b", "h0", "c0"), input_forget=1, layout=1),
    layer("lstm", extra=("c0",), activations=("Affine", "Elu", "Softplus"), alpha=(0.3, 0.7), beta=(0.5,)),
    layer("lstm", extra=("b",), dtype=np.float64),
    layer("lstm", extra=("b", "h0"), dtype=np.float16),
    layer("lstm", extra=("b", "h0"), state_steps=255),
    layer("lstm", extra=("rs", "b", "h0"), direction="bidirectional"),
    layer("gru", extra=("b",)),
    layer("gru", extra=("b", "lens", "h0"), direction="bidirectional", linear_before_reset=1, layout=1),
    layer("gru", direction="reverse", linear_before_reset=1),
    layer("gru", extra=("b", "h0"), direction="bidirectional", activations=_GRU_ACTS, alpha=(0.3, 1.5), beta=(0.4,)),
    layer("rnn", extra=("b", "lens", "h0"), direction="bidirectional", activations=("Relu", "ThresholdedRelu")),
    layer("rnn", extra=("b",), layout=1, clip=0.3),
    stepping("lstm", extra=("h0",)),
    stepping("gru", extra=("rb", "h0"), linear_before_reset=1, direction="reverse"),
]
