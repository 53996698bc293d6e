"""From fused groups to kernels: every distinct computation is scheduled and lowered once.

Two groups with the same computation, types and constness of operands share one kernel; its symbol is named by a
digest of that
computation, so that names, caches and artefacts do not depend on the order of work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from warpbeam.ir.structural import structural_hash
from warpbeam.relay.expr import Call, Constant, Expr, Function
from warpbeam.relay.op import Op
from warpbeam.sketch.base import Plan
from warpbeam.sketch.select import schedule
from warpbeam.target import Target
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import Buffer, Var
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform import lower
from warpbeam.transform.fuse_ops import group_tensors


@dataclass(slots=True)
class Kernel:
    """One compiled computation.

    func: lowered loop program. inputs, outputs: number of buffer parameters that are operands and results; the
    buffers after
    these are workspaces. layouts: operand number -> layout that the kernel expects of a constant operand.
    """

    symbol: str
    func: PrimFunc
    inputs: int
    outputs: int
    plan: Plan
    layouts: dict[int, Any] = field(default_factory=dict)
    flops: Any = 0

    @property
    def workspaces(self) -> list[Buffer]:
        return list(self.func.buffers[self.inputs + self.outputs :])

    @property
    def dims(self) -> list[Var]:
        return [p for p in self.func.params if isinstance(p, Var)]


@dataclass(slots=True)
class KernelSet:
    """Kernels by what they compute; `on_new` is called with each new kernel as soon as it is lowered."""

    target: Target
    on_new: Callable[[Kernel], None] | None = None
    kernels: dict[str, Kernel] = field(default_factory=dict)
    _by_function: dict[tuple[Function, frozenset[int]], Kernel] = field(default_factory=dict)

    def get(self, fn: Function, args: tuple[Expr, ...]) -> Kernel:
        """The kernel of a primitive function called with `args`."""
        constants = frozenset(i for i, a in enumerate(args) if isinstance(a, Constant))
        found = self._by_function.get((fn, constants))
        if found is None:
            found = self._by_function[fn, constants] = self._build(fn, constants)
        return found

    def _build(self, fn: Function, constants: frozenset[int]) -> Kernel:
        direct = _direct_prim(fn)
        if direct is not None:
            return self._finish(direct, fn, Plan(direct, "given"), len(fn.params), {})
        inputs, outputs = group_tensors(fn)
        plain = create_prim_func(inputs, outputs, "kernel")
        key = f"{structural_hash(plain)}:{sorted(constants)}"
        symbol = _symbol(key)
        if symbol in self.kernels:
            return self.kernels[symbol]
        names = frozenset(inputs[i].op.name for i in constants)
        plan = schedule(inputs, outputs, self.target, names, symbol)
        layouts = dict(plan.func.attrs.get("layouts", {}))
        numbered = {i: layouts[b.name] for i, b in enumerate(plain.buffers[: len(inputs)]) if b.name in layouts}
        return self._finish(plan.func.replace(name=symbol), fn, plan, len(inputs), numbered)

    def _finish(self, func: PrimFunc, fn: Function, plan: Plan, inputs: int, layouts: dict[int, Any]) -> Kernel:
        name = func.name
        if plan.sketch == "given":
            name = _symbol(structural_hash(func))
            if name in self.kernels:
                return self.kernels[name]
            func = func.replace(name=name)
        low = lower(func, self.target)
        outputs = len(fn.body.ty.fields) if hasattr(fn.body.ty, "fields") else 1
        kernel = Kernel(name, low, inputs, outputs, plan, layouts, _flops(fn))
        self.kernels[name] = kernel
        if self.on_new is not None:
            self.on_new(kernel)
        return kernel


def _symbol(key: str) -> str:
    import hashlib

    return "wb_" + hashlib.sha256(key.encode()).hexdigest()[:16]


def _direct_prim(fn: Function) -> PrimFunc | None:
    """The loop program of a group whose single operator gives one itself, else None."""
    call = fn.body
    if isinstance(call, Call) and isinstance(call.op, Op) and hasattr(call.op, "compute_prim"):
        from warpbeam.transform.fuse_ops import group_inputs

        by_param = dict(zip(fn.params, group_inputs(fn), strict=True))
        return call.op.compute_prim(call.attrs, [by_param[a] for a in call.args], call.ty)  # type: ignore[no-any-return]
    return None


def _flops(fn: Function) -> Any:
    from warpbeam.ir.rewrite import post_order

    total: Any = 0
    for n in post_order(fn.body):
        if isinstance(n, Call) and isinstance(n.op, Op):
            total = total + n.op.flops(n.attrs, [a.ty for a in n.args], n.ty)
    return total
