"""Windows along the innermost axis: every border, stride and rest of a line agrees with NumPy, however it is run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tolerance import close

from warpbeam import te, topi
from warpbeam.sketch.base import Plan
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.tir.interp import run
from warpbeam.tir.transform import lower

sys.path.insert(0, str(Path(__file__).parent.parent / "tir"))

import schedule_native

V3, V4 = get("generic-x86-64-v3"), get("generic-x86-64-v4")
#: channels, height, width, kernel, stride, padding (top, left, bottom, right), dilation
CASES = [
    (3, 7, 7, 3, 1, (1, 1, 1, 1), 1),
    (3, 14, 14, 3, 2, (1, 1, 1, 1), 1),
    (2, 9, 33, 3, 1, (1, 1, 1, 1), 1),
    (2, 17, 30, 5, 2, (2, 2, 2, 2), 1),
    (2, 12, 16, 3, 1, (0, 0, 0, 0), 1),
    (2, 11, 13, 3, 1, (0, 2, 1, 0), 2),
    (2, 10, 45, 3, 3, (1, 0, 0, 2), 1),
    (2, 66, 66, 3, 1, (1, 1, 1, 1), 1),
    (2, 9, 21, 7, 1, (3, 3, 3, 3), 1),
    (2, 7, 7, 7, 1, (3, 3, 3, 3), 1),
]


def planned(case: tuple, target: object) -> Plan:
    c, h, w, k, stride, pad, dilation = case
    x, kernel = te.placeholder((1, c, h, w), name="x"), te.placeholder((c, 1, k, k), name="kernel")
    y = topi.nn.conv(x, kernel, stride, pad, dilation, groups=c)
    z = te.compute(y.shape, lambda *i: y[i] + 0.5, name="z")
    return schedule([x, kernel], [z], target)  # type: ignore[arg-type]


def expected(x: np.ndarray, kernel: np.ndarray, case: tuple) -> np.ndarray:
    *_, k, stride, (top, left, bottom, right), dilation = case
    around = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    covered = (k - 1) * dilation
    rows, columns = ((s - covered - 1) // stride + 1 for s in around.shape[1:])
    out = np.full((len(x), rows, columns), 0.5, np.float32)
    for a in range(k):
        for b in range(k):
            i, j = a * dilation, b * dilation
            part = around[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
            out += part * kernel[:, a, b, None, None]
    return out


def data(case: tuple) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    c, h, w, k = case[:4]
    return rng.standard_normal((c, h, w)).astype(np.float32), rng.standard_normal((c, k, k)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_depthwise(case: tuple) -> None:
    x, kernel = data(case)
    want = expected(x, kernel, case)
    plan = planned(case, V4)
    assert plan.sketch == "lines"
    here = get("native")
    native = lower(planned(case, here).func, here)
    functions = [
        lambda *arrays: run(plan.func, *arrays),
        lambda *arrays: run(lower(plan.func, V4), *arrays),
        schedule_native.by_llvm(native, here),
        *schedule_native.by_c([lower(plan.func, V4), lower(planned(case, get("c")).func, get("c"))]),
    ]
    for function in functions:
        got = np.full(want.shape, np.nan, np.float32)
        function(x, kernel, got)
        close(got, want, terms=case[3] ** 2 + 1)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[3]])
def test_machines_without_masks(case: tuple) -> None:
    x, kernel = data(case)
    want = expected(x, kernel, case)
    got = np.zeros_like(want)
    schedule_native.by_llvm(lower(planned(case, V3).func, V3), V3)(x, kernel, got)
    close(got, want, terms=case[3] ** 2 + 1)


def test_nothing_outside_the_map_counts() -> None:
    """Maxima of negative numbers: neither a border nor another map's numbers may win."""
    x, a, b = te.placeholder((3, 7, 7), name="x"), te.reduce_axis(3, "a"), te.reduce_axis(3, "b")
    worst = te.min_value("float32")
    around = topi.nn.pad(x, (0, 1, 1), (0, 1, 1), worst)
    y = te.compute((3, 7, 7), lambda c, i, j: te.max(around[c, i + a, j + b], axis=[a, b]), name="y")
    plan = schedule([x], [y], get("native"))
    assert plan.sketch == "lines"
    values = -1 - np.arange(147, dtype=np.float32).reshape(3, 7, 7) % 50
    values[1, 3, 3] = np.nan
    wide = np.pad(values, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    want = np.max([wide[:, i : i + 7, j : j + 7] for i in range(3) for j in range(3)], axis=0)
    got = np.zeros_like(values)
    schedule_native.by_llvm(lower(plan.func, get("native")))(values, got)
    np.testing.assert_array_equal(got, want)


def test_only_lines_that_fit_and_plain_channels() -> None:
    assert planned((2, 300, 300, 3, 1, (1, 1, 1, 1), 1), V4).sketch == "lines"  # of a large map, a tile's lines
    assert planned((2, 8, 9000, 3, 1, (1, 1, 1, 1), 1), V4).sketch != "lines"  # 360 kB of a tile's lines
    assert planned((2, 64, 64, 8, 1, (3, 3, 4, 4), 1), V4).sketch != "lines"  # 64 taps
    x, kernel = te.placeholder((1, 4, 9, 9), name="x"), te.placeholder((8, 1, 3, 3), name="kernel")
    two = topi.nn.conv(x, kernel, 1, 1, 1, groups=4)  # two results of each channel
    assert schedule([x, kernel], [two], V4).sketch != "lines"
