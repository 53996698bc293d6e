"""Random te schedules of small computations equal the unscheduled result exactly. Seeds are in the test names."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from te_check import check

from warpbeam import te
from warpbeam.ir.diagnostics import ScheduleError


def stencil(r: random.Random) -> tuple[list[Any], Callable[..., Any]]:
    n, m = r.choice([5, 12, 17]), r.choice([8, 13])
    a = te.placeholder((n, m), name="A")
    b = te.compute((n, m), lambda i, j: a[i, j] + 1.0, name="B")
    c = te.compute((n, m - 2), lambda i, j: b[i, j] + b[i, j + 1] * 2.0 + b[i, j + 2], name="C")
    d = te.compute((n, m - 2), lambda i, j: c[i, j] - b[i, j], name="D")

    def reference(x: Any, _: Any) -> Any:
        y = x + 1
        return y[:, :-2] + y[:, 1:-1] * 2 + y[:, 2:] - y[:, :-2]

    return [a, d], reference


def dense(r: random.Random) -> tuple[list[Any], Callable[..., Any]]:
    n, m, k = r.choice([4, 11]), r.choice([8, 9]), r.choice([6, 13])
    a, b = te.placeholder((n, k), name="A"), te.placeholder((k, m), name="B")
    q = te.reduce_axis((0, k), name="k")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, q] * b[q, j], axis=q), name="C")
    d = te.compute((n, m), lambda i, j: c[i, j] * 2.0, name="D")
    return [a, b, d], lambda x, y, _: (x @ y) * 2


def window(r: random.Random) -> tuple[list[Any], Callable[..., Any]]:
    h, w, c = r.choice([5, 8]), r.choice([6, 7]), r.choice([2, 3])
    x, k = te.placeholder((c, h, w), name="X"), te.placeholder((4, c, 3, 3), name="K")
    pad = te.compute(
        (c, h + 2, w + 2),
        lambda a, i, j: te.if_then_else(te.all(i >= 1, i <= h, j >= 1, j <= w), x[a, i - 1, j - 1], 0.0),
        name="pad",
    )
    p, q, t = te.reduce_axis((0, 3), "p"), te.reduce_axis((0, 3), "q"), te.reduce_axis((0, c), "t")
    y = te.compute((4, h, w), lambda o, i, j: te.sum(pad[t, i + p, j + q] * k[o, t, p, q], axis=[t, p, q]), name="Y")

    def reference(v: Any, f: Any, out: Any) -> Any:
        z = np.pad(v, ((0, 0), (1, 1), (1, 1)))
        for i in range(h):
            for j in range(w):
                out[:, i, j] = (z[None, :, i : i + 3, j : j + 3] * f).sum((1, 2, 3))
        return out

    return [x, k, y], reference


def rows(r: random.Random) -> tuple[list[Any], Callable[..., Any]]:
    n, m = r.choice([3, 8]), r.choice([7, 16])
    x = te.placeholder((n, m), "int32", name="X")
    k, l = te.reduce_axis((0, m), "k"), te.reduce_axis((0, m), "l")
    top = te.compute((n,), lambda i: te.max(x[i, k], axis=k), name="top")
    low = te.compute((n, m), lambda i, j: x[i, j] - top[i], name="low")
    total = te.compute((n,), lambda i: te.sum(low[i, l], axis=l), name="total")
    out = te.compute((n, m), lambda i, j: low[i, j] * total[i], name="out")

    def reference(v: Any, _: Any) -> Any:
        d = v - v.max(1, keepdims=True)
        return d * d.sum(1, keepdims=True)

    return [x, out], reference


def running(r: random.Random) -> tuple[list[Any], Callable[..., Any]]:
    t, n = r.choice([3, 6]), r.choice([5, 8])
    x = te.placeholder((t, n), "int32", name="X")
    state = te.placeholder((t, n), "int32", name="state")
    start = te.compute((1, n), lambda _, i: x[0, i], name="start")
    mixed = te.compute((t, n), lambda k, i: state[k - 1, i] + state[k - 1, n - 1 - i], name="mixed")
    step = te.compute((t, n), lambda k, i: mixed[k, i] + x[k, i], name="step")
    out = te.scan(start, step, state, inputs=[x])

    def reference(v: Any, _: Any) -> Any:
        y = v.copy()
        for k in range(1, t):
            y[k] = y[k - 1] + y[k - 1][::-1] + v[k]
        return y

    return [x, out], reference


COMPUTATIONS = (stencil, dense, window, rows, running)


class Player:
    """Makes random moves on a schedule; a move that the façade refuses is dropped."""

    def __init__(self, s: Any, r: random.Random) -> None:
        self.s, self.r, self.made = s, r, []

    def stages(self) -> list[Any]:
        return [st for st in self.s.stages if isinstance(st.op, te.ComputeOp) and st.attach_type != 2]

    def dataflow(self) -> None:
        st = self.r.choice(self.stages())
        t = st.op.output(0)
        move = self.r.choice(["cache_read", "cache_write", "rfactor", "inline"])
        if move == "cache_read":
            source = self.r.choice(st.op.input_tensors)
            self.s.cache_read(source, self.r.choice(["global", "local"]), [st.op])
        elif move == "cache_write":
            self.s.cache_write(t, self.r.choice(["global", "local"]))
        elif move == "rfactor" and st.op.reduce_axis:
            parts = self.s[t].split(st.op.reduce_axis[0], self.r.choice([2, 3, 4]))
            self.s.rfactor(t, self.r.choice(parts), self.r.choice([0, -1]))
        elif not st.op.reduce_axis and not st.is_output:
            st.compute_inline()
        self.made.append(f"{move} {st.op.name}")

    def loops(self, st: Any) -> None:
        leaves = list(st.leaf_iter_vars)
        if not leaves:
            return
        move = self.r.choice(["split", "split", "nparts", "fuse", "reorder"])
        axis = self.r.choice(leaves)
        if move == "split":
            st.split(axis, self.r.choice([2, 3, 4, 8]))
        elif move == "nparts":
            st.split(axis, nparts=self.r.choice([2, 3]))
        elif move == "fuse" and len(leaves) > 1:
            k = self.r.randrange(len(leaves) - 1)
            if leaves[k].iter_type == leaves[k + 1].iter_type:
                st.fuse(leaves[k], leaves[k + 1])
        elif move == "reorder":
            self.r.shuffle(leaves)
            st.reorder(*leaves[: self.r.randrange(len(leaves) + 1)])
        self.made.append(f"{move} {st.op.name}")

    def place(self, st: Any) -> None:
        users = [u for u in self.stages() if set(st.op.input_tensors) and st.op.output(0) in u.op.input_tensors]
        if len(users) == 1 and not st.is_output and users[0].leaf_iter_vars:
            axis = self.r.choice(users[0].leaf_iter_vars)
            st.compute_at(users[0], axis)
            self.made.append(f"compute_at {st.op.name} {users[0].op.name}.{axis.var.name}")

    def kinds(self, st: Any) -> None:
        spatial = [a for a in st.leaf_iter_vars if a.iter_type == 0]
        if spatial and self.r.random() < 0.5:
            st.vectorize(spatial[-1])
            self.made.append(f"vectorize {st.op.name}")
        if len(spatial) > 1 and self.r.random() < 0.3:
            st.unroll(spatial[-2])

    def play(self) -> None:
        for _ in range(self.r.randrange(3)):
            try:
                self.dataflow()
            except ScheduleError as refused:
                self.made.append(f"refused: {refused.what}")
        for st in self.stages():
            for _ in range(self.r.randrange(5)):
                try:
                    self.loops(st)
                except ScheduleError as refused:
                    self.made.append(f"refused: {refused.what}")
        for st in self.stages():
            if self.r.random() < 0.6:
                try:
                    self.place(st)
                except ScheduleError as refused:
                    self.made.append(f"refused: {refused.what}")
            self.kinds(st)


def play(seed: int, machine: bool) -> str:
    """One random schedule; gives what kept it from being lowered, or nothing."""
    r = random.Random(seed)
    args, reference = r.choice(COMPUTATIONS)(r)
    s = te.create_schedule(args[-1].op)
    player = Player(s, r)
    player.play()
    try:
        check(s, args, reference, machine=machine)
    except ScheduleError as refused:
        return str(refused)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {player.made}") from error
    return ""


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_schedules(first):
    refused = [m for m in (play(seed, machine=seed % 3 == 0) for seed in range(first, first + 10)) if m]
    assert len(refused) <= 4, refused


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_more_random_schedules(first):
    refused = [m for m in (play(seed, machine=seed % 5 == 0) for seed in range(first, first + 100)) if m]
    assert len(refused) <= 30, refused
