"""What follows a product in the tile sketch."""

import numpy as np
import pytest
from tolerance import close
from winograd_bound import direct

import warpbeam.te as te
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.tir.interp import run
from warpbeam.tir.schedule.layout import apply_layout
from warpbeam.tir.text import to_text
from warpbeam.topi.nn.common import Geometry
from warpbeam.topi.nn.convolution import conv_maps, convolve


@pytest.mark.parametrize("expensive", [False, True])
@pytest.mark.parametrize("rows", [32, 29])
def test_expensive_work_after_a_product_is_a_loop_over_a_copy_of_its_sums(expensive, rows):
    """Written out beside the sums, the exponentials of all of them would find no register free."""
    a, b = te.placeholder((rows, 16), name="a"), te.placeholder((16, 64), name="b")
    k = te.reduce_axis((0, 16), name="k")
    c = te.compute((rows, 64), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
    d = te.compute((rows, 64), lambda i, j: te.exp(c[i, j]) if expensive else c[i, j] + 1.0, name="d")
    plan = schedule([a, b], [d], get("generic-x86-64-v4"))
    assert plan.sketch == "tile"
    assert ("@local" in to_text(plan.lowered)) == expensive
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(s).astype(np.float32) * 0.25 for s in ((rows, 16), (16, 64)))
    got = np.zeros((rows, 64), np.float32)
    run(plan.func, x, y, got)
    want = x.astype(np.float64) @ y
    close(got, np.exp(want) if expensive else want + 1, terms=16 + (8 if expensive else 1))


@pytest.mark.parametrize(("columns", "copied"), [(512, True), (64, False)])
def test_a_panel_that_lies_in_pieces_far_apart_is_copied_before_it_is_used(columns, copied):
    """An operand that is no constant is not packed ahead; its rows, kilobytes apart, would be fetched for each tile."""
    a, b = te.placeholder((256, 32), name="a"), te.placeholder((32, columns), name="b")
    k = te.reduce_axis((0, 32), name="k")
    c = te.compute((256, columns), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
    plan = schedule([a, b], [c], get("generic-x86-64-v4"))
    assert ("b_local" in to_text(plan.lowered)) == copied
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(s).astype(np.float32) for s in ((256, 32), (32, columns)))
    got = np.zeros((256, columns), np.float32)
    run(plan.lowered, x, y, got)
    close(got, x.astype(np.float64) @ y, terms=32)


def test_what_is_added_to_a_product_is_asked_for_while_the_sums_are_made():
    """A residual comes from another core's cache; a bias, a constant, is small and near."""
    a, b, r = (te.placeholder(s, name=n) for s, n in (((64, 32), "a"), ((32, 64), "b"), ((64, 64), "r")))
    bias = te.placeholder((64,), name="bias")
    k = te.reduce_axis((0, 32), name="k")
    c = te.compute((64, 64), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
    d = te.compute((64, 64), lambda i, j: c[i, j] + bias[j] + r[i, j], name="d")
    text = to_text(schedule([a, b, bias, r], [d], get("generic-x86-64-v4"), frozenset({"b", "bias"})).lowered)
    assert "prefetch[int64](r[" in text and "prefetch[int64](bias[" not in text
    assert text.index("prefetch[int64](r[") < text.index("fma(")


def test_cores_share_a_border_of_plain_maps_by_rows_as_they_do_the_results():
    """By maps, three for two cores, the load would be uneven, and half of a core's rows another core's."""
    x, w = te.placeholder((1, 3, 128, 128), name="x"), te.placeholder((3, 3, 3, 32), name="w")
    maps = conv_maps(None, 2, "NCHW", "HWIO", "NHWC")
    y = convolve(x, w, maps, Geometry((2, 2), (1, 1), (1, 1), (1, 1)), 1, (1, 64, 64, 32), "float32")
    plan = schedule([x, w], [y], get("generic-x86-64-v4").replace(cores=2), frozenset({"w"}))
    shared = [
        line.split("parallel(")[1].split(")")[0] for line in to_text(plan.lowered).splitlines() if "parallel(" in line
    ]
    assert plan.sketch == "tile" and shared == ["130", "64"]
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((1, 3, 128, 128), (3, 3, 3, 32)))
    got = np.zeros((64, 64, 32), np.float32)
    layout = plan.func.attrs["layouts"]["w"]
    run(plan.func, a.reshape(3, 128, 128), np.ascontiguousarray(apply_layout(b, layout)), got)
    want = direct(a.transpose(0, 2, 3, 1), b, (1, 1, 1, 1))[0, ::2, ::2]
    close(got, want, terms=27)
