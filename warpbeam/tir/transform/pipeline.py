"""The way from a scheduled program to one that a code generator prints: a list to be read aloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.dtype import SMALL_FLOATS, SMALL_INTS
from warpbeam.ir.transform import PassContext
from warpbeam.tir.mathlib import FUNCTIONS
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform.accumulate_registers import accumulate_registers
from warpbeam.tir.transform.alternate_loops import alternate_loops
from warpbeam.tir.transform.bypass_caches import bypass_caches, possible
from warpbeam.tir.transform.byte_bools import byte_bools
from warpbeam.tir.transform.byte_small_types import byte_small_types
from warpbeam.tir.transform.common_subexpr_elim import KEY as CSE
from warpbeam.tir.transform.common_subexpr_elim import common_subexpr_elim
from warpbeam.tir.transform.compact_buffers import compact_buffers
from warpbeam.tir.transform.decide_conditions import decide_conditions
from warpbeam.tir.transform.drop_nan_tests import TEST, drop_nan_tests
from warpbeam.tir.transform.expand_loops import expand_loops
from warpbeam.tir.transform.expand_math import IN_STEPS, expand_math
from warpbeam.tir.transform.flatten_strides import flatten_strides
from warpbeam.tir.transform.form_fma import form_fma
from warpbeam.tir.transform.hoist_if_then_else import hoist_if_then_else
from warpbeam.tir.transform.inject_double_buffer import inject_double_buffer
from warpbeam.tir.transform.inject_prefetch import inject_prefetch
from warpbeam.tir.transform.inject_rolling_buffer import inject_rolling_buffer
from warpbeam.tir.transform.inject_software_pipeline import inject_software_pipeline
from warpbeam.tir.transform.inject_virtual_thread import inject_virtual_thread
from warpbeam.tir.transform.inside_versions import MARK as INSIDE
from warpbeam.tir.transform.inside_versions import inside_versions
from warpbeam.tir.transform.instrument_bound_checkers import KEY as BOUNDS
from warpbeam.tir.transform.instrument_bound_checkers import instrument_bound_checkers
from warpbeam.tir.transform.legalize_floats import bf16_compute_legalize, fp8_compute_legalize
from warpbeam.tir.transform.lift_workspace import lift_workspace
from warpbeam.tir.transform.loop_partition import loop_partition
from warpbeam.tir.transform.lower_init import lower_init
from warpbeam.tir.transform.merge_loops import merge_loops
from warpbeam.tir.transform.merge_parallel import merge_parallel
from warpbeam.tir.transform.peel_tails import peel_tails
from warpbeam.tir.transform.place_allocations import place_allocations
from warpbeam.tir.transform.promote_registers import promote_registers, unroll_tiles
from warpbeam.tir.transform.reduce_lanes import reduce_lanes
from warpbeam.tir.transform.remove_no_op import drop_asserts, remove_no_op
from warpbeam.tir.transform.rewrite_unsafe_select import rewrite_unsafe_select
from warpbeam.tir.transform.setting import Setting, survey
from warpbeam.tir.transform.simplify import simplify_program
from warpbeam.tir.transform.storage_rewrite import storage_rewrite
from warpbeam.tir.transform.transpose_blocks import transpose_blocks
from warpbeam.tir.transform.unroll_pragmas import asked, unroll_pragmas
from warpbeam.tir.transform.verify import verify

Body = Callable[[PrimFunc, Setting], PrimFunc]


@dataclass(frozen=True, slots=True)
class Entry:
    """One pass of the list: its public name, what it does, and whether a program gives it something to do."""

    name: str
    run: Body
    when: Callable[[Setting], bool]


def _one(run: Callable[[PrimFunc], PrimFunc]) -> Body:
    return lambda func, at: run(func)


def _always(at: Setting) -> bool:
    return True


def _seen(*wanted: str) -> Callable[[Setting], bool]:
    """The program contains one of these (see `survey`)."""
    return lambda at: not at.seen.isdisjoint(wanted)


def _small_types(at: Setting) -> bool:
    return any(f"dtype:{t}" in at.seen for t in (*SMALL_FLOATS, *SMALL_INTS))


BLOCKS: tuple[Entry, ...] = (  # blocks become loops, buffers get their places and sizes
    Entry("tir.LowerInit", _one(lower_init), _seen("Block")),
    Entry("tir.PlaceAllocations", _one(place_allocations), _seen("Block")),
    Entry("tir.LowerBlocks", simplify_program, _always),
    Entry("tir.InjectRollingBuffer", inject_rolling_buffer, _seen("note:rolling_buffer")),
    Entry("tir.CompactBuffers", _one(compact_buffers), _seen("Block")),
    Entry("tir.FlattenStrides", _one(flatten_strides), _always),
)
LOOPS: tuple[Entry, ...] = (  # loops get the form in which they run
    Entry("tir.RewriteUnsafeSelect", rewrite_unsafe_select, _seen("Select")),
    Entry("tir.BF16ComputeLegalize", bf16_compute_legalize, lambda at: at.on_device and "dtype:bfloat16" in at.seen),
    Entry("tir.FP8ComputeLegalize", fp8_compute_legalize, _small_types),
    Entry("tir.ByteSmallTypes", byte_small_types, _small_types),
    Entry("tir.ByteBools", _one(byte_bools), lambda at: at.kind == "llvm" and "dtype:bool" in at.seen),
    Entry("tir.InjectPrefetch", inject_prefetch, _seen("note:prefetch")),
    Entry("tir.InjectVirtualThread", inject_virtual_thread, _seen("thread:vthread", "thread:cthread")),
    Entry("tir.InjectSoftwarePipeline", inject_software_pipeline, _seen("note:software_pipeline_stage")),
    Entry("tir.InjectDoubleBuffer", inject_double_buffer, _seen("note:double_buffer")),
    Entry("tir.MergeLoops", _one(merge_loops), _seen("note:together")),
    Entry("tir.LoopPartition", loop_partition, _seen("call:likely")),
    Entry("tir.HoistIfThenElse", hoist_if_then_else, _seen("If")),
    Entry("tir.PeelTails", _one(peel_tails), _always),
    Entry("tir.AlternateLoops", _one(alternate_loops), _seen("note:alternate")),
    Entry("tir.DisableAssert", _one(drop_asserts), lambda at: at.flag("tir.disable_assert")),
    Entry("tir.RemoveNoOp", remove_no_op, _always),
    Entry("tir.StorageRewrite", storage_rewrite, lambda at: not at.flag("tir.disable_storage_rewrite")),
    Entry("tir.InstrumentBoundCheckers", instrument_bound_checkers, lambda at: at.flag(BOUNDS)),
)
EXPANSION: tuple[Entry, ...] = (  # loops become vectors and straight code, tiles become registers
    Entry("tir.ReduceLanes", _one(reduce_lanes), _always),
    Entry("tir.FormFma", _one(form_fma), lambda at: getattr(at.target, "fma", True)),
    Entry("tir.MergeParallel", _one(merge_parallel), _seen("note:joined")),
    Entry("tir.UnrollPragmas", unroll_pragmas, asked),
    Entry("tir.UnrollTiles", unroll_tiles, lambda at: not at.on_device),
    Entry("tir.ExpandLoops", expand_loops, _always),
    Entry("tir.TransposeBlocks", _one(transpose_blocks), lambda at: not at.on_device),
    Entry("tir.DecideConditions", decide_conditions, _seen("call:if_then_else")),
    Entry("tir.InsideVersions", _one(inside_versions), _seen(f"note:{INSIDE}")),
    Entry("tir.PromoteRegisters", promote_registers, lambda at: not at.on_device),
    Entry("tir.AccumulateRegisters", accumulate_registers, lambda at: not at.on_device),
)
FINISH: tuple[Entry, ...] = (  # what code generators rely on
    Entry("tir.CommonSubexprElimTIR", common_subexpr_elim, lambda at: at.config.get(CSE) is False),
    Entry("tir.DropNanTests", _one(drop_nan_tests), _seen(f"call:{TEST}")),
    Entry("tir.ExpandMath", expand_math, _seen(*(f"call:{f}" for f in (*FUNCTIONS, *IN_STEPS)))),
    Entry("tir.LiftWorkspace", _one(lift_workspace), _always),
    Entry("tir.BypassCaches", bypass_caches, lambda at: possible(at.target)),
    Entry("tir.Verify", _one(verify), _always),
)
PHASES: tuple[tuple[Entry, ...], ...] = (BLOCKS, LOOPS, EXPANSION, FINISH)
PASSES: tuple[Entry, ...] = tuple(p for phase in PHASES for p in phase)


def lower(func: PrimFunc, target: Any = None, config: Mapping[str, Any] | None = None) -> PrimFunc:
    """The program as plain loops over small buffers and vectors; see PHASES.

    `target` is a Target or None; one without fma (`target.fma` false) keeps products and sums apart. `config`: keys
    of PassContext, by default those of the current one, whose disabled passes are left out. Passes given as
    "tir.add_lower_pass" (a list of (phase, pass)) run before the first phase (0) or after phase 1, 2, ….
    Raises LowerError.
    """
    return _run(func, PHASES, target, config)


def lower_simple(func: PrimFunc, target: Any = None, config: Mapping[str, Any] | None = None) -> PrimFunc:
    """The program as loops, with buffers placed and compacted and nothing else done: for reading."""
    return _run(func, PHASES[:1], target, config)


def lower_loops(func: PrimFunc, target: Any = None, config: Mapping[str, Any] | None = None) -> PrimFunc:
    """The program with its vectors and straight code made, but functions and workspaces as written: for reading."""
    return _run(func, PHASES[:-1], target, config)


def _run(func: PrimFunc, phases: tuple[tuple[Entry, ...], ...], target: Any, config: Any) -> PrimFunc:
    ctx = PassContext.current()
    at = Setting(target, ctx.config if config is None else config, survey(func))
    if at.config.get("tir.noalias") is False:
        func = func.replace(attrs=func.attrs.updated(noalias=False))
    extra = _user_passes(at.config.get("tir.add_lower_pass", ()))
    watched = bool(ctx.instruments or ctx.events)
    for number, phase in enumerate(phases):
        if extra:
            func = _apply(func, extra.get(number, ()))
            at = replace(at, seen=at.seen | survey(func))
        for entry in phase:
            if entry.name in ctx.disabled_pass or not entry.when(at):
                continue
            func = _watched(entry, func, at) if watched else entry.run(func, at)
    return _apply(func, [p for k, ps in extra.items() if k >= len(phases) for p in ps])


def _watched(entry: Entry, func: PrimFunc, at: Setting) -> PrimFunc:
    """As a pass object, so that instruments and listeners see it."""
    from warpbeam.ir.transform import FunctionalPass, PassInfo

    run = FunctionalPass(lambda f, ctx: entry.run(f, at), PassInfo(0, entry.name))
    return run(func)  # type: ignore[no-any-return]


def _user_passes(given: Any) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for item in given or ():
        if not (isinstance(item, tuple | list) and len(item) == 2 and callable(item[1])):
            raise LowerError(
                f"tir.add_lower_pass holds {item!r}", hint="give a list of (phase, pass), e.g. [(1, my_pass)]"
            )
        found.setdefault(int(item[0]), []).append(item[1])
    return found


def _apply(func: PrimFunc, passes: Any) -> PrimFunc:
    for p in passes:
        new = p(func)
        if not isinstance(new, PrimFunc):
            raise LowerError(f"pass {getattr(p, 'info', p)!r} returned a {type(new).__name__}, not a PrimFunc")
        func = new
    return func
