"""The way of a scheduled program to kernels of a GPU: a list to be read aloud."""

from __future__ import annotations

from collections.abc import Callable

from warpbeam.target import Target
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.stmt import Allocate, For, PrimFunc, SeqStmt, Stmt
from warpbeam.tir.transform.compact_buffers import compact_buffers
from warpbeam.tir.transform.expand_loops import expand_loops
from warpbeam.tir.transform.form_fma import form_fma
from warpbeam.tir.transform.gpu.common import is_thread
from warpbeam.tir.transform.gpu.hoist_shared import hoist_shared
from warpbeam.tir.transform.gpu.infer_scopes import infer_scopes
from warpbeam.tir.transform.gpu.lower_thread_allreduce import lower_thread_allreduce
from warpbeam.tir.transform.gpu.make_allreduce import make_allreduce
from warpbeam.tir.transform.gpu.split_host_device import split_host_device
from warpbeam.tir.transform.gpu.thread_sync import thread_sync
from warpbeam.tir.transform.gpu.unify_threads import unify_threads
from warpbeam.tir.transform.gpu.verify_gpu_code import verify_gpu_code
from warpbeam.tir.transform.inject_virtual_thread import inject_virtual_thread
from warpbeam.tir.transform.lift_workspace import lift_workspace
from warpbeam.tir.transform.lower_blocks import lower_blocks
from warpbeam.tir.transform.lower_init import lower_init
from warpbeam.tir.transform.place_allocations import place_allocations
from warpbeam.tir.transform.verify_memory import verify_memory

Pass = Callable[[PrimFunc], PrimFunc]


def passes(target: Target) -> tuple[Pass, ...]:
    """The passes before host and device part."""
    return (
        make_allreduce,  # reductions over threads become a part per thread and a combination
        lower_init,
        place_allocations,
        infer_scopes,
        keep_axes,  # so that an axis of one thread is still seen
        lower_blocks,
        unify_threads,
        lower_blocks,  # what unified threads decide is simplified
        compact_buffers,
        inject_virtual_thread,
        unroll_marks,
        expand_loops,
        *([form_fma] if target.fma else []),
        lambda func: lower_thread_allreduce(func, target),
        hoist_shared,
        lower_blocks,
        thread_sync,
    )


def lower_device(func: PrimFunc, target: Target) -> PrimFunc:
    """The program with its kernels in place, each a nest of hardware axes with barriers; raises as `lower_gpu`."""
    for run in passes(target):
        func = run(func)
    return func


def lower_gpu(func: PrimFunc, target: Target) -> tuple[PrimFunc, list[PrimFunc]]:
    """The host function of a scheduled program, and its kernels.

    Raises:
        LowerError: for programs that are no kernels, or kernels that the target cannot run.
    """
    host, devices = split_host_device(verify_memory(lift_workspace(lower_device(func, target))))
    return host, [verify_gpu_code(d, target) for d in devices]


def keep_axes(func: PrimFunc) -> PrimFunc:
    """Hardware loops of one iteration are marked, so that simplification does not drop them."""

    def change(s: For) -> Stmt:
        if not is_thread(s):
            return s
        notes = s.annotations.updated(joined=s.thread)
        return For(s.var, s.min, s.extent, s.kind, s.body, notes, s.thread)

    return PrimFunc(func.name, func.params, _loops(func.body, change), func.attrs)


def unroll_marks(func: PrimFunc) -> PrimFunc:
    """Unrolled loops stay loops, with the note "pragma_unroll": compilers for GPUs unroll them."""

    def change(s: For) -> Stmt:
        if s.kind != "unrolled":
            return s
        return For(s.var, s.min, s.extent, "serial", s.body, s.annotations.updated(pragma_unroll=True))

    return PrimFunc(func.name, func.params, _loops(func.body, change), func.attrs)


def _loops(s: Stmt, change: Callable[[For], Stmt]) -> Stmt:
    if isinstance(s, Allocate):
        return Allocate(s.buffer, _loops(s.body, change), s.annotations)
    below = kids(s)
    if below:
        s = with_kids(s, [_loops(c, change) for c in below]) or SeqStmt(())
    return change(s) if isinstance(s, For) else s
