"""The graph passes of a compilation, as one list that reads aloud."""

from __future__ import annotations

from warpbeam import op
from warpbeam.driver.report import Report
from warpbeam.ir.transform import Event, Pass, PassContext, Sequential
from warpbeam.relay.expr import Function, IRModule
from warpbeam.target import Target
from warpbeam.transform import passes
from warpbeam.transform.fuse_ops import fuse, in_regions
from warpbeam.transform.integer_products import has_dots
from warpbeam.transform.protect_outputs import protect_outputs
from warpbeam.transform.to_mixed_precision import Request, pairs_of, requested
from warpbeam.transform.unsigned_bytes import offsets_bytes


def graph_passes(target: Target, precision: Request | None = None) -> list[Pass]:
    """What happens to the graph before fusion, in order. precision: None for what the current PassContext asks for."""
    request = requested() if precision is None else precision
    plain, pairs = request.name == "fp32", pairs_of(request.dtype, target)
    on_cpu = target.kind in ("llvm", "c")
    return [
        passes.InferType(),
        passes.SinkConstants(),  # what a loop or function is given that never changes stands in its body
        passes.HoistLoopWork(),  # products of the rows that a loop takes, of all rows before it
        passes.LiftBranches(),  # branches and loops of the model become functions, each a straight line
        passes.SimplifyInference(),  # batch norm becomes scale and shift, dropout nothing
        passes.ExpandOperators(),  # recurrent layers become products over all steps, and the steps
        *([passes.IntegerProducts()] if has_dots(target) else []),  # products of dequantised bytes, in integers
        passes.FoldConstant(),  # what depends on constants only is computed now
        *([passes.UnsignedBytes()] if offsets_bytes(target) else []),  # what is multiplied, where it is made
        passes.SimplifyExpr(),  # algebra and cancelling reshapes, transposes, casts
        passes.NarrowRows(),  # only those rows of products that are read
        passes.ConvertLayout(target.prefer_layout, target, plain, pairs),  # the target's layouts; conversions cancel
        passes.FoldConstant(),  # weights into their new layouts
        passes.FoldScaleAxis(),  # scales and shifts into weights and bias
        passes.ExpandConvTranspose(target),  # plain convolutions for the remainders of the stride, in one or apart
        passes.SimplifyExpr(),
        passes.KeepPrecision(),  # half-float rows on their way into a product are not rounded
        *([passes.WidenProducts(target)] if on_cpu else []),  # half floats that products use again and again
        passes.FoldConstant(),
        passes.ChooseConvolution(target, request),  # 3x3 taps with fewer products, where that is faster
        passes.EliminateCommonSubexpr(),
        passes.JoinProducts(),  # few rows by the same weights, in one product
        *([passes.PackProducts(target)] if in_regions() else []),  # the same rows by several weights, too
        *([passes.TurnProducts()] if on_cpu else []),  # operands that lie the wrong way
        *([passes.SplitProducts()] if on_cpu and target.threads else []),  # few results of long sums, in parts
        passes.DeadCodeElimination(),
        *([] if plain else [passes.ToMixedPrecision(request, target)]),  # shorter numbers between kernels, on request
    ]


def optimize(mod: IRModule, opt_level: int, target: Target, report: Report | None = None) -> IRModule:
    """The module after graph passes and fusion. Everything but the level is as the current PassContext says."""
    mod = before_fusion(mod, opt_level, target, report)
    functions = mod.functions.items()
    return IRModule(
        {gv: fuse(fn, opt_level, target) if isinstance(fn, Function) else fn for gv, fn in functions}, mod.types
    )


def before_fusion(mod: IRModule, opt_level: int, target: Target, report: Report | None = None) -> IRModule:
    """The module after all graph passes but fusion."""
    with _context(opt_level, report):
        mod = Sequential(graph_passes(target))(mod)
    main = mod.global_var("main")
    return IRModule({**mod.functions, main: protect_outputs(mod["main"], op.get("copy"))}, mod.types)


def _context(opt_level: int, report: Report | None) -> PassContext:
    """The current context at another level; the times of its passes and what they chose go to the report."""
    outer = PassContext.current()

    def note(event: Event) -> None:
        if report is not None and event.stage == "pass" and event.phase == "end" and event.name != "sequential":
            report.passes.append((event.name, event.seconds))
        elif report is not None and event.stage == "choice":
            report.choices.append({"node": event.name, **event.data})
        elif report is not None and event.stage == "precision":
            for key, value in event.data.items():  # one function each
                report.precision[key] = value + report.precision.get(key, 0) if isinstance(value, int) else value

    return PassContext(
        opt_level, outer.required_pass, outer.disabled_pass, outer.instruments, outer.config, [*outer.events, note]
    )
