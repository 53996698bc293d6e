"""What a converter sees of a model: a node with its attributes, and what is known about its operands' contents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from warpbeam import op
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ImportModelError, UnsupportedError
from warpbeam.op import dims
from warpbeam.relay.expr import Constant, Expr, const
from warpbeam.tir.expr import PrimExpr, const_int

_MISSING: Any = object()


class Entry:
    """One value of the graph: its expression, its known integer content, or both.

    content: an object array of ints and expressions over symbolic sizes, or None. fixed: all it is computed from is
    constant. The expression of an entry with known content is built when it is first needed.
    """

    __slots__ = ("_expr", "_folded", "content", "dtype", "fixed", "missing")

    def __init__(
        self, expr: Expr | None = None, content: np.ndarray | None = None, dtype: str = "int64", fixed: bool = False
    ) -> None:
        self._expr = expr
        self.content = content
        self.dtype = dtype
        self.fixed = fixed
        self.missing = False
        self._folded: np.ndarray | None = None

    @property
    def expr(self) -> Expr:
        if self._expr is None:
            self._expr = content_expr(self.content, self.dtype)  # type: ignore[arg-type]
        return self._expr

    @property
    def array(self) -> np.ndarray | None:
        """The content as a plain array where it is constant, else None."""
        if self.content is not None:
            if all(not isinstance(v, PrimExpr) for v in self.content.flat):
                return self.content.astype(dt.to_numpy(self.dtype))
            return None
        if not self.fixed:
            return None
        if self._folded is None:
            self._folded = fold(self.expr)
        return self._folded


def content_expr(content: np.ndarray, dtype: str) -> Expr:
    """A tensor with known integer content: a constant, or a shape_tensor where sizes are symbolic."""
    if all(not isinstance(v, PrimExpr) for v in content.flat):
        return const(content.astype(dt.to_numpy(dtype)), dtype)
    return op.get("shape_tensor")(values=tuple(content.flat), shape=content.shape, dtype=dtype)  # type: ignore[no-any-return]


def fold(expr: Expr) -> np.ndarray:
    """The value of an expression without free variables, through the operators' NumPy references."""
    from warpbeam.ir.rewrite import post_order
    from warpbeam.relay.expr import Call, Tuple, TupleGetItem

    if isinstance(expr, Constant):
        return expr.numpy()
    done: dict[Any, Any] = {}
    for n in post_order(expr):
        if isinstance(n, Constant):
            done[n] = n.numpy()
        elif isinstance(n, Call):
            done[n] = n.op.numpy(n.attrs, *[done[a] for a in n.args])
        elif isinstance(n, Tuple):
            done[n] = tuple(done[f] for f in n.fields)
        elif isinstance(n, TupleGetItem):
            done[n] = done[n.tuple_value][n.index]
    return done[expr]  # type: ignore[no-any-return]


class NodeView:
    """One node of the model as converters see it.

    inputs, outputs: names ("" where an optional one is left out). opset: version of the node's operator set.
    """

    def __init__(
        self,
        proto: Any,
        opset: int,
        entries: Sequence[Entry | None] = (),
        attributes: dict[str, Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
        name: str = "",
    ) -> None:
        self.proto = proto
        self.opset = opset
        self.entries = list(entries)
        self.op_type: str = proto.op_type
        self.domain: str = proto.domain
        self.inputs: list[str] = list(proto.input)
        self.outputs: list[str] = list(proto.output)
        self.name: str = name or proto.name or next((o for o in proto.output if o), "") or proto.op_type
        self._attributes = attributes if attributes is not None else {a.name: a for a in proto.attribute}
        self._decode = decode

    def attr(self, name: str, default: Any = _MISSING) -> Any:
        """An attribute's value: int, float, str, numpy array (tensor), list of them; `default` where absent."""
        if name not in self._attributes:
            if default is _MISSING:
                raise self.error(f"attribute {name!r} is missing")
            return default
        value = self._attributes[name]
        if self._decode is None:
            from warpbeam.frontend.onnx.tensors import attribute_value

            return attribute_value(value)
        return self._decode(value)

    def has_attr(self, name: str) -> bool:
        return name in self._attributes

    @property
    def attributes(self) -> list[str]:
        return sorted(self._attributes)

    def entry(self, index: int) -> Entry | None:
        """What is known of operand `index`; None where it is left out."""
        return self.entries[index] if index < len(self.entries) else None

    def given(self, index: int) -> bool:
        """Whether optional operand `index` is there."""
        return self.entry(index) is not None

    def const(self, index: int) -> np.ndarray | None:
        """Operand `index` as an array where it is constant, else None."""
        found = self.entry(index)
        return None if found is None else found.array

    def value(self, index: int) -> np.ndarray | None:
        """Known integer content of operand `index` (object array of ints and expressions), else None."""
        found = self.entry(index)
        if found is None:
            return None
        if found.content is not None:
            return found.content
        array = found.array
        if array is None or array.dtype.kind not in "iub":
            return None
        out = np.empty(array.shape, object)
        out[...] = array.astype(object)
        return out

    def ints(self, index: int, what: str = "") -> list[Any]:
        """Operand `index` as a flat list of ints and symbolic expressions; refuses content known only at run time."""
        found = self.value(index)
        if found is None:
            raise self.unsupported(f"{what or f'input {index}'} is computed from data at run time")
        return [dims.dim(v) for v in found.reshape(-1)]

    def int_list(self, index: int, what: str = "") -> list[int]:
        """Operand `index` as plain ints; refuses symbolic or run-time content."""
        out = [const_int(v) for v in self.ints(index, what)]
        if any(v is None for v in out):
            raise self.unsupported(f"{what or f'input {index}'} depends on a symbolic dimension")
        return out  # type: ignore[return-value]

    def scalar(self, index: int, what: str = "") -> Any:
        """Operand `index`, a one-element constant, as a Python number."""
        found = self.const(index)
        if found is None:
            raise self.unsupported(f"{what or f'input {index}'} is computed from data at run time")
        if found.size != 1:
            raise self.error(f"{what or f'input {index}'} must have one element, it has {found.size}")
        return found.reshape(-1)[0].item()

    def error(self, what: str) -> ImportModelError:
        """The model breaks a rule of the format at this node."""
        return ImportModelError(f"{self.op_type}: {what}", where=f"node {self.name!r}")

    def unsupported(self, what: str) -> UnsupportedError:
        """The node is valid, but this use of it has no implementation."""
        return UnsupportedError(f"{self.op_type}: {what}", where=f"node {self.name!r}")
