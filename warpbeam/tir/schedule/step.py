"""What every schedule primitive is: a frozen record that turns one loop program into another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.names import fresh_name
from warpbeam.ir.node import Attrs
from warpbeam.tir.analysis.tree import Place, Tree
from warpbeam.tir.expr import Buffer, PrimExpr, Var
from warpbeam.tir.stmt import Block, For, IterVar, PrimFunc, Stmt


@dataclass(frozen=True, slots=True)
class Step(ABC):
    """One primitive with its arguments. `apply` gives the new program or raises ScheduleError; it changes nothing."""

    def apply(self, func: PrimFunc) -> PrimFunc:
        """The program after this step."""
        return self.run(func)[0]

    @abstractmethod
    def run(self, func: PrimFunc) -> tuple[PrimFunc, Any]:
        """The program after this step, and the names the step made."""


class Namer:
    """Fresh names for loops, blocks and buffers of one program."""

    def __init__(self, tree: Tree) -> None:
        self.loops = set(tree.loops) | {p.name for p in tree.func.params if isinstance(p, Var)}
        self.blocks = set(tree.blocks)
        self.buffers = set(tree.buffers)

    def loop(self, base: str) -> str:
        return fresh_name(base, self.loops)

    def block(self, base: str) -> str:
        return fresh_name(base, self.blocks)

    def buffer(self, base: str) -> str:
        return fresh_name(base, self.buffers)


def nest(loops: list[For], body: Stmt) -> Stmt:
    """`body` inside copies of the given loops, outer first."""
    for f in reversed(loops):
        body = For(f.var, f.min, f.extent, f.kind, body, f.annotations, f.thread)
    return body


def serial(var: Var, extent: PrimExpr | int, body: Stmt) -> Stmt:
    """A serial loop from 0."""
    return For(var, 0, extent, "serial", body)


def full_nest(block: Block, namer: Namer) -> Stmt:
    """The block under fresh serial loops over all its axes."""
    loop_vars = [Var(namer.loop(a.var.name)) for a in block.axes]
    stmt: Stmt = Block(block.name, block.axes, loop_vars, True, block.init, block.body, block.annotations)
    for axis, v in zip(reversed(block.axes), reversed(loop_vars), strict=True):
        stmt = serial(v, axis.extent, stmt)
    return stmt


def copy_block(name: str, source: Buffer, target: Buffer) -> Block:
    """A block that copies every element of one buffer to another of the same shape (bindings still to be made)."""
    from warpbeam.tir.expr import BufferLoad
    from warpbeam.tir.stmt import BufferStore

    axes = tuple(IterVar(Var(f"i{k}"), d) for k, d in enumerate(source.shape))
    index = tuple(a.var for a in axes)
    body = BufferStore(target, BufferLoad(source, index), index)
    return Block(name, axes, index, True, None, body, Attrs())


def top_nest(place: Place) -> Place:
    """The outermost statement around a place that is not a sequence: the nest it belongs to."""
    top = place
    for p in place.ancestors():
        if isinstance(p.stmt, For):
            top = p
    return top
