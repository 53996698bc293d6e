"""Padding: a sum of products over axes made longer, so that tiles divide them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, as_block, plain_axes, writers
from warpbeam.tir.analysis.tree import Place, tree_of
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var
from warpbeam.tir.schedule.legal import check_computed, loops_at_once
from warpbeam.tir.schedule.step import Namer, Step, copy_block, full_nest, top_nest
from warpbeam.tir.stmt import Block, BufferStore, IterVar, PrimFunc, seq


@dataclass(frozen=True, slots=True)
class PadEinsum(Step):
    """Makes the axes of a sum of products multiples of `padding`; operands and result go through padded copies.

    C[i, j] += A[i, k] * B[k, j]          A_pad[i, k] = A[i, k] if inside else 0;  the same for B
    with padding (16, 16, 4)       ->     C_pad[i, j] += A_pad[i, k] * B_pad[k, j]
                                          C[i, j] = C_pad[i, j]

    `padding` has one number per axis of the block. Gives the names of the blocks it made.
    """

    block: str
    padding: tuple[int, ...]

    def run(self, func: PrimFunc) -> tuple[PrimFunc, tuple[str, ...]]:
        tree = tree_of(func)
        place = tree.block(self.block)
        block = as_block(place)
        store = self._check(place)
        if len(writers(tree, store.buffer)) > 1 or len(tree.blocks_below(top_nest(place))) > 1:
            raise ScheduleError(f"pad_einsum: {self.block} shares its loops or its result", hint="do it first")
        sizes = {a.var: e.const_int(a.extent) or 0 for a in block.axes}
        longer = {a.var: -(-sizes[a.var] // p) * p for a, p in zip(block.axes, self.padding, strict=True)}
        namer = Namer(tree)
        names, before, mapping = [], [], {}
        for old in dict.fromkeys(n.buffer for n in accesses(store.value)[0]):
            if old is store.buffer:
                continue
            load = next(n for n in accesses(store.value)[0] if n.buffer is old)
            shape = tuple(longer[i] for i in load.indices if isinstance(i, Var))
            if shape != old.shape:
                mapping[old] = Buffer(namer.buffer(f"{old.name}_pad"), shape, old.dtype)
                made = _padding(namer.block(f"{old.name}_pad"), old, mapping[old])
                names.append(made.name)
                before.append(full_nest(made, namer))
        after = None
        shape = tuple(longer[i] for i in store.indices if isinstance(i, Var))
        if shape != store.buffer.shape:
            mapping[store.buffer] = Buffer(namer.buffer(f"{store.buffer.name}_pad"), shape, store.buffer.dtype)
            name = namer.block(f"{self.block}_unpad")
            copy = copy_block(name, store.buffer, store.buffer)
            load = BufferLoad(mapping[store.buffer], tuple(a.var for a in copy.axes))
            copy = copy.replace(body=BufferStore(store.buffer, load, load.indices))
            names.append(name)
            after = full_nest(copy, namer)
        middle = full_nest(_longer(block, longer, mapping), namer)
        body = tree.replace({top_nest(place): seq(*before, middle, after)})
        return tree.rebuild(body, add=tuple(mapping.values())), tuple(names)

    def _check(self, place: Place) -> BufferStore:
        block = as_block(place)
        check_computed(block, "pad_einsum")
        if len(self.padding) != len(block.axes) or any(p < 1 for p in self.padding):
            raise ScheduleError(
                f"pad_einsum of {self.block} by {self.padding}: {len(block.axes)} positive numbers are needed"
            )
        if loops_at_once(place):
            raise ScheduleError(f"pad_einsum: loops of {self.block} run at once already", hint="pad first")
        store = block.body
        if not isinstance(store, BufferStore) or plain_axes(block, store) is None or not _is_sum(block, store):
            raise ScheduleError(
                f"pad_einsum: block {self.block} is no sum of products C[…] += A[…] * B[…] over plain axes"
            )
        sizes = {a.var: e.const_int(a.extent) for a in block.axes}
        nodes: list[Any] = [store, *accesses(store.value)[0]]
        for n in nodes:
            dims = [sizes.get(i) if isinstance(i, Var) else None for i in n.indices]
            if None in dims or tuple(dims) != n.buffer.shape or len(set(n.indices)) != len(dims):
                raise ScheduleError(
                    f"pad_einsum: {n.buffer.name} is not indexed by plain axes of {self.block} over its whole shape"
                )
        used = {i for n in accesses(store.value)[0] if n.buffer is not store.buffer for i in n.indices}
        for a in block.axes:
            if a.kind == "reduce" and a.var not in used:
                raise ScheduleError(
                    f"pad_einsum: no operand moves with axis {a.var.name}, so padding would add to the sum"
                )
        return store


def _is_sum(block: Block, store: BufferStore) -> bool:
    own = BufferLoad(store.buffer, store.indices)
    if not isinstance(block.init, BufferStore) or type(store.value) is not e.Add:
        return False
    zero = block.init.value
    if not isinstance(zero, e.IntImm | e.FloatImm) or zero.value != 0:
        return False
    return any(
        acc is own and _is_product(value)
        for acc, value in ((store.value.a, store.value.b), (store.value.b, store.value.a))
    )


def _is_product(value: PrimExpr) -> bool:
    todo: list[Any] = [value]
    while todo:
        v = todo.pop()
        if type(v) is e.Mul:
            todo += [v.a, v.b]
        elif type(v) is e.Cast:
            todo.append(v.value)
        elif not isinstance(v, BufferLoad):
            return False
    return True


def _padding(name: str, old: Buffer, new: Buffer) -> Block:
    axes = tuple(IterVar(Var(f"i{k}"), d) for k, d in enumerate(new.shape))
    index = tuple(a.var for a in axes)
    inside = e.land(*[i < size for i, size, wide in zip(index, old.shape, new.shape, strict=True) if size != wide])
    value = e.if_then_else(inside, BufferLoad(old, index), e.const(0, old.dtype))
    return Block(name, axes, index, True, None, BufferStore(new, value, index))


def _longer(block: Block, sizes: dict[Var, int], mapping: dict[Buffer, Buffer]) -> Block:
    def change(n: Any) -> Any:
        if isinstance(n, BufferLoad) and n.buffer in mapping:
            return BufferLoad(mapping[n.buffer], n.indices)
        if isinstance(n, BufferStore) and n.buffer in mapping:
            return BufferStore(mapping[n.buffer], n.value, n.indices)
        return None

    axes = [IterVar(a.var, sizes[a.var], a.kind) for a in block.axes]
    assert block.init is not None
    init, body = rewrite(block.init, change), rewrite(block.body, change)
    return Block(block.name, axes, block.bindings, True, init, body, block.annotations)
