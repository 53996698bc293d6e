"""What is done once every stage has its place: tensor intrinsics, prefetches, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warpbeam.te.schedule import axis as ax
from warpbeam.te.schedule.errors import require
from warpbeam.te.schedule.stage import INLINE
from warpbeam.te.tensor_compute import TensorComputeOp

if TYPE_CHECKING:
    from warpbeam.te.schedule.lower import Walk
    from warpbeam.te.schedule.stage import Stage


def finish(walk: Walk) -> None:
    """Applies what depends on the whole program."""
    for stage in walk.te.stages:
        if stage not in walk.blocks or stage.attach_type == INLINE:
            continue
        _storage(walk, stage)
        for axis, attr in stage.iter_var_attrs.items():
            if attr.prefetch_data:
                _prefetch(walk, stage, axis, attr)
    for stage in reversed(walk.te.stages):
        for axis, attr in stage.iter_var_attrs.items():
            if attr.tensor_intrin is not None and axis in walk.loops[stage].names:
                walk.sch.tensorize(walk.loops[stage].names[axis], attr.tensor_intrin)
        if isinstance(stage.op, TensorComputeOp) and stage in walk.blocks:
            _tensor_compute(walk, stage, stage.op)


def _tensor_compute(walk: Walk, stage: Stage, op: TensorComputeOp) -> None:
    """An operation that is a call of an intrinsic: its axes go innermost and become the intrinsic."""
    names = walk.loops[stage].names
    inner = [names[a] for a in op.inner_axes if a in names]
    own = [n for n in walk.sch.loops(walk.blocks[stage]) if n in names.values()]
    wanted = [*[n for n in own if n not in inner], *inner]
    if own != wanted:
        walk.sch.reorder(*wanted)
    walk.sch.tensorize(inner[0] if inner else walk.blocks[stage], op.intrin)


def _storage(walk: Walk, stage: Stage) -> None:
    block = walk.blocks[stage]
    for k, axis in enumerate(getattr(stage.op, "axis", ())):
        attr = stage.iter_var_attrs.get(axis)
        if attr is not None and attr.dim_align_factor:
            walk.sch.storage_align(block, k, attr.dim_align_factor, attr.dim_align_offset)
    if stage.double_buffer_on:
        walk.sch.double_buffer(block)
    if stage.rolling_buffer_on:
        walk.sch.rolling_buffer(block)


def _prefetch(walk: Walk, stage: Stage, axis: Any, attr: ax.IterVarAttr) -> None:
    loop = walk.loop(stage, axis)
    for tensor, offset in zip(attr.prefetch_data, attr.prefetch_offset, strict=True):
        source = walk.te.tensor(tensor) if tensor in walk.te else tensor
        require(source in walk.buffers, f"{source.name}, to be prefetched, is not part of the program")
        walk.sch.prefetch(loop, walk.buffers[source].name, offset)
