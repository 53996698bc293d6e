"""The passes as objects under their classic names, so that scripts can run one by itself or put their own in between.

mod = tir.transform.LoopPartition()(mod)                  # an IRModule or a PrimFunc

@tir.transform.prim_func_pass(opt_level=0)
def mine(func, mod, ctx): ...
with PassContext(config={"tir.add_lower_pass": [(1, mine)]}): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.transform import Pass, PassContext, PassInfo, _decorate
from warpbeam.target import Target
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform import pipeline as p
from warpbeam.tir.transform.common_subexpr_elim import common_subexpr_elim
from warpbeam.tir.transform.expand_loops import expand_loops
from warpbeam.tir.transform.narrow_data_type import narrow_data_type
from warpbeam.tir.transform.setting import Setting, survey
from warpbeam.tir.transform.simplify import simplify_program
from warpbeam.tir.transform.unroll_pragmas import unroll_pragmas
from warpbeam.tir.transform.verify_memory import verify_memory

Body = Callable[[PrimFunc, Any, PassContext], PrimFunc]


class PrimFuncPass(Pass):
    """A pass over loop programs: takes a PrimFunc, or a module, of which it changes all loop programs."""

    def __init__(self, body: Body, info: PassInfo) -> None:
        self.transform = body
        self.info = info

    def run(self, mod: Any, ctx: PassContext) -> Any:
        if isinstance(mod, PrimFunc):
            return self.transform(mod, None, ctx)
        if not hasattr(mod, "map"):
            raise IRError(f"pass {self.info.name} got a {type(mod).__name__}", hint="give a PrimFunc or an IRModule")
        return mod.map(lambda f: self.transform(f, mod, ctx) if isinstance(f, PrimFunc) else f)


def prim_func_pass(
    pass_func: Any = None, opt_level: int | None = None, name: str = "", required: Iterable[str] | None = None
) -> Any:
    """Decorator: `fn(func, mod, ctx) -> func`, or a class with `transform_function`, becomes a pass over loop programs.

    Raises ValueError without an opt_level.
    """
    return _decorate("function", PrimFuncPass, pass_func, opt_level, name, required)


def Apply(fn: Callable[[PrimFunc], PrimFunc]) -> Pass:
    """A pass that applies a function to each loop program."""
    return PrimFuncPass(lambda f, mod, ctx: fn(f), PassInfo(0, "Apply"))


def _setting(func: PrimFunc, ctx: PassContext) -> Setting:
    return Setting(func.attrs.get("target") or Target.current(), ctx.config, survey(func))


def _made(name: str, run: p.Body) -> Pass:
    return PrimFuncPass(lambda f, mod, ctx: run(f, _setting(f, ctx)), PassInfo(0, name))


def _classic(name: str, *entries: str) -> Callable[[], Pass]:
    """Makes the pass object of one or more entries of the pipeline."""
    bodies = [e.run for e in p.PASSES if e.name in (entries or (f"tir.{name}",))]
    assert bodies, name

    def run(func: PrimFunc, at: Setting) -> PrimFunc:
        for body in bodies:
            func = body(func, at)
        return func

    def make() -> Pass:
        return _made(f"tir.{name}", run)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"The pass tir.{name}; see its file."
    return make


LowerInitBlock = _classic("LowerInitBlock", "tir.LowerInit")
PlanAndUpdateBufferAllocationLocation = _classic("PlanAndUpdateBufferAllocationLocation", "tir.PlaceAllocations")
ConvertBlocksToOpaque = _classic("ConvertBlocksToOpaque", "tir.LowerBlocks")
LowerOpaqueBlock = _classic("LowerOpaqueBlock", "tir.LowerBlocks")
CompactBufferAllocation = _classic("CompactBufferAllocation", "tir.CompactBuffers")
InjectRollingBuffer = _classic("InjectRollingBuffer")
InjectPrefetch = _classic("InjectPrefetch")
InjectVirtualThread = _classic("InjectVirtualThread")
InjectDoubleBuffer = _classic("InjectDoubleBuffer")
InjectSoftwarePipeline = _classic("InjectSoftwarePipeline")
LoopPartition = _classic("LoopPartition")
HoistIfThenElse = _classic("HoistIfThenElse")
RemoveNoOp = _classic("RemoveNoOp")
RewriteUnsafeSelect = _classic("RewriteUnsafeSelect")
StorageRewrite = _classic("StorageRewrite")
BF16ComputeLegalize = _classic("BF16ComputeLegalize")
FP8ComputeLegalize = _classic("FP8ComputeLegalize")
InstrumentBoundCheckers = _classic("InstrumentBoundCheckers")
LowerIntrin = _classic("LowerIntrin", "tir.ExpandMath")


def CommonSubexprElimTIR(enable_cse_tir: bool = True) -> Pass:
    """Names for index arithmetic that loops repeat."""
    return _made("tir.CommonSubexprElimTIR", lambda f, at: common_subexpr_elim(f, at) if enable_cse_tir else f)


def Simplify() -> Pass:
    """Index arithmetic in normal form, conditions that ranges decide decided."""
    return _made("tir.Simplify", simplify_program)


def VectorizeLoop(enable_vectorize: bool = True) -> Pass:
    """Vectorized loops become vectors, or serial loops where that is off."""

    def run(func: PrimFunc, at: Setting) -> PrimFunc:
        config = at.config if enable_vectorize else {**at.config, "tir.disable_vectorize": True}
        return expand_loops(func, Setting(at.target, config, at.seen), ("vectorized",))

    return _made("tir.VectorizeLoop", run)


def UnrollLoop() -> Pass:
    """Unrolled loops, and those that pragmas or the configuration ask for, become straight code."""
    return _made("tir.UnrollLoop", lambda f, at: expand_loops(unroll_pragmas(f, at), at, ("unrolled",)))


def NarrowDataType(target_bits: int = 32) -> Pass:
    """Index arithmetic in 32 bits where it fits; 64 leaves it as it is."""
    if target_bits not in (32, 64):
        raise IRError(f"indices of {target_bits} bits are unknown", hint="give 32 or 64")
    return _made("tir.NarrowDataType", lambda f, at: narrow_data_type(f, at) if target_bits == 32 else f)


def VerifyMemory() -> Pass:
    """Raises where the host would touch a device's memory."""
    return _made("tir.VerifyMemory", verify_memory)
