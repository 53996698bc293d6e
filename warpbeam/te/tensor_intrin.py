"""Intrinsics written down with tensor expressions: what an instruction or C function computes, and how to call it.

def gemv(m, l):
    a, b = te.placeholder((l,), name="a"), te.placeholder((m, l), name="b")
    k = te.reduce_axis((0, l), name="k")
    c = te.compute((m,), lambda i: te.sum(a[k] * b[i, k], axis=k), name="c")
    …
    return te.decl_tensor_intrin(c.op, calls, binds={a: Ab, b: Bb, c: Cb})

s[C].tensorize(yi, gemv(16, 64))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from warpbeam.te.create import create_prim_func
from warpbeam.te.errors import TEError
from warpbeam.te.operation import ComputeOp, Operation, PlaceholderOp, Tensor
from warpbeam.te.tensor_compute import TensorCall, call
from warpbeam.te.warp_matrix import as_loops
from warpbeam.tir import tensor_intrin as ti
from warpbeam.tir.declare import decl_buffer
from warpbeam.tir.expr import Buffer, PrimExpr, Var, const_int
from warpbeam.tir.stmt import Evaluate, Stmt


class ExpectOperationError(TEError, TypeError):
    """decl_tensor_intrin was given something that is no operation of te.

    Wrong:
        te.decl_tensor_intrin(B, lambda ins, outs: tir.call_extern("int32", "add_one", outs[0].access_ptr("w")))
    Right:
        te.decl_tensor_intrin(B.op, lambda ins, outs: tir.call_extern("int32", "add_one", outs[0].access_ptr("w")))
    """


class CompositionError(TEError, ValueError):
    """A tensor intrinsic reads a tensor that is itself computed.

    Wrong:
        D = te.compute((4, 4), lambda i, j: B[i, j] * 2.0, name="D")
        te.decl_tensor_intrin(D.op, lambda ins, outs: tir.call_extern("int32", "twice", outs[0].access_ptr("w")))
    Right:
        D = te.compute((4, 4), lambda i, j: A[i, j] * 2.0, name="D")
        te.decl_tensor_intrin(D.op, lambda ins, outs: tir.call_extern("int32", "twice", outs[0].access_ptr("w")))
    """


@dataclass(frozen=True, eq=False)
class TensorIntrin:
    """A declared intrinsic: the operation it performs, its buffers, and its statements."""

    name: str
    op: ComputeOp
    inputs: tuple[Tensor, ...]
    buffers: tuple[Buffer, ...]
    scalar_params: tuple[Var, ...]
    body: Stmt | None
    reduce_init: Stmt | None
    reduce_update: Stmt | None

    def __call__(self, *tensors: Any, **kwargs: Any) -> TensorCall:
        """The intrinsic applied to slices, as the body of a te.compute; keywords reduce_axis and scalar_inputs."""
        return call(self, tensors, **kwargs)

    @cached_property
    def record(self) -> ti.TensorIntrin:
        """The intrinsic as `tir.Schedule.tensorize` takes it."""
        outputs = [self.op.output(k) for k in range(len(self.op.body))]
        meaning = create_prim_func(list(self.inputs), outputs, self.name)
        return ti.TensorIntrin(
            self.name, meaning, self.buffers, self.body, self.reduce_init, self.reduce_update,
            scalars=self.scalar_params, source="te.decl_tensor_intrin",
        )  # fmt: skip


def decl_tensor_intrin(
    op: Operation,
    fcompute: Callable[..., Any],
    name: str = "tensor_intrin",
    binds: Mapping[Tensor, Buffer] | None = None,
    scalar_params: Sequence[Var] | None = None,
    default_buffer_params: Mapping[str, Any] | None = None,
) -> TensorIntrin:
    """Declares an intrinsic.

    Args:
        op: the computation it performs, over placeholders of constant shape.
        fcompute: fcompute(ins, outs) -> a statement (or call) that does it, or three: the whole computation, the start
            of the reduction, and one that adds to what the result holds. `ins` and `outs` are Buffers. With
            scalar_params it is called as fcompute(ins, outs, scalar_params).
        name: for messages and for the printed program.
        binds: the Buffer of some tensors, with strides and offset_factor where operands need not be compact.
        scalar_params: variables of `op` that get their values where the intrinsic is used.
        default_buffer_params: keywords of tir.decl_buffer for tensors without one in `binds`.

    Raises:
        ExpectOperationError (a TypeError): if op is no operation.
        CompositionError (a ValueError): if op reads anything but placeholders.
    """
    if not isinstance(op, ComputeOp):
        raise ExpectOperationError(
            f"decl_tensor_intrin expects an operation, not {type(op).__name__}", hint="pass the .op of a te.compute"
        )
    inputs = tuple(op.input_tensors)
    for t in inputs:
        if not isinstance(t.op, PlaceholderOp):
            raise CompositionError(
                f"Do not yet support composition op: {t.name}, an input of {op.name}, is computed",
                hint="describe the intrinsic over placeholders only",
            )
    outputs = [op.output(k) for k in range(len(op.body))]
    given, params = dict(binds or {}), dict(default_buffer_params or {})
    buffers = []
    for t in [*inputs, *outputs]:
        if any(const_int(s) is None for s in t.shape):
            raise TEError(f"{t.name} of intrinsic {name} has no constant shape", hint="use numbers as dimensions")
        buffers.append(given[t] if t in given else decl_buffer(t.shape, t.dtype, t.op.name, **params))
    ins, outs = buffers[: len(inputs)], buffers[len(inputs) :]
    scalars = tuple(scalar_params or ())
    if not callable(fcompute):
        raise TEError(f"fcompute of intrinsic {name} is a {type(fcompute).__name__}", hint="give lambda ins, outs: …")
    made = fcompute(ins, outs, list(scalars)) if scalars else fcompute(ins, outs)
    memory = dict(zip([*inputs, *outputs], buffers, strict=True))
    body, init, update = (as_loops(s, op, memory) for s in _statements(made, name))
    return TensorIntrin(name, op, inputs, tuple(buffers), scalars, body, init, update)


def _statements(made: Any, name: str) -> list[Stmt | None]:
    parts = list(made) if isinstance(made, list | tuple) else [made]
    parts = [Evaluate(p) if isinstance(p, PrimExpr) else p for p in parts]
    if not 1 <= len(parts) <= 3 or not all(p is None or isinstance(p, Stmt) for p in parts):
        raise TEError(
            f"fcompute of intrinsic {name} returned {made!r}",
            hint="return a statement, or the triple (body, reduce_init, reduce_update)",
        )
    return [*parts, *[None] * (3 - len(parts))]
