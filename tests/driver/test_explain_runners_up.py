"""--explain's text: why each kernel is as it is, and what its sketch would have decided next."""

import re
from itertools import pairwise

import numpy as np
import pytest

from warpbeam import op
from warpbeam.driver.api import compile_with_report
from warpbeam.relay.expr import Function, IRModule, const, var
from warpbeam.target import get


def _text(body: object, *params: object) -> str:
    return compile_with_report(IRModule.from_expr(Function(params, body)), cache=False)[1].text()


def _weights(*shape: int) -> object:
    return const(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def _attention() -> tuple[object, ...]:
    q, k, v = (var(n, shape=(128, 12, 64)) for n in "qkv")
    q, k, v = (op.get("transpose")(x, axes=(1, 2, 0) if x is k else (1, 0, 2)) for x in (q, k, v))
    scores = op.get("nn.softmax")(op.get("nn.batch_matmul")(q, k, transpose_b=False), axis=-1)
    return op.get("nn.batch_matmul")(scores, v, transpose_b=False), *(x.args[0] for x in (q, k, v))


def _dense() -> tuple[object, ...]:
    x = var("x", shape=(64, 256))
    return op.get("nn.dense")(x, _weights(128, 256)), x


def _convolution() -> tuple[object, ...]:
    x = var("x", shape=(1, 35, 35, 96))
    layouts = {"data_layout": "NHWC", "kernel_layout": "HWIO"}
    return op.get("nn.conv2d")(x, _weights(3, 3, 96, 96), strides=(2, 2), **layouts), x


@pytest.mark.parametrize(("sketch", "model"), [("tile", _dense), ("winograd", _convolution), ("chain", _attention)])
def test_the_next_best_decisions_are_told_in_order(sketch, model) -> None:
    if sketch != "tile" and get("native").vector_bits < 512:
        pytest.skip("which sketch is chosen depends on the machine")
    lines = _text(*model()).splitlines()
    at = next(k for k, line in enumerate(lines) if re.match(rf"  wb_\S+ +{sketch} ", line))
    own = re.match(r" +(\d+) thousand cycles predicted", lines[at + 1])
    others = lines[at + 1].split("next best: ")[1].split(" | ")
    cycles = [int(own[1]), *(int(o.rsplit(" ", 1)[1]) for o in others)]
    assert len(others) == 2 and all(a <= 1.01 * b + 1 for a, b in pairwise(cycles))  # ranked by three digits
    decided = lines[at].split()[2:]
    for other in others:  # only what differs
        assert "=" in other and not any(part.rstrip(",") in decided for part in other.rsplit(" ", 1)[0].split(", "))


def test_a_kernel_called_twice_is_explained_once() -> None:
    x, w = var("x", shape=(64, 128)), _weights(128, 128)
    body = x
    for _ in range(2):
        body = op.get("nn.softmax")(op.get("nn.dense")(body, w), axis=-1)
    assert _text(body, x).count("next best") <= 2


def test_what_decides_nothing_says_why_only() -> None:
    x = var("x", shape=(64, 128))
    text = _text(op.get("nn.softmax")(x, axis=-1), x)
    assert "one pass over memory per row" in text and "next best" not in text
