"""`warpbeam run`: one inference, arrays in and out as npz."""

from __future__ import annotations

import argparse
import time

from warpbeam.cli import console, options, remote


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    options.add_model(parser)
    options.add_inputs(parser)
    parser.add_argument("-o", "--output", metavar="FILE.npz", help="write the outputs here")
    options.add_compile(parser)
    options.add_sizes(parser)
    remote.add_remote(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the model once and prints what came out."""
    from warpbeam.cli import files, models
    from warpbeam.runtime.objects import scattered

    module, _ = models.compiled(args)
    inputs = models.input_arrays(args, module)
    start = time.perf_counter()
    outputs = module.run(inputs)
    seconds = time.perf_counter() - start
    outputs = scattered(outputs)
    if args.output:
        files.write_npz(args.output, outputs)
    rows = [(name, *models.describe(array)) for name, array in outputs.items()]
    head = ("output", "shape", "dtype", "min", "mean", "max")
    if args.json:
        data = [dict(zip(head, row, strict=True)) for row in rows]
        console.emit_json({"model": module.name, "seconds": seconds, "outputs": data, "file": args.output})
    else:
        console.table(rows, head, left=(0, 1, 2))
    return 0
