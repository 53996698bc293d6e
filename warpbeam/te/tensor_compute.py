"""Computations whose last dimensions are done by an intrinsic: te.compute with a call of a tensor intrinsic as body.

    C = te.compute((n, m), lambda i: gemv(A[i, 0:l], B[0:m, 0:l]), name="C")

Such an operation is the plain computation that the intrinsic describes, and remembers to be tensorized when lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.node import EMPTY, Attrs
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.te.errors import TEError
from warpbeam.te.operation import ComputeOp, Operation, ProducerLoad, Tensor, TensorSlice
from warpbeam.tir.expr import PrimExpr, Var, as_expr
from warpbeam.tir.reducer import Reduce
from warpbeam.tir.stmt import IterVar


@dataclass(frozen=True, eq=False)
class TensorCall:
    """A tensor intrinsic applied to slices of tensors, perhaps summed over further axes."""

    intrin: Any
    slices: tuple[TensorSlice, ...]
    reduce_axis: tuple[IterVar, ...] = ()
    scalars: tuple[PrimExpr, ...] = ()


class TensorComputeOp(ComputeOp):
    """A ComputeOp whose last `tensor_axes` axes, with the last `tensor_reduce` reduce axes, are done by `intrin`."""

    intrin: Any = None
    tensor_axes: int = 0
    tensor_reduce: int = 0

    def replace_inputs(self, mapping: dict[Tensor, Tensor]) -> Operation:
        new: Any = super().replace_inputs(mapping)
        found: Operation = self if new is self else self.replace(body=new.body)
        return found

    @property
    def inner_axes(self) -> tuple[IterVar, ...]:
        """The axes that the intrinsic does."""
        reduce = self.reduce_axis[len(self.reduce_axis) - self.tensor_reduce :]
        return (*self.axis[len(self.axis) - self.tensor_axes :], *reduce)


def call(intrin: Any, tensors: Sequence[Any], **kwargs: Any) -> TensorCall:
    """The call of an intrinsic; keywords reduce_axis (one or several) and scalar_inputs."""
    axes, scalars = kwargs.pop("reduce_axis", ()), kwargs.pop("scalar_inputs", ())
    if kwargs:
        raise TEError(f"the intrinsic {intrin.name} takes no {', '.join(kwargs)}", hint="reduce_axis, scalar_inputs")
    slices = []
    for t in tensors:
        if not isinstance(t, TensorSlice | Tensor):
            raise TEError(f"the intrinsic {intrin.name} is called with {t!r}", hint="with slices, such as A[i, 0:16]")
        slices.append(t if isinstance(t, TensorSlice) else TensorSlice(t, ()))
    if len(slices) != len(intrin.inputs):
        raise TEError(f"the intrinsic {intrin.name} has {len(intrin.inputs)} operands, got {len(slices)}")
    if len(scalars) != len(intrin.scalar_params):
        raise TEError(f"the intrinsic {intrin.name} has {len(intrin.scalar_params)} scalars, got {len(scalars)}")
    around = tuple(axes) if isinstance(axes, list | tuple) else (axes,)
    return TensorCall(intrin, tuple(slices), around, tuple(as_expr(s) for s in scalars))


def tensor_compute(
    dims: tuple[Any, ...], fcompute: Callable[..., Any], names: list[str], name: str, notes: Attrs = EMPTY
) -> Tensor | None:
    """The tensor of an fcompute that takes only the leading indices; None if it does not return a TensorCall."""
    outer = tuple(IterVar(Var(n), d, "spatial") for n, d in zip(names, dims, strict=False))
    made = fcompute(*[a.var for a in outer])
    if not isinstance(made, TensorCall):
        return None
    op = made.intrin.op
    if len(op.axis) != len(dims) - len(outer):
        raise TEError(
            f"compute {name} leaves {len(dims) - len(outer)} dimensions to the intrinsic {made.intrin.name}, "
            f"whose result has {len(op.axis)}",
            hint="fcompute takes one index for each dimension that the intrinsic does not do",
        )
    inner = {a: IterVar(Var(a.var.name), a.extent, a.kind) for a in (*op.axis, *op.reduce_axis)}
    renamed: dict[Any, Any] = {a.var: b.var for a, b in inner.items()}
    renamed.update(zip(made.intrin.scalar_params, made.scalars, strict=True))
    places = dict(zip(made.intrin.inputs, made.slices, strict=True))

    def load(n: Any) -> Any:
        return _element(places[n.tensor], n.indices) if isinstance(n, ProducerLoad) and n.tensor in places else None

    body: Any = rewrite(substitute(op.body[0], renamed), load)
    if isinstance(body, Reduce):
        axes = (*made.reduce_axis, *[inner[a] for a in op.reduce_axis])
        body = Reduce(body.combiner, body.source, axes, body.condition, body.value_index, body.init)
    elif made.reduce_axis:
        raise TEError(f"the intrinsic {made.intrin.name} does not reduce, so reduce_axis has no meaning")
    axis = (*outer, *[inner[a] for a in op.axis])
    found = TensorComputeOp(name, axis, (body,), notes, made.intrin, len(op.axis), len(op.reduce_axis))
    return found.output(0)


def _element(place: TensorSlice, index: tuple[PrimExpr, ...]) -> ProducerLoad:
    """An element of a slice: its own indices where it gives one, its begin plus the next of `index` where it is a
    range or gives none."""
    left = list(index)
    at: list[Any] = []
    for given in (*place.indices, *[slice(None)] * (len(place.tensor.shape) - len(place.indices))):
        if not isinstance(given, slice):
            at.append(given)
            continue
        if not left or given.step not in (None, 1):
            raise TEError(f"a slice of {place.tensor.name} does not have the dimensions of the intrinsic's operand")
        at.append(left.pop(0) + as_expr(0 if given.start is None else given.start))
    if left:
        raise TEError(f"a slice of {place.tensor.name} has fewer dimensions than the intrinsic's operand")
    return ProducerLoad(place.tensor, tuple(at))
