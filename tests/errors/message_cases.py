"""A case is the words of a message and a program that is refused with them. Programs come from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from warpbeam import te, tir
from warpbeam.runtime.errors import WarpbeamError
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text import parse

Case = tuple[str, Callable[[], Any]]


def refused(cases: Sequence[Case]) -> Any:
    """A test of each case, for a module to name: its program raises an error of ours that says so."""

    @pytest.mark.parametrize("phrase, program", cases, ids=[f"{k}-{p[:40]}" for k, (p, _) in enumerate(cases)])
    def test(phrase: str, program: Callable[[], Any]) -> None:
        with pytest.raises(WarpbeamError) as found:
            program()
        assert phrase in found.value.what

    return test


class Te:
    """A fresh pair of stages, a product and a scan, each with its schedule."""

    def __init__(self) -> None:
        self.A = te.placeholder((16, 16), name="A")
        self.B = te.compute((16, 16), lambda i, j: self.A[i, j] + 1.0, name="B")
        self.C = te.compute((16, 16), lambda i, j: self.B[i, j] * 2.0, name="C")
        self.k = te.reduce_axis((0, 16), name="k")
        self.D = te.compute((16, 16), lambda i, j: te.sum(self.B[i, self.k] * self.A[self.k, j], axis=self.k), name="D")
        self.E = te.compute((16, 16), lambda i, j: self.D[i, j] + 1.0, name="E")
        self.s = te.create_schedule([self.C.op, self.E.op])
        self.thread = te.thread_axis("threadIdx.x")

    def lower(self) -> Any:
        """What the schedule makes."""
        return te.schedule.lower(self.s, [self.A, self.C, self.E])


class Scan:
    """A running sum over ten steps."""

    def __init__(self) -> None:
        self.X = te.placeholder((10, 4), name="X")
        self.state = te.placeholder((10, 4), name="state")
        self.init = te.compute((1, 4), lambda t, i: self.X[0, i], name="init")
        self.update = te.compute((10, 4), lambda t, i: self.state[t - 1, i] + self.X[t, i], name="update")
        self.R = te.scan(self.init, self.update, self.state, inputs=[self.X], name="R")
        self.s = te.create_schedule(self.R.op)


def add_one(n: Any = 4) -> Any:
    """An intrinsic for n elements."""
    a = te.placeholder((n,), name="a")
    b = te.compute((n,), lambda i: a[i] + 1.0, name="b")
    return te.decl_tensor_intrin(b.op, lambda ins, outs: tir.call_extern("int32", "one", outs[0].access_ptr("w")))


def total() -> Any:
    """An intrinsic for the sum of 16 elements, which starts anew."""
    a, k = te.placeholder((16,), name="a"), te.reduce_axis((0, 16), name="k")
    b = te.compute((1,), lambda i: te.sum(a[k], axis=k), name="b")
    return te.decl_tensor_intrin(b.op, lambda ins, outs: tir.call_extern("int32", "sum", outs[0].access_ptr("w")))


def text(source: str) -> Schedule:
    """The schedule of a program given as text; a line without `def` is the body over A, B, C of 16 elements."""
    if not source.startswith("def"):
        rows = "".join(f"    {row}\n" for row in source.strip("\n").splitlines())
        source = f"def f(A: float32[16], B: float32[16], C: float32[16], n: size):\n{rows}"
    return Schedule(parse(source))


def store(target: str, value: str, name: str = "b", var: str = "i", extent: str = "16", where: str = "") -> str:
    """A block in a loop of its own: target = value over v."""
    head = f'    block "{name}" (v_{name}: spatial[{extent}] = {var}){where}:'
    body = f"        {target} = {value}".replace("$", f"v_{name}")
    return "\n".join([f"for {var} in range({extent}):", head, body])
