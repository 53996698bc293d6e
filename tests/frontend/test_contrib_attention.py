"""com.microsoft's attention operators against onnxruntime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tolerance import close

sys.path.insert(0, str(Path(__file__).parent))

import warpbeam

ort = pytest.importorskip("onnxruntime")

F32 = np.float32
RNG = np.random.default_rng(21)
SLOW = pytest.mark.slow
B, S, N, D = 2, 5, 4, 16


#: of an element: projections of 16, scores of 16, means of 10 keys (half of them past), in two implementations
ROUNDINGS = 2 * (16 + D + 2 * S)


def real(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * 0.7).astype(F32)


def same(kind: str, inputs: list[np.ndarray | None], outputs: int = 1, kept: Any = None, **attrs: Any) -> None:
    """Our results are those of onnxruntime. kept: what of outputs 1 and 2 is compared: it leaves the rest undefined."""
    named = {f"x{k}": a for k, a in enumerate(inputs) if a is not None}
    names = ["" if a is None else f"x{k}" for k, a in enumerate(inputs)]
    outs = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(kind, names, outs, domain="com.microsoft", **attrs)
    ins = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in named.items()
    ]
    graph = helper.make_graph([node], "g", ins, [helper.make_empty_tensor_value_info(o) for o in outs])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    m = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    want = ort.InferenceSession(m.SerializeToString(), options).run(None, named)
    got = warpbeam.compile(m, cache=False).run(named)
    for k, w in enumerate(want):
        g = got[outs[k]]
        assert g.shape == w.shape and g.dtype == w.dtype, (k, g.shape, w.shape)
        if k and kept is not None:
            g, w = g[kept], w[kept]
        close(g, w, ROUNDINGS)


def masks() -> dict[str, np.ndarray]:
    whole = RNG.integers(0, 2, (B, S)).astype(np.int32)
    whole[:, 0] = 1
    square = RNG.integers(0, 2, (B, S, S)).astype(np.int32)
    return {
        "none": None,  # type: ignore[dict-item]
        "ends": np.int32([3, 5]),
        "ends and starts": np.int32([4, 5, 1, 0]),
        "keys": whole,
        "queries and keys": square | np.eye(S, dtype=np.int32),
    }


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize(
    "kind", ["none", *(pytest.param(m, marks=SLOW) for m in list(masks())[1:3]), *list(masks())[3:]]
)
def test_attention(kind: str, unidirectional: int) -> None:
    width = N * D
    ins = [real(B, S, 12), real(12, 3 * width), real(3 * width), masks()[kind]]
    same("Attention", ins, num_heads=N, unidirectional=unidirectional)


def test_attention_with_past_bias_scale_and_other_sizes() -> None:
    ins: list[Any] = [real(B, S, 12), real(12, 2 * N * D + N * 6), real(2 * N * D + N * 6)]
    same("Attention", ins, num_heads=N, qkv_hidden_sizes=[N * D, N * D, N * 6], scale=0.3)
    width, past = N * D, 3
    ins = [real(B, S, 12), real(12, 3 * width), real(3 * width), None]
    same("Attention", [*ins, real(2, B, N, past, D)], 2, num_heads=N, unidirectional=1)
    same("Attention", [*ins, None, real(1, N, S, S)], num_heads=N)


@pytest.mark.parametrize("mask", ["none", "ends", "keys"])
def test_multi_head_attention(mask: str) -> None:
    width, keys = N * D, S
    q, k, v = real(B, S, width), real(B, keys, width), real(B, keys, N * 6)
    same("MultiHeadAttention", [q, k, v, real(2 * width + N * 6), masks()[mask]], num_heads=N)


def test_multi_head_attention_of_heads_apart_and_with_past() -> None:
    same("MultiHeadAttention", [real(B, S, N * D), real(B, N, 7, D), real(B, N, 7, D)], num_heads=N)
    ins = [real(B, S, N * D), real(B, S, N * D), real(B, S, N * D), real(3 * N * D), None, real(1, N, S, S + 2)]
    same("MultiHeadAttention", [*ins, real(B, N, 2, D), real(B, N, 2, D)], 3, num_heads=N, unidirectional=1, scale=0.2)


def grouped(steps: int, past: int, ends: list[int], packed: bool = False, total: int = 0) -> list[Any]:
    shared = 2
    q, k, v = real(B, steps, N * D), real(B, steps, shared * D), real(B, steps, shared * D)
    ins: list[Any] = [np.concatenate([q, k, v], axis=2), None, None] if packed else [q, k, v]
    old = [real(B, shared, past, D) if past else np.zeros((B, shared, 0, D), F32) for _ in range(2)]
    return [*ins, *old, np.int32([e - 1 for e in ends]), np.array(total or max(ends), np.int32)]


HEADS = {"num_heads": N, "kv_num_heads": 2}


def test_grouped_queries_of_a_prompt_and_of_one_step() -> None:
    same("GroupQueryAttention", grouped(S, 0, [S, S]), 3, **HEADS)
    same("GroupQueryAttention", grouped(1, 6, [7, 7]), 3, **HEADS)
    same("GroupQueryAttention", grouped(1, 6, [4, 7]), 3, np.s_[:, :, :4], **HEADS)
    same("GroupQueryAttention", grouped(S, 0, [S, S], packed=True), scale=0.4, softcap=3.0, **HEADS)


def test_grouped_queries_turned_and_windowed() -> None:
    angle = real(16, D // 2)
    tables = [np.cos(angle), np.sin(angle)]
    for near in (0, 1):
        more = {"do_rotary": 1, "rotary_interleaved": near, **HEADS}
        same("GroupQueryAttention", [*grouped(S, 0, [S, S]), *tables], 3, **more)
        same("GroupQueryAttention", [*grouped(1, 6, [7, 5]), *tables], 3, np.s_[:, :, :5], **more)
    same("GroupQueryAttention", grouped(S, 0, [S, S]), local_window_size=2, **HEADS)
    same("GroupQueryAttention", grouped(1, 6, [7, 7]), 3, local_window_size=3, smooth_softmax=1, **HEADS)
