"""From fused functions and their kernels to a Program: values with storage, instructions in order, one arena.

Constants are laid out in one section (packed as the kernel that reads them wants); views cost nothing; results that
leave the model are written where the caller wants them. Functions called by name become part of the Program where they
are called: as they are, as the branches of an If, or, where a function ends by calling itself, as a loop whose state is
what the function takes. Sizes that only contents tell are set on the way (`late`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from warpbeam.driver import late, plan_carry, plan_check, plan_gaps, plan_pieces, plan_share
from warpbeam.driver.constants import Constants
from warpbeam.driver.kernels import Kernel, KernelSet
from warpbeam.driver.plan_place import place, storage_of
from warpbeam.driver.plan_steps import BranchStep, ExternalStep, KernelStep, LoopStep, MoveStep, Slot, walk
from warpbeam.driver.plan_walk import flat, is_call, is_host_call, is_view, last_readers, line, origin
from warpbeam.driver.shapes import to_shape_expr
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.op.assumed import Equality, equalities
from warpbeam.relay.expr import Call, Constant, Expr, Function, GlobalVar, If, IRModule, Tuple, TupleGetItem
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.runtime.program import (
    Branch,
    CallExternal,
    CallKernel,
    Check,
    Instruction,
    Loop,
    Move,
    Port,
    Program,
    Symbol,
    Value,
)  # fmt: skip
from warpbeam.tir import expr as E
from warpbeam.tir.expr import Var as DimVar
from warpbeam.topi import dims
from warpbeam.transform.fuse_ops import primitives
from warpbeam.transform.loops import tail_call

_FOUND = (late.Define, late.Hold, late.Verify)
MAX_NESTING = 64


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
        self.slots: list[Slot] = []
        self.steps: list[Any] = []  # of the body under construction
        self.at = 0  # steps so far, in all bodies
        self.depth = 0
        self.loops = 0  # around the body under construction
        self.body = self.bodies = 0  # number of the body under construction, and how many there were
        self.readers: dict[Expr, Any] = {}  # of values in the expression under construction: who reads them last
        self.pieces: dict[Expr, plan_pieces.Piece] = {}  # values that stand in what joins them
        self.sharing = plan_share.enabled()
        self.kernels.deferred = True
        self.symbols: dict[DimVar, str] = {}
        self.places: tuple[Symbol, ...] = ()
        self.late = late.Sizes(self.symbols)
        self.held: list[Slot] = []  # slots whose size has no bound
        assumed = self.func.attrs.get("assumptions", ())
        reasons = self.func.attrs.get("reasons", ()) or ("",) * len(assumed)
        plain = "the sizes do not fit what the model assumes"
        self.assumed = {c: r or plain for c, r in zip(assumed, reasons, strict=True)}
        self.pending = [c for c in self.assumed if dims.is_counted(c)]
        self.facts: dict[Function, tuple[list[Equality], list[Equality]]] = {}

    def build(self) -> Program:
        """The whole Program."""
        values: dict[Expr, Any] = {}
        for i, p in enumerate(self.func.params):
            values[p] = self._slot(p.ty, ("input", i), p.name)
        symbols = self._symbols()
        self.checks = self._checks()
        self.inputs = [values[p] for p in self.func.params]
        outputs = self._outputs(self._run(self.func.body, values))
        if self.sharing:
            plan_carry.carry(self.steps, self.kernels, self.late.is_late)
            plan_share.overwrite(self.steps, self.slots, self.kernels, self.late.is_late)
            plan_gaps.spread(self.steps, self.slots, self.kernels)
        self._settle_kernels()
        plan_share.settle(self.slots)
        placed = place(self.slots, self.late, self.symbols)
        self.packing, self.places, self.held = placed.packing, placed.places, placed.held
        program = self._program(symbols, outputs, placed.packing.total)
        if plan_check.ALWAYS:
            plan_check.check_plan(program)
        return program

    def _run(self, body: Expr, values: dict[Expr, Any]) -> Any:
        """The steps of an expression, in order; gives its slot, or a list of slots. `values` gets what was computed."""
        nodes = line(body)
        branches = {b for n in nodes if isinstance(n, If) for b in (n.then, n.orelse)}
        outer = self.readers, self.pieces
        self.readers = last_readers(nodes, body, values)
        self.pieces = plan_pieces.wanted(nodes, body, values) if self.sharing else {}
        for node in nodes:
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
        self.readers, self.pieces = outer
        return self._value(body, values)

    def _inside(self, build: Callable[[], None]) -> list[Any]:
        """The steps that `build` makes, as a body of their own."""
        outer, self.steps = (self.steps, self.body), []
        self.bodies += 1
        self.body = self.bodies
        build()
        found = self.steps
        self.steps, self.body = outer
        return found

    def _value(self, node: Expr, values: dict[Expr, Any]) -> Any:
        if isinstance(node, Constant) and node not in values:
            values[node] = self._slot(node.ty, ("const", self.constants.add(node, None)[0]))
        return values[node]

    def _step(self, step: Any) -> None:
        self.steps.append(step)
        self.at += 1

    def _use(self, slots: Iterable[Slot]) -> None:
        for s in slots:
            s.root().last = self.at

    def _slot(self, ty: TensorType, storage: tuple[Any, ...] | None, name: str = "") -> Slot:
        slot = Slot(ty, storage, first=self.at, last=self.at, name=name, loops=self.loops, body=self.body)
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

    def _fresh(self, ty: Any, name: str = "") -> Any:
        """New slots for a value; a tuple's are a list."""
        return [self._fresh(t, name) for t in ty.fields] if isinstance(ty, TupleType) else self._slot(ty, None, name)

    def _operand(self, arg: Expr, kernel: Kernel, index: int, values: dict[Expr, Any]) -> Slot:
        if isinstance(arg, Constant):
            offset, shape = self.constants.add(arg, kernel.layouts.get(index))
            return self._slot(TensorType(shape, arg.ty.dtype), ("const", offset))
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
        if is_view(fn):
            return self._part(call.ty, self._value(call.args[0], values), 0)
        offsets = plan_pieces.views(fn) if self.sharing else None
        if offsets is not None and isinstance(call.ty, TupleType):
            source = self._value(call.args[0], values)
            return [self._part(t, source, o) for t, o in zip(call.ty.fields, offsets, strict=True)]
        if offsets is not None:
            return self._part(call.ty, self._value(call.args[0], values), offsets[0])
        if any(a in self.pieces for a in call.args) and plan_pieces.join(fn) is not None:
            return self._joined(call, values)
        if is_host_call(fn):
            return self._external(call, fn, values)
        kernel, sizes = self.kernels.get(fn, call.args)
        kernel, placed = self._widened(kernel, call)
        self._expect(kernel, call)
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
        for s, piece in zip(results, placed, strict=True):
            s.origins = names
            s.strides = None if piece is None or piece.dense else piece.strides(s.ty.shape)
        self._step(KernelStep(kernel, operands, [*results, *scratch], own, self.at, self.body))
        return results if isinstance(call.ty, TupleType) else results[0]

    def _part(self, ty: TensorType, source: Slot, offset: int) -> Slot:
        """A value that is part of another."""
        slot = self._slot(ty, None)
        slot.base, slot.offset = source, offset
        return slot

    def _widened(self, kernel: Kernel, call: Call) -> tuple[Kernel, list[Any]]:
        """The kernel that writes results into what joins them, and for each result its place there, or None."""
        placed: list[Any] = []
        for j in range(kernel.outputs):
            result = TupleGetItem(call, j) if isinstance(call.ty, TupleType) else call
            piece = self.pieces.get(result)
            at, apart = kernel.inputs + j, piece is not None and not piece.dense
            wide = self.kernels.widened(kernel, at, piece.run, piece.pitch) if piece and apart else kernel
            kernel, piece = (kernel, None) if wide is None else (wide, piece)
            placed.append(piece)
        return kernel, placed

    def _joined(self, call: Call, values: dict[Expr, Any]) -> Slot:
        """What is joined: pieces that stand in it already, and copies of the others."""
        whole = self._slot(call.ty, None)
        whole.origins = tuple(call.op.attrs.get("origins", ()))
        for a, piece in zip(call.args, plan_pieces.join(call.op) or (), strict=True):
            slot = self._value(a, values)
            ready = a in self.pieces and slot.base is None and (piece.dense or slot.strides is not None)
            part = slot if ready else self._part(slot.ty, whole, 0)
            part.base, part.offset = whole, piece.start * dt.nbytes(whole.ty.dtype)
            if ready:
                continue
            self._use([slot, part])
            if piece.dense:
                self._step(MoveStep(part, slot))
                continue
            part.strides = piece.strides(slot.ty.shape)
            kernel = self.kernels.copying(slot.ty.dtype, piece.outer, piece.run, piece.pitch)
            self.kernels.need(kernel)
            self._step(KernelStep(kernel, [slot], [part], {}, self.at, self.body))
        self._use([whole])
        return whole

    def _expect(self, kernel: Kernel, call: Call) -> None:
        """Has the kernel compiled that the call will likely be of, before all lives are known."""
        ends = [i for i, a in enumerate(call.args) if self.sharing and self.readers.get(origin(a)) is call]
        pairs = [(i, j) for i in ends for j in range(kernel.outputs)]
        self.kernels.need(self.kernels.over(kernel, plan_share.chosen(self.kernels, kernel, pairs)))

    def _settle_kernels(self) -> None:
        """The kernels of all steps, and no other, are compiled."""
        used = {step.kernel.symbol: step.kernel for step in walk(self.steps) if isinstance(step, KernelStep)}
        for kernel in used.values():
            self.kernels.need(kernel)
        self.kernels.keep(used)

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
        self._step(ExternalStep(inner.attrs["function"], options, operands, results))
        return results if isinstance(call.ty, TupleType) else results[0]

    def _sizes(self, call: Call, fn: Function, values: dict[Expr, Any]) -> None:
        """Defines the sizes that a call brings, and checks what it takes for granted of sizes found at run time."""
        found = self.late.define(fn, lambda k: self._value(call.args[k], values))
        for step in found:
            self._use([step.slot])
            self.steps.append(step)
        everywhere, here = self._equalities(fn)
        if found:
            known = {v for v in self.symbols if v in self.late.bounds}
            ready = [c for c in self.pending if set(dims.counted_in(c)) <= known]
            self.pending = [c for c in self.pending if c not in ready]
            for condition in ready:
                self.steps.append(late.Verify(condition, self.assumed[condition]))
        for a, b, message in (*(q for q in everywhere if self.late.is_late(*q[:2])), *here):
            self.steps.append(late.Verify(E.binary(E.EQ, E.as_expr(a), E.as_expr(b)), message))

    def _equalities(self, fn: Function) -> tuple[list[Equality], list[Equality]]:
        """The equalities of sizes that a primitive function takes for granted in each run, and where it is called."""
        if fn not in self.facts:
            calls = [n for n in post_order(fn.body) if isinstance(n, Call) and isinstance(n.op, Op)]
            found: tuple[list[Equality], list[Equality]] = ([], [])
            for n in calls if self.symbols else ():
                found[n.op.placed].extend(equalities(n.op, [x.ty for x in n.args], n.attrs))
            self.facts[fn] = found
        return self.facts[fn]

    # --------------------------------------------------------------------------------------------------- control flow

    def _named(self, gv: GlobalVar, args: list[Any]) -> Any:
        """A call of a function by name: its steps stand here."""
        fn = self.mod[gv]
        tail = tail_call(gv, fn)
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
        results = self._fresh(node.ty)
        bodies = []
        self._use([cond])
        for branch in (node.then, node.orelse):

            def build(branch: Expr = branch) -> None:
                self._hand_over(flat(results), flat(self._branch(branch, values)))

            bodies.append(self._inside(build))
        self._step(BranchStep(cond, *bodies))
        return results

    def _branch(self, branch: Expr, values: dict[Expr, Any]) -> Any:
        if isinstance(branch, Call) and isinstance(branch.op, GlobalVar):
            return self._named(branch.op, [self._value(a, values) for a in branch.args])
        return self._run(branch, dict(values))

    def _copied(self, slot: Slot) -> Slot:
        """A slot of its own with the same contents."""
        new = self._slot(slot.ty, None, slot.name)
        self._move(new, slot)
        return new

    def _move(self, target: Any, source: Any) -> None:
        """Copies a value slot by slot."""
        for to, what in zip(flat(target), flat(source), strict=True):
            self._use([what, to])
            self._step(MoveStep(to, what))

    def _hand_over(self, targets: list[Slot], found: list[Slot]) -> None:
        """Makes `targets` hold what was found: written there at once where nothing stands against it, else moved."""
        first = min(t.first for t in targets) if targets else 0
        for target, slot in zip(targets, found, strict=True):
            root = slot.root()
            fresh = root.storage is None and root.first >= first and root not in targets and root.first < self.at
            fresh = fresh and slot.whole()
            if fresh and self.loops == root.loops:
                root.base = target
                target.origins = target.origins or root.origins
            else:
                self._move(target, slot)

    def _loop(self, fn: Function, tail: If, args: list[Any]) -> Any:
        """state = args; while cond(state): state = step(state); the result is what the other branch gives."""
        again, leave = (tail.then, tail.orelse) if is_call(tail.then) else (tail.orelse, tail.then)
        assert isinstance(again, Call)
        moving = [k for k, (p, a) in enumerate(zip(fn.params, again.args, strict=True)) if a is not p]
        values: dict[Expr, Any] = dict(zip(fn.params, args, strict=True))
        for k in moving:
            values[fn.params[k]] = self._fresh(fn.params[k].ty, fn.params[k].name)
            self._move(values[fn.params[k]], args[k])
        cond = self._slot(tail.cond.ty, None)
        self._hand_over([cond], [self._run(tail.cond, dict(values))])
        start, known = self.at, len(self.slots)
        self.loops += 1
        body = self._inside(lambda: self._iteration(again, tail.cond, moving, fn, values, cond))
        self.loops -= 1
        for s in self.slots[:known]:  # what an iteration reads must live until the last one
            if s.root().last >= start:
                s.root().last = self.at
        self._step(LoopStep(cond, body))
        return self._run(leave, values)

    def _iteration(
        self, again: Call, cond: Expr, moving: list[int], fn: Function, values: dict[Expr, Any], flag: Slot
    ) -> None:
        """One round of a loop: the new state from the old, then whether there is another round."""
        inner = dict(values)
        states = [s for k in moving for s in flat(values[fn.params[k]])]
        new = [s for k in moving for s in flat(self._run(again.args[k], inner))]
        new = [self._copied(x) if x is not s and x.root() in states else x for x, s in zip(new, states, strict=True)]
        for state, slot in zip(states, new, strict=True):
            if slot is not state:
                self._move(state, slot)
        self._hand_over([flag], [self._run(cond, dict(values))])

    def _outputs(self, value: Any) -> list[Slot]:
        """Results of the function; each is written straight into the caller's tensor."""
        outs = list(value) if isinstance(value, list) else [value]
        for i, slot in enumerate(outs):
            if self.late.is_late(*slot.ty.shape):  # stays in the arena
                continue
            if slot.root().storage is not None or not slot.whole() or self.late.is_late(*slot.root().ty.shape):
                outs[i] = self._copied(slot)  # what a loop leaves may be an input or another output
            outs[i].root().storage = ("output", i)
        self._use(outs)
        return outs

    def _program(self, symbols: tuple[Symbol, ...], outputs: list[Slot], total: Any) -> Program:
        for i, s in enumerate(self.slots):
            s.number = i
        values = tuple(
            Value(
                s.number,
                dtype=s.ty.dtype,
                shape=tuple(to_shape_expr(d, self.symbols) for d in s.ty.shape),
                storage=storage_of(s),
                name=s.name,
                origins=s.origins,
                strides=tuple(to_shape_expr(d, self.symbols) for d in s.strides or ()),
            )
            for s in self.slots
        )
        body = (*self.checks, *self._body(self.steps))
        ins = tuple(Port(n, s.number) for n, s in zip(self.input_names, self.inputs, strict=True))
        outs = tuple(Port(n, s.number) for n, s in zip(self.output_names, outputs, strict=True))
        return Program("main", ins, outs, values, body, (*symbols, *self.places), total)

    def _checks(self) -> list[Check]:
        """What the compiled code takes for granted of sizes, checked before anything runs: some are at least 1, they
        are equal where an operator's type needs it, and as the importer assumed.
        """
        found: dict[Any, str] = {
            ("ge", name, 1): f"size {name} is at least 1: the model takes elements out of it"
            for size, name in self.symbols.items()
            if dims.is_positive(size)
        }
        for fn in [p for f in self.mod.functions.values() for p in primitives(f)] if self.symbols else ():
            for a, b, message in self._equalities(fn)[0]:
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
        if isinstance(step, MoveStep):
            return Move(step.target.number, step.source.number)
        if isinstance(step, ExternalStep):
            ports = [tuple(s.number for s in group) for group in (step.operands, step.results)]
            return CallExternal(step.function, ports[0], ports[1], step.options)
        if isinstance(step, BranchStep):
            return Branch(("load", step.cond.number, 0), self._body(step.then), self._body(step.orelse))
        if isinstance(step, LoopStep):
            self.loops += 1
            return Loop(f"_iteration{self.loops}", -1, ("load", step.cond.number, 0), self._body(step.body))
        sizes = tuple(to_shape_expr(step.own.get(v, v), self.symbols) for v in step.kernel.dims)
        args = tuple(s.number for s in [*step.operands, *step.results])
        gone = tuple(s.number for s in step.donates)
        return CallKernel(step.kernel.symbol, args, sizes, gone, tuple(s.number for s in step.results))
