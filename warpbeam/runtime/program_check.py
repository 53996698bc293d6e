"""Consistency of a Program: what must hold before anything steps through it."""

from __future__ import annotations

from . import shape_expr
from .abi import DLPACK_TYPES
from .errors import ArtifactError
from .program import (
    MAX_NESTING,
    VALUE_KINDS,
    Alloc,
    Body,
    Branch,
    CallClosure,
    CallExternal,
    CallKernel,
    CallProgram,
    Check,
    DeviceCopy,
    Free,
    GetField,
    Instruction,
    Loop,
    MakeObject,
    Move,
    Program,
    Reserve,
    SetSymbol,
    ShapeOf,
    Value,
    View,
)  # fmt: skip
from .shape_expr import ShapeExpr

_STORAGE_PARTS = {"input": 1, "output": 1, "const": 1, "param": 1, "arena": 1, "view": 2, "alloc": 0, "object": 0}


def check_program(program: Program) -> None:
    """Raises ArtifactError naming the first inconsistency of `program` or one of its functions."""
    functions = {f.name: f for f in program.functions}
    if len(functions) != len(program.functions):
        raise ArtifactError("two functions have the same name", f"program {program.name}")
    for function in (program, *program.functions):
        if function is not program and function.functions:
            raise ArtifactError("functions cannot hold functions", f"program {function.name}")
        _Checker(function, functions).check()


class _Checker:
    def __init__(self, program: Program, functions: dict[str, Program]) -> None:
        self.program = program
        self.functions = functions
        self.values = {v.id: v for v in program.values}
        self.symbols: set[str] = set()
        self.ever: set[str] = set()
        self.where = f"program {program.name}"

    def fail(self, what: str, why: str = "") -> ArtifactError:
        return ArtifactError(what, self.where, why, "the program was damaged or written by a faulty compiler")

    def check(self) -> None:
        program = self.program
        if len(self.values) != len(program.values):
            raise self.fail("two values have the same id")
        if program.alignment < 1 or program.alignment & (program.alignment - 1):
            raise self.fail(f"alignment {program.alignment} is not a power of two")
        for port in (*program.inputs, *program.outputs):
            self.value(port.value)
        for names in ([p.name for p in program.inputs], [p.name for p in program.outputs]):
            if len(set(names)) != len(names):
                raise self.fail("two ports have the same name")
        for symbol in program.symbols:
            self.expr(symbol.expr)
            self.symbols.add(symbol.name)
        self.expr(program.arena_bytes)
        self.body(program.body, 0)
        self.symbols |= self.ever  # a value used inside a branch or loop may be sized by what is set there
        for value in program.values:
            self.storage(value)
        self.views()

    def define(self, symbol: str) -> None:
        self.symbols.add(symbol)
        self.ever.add(symbol)

    def value(self, value_id: int, tensor: bool = False) -> Value:
        value = self.values.get(value_id)
        if value is None:
            raise self.fail(f"value %{value_id} does not exist")
        if tensor and value.kind != "tensor":
            raise self.fail(f"%{value_id} is a {value.kind} where a tensor is needed")
        return value

    def expr(self, expr: ShapeExpr) -> None:
        shape_expr.check(expr, self.where)
        for node in shape_expr.post_order(expr):
            if isinstance(node, str) and node not in self.symbols:
                raise self.fail(f"symbol {node!r} is used before it is set", shape_expr.show(expr))
            if isinstance(node, tuple) and node[0] == "dim":
                index, axis = int(node[1]), int(node[2])  # type: ignore[arg-type]
                if index >= len(self.program.inputs):
                    raise self.fail(f"there is no input {index}", shape_expr.show(node))
                if axis >= len(self.value(self.program.inputs[index].value, tensor=True).shape):
                    raise self.fail(f"input {index} has no axis {axis}", shape_expr.show(node))
            elif isinstance(node, tuple) and node[0] in ("load", "tag", "len"):
                self.value(int(node[1]), tensor=node[0] == "load")  # type: ignore[arg-type]

    def storage(self, value: Value) -> None:
        kind = str(value.storage[0]) if value.storage else ""
        if _STORAGE_PARTS.get(kind) != len(value.storage) - 1:
            raise self.fail(f"%{value.id} has unknown storage {value.storage!r}")
        if value.kind not in VALUE_KINDS:
            raise self.fail(f"%{value.id} is of unknown kind {value.kind!r}")
        if value.kind == "tensor" and value.dtype not in DLPACK_TYPES:
            raise self.fail(f"%{value.id} has unknown element type {value.dtype!r}")
        if value.kind == "tensor" and kind == "object":
            raise self.fail(f"tensor %{value.id} has no storage")
        if value.strides and len(value.strides) != len(value.shape):
            raise self.fail(f"%{value.id} has {len(value.shape)} axes and {len(value.strides)} strides")
        for extent in (*value.shape, *value.strides):
            self.expr(extent)
        ports = {"input": self.program.inputs, "output": self.program.outputs}.get(kind)
        if ports is not None:
            index = value.storage[1]
            if not isinstance(index, int) or not 0 <= index < len(ports):
                raise self.fail(f"%{value.id} is {kind} {index!r} of {len(ports)}")
        elif kind in ("const", "param"):
            if not isinstance(value.storage[1], int) or value.storage[1] < 0:
                raise self.fail(f"%{value.id} has a bad {kind} offset {value.storage[1]!r}")
        elif kind in ("arena", "view"):
            self.expr(value.storage[-1])

    def views(self) -> None:
        """Views must end at a value that has storage of its own."""
        for value in self.program.values:
            seen: set[int] = set()
            while value.storage[0] == "view":
                source = value.storage[1]
                if not isinstance(source, int) or source not in self.values or value.id in seen:
                    raise self.fail(f"view %{value.id} leads nowhere", f"source {source!r}")
                seen.add(value.id)
                value = self.values[source]

    def body(self, body: Body, depth: int) -> None:
        if depth > MAX_NESTING:
            raise self.fail(f"instructions are nested more than {MAX_NESTING} deep")
        for instruction in body:
            if isinstance(instruction, Branch):
                self.expr(instruction.condition)
                before = set(self.symbols)
                self.body(instruction.then, depth + 1)
                after_then, self.symbols = self.symbols, before
                self.body(instruction.other, depth + 1)
                self.symbols &= after_then
            elif isinstance(instruction, Loop):
                self.expr(instruction.extent)
                before = set(self.symbols)
                self.symbols.add(instruction.index)
                self.expr(instruction.condition)
                self.body(instruction.body, depth + 1)
                self.symbols = before | {instruction.index}
            else:
                self.instruction(instruction)

    def instruction(self, i: Instruction) -> None:
        if isinstance(i, CallKernel):
            for arg in i.args:
                self.value(arg, tensor=True)
            for dim in i.dims:
                self.expr(dim)
            if not set(i.donates) | set(i.writes) <= set(i.args):
                raise self.fail(f"kernel {i.kernel} donates or writes something that is no argument")
        elif isinstance(i, CallProgram):
            self.call(i.program, i.args, i.results)
        elif isinstance(i, (CallExternal, CallClosure)):
            for arg in (*i.args, *i.results, *((i.closure,) if isinstance(i, CallClosure) else ())):
                self.value(arg)
        elif isinstance(i, (Alloc, Free)):
            if self.value(i.value).storage[0] not in ("alloc", "object"):
                raise self.fail(
                    f"%{i.value} is allocated or freed, but its storage is {self.value(i.value).storage[0]}"
                )
        elif isinstance(i, View):
            self.value(i.result, tensor=True)
            self.value(i.source, tensor=True)
            self.expr(i.byte_offset)
        elif isinstance(i, (Move, DeviceCopy)):
            if self.value(i.result).kind != self.value(i.source).kind:
                raise self.fail(f"%{i.source} is copied to %{i.result}, which is of another kind")
        elif isinstance(i, ShapeOf):
            if not 0 <= i.axis < len(self.value(i.value, tensor=True).shape):
                raise self.fail(f"%{i.value} has no axis {i.axis}")
            self.define(i.symbol)
        elif isinstance(i, SetSymbol):
            self.expr(i.expr)
            self.define(i.symbol)
        elif isinstance(i, Reserve):
            self.expr(i.size)
        elif isinstance(i, Check):
            self.expr(i.condition)
        elif isinstance(i, MakeObject):
            for item in i.fields:
                self.value(item)
            if self.value(i.result).kind == "closure" and i.function not in self.functions:
                raise self.fail(f"closure %{i.result} is over unknown program {i.function!r}")
        elif isinstance(i, GetField):
            self.value(i.result)
            self.value(i.source)
            self.expr(i.index)

    def call(self, name: str, args: tuple[int, ...], results: tuple[int, ...]) -> None:
        callee = self.functions.get(name)
        if callee is None:
            raise self.fail(f"program {name!r} does not exist", f"functions: {', '.join(self.functions) or 'none'}")
        if len(args) != len(callee.inputs) or len(results) != len(callee.outputs):
            raise self.fail(f"program {name!r} is called with {len(args)} inputs and {len(results)} outputs",
                            f"it has {len(callee.inputs)} and {len(callee.outputs)}")  # fmt: skip
        for value in (*args, *results):
            self.value(value)
