"""The debug executor: steps through a Program in Python, one instruction at a time.

It means the same as the native host code, and shows what that cannot: each intermediate value, the time of each kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .abi import numpy_dtype
from .context import HostContext
from .errors import RunError
from .loader import Library
from .memory import Bytes, aligned_bytes
from .program import (
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
    Return,
    SetSymbol,
    ShapeOf,
    Sync,
    Value,
    View,
)  # fmt: skip
from .shape_expr import ShapeExpr, evaluate, show

Array = npt.NDArray[Any]
External = Callable[..., Sequence[Any]]
#: called after each kernel: the instruction, seconds, the symbols' values
Observer = Callable[[CallKernel, float, Mapping[str, int]], None]
MAX_CALL_DEPTH = 200


@dataclass(frozen=True, slots=True)
class Object:
    """A run-time tuple, algebraic value, sequence or closure."""

    fields: tuple[Any, ...]
    tag: int = 0
    function: str = ""


class _Returned(Exception):
    """Return inside nested bodies."""


@dataclass(slots=True)
class Machine:
    """What a Program runs on.

    Attributes:
        library: exports the kernels.
        symbols: kernel name -> exported symbol; a name that is not here is its own symbol.
        context: the `wb_ctx` that kernels get; its arena is not used.
        constants, params: the bytes of these sections.
        externals: functions for CallExternal, from its attributes' text (where it has some) and arrays to arrays.
        observer: sees each kernel call.
    """

    library: Library
    context: HostContext
    constants: Bytes
    params: Bytes
    symbols: Mapping[str, str]
    externals: Mapping[str, External]
    observer: Observer | None = None

    def kernel(self, name: str) -> Callable[..., int]:
        """The native function of a kernel."""
        return self.library.function(self.symbols.get(name, name))


def execute(
    program: Program, machine: Machine, inputs: Sequence[Any], outputs: Sequence[Array | None] | None = None
) -> list[Any]:
    """Runs a Program.

    Args:
        inputs: compact arrays (or Objects) in the order of its inputs.
        outputs: arrays to write to; None = allocate.

    Returns:
        The outputs' values in order.

    Raises:
        RunError: if a check fails, a kernel reports a failure, or memory is used before it was allocated.
    """
    functions = {f.name: f for f in program.functions}
    return _Frame(program, machine, functions, inputs, outputs, 0).run()


class _Frame:
    """One activation of a Program."""

    def __init__(
        self,
        program: Program,
        machine: Machine,
        functions: Mapping[str, Program],
        inputs: Sequence[Any],
        outputs: Sequence[Array | None] | None,
        depth: int,
    ) -> None:
        if depth > MAX_CALL_DEPTH:
            raise RunError(f"programs call each other more than {MAX_CALL_DEPTH} deep", f"program {program.name}")
        if len(inputs) != len(program.inputs):
            raise RunError(f"{len(inputs)} inputs given, {len(program.inputs)} expected", f"program {program.name}")
        self.program = program
        self.machine = machine
        self.functions = functions
        self.inputs = inputs
        self.depth = depth
        self.env: dict[str, int] = {}
        self.specs: dict[int, Value] = {v.id: v for v in program.values}
        #: values that exist now: arrays and Objects
        self.live: dict[int, Any] = {}
        for port, value in zip(program.inputs, inputs, strict=True):
            self.live[port.value] = value
        for symbol in program.symbols:
            self.env[symbol.name] = self.eval(symbol.expr)
        self.arena = aligned_bytes(self.eval(program.arena_bytes), max(program.alignment, 64))
        self.outputs: dict[int, Bytes] = {}
        for index, port in enumerate(program.outputs):
            given = outputs[index] if outputs else None
            held = self.specs[port.value]
            while held.storage[0] == "view":  # an output may be another shape of what a kernel writes
                held = self.specs[int(held.storage[1])]  # type: ignore[arg-type]
            if held.storage[0] == "output":
                self.live[held.id] = self.fresh(held) if given is None else self.over(held, _bytes(given), 0)
                self.outputs[index] = _bytes(self.live[held.id])

    def run(self) -> list[Any]:
        with contextlib.suppress(_Returned):
            self.body(self.program.body)
        return [self.get(port.value) for port in self.program.outputs]

    def eval(self, expr: ShapeExpr) -> int:
        return expr if isinstance(expr, int) else evaluate(expr, self.env, self.special)

    def special(self, operator: str, operands: tuple[int, ...]) -> int:
        if operator == "dim":
            return int(self.inputs[operands[0]].shape[operands[1]])
        value = self.get(operands[0])
        if operator == "load":
            flat = value.reshape(-1)
            if operands[1] >= flat.size:
                raise RunError(f"element {operands[1]} of %{operands[0]} does not exist", why=f"it has {flat.size}")
            return int(flat[operands[1]])
        return int(value.tag if operator == "tag" else len(value.fields))

    def shape(self, value: Value) -> tuple[int, ...]:
        shape = tuple(self.eval(extent) for extent in value.shape)
        if min(shape, default=0) < 0:
            raise RunError(f"%{value.id} {value.name} would have shape {shape}", f"program {self.program.name}")
        return shape

    def fresh(self, value: Value) -> Array:
        """New memory for a tensor, aligned like everything."""
        shape, dtype = self.shape(value), numpy_dtype(value.dtype)
        memory = aligned_bytes(max(int(np.prod(shape, dtype=np.int64)), 0) * dtype.itemsize)
        return np.ndarray(shape, dtype, memory)

    def over(self, value: Value, memory: Bytes, offset: int) -> Array:
        """A tensor over existing memory."""
        shape, dtype = self.shape(value), numpy_dtype(value.dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        strides = tuple(self.eval(s) * dtype.itemsize for s in value.strides) or None
        if strides is not None and size:
            size = sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) + dtype.itemsize
        if offset < 0 or offset + size > memory.size or min(strides or (0,)) < 0:
            raise RunError(
                f"%{value.id} {value.name} lies outside its storage", f"program {self.program.name}",
                f"bytes {offset} to {offset + size} of {memory.size}",
            )  # fmt: skip
        return np.ndarray(shape, dtype, memory, offset=offset, strides=strides)

    def get(self, value_id: int) -> Any:
        """A value as it is now."""
        if value_id in self.live:
            return self.live[value_id]
        value = self.specs[value_id]
        kind = value.storage[0]
        if kind == "arena":
            return self.over(value, self.arena, self.eval(value.storage[1]))
        if kind == "const":
            return self.over(value, self.machine.constants, self.eval(value.storage[1]))
        if kind == "output" and value.storage[1] in self.outputs:  # an earlier value in an output's memory
            return self.over(value, self.outputs[value.storage[1]], 0)
        if kind == "param":
            return self.over(value, self.machine.params, self.eval(value.storage[1]))
        if kind == "view":
            chain = [value]
            while chain[-1].storage[0] == "view" and chain[-1].id not in self.live:
                chain.append(self.specs[int(chain[-1].storage[1])])  # type: ignore[arg-type]
            offset = sum(self.eval(v.storage[2]) for v in chain[:-1])
            return self.over(value, _bytes(self.get(chain[-1].id)), offset)
        raise RunError(f"%{value_id} {value.name} is used before it exists", f"program {self.program.name}")

    def put(self, value_id: int, item: Any) -> None:
        """Binds a value: objects and allocated tensors are shared, tensors with planned storage are copied into it."""
        spec = self.specs[value_id]
        if spec.kind != "tensor" or spec.storage[0] == "alloc":
            self.live[value_id] = item
        else:
            target = self.get(value_id)
            if target.shape != item.shape or target.dtype != item.dtype:
                raise RunError(
                    f"%{value_id} {spec.name}: {item.dtype} {item.shape} does not fit {target.dtype} {target.shape}"
                )
            target[...] = item

    def body(self, body: Body) -> None:
        for instruction in body:
            handler = _HANDLERS[type(instruction)]
            handler(self, instruction)

    def call(self, name: str, arguments: Sequence[Any], results: tuple[int, ...]) -> None:
        frame = _Frame(self.functions[name], self.machine, self.functions, arguments, None, self.depth + 1)
        for result, item in zip(results, frame.run(), strict=True):
            self.put(result, item)


def _bytes(array: Array) -> Bytes:
    flat: Bytes = array.reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
    return flat


def _call_kernel(frame: _Frame, i: CallKernel) -> None:
    machine = frame.machine
    function = machine.kernel(i.kernel)
    buffers = [frame.get(arg) for arg in i.args]
    arguments: list[Any] = [machine.context.pointer]
    arguments += [ctypes.c_void_p(buffer.ctypes.data) for buffer in buffers]
    arguments += [ctypes.c_int64(frame.eval(dim)) for dim in i.dims]
    start = time.perf_counter()
    status = function(*arguments)
    seconds = time.perf_counter() - start
    if status:
        why = machine.context.message() or f"status {status}"
        raise RunError(f"kernel {i.kernel} failed", f"program {frame.program.name}", why)
    if machine.observer is not None:
        machine.observer(i, seconds, frame.env)


def _call_program(frame: _Frame, i: CallProgram) -> None:
    frame.call(i.program, [frame.get(arg) for arg in i.args], i.results)


def _call_external(frame: _Frame, i: CallExternal) -> None:
    function = frame.machine.externals.get(i.function)
    if function is None:
        known = ", ".join(frame.machine.externals) or "none"
        raise RunError(f"external function {i.function!r} is not available", hint=f"given: {known}")
    options = (i.attrs,) if i.attrs else ()
    results = function(*options, *(frame.get(arg) for arg in i.args))
    for result, item in zip(i.results, results, strict=True):
        frame.put(result, item)


def _call_closure(frame: _Frame, i: CallClosure) -> None:
    closure = frame.get(i.closure)
    frame.call(closure.function, [*closure.fields, *(frame.get(arg) for arg in i.args)], i.results)


def _alloc(frame: _Frame, i: Alloc) -> None:
    frame.live[i.value] = frame.fresh(frame.specs[i.value])


def _free(frame: _Frame, i: Free) -> None:
    frame.live.pop(i.value, None)


def _view(frame: _Frame, i: View) -> None:
    frame.live[i.result] = frame.over(frame.specs[i.result], _bytes(frame.get(i.source)), frame.eval(i.byte_offset))


def _move(frame: _Frame, i: Move | DeviceCopy) -> None:
    item = frame.get(i.source)
    frame.put(i.result, item.copy() if isinstance(item, np.ndarray) else item)


def _shape_of(frame: _Frame, i: ShapeOf) -> None:
    frame.env[i.symbol] = int(frame.get(i.value).shape[i.axis])


def _set_symbol(frame: _Frame, i: SetSymbol) -> None:
    frame.env[i.symbol] = frame.eval(i.expr)


def _reserve(frame: _Frame, i: Reserve) -> None:
    size = frame.eval(i.size)
    if size > frame.arena.size:
        larger = aligned_bytes(size, max(frame.program.alignment, 64))
        larger[: frame.arena.size] = frame.arena
        frame.arena = larger


def _check(frame: _Frame, i: Check) -> None:
    if not frame.eval(i.condition):
        raise RunError(i.message, f"program {frame.program.name}", f"{show(i.condition)} does not hold")


def _make_object(frame: _Frame, i: MakeObject) -> None:
    items = (frame.get(item) for item in i.fields)
    fields = tuple(item.copy() if isinstance(item, np.ndarray) else item for item in items)
    frame.live[i.result] = Object(fields, i.tag, i.function)


def _get_field(frame: _Frame, i: GetField) -> None:
    source, index = frame.get(i.source), frame.eval(i.index)
    if not 0 <= index < len(source.fields):
        raise RunError(f"field {index} of %{i.source} does not exist", why=f"it has {len(source.fields)} fields")
    frame.put(i.result, source.fields[index])


def _branch(frame: _Frame, i: Branch) -> None:
    frame.body(i.then if frame.eval(i.condition) else i.other)


def _loop(frame: _Frame, i: Loop) -> None:
    extent, count = frame.eval(i.extent), 0
    while True:
        frame.env[i.index] = count
        if (extent >= 0 and count >= extent) or not frame.eval(i.condition):
            return
        frame.body(i.body)
        count += 1


def _sync(frame: _Frame, i: Sync) -> None:
    """The host is always in step."""


def _return(frame: _Frame, i: Return) -> None:
    raise _Returned


_HANDLERS: dict[type[Instruction], Callable[[_Frame, Any], None]] = {
    CallKernel: _call_kernel, CallProgram: _call_program, CallExternal: _call_external, CallClosure: _call_closure,
    Alloc: _alloc, Free: _free, View: _view, Move: _move, DeviceCopy: _move, ShapeOf: _shape_of, SetSymbol: _set_symbol,
    Reserve: _reserve, Check: _check, MakeObject: _make_object, GetField: _get_field, Branch: _branch, Loop: _loop,
    Sync: _sync, Return: _return,
}  # fmt: skip
