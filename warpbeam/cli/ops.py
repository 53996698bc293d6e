"""`warpbeam ops`: the operators there are, and which of a model's are supported."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from warpbeam.cli import console, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("model", nargs="?", metavar="MODEL.onnx", help="count this model's operators instead")
    parser.add_argument("--onnx", action="store_true", help="list ONNX operators instead of Relay's")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only names that contain this")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints a table."""
    head: tuple[str, ...]
    if args.model:
        head, rows = ("operator", "nodes", "supported"), _model(args.model)
    elif args.onnx:
        head, rows = ("ONNX operator", "from opset"), _onnx()
    else:
        head, rows = ("operator", "operands", "attributes"), _relay()
    rows = [row for row in rows if args.filter.lower() in row[0].lower()]
    if args.json:
        console.emit_json([dict(zip(head, row, strict=True)) for row in rows])
    else:
        console.table(rows, head, left=(0, 2) if len(head) == 3 else (0, 1))
        print(f"{len(rows)} operators")
    return 0


def _relay() -> list[tuple[Any, ...]]:
    from warpbeam import op

    rows = []
    for name in op.names():
        o = op.get(name)
        attributes = ", ".join(o.defaults)
        rows.append((name, "any" if o.arity is None else str(o.arity), attributes))
    return rows


def _versions() -> dict[str, list[int]]:
    """ONNX operator -> opset versions from which converters are written for it."""
    from warpbeam.frontend.onnx.table import converters

    return {name: sorted(since for since, _ in found) for name, found in converters().items()}


def _onnx() -> list[tuple[Any, ...]]:
    return [(name, ", ".join(map(str, versions))) for name, versions in sorted(_versions().items())]


def _model(path: str) -> list[tuple[Any, ...]]:
    """A model's operators, subgraphs and functions included, the most frequent first."""
    from warpbeam.cli import models
    from warpbeam.frontend.onnx.loader import load, subgraphs

    known = _versions()
    counts: Counter[str] = Counter()
    proto = load(models.source_of(path)).proto
    functions = {(f.domain, f.name) for f in proto.functions}
    todo: list[Any] = [proto.graph, *proto.functions]
    while todo:
        for node in todo.pop().node:
            if (node.domain, node.op_type) not in functions:
                domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}::"
                counts[domain + node.op_type] += 1
            todo += subgraphs(node)
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(name, str(count), "yes" if name in known else "no") for name, count in order]
