"""Inputs of a graph: their types with symbolic dimensions by name, and the order and need of its nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import index
from typing import Any

from warpbeam.frontend.onnx.limits import Limits
from warpbeam.frontend.onnx.loader import subgraphs
from warpbeam.frontend.onnx.node import Entry, nbytes
from warpbeam.frontend.onnx.objects import (
    HandleEntry,
    OptionalEntry,
    SequenceEntry,
    declared_kind,
    rebuilt,
    tensor_code,
)  # fmt: skip
from warpbeam.frontend.onnx.tensors import elem_dtype
from warpbeam.ir.diagnostics import Diagnostics, ImportModelError, Span, UnsupportedError
from warpbeam.relay.expr import Var
from warpbeam.relay.types import TensorType
from warpbeam.runtime.objects import element_name
from warpbeam.tir.expr import SizeVar

_PLAIN = re.compile(r"[^A-Za-z0-9_]")

GRADIENT_DOMAIN = "ai.onnx.preview.training"

#: names that exporters give to every unknown dimension, so that equal names mean nothing
_NO_NAME = ("", "?")


class Dims:
    """Symbolic dimensions by the model's names. The variables' own names are plain identifiers."""

    def __init__(self, aliases: Mapping[str, str] | None = None) -> None:
        self.by_name: dict[str, Any] = {}
        self.aliases = dict(aliases or {})
        self.bound: dict[str, int] = {}
        self._taken: set[str] = set()

    def get(self, name: str) -> Any:
        """The number or variable that the dimension called `name` stands for."""
        name = self.aliases.get(name, name)
        if name in self.bound:
            return self.bound[name]
        if name not in self.by_name:
            base = _PLAIN.sub("_", name)[:40]
            base = base if base and not base[0].isdigit() else f"d_{base}"
            plain, k = base, 1
            while plain in self._taken:
                plain, k = f"{base}_{k}", k + 1
            self._taken.add(plain)
            self.by_name[name] = SizeVar(plain)
        return self.by_name[name]

    def name_of(self, var: Any) -> str | None:
        """The model's name of a dimension that is a variable."""
        return next((n for n, v in self.by_name.items() if v is var), None)

    def bind(self, name: str, value: int, where: str) -> None:
        name = self.aliases.get(name, name)
        if self.bound.setdefault(name, value) != value:
            raise ImportModelError(
                f"dimension {name[:80]!r} is given as {self.bound[name]} and as {value}", where=where
            )


def bind_inputs(
    graph: Any,
    env: dict[str, Any],
    dims: Dims,
    shapes: Mapping[str, Any] | None,
    dtype: Any,
    problems: Diagnostics,
    limits: Limits,
    host_sequences: bool = False,
) -> tuple[dict[str, Any], dict[str, Entry]]:
    """(variables of the entry's parameters in order, None where one has no implementation; values of the inputs).

    Initializers are none of them. A sequence is one parameter for each element.
    """
    infos: dict[str, Any] = {}
    for info in graph.input:
        if info.name in infos:
            raise ImportModelError(f"input {info.name[:80]!r} is declared twice")
        if not info.name:
            raise ImportModelError("an input of the graph has no name")
        if info.name not in env:
            infos[info.name] = info
    around = {n: i for n, i in infos.items() if i.type.WhichOneof("value") in ("sequence_type", "optional_type")}
    given = _overrides({k: v for k, v in (shapes or {}).items() if k not in around}, infos, dims)
    raw: dict[str, tuple[list[Any], str] | None] = {}
    held: dict[str, list[str] | None] = {}
    handles: dict[str, Entry] = {}
    for name, info in infos.items():
        if name in around and name not in (shapes or {}) and host_sequences and _is_sequence(info):
            handles[name] = _handle(info)
            raw[name] = ([], "int64")
            continue
        if name in around:
            try:
                parts, held[name] = _parts(info, (shapes or {}).get(name, ()), name in (shapes or {}))
                raw.update(parts)
            except UnsupportedError as e:
                problems.add(e.what, Span(f"input {name[:80]}"))
                raw[name] = None
            continue
        try:
            raw[name] = _declared(info, given.get(name), dims, dtype)
        except UnsupportedError as e:
            problems.add(e.what, Span(f"input {name[:80]}"))
            raw[name] = None
    out = _variables(raw, dims, limits)
    values: dict[str, Entry] = {}
    for name, info in infos.items():
        if name in handles:
            values[name] = rebuilt(handles[name], lambda _, name=name: Entry(out[name]))
        elif name in held:
            elements = [Entry(out[n], string=raw[n][1] == "string") for n in held[name] or ()]  # type: ignore[index]
            values[name] = _held(info, elements if held[name] is not None else None)
        elif out[name] is None:
            values[name] = Entry(missing=True)
        else:
            values[name] = Entry(out[name], string=raw[name][1] == "string")  # type: ignore[index]
    return out, values


def _variables(raw: Mapping[str, tuple[list[Any], str] | None], dims: Dims, limits: Limits) -> dict[str, Any]:
    """A variable per parameter; None where it has no implementation. Strings are numbers in the program."""
    out: dict[str, Any] = {}
    for name, found in raw.items():
        if found is None:
            out[name] = None
            continue
        shape = [dims.get(d) if isinstance(d, str) else d for d in found[0]]
        plain = "int64" if found[1] == "string" else found[1]
        out[name] = Var(name, _checked(name, TensorType(shape, plain), limits))
    return out


def _is_sequence(info: Any) -> bool:
    """Whether an input is a sequence of tensors."""
    kind = declared_kind(info.type, f"input {info.name[:80]!r}")
    return kind.startswith("seq(") and kind.count("(") == 2


def _handle(info: Any) -> HandleEntry:
    """A sequence whose length is not known before it is given."""
    inner = info.type.sequence_type.elem_type
    shape = inner.tensor_type
    rank = len(shape.shape.dim) if shape.HasField("shape") else None
    return HandleEntry(Entry(missing=True), declared_kind(inner, info.name[:80]), rank)


def _parts(info: Any, given: Any, known: bool) -> tuple[dict[str, Any], list[str] | None]:
    """(name -> shape and dtype of the tensors in a sequence or optional, their names in order; None: it is empty).

    given: a shape for each element of a sequence, the shape of what an optional holds, or None for an empty one.
    """
    name = info.name
    proto, text = info.type, declared_kind(info.type, f"input {name[:80]!r}")
    if not known:
        raise UnsupportedError(
            f"an input that is a {text} of unknown length (give the shapes of its elements, None for an empty optional)"
        )
    if text.startswith("optional("):
        if given is None:
            return {}, None
        proto = proto.optional_type.elem_type
        text = text[len("optional(") : -1]
    sequence = text.startswith("seq(")
    if given is None or text.count("(") > 2:
        raise UnsupportedError(f"an input that is a {text}" + (" without a value" if given is None else ""))
    code = tensor_code(proto)
    dtype = "string" if code == 8 else elem_dtype(code, f"input {name[:80]!r}")
    shapes = [_shape_given(name, s) for s in (given if sequence else [given])]
    if any(not isinstance(d, int) for s in shapes for d in s):
        raise UnsupportedError(f"a {text} whose elements have open dimensions")
    names = [element_name(name, k) for k in range(len(shapes))] if sequence else [name]
    return {n: (list(s), dtype) for n, s in zip(names, shapes, strict=True)}, names


def _held(info: Any, elements: list[Entry] | None) -> Entry:
    """The value of an input that is a sequence or an optional; None: an empty one."""
    text = declared_kind(info.type, f"input {info.name[:80]!r}")
    optional = text.startswith("optional(")
    inner = text[len("optional(") : -1] if optional else text
    if elements is None:
        return OptionalEntry(None, inner)
    value = SequenceEntry(elements, inner[len("seq(") : -1]) if inner.startswith("seq(") else elements[0]
    return OptionalEntry(value, inner) if optional else value


def _overrides(shapes: Mapping[str, Any], infos: dict[str, Any], dims: Dims) -> dict[str, tuple[Any, ...]]:
    """Shapes by input name; entries that are numbers name a dimension."""
    symbols = {d.dim_param for i in infos.values() for d in i.type.tensor_type.shape.dim if d.dim_param not in _NO_NAME}
    out: dict[str, tuple[Any, ...]] = {}
    for name, value in shapes.items():
        if isinstance(value, int):
            if name not in symbols:
                raise ImportModelError(
                    f"there is no dimension {name[:80]!r}",
                    hint=f"the model's symbolic dimensions are {sorted(symbols)}",
                )
            dims.bind(name, value, "shapes")
        elif name not in infos:
            raise ImportModelError(f"there is no input {name[:80]!r}", hint=f"the inputs are {list(infos)[:20]}")
        else:
            out[name] = _shape_given(name, value)
    return out


def _shape_given(name: str, value: Any) -> tuple[Any, ...]:
    """A shape as a user writes it: integers, names, None for a dimension that stays as it is."""
    try:
        return tuple(d if d is None or isinstance(d, str) else index(d) for d in value)
    except TypeError:
        raise ImportModelError(
            f"the shape given for input {name[:80]!r} is {str(value)[:80]}",
            hint="give a sequence of integers; names or None for dimensions that stay open",
        ) from None


def _declared(info: Any, given: tuple[Any, ...] | None, dims: Dims, dtype: Any) -> tuple[list[Any], str]:
    """Shape (ints and names of symbolic dimensions) and dtype of an input."""
    kind = info.type.WhichOneof("value")
    if kind is not None and kind != "tensor_type":
        raise UnsupportedError(f"an input that is a {kind.replace('_type', '')}")
    code = info.type.tensor_type.elem_type
    if code == 0 and dtype is not None:
        own = dtype if isinstance(dtype, str) else dtype.get(info.name, "float32")
    else:
        own = "string" if code == 8 else elem_dtype(code, f"input {info.name[:80]!r}")
    if not info.type.tensor_type.HasField("shape"):
        if given is None:
            raise UnsupportedError("an input without a shape (give one)")
        return [_own_dim(info.name, k, d) for k, d in enumerate(given)], own
    shape: list[Any] = []
    for k, d in enumerate(info.type.tensor_type.shape.dim):
        if d.HasField("dim_value") and d.dim_value >= 0:
            shape.append(int(d.dim_value))
        else:
            shape.append(_anonymous(info.name, k) if d.dim_param in _NO_NAME else d.dim_param)
    if given is not None:
        if len(given) != len(shape):
            raise ImportModelError(
                f"input {info.name[:80]!r} has {len(shape)} dimensions, the given shape {len(given)}"
            )
        for k, (have, want) in enumerate(zip(list(shape), given, strict=True)):
            if want is None:
                continue
            if isinstance(have, str) and isinstance(want, int):
                dims.bind(have, want, f"input {info.name[:80]!r}")
            shape[k] = want if not isinstance(have, str) or isinstance(want, str) else have
    return shape, own


def _anonymous(name: str, axis: int) -> str:
    return f"{name}_{axis}"


def _own_dim(name: str, axis: int, value: Any) -> Any:
    return _anonymous(name, axis) if value is None else value


def _checked(name: str, t: TensorType, limits: Limits) -> TensorType:
    known = TensorType([d if isinstance(d, int) else 1 for d in t.shape], t.dtype)
    if t.ndim > limits.rank or nbytes(known) > limits.tensor_bytes or any(d < 0 for d in known.shape):
        raise ImportModelError(
            f"input {name[:80]!r} has {t.ndim} dimensions and {nbytes(known)} bytes",
            why=f"the limits are {limits.rank} dimensions and {limits.tensor_bytes} bytes",
        )
    return t


# ------------------------------------------------------------------------------------------------------------ nodes


def order_nodes(graph: Any, known: set[str]) -> list[Any]:
    """The nodes that the outputs need, producers first (the file's order where it is one)."""
    nodes = list(graph.node)
    makers: dict[str, int] = {}
    for k, node in enumerate(nodes):
        for name in node.output:
            if name:
                if name in makers or name in known:
                    raise ImportModelError(f"value {name[:80]!r} is defined twice", where=f"node {node.name[:80]!r}")
                makers[name] = k
    wants = [_uses(node) for node in nodes]
    order: list[int] = []
    state = [0] * len(nodes)
    stack = [(makers[o.name], False) for o in reversed(graph.output) if o.name in makers]
    while stack:
        k, done = stack.pop()
        if done:
            state[k] = 2
            order.append(k)
            continue
        if state[k] == 2:
            continue
        state[k] = 1
        stack.append((k, True))
        for name in wants[k]:
            below = makers.get(name)
            if below is None or state[below] == 2:
                continue
            if state[below] == 1:
                raise ImportModelError(
                    f"node {nodes[below].name[:80]!r} depends on its own result", where=f"value {name[:80]!r}"
                )
            stack.append((below, False))
    return [nodes[k] for k in sorted(order)] if _in_order(order, wants, makers) else [nodes[k] for k in order]


def _in_order(order: list[int], wants: list[list[str]], makers: dict[str, int]) -> bool:
    """Whether the file's own order already has producers first."""
    return all(makers.get(name, -1) < k for k in order for name in wants[k])


def _uses(node: Any) -> list[str]:
    """Names that a node reads, those that its subgraphs take from outside included."""
    out = [i for i in node.input if i]
    if node.op_type == "Gradient" and node.domain == GRADIENT_DOMAIN:  # it names what it differentiates
        out += [a.s.decode("utf-8", "replace") for a in node.attribute if a.name == "y"]
    stack = [(g, frozenset()) for g in subgraphs(node)]
    while stack:
        graph, outer = stack.pop()
        own = outer | {i.name for i in graph.input} | {i.name for i in graph.initializer}
        own |= {o for n in graph.node for o in n.output}
        for n in graph.node:
            out.extend(i for i in n.input if i and i not in own)
            stack.extend((g, own) for g in subgraphs(n))
    return out
