"""Random valid models, grown node by node: every value is known in exact arithmetic while a model grows.

A node is kept only where its result can be judged: it is finite, of modest size, and what rounding may have done to
its operands moves it little. That is measured: the node is evaluated again on operands moved by their error, so that
an ambiguous rounding, a near-tie of a maximum or an ill-conditioned division are seen whatever the operator is.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.relay import interp

OPSET = 21
LARGEST = 1e4  # of a floating-point value: products of several stay far from the range's end
ELEMENTS = 6000
#: parts of a tensor's largest magnitude by which an element may be off before a model says nothing
LOOSEST = {"float64": 1e-7, "float32": 5e-3, "float16": 0.2}
_OTHER = {5: 6, 7: 4, 3: 8}  # a symbolic dimension's size, and what else it may be
FLOATS = ("float32", "float64", "float16")


@dataclass(slots=True)
class Value:
    """A tensor of a growing model.

    data: in exact arithmetic (floating point as float64); dtype: what the model says; error: how far rounding may take
    an element from `data`; terms: roundings behind an element; other: the data at other sizes of the
    symbolic dimensions, where the model has some.
    """

    name: str
    data: np.ndarray
    dtype: str
    error: float = 0.0
    terms: int = 0
    constant: bool = False
    other: np.ndarray | None = None

    @property
    def floating(self) -> bool:
        return self.dtype in FLOATS

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    def held(self) -> np.ndarray:
        """As an array of the model's type."""
        return np.asarray(self.data.astype(self.dtype))


@dataclass(slots=True)
class Grown:
    """A model, inputs for it, and what its outputs are.

    bounds: how far from `expected` each output may be. dropped: candidates that were not kept, by reason.
    """

    model: ModelProto
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    bounds: dict[str, float]
    ops: list[str]
    dropped: Counter[str] = field(default_factory=Counter)


class Grower:
    """A model under construction; tables of operators call `pick`, `const`, `emit`."""

    def __init__(self, rng: random.Random, symbolic: int = 0) -> None:
        self.rng = rng
        self.noise = np.random.default_rng(rng.getrandbits(60))
        self.values: list[Value] = []
        self.inputs: list[Value] = []
        self.nodes: list[NodeProto] = []
        self.ops: list[str] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.dropped: Counter[str] = Counter()
        self.sizes = {f"n{i}": s for i, s in enumerate(rng.sample(list(_OTHER), symbolic))}
        self.marks: dict[str, list[str | int]] = {}
        self.count = 0

    def name(self, prefix: str = "t") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # what operators ask for

    def input(self, shape: Sequence[int], dtype: str) -> Value:
        """A new graph input with values that suit most operators. Symbolic sizes are marked as such."""
        value = Value(self.name("x"), self.filled(shape, dtype), dtype)
        named = {s: n for n, s in self.sizes.items()}
        self.marks[value.name] = [named.get(s, s) for s in shape]
        if named:
            value.other = self.filled([_OTHER[s] if s in named else s for s in shape], dtype)
        self.inputs.append(value)
        self.values.append(value)
        return value

    def filled(self, shape: Sequence[int], dtype: str, low: float = -2.0, high: float = 2.0) -> np.ndarray:
        """Random contents, exact in `dtype`."""
        if dtype == "bool":
            return self.noise.integers(0, 2, tuple(shape)).astype(bool)
        if dtype in FLOATS:
            data = self.noise.uniform(low, high, tuple(shape)).astype(np.float32).astype(dtype)
            return np.asarray(data.astype(np.float64))
        least = 0 if dtype.startswith("u") else -9
        return np.asarray(self.noise.integers(least, 10, tuple(shape)).astype(dtype))

    def const(self, data: Any, dtype: str | None = None) -> Value:
        """An initializer."""
        array = np.asarray(data)
        kind = dtype or str(array.dtype)
        value = Value(self.name("c"), array.astype(np.float64) if kind in FLOATS else array.astype(kind), kind)
        value.constant, value.other = True, value.data if self.sizes else None
        self.initializers[value.name] = value.held()
        return value

    def pick(self, dtypes: Sequence[str] = FLOATS, ranks: Sequence[int] = range(9), least: int = 0) -> Value | None:
        """A value of one of these types and ranks; the recent ones are likelier, so that models grow deep."""
        fits = [v for v in self.values if v.dtype in dtypes and len(v.shape) in ranks and v.data.size >= least]
        if not fits:
            return None
        return self.rng.choices(fits, [1 + 2 * i for i in range(len(fits))])[0]

    def weights(self, shape: Sequence[int], dtype: str, low: float = -1.0, high: float = 1.0) -> Value:
        """A constant or, at times, an input."""
        if self.rng.random() < 0.25:
            value = self.input(shape, dtype)
            value.data = self.filled(shape, dtype, low, high)
            if value.other is not None:
                value.other = self.filled(value.other.shape, dtype, low, high)
            return value
        return self.const(self.filled(shape, dtype, low, high), dtype)

    def like(self, value: Value) -> Value:
        """A partner that broadcasts with a value: one there is, or a new one."""
        fits = [v for v in self.values if v.dtype == value.dtype and _joins(v.shape, value.shape)]
        if fits and self.rng.random() < 0.6:
            return self.rng.choice(fits)
        shape = [s if self.rng.random() < 0.7 else 1 for s in value.shape][self.rng.randrange(len(value.shape) + 1) :]
        return self.weights(shape, value.dtype)

    def emit(self, op: str, operands: Sequence[Value | None], outputs: int = 1, terms: int = 1, **attrs: Any) -> bool:
        """Adds a node if its results can be judged. terms: roundings that it adds to an element.

        Returns: whether it was kept.
        """
        names = ["" if v is None else v.name for v in operands]
        node = helper.make_node(op, names, [self.name() for _ in range(outputs)], **attrs)
        return self.add(node, [v for v in operands if v is not None], terms)

    def add(self, node: NodeProto, operands: Sequence[Value], terms: int = 1) -> bool:
        """As `emit`, for a node that is made already; `operands`: all that it reads, in subgraphs too."""
        found = self._judged(node, operands, terms)
        if isinstance(found, str):
            self.dropped[found] += 1
            return False
        self.nodes.append(node)
        self.ops.append(node.op_type)
        self.values += found
        return True

    # how candidates are judged

    def _judged(self, node: NodeProto, operands: Sequence[Value], terms: int) -> list[Value] | str:
        distinct = list({v.name: v for v in operands}.values())
        try:
            run = evaluator(node, distinct, self.initializers)
            exact = run([v.data for v in distinct])
            moved = [run(d) for d in self._moved(distinct)]
        except WarpbeamError as e:
            return f"refused by the importer: {node.op_type}: {type(e).__name__}"
        try:
            others = self._elsewhere(node, distinct) if self.sizes else [None] * len(exact)
        except WarpbeamError:
            return "only for one size"
        below = max((v.terms for v in operands), default=0)
        found = []
        for i, (name, (data, dtype), other) in enumerate(zip(node.output, exact, others, strict=True)):
            value = Value(name, data, dtype, terms=below + terms, other=other)
            if data.size > ELEMENTS:
                return "too large"
            if not value.floating:
                if any(not np.array_equal(m[i][0], data) for m in moved):
                    return "ambiguous"
                found.append(value)
                continue
            top = float(np.abs(data).max(initial=0.0)) if data.size else 0.0
            if not np.isfinite(data).all() or top > LARGEST:
                return "not finite, or large"
            value.error = self._error(value, [m[i][0] for m in moved], top, distinct, terms)
            if not value.error <= LOOSEST[dtype] * top:
                return "ill-conditioned"
            found.append(value)
        return found

    def _elsewhere(self, node: NodeProto, operands: Sequence[Value]) -> list[np.ndarray]:
        """The node's results at the other sizes."""
        there = [Value(v.name, v.data if v.other is None else v.other, v.dtype, constant=v.constant) for v in operands]
        run = evaluator(node, there, self.initializers)
        return [data for data, _ in run([v.data for v in there])]

    def _moved(self, operands: Sequence[Value]) -> list[list[np.ndarray]]:
        """Operands shifted by more than their errors: up, down, and at random."""
        if not any(v.error for v in operands):
            return []
        ways = [lambda s: np.ones(s), lambda s: -np.ones(s), *[lambda s: self.noise.uniform(-1, 1, s)] * 3]
        return [[v.data + 4 * v.error * way(v.shape) if v.error else v.data for v in operands] for way in ways]

    @staticmethod
    def _error(value: Value, moved: Sequence[np.ndarray], top: float, operands: Sequence[Value], terms: int) -> float:
        """What the operands' errors do to the result, and what its own roundings do (as tests/tolerance.py has it).

        Operands were moved by 4 errors; 0.3 of that is one error and a fifth more.
        """
        carried = max((float(np.abs(m - value.data).max(initial=0.0)) for m in moved if m.size), default=0.0) * 0.3
        unit = float(ml_dtypes.finfo(value.dtype).eps) / 2
        scale = max([top, *(float(np.abs(v.data).max(initial=0.0)) for v in operands if v.floating)])
        return carried + 8 * (terms + 2) * unit * scale

    def finish(self) -> Grown:
        """The model, with what nobody reads (and some of the rest) as outputs."""
        read = {n for node in self.nodes for n in reads(node)}
        made = {n for node in self.nodes for n in node.output}
        outputs = [v for v in self.values if v.name in made and (v.name not in read or self.rng.random() < 0.1)]
        taken = [v for v in self.inputs if v.name in read]
        graph = helper.make_graph(
            self.nodes,
            "fuzz",
            [_info(v, self.marks[v.name]) for v in taken],
            [_info(v, [None] * len(v.shape)) if self.sizes else _info(v, list(v.shape)) for v in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.initializers.items() if n in read],
        )
        return Grown(
            _model(graph),
            {v.name: v.held() for v in taken},
            {v.name: v.data for v in outputs},
            {v.name: v.error for v in outputs},
            list(self.ops),
            self.dropped,
        )


def reads(node: NodeProto) -> list[str]:
    """Names that a node reads, those in its subgraphs included."""
    found, todo = [], [node]
    while todo:
        each = todo.pop()
        found += each.input
        for a in each.attribute:
            if a.HasField("g"):
                found += [o.name for o in a.g.output]
                todo += a.g.node
    return found


def evaluator(node: NodeProto, operands: Sequence[Value], initializers: dict[str, np.ndarray]) -> Any:
    """A function from operands' arrays to [(array, dtype)], in float64: the meaning of one node."""
    fixed = [v for v in operands if v.constant]
    free = [v for v in operands if not v.constant]
    graph = helper.make_graph(
        [node],
        "one",
        [_info(v, list(v.shape)) for v in free],
        [helper.make_empty_tensor_value_info(n) for n in node.output],
        [numpy_helper.from_array(initializers[v.name], v.name) for v in fixed],
    )
    found = import_model(_model(graph))
    result = found.module["main"].body.ty
    types = [t.dtype for t in getattr(result, "fields", (result,))]
    index = {v.name: i for i, v in enumerate(operands)}

    def run(arrays: Sequence[np.ndarray]) -> list[tuple[np.ndarray, str]]:
        with np.errstate(all="ignore"):
            got = interp.evaluate(found.module, [arrays[index[n]] for n in found.inputs], dtype="float64")
        several = got if isinstance(got, tuple | list) else [got]
        return [(np.asarray(a), str(t)) for a, t in zip(several, types, strict=True)]

    return run


def _model(graph: Any) -> ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _info(value: Value, shape: Any) -> Any:
    return helper.make_tensor_value_info(value.name, helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), shape)


def _joins(a: Sequence[int], b: Sequence[int]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(reversed(a), reversed(b), strict=False))


def grow(seed: int, index: int) -> Grown:
    """The model of a seed and an index: always the same one."""
    from warpbeam.testing.fuzz.tables import OPERATORS

    rng = random.Random(f"{seed}:{index}")
    grower = Grower(rng, symbolic=rng.choice((0, 0, 1, 2)))
    main = rng.choices(("float32", "float64", "float16", "int32", "int64"), (12, 3, 3, 1, 1))[0]
    named = list(grower.sizes.values())
    for _ in range(rng.randint(1, 3)):
        shape = [rng.choice([1, 2, 3, 4, 6, 8, 17, *named * 3]) for _ in range(rng.choice((1, 2, 2, 3, 4, 4)))]
        while int(np.prod(shape)) > 2000:
            shape[rng.randrange(len(shape))] = rng.choice([1, 2, 3, *named])
        grower.input(shape, main)
    wanted, tries = rng.randint(3, 25), 0
    kinds, odds = list(OPERATORS), [w for _, w in OPERATORS.values()]
    while (len(grower.nodes) < wanted and tries < 8 * wanted) or not grower.nodes:
        tries += 1
        kind = rng.choices(kinds, odds)[0]
        if OPERATORS[kind][0](grower) is None:
            grower.dropped["nothing fits"] += 1
    return grower.finish()
