"""Windows are added back into images in vectors, whatever their distances."""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import close

from warpbeam import op, relay
from warpbeam.driver.api import compile_with_report
from warpbeam.ir.dtype import to_numpy

GEOMETRIES = [
    ((20, 37), (3, 3), 1, 1, 1),
    ((9, 40), (3, 2), 1, 0, 1),
    ((12, 36), (2, 4), 2, 0, 1),
    ((11, 35), (3, 3), 2, (1, 0, 0, 1), 1),
    ((10, 33), (3, 3), 1, 2, 2),
    ((10, 20), (3, 2), (2, 3), 2, 2),
    ((30,), (5,), 3, 1, 1),
    ((5, 6, 18), (2, 2, 2), 1, 0, 1),
    ((24, 24), (9, 9), 1, 0, 1),
]


@pytest.mark.parametrize(("image", "block", "strides", "padding", "dilation"), GEOMETRIES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int32", "int8"])
def test_values(image: tuple, block: tuple, strides, padding, dilation, dtype: str) -> None:
    which = op.get("col2im")
    attrs = {"image_shape": image, "block_shape": block, "strides": strides, "padding": padding, "dilation": dilation}
    full = which.attrs(attrs)
    windows, taps = int(np.prod(which.geometry(full)[0])), int(np.prod(block))
    x = np.random.default_rng(0).integers(-3, 4, (2, 3 * taps, windows)).astype(to_numpy(dtype))
    if "float" in dtype:
        x[0, :taps, windows // 2] = np.inf
        x[1, 1, 1] = np.nan
    for batch in (2, relay.Any()):
        given = relay.var("x", shape=(batch, *x.shape[1:]), dtype=dtype)
        mod = relay.IRModule.from_expr(relay.Function([given], relay.col2im(given, **attrs)))
        module, report = compile_with_report(mod, cache=False)
        even = np.max(strides) == 1 or np.max(dilation) == 1
        assert not even or taps > 49 or [row["sketch"] for row in report.rows] == ["pointwise"]
        with np.errstate(invalid="ignore"):
            want = which.numpy(full, x).astype(np.float64)
        for threads in (1, 2):
            module.num_threads = threads
            (got,) = module.run({"x": x}).values()
            finite = np.isfinite(want)
            np.testing.assert_array_equal(np.asarray(got).astype(np.float64)[~finite], want[~finite])
            close(np.asarray(got)[finite], want[finite], terms=taps)
