"""Writes out how the threads of a group combine their values: by shuffles in a warp, else by a tree in shared memory.

    thread_allreduce: B_all[0] = sum over tx in 64 of B_part[0]
    ->
    red[tx] = B_part[0]
    if tx < 32: red[tx] = red[tx] + red[tx + 32]
    …
    if tx < 1: red[tx] = red[tx] + red[tx + 1]
    B_all[0] = red[0]

Barriers are put between the steps by `thread_sync`. A group is the threads that differ only in the axes reduced over;
groups of one kernel run side by side, each in its own row of `red`. All threads have the result. Where the device
shuffles and a group is a warp or an aligned part of one, values go from lane to lane without memory.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import substitute
from warpbeam.target import Target
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.expr import Buffer, BufferLoad, Call, PrimExpr, Var
from warpbeam.tir.stmt import Allocate, BufferStore, Evaluate, For, IfThenElse, LetStmt, PrimFunc, SeqStmt, Stmt, seq
from warpbeam.tir.transform.gpu.common import is_block_axis, map_kernels, nest_of
from warpbeam.tir.transform.mutate import peel, wrap


def lower_thread_allreduce(func: PrimFunc, target: Target) -> PrimFunc:
    """The function without `thread_allreduce`.

    Raises:
        LowerError: if the number of threads of a group is no number.
    """
    allocs, body = peel(func.body)
    return PrimFunc(
        func.name,
        func.params,
        wrap(allocs, map_kernels(body, lambda k: _Kernel(k, target, func.name).made())),
        func.attrs,
    )


def is_allreduce(s: Any) -> bool:
    return isinstance(s, Evaluate) and isinstance(s.value, Call) and s.value.op == "thread_allreduce"


class _Kernel:
    def __init__(self, kernel: For, target: Target, name: str) -> None:
        loops, _, _ = nest_of(kernel)
        self.kernel, self.target, self.name = kernel, target, name
        self.axes = {f.var: e.const_int(f.extent) for f in loops if not is_block_axis(f.thread)}
        self.buffers: dict[tuple[int, str, int], Buffer] = {}
        self.divergent = False

    def made(self) -> Stmt:
        return self.stmt(self.kernel) or SeqStmt(())

    def stmt(self, s: Any) -> Stmt | None:
        if is_allreduce(s):
            return self._reduce(s.value)
        below = kids(s)
        if not below:
            return s  # type: ignore[no-any-return]
        old = self.divergent
        if isinstance(s, IfThenElse | For) and free_vars(s.cond if isinstance(s, IfThenElse) else s.extent) & set(
            self.axes
        ):
            self.divergent = True
        new = [self.stmt(c) for c in below]
        self.divergent = old
        return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new)

    def _reduce(self, call: Call) -> Stmt:
        n = e.const_int(call.args[0])
        assert n is not None
        groups = [call.args[1 + k * n : 1 + (k + 1) * n] for k in range(5)]
        parts, places, x, y, combined = groups
        # an axis of one thread is a literal by now
        over = [v for v in self.axes if any(v in free_vars(t) for t in call.args[1 + 5 * n :])]
        if any(s is None for s in self.axes.values()):
            raise LowerError(
                f"a reduction over threads of {self.name} needs extents of threadIdx that are numbers",
                hint="split the axis by a constant and bind the inner loop",
            )
        group = _Group(over, {v: k or 1 for v, k in self.axes.items()}, x, y, combined)
        if not over:
            return seq(*[BufferStore(p.buffer, v, p.indices) for p, v in zip(places, parts, strict=True)])  # type: ignore[attr-defined]
        if not self.divergent and group.in_warp(self.target):
            return group.shuffled(parts, places)
        return group.tree(parts, places)


class _Group:
    """Threads that reduce together. `lane`: number in the group, `row`: number of the group, `size`, `rows`."""

    def __init__(self, over: list[Var], axes: dict[Var, int], x: Any, y: Any, combined: Any) -> None:
        self.axes, self.x, self.y, self.combined = axes, x, y, combined
        self.over = over
        self.size = self.rows = 1
        self.lane: PrimExpr = e.const(0)
        self.row: PrimExpr = e.const(0)
        for v, n in axes.items():  # x is the fastest axis of the hardware
            if v in over:
                self.lane = self.lane + v * self.size
                self.size *= n
            else:
                self.row = self.row + v * self.rows
                self.rows *= n

    def both(self, x: list[PrimExpr], y: list[PrimExpr]) -> list[PrimExpr]:
        table: dict[Any, Any] = dict(zip([*self.x, *self.y], [*x, *y], strict=True))
        return [substitute(c, table) for c in self.combined]

    def in_warp(self, target: Target) -> bool:
        """Whether each group is an aligned part of a warp, whose threads are all there."""
        threads = self.size * self.rows
        first = list(self.axes)[: len(self.over)]
        return (
            target.warp_shuffle
            and set(first) == set(self.over)
            and self.size & (self.size - 1) == 0
            and self.size <= target.warp_size
            and (threads % target.warp_size == 0 or threads < target.warp_size)
        )

    def shuffled(self, parts: Any, places: Any) -> Stmt:
        """
        v = part;  v = v + shuffle_down(v, 16);  …;  v = shuffle(v, 0)
        """
        values: list[PrimExpr] = list(parts)
        lets: list[tuple[Var, PrimExpr]] = []
        mask = min(self.size * self.rows, 32)
        step = self.size // 2

        def named(found: list[PrimExpr], hint: str) -> list[PrimExpr]:
            names = [Var(f"{hint}{k}", v.dtype) for k, v in enumerate(found)]
            lets.extend(zip(names, found, strict=True))
            return list(names)

        values = named(values, "red")
        while step:
            other = [Call(v.dtype, "warp_shuffle_down", (v, step, self.size), {"threads": mask}) for v in values]
            values = named(self.both(values, named(list(other), "t")), "red")
            step //= 2
        values = [Call(v.dtype, "warp_shuffle", (v, 0, self.size), {"threads": mask}) for v in values]
        values = named(list(values), "all")
        body = seq(*[BufferStore(p.buffer, v, p.indices) for p, v in zip(places, values, strict=True)])
        for var, value in reversed(lets):
            body = LetStmt(var, value, body)
        return body

    def tree(self, parts: Any, places: Any) -> Stmt:
        """The tree in shared memory."""
        red = [Buffer(f"red_{p.buffer.name}", (self.rows, self.size), p.buffer.dtype, "shared") for p in places]
        own = [BufferLoad(b, (self.row, self.lane)) for b in red]
        steps: list[Stmt] = [BufferStore(b, p, (self.row, self.lane)) for b, p in zip(red, parts, strict=True)]
        half = 1 << (self.size.bit_length() - 1)
        if half < self.size:
            steps.append(self._fold(red, own, half, self.size - half))
        half //= 2
        while half:
            steps.append(self._fold(red, own, half, half))
            half //= 2
        steps += [
            BufferStore(p.buffer, BufferLoad(b, (self.row, e.const(0))), p.indices)
            for p, b in zip(places, red, strict=True)
        ]
        body = seq(*steps)
        for b in reversed(red):
            body = Allocate(b, body)
        return body

    def _fold(self, red: list[Buffer], own: Any, distance: int, active: int) -> Stmt:
        other = [BufferLoad(b, (self.row, self.lane + distance)) for b in red]
        found = self.both(own, list(other))
        if len(red) == 1:
            return IfThenElse(self.lane < active, BufferStore(red[0], found[0], (self.row, self.lane)))
        names = [Var(f"r{k}", v.dtype) for k, v in enumerate(found)]
        body = seq(*[BufferStore(b, v, (self.row, self.lane)) for b, v in zip(red, names, strict=True)])
        for var, value in reversed(list(zip(names, found, strict=True))):
            body = LetStmt(var, value, body)
        return IfThenElse(self.lane < active, body)
