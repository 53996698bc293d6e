"""Tensors and the operations that define them. Both have identity: two equal computes stay two tensors.

Operations: PlaceholderOp (an input), ComputeOp (element by element), ScanOp (along time), ExternOp (a statement).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from warpbeam.ir.node import EMPTY, Attrs, Binder, Derived, Node, NodeMemo
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.te.errors import TEError
from warpbeam.tir.expr import Buffer, PrimExpr, as_expr, simplify_dim
from warpbeam.tir.reducer import Reduce
from warpbeam.tir.stmt import IterVar, Stmt

_READ: NodeMemo[tuple[Tensor, ...]] = NodeMemo()  # by ComputeOp


class Dim(int):
    """A constant dimension: a Python integer that also answers to the names of a literal expression."""

    __slots__ = ()
    dtype = "int64"

    @property
    def value(self) -> int:
        return int(self)


class Operation(Binder):
    """What defines tensors: a placeholder, a compute, a scan or an extern."""

    name: str

    def signature(self) -> tuple[tuple[tuple[Any, ...], str], ...]:
        """Shape and dtype of each output."""
        return ()

    @property
    def tag(self) -> str:
        """The author's hint for schedules; empty without one."""
        return str(getattr(self, "attrs", EMPTY).get("tag", ""))

    @property
    def num_outputs(self) -> int:
        return len(self.signature())

    @property
    def input_tensors(self) -> list[Tensor]:
        return []

    def output(self, index: int) -> Tensor:
        """Output number `index`; TEError if there is none."""
        if not 0 <= index < self.num_outputs:
            raise TEError(f"operation {self.name} has no output {index}", hint=f"it has {self.num_outputs}")
        return Tensor(self, index)

    def replace_inputs(self, mapping: dict[Tensor, Tensor]) -> Operation:
        """The operation reading other tensors in place of some; the same one where it reads none of them."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


def _from_topi(name: str, swap: bool = False) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        fn = getattr(importlib.import_module("warpbeam.topi"), name)
        return fn(*others, self) if swap else fn(self, *others)

    method.__name__ = name
    return method


class Tensor(Node):
    """Output number `index` of an operation; equal iff the operation and index are.

    `T[i, j]` and `T(i, j)` are elements, `T[i]` the slice that `[j]` completes; arithmetic of whole tensors broadcasts.
    """

    op: Operation
    index: int = 0
    shape: Derived[tuple[Any, ...]]
    dtype: Derived[str]

    def _derive(self) -> None:
        shape, dtype = self.op.signature()[self.index]
        self._set("shape", tuple(Dim(d) if isinstance(d, int) else d for d in shape))
        self._set("dtype", dtype)

    @property
    def name(self) -> str:
        return self.op.name if self.index == 0 else f"{self.op.name}.v{self.index}"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def value_index(self) -> int:
        """Which of its operation's outputs it is."""
        return self.index

    def __call__(self, *indices: Any) -> ProducerLoad:
        return ProducerLoad(self, indices)

    def __getitem__(self, indices: Any) -> Any:
        found = indices if isinstance(indices, tuple) else (indices,)
        part = len(found) < len(self.shape) or any(isinstance(i, slice) for i in found)
        return TensorSlice(self, found) if part else ProducerLoad(self, found)

    def __iter__(self) -> Iterator[Any]:
        raise TEError(f"tensor {self.name} cannot be iterated over", hint="index it inside te.compute")

    def __prim_expr__(self) -> PrimExpr:
        if self.shape:
            raise TEError(f"tensor {self.name} is used as a number", hint=f"index it: {self.name}[...]")
        return ProducerLoad(self, ())

    def astype(self, dtype: str) -> Any:
        """The tensor converted to `dtype`."""
        return _from_topi("cast")(self, dtype)

    def __repr__(self) -> str:
        return f"Tensor(shape={list(self.shape)}, op.name={self.op.name})"

    __add__, __radd__ = _from_topi("add"), _from_topi("add", True)
    __sub__, __rsub__ = _from_topi("subtract"), _from_topi("subtract", True)
    __mul__, __rmul__ = _from_topi("multiply"), _from_topi("multiply", True)
    __truediv__, __rtruediv__ = _from_topi("divide"), _from_topi("divide", True)
    __floordiv__, __rfloordiv__ = _from_topi("floor_divide"), _from_topi("floor_divide", True)
    __mod__, __rmod__ = _from_topi("floor_mod"), _from_topi("floor_mod", True)
    __neg__ = _from_topi("negative")


class TensorSlice:
    """A tensor with some leading indices given: `A[i]` of a matrix, which `[j]` completes to an element. Indices may
    also be ranges (`A[i, 0:16]`): operands of a tensor intrinsic.
    """

    def __init__(self, tensor: Tensor, indices: tuple[Any, ...]) -> None:
        self.tensor, self.indices = tensor, indices

    @property
    def dtype(self) -> str:
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[Any, ...]:
        """The dimensions that are not indexed yet."""
        return self.tensor.shape[len(self.indices) :]

    def __getitem__(self, indices: Any) -> Any:
        more = indices if isinstance(indices, tuple) else (indices,)
        return self.tensor[(*self.indices, *more)]

    def __prim_expr__(self) -> PrimExpr:
        raise TEError(
            f"{len(self.indices)} indices of tensor {self.tensor.name} are no element",
            hint=f"it has {self.tensor.ndim} dimensions; index all of them",
        )


class ProducerLoad(PrimExpr):
    """Element of a tensor at index expressions."""

    tensor: Tensor
    indices: tuple[PrimExpr, ...]

    @classmethod
    def _normalize(cls, tensor: Tensor, indices: Any) -> tuple[Any, ...]:
        idx = tuple(as_expr(i) for i in indices)
        if len(idx) != len(tensor.shape):
            raise TEError(f"tensor {tensor.name} has {len(tensor.shape)} dimensions, indexed with {len(idx)}")
        return tensor, idx

    def _derive(self) -> None:
        self._set("dtype", self.tensor.dtype)

    def text_form(self, printer: Any) -> str:
        """The element as text, for people."""
        return f"{self.tensor.name}[{printer.listed(self.indices)}]"

    @property
    def producer(self) -> Tensor:
        return self.tensor


class PlaceholderOp(Operation):
    """An input tensor."""

    shape: tuple[Any, ...]
    dtype: str

    def signature(self) -> tuple[tuple[tuple[Any, ...], str], ...]:
        return ((self.shape, self.dtype),)


class ComputeOp(Operation):
    """body[o] gives output o at the values of `axis`; a Reduce body also ranges over its reduce axes.

    attrs are hints of the author (tags); sketches never read operator names from them.
    """

    axis: tuple[IterVar, ...]
    body: tuple[PrimExpr, ...]
    attrs: Attrs = EMPTY

    def signature(self) -> tuple[tuple[tuple[Any, ...], str], ...]:
        shape = tuple(simplify_dim(a.extent) for a in self.axis)
        return tuple((shape, b.dtype) for b in self.body)

    @property
    def num_outputs(self) -> int:
        return len(self.body)

    @property
    def reduce_axis(self) -> tuple[IterVar, ...]:
        first = self.body[0]
        return first.axis if isinstance(first, Reduce) else ()

    @property
    def input_tensors(self) -> list[Tensor]:
        found = _READ.get(self)
        if found is None:
            found = _READ[self] = tuple(dict.fromkeys(n.tensor for n in loads(self)))
        return list(found)

    def replace_inputs(self, mapping: dict[Tensor, Tensor]) -> Operation:
        if not any(t in mapping for t in self.input_tensors):
            return self
        memo: dict[Any, Any] = {}

        def change(n: Any) -> Any:
            if isinstance(n, ProducerLoad) and n.tensor in mapping:
                return ProducerLoad(mapping[n.tensor], n.indices)
            return None

        return ComputeOp(self.name, self.axis, tuple(rewrite(b, change, memo) for b in self.body), self.attrs)


class ScanOp(Operation):
    """State k along time: rows [0, len(init[k])) are init[k]; row t is update[k][t], computed from earlier rows.

    `scan_axis` is the time, from the first row that is updated; `spatial_axis_` are the other dimensions of all states.
    """

    init: tuple[Tensor, ...]
    update: tuple[Tensor, ...]
    state_placeholder: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    scan_axis: IterVar
    spatial_axis_: tuple[IterVar, ...]
    attrs: Attrs = EMPTY

    def signature(self) -> tuple[tuple[tuple[Any, ...], str], ...]:
        return tuple((tuple(t.shape), t.dtype) for t in self.state_placeholder)

    @property
    def axis(self) -> tuple[IterVar, ...]:
        return (self.scan_axis, *self.spatial_axis_)

    @property
    def input_tensors(self) -> list[Tensor]:
        return list(dict.fromkeys((*self.init, *self.update)))

    def replace_inputs(self, mapping: dict[Tensor, Tensor]) -> Operation:
        if not any(t in mapping for t in self.input_tensors):
            return self
        init, update, inputs = (tuple(mapping.get(t, t) for t in ts) for ts in (self.init, self.update, self.inputs))
        state = self.state_placeholder
        return ScanOp(self.name, init, update, state, inputs, self.scan_axis, self.spatial_axis_, self.attrs)


class ExternOp(Operation):
    """Tensors that a statement fills: it reads `input_placeholders` and writes `output_placeholders`."""

    inputs: tuple[Tensor, ...]
    input_placeholders: tuple[Buffer, ...]
    output_placeholders: tuple[Buffer, ...]
    body: Stmt
    attrs: Attrs = EMPTY

    def signature(self) -> tuple[tuple[tuple[Any, ...], str], ...]:
        return tuple((b.shape, b.dtype) for b in self.output_placeholders)

    @property
    def axis(self) -> tuple[IterVar, ...]:
        return ()

    @property
    def input_tensors(self) -> list[Tensor]:
        return list(dict.fromkeys(self.inputs))

    def replace_inputs(self, mapping: dict[Tensor, Tensor]) -> Operation:
        if not any(t in mapping for t in self.inputs):
            return self
        inputs = tuple(mapping.get(t, t) for t in self.inputs)
        return ExternOp(self.name, inputs, self.input_placeholders, self.output_placeholders, self.body, self.attrs)


def operations(outputs: Sequence[Tensor], inputs: Collection[Tensor] = ()) -> list[Operation]:
    """Every operation below the outputs, producers first; not below `inputs`, which count as given."""
    given = set(inputs)
    return operations_below([t.op for t in outputs if t not in given], given)


def operations_below(roots: Sequence[Operation], given: Collection[Tensor] = ()) -> list[Operation]:
    """`roots` and every operation below them, producers first, without recursion; not below the tensors `given`."""
    order: list[Operation] = []
    seen: set[Operation] = set()
    stack: list[tuple[Operation, bool]] = [(op, False) for op in reversed(roots)]
    while stack:
        op, done = stack.pop()
        if done:
            order.append(op)
        elif op not in seen:
            seen.add(op)
            stack.append((op, True))
            below = (t for t in reversed(op.input_tensors) if t not in given and t.op not in seen)
            stack.extend((t.op, False) for t in below)
    return order


def loads(op: ComputeOp) -> Iterator[ProducerLoad]:
    """Every read of another tensor in an operation's bodies."""
    return (n for n in post_order(*op.body) if isinstance(n, ProducerLoad))
