"""Models with state: an input and an output become one mutable parameter, which each run reads and then replaces.

A parameter has two places in the parameters section: what this run reads, and what it writes. The run ends by moving
the second to the first, so kernels may read the old value until the end, and a run that fails leaves it as it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import CompileError
from warpbeam.runtime.artifact import Manifest, TensorSpec
from warpbeam.runtime.program import Move, Program, Return, Symbol, Value
from warpbeam.runtime.shape_expr import ShapeExpr

#: fact of the manifest that holds the names of all ports and which of them are state
FACT = "state"
_ALIGN = 64

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Ports:
    """Names of a model's parameters and results in order, and the (input, output) pairs that are state."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    state: Pairs = ()

    def fact(self) -> dict[str, str]:
        """What the manifest keeps, so that the model can be planned again."""
        if not self.state:
            return {}
        return {FACT: json.dumps([self.inputs, self.outputs, self.state], separators=(",", ":"))}


def ports_of(manifest: Manifest) -> Ports:
    """The ports that a model was planned with.

    Raises:
        CompileError: if the manifest's fact is damaged.
    """
    if FACT not in manifest.extra:
        return Ports(tuple(s.name for s in manifest.inputs), tuple(s.name for s in manifest.outputs))
    try:
        inputs, outputs, state = json.loads(manifest.extra[FACT])
        return Ports(tuple(inputs), tuple(outputs), tuple((str(a), str(b)) for a, b in state))
    except (ValueError, TypeError) as error:
        raise CompileError("the manifest's fact of states is damaged", manifest.name, str(error)) from error


def check_pairs(state: Mapping[str, str], inputs: Sequence[str], outputs: Sequence[str], name: str) -> Pairs:
    """The pairs of state, in the order of the inputs.

    Raises:
        CompileError: if an input or output is unknown, or an output is named twice.
    """
    for what, given, known in (("input", state.keys(), inputs), ("output", state.values(), outputs)):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise CompileError(f"state names unknown {what}s: {', '.join(unknown)}", name,
                               hint=f"the model's {what}s: {', '.join(known)}")  # fmt: skip
    if len(set(state.values())) != len(state):
        raise CompileError("an output is the next value of two states", name, hint="give each state its own output")
    return tuple((i, state[i]) for i in inputs if i in state)


def bind(program: Program, pairs: Pairs) -> tuple[Program, tuple[TensorSpec, ...], int]:
    """The program whose pairs are state, the parameters that hold them, and the bytes of the parameters section.

    Raises:
        CompileError: if a pair's types differ, or its extents are not numbers.
    """
    inputs = {p.name: i for i, p in enumerate(program.inputs)}
    outputs = {p.name: i for i, p in enumerate(program.outputs)}
    values = {v.id: v for v in program.values}
    specs: list[TensorSpec] = []
    moved: dict[tuple[str, int], int] = {}
    size = 0
    moves = []
    for old, new in pairs:
        now = values[program.inputs[inputs[old]].value]
        then = values[program.outputs[outputs[new]].value]
        shape = _checked(now, then, f"state {old!r}, {new!r}")
        room = -(-math.prod(shape) * dt.nbytes(now.dtype) // _ALIGN) * _ALIGN
        specs.append(TensorSpec(old, now.dtype, shape, size))
        moved["input", inputs[old]], moved["output", outputs[new]] = size, size + room
        size += 2 * room
        moves.append(Move(now.id, then.id))
    kept = {
        "input": [i for i in inputs.values() if ("input", i) not in moved],
        "output": [i for i in outputs.values() if ("output", i) not in moved],
    }
    stored = tuple(replace(v, storage=_storage(v, moved, kept)) for v in program.values)
    body = list(program.body)
    at = len(body) - (1 if body and isinstance(body[-1], Return) else 0)
    body[at:at] = moves
    symbols = tuple(Symbol(s.name, _dims(s.expr, kept["input"])) for s in program.symbols)
    made = replace(
        program, inputs=tuple(program.inputs[i] for i in kept["input"]),
        outputs=tuple(program.outputs[i] for i in kept["output"]), values=stored, body=tuple(body), symbols=symbols,
    )  # fmt: skip
    return made, tuple(specs), size


def _checked(now: Value, then: Value, where: str) -> tuple[int, ...]:
    if (now.dtype, now.shape) != (then.dtype, then.shape):
        raise CompileError("a state's next value is of another type", where,
                           f"{now.dtype}{list(now.shape)} becomes {then.dtype}{list(then.shape)}")  # fmt: skip
    if not all(isinstance(e, int) for e in now.shape):
        raise CompileError("a state's size is not known", where, f"its shape is {list(now.shape)}",
                           "fix it with shapes={...}")  # fmt: skip
    if now.storage[0] != "input" or then.storage[0] != "output" or then.strides or now.strides:
        raise CompileError("a state's next value has no place of its own", where, f"it is {then.storage}")
    return tuple(int(e) for e in now.shape)  # type: ignore[arg-type]


def _storage(value: Value, moved: Mapping[tuple[str, int], int], kept: Mapping[str, list[int]]) -> Any:
    kind, *rest = value.storage
    if kind not in ("input", "output"):
        return value.storage
    number = int(rest[0])  # type: ignore[arg-type]
    if (str(kind), number) in moved:
        return "param", moved[str(kind), number]
    return kind, kept[str(kind)].index(number)


def _dims(expr: ShapeExpr, kept: list[int]) -> ShapeExpr:
    """The expression with inputs numbered anew. States have no symbols, so those that it names are kept."""
    if not isinstance(expr, tuple):
        return expr
    if expr[0] == "dim":
        return "dim", kept.index(int(expr[1])), expr[2]
    return (expr[0], *(_dims(e, kept) for e in expr[1:]))  # type: ignore[return-value]
