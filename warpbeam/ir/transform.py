"""Passes: functions from module to module with a name, a level and a context that decides which of them run.

The gating rules are the field's. They act inside `Sequential` only; a pass object that is called directly always runs:

    name in ctx.disabled_pass      -> skipped (wins over everything)
    else name in ctx.required_pass -> runs
    else                           -> runs if ctx.opt_level >= pass.info.opt_level
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from warpbeam.ir import budget
from warpbeam.ir.diagnostics import IRError

# Keys that change behaviour, with what they do.
CONFIGS: dict[str, str] = {
    "driver.share_memory": "False: every value keeps memory of its own while it lives",
    "relay.FuseOps.max_depth": "largest number of operators in one fused group",
    "relay.FuseOps.mode": "regions (as a rule) or pairs (an operator and what reads it, to compare with)",
    "relay.FoldConstant.max_bytes": "largest constant, in bytes, that folding may create",
    "tir.add_lower_pass": "own passes in lowering: a list of (phase, pass)",
    "tir.debug_keep_trivial_loop": "True: loops of one iteration stay loops",
    "tir.disable_assert": "True: run-time checks of the program are left out",
    "tir.disable_cse_tir": "False: index arithmetic that loops repeat gets names (printers share equal values anyway)",
    "tir.disable_storage_rewrite": "True: buffers whose lives do not overlap keep memory of their own",
    "tir.disable_vectorize": "True: vectorized loops run one by one",
    "tir.HoistIfThenElse": "support_block_scope_hoisting: conditions also leave loops over threads",
    "tir.InjectDoubleBuffer": "split_loop: iterations written into each, so that halves are constants",
    "tir.instrument_bound_checkers": "True: every index is tested at run time",
    "tir.LoopPartition": "partition_const_loop, no_unroll_loop_with_extent_one",
    "tir.noalias": "False: arguments may overlap",
    "warpbeam.accuracy": "exact: results rounded as plain sums are; fast: faster algorithms that lose a digit or two",
    "warpbeam.precision": "fp32, bf16 or fp16, and entries of the table that are to be others: bf16,nn.softmax=follow",
    "tir.UnrollLoop": "auto_max_step, auto_max_depth, auto_max_extent, explicit_unroll",
}
# Keys of the classic stack that are accepted and have nothing to steer here.
NO_EFFECT: tuple[str, ...] = (
    "relay.FuseOps.link_params",
    "relay.backend.use_auto_scheduler",
    "relay.backend.use_meta_schedule",
    "relay.backend.use_meta_schedule_dispatch",
    "relay.fallback_device_type",
    "relay.frontend.fill_span",
    "relay.remove_standalone_reshapes.enable",
    "te.keep_schedule_record",
    "tir.HoistExpression",
    "tir.ReduceBranchingThroughOvercompute",
    "tir.RemoveNoOp",
    "tir.Simplify",
    "tir.detect_global_barrier",
    "tir.enable_debug",
    "tir.enable_equiv_terms_in_cse_tir",
    "tir.experimental_dma_bypass_cache",
    "tir.instr_siblings",
    "tir.instrument_lwp",
    "tir.is_entry_func",
    "tir.lwp_disable_func_prof",
    "tir.lwp_max_depth",
    "tir.lwp_min_height",
    "tir.ptx_ldg32",
    "tir.reset_start_id",
    "tir.use_async_copy",
    "tir.usmp.algorithm",
    "tir.usmp.custom_algorithm",
    "tir.usmp.enable",
    "tir.usmp.use_workspace_io",
    "tir.vtcm_capacity",
)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the event stream.

    stage: "compile", "pass", "kernel", "tune", "run", …; name: what of it.
    phase: "begin", "end", "progress", "skip" or "note".
    seconds: duration for "end". data: anything else, by name.
    """

    stage: str
    name: str
    phase: str = "note"
    seconds: float = 0.0
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class PassInfo:
    """Level from which a pass runs, its name, and names of passes that must run right before it."""

    opt_level: int
    name: str
    required: tuple[str, ...] = ()


def _names(passes: Iterable[Any] | None) -> frozenset[str]:
    """Pass names from names, Pass objects, or functions that make passes."""
    out = set()
    for p in passes or ():
        out.add(p if isinstance(p, str) else p.info.name if isinstance(p, Pass) else getattr(p, "__name__", str(p)))
    return frozenset(out)


class PassContext:
    """Settings under which passes run; used as `with PassContext(opt_level=3): …`.

    Args:
        opt_level: passes of this level and below run inside a Sequential.
        required_pass: names (or passes) that run whatever their level, and whatever instruments say.
        disabled_pass: names (or passes) that never run inside a Sequential.
        instruments: objects with any of enter_pass_ctx, exit_pass_ctx, should_run, run_before_pass, run_after_pass.
        config: settings by name, see `list_configs`; names that start with "warpbeam." are free.
        events: callables that receive every Event.
    """

    def __init__(
        self,
        opt_level: int = 2,
        required_pass: Iterable[Any] | None = None,
        disabled_pass: Iterable[Any] | None = None,
        instruments: Iterable[Any] | None = None,
        config: Mapping[str, Any] | None = None,
        events: Iterable[Listener] | None = None,
    ) -> None:
        self.opt_level = opt_level
        self.required_pass = _names(required_pass)
        self.disabled_pass = _names(disabled_pass)
        self.instruments = list(instruments or ())
        self.config = dict(config or {})
        self.events = list(events or ())
        self._tokens: list[Token[PassContext | None]] = []
        for key in self.config:
            _check_config(key)

    @staticmethod
    def current() -> PassContext:
        """The innermost context of this thread or task; a default one (opt_level 2) where there is none."""
        found = _CURRENT.get()
        return found if found is not None else PassContext()

    @staticmethod
    def list_configs() -> dict[str, str]:
        """Every config key that changes behaviour, with what it does."""
        return dict(CONFIGS)

    def enabled(self, info: PassInfo) -> bool:
        """Whether a Sequential runs a pass of this info."""
        if info.name in self.disabled_pass:
            return False
        return info.name in self.required_pass or self.opt_level >= info.opt_level

    def override_instruments(self, instruments: Iterable[Any] | None) -> None:
        """Leaves the present instruments and enters the new ones."""
        self._tell("exit_pass_ctx")
        self.instruments = list(instruments or ())
        self._tell("enter_pass_ctx")

    def emit(self, event: Event) -> None:
        """Sends an event to every listener."""
        for listen in self.events:
            listen(event)

    def __enter__(self) -> PassContext:
        self._tell("enter_pass_ctx")
        self._tokens.append(_CURRENT.set(self))
        return self

    def __exit__(self, *exc: object) -> None:
        _CURRENT.reset(self._tokens.pop())
        self._tell("exit_pass_ctx")

    def _tell(self, method: str, *args: Any) -> None:
        for i in self.instruments:
            hook = getattr(i, method, None)
            if hook is not None:
                hook(*args)

    def _admit(self, mod: Any, info: PassInfo) -> bool:
        """Asks the instruments (except for required passes) and tells them that the pass begins."""
        if info.name not in self.required_pass:
            answers = [i.should_run(mod, info) for i in self.instruments if hasattr(i, "should_run")]
            if not all(answers):
                return False
        self._tell("run_before_pass", mod, info)
        return True


_CURRENT: ContextVar[PassContext | None] = ContextVar("warpbeam_pass_context", default=None)


def _check_config(key: str) -> None:
    if key in CONFIGS or key.startswith("warpbeam."):
        return
    if key in NO_EFFECT:
        warnings.warn(f"config {key!r} has no effect in Warpbeam", stacklevel=3)
        return
    near = get_close_matches(key, [*CONFIGS, *NO_EFFECT], 3)
    raise IRError(f"unknown config {key!r}", hint=f"did you mean {', '.join(near)}?" if near else "see list_configs()")


class Pass:
    """A named function from module to module. Calling it runs it, whatever its level."""

    info: PassInfo

    def run(self, mod: Any, ctx: PassContext) -> Any:
        raise IRError(f"pass {self.info.name} has no body", hint="override run(mod, ctx)")

    def __call__(self, mod: Any) -> Any:
        ctx = PassContext.current()
        if not ctx._admit(mod, self.info):
            ctx.emit(Event("pass", self.info.name, "skip"))
            return mod
        budget.check_time(f"pass {self.info.name}")
        ctx.emit(Event("pass", self.info.name, "begin"))
        start = time.perf_counter()
        out = self.run(mod, ctx)
        ctx.emit(Event("pass", self.info.name, "end", time.perf_counter() - start))
        ctx._tell("run_after_pass", out, self.info)
        return out

    def __repr__(self) -> str:
        return f"Pass({self.info.name}, opt_level={self.info.opt_level})"


class FunctionalPass(Pass):
    """A pass made of a Python function."""

    def __init__(self, body: Callable[[Any, PassContext], Any], info: PassInfo) -> None:
        self.body = body
        self.info = info

    def run(self, mod: Any, ctx: PassContext) -> Any:
        return self.body(mod, ctx)


class Sequential(Pass):
    """Passes in a row, gated by the context. Its own level does not gate its children; it can be nested.

    Args:
        lookup: finds a pass by name for `required` entries; passes of the sequence itself are found without it.
    """

    def __init__(
        self,
        passes: Iterable[Pass] = (),
        opt_level: int = 0,
        name: str = "sequential",
        required: Iterable[str] = (),
        lookup: Callable[[str], Pass | None] | None = None,
    ) -> None:
        self.passes = list(passes)
        self.lookup = lookup
        self.info = PassInfo(opt_level, name, tuple(required))

    def find(self, name: str) -> Pass:
        """The pass that a `required` entry names."""
        found = next((p for p in self.passes if p.info.name == name), None)
        if found is None and self.lookup is not None:
            found = self.lookup(name)
        if found is None:
            raise IRError(f"no pass is named {name!r}", hint="give Sequential(lookup=...) or correct `required`")
        return found

    def run(self, mod: Any, ctx: PassContext) -> Any:
        for p in self.passes:
            if not ctx.enabled(p.info):
                ctx.emit(Event("pass", p.info.name, "skip"))
                continue
            for name in p.info.required:
                mod = self.find(name)(mod)
            mod = p(mod)
        return mod

    def __repr__(self) -> str:
        return f"Sequential({', '.join(p.info.name for p in self.passes)})"


# ----------------------------------------------------------------------------------------------------------- decorators


def _decorate(
    kind: str, make: Callable[[Any, PassInfo], Pass], target: Any, level: int | None, name: str, required: Any
) -> Any:
    if level is None:
        raise ValueError(f"Please provide opt_level for the {kind} pass.")

    def wrap(body: Any) -> Any:
        info = PassInfo(level, name or body.__name__, tuple(required or ()))
        if not isinstance(body, type):
            return make(body, info)

        @functools.wraps(body, updated=())
        def construct(*args: Any, **kwargs: Any) -> Pass:
            instance = body(*args, **kwargs)
            return make(getattr(instance, f"transform_{kind}"), info)

        return construct

    return wrap if target is None else wrap(target)


def PrintIR(header: str = "", show_meta_data: bool = False) -> Pass:
    """A pass that prints the module and changes nothing."""
    if show_meta_data:
        warnings.warn("PrintIR ignores show_meta_data: a text has all there is", stacklevel=2)

    def show(mod: Any, ctx: PassContext) -> Any:
        print(f"PrintIR({header})\n{mod}")
        return mod

    return FunctionalPass(show, PassInfo(0, "PrintIR"))


def module_pass(
    pass_func: Any = None, opt_level: int | None = None, name: str = "", required: Iterable[str] | None = None
) -> Any:
    """Decorator: `fn(mod, ctx) -> mod`, or a class with `transform_module(mod, ctx)`, becomes a pass (or its maker)."""
    return _decorate("module", FunctionalPass, pass_func, opt_level, name, required)


def function_pass(
    pass_func: Any = None, opt_level: int | None = None, name: str = "", required: Iterable[str] | None = None
) -> Any:
    """Decorator: `fn(func, mod, ctx) -> func`, or a class with `transform_function`, becomes a pass over all functions.

    Functions with a true attribute "SkipOptimization" are left alone.
    """

    def make(body: Callable[[Any, Any, PassContext], Any], info: PassInfo) -> Pass:
        def over_module(mod: Any, ctx: PassContext) -> Any:
            return mod.map(lambda f: f if f.attrs.get("SkipOptimization") else body(f, mod, ctx))

        return FunctionalPass(over_module, info)

    return _decorate("function", make, pass_func, opt_level, name, required)
