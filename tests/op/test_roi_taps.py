"""Pooling over regions by samples whose places and weights are found once for all channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import op, relay
from warpbeam.ir import dtype as dt
from warpbeam.relay.types import TensorType
from warpbeam.tir import interp
from warpbeam.tir.expr import SizeVar

F32 = np.float32
#: inside, beyond each border, all outside, no area, turned round, a point, larger than the data
REGIONS = [
    (1.2, 2.1, 9.7, 8.3), (-4, -6, 3, 2.5), (5, 7, 40, 30), (50, 60, 70, 80), (3, 3, 3, 3), (8, 9, 2, 1),
    (4.5, 4.5, 5.0, 5.0), (-30.3, -20.6, 60.2, 50.9), (0, 0, 15, 11), (14.5, 10.5, 15.5, 11.5),
    (-61.3, -53.8, 75.4, 81.7),
]  # fmt: skip


def operands(height: int = 12, width: int = 17, dtype: Any = F32) -> tuple[np.ndarray, ...]:
    x = np.random.default_rng(width).standard_normal((2, 3, height, width)).astype(dtype)
    rois = np.array(REGIONS).astype(dtype)
    return x, rois, np.arange(len(rois)) % 2


def compiled(types: list[TensorType], **attrs: Any) -> Any:
    variables = [relay.var(f"v{i}", shape=t.shape, dtype=t.dtype) for i, t in enumerate(types)]
    body = op.get("vision.roi_align")(*variables, **attrs)
    return warpbeam.compile(relay.IRModule.from_expr(relay.Function(variables, body)), cache=False)


def of(values: Any) -> list[TensorType]:
    return [TensorType(v.shape, dt.from_numpy(v.dtype)) for v in values]


def check(module: Any, values: Any, tolerance: float = 3e-5, **attrs: Any) -> None:
    (got,) = module.run({f"v{i}": v for i, v in enumerate(values)}).values()
    o = op.get("vision.roi_align")
    want = o.numpy(o.attrs(attrs), *values).astype(np.float64)
    np.testing.assert_allclose(np.asarray(got).astype(np.float64), want, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("samples", [0, 1, 2, 5])
@pytest.mark.parametrize("half", [False, True])
def test_regions(mode: str, samples: int, half: bool) -> None:
    attrs = {"pooled_size": (3, 5), "sample_ratio": samples, "mode": mode, "half_pixel": half, "spatial_scale": 0.75}
    values = operands()
    check(compiled(of(values), **attrs), values, **attrs)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("width", [1, 3, 8, 16, 33])
def test_widths(mode: str, width: int) -> None:
    attrs = {"pooled_size": (2, 2), "mode": mode}
    values = operands(5, width)
    check(compiled(of(values), **attrs), values, **attrs)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("float64", 1e-12)])
def test_types(dtype: str, tolerance: float) -> None:
    attrs = {"pooled_size": (2, 3), "sample_ratio": 2}
    values = operands(dtype=dtype)
    check(compiled(of(values), **attrs), values, tolerance, **attrs)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_open_sizes(mode: str) -> None:
    attrs = {"pooled_size": (3, 3), "mode": mode}
    n, h, w = (SizeVar(v) for v in "nhw")
    types = [TensorType((2, 3, h, w), "float32"), TensorType((n, 4), "float32"), TensorType((n,), "int64")]
    module = compiled(types, **attrs)
    for size in ((7, 5), (12, 17), (40, 16)):
        check(module, operands(*size), **attrs)


def test_elements_that_no_sample_reads_do_not_matter() -> None:
    x, _, _ = operands()
    x[:, :, 0], x[:, :, :, 0] = np.nan, np.inf
    rois = np.array([(1, 1, 15, 10), (2, 3, 9, 9)], F32)
    attrs = {"pooled_size": (2, 2), "sample_ratio": 2, "half_pixel": False}
    values = x, rois, np.array([0, 1])
    check(compiled(of(values), **attrs), values, **attrs)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    values = operands()
    module = compiled(of(values), pooled_size=(4, 4))
    found = []
    for threads in (1, 2, 3):
        module.num_threads = threads
        found.append(np.asarray(next(iter(module.run({f"v{i}": v for i, v in enumerate(values)}).values()))))
    assert all(np.array_equal(found[0], f) for f in found)


@pytest.mark.parametrize(
    ("rois", "batch", "message"), [((0, 0, 9, 9), 2, "outside the data"), ((0, 0, 1e8, 9), 0, "too large")]
)
def test_errors(rois: Any, batch: int, message: str) -> None:
    x, _, _ = operands()
    values = x, np.array([rois], F32), np.array([batch])
    with pytest.raises(warpbeam.WarpbeamError, match=message):
        compiled(of(values), pooled_size=(2, 2)).run({f"v{i}": v for i, v in enumerate(values)})


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_interpreted(mode: str) -> None:
    o, values = op.get("vision.roi_align"), operands()
    attrs, types = o.attrs({"pooled_size": (2, 2), "mode": mode}), of(values)
    found = np.zeros((len(REGIONS), 3, 2, 2), F32)
    values = values[0], values[1][:3], values[2][:3]
    types, found = of(values), found[:3].copy()
    interp.run(o.compute_prim(attrs, types, o.infer(types, attrs)), *values, found)
    np.testing.assert_allclose(found, o.numpy(attrs, *values), rtol=1e-5, atol=1e-5)
