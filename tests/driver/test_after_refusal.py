"""A call that is refused leaves nothing behind: the next one is as if it had not been."""

from __future__ import annotations

import numpy as np
import pytest

import warpbeam
from warpbeam import relay
from warpbeam.runtime import RunError


def test_sizes_of_a_refused_call_are_forgotten() -> None:
    x, z = (relay.var(n, shape=(relay.Any(), 64), dtype="float32") for n in "xz")
    body = relay.add(relay.sum(x), relay.sum(z))
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([x, z], body)), cache=False)
    ones = np.ones((8, 64), np.float32)
    for rows in (9, 200_000):
        (got,) = module.run({"x": ones, "z": ones}).values()
        assert got == 1024
        with pytest.raises(RunError):
            module.run({"x": np.ones((rows, 64), np.float32), "z": np.ones((8, 63), np.float32)})
    (got,) = module.run({"x": ones, "z": ones}).values()
    assert got == 1024


def test_a_length_after_one_that_is_too_short() -> None:
    x = relay.var("x", shape=(2, 3, relay.Any()), dtype="float32")
    w = relay.const(np.ones((5, 3, 5), np.float32))
    body = relay.nn.conv1d(x, w, channels=5, kernel_size=(5,))
    module = warpbeam.compile(relay.IRModule.from_expr(relay.Function([x], body)), cache=False)
    for length in (8, 3, 8, 4, 1, 8):
        v = np.ones((2, 3, length), np.float32)
        if length < 5:
            with pytest.raises(RunError):
                module.run({"x": v})
        else:
            (got,) = module.run({"x": v}).values()
            np.testing.assert_array_equal(got, np.full((2, 5, 4), 15, np.float32))
