"""`--dump relay,fusion,tir,llvm,asm`: the forms a model takes on its way, on stdout or as files of a folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SUFFIX = {"relay": "relay", "fusion": "fusion.txt", "tir": "tir", "llvm": "ll", "asm": "s"}


class Recorder:
    """Collects kernels as they are compiled; `deliver` prints or writes the forms that were asked for."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = tuple(kinds)
        self.kernels: list[tuple[Any, str]] = []

    def __call__(self, kernel: Any, llvm_text: str) -> None:
        self.kernels.append((kernel, llvm_text))

    def deliver(self, args: argparse.Namespace) -> None:
        """Prints everything, or writes one file per form and kernel into `args.dump_dir`."""
        pieces = self.pieces(args)
        if not args.dump_dir:
            for kind, name, text in pieces:
                print(f"==== {kind} {name}\n{text.rstrip()}\n")
            return
        from warpbeam.cli.files import write_text

        folder = Path(args.dump_dir)
        folder.mkdir(parents=True, exist_ok=True)
        for kind, name, text in pieces:
            write_text(folder / f"{name}.{_SUFFIX[kind]}", text)

    def pieces(self, args: argparse.Namespace) -> list[tuple[str, str, str]]:
        """(form, name, text), the graph first, then the kernels in the order of the model."""
        from warpbeam.codegen.llvm import assembly_text
        from warpbeam.target import get
        from warpbeam.tir.text import to_text as tir_text

        out: list[tuple[str, str, str]] = []
        if "relay" in self.kinds:
            out += _graphs(args)
        if "fusion" in self.kinds:
            out.append(("fusion", "groups", _fusion(args)))
        for kernel, llvm_text in self.kernels:
            if "tir" in self.kinds:
                out.append(("tir", kernel.symbol, tir_text(kernel.func)))
            if "llvm" in self.kinds:
                out.append(("llvm", kernel.symbol, llvm_text))
            if "asm" in self.kinds:
                out.append(("asm", kernel.symbol, assembly_text(llvm_text, get(args.target), name=kernel.symbol)))
        return out


def _graphs(args: argparse.Namespace) -> list[tuple[str, str, str]]:
    """The graph as it was read, and after all passes."""
    from warpbeam.cli import models, options
    from warpbeam.driver import source
    from warpbeam.driver.pipeline import optimize
    from warpbeam.relay.text import to_text
    from warpbeam.target import get

    found = source.read(models.source_of(args.model), options.shape_map(args.input_shapes) or None)
    after = optimize(found.module, args.opt_level, get(args.target))
    texts = (("imported", found.module), ("fused", after))
    return [("relay", name, to_text(mod, "elide", show_types=False)) for name, mod in texts]


def _fusion(args: argparse.Namespace) -> str:
    """What was joined to groups that become one kernel each, what not, and why."""
    from warpbeam.cli import models, options
    from warpbeam.driver import source
    from warpbeam.driver.pipeline import before_fusion
    from warpbeam.relay.expr import Function
    from warpbeam.target import get
    from warpbeam.transform.fuse_report import explain, to_text

    found = source.read(models.source_of(args.model), options.shape_map(args.input_shapes) or None)
    target = get(args.target)
    functions = before_fusion(found.module, args.opt_level, target).functions.items()
    parts = [
        (gv.name, to_text(explain(fn, args.opt_level, target))) for gv, fn in functions if isinstance(fn, Function)
    ]
    return parts[0][1] if len(parts) == 1 else "\n\n".join(f"{name}\n{text}" for name, text in parts)
