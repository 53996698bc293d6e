"""Makes a model that fails smaller while it still fails: fewer nodes, fewer outputs, simpler values, smaller shapes.

Delta debugging over the nodes of an ONNX graph: a set of nodes is taken away, what the rest read of them becomes an
input of the graph, and what nobody reads any more becomes an output. Then nodes are bypassed, inputs become constants,
attributes go and sizes shrink, as long as the check says that the failure is still there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.relay import interp

Arrays = dict[str, np.ndarray]
Check = Callable[[ModelProto, Arrays], bool]


@dataclass(slots=True)
class Case:
    """A model with values for its inputs; `known` also holds what is known of the tensors inside."""

    model: ModelProto
    inputs: Arrays
    known: Arrays = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Nodes, and elements of inputs and constants."""
        held = sum(int(np.prod(t.dims)) for t in self.model.graph.initializer)
        return len(self.model.graph.node), held + sum(a.size for a in self.inputs.values())


@dataclass(slots=True)
class Reducer:
    """Reduces a case by a check; `tried` counts the checks made, `limit` ends them."""

    check: Check
    limit: int = 2000
    tell: Callable[[str], None] = lambda text: None
    tried: int = 0

    def reduce(self, model: ModelProto, inputs: Mapping[str, np.ndarray]) -> Case:
        """The smallest case found.

        Args:
            inputs: arrays by name, for all inputs.

        Raises:
            ValueError: the check does not hold for the model as given.
        """
        case = Case(model, dict(inputs))
        if not self._fails(case):
            raise ValueError("the check does not hold for the model as it is given")
        before = None
        while before != case.size and self.tried < self.limit:
            before = case.size
            for step in (self._nodes, self._bypassed, self._outputs, self._constants, self._attributes, self._shapes):
                case = step(case)
                self.tell(f"{step.__name__[1:]}: {case.size[0]} nodes, {case.size[1]} elements, {self.tried} checks")
        return case

    def _fails(self, case: Case) -> bool:
        if self.tried >= self.limit:
            return False
        self.tried += 1
        return self.check(case.model, case.inputs)

    def _first(self, cases: Iterator[Case | None]) -> Case | None:
        return next((c for c in cases if c is not None and self._fails(c)), None)

    def _nodes(self, case: Case) -> Case:
        """Chunks of nodes are taken away, in halves, quarters, … single ones."""
        known, types = values_of(case), types_of(case.model)
        kept = list(range(len(case.model.graph.node)))
        chunk = max(1, len(kept) // 2)
        while True:
            at = 0
            while at < len(kept) and len(kept) > 1:
                rest = kept[:at] + kept[at + chunk :]
                smaller = part(case, rest, known, types) if rest else None
                if smaller is not None and self._fails(smaller):
                    kept = rest
                else:
                    at += chunk
            if chunk == 1:
                break
            chunk = max(1, min(chunk // 2, len(kept) // 2))
        return part(case, kept, known, types) if len(kept) < len(case.model.graph.node) else case

    def _bypassed(self, case: Case) -> Case:
        """A node is replaced by one of its operands of the same type."""
        again = True
        while again:
            found = self._first(_bypasses(case))
            again = found is not None
            case = found or case
        return case

    def _outputs(self, case: Case) -> Case:
        """All outputs but one go."""
        names = [o.name for o in case.model.graph.output]
        if len(names) < 2:
            return case
        return self._first(with_outputs(case, [n]) for n in names) or case

    def _constants(self, case: Case) -> Case:
        """Inputs become constants, and constants become ones."""
        for name in list(case.inputs):
            case = self._first(iter([_fixed(case, name)])) or case
        for tensor in list(case.model.graph.initializer):
            array = numpy_helper.to_array(tensor)
            if array.dtype.kind in "fiu" and array.size and (array != 1).any():
                case = self._first(iter([_replaced(case, {tensor.name: np.ones_like(array)})])) or case
        return case

    def _attributes(self, case: Case) -> Case:
        """Attributes that the failure does not need."""
        for i, node in enumerate(case.model.graph.node):
            for attribute in list(node.attribute):
                smaller = _copy(case)
                entry = smaller.model.graph.node[i]
                rest = [a for a in entry.attribute if a.name != attribute.name]
                del entry.attribute[:]
                entry.attribute.extend(rest)
                case = smaller if self._fails(smaller) else case
        return case

    def _shapes(self, case: Case) -> Case:
        """A size becomes 1, a half, or one less, wherever inputs and constants have it."""
        sizes = {s for a in (*case.inputs.values(), *constants(case).values()) for s in a.shape}
        for size in sorted(sizes, reverse=True):
            for smaller in sorted({1, size // 2, size - 1} - {0, size, -1}):
                found = _resized(case, size, smaller)
                if self._fails(found):
                    case = found
                    break
        return case


def part(case: Case, kept: Sequence[int], known: Arrays, types: Mapping[str, ValueInfoProto]) -> Case:
    """The model of some nodes; what they read of others becomes inputs, with the values these would have given."""
    graph = case.model.graph
    nodes = [graph.node[i] for i in kept]
    read = [n for node in nodes for n in reads(node)]
    made = {n for node in nodes for n in node.output if n}
    held = {t.name: t for t in graph.initializer}
    wanted = {o.name for o in graph.output}
    loose = list(dict.fromkeys(n for n in read if n not in made and n not in held))
    inside = {n for node in nodes for n in inner(node)}
    loose = [n for n in loose if n not in inside]
    outputs = [n for node in nodes for n in node.output if n and (n in wanted or n not in read)]
    inputs = {n: known[n] if n in known else np.zeros((), np.float32) for n in loose}
    new = _copy(case)
    body = new.model.graph
    for field_name in ("node", "initializer", "input", "output", "value_info"):
        body.ClearField(field_name)
    body.node.extend(nodes)
    body.initializer.extend(held[n] for n in dict.fromkeys(read) if n in held)
    given = {i.name: i for i in graph.input}
    body.input.extend(given.get(n) or _info(n, inputs[n], types.get(n)) for n in loose)
    declared = {o.name: o for o in graph.output}
    body.output.extend(declared.get(n) or _loose(n, known.get(n), types.get(n)) for n in outputs)
    return Case(new.model, inputs, known)


def reads(node: NodeProto) -> list[str]:
    """Names that a node reads, those in its subgraphs included."""
    found, todo = [], [node]
    while todo:
        each = todo.pop()
        found += [n for n in each.input if n]
        for graph in _graphs(each):
            found += [o.name for o in graph.output]
            todo += graph.node
    return found


def inner(node: NodeProto) -> set[str]:
    """Names that a node's subgraphs define."""
    found, todo = set(), _graphs(node)
    while todo:
        graph = todo.pop()
        found |= {i.name for i in graph.input} | {t.name for t in graph.initializer}
        for each in graph.node:
            found |= set(each.output)
            todo += _graphs(each)
    return found


def _graphs(node: NodeProto) -> list[Any]:
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else list(a.graphs))]


def values_of(case: Case) -> Arrays:
    """What the interpreter says of every tensor; of fewer where it cannot evaluate the model."""
    new = _copy(case)
    outputs = [n for node in case.model.graph.node for n in node.output if n]
    new.model.graph.ClearField("output")
    new.model.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in outputs)
    found = {**case.known, **case.inputs}
    try:
        imported = import_model(new.model)
        with np.errstate(all="ignore"):
            got = interp.evaluate(imported.module, [case.inputs[n] for n in imported.inputs])
    except (WarpbeamError, KeyError):
        return found
    several = got if isinstance(got, tuple | list) else [got]
    return {**found, **{n: np.asarray(a) for n, a in zip(imported.outputs, several, strict=True)}}


def types_of(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Types of tensors inside, symbolic sizes included, as far as ONNX infers them."""
    with contextlib.suppress(Exception):  # a broken model: what it declares has to do
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    return {v.name: v for v in (*graph.value_info, *graph.output, *graph.input) if v.type.HasField("tensor_type")}


def constants(case: Case) -> Arrays:
    """The graph's initializers."""
    return {t.name: numpy_helper.to_array(t) for t in case.model.graph.initializer}


def with_outputs(case: Case, names: Sequence[str]) -> Case:
    """The model with some of its outputs, and only what they need."""
    need, kept = set(names), []
    for i in range(len(case.model.graph.node) - 1, -1, -1):
        node = case.model.graph.node[i]
        if need & set(node.output):
            kept.append(i)
            need.update(reads(node))
    found = part(case, sorted(kept), {**case.known, **case.inputs}, types_of(case.model))
    rest = [o for o in found.model.graph.output if o.name in names]
    found.model.graph.ClearField("output")
    found.model.graph.output.extend(rest)
    return found


def _bypasses(case: Case) -> Iterator[Case | None]:
    known = values_of(case)
    types = types_of(case.model)
    for i, node in enumerate(case.model.graph.node):
        for name in dict.fromkeys(n for n in node.input if n):
            out = node.output[0]
            if name not in known or out not in known or len(case.model.graph.node) < 2:
                continue
            if known[name].shape != known[out].shape or known[name].dtype != known[out].dtype:
                continue
            new = _copy(case)
            for other in new.model.graph.node:
                for k, n in enumerate(other.input):
                    if n == out:
                        other.input[k] = name
            rest = [k for k in range(len(case.model.graph.node)) if k != i]
            yield part(Case(new.model, case.inputs, known), rest, known, types)


def _fixed(case: Case, name: str) -> Case:
    """An input as a constant."""
    new = _copy(case)
    rest = [i for i in new.model.graph.input if i.name != name]
    new.model.graph.ClearField("input")
    new.model.graph.input.extend(rest)
    new.model.graph.initializer.append(numpy_helper.from_array(new.inputs.pop(name), name))
    return new


def _replaced(case: Case, arrays: Arrays) -> Case:
    """Other values for constants."""
    new = _copy(case)
    for i, t in enumerate(new.model.graph.initializer):
        if t.name in arrays:
            new.model.graph.initializer[i].CopyFrom(numpy_helper.from_array(arrays[t.name], t.name))
    return new


def _resized(case: Case, size: int, smaller: int) -> Case:
    """Inputs and constants with `smaller` where they have `size`; nothing is said of the shapes of the rest."""

    def cut(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[tuple(slice(smaller if s == size else s) for s in array.shape)])

    new = _replaced(case, {n: cut(a) for n, a in constants(case).items() if size in a.shape})
    new.inputs = {n: cut(a) if a.ndim else a for n, a in case.inputs.items()}
    new.known = {}
    for value in (*new.model.graph.input, *new.model.graph.output):
        for d in value.type.tensor_type.shape.dim:
            if d.dim_value == size:
                d.dim_value = smaller
    for value in new.model.graph.output:
        for d in value.type.tensor_type.shape.dim:
            d.Clear()
    new.model.graph.ClearField("value_info")
    return new


def _copy(case: Case) -> Case:
    model = ModelProto()
    model.CopyFrom(case.model)
    return Case(model, dict(case.inputs), case.known)


def _info(name: str, array: np.ndarray, inferred: ValueInfoProto | None) -> ValueInfoProto:
    """How a new input is declared: as inferred, where that says its shape, else by its value."""
    if inferred is not None and inferred.type.tensor_type.HasField("shape"):
        dims = inferred.type.tensor_type.shape.dim
        if all(d.HasField("dim_value") or d.dim_param for d in dims):
            return inferred
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape)


def _loose(name: str, array: np.ndarray | None, inferred: ValueInfoProto | None) -> ValueInfoProto:
    if array is None:
        return inferred or helper.make_empty_tensor_value_info(name)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, [None] * array.ndim)
