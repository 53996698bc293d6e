"""`warpbeam micro`: a model becomes a project for a small device: C source, start-up code, memory map, build file."""

from __future__ import annotations

import argparse
from pathlib import Path

from warpbeam.cli import console, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    options.add_model(parser, artefact=False)
    parser.add_argument("-o", "--output", metavar="FOLDER", help="the project (default: MODEL's name with -micro)")
    parser.add_argument(
        "--board", default="mps2-an386", help="which board: mps2-an385, mps2-an386 or mps2-an500 (default: mps2-an386)"
    )
    parser.add_argument("--name", default="", help="prefix of the C functions (default: MODEL's name)")
    options.add_shapes(parser)
    options.add_inputs(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compiles for a C compiler without a vector unit, and writes the project."""
    from warpbeam.cli import models
    from warpbeam.driver.micro import make_project

    compiling = {"target": "c32", "opt_level": 3, "no_cache": False, "workers": None, "threads": None, "sizes": {}}
    for key, value in compiling.items():
        setattr(args, key, value)
    module, _ = models.compiled(args)
    inputs = models.input_arrays(args, module)
    folder = Path(args.output or f"{Path(args.model).stem}-micro")
    done = make_project(module, folder, args.board, inputs, args.name)
    if args.json:
        console.emit_json({"folder": str(done.folder), "files": [f.name for f in done.files],
                           "constants": done.constants, "constants_in": done.constants_in, "context": done.context,
                           "context_in": done.context_in})  # fmt: skip
        return 0
    rows = [("weights", console.size(done.constants), done.constants_in),
            ("scratch memory", console.size(done.context), done.context_in)]  # fmt: skip
    console.table(rows, ("what", "size", "memory"), left=(0, 2))
    print(f"{done.folder}: {len(done.files)} files; build it with make, run it with make run")
    return 0
