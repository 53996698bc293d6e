"""Frames of signals of open lengths, and parts of them put together: tiles of several rows, and no load far outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import warpbeam
from warpbeam import relay
from warpbeam.cost.tile_prior import choose
from warpbeam.driver.api import compile_with_report
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch.base import Group, supposed
from warpbeam.sketch.select import schedule
from warpbeam.sketch.structure import contraction
from warpbeam.sketch.tile import anatomy
from warpbeam.sketch.tile_shape import describe
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.expr import BufferLoad, Call, SizeVar, if_then_else

TARGET = replace(get("generic-x86-64-v4"), cores=2)


@pytest.mark.parametrize(
    ("size", "likely"),
    [
        (lambda n, m: n, 128),
        (lambda n, m: n * m, 32 * 32),
        (lambda n, m: n // 16, 8),
        (lambda n, m: (n + 128) // 160 - 3, 49),
        (lambda n, m: n - 2000, 6192),
        (lambda n, m: 12, 12),
    ],
    ids=["one", "two", "part", "frames", "rest", "known"],
)
def test_what_open_sizes_are_taken_to_be(size, likely: int) -> None:
    assert supposed(size(SizeVar("n"), SizeVar("m"))) == likely


@pytest.mark.parametrize(("width", "rows"), [(100, True), (3, False)], ids=["long", "short"])
def test_an_open_batch_is_perhaps_of_one(width: int, rows: bool) -> None:
    n = SizeVar("n")
    a, b = te.placeholder((n, 2 * width + 2, 16), name="a"), te.placeholder((4, 16, 32), name="b")
    k, c = te.reduce_axis((0, 4), "k"), te.reduce_axis((0, 16), "c")
    body = lambda i, j, o: te.sum(a[i, 2 * j + k, c] * b[k, c, o], axis=[k, c])  # noqa: E731
    out = te.compute((n, width, 32), body, "out")
    group = Group([a, b], [out], TARGET, frozenset({"b"}))
    parts = anatomy(group)
    assert parts is not None
    shape = describe(group, parts, contraction(parts.anchor.op))
    assert (shape.supposed[0] == 1) == rows
    assert not rows or choose(shape, TARGET).rows[1] > 1


def test_frames_of_an_open_signal_go_in_tiles() -> None:
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((96, 1, 64)) / 8).astype(np.float32)
    x = relay.var("x", shape=(relay.Any(), 1, relay.Any()), dtype="float32")
    y = relay.nn.conv1d(x, relay.const(w), strides=16, channels=96, kernel_size=64)
    module, report = compile_with_report(relay.IRModule.from_expr(relay.Function([x], y)), cache=False)
    (row,) = [r for r in report.rows if r["sketch"] == "tile"]
    assert row["decisions"]["rows"].split("x")[-1] != "1"
    for batch, length in ((1, 64), (1, 79), (1, 64 + 16 * 25), (3, 1000)):
        v = rng.standard_normal((batch, 1, length)).astype(np.float32)
        (got,) = module.run({"x": v}).values()
        frames = np.lib.stride_tricks.sliding_window_view(v[:, 0].astype(np.float64), 64, axis=1)[:, ::16]
        want = np.einsum("bfk,ok->bof", frames, w[:, 0].astype(np.float64))
        bound = 64 * 2.0**-24 * np.einsum("bfk,ok->bof", np.abs(frames), np.abs(w[:, 0]).astype(np.float64))
        assert np.asarray(got).shape == want.shape and (np.abs(got - want) <= bound).all()


def test_of_two_loads_the_wrong_one_is_not_begun() -> None:
    """The one that is not chosen may be on a page that does not exist, where even a load of no lane takes long."""
    n = SizeVar("n")
    a = te.placeholder((n, 100, 32), name="a")
    ahead = lambda i, j, c: if_then_else(j < 40, a[i, j + 60, c], a[i, j - 40, c])  # noqa: E731
    plan = schedule([a], [te.compute((n, 140, 32), ahead, "wrapped")], TARGET)
    choices = [c for c in post_order(plan.lowered.body) if isinstance(c, Call) and c.op == "if_then_else"]
    assert choices and all("x" not in c.args[0].dtype for c in choices), "a branch"
    padded = lambda i, j, c: if_then_else(j < 40, a[i, j + 60, c], 0.0)  # noqa: E731
    plan = schedule([a], [te.compute((n, 140, 32), padded, "padded")], TARGET)
    choices = [c for c in post_order(plan.lowered.body) if isinstance(c, Call) and c.op == "if_then_else"]
    assert choices and all("x16" in c.args[0].dtype for c in choices), "a mask: beside a border it is cheaper"
    assert any(isinstance(x, BufferLoad) for c in choices for x in post_order(c))


def test_wrapped_borders_of_an_open_batch() -> None:
    x = relay.var("x", shape=(relay.Any(), 100, 32), dtype="float32")
    ends = [relay.strided_slice(x, begin=[b], end=[e], axes=[1]) for b, e in ((60, 100), (0, 40))]
    module = warpbeam.compile(
        relay.IRModule.from_expr(relay.Function([x], relay.concatenate((ends[0], x, ends[1]), axis=1))), cache=False
    )
    v = np.random.default_rng(0).standard_normal((3, 100, 32)).astype(np.float32)
    (got,) = module.run({"x": v}).values()
    np.testing.assert_array_equal(got, np.concatenate([v[:, 60:], v, v[:, :40]], axis=1))
