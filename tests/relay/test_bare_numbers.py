"""Bare numbers take the type of the tensors that they are computed with, and of no other operand."""

from __future__ import annotations

import numpy as np

import warpbeam
from warpbeam import relay


def test_choices_between_bare_numbers_keep_their_type() -> None:
    a = relay.var("a", shape=(4,), dtype="int32")
    one, two = (relay.const(np.asarray(v, "int32")) for v in (1, 2))
    body = relay.where(relay.greater_equal(a, two), one, two)
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([a], body)), cache=False)
    (got,) = module.run({"a": np.arange(4, dtype=np.int32)}).values()
    assert got.dtype == np.int32 and got.tolist() == [2, 2, 1, 1]


def test_a_place_to_take_from_and_what_a_place_is_marked_with() -> None:
    x, i = relay.var("x", shape=(4, 5), dtype="float32"), relay.var("i", shape=(3,), dtype="int32")
    assert relay.take(x, relay.const(np.asarray(1, "int32")), axis=0).ty.dtype == "float32"
    marks = [relay.const(np.asarray(v, "float32")) for v in (1.5, 0.25)]
    hot = relay.one_hot(i, *marks, depth=4, axis=-1, dtype="float32")
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([i], hot)), cache=False)
    (got,) = module.run({"i": np.array([0, 3, 1], np.int32)}).values()
    np.testing.assert_array_equal(got, np.where(np.arange(4) == [[0], [3], [1]], np.float32(1.5), np.float32(0.25)))


def test_beside_tensors_they_take_their_type() -> None:
    x, c = relay.var("x", shape=(4,), dtype="float16"), relay.var("c", shape=(4,), dtype="bool")
    two = relay.const(np.asarray(2, "int32"))
    for made in (relay.add(x, two), relay.where(c, x, two), relay.nn.pad(x, two, pad_width=((1, 1),))):
        assert made.ty.dtype == "float16" and made.args[-1].ty.dtype == "float16"
