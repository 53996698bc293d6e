"""Cases of operators whose results are as large as contents say; sizes found at run time stand as numbers."""

from __future__ import annotations

import numpy as np
from cases_nn import Case, real, whole

X = real(3, 4, 5)
FEW = whole(0, 3, 4, 6)


def _host() -> list[Case]:
    """Results of host functions; the numbers of strings start at 1 in a fresh table."""
    return [
        (
            "host.call",
            {"function": "string.text_of", "results": (((2, 2), "int64"),)},
            (ints(5, 7, 5, 8).reshape(2, 2),),
        ),
        ("host.call", {"function": "sequence.of", "results": (((), "int64"),)}, (X, ints(1))),
        (
            "host.call",
            {"function": "string.split_counts", "options": "{}", "results": (((3,), "int64"), ((), "int64"))},
            (ints(0, 0, 0),),
        ),
    ]


def _random() -> list[Case]:
    out: list[Case] = []
    for name in ("random.uniform", "random.normal"):
        for dtype in ("float32", "float64"):
            for seed in (0, -7, 1 << 40):
                out.append((name, {"shape": (3, 5), "dtype": dtype}, (np.array(seed, np.int64),)))
    for shape in ((), (3, 5), (2, 700), (0, 4)):
        out += [("random.twister", {"shape": shape}, (np.array(seed, np.int64),)) for seed in (0, -7, 1 << 40)]
    return out


def _ngrams() -> list[Case]:
    data = whole(0, 4, 3, 12).astype(np.int64)
    pairs = np.array([[0, 1], [1, 3], [2, 2], [3, 0], [3, 1]], np.int64)
    return [
        ("count_ngrams", {"size": 4}, (data, ints(0, 2, 3).reshape(3, 1), ints(1, 0, 3))),
        ("count_ngrams", {"size": 5, "distances": (1, 2, 5)}, (data, pairs, ints(4, 0, 1, 1, 3))),
        ("count_ngrams", {"size": 1, "distances": (20,)}, (data, pairs, ints(0, 0, 0, 0, 0))),
        ("count_ngrams", {"size": 2}, (data, np.zeros((0, 3), np.int64), ints())),
    ]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _found() -> list[Case]:
    boxes, scores = np.abs(real(2, 9, 4)), np.abs(real(2, 3, 9))
    limits = ints(4), np.array([0.2], np.float32), np.array([0.1], np.float32)
    out: list[Case] = [
        ("nonzero_places", {}, (FEW.astype(np.float32),)),
        ("nonzero_places", {}, (np.zeros((3, 2), bool),)),
        ("unravel_rows", {"shape": (4, 6)}, (ints(0, 5, 6, 23),)),
        ("vision.nms", {}, (boxes, scores, *limits)),
        ("vision.nms", {"center": True}, (boxes, scores, *limits)),
    ]
    for order in (True, False):
        out += [
            ("unique_places", {"sorted": order}, (whole(0, 5, 17),)),
            ("unique_places", {"sorted": order}, (whole(0, 2, 9, 2, 2).astype(np.float32),)),
            ("unique_places", {"sorted": order}, (np.float32([2, np.nan, 1, np.nan, 2]),)),
        ]
    return out


def _sizes() -> list[Case]:
    far, low = (1 << 63) - 1, -(1 << 63)
    return [
        ("resolve_shape", {}, (ints(0, -1, 2), ints(3, 4, 2))),
        ("resolve_shape", {"allow_zero": True}, (ints(0, 3), ints(2, 0))),
        ("broadcast_sizes", {}, (ints(1, 3, 2), ints(4, 3, 1))),
        ("range_count", {}, (np.array(10, np.int32), np.array(-3, np.int32), np.array(-4, np.int32))),
        ("range_count", {}, (np.array(0, np.float32), np.array(1, np.float32), np.array(0.3, np.float32))),
        (
            "slice_plan",
            {},
            (ints(0, -1, 5, -100, 2), ints(100, -6, 1, 3, 2), ints(1, -2, -1, 1, 3), ints(5, 5, 9, 4, 4)),
        ),
        ("slice_plan", {}, (ints(0, -1, far, 20), ints(far, low, 3, -30), ints(1, low, 1, -3), ints(5, 5, 4, 0))),
    ]


def _with_sizes() -> list[Case]:
    three = ints(3)
    plan = ints(1, 4, 2, 3, 1, -1).reshape(3, 2)
    widths = ints(1, 0, 0, 0, 2, 1).reshape(2, 3)
    out: list[Case] = [
        ("counted.given", {"extents": ((3, 1, 0),)}, (X, three)),
        ("counted.cut", {"extents": ((2, 1, 0),)}, (X, ints(2))),
        ("counted.reshape", {"newshape": (12, 5)}, (X, ints(12, 5))),
        ("counted.broadcast_to", {"shape": (2, 3, 4)}, (real(3, 1), ints(2, 3, 4))),
        ("counted.range", {"extents": ((5, 2, 0),)}, (np.array(1, np.float32), np.array(0.5, np.float32), ints(5))),
        ("counted.range", {"extents": ((5, 2, 0),)}, (np.array(9, np.int64), np.array(-2, np.int64), ints(5))),
        ("counted.slice", {"axes": (1, -1), "counts": (2, 3)}, (X, plan)),
        ("counted.shape_tensor", {"values": (3, 4), "extents": ((3, 0, 0),)}, (three,)),
        ("counted.arange", {"stop": 3, "extents": ((3, 0, 0),)}, (three,)),
    ]
    for mode in ("constant", "edge", "reflect", "wrap"):
        out.append(
            ("counted.pad", {"shape": (4, 6, 6), "pad_mode": mode}, (X, np.array(7, np.float32), widths, ints(4, 6, 6)))
        )
    return out


CASES: list[Case] = [*_found(), *_sizes(), *_with_sizes(), *_host(), *_random(), *_ngrams()]
