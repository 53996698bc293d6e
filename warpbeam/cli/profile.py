"""`warpbeam profile`: where the time goes, kernel by kernel."""

from __future__ import annotations

import argparse
import json
from typing import Any

from warpbeam.cli import console, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    options.add_model(parser)
    options.add_inputs(parser)
    parser.add_argument("--repeat", type=options.positive, default=10, help="runs (default: 10)")
    parser.add_argument("--top", type=options.positive, metavar="N", help="show the N most expensive kernels only")
    options.add_compile(parser)
    options.add_sizes(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Steps through the model and prints a row per kernel."""
    from warpbeam.cli import models

    module, report = models.compiled(args)
    inputs = models.input_arrays(args, module)
    with console.progress(f"profiling {module.name}"):
        profile = module.profile(inputs, args.repeat)
    sketches = {row["kernel"]: row["sketch"] for row in report.rows} if report is not None else {}
    if args.json:
        console.emit_json(json.loads(profile.to_json()) | {"sketches": sketches})
        return 0
    kernels = profile.kernels[: args.top] if args.top else profile.kernels
    rows = [_row(k, sketches) for k in kernels]
    rest = profile.total_us - sum(k.median_us for k in kernels)
    if len(kernels) < len(profile.kernels):
        rows.append((f"{len(profile.kernels) - len(kernels)} more", "", "", f"{rest:.2f}", "", "", "", "", ""))
    rows.append(("total", "", "", f"{profile.total_us:.2f}", "100.0", "", "", "", ""))
    if report is not None:
        from warpbeam.driver.plan_report import text

        for line in text(report.memory):
            print(line)
    head = ("kernel", "sketch", "calls", "µs", "%", "GFLOP/s", "GB/s", "% of roof", "computes")
    console.table(rows, head, f"{module.name}: {module.num_threads} threads, kernels one after the other", (0, 1, 8))
    return 0


def _row(k: Any, sketches: dict[str, str]) -> tuple[str, ...]:
    origins = ", ".join(k.origins[:3]) + (f" and {len(k.origins) - 3} more" if len(k.origins) > 3 else "")
    return (k.name, sketches.get(k.name, ""), str(k.calls), *k.numbers(), origins)
