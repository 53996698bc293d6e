"""`warpbeam ops`: the operators there are, and how those of ONNX, or of a model, are covered."""

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
        head, rows = ("operator", "nodes", "how"), _model(args.model)
    elif args.onnx:
        head, rows = ("ONNX operator", "opset", "how", "types", "host types", "refused types"), _onnx()
    else:
        head, rows = ("operator", "operands", "attributes"), _relay()
    rows = [row for row in rows if args.filter.lower() in row[0].lower()]
    if args.json:
        console.emit_json([dict(zip(head, row, strict=True)) for row in rows])
    else:
        console.table(rows, head, left=(0, 2) if len(head) == 3 else (0, 2, 3, 4, 5))
        print(f"{len({row[0] for row in rows})} operators")
    return 0


def _relay() -> list[tuple[Any, ...]]:
    from warpbeam import op

    rows = []
    for name in op.names():
        o = op.get(name)
        attributes = ", ".join(o.defaults)
        rows.append((name, "any" if o.arity is None else str(o.arity), attributes))
    return rows


def _onnx() -> list[tuple[Any, ...]]:
    """What of ONNX is covered: a row for each version of each operator."""
    from warpbeam.frontend.onnx import coverage

    return [
        (r.operator, str(r.since), r.how, *(" ".join(g) for g in (r.compiled, r.host, r.refused)))
        for r in coverage.rows()
    ]


def _coverage() -> dict[str, list[tuple[int, str]]]:
    """ONNX operator -> (version, how it is covered from there on), oldest first."""
    from warpbeam.frontend.onnx import coverage

    found: dict[str, list[tuple[int, str]]] = {}
    for row in coverage.rows():
        found.setdefault(row.operator, []).append((row.since, row.how))
    return found


def _model(path: str) -> list[tuple[Any, ...]]:
    """A model's operators, subgraphs and functions included, the most frequent first."""
    from warpbeam.cli import models
    from warpbeam.frontend.onnx.loader import load, subgraphs

    known = _coverage()
    counts: Counter[str] = Counter()
    loaded = load(models.source_of(path))
    proto = loaded.proto
    functions = {(f.domain, f.name) for f in proto.functions}
    todo: list[Any] = [proto.graph, *proto.functions]
    while todo:
        for node in todo.pop().node:
            if (node.domain, node.op_type) not in functions:
                domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}::"
                counts[domain + node.op_type] += 1
            todo += subgraphs(node)
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    def how(name: str) -> str:
        version = loaded.opsets.get(name.rpartition("::")[0], 1)
        ways = [way for since, way in known.get(name, []) if since <= version]
        return ways[-1] if ways else "no"

    return [(name, str(count), how(name)) for name, count in order]
