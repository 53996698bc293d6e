"""`warpbeam export`: a model becomes a library for C and C++ programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from warpbeam.cli import console, options

if TYPE_CHECKING:
    from warpbeam.runtime.compiled import CompiledModel


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    options.add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE",
                        help="the library (default: MODEL's name with .so, for WebAssembly .wasm)")  # fmt: skip
    group = parser.add_argument_group("what is written")
    group.add_argument("--format", choices=("so", "a", "wasm", "o", "obj", "c"), default="",
                       help="libraries, WebAssembly, object or C11 source (default: by FILE's name)")  # fmt: skip
    group.add_argument("--name", default="", help="prefix of the C functions (default: FILE's name)")
    group.add_argument("--freestanding", action="store_true",
                       help="without system calls, malloc and threads: the caller gives the memory")  # fmt: skip
    options.add_compile(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compiles where that is needed, and writes the library and its headers."""
    from warpbeam.cli import models

    module = _saved(args) if models.is_artefact(args.model) else models.compiled(args)[0]
    usual = "wasm" if module.artifact.manifest.target.startswith("wasm") else "so"
    output = Path(args.output or Path(args.model).with_suffix(f".{args.format or usual}").name)
    done = module.export_library(output, format=args.format, name=args.name, freestanding=args.freestanding)
    if args.json:
        console.emit_json({"files": [str(f) for f in done.files], "name": done.name, "bytes": done.bytes,
                           "constants": done.constants})  # fmt: skip
        return 0
    others = ", ".join(f.name for f in done.files[1:])
    print(f"{done.files[0]}: {console.size(done.bytes)}, of which weights {console.size(done.constants)}; {others}")
    return 0


def _saved(args: argparse.Namespace) -> CompiledModel:
    """A compiled file as it is: its code need not run on this machine."""
    from warpbeam import HAS_COMPILER
    from warpbeam.runtime.artifact import Artifact
    from warpbeam.runtime.compiled import CompiledModel

    made = CompiledModel(Artifact.load(args.model, trusted=args.trusted))
    if HAS_COMPILER:
        from warpbeam.driver.api import equipped

        made = equipped(made)
    return made
