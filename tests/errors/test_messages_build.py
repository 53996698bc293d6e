"""Every message of building, and of calling what was built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from message_cases import Case, Te, refused

import warpbeam
from warpbeam import relay, te
from warpbeam.relay.expr import IRModule
from warpbeam.runtime.errors import WarpbeamError


def _built() -> Any:
    p = Te()
    return warpbeam.build(te.create_schedule(p.B.op), [p.A, p.B], name="f")


def _with_number() -> Any:
    n = te.var("n")
    a = te.placeholder((4,), name="a")
    b = te.compute((4,), lambda i: a[i] * n.astype("float32"), name="b")
    return warpbeam.build(te.create_schedule(b.op), [a, b, n], name="f")


def _arrays(*shapes: tuple[int, ...]) -> list[Any]:
    return [np.zeros(s, "float32") for s in shapes]


def _on_device(*shapes: tuple[int, ...]) -> list[Any]:
    return [warpbeam.nd.array(a) for a in _arrays(*shapes)]


def _relay_module() -> Any:
    x = relay.var("x", shape=(4,))
    return IRModule.from_expr(relay.Function([x], relay.nn.relu(x)))


def _timed(*shapes: tuple[int, ...]) -> Any:
    return _built().time_evaluator("f", warpbeam.cpu(), number=2)(*_on_device(*shapes))


def _twice() -> Any:
    """The second call takes the short way."""
    f, arrays = _built(), _on_device((16, 16), (16, 15))
    with pytest.raises(WarpbeamError):
        f(*arrays)
    f(*arrays)


CASES: list[Case] = [
    ("nothing to build", lambda: warpbeam.build({})),
    ("the module holds a Function", lambda: warpbeam.build(_relay_module())),
    ("f: num_args should be 2", lambda: _built()(*_arrays((16, 16)))),
    ("f: num_args should be 2", lambda: _built()(*_on_device((16, 16)))),
    ("f: num_args should be 2", lambda: _timed((16, 16))),
    ("has an unsatisfied constraint", lambda: _built()(*_arrays((16, 16), (16, 15)))),
    ("has an unsatisfied constraint", lambda: _built()(*_on_device((16, 16), (16, 15)))),
    ("has an unsatisfied constraint", _twice),
    ("has an unsatisfied constraint", lambda: _timed((16, 16), (16, 15))),
    ("Argument f.n: 1180591620717411303424 does not fit into int",
     lambda: _with_number()(*_arrays((4,), (4,)), 1 << 70)),
]  # fmt: skip


test_the_message_comes = refused(CASES)
