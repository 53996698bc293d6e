"""`warpbeam bench`: how long one inference takes."""

from __future__ import annotations

import argparse
from typing import Any

from warpbeam.cli import console, options, remote


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    options.add_model(parser)
    options.add_inputs(parser)
    group = parser.add_argument_group("measuring")
    group.add_argument("--repeat", type=options.positive, default=20, help="measurements (default: 20)")
    group.add_argument(
        "--number", type=options.count, default=0, help="runs per measurement (default: what fills 1 ms)"
    )
    group.add_argument("--warmup", type=options.count, default=3, help="runs before the first measurement (default: 3)")
    options.add_compile(parser)
    options.add_sizes(parser)
    remote.add_remote(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Measures and prints the distribution."""
    from warpbeam.cli import models

    module, report = models.compiled(args)
    inputs = models.input_arrays(args, module)
    with console.progress(f"measuring {module.name}"):
        result = module.benchmark(inputs, args.repeat, args.number, args.warmup)
    data = facts(module, result)
    if args.json:
        console.emit_json(data | {"compile": None if report is None else report.data()["stages"]})
        return 0
    where = f" on {args.remote[0]}" if args.remote else ""
    print(f"{module.name}{where}: {data['precision']}, {data['threads'] or 'all'} threads, outputs preallocated")
    names = ("median", "p10", "p90", "mean", "std", "min", "max")
    console.table([[f"{data[n] * 1e3:.4f}" for n in names]], [f"{n} (ms)" for n in names], left=())
    spread = (data["p90"] - data["p10"]) / max(data["median"], 1e-12)
    print(f"{data['per_second']:.1f} inferences per second; {args.repeat} measurements of {result.number}")
    if spread > 0.2:
        print(f"note: p10 and p90 lie {100 * spread:.0f} % of the median apart; is the machine busy with other work?")
    return 0


def facts(module: Any, result: Any) -> dict[str, Any]:
    """What was measured, times in seconds."""
    data = {name: getattr(result, name) for name in ("median", "p10", "p90", "mean", "std", "min", "max")}
    data |= {"times": list(result.times), "number": result.number, "per_second": 1 / max(result.median, 1e-12)}
    manifest = module.artifact.manifest
    return {"model": module.name, "precision": manifest.precision, "threads": module.num_threads, **data}
