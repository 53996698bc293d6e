"""Operators that move elements without computing: new shapes, orders and repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op import get
from warpbeam.op.assumed import unify
from warpbeam.op.base import REQUIRED, Injective, norm_axes, norm_axis, tensor_type
from warpbeam.relay.expr import Expr
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir.expr import minimum
from warpbeam.topi import dims, transform
from warpbeam.topi.broadcast import broadcast_shape_to, broadcast_to


class Reshape(Injective, name="reshape"):
    """The same elements in row-major order with shape `newshape`; one entry may be -1 (what is left)."""

    view = True
    defaults = {"newshape": REQUIRED}

    def target(self, attrs: Attrs, shape: Sequence[Any]) -> tuple[Any, ...]:
        return transform.reshape_target(self, shape, attrs["newshape"])

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        new = self.target(attrs, x.shape)
        transform.check_reshape(self, x.shape, new)
        return TensorType(new, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return x.reshape(self.target(attrs, x.shape))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.reshape_stage(inputs[0], out_type.shape)


class Transpose(Injective, name="transpose"):
    """Dimensions in the order `axes`; None reverses them."""

    defaults = {"axes": None}

    def order(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        return transform.transpose_order(self, attrs["axes"], ndim)

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        return TensorType([x.shape[a] for a in self.order(attrs, x.ndim)], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.transpose(x, self.order(attrs, x.ndim))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.transpose(inputs[0], attrs["axes"])


class ExpandDims(Injective, name="expand_dims"):
    """`num_newaxis` dimensions of size 1 put in at `axis`."""

    view = True
    defaults = {"axis": REQUIRED, "num_newaxis": 1}

    def place(self, attrs: Attrs, ndim: int) -> int:
        return norm_axis(self, attrs["axis"], ndim + 1)

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        at = self.place(attrs, x.ndim)
        return TensorType((*x.shape[:at], *([1] * attrs["num_newaxis"]), *x.shape[at:]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        at = self.place(attrs, x.ndim)
        return x.reshape((*x.shape[:at], *([1] * attrs["num_newaxis"]), *x.shape[at:]))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.expand_dims(inputs[0], attrs["axis"], attrs["num_newaxis"])


class Squeeze(Injective, name="squeeze"):
    """Dimensions `axis` of size 1 taken away; None takes all that are 1."""

    view = True
    defaults = {"axis": None}

    def gone(self, attrs: Attrs, shape: Sequence[Any]) -> tuple[int, ...]:
        return transform.squeezed_axes(self, attrs["axis"], shape)

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        gone = self.gone(attrs, x.shape)
        return TensorType([d for i, d in enumerate(x.shape) if i not in gone], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.squeeze(x, self.gone(attrs, x.shape))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.squeeze(inputs[0], attrs["axis"])


def _of_one_rank(op: Any, types: Any, attrs: Attrs) -> tuple[TensorType, tuple[Any, ...]]:
    """The operand's type, and the shape given for it."""
    x, shape = tensor_type(op, types[0], "the operand"), tuple(attrs["shape"])
    if len(shape) != x.ndim:
        raise op.error(f"shape {dims.shape_text(shape)} for {x.ndim} dimensions")
    return x, shape


class AssumeShape(Injective, name="assume_shape"):
    """The operand, its dimensions written as `shape`: they are equal to its own wherever the call is reached.

    What the sizes do not tell is checked when the program runs, at the call: a branch that is not taken takes nothing
    for granted.
    """

    view = True
    placed = True
    defaults = {"shape": REQUIRED}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x, shape = _of_one_rank(self, types, attrs)
        for k, (have, want) in enumerate(zip(x.shape, shape, strict=True)):
            unify(self, have, want, f"dimension {k}, {dims.text(have)}, and the {dims.text(want)} that the model needs")
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        if x.shape != tuple(attrs["shape"]):
            raise self.error(f"a tensor of shape {x.shape} where the model needs {tuple(attrs['shape'])}")
        return x

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return te.compute(out_type.shape, lambda *i: inputs[0][i], name="assumed")


class Spread(Injective, name="spread"):
    """The operand in `shape`, which is its own but for dimensions of which it turns out at run time whether they are 1,
    and their elements repeated, or as in `shape`. Anything else is refused when the program runs.
    """

    placed = True
    defaults = {"shape": REQUIRED}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x, shape = _of_one_rank(self, types, attrs)
        for k, (have, want) in enumerate(zip(x.shape, shape, strict=True)):
            if dims.same(have, want) is not True:
                text = f"dimension {k}, {dims.text(have)}, must be 1 or {dims.text(want)}"
                unify(self, dims.dim((have - 1) * (have - want)), 0, text)
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, attrs["shape"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x, open_ = inputs[0], [dims.same(a, b) is not True for a, b in zip(inputs[0].shape, out_type.shape)]

        def element(*index: Any) -> Any:
            own = [minimum(i, d - 1) if o else i for i, d, o in zip(index, x.shape, open_, strict=True)]
            return x[tuple(own)]

        return te.compute(out_type.shape, element, name="spread")


class BroadcastTo(Injective, name="broadcast_to"):
    """Dimensions of size 1 repeated, and new leading ones added, to give `shape`."""

    defaults = {"shape": REQUIRED}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        return TensorType(broadcast_shape_to(self, x.shape, attrs["shape"]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, attrs["shape"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return broadcast_to(inputs[0], attrs["shape"])


class Tile(Injective, name="tile"):
    """The whole tensor repeated `reps[d]` times along each dimension."""

    defaults = {"reps": REQUIRED}

    def padded(self, attrs: Attrs, shape: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return transform.tile_shapes(shape, attrs["reps"])

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        shape, reps = self.padded(attrs, x.shape)
        if any(isinstance(r, int) and r < 0 for r in reps):
            raise self.error(f"repetitions {dims.shape_text(reps)} must not be negative")
        return TensorType([dims.prod(p) for p in zip(shape, reps, strict=True)], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.tile(x, attrs["reps"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.tile(inputs[0], attrs["reps"])

    def expand(self, attrs: Attrs, args: Sequence[Expr]) -> Expr | None:
        """A broadcast along an axis of its own for each that is repeated, which no index is divided for; None where
        sizes are open.
        """
        shape, reps = self.padded(attrs, args[0].ty.shape)  # type: ignore[attr-defined]
        if not all(isinstance(n, int) for n in (*shape, *reps)) or 0 in shape or 0 in reps:
            return None
        apart = [n for d, r in zip(shape, reps, strict=True) for n in ((1, d) if r > 1 else (d,))]
        whole = [n for d, r in zip(shape, reps, strict=True) for n in ((r, d) if r > 1 else (d,))]
        spread = get("broadcast_to")(get("reshape")(args[0], newshape=tuple(apart)), shape=tuple(whole))
        out = tuple(d * r for d, r in zip(shape, reps, strict=True))
        return get("reshape")(spread, newshape=out)  # type: ignore[no-any-return]


class Repeat(Injective, name="repeat"):
    """Each element repeated `repeats` times along `axis`; axis None repeats the flattened tensor's elements."""

    defaults = {"repeats": REQUIRED, "axis": None}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        if attrs["axis"] is None:
            return TensorType([dims.prod((*x.shape, attrs["repeats"]))], x.dtype)  # type: ignore[no-any-return]
        shape, axis = list(x.shape), norm_axis(self, attrs["axis"], x.ndim)
        shape[axis] = dims.prod((shape[axis], attrs["repeats"]))
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.repeat(x, attrs["repeats"], attrs["axis"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.repeat(inputs[0], attrs["repeats"], attrs["axis"])


class Reverse(Injective, name="reverse"):
    """The order of elements turned round along `axis` (an int or several)."""

    defaults = {"axis": REQUIRED}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        norm_axes(self, attrs["axis"], x.ndim)
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.flip(x, norm_axes(self, attrs["axis"], x.ndim))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.flip(inputs[0], attrs["axis"])
