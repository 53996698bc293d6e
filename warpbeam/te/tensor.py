"""Tensors and the operations that define them: WHAT is computed, index by index, with no order.

    A = te.placeholder((n, k), name="A")
    r = te.reduce_axis(k)
    C = te.compute((n, m), lambda i, j: te.sum(A[i, r] * B[r, j], axis=r), name="C")

Tensors and operations have identity: two equal computes stay two tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import EMPTY, Attrs, Binder, Derived, Node
from warpbeam.ir.rewrite import post_order
from warpbeam.tir.expr import IntImm, PrimExpr, Var, as_expr, land, lor, maximum, minimum, simplify_dim
from warpbeam.tir.stmt import IterVar


class Operation(Binder):
    """What defines tensors: a PlaceholderOp or a ComputeOp."""

    name: str

    @property
    def input_tensors(self) -> list[Tensor]:
        return []

    def output(self, index: int) -> Tensor:
        raise IRError(f"operation {self.name} has no output {index}")


class Tensor(Node):
    """Output number `index` of an operation; equal iff the operation and index are."""

    op: Operation
    index: int = 0
    shape: Derived[tuple[Any, ...]]
    dtype: Derived[str]

    def _derive(self) -> None:
        shape, dtypes = self.op.signature()  # type: ignore[attr-defined]
        self._set("shape", shape)
        self._set("dtype", dtypes[self.index])

    @property
    def name(self) -> str:
        return self.op.name if self.index == 0 else f"{self.op.name}.v{self.index}"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __call__(self, *indices: Any) -> ProducerLoad:
        return ProducerLoad(self, indices)

    def __getitem__(self, indices: Any) -> ProducerLoad:
        return ProducerLoad(self, indices if isinstance(indices, tuple) else (indices,))


class ProducerLoad(PrimExpr):
    """Element of a tensor at index expressions."""

    tensor: Tensor
    indices: tuple[PrimExpr, ...]

    @classmethod
    def _normalize(cls, tensor: Tensor, indices: Any) -> tuple[Any, ...]:
        idx = tuple(as_expr(i) for i in indices)
        if len(idx) != len(tensor.shape):
            raise IRError(f"tensor {tensor.name} has {len(tensor.shape)} dimensions, indexed with {len(idx)}")
        return tensor, idx

    def _derive(self) -> None:
        self._set("dtype", self.tensor.dtype)


class PlaceholderOp(Operation):
    """An input tensor."""

    shape: tuple[Any, ...]
    dtype: str

    def signature(self) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        return self.shape, (self.dtype,)

    def output(self, index: int) -> Tensor:
        return Tensor(self, index)


class ComputeOp(Operation):
    """body[o] gives output o at the values of `axis`; a Reduce body also ranges over its reduce axes.

    attrs are hints of the author (tags); sketches never read operator names from them.
    """

    axis: tuple[IterVar, ...]
    body: tuple[PrimExpr, ...]
    attrs: Attrs

    def signature(self) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        return tuple(simplify_dim(a.extent) for a in self.axis), tuple(b.dtype for b in self.body)

    @property
    def reduce_axis(self) -> tuple[IterVar, ...]:
        first = self.body[0]
        return first.axis if isinstance(first, Reduce) else ()

    @property
    def input_tensors(self) -> list[Tensor]:
        return list(dict.fromkeys(n.tensor for n in post_order(*self.body) if isinstance(n, ProducerLoad)))

    def output(self, index: int) -> Tensor:
        return Tensor(self, index)


class CommReducer(Node):
    """An associative, commutative combination of tuples: result[i](lhs, rhs) with identity[i]."""

    lhs: tuple[Var, ...]
    rhs: tuple[Var, ...]
    result: tuple[PrimExpr, ...]
    identity: tuple[PrimExpr, ...]


class Reduce(PrimExpr):
    """Value `value_index` of combining `source` over `axis` where `condition` holds, starting from `init` or the
    identity.
    """

    combiner: CommReducer
    source: tuple[PrimExpr, ...]
    axis: tuple[IterVar, ...]
    condition: PrimExpr
    value_index: int
    init: tuple[PrimExpr, ...]

    def _derive(self) -> None:
        self._set("dtype", self.source[self.value_index].dtype)


def placeholder(shape: Sequence[Any], dtype: str = "float32", name: str = "placeholder") -> Tensor:
    """An input tensor of `shape` (ints or expressions)."""
    return PlaceholderOp(name, tuple(simplify_dim(s) for s in shape), dtype).output(0)


def var(name: str = "n", dtype: str = "int64") -> Var:
    return Var(name, dtype)


def size_var(name: str = "n", dtype: str = "int64") -> Var:
    """A symbolic size (>= 0)."""
    return Var(name, dtype, True)


def reduce_axis(dom: Any, name: str = "rv") -> IterVar:
    """A reduction axis over [0, extent); `dom` is an extent or a (0, extent) pair (a non-zero start is refused)."""
    if isinstance(dom, list | tuple):
        low, high = dom
        if not (isinstance(low, int) and low == 0) and not (isinstance(low, IntImm) and low.value == 0):
            raise IRError(
                f"reduce axis {name} starts at {low}", hint="use a (0, extent) domain and shift the index expression"
            )
        dom = high
    return IterVar(Var(name), dom, "reduce")


def compute(
    shape: Sequence[Any],
    fcompute: Callable[..., Any],
    name: str = "compute",
    tag: str = "",
    attrs: dict[str, Any] | None = None,
) -> Any:
    """A tensor (or tuple of tensors of one shape) given element by element.

    shape: ints or expressions. fcompute: takes one index per dimension (or *indices) and returns an expression, or a
    tuple of
    expressions / the tuple of a multi-value reduction.
    """
    dims = tuple(simplify_dim(s) for s in shape)
    code = inspect.signature(fcompute)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in code.parameters.values())
    names = [p.name for p in code.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not variadic and len(names) != len(dims):
        raise IRError(f"fcompute of {name} takes {len(names)} indices, the shape has {len(dims)} dimensions")
    names += [f"i{k}" for k in range(len(names), len(dims))]
    axes = tuple(IterVar(Var(n), d, "spatial") for n, d in zip(names, dims, strict=True))
    result = fcompute(*[a.var for a in axes])
    bodies = tuple(as_expr(b) for b in result) if isinstance(result, list | tuple) else (as_expr(result),)
    notes = Attrs({**(attrs or {}), **({"tag": tag} if tag else {})}) if (attrs or tag) else EMPTY
    op = ComputeOp(name, axes, bodies, notes)
    outs = tuple(op.output(i) for i in range(len(bodies)))
    return outs if isinstance(result, list | tuple) else outs[0]


def comm_reducer(
    fcombine: Callable[..., Any], fidentity: Callable[..., Any], name: str = "reduce"
) -> Callable[..., Any]:
    """A reducer: fcombine(lhs, rhs) -> value (tuples for several), fidentity(dtype, ...) -> value(s).

    The result is called as reducer(expr(s), axis=, where=None, init=None); several values give a tuple.
    """

    def reducer(expr: Any, axis: Any, where: Any = None, init: Any = None) -> Any:
        many = isinstance(expr, list | tuple)
        source = tuple(as_expr(e) for e in (expr if many else (expr,)))
        axes = tuple(axis) if isinstance(axis, list | tuple) else (axis,)
        lhs = tuple(Var(f"lhs{i}", e.dtype) for i, e in enumerate(source))
        rhs = tuple(Var(f"rhs{i}", e.dtype) for i, e in enumerate(source))
        result = fcombine(lhs, rhs) if many else (fcombine(lhs[0], rhs[0]),)
        identity = fidentity(*[e.dtype for e in source])
        identity = tuple(identity) if many else (identity,)
        combiner = CommReducer(
            lhs, rhs, tuple(map(as_expr, result)), tuple(as_expr(v, e.dtype) for v, e in zip(identity, source))
        )
        start = () if init is None else tuple(as_expr(v) for v in (init if isinstance(init, list | tuple) else (init,)))
        cond = as_expr(True if where is None else where, "bool")
        outs = tuple(Reduce(combiner, source, axes, cond, i, start) for i in range(len(source)))
        return outs if many else outs[0]

    reducer.__name__ = name
    return reducer


def _min_value(dtype: str) -> Any:
    return float("-inf") if dt.is_float(dtype) else dt.int_range(dtype)[0]


def _max_value(dtype: str) -> Any:
    return float("inf") if dt.is_float(dtype) else dt.int_range(dtype)[1]


def min_value(dtype: str) -> PrimExpr:
    """Smallest value of a dtype (-inf for floats)."""
    return as_expr(_min_value(dtype), dtype)


def max_value(dtype: str) -> PrimExpr:
    """Largest value of a dtype (inf for floats)."""
    return as_expr(_max_value(dtype), dtype)


sum = comm_reducer(lambda a, b: a + b, lambda t: as_expr(0, t), name="sum")
prod = comm_reducer(lambda a, b: a * b, lambda t: as_expr(1, t), name="prod")
max = comm_reducer(lambda a, b: maximum(a, b), min_value, name="max")
min = comm_reducer(lambda a, b: minimum(a, b), max_value, name="min")
all_of = comm_reducer(lambda a, b: land(a, b), lambda t: as_expr(True, t), name="all")
any_of = comm_reducer(lambda a, b: lor(a, b), lambda t: as_expr(False, t), name="any")


def operations(outputs: Sequence[Tensor]) -> list[Operation]:
    """Every operation below the outputs, producers first, without recursion."""
    order: list[Operation] = []
    seen: set[Operation] = set()
    stack: list[tuple[Operation, bool]] = [(t.op, False) for t in reversed(list(outputs))]
    while stack:
        op, done = stack.pop()
        if done:
            order.append(op)
        elif op not in seen:
            seen.add(op)
            stack.append((op, True))
            stack.extend((t.op, False) for t in reversed(op.input_tensors) if t.op not in seen)
    return order


def loads(op: ComputeOp) -> Iterator[ProducerLoad]:
    """Every read of another tensor in an operation's bodies."""
    return (n for n in post_order(*op.body) if isinstance(n, ProducerLoad))
