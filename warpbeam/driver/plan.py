"""From fused functions and their kernels to a Program: values with storage, instructions in order, one arena.

Constants are laid out in one section (packed as the kernel that reads them wants); views cost nothing; results that
leave the model are written where the caller wants them. Functions called by name become part of the Program where they
are called: as they are, as the branches of an If, or, where a function ends by calling itself, as a loop whose state is
what the function takes. Sizes that only contents tell are set on the way (`late`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warpbeam.driver import late, memory
from warpbeam.driver.kernels import Kernel, KernelSet
from warpbeam.driver.shapes import bytes_of, to_shape_expr
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.op.assumed import Equality, equalities
from warpbeam.relay.expr import Call, Constant, Expr, Function, GlobalVar, If, IRModule, Tuple, TupleGetItem
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.runtime.program import (
    Branch, CallExternal, CallKernel, Check, Instruction, Loop, Move, Port, Program, Symbol, Value,
)  # fmt: skip
from warpbeam.tir import expr as E
from warpbeam.tir.expr import Var as DimVar
from warpbeam.tir.schedule.layout import apply_layout
from warpbeam.topi import dims
from warpbeam.transform.fuse_ops import primitives

_CONST_ALIGN = 64
_FOUND = (late.Define, late.Hold, late.Verify)
MAX_NESTING = 64


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
    loops: int = 0
    held: int = -1

    def root(self) -> _Slot:
        slot = self
        while slot.base is not None:
            slot = slot.base
        return slot


@dataclass(slots=True)
class _Kernel:
    """A call: operands, then results and workspaces; `own`: the kernel's sizes as those of its caller."""

    kernel: Kernel
    operands: list[_Slot]
    results: list[_Slot]
    own: dict[DimVar, DimVar]


@dataclass(slots=True)
class _External:
    """A call of a host function."""

    function: str
    options: str
    operands: list[_Slot]
    results: list[_Slot]


@dataclass(slots=True)
class _Move:
    target: _Slot
    source: _Slot


@dataclass(slots=True)
class _Branch:
    cond: _Slot
    then: list[Any]
    orelse: list[Any]


@dataclass(slots=True)
class _Loop:
    cond: _Slot
    body: list[Any]


class Planner:
    """Builds the Program of a module's main function."""

    def __init__(
        self, mod: IRModule, kernels: KernelSet, input_names: Sequence[str], output_names: Sequence[str]
    ) -> None:
        self.mod = mod
        self.func = mod["main"]
        self.kernels = kernels
        self.input_names = list(input_names)
        self.output_names = list(output_names)
        self.constants = Constants()
        self.slots: list[_Slot] = []
        self.steps: list[Any] = []  # of the body under construction
        self.at = 0  # steps so far, in all bodies
        self.depth = 0
        self.loops = 0  # around the body under construction
        self.symbols: dict[DimVar, str] = {}
        self.places: tuple[Symbol, ...] = ()
        self.late = late.Sizes(self.symbols)
        self.held: list[_Slot] = []  # slots whose size has no bound
        assumed = self.func.attrs.get("assumptions", ())
        reasons = self.func.attrs.get("reasons", ()) or ("",) * len(assumed)
        plain = "the sizes do not fit what the model assumes"
        self.assumed = {c: r or plain for c, r in zip(assumed, reasons, strict=True)}
        self.pending = [c for c in self.assumed if dims.is_counted(c)]
        self.facts: dict[Function, list[Equality]] = {}

    def build(self) -> Program:
        """The whole Program."""
        values: dict[Expr, Any] = {}
        for i, p in enumerate(self.func.params):
            values[p] = self._slot(p.ty, ("input", i), p.name)
        symbols = self._symbols()
        self.checks = self._checks()
        self.inputs = [values[p] for p in self.func.params]
        outputs = self._outputs(self._run(self.func.body, values))
        total = self._place()
        return self._program(symbols, outputs, total)

    def _run(self, body: Expr, values: dict[Expr, Any]) -> Any:
        """The steps of an expression, in order; gives its slot, or a list of slots. `values` gets what was computed."""
        branches = {b for n in _line(body) if isinstance(n, If) for b in (n.then, n.orelse)}
        for node in _line(body):
            if node in values or (node in branches and isinstance(node, Call) and isinstance(node.op, GlobalVar)):
                continue
            if isinstance(node, If):
                values[node] = self._if(node, values)
            elif isinstance(node, Call):
                values[node] = self._call(node, values)
            elif isinstance(node, Tuple):
                values[node] = [self._value(f, values) for f in node.fields]
            elif isinstance(node, TupleGetItem):
                values[node] = values[node.tuple_value][node.index]
        return self._value(body, values)

    def _value(self, node: Expr, values: dict[Expr, Any]) -> Any:
        if isinstance(node, Constant) and node not in values:
            values[node] = self._slot(node.ty, ("const", self.constants.add(node, None)[0]))
        return values[node]

    def _step(self, step: Any) -> None:
        self.steps.append(step)
        self.at += 1

    def _use(self, slots: Iterable[_Slot]) -> None:
        for s in slots:
            s.root().last = self.at

    def _slot(self, ty: TensorType, storage: tuple[Any, ...] | None, name: str = "") -> _Slot:
        slot = _Slot(ty, storage, first=self.at, last=self.at, name=name, loops=self.loops)
        self.slots.append(slot)
        if storage is None and self.late.is_late(*ty.shape):
            self.steps.append(late.Hold(slot))
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

    def _operand(self, arg: Expr, kernel: Kernel, index: int, values: dict[Expr, Any]) -> _Slot:
        if isinstance(arg, Constant):
            offset, packed = self.constants.add(arg, kernel.layouts.get(index))
            return self._slot(TensorType(packed.shape, arg.ty.dtype), ("const", offset))
        return values[arg]  # type: ignore[no-any-return]

    def _call(self, call: Call, values: dict[Expr, Any]) -> Any:
        fn = call.op
        if isinstance(fn, GlobalVar):
            return self._named(fn, [self._value(a, values) for a in call.args])
        if not isinstance(fn, Function):
            raise CompileError(
                f"{type(call.op).__name__} call cannot be compiled yet",
                why="only calls of operators and of functions by name are first order",
                hint="closures and references run in relay.interp",
            )
        self._sizes(call, fn, values)
        if _is_view(fn):
            source = self._value(call.args[0], values)
            slot = self._slot(call.ty, None)
            slot.base = source
            return slot
        if isinstance(fn.body, Call) and isinstance(fn.body.op, Op) and fn.body.op.host:
            return self._external(call, fn, values)
        kernel, sizes = self.kernels.get(fn, call.args)
        operands = [self._operand(a, kernel, i, values) for i, a in enumerate(call.args)]
        types = call.ty.fields if isinstance(call.ty, TupleType) else (call.ty,)
        results = [self._slot(t, None) for t in types]
        own = dict(zip(kernel.sizes, sizes, strict=True))
        shapes = [tuple(d if isinstance(d, int) else substitute(d, own) for d in b.shape) for b in kernel.workspaces]
        scratch = [
            self._slot(TensorType(shape, b.dtype), None, "workspace")
            for shape, b in zip(shapes, kernel.workspaces, strict=True)
        ]
        self._use(operands)
        names = tuple(fn.attrs.get("origins", ()))
        for s in results:
            s.origins = names
        self._step(_Kernel(kernel, operands, [*results, *scratch], own))
        return results if isinstance(call.ty, TupleType) else results[0]

    def _external(self, call: Call, fn: Function, values: dict[Expr, Any]) -> Any:
        """A call of a host function, which is an operator in a group of its own."""
        inner = fn.body
        given = dict(zip(fn.params, call.args, strict=True))
        operands = [self._value(given.get(a, a), values) for a in inner.args]
        types = call.ty.fields if isinstance(call.ty, TupleType) else (call.ty,)
        results = [self._slot(t, None) for t in types]
        self._use(operands)
        for s in results:
            s.origins = tuple(fn.attrs.get("origins", ()))
        options = inner.attrs["options"] or "{}"
        self._step(_External(inner.attrs["function"], options, operands, results))
        return results if isinstance(call.ty, TupleType) else results[0]

    def _sizes(self, call: Call, fn: Function, values: dict[Expr, Any]) -> None:
        """Defines the sizes that a call brings, and checks what it takes for granted of sizes found at run time."""
        found = self.late.define(fn, lambda k: self._value(call.args[k], values))
        for step in found:
            self._use([step.slot])
            self.steps.append(step)
        if not self.late.bounds:
            return
        if found:
            known = {v for v in self.symbols if v in self.late.bounds}
            ready = [c for c in self.pending if set(dims.counted_in(c)) <= known]
            self.pending = [c for c in self.pending if c not in ready]
            for condition in ready:
                self.steps.append(late.Verify(condition, self.assumed[condition]))
        for a, b, message in self._equalities(fn):
            if self.late.is_late(a, b):
                self.steps.append(late.Verify(E.binary(E.EQ, E.as_expr(a), E.as_expr(b)), message))

    def _equalities(self, fn: Function) -> list[Equality]:
        """The equalities of sizes that a primitive function takes for granted."""
        if fn not in self.facts:
            calls = [n for n in post_order(fn.body) if isinstance(n, Call) and isinstance(n.op, Op)]
            self.facts[fn] = [q for n in calls for q in equalities(n.op, [x.ty for x in n.args], n.attrs)]
        return self.facts[fn]

    # --------------------------------------------------------------------------------------------------- control flow

    def _named(self, gv: GlobalVar, args: list[Any]) -> Any:
        """A call of a function by name: its steps stand here."""
        fn = self.mod[gv]
        tail = _tail_call(gv, fn)
        if tail is not None:
            return self._loop(fn, tail, args)
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise CompileError(
                f"calls of {gv.name!r} are nested more than {MAX_NESTING} deep",
                why="recursion other than a loop at a function's end needs a stack",
                hint="end the function with the call of itself",
            )
        result = self._run(fn.body, dict(zip(fn.params, args, strict=True)))
        self.depth -= 1
        return result

    def _if(self, node: If, values: dict[Expr, Any]) -> Any:
        """Both branches write the same slots."""
        cond = self._value(node.cond, values)
        types = node.ty.fields if isinstance(node.ty, TupleType) else (node.ty,)
        results = [self._slot(t, None) for t in types]
        bodies = []
        self._use([cond])
        for branch in (node.then, node.orelse):
            outer, self.steps = self.steps, []
            found = self._branch(branch, values)
            self._hand_over(results, found if isinstance(found, list) else [found])
            bodies.append(self.steps)
            self.steps = outer
        self._step(_Branch(cond, *bodies))
        return results if isinstance(node.ty, TupleType) else results[0]

    def _branch(self, branch: Expr, values: dict[Expr, Any]) -> Any:
        if isinstance(branch, Call) and isinstance(branch.op, GlobalVar):
            return self._named(branch.op, [self._value(a, values) for a in branch.args])
        return self._run(branch, dict(values))

    def _copied(self, slot: _Slot) -> _Slot:
        """A slot of its own with the same contents."""
        new = self._slot(slot.ty, None, slot.name)
        self._use([slot])
        self._step(_Move(new, slot))
        return new

    def _hand_over(self, targets: list[_Slot], found: list[_Slot]) -> None:
        """Makes `targets` hold what was found: written there at once where nothing stands against it, else moved."""
        first = min(t.first for t in targets) if targets else 0
        for target, slot in zip(targets, found, strict=True):
            root = slot.root()
            fresh = root.storage is None and root.first >= first and root not in targets and root.first < self.at
            if fresh and self.loops == root.loops:
                root.base = target
                target.origins = target.origins or root.origins
            else:
                self._use([slot, target])
                self._step(_Move(target, slot))

    def _loop(self, fn: Function, tail: If, args: list[_Slot]) -> Any:
        """state = args; while cond(state): state = step(state); the result is what the other branch gives."""
        again, leave = (tail.then, tail.orelse) if _is_call(tail.then) else (tail.orelse, tail.then)
        assert isinstance(again, Call)
        moving = [k for k, (p, a) in enumerate(zip(fn.params, again.args, strict=True)) if a is not p]
        values: dict[Expr, Any] = dict(zip(fn.params, args, strict=True))
        for k in moving:
            state = self._slot(fn.params[k].ty, None, fn.params[k].name)
            self._use([args[k], state])
            self._step(_Move(state, args[k]))
            values[fn.params[k]] = state
        cond = self._slot(tail.cond.ty, None)
        self._hand_over([cond], [self._run(tail.cond, dict(values))])
        start, known = self.at, len(self.slots)
        outer, self.steps = self.steps, []
        self.loops += 1
        inner = dict(values)
        states = [values[fn.params[k]] for k in moving]
        new = [self._run(again.args[k], inner) for k in moving]
        new = [self._copied(x) if x is not s and x.root() in states else x for x, s in zip(new, states, strict=True)]
        for state, slot in zip(states, new, strict=True):
            if slot is not state:
                self._use([slot, state])
                self._step(_Move(state, slot))
        self._hand_over([cond], [self._run(tail.cond, dict(values))])
        self.loops -= 1
        body, self.steps = self.steps, outer
        for s in self.slots[:known]:  # what an iteration reads must live until the last one
            if s.root().last >= start:
                s.root().last = self.at
        self._step(_Loop(cond, body))
        return self._run(leave, values)

    def _outputs(self, value: Any) -> list[_Slot]:
        """Results of the function; each is written straight into the caller's tensor."""
        outs = list(value) if isinstance(value, list) else [value]
        for i, slot in enumerate(outs):
            if self.late.is_late(*slot.ty.shape):  # stays in the arena
                continue
            if slot.root().storage is not None or self.late.is_late(*slot.root().ty.shape):
                outs[i] = self._copied(slot)  # what a loop leaves may be an input or another output
            outs[i].root().storage = ("output", i)
        self._use(outs)
        return outs

    def _place(self) -> Any:
        """Arena offsets of everything that is neither input, output nor constant."""
        for slot in self.slots:
            if slot.base is not None:
                root = slot.root()
                root.last = max(root.last, slot.last)
        free = []
        items = []
        for s in self.slots:
            if s.storage is not None or s.base is not None:
                continue
            room = self.late.bounded(s.ty)
            if room is None:
                s.held = len(self.held)
                s.storage = ("arena", late.place_name(s.held))
                self.held.append(s)
                continue
            size, unit = bytes_of(room, self.symbols)
            free.append(s)
            items.append(memory.Item(size, s.first, s.last, unit))
        prefix = "arena"
        while any(name.startswith(prefix) for name in self.symbols.values()):
            prefix = f"_{prefix}"
        placed = memory.plan(items, prefix)
        for s, offset in zip(free, placed.offsets, strict=True):
            s.storage = ("arena", offset)
        self.places = tuple(Symbol(name, expr) for name, expr in placed.symbols)
        if self.held:
            self.places = (*self.places, Symbol("_planned", placed.total))
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
        body = (*self.checks, *self._body(self.steps))
        ins = tuple(Port(n, s.number) for n, s in zip(self.input_names, self.inputs, strict=True))
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
        for fn in [p for f in self.mod.functions.values() for p in primitives(f)] if self.symbols else ():
            for a, b, message in self._equalities(fn):
                if not dims.counted_in(a, b):
                    sides = (to_shape_expr(a, self.symbols), to_shape_expr(b, self.symbols))
                    found.setdefault(("eq", *sides), message)
        for condition, reason in self.assumed.items():
            if not dims.is_counted(condition):
                found.setdefault(to_shape_expr(condition, self.symbols), reason)
        return [Check(condition, message) for condition, message in found.items() if not isinstance(condition, int)]

    def _body(self, steps: list[Any]) -> tuple[Instruction, ...]:
        return tuple(i for s in steps for i in (self._found(s) if isinstance(s, _FOUND) else [self._instruction(s)]))

    def _found(self, step: Any) -> list[Instruction]:
        """The instructions of a step about sizes found at run time."""
        if isinstance(step, late.Define):
            return late.define_instructions(step, self.symbols)
        if isinstance(step, late.Verify):
            condition = to_shape_expr(step.condition, self.symbols)
            return [] if condition == 1 else [Check(condition, step.message)]
        slot = step.slot
        if slot.held < 0:
            return []
        with_it = [s for s in self.held if s.held < slot.held and s.first <= slot.first <= s.last]
        below = ["_planned", *(late.end_name(s.held) for s in with_it)]
        return late.hold_instructions(slot.held, slot, below, self.symbols)

    def _instruction(self, step: Any) -> Instruction:
        if isinstance(step, _Move):
            return Move(step.target.number, step.source.number)
        if isinstance(step, _External):
            ports = [tuple(s.number for s in group) for group in (step.operands, step.results)]
            return CallExternal(step.function, ports[0], ports[1], step.options)
        if isinstance(step, _Branch):
            return Branch(("load", step.cond.number, 0), self._body(step.then), self._body(step.orelse))
        if isinstance(step, _Loop):
            self.loops += 1
            return Loop(f"_iteration{self.loops}", -1, ("load", step.cond.number, 0), self._body(step.body))
        sizes = tuple(to_shape_expr(step.own.get(v, v), self.symbols) for v in step.kernel.dims)
        args = tuple(s.number for s in [*step.operands, *step.results])
        return CallKernel(step.kernel.symbol, args, sizes, (), tuple(s.number for s in step.results))


def _line(body: Expr) -> list[Any]:
    """The expressions below one, operands first; what stands inside the branches of an If is not among them."""
    found = []
    for n in post_order(body, enter=lambda n: not isinstance(n, Function)):
        if isinstance(n, Expr):
            found.append(n)
    return found


def _is_call(node: Expr) -> bool:
    return isinstance(node, Call) and isinstance(node.op, GlobalVar)


def _tail_call(gv: GlobalVar, fn: Function) -> If | None:
    """The If that a function ends with where one of its branches calls the function itself."""
    if not isinstance(fn.body, If):
        return None
    calls = [b for b in (fn.body.then, fn.body.orelse) if isinstance(b, Call) and b.op is gv]
    return fn.body if len(calls) == 1 else None


def _is_view(fn: Function) -> bool:
    """Whether a primitive function only renames the shape of its operand."""
    call = fn.body
    return isinstance(call, Call) and isinstance(call.op, Op) and bool(getattr(call.op, "view", False))
