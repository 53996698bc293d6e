"""Borders made of a tensor's own elements, against NumPy: every width, number of dimensions and type."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from models import model
from tolerance import close

import warpbeam
from warpbeam import relay, te, topi

RNG = np.random.default_rng(8)
MODES = ("reflect", "edge", "wrap")
Widths = Sequence[tuple[int, int]]


def padded(x: np.ndarray, widths: Widths, mode: str) -> np.ndarray:
    """What is cut goes first."""
    cut = tuple(slice(max(-b, 0), s - max(-a, 0)) for s, (b, a) in zip(x.shape, widths, strict=True))
    return np.pad(x[cut], [(max(b, 0), max(a, 0)) for b, a in widths], mode=mode)  # type: ignore[call-overload, no-any-return]


def run(x: np.ndarray, widths: Widths, mode: str, threads: int = 1) -> np.ndarray:
    v = relay.var("x", shape=x.shape, dtype=str(x.dtype))
    body = relay.nn.pad(v, pad_width=widths, pad_mode=mode)
    made = warpbeam.compile(relay.IRModule.from_expr(relay.Function([v], body)), cache=False)
    made.num_threads = threads
    (got,) = made.run({"x": x}).values()
    return np.asarray(got)


CASES: list[tuple[tuple[int, ...], Widths]] = [
    ((1,), ((0, 0),)),
    ((7,), ((0, 6),)),
    ((40,), ((39, 39),)),  # the widest borders of one turn
    ((40,), ((45, 130),)),  # several turns
    ((40,), ((-3, 12),)),
    ((9, 37), ((8, 0), (3, 17))),
    ((9, 37), ((-2, 3), (5, -4))),
    ((9, 37), ((2, 2), (0, 0))),
    ((3, 5, 33), ((1, 2), (0, 0), (32, 1))),
    ((2, 3, 14, 19), ((0, 0), (0, 0), (3, 3), (3, 3))),
    ((2, 3, 14, 19), ((0, 0), (1, 2), (-1, 4), (5, -6))),
    ((2, 3, 4, 5, 6), ((1, 0), (0, 1), (2, 1), (1, 2), (5, 4))),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "widths"), CASES, ids=str)
def test_borders(shape: tuple[int, ...], widths: Widths, mode: str) -> None:
    x = RNG.standard_normal(shape, np.float32)
    np.testing.assert_array_equal(run(x, widths, mode), padded(x, widths, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float16", "int8", "int64", "bool"])
def test_types(dtype: str, mode: str) -> None:
    x = RNG.integers(0, 2 if dtype == "bool" else 99, (3, 21, 35)).astype(dtype)
    widths = ((0, 0), (4, 20), (34, 5))
    np.testing.assert_array_equal(run(x, widths, mode), padded(x, widths, mode))


@pytest.mark.parametrize("mode", MODES)
def test_a_long_signal_by_threads(mode: str) -> None:
    x = RNG.standard_normal(40000, np.float32)
    for widths in (((20000, 39999),), ((3, 70000),)):
        np.testing.assert_array_equal(run(x, widths, mode, 2), padded(x, widths, mode))


@pytest.mark.parametrize("mode", MODES)
def test_open_sizes(mode: str) -> None:
    nodes = [("Pad", "x p", "y", {"mode": mode})]
    held = {"p": np.array([0, 0, 3, 2, 0, 0, 1, 4])}
    made = warpbeam.compile(model(nodes, [("x", ["n", 3, "h", "w"])], [("y", None)], held, opset=19), cache=False)
    for shape in ((1, 3, 5, 7), (2, 3, 40, 33), (3, 3, 4, 5), (1, 3, 2, 3), (2, 3, 3, 2)):
        x = RNG.standard_normal(shape, np.float32)
        np.testing.assert_array_equal(made.run({"x": x})["y"], padded(x, ((0, 0), (0, 0), (3, 1), (2, 4)), mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("widths", [(-20, 1), (2, -20), (-30, 90), (-50, 31)], ids=str)
def test_nothing_is_left(widths: tuple[int, int], mode: str) -> None:
    """No element outside a tensor is read where its own are all cut."""
    with pytest.raises(warpbeam.WarpbeamError, match=r"needs an element along axis 0: pad_width .* cuts all"):
        run(np.zeros(20, np.float32), (widths,), mode)
    nodes = [("Pad", "x p", "y", {"mode": mode})]
    held = {"p": np.array([-3, 5])}
    made = warpbeam.compile(model(nodes, [("x", ["n"])], [("y", None)], held, opset=19), cache=False)
    for size in (1, 2, 3):
        with pytest.raises(warpbeam.WarpbeamError, match=r"needs an element along axis 0: pad_width .* cuts all"):
            made.run({"x": np.zeros(size, np.float32)})
    x = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(made.run({"x": x})["y"], padded(x, ((-3, 5),), mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("user", ["Conv", "strided", "depthwise", "AveragePool", "MaxPool", "Transpose", "ReduceSum"])
def test_what_reads_them(user: str, mode: str) -> None:
    """Against onnxruntime, with pointwise work before and after."""
    ort = pytest.importorskip("onnxruntime")
    weights = {"Conv": (24, 16, 3, 3), "strided": (24, 16, 3, 3), "depthwise": (16, 1, 3, 3)}.get(user)
    held: dict[str, Any] = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    last: tuple[Any, ...]
    if weights is not None:
        held |= {"w": RNG.standard_normal(weights, np.float32)}
        attrs = {"strided": {"strides": [2, 2]}, "depthwise": {"group": 16}}.get(user, {})
        last = ("Conv", "b w", "c", attrs)
    elif user == "Transpose":
        last = (user, "b", "c", {"perm": [0, 2, 3, 1]})
    elif user == "ReduceSum":
        held |= {"a": np.array([3])}
        last = (user, "b a", "c")
    else:
        last = (user, "b", "c", {"kernel_shape": [3, 3]})
    nodes = [("Abs", "x", "a0"), ("Pad", "a0 p", "b", {"mode": mode}), last, ("Relu", "c", "y")]
    m = model(nodes, [("x", [1, 16, 29, 31])], [("y", None)], held, opset=19)
    x = RNG.standard_normal((1, 16, 29, 31), np.float32)
    (want,) = ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    close(warpbeam.compile(m, cache=False).run({"x": x})["y"], want, 33 if weights is None else 9 * 16)


@pytest.mark.parametrize("mode", ["SYMMETRIC", "REFLECT"])
@pytest.mark.parametrize("width", [0, 1, 2, 5])
def test_gradients_of_mirrored_borders(mode: str, width: int) -> None:
    x = te.placeholder((3,), name="x")
    y = topi.nn.mirror_pad(x, [width], [2], mode)
    head = te.placeholder(y.shape, name="head")
    (grad,) = te.gradient(y, [x], head)
    made = warpbeam.build(te.create_schedule(grad.op), [x, head, grad], target="llvm")
    given, got = RNG.standard_normal(5 + width, np.float32), warpbeam.nd.array(np.zeros(3, np.float32))
    made(warpbeam.nd.array(np.zeros(3, np.float32)), warpbeam.nd.array(given), got)
    want = np.zeros(3, np.float32)
    np.add.at(want, np.pad(np.arange(3), (width, 2), mode=mode.lower()), given)  # type: ignore[call-overload]
    close(got.numpy(), want, 5 + width)
