"""From a fused function and its kernels to a Program: values with storage, instructions in order, one arena.

Constants are laid out in one section (packed as the kernel that reads them wants); views cost nothing; results that
leave the
model are written where the caller wants them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warpbeam.driver import memory
from warpbeam.driver.kernels import Kernel, KernelSet
from warpbeam.driver.shapes import bytes_of, to_shape_expr
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.op.assumed import equalities
from warpbeam.relay.expr import Call, Constant, Expr, Function, Tuple, TupleGetItem
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.runtime.program import CallKernel, Check, Port, Program, Symbol, Value
from warpbeam.tir.expr import Var as DimVar
from warpbeam.tir.schedule.layout import apply_layout
from warpbeam.transform.fuse_ops import primitives

_CONST_ALIGN = 64


@dataclass(slots=True)
class Constants:
    """The constants section under construction: arrays at aligned offsets, equal contents stored once."""

    chunks: list[tuple[int, np.ndarray]] = field(default_factory=list)
    size: int = 0
    _known: dict[tuple[Any, ...], tuple[int, np.ndarray]] = field(default_factory=dict)

    def add(self, const: Constant, layout: Any) -> tuple[int, np.ndarray]:
        """(byte offset, array as stored) of a constant in a layout."""
        array = const.data.array
        key = (str(array.dtype), array.shape, const.data.digest, repr(layout))
        found = self._known.get(key)
        if found is None:
            stored = array if layout is None else apply_layout(array.reshape(layout["shape"]), layout)
            packed = np.ascontiguousarray(stored)
            offset = self.size
            self.chunks.append((offset, packed))
            self.size = -(-(offset + packed.nbytes) // _CONST_ALIGN) * _CONST_ALIGN
            found = self._known[key] = (offset, packed)
        return found

    def blob(self) -> np.ndarray:
        """All constants as one array of bytes."""
        out = np.zeros(self.size, np.uint8)
        for offset, array in self.chunks:
            out[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
        return out


@dataclass(slots=True, eq=False)
class _Slot:
    """A tensor value before storage is known."""

    ty: TensorType
    storage: tuple[Any, ...] | None = None
    base: _Slot | None = None
    first: int = 0
    last: int = 0
    name: str = ""
    origins: tuple[str, ...] = ()
    number: int = -1

    def root(self) -> _Slot:
        slot = self
        while slot.base is not None:
            slot = slot.base
        return slot


class Planner:
    """Builds the Program of one first-order function."""

    def __init__(
        self, func: Function, kernels: KernelSet, input_names: Sequence[str], output_names: Sequence[str]
    ) -> None:
        self.func = func
        self.kernels = kernels
        self.input_names = list(input_names)
        self.output_names = list(output_names)
        self.constants = Constants()
        self.slots: list[_Slot] = []
        self.values: dict[Expr, Any] = {}
        self.calls: list[tuple[Kernel, list[_Slot], list[_Slot], dict[DimVar, DimVar]]] = []
        self.symbols: dict[DimVar, str] = {}
        self.places: tuple[Symbol, ...] = ()

    def build(self) -> Program:
        """The whole Program."""
        for i, p in enumerate(self.func.params):
            self.values[p] = self._slot(p.ty, ("input", i), p.name)
        symbols = self._symbols()
        for node in post_order(self.func.body, enter=lambda n: not isinstance(n, Function)):
            if isinstance(node, Call):
                self.values[node] = self._call(node)
            elif isinstance(node, Tuple):
                self.values[node] = [self.values.get(f, f) for f in node.fields]
            elif isinstance(node, TupleGetItem):
                self.values[node] = self.values[node.tuple_value][node.index]
        outputs = self._outputs()
        total = self._place()
        return self._program(symbols, outputs, total)

    def _slot(self, ty: TensorType, storage: tuple[Any, ...] | None, name: str = "") -> _Slot:
        slot = _Slot(ty, storage, name=name)
        self.slots.append(slot)
        return slot

    def _symbols(self) -> tuple[Symbol, ...]:
        """Every symbolic dimension is read from the first input axis that is exactly it."""
        taken: set[str] = set()
        out: list[Symbol] = []
        for i, p in enumerate(self.func.params):
            for axis, d in enumerate(p.ty.shape):
                if isinstance(d, DimVar) and d not in self.symbols:
                    name = d.name if d.name not in taken else f"{d.name}_{len(taken)}"
                    taken.add(name)
                    self.symbols[d] = name
                    out.append(Symbol(name, ("dim", i, axis)))
        return tuple(out)

    def _operand(self, arg: Expr, kernel: Kernel, index: int) -> _Slot:
        if isinstance(arg, Constant):
            offset, packed = self.constants.add(arg, kernel.layouts.get(index))
            return self._slot(TensorType(packed.shape, arg.ty.dtype), ("const", offset))
        return self.values[arg]  # type: ignore[no-any-return]

    def _call(self, call: Call) -> Any:
        fn = call.op
        if not isinstance(fn, Function):
            raise CompileError(
                f"{type(call.op).__name__} call cannot be compiled yet",
                why="only calls of fused operators are first order",
                hint="closures, recursion and references run in relay.interp",
            )
        if _is_view(fn):
            source = self.values.get(call.args[0])
            if source is None:
                return self._slot(call.ty, ("const", self.constants.add(call.args[0], None)[0]))
            slot = self._slot(call.ty, None)
            slot.base = source
            return slot
        kernel, sizes = self.kernels.get(fn, call.args)
        step = len(self.calls)
        operands = [self._operand(a, kernel, i) for i, a in enumerate(call.args)]
        types = call.ty.fields if isinstance(call.ty, TupleType) else (call.ty,)
        results = [self._slot(t, None) for t in types]
        own = dict(zip(kernel.sizes, sizes, strict=True))
        shapes = [tuple(d if isinstance(d, int) else substitute(d, own) for d in b.shape) for b in kernel.workspaces]
        scratch = [
            self._slot(TensorType(shape, b.dtype), None, "workspace")
            for shape, b in zip(shapes, kernel.workspaces, strict=True)
        ]
        for s in operands:
            s.root().last = step
        for s in [*results, *scratch]:
            s.first = s.last = step
        names = tuple(fn.attrs.get("origins", ()))
        for s in results:
            s.origins = names
        self.calls.append((kernel, operands, [*results, *scratch], own))
        return results if isinstance(call.ty, TupleType) else results[0]

    def _outputs(self) -> list[_Slot]:
        """Results of the function; each is written straight into the caller's tensor."""
        value = self.values.get(self.func.body, self.func.body)
        outs = value if isinstance(value, list) else [value]
        for i, slot in enumerate(outs):
            root = slot.root() if isinstance(slot, _Slot) else None
            if root is None or root.storage is not None:
                raise CompileError(
                    f"output {i} is not computed by a kernel", hint="run the protect_outputs pass before planning"
                )
            root.storage = ("output", i)
        return outs

    def _place(self) -> Any:
        """Arena offsets of everything that is neither input, output nor constant."""
        for slot in self.slots:
            if slot.base is not None:
                root = slot.root()
                root.last = max(root.last, slot.last)
        free = [s for s in self.slots if s.storage is None and s.base is None]
        items = []
        for s in free:
            size, unit = bytes_of(s.ty, self.symbols)
            items.append(memory.Item(size, s.first, s.last, unit))
        prefix = "arena"
        while any(name.startswith(prefix) for name in self.symbols.values()):
            prefix = f"_{prefix}"
        placed = memory.plan(items, prefix)
        for s, offset in zip(free, placed.offsets, strict=True):
            s.storage = ("arena", offset)
        self.places = tuple(Symbol(name, expr) for name, expr in placed.symbols)
        return placed.total

    def _program(self, symbols: tuple[Symbol, ...], outputs: list[_Slot], total: Any) -> Program:
        for i, s in enumerate(self.slots):
            s.number = i
        values = tuple(
            Value(
                s.number,
                dtype=s.ty.dtype,
                shape=tuple(to_shape_expr(d, self.symbols) for d in s.ty.shape),
                storage=s.storage if s.base is None else ("view", s.root().number, 0),  # type: ignore[arg-type]
                name=s.name,
                origins=s.origins,
            )
            for s in self.slots
        )
        body = (*self._checks(), *(self._instruction(*c) for c in self.calls))
        ins = tuple(Port(n, self.values[p].number) for n, p in zip(self.input_names, self.func.params, strict=True))
        outs = tuple(Port(n, s.number) for n, s in zip(self.output_names, outputs, strict=True))
        return Program("main", ins, outs, values, body, (*symbols, *self.places), total)

    def _checks(self) -> list[Check]:
        """What the compiled code takes for granted of the sizes, checked before anything runs: they are at least 1,
        equal where an operator's type needs it, and as the importer assumed.
        """
        found: dict[Any, str] = {
            ("ge", name, 1): f"size {name} is at least 1: empty tensors need their shape given when compiling"
            for name in self.symbols.values()
        }
        for fn in primitives(self.func) if self.symbols else ():
            for n in post_order(fn.body):
                if isinstance(n, Call) and isinstance(n.op, Op):
                    for a, b, message in equalities(n.op, [x.ty for x in n.args], n.attrs):
                        sides = (to_shape_expr(a, self.symbols), to_shape_expr(b, self.symbols))
                        found.setdefault(("eq", *sides), message)
        for condition in self.func.attrs.get("assumptions", ()):
            found.setdefault(to_shape_expr(condition, self.symbols), "the sizes do not fit what the model assumes")
        return [Check(condition, message) for condition, message in found.items() if not isinstance(condition, int)]

    def _instruction(
        self, kernel: Kernel, operands: list[_Slot], results: list[_Slot], own: dict[DimVar, DimVar]
    ) -> CallKernel:
        dims = tuple(to_shape_expr(own.get(v, v), self.symbols) for v in kernel.dims)
        args = tuple(s.number for s in [*operands, *results])
        return CallKernel(kernel.symbol, args, dims, (), tuple(s.number for s in results))


def _is_view(fn: Function) -> bool:
    """Whether a primitive function only renames the shape of its operand."""
    call = fn.body
    return isinstance(call, Call) and isinstance(call.op, Op) and bool(getattr(call.op, "view", False))
