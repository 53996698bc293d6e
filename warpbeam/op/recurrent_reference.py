"""Recurrent layers step by step in NumPy, after the formulas of the ONNX specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray

FUNCTIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "relu": lambda x, a, b: np.maximum(x, 0),
    "tanh": lambda x, a, b: np.tanh(x),
    "sigmoid": lambda x, a, b: np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x))),
    "affine": lambda x, a, b: a * x + b,
    "leakyrelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "thresholdedrelu": lambda x, a, b: np.where(x > a, x, 0),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.logaddexp(x, 0),
}


def reference(cell: Any, given: dict[str, Array], batch_first: bool, dtype: Any) -> tuple[Array, ...]:
    """(Y, Y_h[, Y_c]) of a layer; `dtype` is the type that the hidden state is kept in."""
    if batch_first:
        swapped = {n: a.swapaxes(0, 1) for n, a in given.items() if n in ("x", "h0", "c0")}
        given = {**given, **swapped}
    walks = [_Direction(cell, given, d, dtype).run() for d in range(len(cell.reverse))]
    outs = [np.stack([w[0] for w in walks], axis=1)]
    outs += [np.stack([w[k] for w in walks], axis=0) for k in range(1, len(walks[0]))]
    if batch_first:
        outs = [outs[0].transpose(2, 0, 1, 3), *[o.swapaxes(0, 1) for o in outs[1:]]]
    return tuple(outs)


class _Direction:
    """One direction: every sequence of the batch walks its own steps."""

    def __init__(self, cell: Any, given: dict[str, Array], d: int, dtype: Any) -> None:
        self.cell, self.d, self.dtype, self.given = cell, d, dtype, given
        gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell.kind]
        r = given["r"][d]
        units = r.shape[-1]
        self.inner: Any = 0.0
        if "z" in given:
            self.z = given["z"][:, :, d]
            self.r = r.transpose(1, 2, 0)  # [gate][to][from]
            self.inner = given["rb"][d] if "rb" in given else 0.0
        else:
            self.r = r.reshape(gates, units, units)
            w = given["w"][d].reshape(gates, units, -1)
            self.z = np.einsum("tbi,gji->tbgj", given["x"], w)
            if "b" in given:
                wb, rb = given["b"][d].reshape(2, gates, units)
                if cell.kind == "gru" and cell.linear_before_reset:
                    self.inner, rb = rb[2], rb * np.array([[1], [1], [0]])
                self.z = self.z + wb + rb
        steps, batch = self.z.shape[:2]
        self.y = np.zeros((steps, batch, units), self.z.dtype)
        zero = np.zeros((batch, units), self.z.dtype)
        self.h = np.array(given["h0"][d]) if "h0" in given else zero.copy()
        self.c = np.array(given["c0"][d]) if "c0" in given else zero.copy()
        self.lens = np.clip(given["lens"].astype(np.int64), 0, steps) if "lens" in given else np.full(batch, steps)

    def run(self) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            for s in range(len(self.y)):
                seen = self._seen(np.where((self.lens >= s)[:, None], self.h, 0))
                for b, size in enumerate(self.lens):
                    if s < size:
                        t = int(size) - 1 - s if self.cell.reverse[self.d] else s
                        self.y[t, b] = self.h[b] = self._step(t, b, seen[b]).astype(self.dtype)
        return (self.y, self.h, self.c) if self.cell.kind == "lstm" else (self.y, self.h)

    def _act(self, k: int, x: Array, clip: bool = True) -> Array:
        if clip and self.cell.clip > 0:
            x = np.clip(x, -self.cell.clip, self.cell.clip)
        name, alpha, beta = self.cell.activations[self.d][k]
        return FUNCTIONS[name](x, alpha, beta)

    def _seen(self, h: Array) -> Array:
        """The states that products see."""
        steps = self.cell.state_steps
        if not steps:
            return h
        low, high = min(h.min(), 0), max(h.max(), 0)
        scale = (high - low) / h.dtype.type(steps) if high > low else h.dtype.type(1)
        origin = np.clip(np.round(-low / scale), 0, steps)
        return np.asarray((np.clip(np.round(h / scale) + origin, 0, steps) - origin) * scale)

    def _step(self, t: int, b: int, h: Array) -> Array:
        z = self.z[t, b]
        if self.cell.kind == "rnn":
            return self._act(0, z[0] + self.r[0] @ h)
        if self.cell.kind == "gru":
            update, reset = (self._act(0, z[k] + self.r[k] @ h) for k in (0, 1))
            if self.cell.linear_before_reset:
                new = self._act(1, z[2] + reset * (self.r[2] @ h + self.inner))
            else:
                new = self._act(1, z[2] + self.r[2] @ (reset * h))
            return (1 - update) * new + update * h
        peep = self.given["p"][self.d].reshape(3, -1) if "p" in self.given else np.zeros((3, 1), z.dtype)
        pre = z + self.r @ h
        i = self._act(0, pre[0] + peep[0] * self.c[b])
        f = 1 - i if self.cell.input_forget else self._act(0, pre[2] + peep[2] * self.c[b])
        self.c[b] = f * self.c[b] + i * self._act(1, pre[3])
        o = self._act(0, pre[1] + peep[1] * self.c[b])
        return o * self._act(2, self.c[b], clip=False)
