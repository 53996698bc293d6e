"""The native entry of a model: a runtime Program as one function `int32 entry(ctx*, tensor**, n)`, in LLVM IR or C.

It checks its arguments (number, types, ranks, constant extents, compactness), binds symbolic dimensions, makes the
arena large enough, and calls the kernels in order; the first non-zero status ends it. With WB_QUERY_SHAPES it only
writes the outputs' shapes. Programs with objects, closures, externals or run-time allocation stay with the executor.
"""

from __future__ import annotations

from typing import Any

from warpbeam.codegen.host_writer import Writer
from warpbeam.ir.diagnostics import LowerError
from warpbeam.runtime import program as P
from warpbeam.runtime.abi import DLPACK_TYPES, QUERY_SHAPES
from warpbeam.runtime.shape_expr import OPERATORS, SPECIAL, ShapeExpr, post_order, show, symbols_of
from warpbeam.target import Target

_BYTES = {name: max(1, bits // 8) for name, (_, bits) in DLPACK_TYPES.items()}
_ABI = 1
_PART = 256  # instructions in a function: compilers take more than linear time over long ones


def print_entry(program: P.Program, target: Target, name: str = "wb_entry") -> str:
    """The text of a module with the entry; LLVM IR or C, as the target's kind asks.

    Raises:
        LowerError: naming an instruction that only the executor can run.
    """
    return _Entry(program, _writer(target)).print(name)


def _writer(target: Target) -> Writer:
    if target.kind == "c":
        from warpbeam.codegen.host_c import CWriter

        return CWriter(target)
    from warpbeam.codegen.host_llvm import LLVMWriter

    return LLVMWriter(target)


def _obstacle(program: P.Program) -> str | None:
    for instruction in P.walk(program.body):
        if type(instruction) not in _HANDLERS:
            return type(instruction).__name__
        if isinstance(instruction, (P.Branch, P.Loop)):
            bodies = (instruction.body,) if isinstance(instruction, P.Loop) else (instruction.then, instruction.other)
            if any(isinstance(x, P.Return) for b in bodies for x in b):
                return "Return inside of a branch or loop"
    for value in program.values:
        if value.kind != "tensor" or value.storage[0] in ("alloc", "object"):
            return f"value %{value.id} of storage {value.storage[0]}"
        if value.device[0] != 1:
            return f"value %{value.id} on device {value.device}"
    return None


class _Entry:
    """Prints one Program."""

    def __init__(self, program: P.Program, writer: Writer) -> None:
        self.p = program
        self.w = writer
        self.values = {v.id: v for v in program.values}
        self.fixed: set[int] = set()  # outputs whose shapes are known before anything ran
        self.moved = {i.result for i in P.walk(program.body) if isinstance(i, P.View)}

    def print(self, name: str) -> str:
        obstacle = _obstacle(self.p)
        if obstacle is not None:
            raise LowerError(
                f"program {self.p.name!r} has {obstacle}", why="a native entry cannot do that", hint="use the executor"
            )
        w = self.w
        kernels: dict[str, P.CallKernel] = {}
        for i in P.walk(self.p.body):
            if isinstance(i, P.CallKernel):
                kernels.setdefault(i.kernel, i)
        for kernel, call in kernels.items():
            w.declare(kernel, len(call.args), len(call.dims))
        w.begin(name)
        count = len(self.p.inputs) + len(self.p.outputs)
        w.check(w.op("eq", w.context("abi_version"), w.number(_ABI)), f"{name}: the caller has another ABI version")
        w.check(w.op("eq", w.count(), w.number(count)), f"{name} takes {count} tensors")
        self._symbols()
        self._inputs()
        self._outputs()
        self._arena()
        for result in sorted(self.moved):
            w.pointer_variable(result)
        self._parts(self.p.body)
        self._copy_out()
        return w.end()

    # ---------------------------------------------------------------------------------------------------------- prologu

    def _symbols(self) -> None:
        """Declares all symbols; those of the entry are computed after the ranks of the inputs are known."""
        names = [s.name for s in self.p.symbols]
        for i in P.walk(self.p.body):
            if isinstance(i, (P.ShapeOf, P.SetSymbol)):
                names.append(i.symbol)
            elif isinstance(i, P.Loop):
                names.append(i.index)
        for name in dict.fromkeys(names):
            self.w.variable(name)

    def _inputs(self) -> None:
        w = self.w
        for i, port in enumerate(self.p.inputs):
            self._check_type(i, f"input {port.name!r}", self.values[port.value])
        for symbol in self.p.symbols:
            w.set(symbol.name, self.expr(symbol.expr))
        for i, port in enumerate(self.p.inputs):
            value = self.values[port.value]
            for axis, extent in enumerate(value.shape):
                if extent != ("dim", i, axis):
                    self._check_extent(i, axis, extent, f"input {port.name!r}")

    def _outputs(self) -> None:
        """Types of all outputs; then their shapes are written (query) or checked."""
        w, first = self.w, len(self.p.inputs)
        known = {s.name for s in self.p.symbols}
        fixed = []
        for i, port in enumerate(self.p.outputs):
            value = self.values[port.value]
            self._check_type(first + i, f"output {port.name!r}", value, compact=False)
            if all(self._at_entry(e, known) for e in value.shape):
                fixed.append((first + i, port.name, value))
                self.fixed.add(i)
        w.if_(w.op("and", w.context("flags"), w.number(QUERY_SHAPES)))
        if len(fixed) < len(self.p.outputs):
            w.check(w.number(0), "the shapes of this model's outputs are known only after it ran")
        for i, _, value in fixed:
            for axis, extent in enumerate(value.shape):
                w.set_extent(i, axis, self.expr(extent))
        w.return_ok()
        w.end_if()
        for i, name, value in fixed:
            w.check_compact(i, f"output {name!r} must be compact (row-major, no gaps)")
            for axis, extent in enumerate(value.shape):
                self._check_extent(i, axis, extent, f"output {name!r}")

    def _at_entry(self, expr: ShapeExpr, known: set[str]) -> bool:
        """Whether an expression can be computed before anything ran."""
        if not set(symbols_of(expr)) <= known:
            return False
        return not any(isinstance(e, tuple) and e[0] in SPECIAL and e[0] != "dim" for e in post_order(expr))

    def _check_type(self, index: int, what: str, value: P.Value, compact: bool = True) -> None:
        w = self.w
        code, bits = DLPACK_TYPES[value.dtype]
        w.check(
            w.op("eq", w.field(index, "ndim"), w.number(len(value.shape))), f"{what} must have {len(value.shape)} axes"
        )
        w.check(
            w.op("eq", w.field(index, "dtype"), w.number(code | bits << 8 | 1 << 16)), f"{what} must be {value.dtype}"
        )
        if compact:
            w.check_compact(index, f"{what} must be compact (row-major, no gaps)")

    def _check_extent(self, index: int, axis: int, extent: ShapeExpr, what: str) -> None:
        w = self.w
        same = w.op("eq", w.extent(index, axis), self.expr(extent))
        w.check(same, f"{what}: axis {axis} must be {show(extent)}")

    def _arena(self) -> None:
        if self.p.arena_bytes != 0:
            self.w.reserve(self.expr(self.p.arena_bytes))

    def _copy_out(self) -> None:
        """Outputs whose values live elsewhere are copied to the caller's tensors."""
        first = len(self.p.inputs)
        for i, port in enumerate(self.p.outputs):
            value = self.values[port.value]
            if i not in self.fixed and value.storage != ("output", i):
                self._publish(first + i, port, value)
            elif self._lies_in(value) != ("output", i):
                self.w.copy(self.w.data(first + i), self.pointer(port.value), self._bytes(value))

    def _lies_in(self, value: P.Value) -> P.Storage:
        """The storage that a value is all of, or a part of."""
        while value.storage[0] == "view" and value.id not in self.moved and value.storage[2] == 0:
            value = self.values[int(value.storage[1])]  # type: ignore[arg-type]
        return value.storage

    def _publish(self, index: int, port: P.Port, value: P.Value) -> None:
        """An output whose shape was found on the way: copied to the caller's tensor, or left where it is if that has
        no data.
        """
        w = self.w
        w.if_(w.absent(index))
        for axis, extent in enumerate(value.shape):
            w.set_extent(index, axis, self.expr(extent))
        w.set_data(index, self.pointer(port.value))
        w.else_()
        w.check_compact(index, f"output {port.name!r} must be compact (row-major, no gaps)")
        for axis, extent in enumerate(value.shape):
            self._check_extent(index, axis, extent, f"output {port.name!r}")
        w.copy(w.data(index), self.pointer(port.value), self._bytes(value))
        w.end_if()

    # ------------------------------------------------------------------------------------------------------- expression

    def expr(self, expr: ShapeExpr) -> str:
        """A shape expression as a 64-bit value."""
        w = self.w
        values: list[str] = []
        for node in post_order(expr):
            if isinstance(node, int):
                values.append(w.number(node))
            elif isinstance(node, str):
                values.append(w.get(node))
            elif node[0] == "dim":
                values.append(w.extent(int(node[1]), int(node[2])))  # type: ignore[arg-type]
            elif node[0] == "load":
                values.append(self._load(int(node[1]), int(node[2])))  # type: ignore[arg-type]
            elif node[0] in SPECIAL:
                raise LowerError(f"shape expression {show(node)} looks at an object", hint="use the executor")
            else:
                operator = str(node[0])
                count = OPERATORS[operator][0]
                operands = values[len(values) - count :]
                del values[len(values) - count :]
                if operator in ("floordiv", "mod", "ceildiv"):
                    w.check(w.op("ne", operands[1], w.number(0)), f"division by zero in {show(node)}")
                values.append(w.op(operator, *operands))
        return values[0]

    def _load(self, value_id: int, element: int) -> str:
        """An element of an integer tensor."""
        value = self.values[value_id]
        size: ShapeExpr = 1
        for extent in value.shape:
            size = ("mul", size, extent)
        w = self.w
        inside = w.op("gt", self.expr(size), w.number(element))
        w.check(inside, f"element {element} of {value.name!r} does not exist")
        return w.load(self.pointer(value_id), element * _BYTES[value.dtype], value.dtype)

    def _bytes(self, value: P.Value) -> str:
        size = self.w.number(_BYTES[value.dtype])
        for extent in value.shape:
            size = self.w.op("mul", size, self.expr(extent))
        return size

    def pointer(self, value_id: int) -> str:
        """The address of a value's data."""
        w = self.w
        offsets: list[ShapeExpr] = []
        while True:
            value = self.values[value_id]
            kind = value.storage[0]
            if value_id in self.moved:
                base = w.get_pointer(value_id)
            elif kind == "input":
                base = w.data(int(value.storage[1]))  # type: ignore[arg-type]
            elif kind == "output":
                base = w.data(len(self.p.inputs) + int(value.storage[1]))  # type: ignore[arg-type]
            elif kind == "view":
                offsets.append(value.storage[2])
                value_id = int(value.storage[1])  # type: ignore[arg-type]
                continue
            else:
                base = w.section({"const": "constants", "param": "params", "arena": "arena"}[str(kind)])
                offsets.append(value.storage[1])
            break
        for offset in reversed(offsets):
            if offset != 0:
                base = w.offset(base, self.expr(offset))
        return base

    # ------------------------------------------------------------------------------------------------------ instruction

    def _parts(self, body: P.Body) -> None:
        """The outermost body, in several functions where it is long."""
        end = next((k for k, i in enumerate(body) if isinstance(i, P.Return)), len(body))
        if end <= _PART:
            self.body(body)
            return
        for at in range(0, end, _PART):
            self.w.begin_part()
            self.body(body[at : min(at + _PART, end)])
            self.w.end_part()

    def body(self, body: P.Body) -> None:
        for instruction in body:
            if isinstance(instruction, P.Return):
                return
            _HANDLERS[type(instruction)](self, instruction)


def _call(e: _Entry, i: P.CallKernel) -> None:
    e.w.call(i.kernel, [e.pointer(a) for a in i.args], [e.expr(d) for d in i.dims])


def _view(e: _Entry, i: P.View) -> None:
    e.w.set_pointer(i.result, e.w.offset(e.pointer(i.source), e.expr(i.byte_offset)))


def _move(e: _Entry, i: P.Move) -> None:
    if P.in_place(i, e.values):
        return
    e.w.copy(e.pointer(i.result), e.pointer(i.source), e._bytes(e.values[i.source]))


def _shape_of(e: _Entry, i: P.ShapeOf) -> None:
    e.w.set(i.symbol, e.expr(e.values[i.value].shape[i.axis]))


def _set_symbol(e: _Entry, i: P.SetSymbol) -> None:
    e.w.set(i.symbol, e.expr(i.expr))


def _reserve(e: _Entry, i: P.Reserve) -> None:
    e.w.reserve(e.expr(i.size))


def _check(e: _Entry, i: P.Check) -> None:
    e.w.check(e.w.op("ne", e.expr(i.condition), e.w.number(0)), i.message)


def _branch(e: _Entry, i: P.Branch) -> None:
    e.w.if_(e.expr(i.condition))
    e.body(i.then)
    if i.other:
        e.w.else_()
        e.body(i.other)
    e.w.end_if()


def _loop(e: _Entry, i: P.Loop) -> None:
    w = e.w
    extent = e.expr(i.extent)
    w.set(i.index, w.number(0))
    w.loop()
    bounded = w.op("lt", w.get(i.index), extent)
    w.while_(w.op("or", w.op("lt", extent, w.number(0)), bounded))
    w.while_(e.expr(i.condition))
    e.body(i.body)
    w.set(i.index, w.op("add", w.get(i.index), w.number(1)))
    w.end_loop()


def _nothing(e: _Entry, i: Any) -> None:
    """Sync on a device that runs in order, Free of planned storage, Return at the end."""


_HANDLERS: dict[type, Any] = {
    P.CallKernel: _call,
    P.View: _view,
    P.Move: _move,
    P.ShapeOf: _shape_of,
    P.SetSymbol: _set_symbol,
    P.Reserve: _reserve,
    P.Check: _check,
    P.Branch: _branch,
    P.Loop: _loop,
    P.Sync: _nothing,
    P.Free: _nothing,
    P.Return: _nothing,
}
