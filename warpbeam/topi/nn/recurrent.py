"""Recurrent layers (LSTM, GRU, simple RNN) as scans over time.

The products with the inputs do not depend on the state; they are made beforehand and come in as `z`. What remains per
step is a product of the last state with the recurrent weights, and the gates' arithmetic:

    z   (T, B, D, G, H)   inputs by input weights, with all biases that are simply added
    r   (D, H, G, H)      recurrent weights: [direction, from unit, gate, to unit]; bytes with scales rs (D, G, H)
    h   (T, D, B, H)      the state after each step, in the order of the steps; direction 1 (or a reversed one) walks
                          each sequence from its own end

A sequence of the batch that has ended keeps the zeros that the format wants there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.te.scan import scan
from warpbeam.tir import expr as E
from warpbeam.topi.common import accumulation

Fn = Callable[[Any], Any]

#: Number of gates by kind of cell.
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def _one(x: Any) -> Any:
    return E.const(1, x.dtype)


def activation(name: str, alpha: float, beta: float) -> Fn:
    """The scalar function of an activation's name in ONNX, in lower case."""
    functions: dict[str, Fn] = {
        "relu": lambda x: E.maximum(x, E.const(0, x.dtype)),
        "tanh": lambda x: E.call("tanh", x),
        "sigmoid": lambda x: E.call("sigmoid", x),
        "affine": lambda x: x * alpha + beta,
        "leakyrelu": lambda x: E.select(x >= 0, x, x * alpha),
        "thresholdedrelu": lambda x: E.select(x > alpha, x, E.const(0, x.dtype)),
        "scaledtanh": lambda x: E.call("tanh", x * beta) * alpha,
        "hardsigmoid": lambda x: E.maximum(E.minimum(x * alpha + beta, _one(x)), E.const(0, x.dtype)),
        "elu": lambda x: E.select(x >= 0, x, (E.call("exp", E.minimum(x, E.const(0, x.dtype))) - _one(x)) * alpha),
        "softsign": lambda x: x / (_one(x) + E.call("abs", x)),
        "softplus": lambda x: (
            E.maximum(x, E.const(0, x.dtype)) + E.call("log", _one(x) + E.call("exp", E.call("abs", x) * -1.0))
        ),
    }
    return functions[name]


@dataclass(frozen=True, slots=True)
class Cell:
    """What a layer does in a step: kind, activations by direction ((name, alpha, beta) each), and its variants."""

    kind: str
    activations: tuple[tuple[tuple[str, float, float], ...], ...]
    reverse: tuple[bool, ...]
    clip: float = 0.0
    input_forget: bool = False
    linear_before_reset: bool = False
    state_steps: int = 0  # > 0: products see the state rounded to so many steps between its extremes

    def apply(self, k: int, d: Any, x: Any, clip: bool = True) -> Any:
        """Activation number `k` of direction `d`, of the clipped `x`."""
        if clip and self.clip > 0:
            x = E.maximum(E.minimum(x, E.const(self.clip, x.dtype)), E.const(-self.clip, x.dtype))
        per = [a[k] for a in self.activations]
        out = activation(*per[-1])(x)
        for i in reversed(range(len(per) - 1)):
            if per[i] != per[-1]:
                out = E.if_then_else(E.binary(E.EQ, d, i), activation(*per[i])(x), out)
        return out


class Recurrence:
    """Builds the scan of one layer: operands by name (z, r; optional rb, lens, h0, c0, p)."""

    def __init__(self, cell: Cell, operands: dict[str, te.Tensor]) -> None:
        self.cell, self.ops = cell, operands
        z = operands["z"]
        self.T, self.B, self.D, self.G, self.H = z.shape
        self.dtype, self.wide = z.dtype, accumulation(z.dtype)
        self.shape = (self.T, self.D, self.B, self.H)
        self.scale: Callable[[Any, Any], Any] | None = None  # of a step of the state: (s, d) -> scale
        self.origin: Callable[[Any, Any], Any] | None = None  # of the state in bytes: (s, d) -> what stands for 0

    # -- what a step reads

    def read(self, name: str, *index: Any) -> Any:
        return E.cast(self.wide, self.ops[name][index])

    def start(self, name: str, d: Any, b: Any, j: Any) -> Any:
        return self.read(name, d, b, j) if name in self.ops else E.const(0, self.wide)

    def length(self, b: Any) -> Any:
        """Steps of one sequence of the batch, within the bounds whatever the operand says."""
        if "lens" not in self.ops:
            return E.as_expr(self.T, "int64")
        given = E.cast("int64", self.ops["lens"][b])
        return E.maximum(E.minimum(given, E.as_expr(self.T, "int64")), E.const(0, "int64"))

    def reversed(self, d: Any, yes: Any, no: Any) -> Any:
        """`yes` in a direction that walks backwards, `no` in the other."""
        flags = self.cell.reverse
        if len(set(flags)) == 1:
            return yes if flags[0] else no
        return E.select(E.binary(E.EQ, d, flags.index(True)), yes, no)

    def z(self, s: Any, d: Any, b: Any, g: int, j: Any) -> Any:
        """Gate `g` from the inputs at step `s`."""
        at = self.reversed(d, E.maximum(self.length(b) - 1 - s, E.const(0, "int64")), s)
        if "lens" not in self.ops and any(self.cell.reverse):
            at = self.reversed(d, self.T - 1 - s, s)
        return self.read("z", at, b, d, g, j)

    def before(self, state: te.Tensor, name: str, s: Any, d: Any, b: Any, j: Any) -> Any:
        """A state as the step before left it."""
        return E.if_then_else(s > 0, E.cast(self.wide, state[s - 1, d, b, j]), self.start(name, d, b, j))

    # -- stages

    def copy_state(self, state: te.Tensor, name: str, label: str) -> Any:
        """The state before each step, as a tensor that products can read."""
        exact = te.compute(self.shape, lambda s, d, b, j: self.before(state, name, s, d, b, j), label)
        return self._rounded(exact) if self.cell.state_steps else exact

    def _rounded(self, x: te.Tensor) -> Any:
        """A state as whole numbers of steps, of all the batch by one scale: products of them with bytes are exact.

        With the weights' sums at hand, as bytes above an origin, so that whole numbers can be multiplied.
        """
        extremes = []
        for reduce, label in ((te.min, "low"), (te.max, "high")):
            b, k = te.reduce_axis((0, self.B), "b"), te.reduce_axis((0, self.H), "k")
            extremes.append(
                te.compute((self.T, self.D), lambda s, d, f=reduce, b=b, k=k: f(x[s, d, b, k], axis=[b, k]), label)
            )
        zero, most = E.const(0, self.wide), E.const(self.cell.state_steps, self.wide)

        def within(v: Any) -> Any:
            return E.maximum(E.minimum(v, most), zero)

        def size(s: Any, d: Any) -> Any:
            low, high = E.minimum(extremes[0][s, d], zero), E.maximum(extremes[1][s, d], zero)
            return E.select(high > low, (high - low) / most, _one(low))

        self.scale = size

        def start(s: Any, d: Any) -> Any:
            return within(E.call("round", (zero - E.minimum(extremes[0][s, d], zero)) / size(s, d)))

        def byte(s: Any, d: Any, b: Any, j: Any) -> Any:
            return within(E.call("round", x[s, d, b, j] / size(s, d)) + start(s, d))

        if "rsum" not in self.ops:
            return te.compute(self.shape, lambda s, d, b, j: byte(s, d, b, j) - start(s, d), "rounded")
        self.origin = start
        return te.compute(self.shape, lambda s, d, b, j: E.cast("uint8", byte(s, d, b, j)), "rounded")

    def product(self, left: te.Tensor, gates: Sequence[int], label: str) -> Any:
        """The state by the recurrent weights of some gates: [s, d, b, gate, j], without the gate's axis for one."""
        k = te.reduce_axis((0, self.H), "k")
        r, whole = self.ops["r"], self.wide if self.origin is None else "int32"
        if len(gates) == 1 and self.G > 1:
            g = gates[0]
            return te.compute(
                self.shape,
                lambda s, d, b, j: te.sum(E.cast(whole, left[s, d, b, k]) * E.cast(whole, r[d, k, g, j]), axis=[k]),
                label,
            )
        shape = (self.T, self.D, self.B, len(gates), self.H)
        return te.compute(
            shape,
            lambda s, d, b, g, j: te.sum(E.cast(whole, left[s, d, b, k]) * E.cast(whole, r[d, k, g, j]), axis=[k]),
            label,
        )

    def alive(self, s: Any, b: Any, value: Any) -> Any:
        """The value in the output's type, zero after the sequence's end."""
        out = E.cast(self.dtype, value)
        return E.select(s < self.length(b), out, E.const(0, self.dtype)) if "lens" in self.ops else out

    def state(self, name: str, dtype: str) -> Any:
        return te.placeholder(self.shape, dtype, name)

    def nothing(self, dtype: str, name: str) -> Any:
        """No rows before the first step: a step looks at the initial state itself."""
        return te.compute((0, *self.shape[1:]), lambda s, d, b, j: E.const(0, dtype), name)

    # -- cells

    def run(self) -> tuple[Any, ...]:
        """(Y, Y_h) or, of an LSTM, (Y, Y_h, Y_c)."""
        states: Any = {"lstm": self._lstm, "gru": self._gru, "rnn": self._rnn}[self.cell.kind]()
        outs = [self._all(states[0]), self._last(states[0], "h0", "last_h")]
        return (*outs, *(self._last(t, "c0", "last_c") for t in states[1:]))

    def _rnn(self) -> list[Any]:
        h = self.state("h", self.dtype)
        acc = self.product(self.copy_state(h, "h0", "before"), (0,), "acc")

        def step(s: Any, d: Any, b: Any, j: Any) -> Any:
            return self.alive(s, b, self.cell.apply(0, d, acc[s, d, b, 0, j] + self.z(s, d, b, 0, j)))

        return [scan(self.nothing(self.dtype, "none"), te.compute(self.shape, step, "step"), h, name="h_scan")]

    def _gru(self) -> list[Any]:
        h = self.state("h", self.dtype)
        before = self.copy_state(h, "h0", "before")
        cell = self.cell
        if cell.linear_before_reset:
            acc = self.product(before, (0, 1, 2), "acc")
            parts = [lambda s, d, b, j, g=g: acc[s, d, b, g, j] for g in range(3)]
        else:
            acc_r = self.product(before, (1,), "acc_r")
            reset = te.compute(
                self.shape,
                lambda s, d, b, j: cell.apply(0, d, acc_r[s, d, b, j] + self.z(s, d, b, 1, j)) * before[s, d, b, j],
                "reset",
            )
            acc_z, acc_h = self.product(before, (0,), "acc_z"), self.product(reset, (2,), "acc_h")
            parts = [acc_z, acc_r, acc_h]

        def step(s: Any, d: Any, b: Any, j: Any) -> Any:
            keep = cell.apply(0, d, parts[0](s, d, b, j) + self.z(s, d, b, 0, j))
            new = parts[2](s, d, b, j)
            if cell.linear_before_reset:
                new = new + self.read("rb", d, j) if "rb" in self.ops else new
                new = new * cell.apply(0, d, parts[1](s, d, b, j) + self.z(s, d, b, 1, j))
            new = cell.apply(1, d, new + self.z(s, d, b, 2, j))
            return self.alive(s, b, new + keep * (before[s, d, b, j] - new))

        return [scan(self.nothing(self.dtype, "none"), te.compute(self.shape, step, "step"), h, name="h_scan")]

    def _lstm(self) -> list[Any]:
        h, c = self.state("h", self.dtype), self.state("c", self.wide)
        acc = self.product(self.copy_state(h, "h0", "before"), (0, 1, 2, 3), "acc")
        cell = self.cell

        def gate(s: Any, d: Any, b: Any, g: int, j: Any, peep: int, state: Any) -> Any:
            value = acc[s, d, b, g, j]
            if self.origin is not None:
                value = E.cast(self.wide, value - E.cast("int32", self.origin(s, d)) * self.ops["rsum"][d, g, j])
            steps = [self.read("rs", d, g, j)] if "rs" in self.ops else []
            steps += [] if self.scale is None else [self.scale(s, d)]
            value = value * (steps[0] * steps[1] if len(steps) == 2 else steps[0]) if steps else value
            value = value + self.z(s, d, b, g, j)
            return value + self.read("p", d, peep, j) * state if "p" in self.ops and peep >= 0 else value

        def step(s: Any, d: Any, b: Any, j: Any) -> Any:
            old = self.before(c, "c0", s, d, b, j)
            i = cell.apply(0, d, gate(s, d, b, 0, j, 0, old))
            f = _one(i) - i if cell.input_forget else cell.apply(0, d, gate(s, d, b, 2, j, 2, old))
            new = f * old + i * cell.apply(1, d, gate(s, d, b, 3, j, -1, old))
            o = cell.apply(0, d, gate(s, d, b, 1, j, 1, new))
            return self.alive(s, b, o * cell.apply(2, d, new, clip=False)), new

        step_h, step_c = te.compute(self.shape, step, "step")
        starts = [self.nothing(self.dtype, "none_h"), self.nothing(self.wide, "none_c")]
        return list(scan(starts, [step_h, step_c], [h, c], name="h_scan"))

    # -- results

    def _all(self, h: Any) -> Any:
        """The states in the order of time."""
        if not any(self.cell.reverse):
            return h

        def at(t: Any, d: Any, b: Any, j: Any) -> Any:
            if "lens" not in self.ops:
                return h[self.reversed(d, self.T - 1 - t, t), d, b, j]
            size = self.length(b)
            there = h[self.reversed(d, E.maximum(size - 1 - t, E.const(0, "int64")), t), d, b, j]
            return E.select(t < size, there, E.const(0, self.dtype))

        return te.compute(self.shape, at, "in_time")

    def _last(self, state: Any, name: str, label: str) -> Any:
        """The state after each sequence's last step; the initial one of an empty sequence."""

        def at(d: Any, b: Any, j: Any) -> Any:
            size = self.length(b)
            end = E.cast(self.dtype, state[E.maximum(size - 1, E.const(0, "int64")), d, b, j])
            if "lens" not in self.ops and isinstance(self.T, int) and self.T > 0:
                return end
            return E.if_then_else(size > 0, end, E.cast(self.dtype, self.start(name, d, b, j)))

        return te.compute(self.shape[1:], at, label)


__all__ = ["GATES", "Cell", "Recurrence", "activation"]
