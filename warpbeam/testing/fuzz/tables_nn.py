"""Operators of neural networks for random models; see `tables`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from warpbeam.testing.fuzz.grow import Grower, Value

_WIDE = ("float32", "float64")
_ALL = ("float32", "float64", "float16")


def matmul(g: Grower) -> bool | None:
    x = g.pick(_ALL, range(1, 5), 1)
    if x is None:
        return None
    k = x.shape[-1]
    fits = [v for v in g.values if v.dtype == x.dtype and len(v.shape) == 2 and v.shape[0] == k]
    if fits and g.rng.random() < 0.4:
        return g.emit("MatMul", [x, g.rng.choice(fits)], terms=k)
    shape: list[int] = g.rng.choice([[k, 1], [k, 3], [k, 16], [k, 33], [k]])
    if len(x.shape) == 3 and len(shape) == 2 and g.rng.random() < 0.3:
        shape = [x.shape[0], *shape]
    return g.emit("MatMul", [x, g.weights(shape, x.dtype)], terms=k)


def gemm(g: Grower) -> bool | None:
    x = g.pick(_ALL, (2,), 1)
    if x is None:
        return None
    a, b = g.rng.randint(0, 1), g.rng.randint(0, 1)
    k, m, n = x.shape[0 if a else 1], x.shape[1 if a else 0], g.rng.choice([1, 5, 16, 40])
    bias = [g.weights(g.rng.choice([(n,), (1, n), (m, 1), (m, n)]), x.dtype)] if g.rng.random() < 0.7 else []
    return g.emit(
        "Gemm", [x, g.weights((n, k) if b else (k, n), x.dtype), *bias], terms=k + 2,
        transA=a, transB=b, alpha=g.rng.choice([1.0, 0.5]), beta=g.rng.choice([1.0, 0.25]),
    )  # fmt: skip


def einsum(g: Grower) -> bool | None:
    x = g.pick(_WIDE, (2, 3), 1)
    if x is None:
        return None
    if len(x.shape) == 2:
        text = g.rng.choice(["ij,kj->ik", "ij,kj->kij", "ij,kj->k"])
        return g.emit("Einsum", [x, g.weights((3, x.shape[1]), x.dtype)], terms=math.prod(x.shape), equation=text)
    return g.emit("Einsum", [x, x], terms=x.shape[2], equation="bij,bkj->bik")


def _image(g: Grower) -> Value | None:
    """A batch of signals, images or volumes; there may have to be a new one."""
    found = g.pick(_ALL, (3, 4), 1)
    if found is not None and min(found.shape[2:]) >= 2:
        return found
    if len(g.inputs) > 5:
        return None
    sizes = [g.rng.choice([4, 5, 7, 9]) for _ in range(g.rng.choice([1, 2, 2, 2, 3]))]
    batch = g.rng.choice([1, 2, *g.sizes.values()])
    return g.input(
        (batch, g.rng.choice([1, 2, 3, 4, 8]), *sizes), g.rng.choice(["float32"] * 4 + ["float64", "float16"])
    )


def _window(g: Grower, spatial: Sequence[int], dilate: bool = True) -> dict[str, Any]:
    n = len(spatial)
    kernel = [g.rng.randint(1, min(3, s)) for s in spatial]
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": [g.rng.choice([1, 1, 2]) for _ in range(n)]}
    if dilate and g.rng.random() < 0.25:
        found["dilations"] = [2 if (k - 1) * 2 < s else 1 for k, s in zip(kernel, spatial, strict=True)]
    if g.rng.random() < 0.5:
        found["pads"] = [g.rng.randint(0, (k - 1) // 2 + (k > 1 and g.rng.random() < 0.3)) for k in kernel * 2]
        found["pads"] = [min(p, k - 1) for p, k in zip(found["pads"], kernel * 2, strict=True)]
    elif g.rng.random() < 0.3 and "dilations" not in found:
        found["auto_pad"] = g.rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    return found


def conv(g: Grower) -> bool | None:
    x = _image(g)
    if x is None:
        return None
    window, channels = _window(g, x.shape[2:]), x.shape[1]
    group = g.rng.choice([1, 1, 1, channels] + ([2] if channels % 2 == 0 else []))
    out = group * g.rng.choice([1, 2, 3]) if group > 1 else g.rng.choice([1, 3, 4, 16, 17])
    weight = g.weights((out, channels // group, *window["kernel_shape"]), x.dtype, -0.5, 0.5)
    bias = [g.weights((out,), x.dtype)] if g.rng.random() < 0.5 else []
    terms = channels // group * math.prod(window["kernel_shape"])
    return g.emit("Conv", [x, weight, *bias], terms=terms + 1, group=group, **window)


def conv_transpose(g: Grower) -> bool | None:
    x = _image(g)
    if x is None or len(x.shape) > 4:
        return None
    window = _window(g, x.shape[2:])
    window.pop("auto_pad", None)
    out = g.rng.choice([1, 2, 5])
    weight = g.weights((x.shape[1], out, *window["kernel_shape"]), x.dtype, -0.5, 0.5)
    return g.emit("ConvTranspose", [x, weight], terms=x.shape[1] * math.prod(window["kernel_shape"]), **window)


def pool(g: Grower) -> bool | None:
    x = _image(g)
    if x is None:
        return None
    kind = g.rng.choice(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"])
    if kind.startswith("Global"):
        return g.emit(kind, [x], terms=math.prod(x.shape[2:]))
    window = _window(g, x.shape[2:], dilate=kind == "MaxPool")
    count = math.prod(window["kernel_shape"])
    if kind == "AveragePool":
        window["count_include_pad"] = g.rng.randint(0, 1)
    if kind == "LpPool":
        window["p"] = g.rng.choice([1, 2])
        window.pop("auto_pad", None)
    elif "auto_pad" not in window and kind == "MaxPool":
        window["ceil_mode"] = g.rng.randint(0, 1)
    return g.emit(kind, [x], terms=count, **window)


def norm(g: Grower) -> bool | None:
    x = _image(g) if g.rng.random() < 0.5 else g.pick(_ALL, range(2, 5), 2)
    if x is None:
        return None
    c = x.shape[1]
    kind = g.rng.choice(["BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"])
    if len(x.shape) == 2 or g.rng.random() < 0.3:
        kind = g.rng.choice(["LayerNormalization", "LpNormalization", "RMSLike"])
    scale, bias = g.weights((c,), x.dtype, 0.5, 2.0), g.weights((c,), x.dtype)
    if kind == "BatchNormalization":
        stats = [g.weights((c,), x.dtype), g.weights((c,), x.dtype, 0.5, 2.0)]
        return g.emit(kind, [x, scale, bias, *stats], terms=5)
    count = math.prod(x.shape[1:])
    if kind == "InstanceNormalization":
        return g.emit(kind, [x, scale, bias], terms=count)
    if kind == "GroupNormalization":
        return g.emit(kind, [x, scale, bias], terms=count, num_groups=g.rng.choice([1, c, 2 if c % 2 == 0 else 1]))
    if kind == "LRN":
        return g.emit(kind, [x], terms=8, size=3) if len(x.shape) == 4 else None
    if kind == "LpNormalization":
        return g.emit(kind, [x], terms=count, axis=g.rng.randrange(len(x.shape)), p=g.rng.choice([1, 2]))
    axis = g.rng.randrange(1, len(x.shape))
    parts = [g.weights(x.shape[axis:], x.dtype, 0.5, 2.0)]
    if kind == "LayerNormalization":
        parts.append(g.weights(x.shape[axis:], x.dtype))
    return g.emit("LayerNormalization", [x, *parts], terms=count, axis=axis - g.rng.choice([0, len(x.shape)]))


def softmax(g: Grower) -> bool | None:
    x = g.pick(_ALL, range(1, 6), 1)
    if x is None:
        return None
    axis = g.rng.randrange(-len(x.shape), len(x.shape))
    return g.emit(g.rng.choice(["Softmax", "Softmax", "LogSoftmax"]), [x], terms=x.shape[axis] + 2, axis=axis)


def resize(g: Grower) -> bool | None:
    """Whole factors; sample points that lie between two pixels alone, so that all roundings of them agree."""
    x = g.pick(("float32",), (4,), 1)
    if x is None or max(x.shape[2:]) > 20:
        return None
    scales = g.const(np.asarray([1, 1, g.rng.choice([1, 2, 3]), g.rng.choice([1, 2])], np.float32))
    if g.rng.random() < 0.5:
        mode = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        mode = {"mode": "linear", "coordinate_transformation_mode": g.rng.choice(["half_pixel", "asymmetric"])}
    return g.emit("Resize", [x, None, scales], terms=8, **mode)


def quantise(g: Grower) -> bool | None:
    x = g.pick(("float32",), range(1, 5), 1)
    if x is None:
        return None
    kind = g.rng.choice(["uint8", "int8"])
    scale, zero = g.const(np.asarray(g.rng.choice([0.05, 0.1]), np.float32)), g.const(np.asarray(3, kind))
    if g.rng.random() < 0.3:
        return g.emit("DynamicQuantizeLinear", [x], 3)
    if not g.emit("QuantizeLinear", [x, scale, zero]):
        return False
    return g.emit("DequantizeLinear", [g.values[-1], scale, zero])


def integer_product(g: Grower) -> bool | None:
    x = g.pick(("uint8", "int8"), (2, 3, 4), 1)
    if x is None:
        return None
    if len(x.shape) == 4 and g.rng.random() < 0.5:
        weight = g.const(g.noise.integers(-50, 50, (3, x.shape[1], 1, 1)).astype(np.int8))
        return g.emit("ConvInteger", [x, weight])
    weight = g.const(g.noise.integers(-100, 100, (x.shape[-1], g.rng.choice([1, 4, 17]))).astype(np.int8))
    zeros = [g.const(np.asarray(2, x.dtype))] if g.rng.random() < 0.5 else []
    return g.emit("MatMulInteger", [x, weight, *zeros])


def recurrent(g: Grower) -> bool | None:
    x = g.pick(_WIDE[:1], (3,), 1)
    if x is None or x.shape[0] > 9:
        return None
    kind, hidden = g.rng.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)]), g.rng.choice([2, 5, 8])
    direction = g.rng.choice(["forward", "reverse", "bidirectional"])
    d = 2 if direction == "bidirectional" else 1
    name, gates = kind
    w = g.weights((d, gates * hidden, x.shape[2]), x.dtype, -0.4, 0.4)
    r = g.weights((d, gates * hidden, hidden), x.dtype, -0.4, 0.4)
    bias = [g.weights((d, 2 * gates * hidden), x.dtype)] if g.rng.random() < 0.6 else []
    extra = {"linear_before_reset": g.rng.randint(0, 1)} if name == "GRU" else {}
    terms = x.shape[0] * (x.shape[2] + hidden)
    outputs = 3 if name == "LSTM" else 2
    return g.emit(name, [x, w, r, *bias], outputs, terms=terms, hidden_size=hidden, direction=direction, **extra)


OPERATORS: dict[str, tuple[Callable[[Grower], bool | None], int]] = {
    "matmul": (matmul, 6),
    "gemm": (gemm, 3),
    "einsum": (einsum, 1),
    "conv": (conv, 5),
    "conv_transpose": (conv_transpose, 1),
    "pool": (pool, 4),
    "norm": (norm, 5),
    "softmax": (softmax, 3),
    "resize": (resize, 2),
    "quantise": (quantise, 2),
    "integer_product": (integer_product, 2),
    "recurrent": (recurrent, 1),
}
