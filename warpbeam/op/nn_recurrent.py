"""Recurrent layers as ONNX defines them: nn.lstm, nn.gru, nn.rnn.

Operands are named by the attribute `operands`, in this order: x (T, B, I) or with layout=1 (B, T, I); w (D, G*H, I);
r (D, G*H, H); then, where they are given, rs (D, G*H), the scales of an r in bytes (LSTM only), b (D, 2*G*H), lens (B),
h0 and c0 (D, B, H), p (D, 3*H).

The same operators also have a *stepping* form, into which `expand` turns the other: z (T, B, D, G, H) in place of x and
w, the inputs already multiplied and with biases; r (D, H, G, H); rs (D, G, H); rb (D, H), the bias inside a GRU's
reset. It exists so that the product over all time steps is a matrix product of its own, and constant weights are laid
out once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op import get
from warpbeam.op.assumed import some_elements
from warpbeam.op.base import REQUIRED, Op, accumulation, tensors
from warpbeam.op.nn_common import require_float, require_rank, unify
from warpbeam.op.recurrent_reference import reference
from warpbeam.relay.expr import Expr, Tuple, TupleGetItem, const
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims
from warpbeam.topi.nn.products import dense_stage
from warpbeam.topi.nn.recurrent import GATES, Cell, Recurrence

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
ORDER = ("x", "w", "r", "rs", "b", "lens", "h0", "c0", "p")
STEPPING = ("z", "r", "rs", "rsum", "rb", "lens", "h0", "c0", "p")  # rsum: of an int8 r, over the states

#: Activations with parameters, and what these are where a model does not say.
ALPHA = {"affine": 1.0, "leakyrelu": 0.01, "thresholdedrelu": 1.0, "scaledtanh": 1.0, "hardsigmoid": 0.2, "elu": 1.0}
BETA = {"affine": 0.0, "scaledtanh": 1.0, "hardsigmoid": 0.5}
NAMES = (*ALPHA, "relu", "tanh", "sigmoid", "softsign", "softplus")


class Recurrent(Op):
    """Base of the three layers.

    activations: names as in ONNX, by direction one after the other; alpha, beta: their parameters, in the order of
    those activations that have one. clip: bound of what activations are applied to, 0 for none.
    """

    arity = None
    kind: ClassVar[str] = ""
    usual: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[dict[str, Any]] = {
        "operands": REQUIRED,
        "direction": "forward",
        "activations": (),
        "alpha": (),
        "beta": (),
        "clip": 0.0,
        "layout": 0,
    }

    # ------------------------------------------------------------------------------------------------------- meaning

    def cell(self, attrs: Attrs) -> Cell:
        """The layer's arithmetic, all defaults filled in."""
        flags = DIRECTIONS.get(attrs["direction"])
        if flags is None:
            raise self.error(f"direction {attrs['direction']!r}", hint=f"one of {', '.join(DIRECTIONS)}")
        per = len(self.usual)
        names = [n.lower() for n in attrs["activations"] or self.usual * len(flags)]
        unknown = [n for n in names if n not in NAMES]
        if unknown or len(names) != per * len(flags):
            raise self.error(
                f"activations {tuple(attrs['activations'])}",
                hint=f"{per} for each direction, of {', '.join(sorted(NAMES))}",
            )
        alphas, betas = iter(attrs["alpha"]), iter(attrs["beta"])
        full = [
            (n, next(alphas, ALPHA[n]) if n in ALPHA else 0.0, next(betas, BETA[n]) if n in BETA else 0.0)
            for n in names
        ]
        lists = tuple(tuple(full[k * per : (k + 1) * per]) for k in range(len(flags)))
        reset, forget = attrs.get("linear_before_reset", 0), attrs.get("input_forget", 0)
        clip, steps = float(attrs["clip"] or 0.0), int(attrs.get("state_steps", 0))
        return Cell(self.kind, lists, flags, clip, bool(forget), bool(reset), steps)

    # --------------------------------------------------------------------------------------------------------- types

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        names = tuple(attrs["operands"])
        order = STEPPING if "z" in names else ORDER
        if list(names) != [n for n in order if n in names] or len(names) != len(types) or "r" not in names:
            raise self.error(f"operands {names} for {len(types)} tensors", hint=f"some of {order}, in this order")
        found = dict(zip(names, tensors(self, types), strict=True))
        dtype, bytewise = types[0].dtype, "rs" in found
        if bytewise and (self.kind != "lstm" or found["r"].dtype != "int8"):
            raise self.error(f"scales with an r of {found['r'].dtype}", hint="they belong to an int8 r of nn.lstm")
        for n, t in found.items():
            if n in ("lens", "rsum") or (n == "r" and bytewise):
                continue
            require_float(self, t, n)
            if t.dtype != dtype:
                raise self.error(f"{n} is {t.dtype} and {names[0]} is {dtype}", hint="cast one of them")
        directions, swap = len(self.cell(attrs).reverse), bool(attrs["layout"])
        sizes = self._stepping(found, directions) if "z" in found else self._given(found, directions, swap)
        steps, batch, units = sizes
        if "lens" in found:
            require_rank(self, found["lens"], 1, "lens")
            unify(self, found["lens"].shape[0], batch, "sequence lengths and batch")
        some_elements(self, steps, "a sequence has no step")
        state = (batch, directions, units) if swap else (directions, batch, units)
        for n in ("h0", "c0"):
            if n in found:
                self._shape(n, found[n], state)
        if "p" in found:
            self._shape("p", found["p"], (directions, 3, units) if "z" in found else (directions, 3 * units))
        if bytewise:
            gates = GATES[self.kind]
            shape = (directions, gates, units) if "z" in found else (directions, dims.dim(gates * units))
            self._shape("rs", found["rs"], shape)
        if "rsum" in found:
            if not bytewise or found["rsum"].dtype != "int32" or not attrs.get("state_steps", 0):
                raise self.error("rsum belongs to rs and state_steps", hint="the sums of an int8 r as int32")
            self._shape("rsum", found["rsum"], (directions, GATES[self.kind], units))
        whole = (batch, steps, directions, units) if swap else (steps, directions, batch, units)
        last = TensorType(state, dtype)
        return TupleType((TensorType(whole, dtype), *[last] * (2 if self.kind == "lstm" else 1)))  # type: ignore[no-any-return]

    def _shape(self, name: str, t: TensorType, shape: Sequence[Any]) -> None:
        require_rank(self, t, len(shape), name)
        for k, (have, want) in enumerate(zip(t.shape, shape, strict=True)):
            unify(self, have, want, f"dimension {k} of {name}")

    def _given(self, found: dict[str, TensorType], directions: int, swap: bool) -> tuple[Any, Any, Any]:
        gates = GATES[self.kind]
        x, w, r = (found[n] for n in ("x", "w", "r"))
        require_rank(self, x, 3, "x")
        require_rank(self, r, 3, "r")
        units = r.shape[2]
        self._shape("w", w, (directions, dims.dim(gates * units), x.shape[2]))
        self._shape("r", r, (directions, dims.dim(gates * units), units))
        if "b" in found:
            self._shape("b", found["b"], (directions, dims.dim(2 * gates * units)))
        return (x.shape[1], x.shape[0], units) if swap else (x.shape[0], x.shape[1], units)

    def _stepping(self, found: dict[str, TensorType], directions: int) -> tuple[Any, Any, Any]:
        z = found["z"]
        require_rank(self, z, 5, "z")
        units = z.shape[4]
        self._shape("z", z, (*z.shape[:2], directions, GATES[self.kind], units))
        self._shape("r", found["r"], (directions, units, GATES[self.kind], units))
        if "rb" in found:
            self._shape("rb", found["rb"], (directions, units))
        return z.shape[0], z.shape[1], units

    # -------------------------------------------------------------------------------------------------------- values

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> Any:
        given = dict(zip(attrs["operands"], args, strict=True))
        dtype = args[0].dtype
        wide = dt.to_numpy(accumulation(dt.from_numpy(dtype)))
        given = {n: a if n == "lens" else a.astype(wide) for n, a in given.items()}
        if "rs" in given:
            scale = np.expand_dims(given["rs"], 1 if "z" in given else 2)
            given["r"] = given["r"] * scale
        outs = reference(self.cell(attrs), given, bool(attrs["layout"]), dtype)
        return tuple(np.ascontiguousarray(o.astype(dtype)) for o in outs)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        given = dict(zip(attrs["operands"], inputs, strict=True))
        cell = self.cell(attrs)
        if "z" in given:
            return Recurrence(cell, given).run()
        swap = bool(attrs["layout"])
        outs = Recurrence(cell, _stepping_tensors(cell, given, swap)).run()
        if not swap:
            return outs
        y = te.compute(out_type.fields[0].shape, lambda b, t, d, j: outs[0][t, d, b, j], "batch_first")
        last = [te.compute(out_type.fields[1].shape, lambda b, d, j, o=o: o[d, b, j], "batch_first") for o in outs[1:]]
        return (y, *last)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        given = dict(zip(attrs["operands"], types, strict=True))
        units, gates = given["r"].shape[-1], GATES[self.kind]
        depth = units if "z" in given else units + given["x"].shape[2]
        return dims.prod([2, depth, gates, *out_type.fields[0].shape])

    # ----------------------------------------------------------------------------------------------------- expansion

    def expand(self, attrs: Attrs, args: Sequence[Expr]) -> Expr | None:
        """The stepping form and the product before it; None where the call has that form."""
        given = dict(zip(attrs["operands"], args, strict=True))
        if "z" in given:
            return None
        cell, swap = self.cell(attrs), bool(attrs["layout"])
        new = _stepping_exprs(cell, given, swap)
        names = tuple(n for n in STEPPING if n in new)
        call = get(self.name)(*[new[n] for n in names], **{**attrs, "operands": names, "layout": 0})
        outs = [TupleGetItem(call, k) for k in range(3 if self.kind == "lstm" else 2)]
        if swap:
            outs = [get("transpose")(outs[0], axes=(2, 0, 1, 3)), *[_swapped(o) for o in outs[1:]]]
        return Tuple(tuple(outs))  # type: ignore[no-any-return]


def _stepping_tensors(cell: Cell, given: dict[str, Any], swap: bool) -> dict[str, Any]:
    """The operands of the stepping form, as te stages."""
    x, w, r = given["x"], given["w"], given["r"]
    gates, units, directions = GATES[cell.kind], r.shape[2], r.shape[0]
    if swap:
        x = te.compute((x.shape[1], x.shape[0], x.shape[2]), lambda t, b, i, x=x: x[b, t, i], "time_first")
    flat = te.compute((directions * gates * units, w.shape[2]), lambda n, i: w[_apart(n, gates * units, i)], "weights")
    dense = dense_stage(x, flat, x.dtype)
    inner = cell.kind == "gru" and cell.linear_before_reset
    out = {n: given[n] for n in ("lens", "h0", "c0") if n in given}

    def biased(t: Any, b: Any, d: Any, g: Any, j: Any) -> Any:
        value = dense[t, b, (d * gates + g) * units + j]
        if "b" not in given:
            return value
        bias, at = given["b"], g * units + j
        extra = bias[d, gates * units + at]
        extra = E.select(g < 2, extra, E.const(0, x.dtype)) if inner else extra
        return value + (bias[d, at] + extra)

    out["z"] = te.compute((x.shape[0], x.shape[1], directions, gates, units), biased, "inputs")
    shape = (directions, units, gates, units)
    out["r"] = te.compute(shape, lambda d, k, g, j: r[d, g * units + j, k], "recurrent")
    if inner and "b" in given:
        out["rb"] = te.compute((directions, units), lambda d, j: given["b"][d, 5 * units + j], "reset_bias")
    if swap:
        for n in ("h0", "c0"):
            if n in out:
                size = (directions, x.shape[1], units)
                out[n] = te.compute(size, lambda d, b, j, t=out[n]: t[b, d, j], n)
    if "rs" in given:
        shape = (directions, gates, units)
        out["rs"] = te.compute(shape, lambda d, g, j: given["rs"][d, g * units + j], "scales")
    if "p" in given:
        out["p"] = te.compute((directions, 3, units), lambda d, k, j: given["p"][d, k * units + j], "peepholes")
    return out


def _apart(index: Any, size: Any, *rest: Any) -> tuple[Any, ...]:
    return (index // size, index % size, *rest)


def _swapped(x: Expr) -> Expr:
    return get("transpose")(x, axes=(1, 0, 2))  # type: ignore[no-any-return]


def _stepping_exprs(cell: Cell, given: dict[str, Expr], swap: bool) -> dict[str, Expr]:
    """The operands of the stepping form, as expressions of the graph."""
    reshape = get("reshape")
    x, w, r = given["x"], given["w"], given["r"]
    gates, (directions, _, units) = GATES[cell.kind], r.ty.shape
    rows = dims.dim(directions * gates * units)
    if swap:
        x = _swapped(x)
    z = get("nn.dense")(x, reshape(w, newshape=(rows, w.ty.shape[2])))
    out: dict[str, Expr] = {}
    inner = cell.kind == "gru" and cell.linear_before_reset
    if "b" in given:
        parts = reshape(given["b"], newshape=(directions, 2, gates, units))
        from_input, from_state = (get("take")(parts, const(k, "int64"), axis=1) for k in (0, 1))
        if inner:
            out["rb"] = get("take")(from_state, const(2, "int64"), axis=1)
            mask = np.array([1, 1, 0]).reshape(1, 3, 1)
            from_state = get("multiply")(from_state, const(mask.astype(dt.to_numpy(x.ty.dtype)), x.ty.dtype))
        z = get("nn.bias_add")(z, reshape(get("add")(from_input, from_state), newshape=(rows,)), axis=-1)
    steps, batch = x.ty.shape[:2]
    out["z"] = reshape(z, newshape=(steps, batch, directions, gates, units))
    out["r"] = get("transpose")(reshape(r, newshape=(directions, gates, units, units)), axes=(0, 3, 1, 2))
    for n in ("lens", "h0", "c0"):
        if n in given:
            out[n] = _swapped(given[n]) if swap and n != "lens" else given[n]
    if "rs" in given:
        out["rs"] = reshape(given["rs"], newshape=(directions, gates, units))
    if "p" in given:
        out["p"] = reshape(given["p"], newshape=(directions, 3, units))
    return out


class Lstm(Recurrent):
    """Gates in the order i, o, f, c; activations f (gates), g (candidate), h (cell). input_forget couples f = 1 - i.

    state_steps: where not 0, the products see the state rounded to that many steps between its least and largest value
    (and 0) in the batch.
    """

    name, kind, usual = "nn.lstm", "lstm", ("sigmoid", "tanh", "tanh")
    defaults = {**Recurrent.defaults, "input_forget": 0, "state_steps": 0}


class Gru(Recurrent):
    """Gates in the order z, r, h. linear_before_reset: the reset gate scales the product, not what is multiplied."""

    name, kind, usual = "nn.gru", "gru", ("sigmoid", "tanh")
    defaults = {**Recurrent.defaults, "linear_before_reset": 0}


class Rnn(Recurrent):
    """One activation of the sum of both products."""

    name, kind, usual = "nn.rnn", "rnn", ("tanh",)


__all__ = ["Gru", "Lstm", "Recurrent", "Rnn"]
