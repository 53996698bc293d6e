"""What a converter sees of a model: a node with its attributes, and what is known about its operands' contents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from warpbeam import op
from warpbeam.frontend.onnx.tensors import SCHEMA_NAMES, attribute_value
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ImportModelError, UnsupportedError
from warpbeam.ir.node import children
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Constant, Expr, Tuple, TupleGetItem, Var, const
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.tir.expr import PrimExpr, const_int
from warpbeam.topi import dims

_MISSING: Any = object()
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool")


class Entry:
    """One value of the graph: its expression, its known integer content, or both.

    content: an object array of ints and expressions over symbolic sizes, or None. fixed: all it is computed from is
    constant. made: builds the tensor of known content. missing: it could not be made, because of something that is
    unsupported. string: the numbers stand for strings, see `strings`. The expression of an entry with known content is
    built when it is first needed.
    """

    __slots__ = ("_dtype", "_expr", "_foldable", "_made", "content", "fixed", "limit", "missing", "string")

    def __init__(
        self,
        expr: Expr | None = None,
        content: np.ndarray | None = None,
        dtype: str = "int64",
        fixed: bool = False,
        missing: bool = False,
        limit: int = 64 << 20,
        made: Callable[[np.ndarray, str], Expr] | None = None,
        string: bool = False,
    ) -> None:
        self.string = string
        self._expr = expr
        self._made = made or content_expr
        self._dtype = dtype
        self._foldable = True
        self.content = content
        self.fixed = fixed
        self.missing = missing
        self.limit = limit

    @property
    def expr(self) -> Expr:
        if self._expr is None:
            self._expr = self._made(self.content, self._dtype)  # type: ignore[arg-type]
        return self._expr

    @property
    def kind(self) -> str:
        """The type as the format's own definitions of operators write it, such as "tensor(float)"."""
        return tensor_kind("string" if self.string else self.type.dtype)

    @property
    def constant(self) -> bool:
        """Whether the value is the same in every call."""
        if self.content is not None:
            return all(not isinstance(v, PrimExpr) for v in self.content.flat)
        return self.fixed

    @property
    def type(self) -> Any:
        return TensorType(self.content.shape, self._dtype) if self.content is not None else self.expr.ty

    @property
    def array(self) -> np.ndarray | None:
        """The content as a plain array where it is constant (and not beyond the folding limit), else None."""
        if self.content is not None:
            return self.content.astype(dt.to_numpy(self._dtype)) if self.constant else None
        if not self.fixed or not self._foldable:
            return None
        found = fold(self.expr, self.limit)
        if found is None:
            self._foldable = False
        elif not isinstance(self._expr, Constant):
            self._expr = Constant(found)
        return found


def tensor_kind(dtype: str) -> str:
    """A tensor type as schemas write it."""
    return f"tensor({SCHEMA_NAMES.get(dtype, dtype)})"


def content_expr(content: np.ndarray, dtype: str) -> Expr:
    """A tensor with known integer content: a constant, or a shape_tensor where sizes are symbolic."""
    if all(not isinstance(v, PrimExpr) for v in content.flat):
        return const(content.astype(dt.to_numpy(dtype)), dtype)
    return op.get("shape_tensor")(values=tuple(content.flat), shape=content.shape, dtype=dtype)  # type: ignore[no-any-return]


def fold(expr: Expr, limit: int) -> np.ndarray | None:
    """The value of an expression without free variables through the operators' NumPy references.

    None where a value on the way is larger than `limit` bytes or has symbolic dimensions.
    """
    if isinstance(expr, Constant):
        return expr.numpy()
    nodes = [n for n in post_order(expr) if isinstance(n, Expr)]
    for n in nodes:
        fields = n.ty.fields if isinstance(n.ty, TupleType) else (n.ty,)
        if not isinstance(n, Constant) and not all(t.is_static and nbytes(t) <= limit for t in fields):
            return None
    done: dict[Any, Any] = {}
    for n in nodes:
        if isinstance(n, Constant):
            done[n] = n.numpy()
        elif isinstance(n, Call) and not _folds(n):
            return None
        elif isinstance(n, Call):
            done[n] = n.op.numpy(n.attrs, *[done[a] for a in n.args])
        elif isinstance(n, Tuple):
            done[n] = tuple(done[f] for f in n.fields)
        elif isinstance(n, TupleGetItem):
            done[n] = done[n.tuple_value][n.index]
    return np.asarray(done[expr])


def _folds(call: Call) -> bool:
    """Whether a call has the same value when it is computed now; the model's strings exist while it is imported."""
    return call.op.folds or (call.op.host and call.attrs["function"].startswith("string."))  # type: ignore[no-any-return]


def nbytes(t: TensorType) -> int:
    """Bytes of a tensor with static dimensions."""
    return math.prod(t.shape) * dt.nbytes(t.dtype)


def small_sources(entry: Entry) -> list[str]:
    """Names of the inputs that a value with few elements is computed from, where they are small and near."""
    if entry.type is None or entry.type.ndim > 1 or not entry.type.is_static or math.prod(entry.type.shape) > 1024:
        return []
    names: list[str] = []
    stack, steps = [entry.expr], 0
    while stack and steps < 64:
        node, steps = stack.pop(), steps + 1
        if isinstance(node, Var):
            t = node.ty
            if t.ndim > 1 or not t.is_static or math.prod(t.shape) > 1024:
                return []
            names.append(node.name)
        elif isinstance(node, Expr):
            stack.extend(c for c in children(node) if isinstance(c, Expr))
    return [] if stack else names


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
        assumptions: list[Any] | None = None,
        asked: set[str] | None = None,
        found: Any = None,
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
        self._assumptions: list[Any] = [] if assumptions is None else assumptions
        self._asked: set[str] = set() if asked is None else asked
        self.found: Any = found
        self.refusal: type[ImportModelError] = ImportModelError  # what errors of the node are from here on

    def assume(self, condition: Any) -> None:
        """A condition on symbolic sizes that this conversion needs; the compiled module checks it when it is called."""
        if condition not in self._assumptions:
            self._assumptions.append(condition)

    def attr(self, name: str, default: Any = _MISSING) -> Any:
        """An attribute's value: int, float, str, numpy array (tensor), list of them; `default` where absent."""
        if name not in self._attributes:
            if default is _MISSING:
                raise self.error(f"attribute {name!r} is missing")
            return default
        value = self._attributes[name]
        return (self._decode or attribute_value)(value)

    def has_attr(self, name: str) -> bool:
        return name in self._attributes

    def is_string(self, name: str) -> bool:
        """Whether an attribute is a tensor of strings."""
        found = self._attributes.get(name)
        return found is not None and found.type == 4 and found.t.data_type == 8

    @property
    def attributes(self) -> list[str]:
        return sorted(self._attributes)

    def entry(self, index: int) -> Entry | None:
        """What is known of operand `index`; None where it is left out."""
        return self.entries[index] if index < len(self.entries) else None

    def given(self, index: int) -> bool:
        """Whether optional operand `index` is there."""
        return self.entry(index) is not None

    def operand(self, index: int) -> Expr:
        """Operand `index`; an error where it is left out."""
        entry = self.entry(index)
        if entry is None:
            raise self.error(f"input {index} is missing")
        return entry.expr

    def const(self, index: int) -> np.ndarray | None:
        """Operand `index` as an array where it is constant, else None."""
        found = self.entry(index)
        array = None if found is None else found.array
        if found is not None and array is None:
            self._asked.update(small_sources(found))
        return array

    def value(self, index: int) -> np.ndarray | None:
        """Known integer content of operand `index` (object array of ints and expressions), else None."""
        found = self.entry(index)
        out = self.known(index)
        if found is not None and out is None:
            self._asked.update(small_sources(found))
        return out

    def known(self, index: int) -> np.ndarray | None:
        """As `value`, without noting that the content was wanted."""
        found = self.entry(index)
        if found is None or found.type is None:
            return None
        if found.content is not None:
            return found.content
        if (
            found.type.dtype not in INTEGERS
            or math.prod(d if isinstance(d, int) else 1 for d in found.type.shape) > 65536
        ):
            return None
        array = found.array
        if array is None:
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
        return self.refusal(f"{self.op_type}: {what}", where=f"node {self.name!r}")

    def unsupported(self, what: str) -> UnsupportedError:
        """The node is valid, but this use of it has no implementation."""
        return UnsupportedError(f"{self.op_type}: {what}", where=f"node {self.name!r}")
