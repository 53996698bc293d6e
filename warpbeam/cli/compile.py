"""`warpbeam compile`: a model becomes a file that runs anywhere the same processor family does."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from warpbeam.cli import console, options, remote


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    options.add_model(parser, artefact=False)
    parser.add_argument("-o", "--output", metavar="FILE", help="the compiled model (default: MODEL's name with .wb)")
    options.add_compile(parser)
    group = parser.add_argument_group("looking inside")
    group.add_argument("--dump", type=_kinds, default=(), metavar="relay,fusion,tir,llvm,asm", help="print these forms")
    group.add_argument("--dump-dir", metavar="DIR", help="write the dumped forms to files here instead of stdout")
    group.add_argument("--print-pass-times", action="store_true", help="print the time of each graph pass")
    group.add_argument("--explain", action="store_true", help="print each kernel's sketch and decisions")
    remote.add_remote(parser, runs=False)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compiles and writes the file."""
    from warpbeam.cli import files, models

    models.check_source(args.model)
    start = time.perf_counter()
    fresh = args.dump or args.print_pass_times or args.explain  # a model from the cache has none of these
    recorder = None
    if args.dump:
        from warpbeam.cli.dump import Recorder

        recorder = Recorder(args.dump)
    module, report = models.compiled(args, recorder or ((lambda kernel, text: None) if fresh else None))
    output = Path(args.output or Path(args.model).with_suffix(".wb").name)
    files.write_with(output, module.save)
    seconds = time.perf_counter() - start
    if recorder is not None:
        recorder.deliver(args)
    if args.json:
        console.emit_json({"output": str(output), "bytes": output.stat().st_size, "seconds": seconds} | report.data())
        return 0
    if args.print_pass_times:
        rows = [(name, f"{t * 1e3:.2f}") for name, t in report.passes]
        console.table(rows, ("pass", "ms"))
    if args.explain:
        print(report.text())
    _summary(output, module, report, seconds)
    return 0


def _summary(output: Path, module: Any, report: Any, seconds: float) -> None:
    """One line on stdout; the stages on a terminal."""
    if sys.stderr.isatty():
        for name, spent in report.stages:
            print(f"  {name:<20}{spent * 1e3:10.1f} ms", file=sys.stderr)
    kernels = len(module.artifact.manifest.kernels)
    how = "from cache" if report.cached else f"{kernels} kernels"
    size = console.size(output.stat().st_size)
    print(f"{output}: {how}, {size}, {module.artifact.manifest.precision}, {console.seconds(seconds)}")


def _kinds(text: str) -> tuple[str, ...]:
    known = ("relay", "fusion", "tir", "llvm", "asm")
    kinds = tuple(k.strip() for k in text.split(",") if k.strip())
    for kind in kinds:
        if kind not in known:
            raise argparse.ArgumentTypeError(f"unknown form {kind!r}; forms are {', '.join(known)}")
    return kinds
