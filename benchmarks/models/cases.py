"""The operator suite: one operator or one small subgraph a case, as models of the same vocabulary.

Sizes: GEMM, convolution, depthwise and row cases are common layer shapes of image models and transformers; the cases
`C1D` … `TBS` are the single operators and subgraphs of Ansor's evaluation (Zheng et al., OSDI 2020, and the shape
table of its artifact), for batch 1 and 16. Where artifact and paper differ, both are here (`NRM_3` and `NRM_3p`,
`CBR_1` and `CBR_1p`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from . import Spec
from .net import Net, Shape


def gemm(net: Net, m: int, n: int, k: int, constant: bool = True, batch: int = 0) -> None:
    """[M, K] x [K, N]; the right side is a constant weight or a second input; `batch` > 0 makes it batched."""
    lead = (batch,) if batch else ()
    a = net.input("a", (*lead, m, k))
    b = net.weight("b", (*lead, k, n), std=math.sqrt(1 / k)) if constant else net.input("b", (*lead, k, n))
    net.output("y", net.matmul(a, b))


def conv(
    net: Net,
    shape: Shape,
    cout: int,
    k: int,
    stride: int,
    pad: int,
    groups: int = 1,
    dilation: int = 1,
    bias: bool = False,
    bn: bool = False,
    act: str = "",
) -> None:
    """Convolution of any rank over [N, C, *spatial], optionally with bias, batch normalisation and activation."""
    x = net.conv(net.input("x", shape), "conv", cout, k, stride, pad, groups, dilation, bias=bias)
    x = net.batch_norm(x, "bn") if bn else x
    net.output("y", net.unary(act, x) if act else x)


def transposed(net: Net, shape: Shape, cout: int, k: int, stride: int, pad: int) -> None:
    """2-D transposed convolution."""
    net.output("y", net.conv_transpose(net.input("x", shape), "conv", cout, k, stride, pad))


def capsule(net: Net, batch: int, h: int, w: int, ci: int, co: int, k: int, stride: int, pad: int) -> None:
    """Capsule convolution: [N, H, W, 4, 4, CI] with a 4x4 matrix product a tap, written as one 2-D convolution."""
    x = net.input("x", (batch, h, w, 4, 4, ci))
    x = net.reshape(net.transpose(x, (0, 3, 4, 5, 1, 2)), (batch * 4, 4 * ci, h, w))
    y = net.conv(x, "conv", 4 * co, k, stride, pad, bias=False)
    oh, ow = y.shape[2:]
    net.output("y", net.transpose(net.reshape(y, (batch, 4, 4, co, oh, ow)), (0, 4, 5, 1, 2, 3)))


def norm(net: Net, batch: int, n: int, m: int) -> None:
    """The 2-norm of each [N, M] matrix."""
    net.output("y", net.reduce("l2", net.input("x", (batch, n, m)), (1, 2)))


def rows(net: Net, op: str, shape: Shape) -> None:
    """softmax, layer_norm or gelu over the last axis."""
    x = net.input("x", shape)
    net.output(
        "y",
        net.softmax(x) if op == "softmax" else net.layer_norm(x, "norm") if op == "layer_norm" else net.unary(op, x),
    )


def scores(net: Net, batch: int, seq: int, heads: int, dim: int, softmax: bool) -> None:
    """Two transposes and a batched product of [B, S, H, D] queries and keys, optionally with softmax."""
    q = net.transpose(net.input("q", (batch, seq, heads, dim)), (0, 2, 1, 3))
    k = net.transpose(net.input("k", (batch, seq, heads, dim)), (0, 2, 3, 1))
    y = net.matmul(q, k)
    net.output("y", net.softmax(y) if softmax else y)


GEMMS = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (512, 16, 512),
    (512, 32, 512),
    (512, 64, 512),
    (512, 128, 512),
    (256, 256, 256),
    (1024, 32, 512),
    (2048, 32, 512),
    (128, 768, 3072),
)
CONVS = (
    (56, 64, 64, 3, 1),
    (28, 128, 128, 3, 1),
    (14, 256, 256, 3, 1),
    (7, 512, 512, 3, 1),
    (56, 64, 256, 1, 1),
    (14, 1024, 256, 1, 1),
    (7, 2048, 512, 1, 1),
    (28, 128, 128, 3, 2),
)  # H, IC, OC, k, stride
DEPTHWISE = ((112, 32), (56, 128), (28, 256), (14, 512), (7, 1024))  # H, C; 3x3, bias, ReLU6
ROWS = ((1536, 128), (512, 512), (128, 768), (128, 3072))

_C1D = ((256, 64, 128, 3, 2, 1), (128, 128, 256, 1, 2, 0), (64, 256, 256, 5, 1, 2), (32, 512, 512, 3, 1, 1))
_C2D = ((224, 3, 64, 7, 2, 3), (56, 64, 64, 1, 1, 0), (14, 256, 256, 3, 1, 1), (7, 512, 512, 3, 1, 1))
_GRP = ((56, 64, 128, 3, 2, 1), (56, 64, 64, 1, 1, 0), (14, 256, 256, 3, 1, 1), (7, 512, 512, 3, 1, 1))
_DEP = ((112, 32, 3, 1, 1), (112, 64, 3, 2, 1), (14, 512, 3, 2, 1), (7, 1024, 3, 1, 1))
_T2D = ((4, 512, 256, 4, 2, 1), (8, 256, 128, 4, 2, 1), (16, 128, 64, 4, 2, 1), (32, 64, 3, 4, 2, 1))
_CAP = ((16, 16, 32, 32, 3, 2, 1), (8, 8, 32, 32, 3, 1, 1), (16, 16, 8, 16, 3, 2, 1), (8, 8, 16, 16, 3, 1, 1))
_GMM = ((128, 128, 128), (512, 32, 512), (512, 512, 512), (1024, 1024, 1024))  # N, M, K
_NRM = (("0", 256, 256), ("1", 512, 512), ("2", 1024, 1024), ("3", 4096, 1024), ("3p", 4096, 4096))
_CBR = (
    ("0", 224, 3, 64, 7, 2, 3),
    ("1", 56, 64, 128, 3, 2, 1),
    ("1p", 56, 64, 64, 3, 2, 1),
    ("2", 28, 128, 256, 1, 2, 0),
    ("3", 7, 512, 512, 3, 1, 1),
)
_TBG = ((128, 12, 64), (128, 16, 64), (64, 12, 128), (128, 12, 128))

Found = list[tuple[str, Callable[..., None], dict[str, object]]]


def _layers() -> Found:
    found: Found = []
    for m, n, k in GEMMS:
        for constant in (False, True):
            name = f"gemm{'w' if constant else ''}_{m}x{n}x{k}"
            found.append((name, gemm, {"m": m, "n": n, "k": k, "constant": constant}))
    for h, ci, co, k, s in CONVS:
        sizes = {"shape": (1, ci, h, h), "cout": co, "k": k, "stride": s, "pad": k // 2, "bias": True}
        found.append((f"conv_{h}_{ci}_{co}_k{k}s{s}", conv, sizes))
    for h, c in DEPTHWISE:
        found.append(
            (
                f"dw_{h}_{c}",
                conv,
                {
                    "shape": (1, c, h, h),
                    "cout": c,
                    "k": 3,
                    "stride": 1,
                    "pad": 1,
                    "groups": c,
                    "bias": True,
                    "act": "relu6",
                },
            )
        )
    for op in ("softmax", "layer_norm", "gelu"):
        found += [(f"{op}_{m}x{n}", rows, {"op": op, "shape": (m, n)}) for m, n in ROWS]
    return found


def _ansor_convs(batch: int) -> Found:
    tail, found = f"_b{batch}", Found()

    def add(name: str, shape: Shape, cout: int, k: int, s: int, p: int, **more: object) -> None:
        sizes = {"shape": (batch, *shape), "cout": cout, "k": k, "stride": s, "pad": p, **more}
        found.append((name + tail, conv, sizes))

    for i, (size, ci, co, k, s, p) in enumerate(_C1D):
        add(f"C1D_{i}", (ci, size), co, k, s, p)
    for i, (h, ci, co, k, s, p) in enumerate(_C2D):
        add(f"C2D_{i}", (ci, h, h), co, k, s, p)
        add(f"C3D_{i}", (ci, 16, h, h), co, k, s, p)
        add(f"DIL_{i}", (ci, h, h), co, k, s, p, dilation=2)
    for i, (h, ci, co, k, s, p) in enumerate(_GRP):
        add(f"GRP_{i}", (ci, h, h), co, k, s, p, groups=4)
    for i, (h, c, k, s, p) in enumerate(_DEP):
        add(f"DEP_{i}", (c, h, h), c, k, s, p, groups=c)
    for label, h, ci, co, k, s, p in _CBR:
        add(f"CBR_{label}", (ci, h, h), co, k, s, p, bn=True, act="relu")
    return found


def _ansor_others(batch: int) -> Found:
    tail, found = f"_b{batch}", Found()
    for i, (n, m, k) in enumerate(_GMM):
        found.append((f"GMM_{i}{tail}", gemm, {"m": n, "n": m, "k": k, "constant": False, "batch": batch}))
    for i, (h, ci, co, k, s, p) in enumerate(_T2D):
        sizes = {"shape": (batch, ci, h, h), "cout": co, "k": k, "stride": s, "pad": p}
        found.append((f"T2D_{i}{tail}", transposed, sizes))
    for i, (h, w, ci, co, k, s, p) in enumerate(_CAP):
        found.append(
            (
                f"CAP_{i}{tail}",
                capsule,
                {"batch": batch, "h": h, "w": w, "ci": ci, "co": co, "k": k, "stride": s, "pad": p},
            )
        )
    for label, n, m in _NRM:
        found.append((f"NRM_{label}{tail}", norm, {"batch": batch, "n": n, "m": m}))
    found.append((f"SFM_0{tail}", rows, {"op": "softmax", "shape": (batch, 256, 256)}))
    for i, (seq, heads, dim) in enumerate(_TBG):
        sizes = {"batch": batch, "seq": seq, "heads": heads, "dim": dim}
        found.append((f"TBG_{i}{tail}", scores, {**sizes, "softmax": False}))
        found.append((f"TBS_{i}{tail}", scores, {**sizes, "softmax": True}))
    return found


CASES: dict[str, Spec] = {
    name: Spec(name, build, sizes=sizes)
    for name, build, sizes in _layers() + [c for b in (1, 16) for c in _ansor_convs(b) + _ansor_others(b)]
}
