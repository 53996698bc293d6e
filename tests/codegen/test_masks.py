"""Choices whose one condition holds for all lanes: masked loads touch nothing where it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cg_gcc import build as build_c
from cg_native import build as build_native

from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.expr import SizeVar, if_then_else, land
from warpbeam.tir.stmt import PrimFunc


def window(target: str) -> PrimFunc:
    """A window of three by three over maps of any size, zeros outside."""
    h, w, c = SizeVar("h"), SizeVar("w"), 16
    x, k = te.placeholder((h, w, c), name="x"), te.placeholder((3, 3, c), name="k")
    inside = te.compute(
        (h + 2, w + 2, c),
        lambda i, j, f: if_then_else(land(i >= 1, i < h + 1, j >= 1, j < w + 1), x[i - 1, j - 1, f], 0.0),
    )
    a, b = te.reduce_axis(3, "a"), te.reduce_axis(3, "b")
    y = te.compute((h, w, c), lambda i, j, f: te.sum(inside[i + a, j + b, f] * k[a, b, f], axis=[a, b]))
    lowered = schedule([x, k], [y], replace(get(target), cores=1)).lowered
    assert lowered is not None
    return lowered


@pytest.mark.parametrize(("build", "target"), [(build_native, "native"), (build_c, "generic-x86-64-v4")])
@pytest.mark.parametrize("size", [(1, 1), (2, 17), (5, 8)])
def test_window_over_open_maps(build: Any, target: str, size: tuple[int, int]) -> None:
    run = build(window(target))
    rng = np.random.default_rng(size)
    x, k = rng.standard_normal((*size, 16)).astype(np.float32), rng.standard_normal((3, 3, 16)).astype(np.float32)
    around = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    want = sum(around[a : a + size[0], b : b + size[1]] * k[a, b] for a in range(3) for b in range(3))
    out = np.zeros_like(x)
    run(x, k, out, *size)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
