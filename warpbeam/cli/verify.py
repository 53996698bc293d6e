"""`warpbeam verify`: is the compiled model right, and if not, what is wrong first?"""

from __future__ import annotations

import argparse
from typing import Any

from warpbeam.cli import console, options, remote


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    options.add_model(parser, artefact=False)
    parser.add_argument("-i", "--inputs", metavar="FILE.npz", help="arrays by input name; what is missing is random")
    parser.add_argument("--seed", type=options.count, default=0, help="seed of random inputs (default: 0)")
    parser.add_argument("--no-bisect", action="store_true", help="do not search for the part that differs")
    options.add_compile(parser)
    options.add_sizes(parser)
    remote.add_remote(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compares, prints a row per output and oracle; exit code 1 where the model is wrong."""
    from warpbeam.cli import files, models
    from warpbeam.driver.verify import verify

    source = models.source_of(args.model)
    inputs = files.read_npz(args.inputs) if args.inputs else None
    module = models.compiled(args)[0] if args.remote else None
    with console.progress(f"verifying {args.model}"):
        result = verify(
            source,
            shapes=options.shape_map(args.input_shapes) or None,
            target=args.target,
            opt_level=args.opt_level,
            guard=args.guard,
            seed=args.seed,
            inputs=inputs,
            symbols=args.sizes,
            bisect=not args.no_bisect and module is None,  # kernels are run alone here
            module=module,
            cache=not args.no_cache,
            threads=args.threads,
        )
    models.tell_sizes(result.sizes)
    if args.json:
        console.emit_json(result.data())
    else:
        show(result)
    return 0 if result.passed else 1


def show(result: Any) -> None:
    """Prints the differences, the findings and the verdict."""
    rows = []
    for d in result.differences:
        spread = [f"{d.percentiles[q]:.1e}" if q in d.percentiles else "-" for q in (50, 90, 99)]
        at = d.note or str(list(d.where))
        error, relative = f"{d.error:.2e}", f"{d.relative:.1e}"
        rows.append(
            (
                d.name,
                d.against,
                d.dtype,
                error,
                relative,
                f"{d.tolerance:g}",
                *spread,
                at,
                "ok" if d.passed else "DIFFERS",
            )
        )
    head = ("output", "against", "dtype", "max error", "relative", "allowed", "p50", "p90", "p99", "where", "")
    console.table(rows, head, left=(0, 1, 2, 9, 10))
    for finding in result.findings:
        print(f"found: {finding}")
    what = f"{result.model} for {result.target}, opt level {result.opt_level}, precision {result.precision}"
    print("PASSED" if result.passed else "FAILED", what)
