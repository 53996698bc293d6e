"""`warpbeam opt`: graph passes, one after the other, and the graph that comes out."""

from __future__ import annotations

import argparse
import time
from typing import Any

from warpbeam.cli import console, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="an ONNX file or a Relay text (.relay)")
    parser.add_argument("--passes", metavar="A,B,C", help="run these, in this order (default: what compile runs)")
    parser.add_argument("--disable", metavar="A,B", default="", help="leave these out")
    parser.add_argument("--list", action="store_true", help="list the passes and exit")
    parser.add_argument("--print-after", metavar="A,B|all", default="", help="print the graph after these passes too")
    parser.add_argument("--constants", choices=("elide", "inline", "digest"), default="elide", help="how to print them")
    parser.add_argument("--print-pass-times", action="store_true", help="print the time of each pass instead")
    parser.add_argument("--target", default="native", help='"native" or a target\'s name')
    parser.add_argument("-O", "--opt-level", type=int, choices=range(4), default=3, help="0 to 3 (default: 3)")
    parser.add_argument("-o", "--output", metavar="FILE.relay", help="write the graph here (constants inline)")
    options.add_shapes(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the passes."""
    from warpbeam.cli import files, models
    from warpbeam.driver import source
    from warpbeam.relay.text import to_text
    from warpbeam.runtime.errors import WarpbeamError
    from warpbeam.target import get

    target = get(args.target)
    if args.list:
        rows = [(name, level) for name, level in _known(target)]
        console.table(rows, ("pass", "from opt level"))
        return 0
    if args.model is None:
        raise WarpbeamError("no model given", hint="warpbeam opt MODEL, or warpbeam opt --list")
    found = source.read(models.source_of(args.model), options.shape_map(args.input_shapes) or None)
    mod, times = _apply(found.module, args, target)
    if args.output:
        files.write_text(args.output, to_text(mod, "inline"))
    if args.json:
        console.emit_json({"model": found.name, "passes": [{"name": n, "seconds": s} for n, s in times]})
    elif args.print_pass_times:
        console.table([(n, f"{s * 1e3:.2f}") for n, s in times], ("pass", "ms"))
    elif not args.output:
        print(to_text(mod, args.constants))
    return 0


def _apply(mod: Any, args: argparse.Namespace, target: Any) -> tuple[Any, list[tuple[str, float]]]:
    from warpbeam.ir.transform import PassContext
    from warpbeam.relay.text import to_text
    from warpbeam.runtime.errors import WarpbeamError

    disabled, shown = _words(args.disable), _words(args.print_after)
    known = [name for name, _ in _known(target)]
    for name in [*disabled, *(n for n in shown if n != "all")]:
        if name not in known:
            raise WarpbeamError(f"there is no pass {name!r}", hint="warpbeam opt --list shows them")
    times = []
    with PassContext(opt_level=args.opt_level, disabled_pass=disabled) as ctx:
        for step in _chosen(args.passes, target):
            if not args.passes and not ctx.enabled(step.info):
                continue
            start = time.perf_counter()
            mod = step(mod)
            times.append((step.info.name, time.perf_counter() - start))
            if "all" in shown or step.info.name in shown:
                print(f"// after {step.info.name}\n{to_text(mod, args.constants)}")
    return mod, times


def _chosen(words: str | None, target: Any) -> list[Any]:
    """Pass objects for names, or those of the pipeline."""
    from warpbeam.driver.pipeline import graph_passes

    pipeline: list[Any] = graph_passes(target)
    if not words:
        return pipeline
    return [_make(name, pipeline) for name in _words(words)]


def _make(name: str, pipeline: list[Any]) -> Any:
    """A pass by name: as the pipeline has it, else without arguments."""
    from warpbeam.runtime.errors import WarpbeamError
    from warpbeam.transform import passes

    for step in pipeline:
        if step.info.name == name:
            return step
    maker = getattr(passes, name, None)
    if maker is None or name.startswith("_"):
        raise WarpbeamError(f"there is no pass {name!r}", hint="warpbeam opt --list shows them")
    try:
        return maker()
    except TypeError as error:
        raise WarpbeamError(f"pass {name} cannot run alone", why=str(error)) from error


def _known(target: Any) -> list[tuple[str, int]]:
    """(name, opt level) of every pass: the pipeline's in order, then the others."""
    from warpbeam.driver.pipeline import graph_passes
    from warpbeam.transform import passes

    found = {step.info.name: step.info.opt_level for step in graph_passes(target)}
    for name in sorted(getattr(passes, "__all__", ())):
        if name not in found:
            info = getattr(getattr(passes, name), "info", None)
            found[name] = info.opt_level if info is not None else 0
    return list(found.items())


def _words(text: str) -> list[str]:
    return [w.strip() for w in text.split(",") if w.strip()]
