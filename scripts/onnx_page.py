#!/usr/bin/env python3
"""Writes docs/reference/onnx.md from the importer's tables: operator, versions, element types, how it is covered."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import onnx

from warpbeam.frontend.onnx import coverage

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "onnx.md"

HEAD = """# ONNX operators

Written by `scripts/onnx_page.py` from the importer's tables and the definitions in onnx {version}; do not edit it here.
`warpbeam ops --onnx` prints the same, with `--json` as data; `warpbeam ops MODEL.onnx` does so for those of a model.

How an operator is covered:

- **compiled**: it becomes kernels, or branches and loops of the compiled program.
- **import**: it is decided while importing. Sequences of known length and optionals of known state leave nothing behind
  but the tensors inside; lengths of inputs are given when compiling: `shapes={{"s": [(2, 3), (4, 3)], "o": None}}`.
  Where a length is found at run time instead (a loop that collects, a position that is computed), `SequenceAt`,
  `SequenceInsert`, `SequenceErase`, `SequenceLength` and `ConcatFromSequence` are host calls.
- **function**: it has no converter, and becomes the operators by which the format defines it.
- **host**: the program calls a function of the host for it. The compiler's report and the file's manifest list such
  calls; a file that has them runs with `warpbeam.load`, kernel by kernel, and cannot be exported as a library.
- **no**: a model that has it is refused; every reason of a refusal is listed at once.

Types are those of the first operand. Types in brackets take a host call; types after "not" are refused. Strings are
numbers inside a program, so that operators that only move or compare them are compiled. Random operators draw from
Philox 4x32-10, a function of the node's seed (or of its name, where it has none): every run gives the same numbers.
Dropout with a seed draws from the Mersenne Twister, as the reference of the standard does.

Operators, newest version: {summary}.

| short | type |
|---|---|
| f64 f32 f16 bf16 | float64, float32, float16, bfloat16 |
| f8 f6 f4 | every float8, float6, float4 that the version has |
| i2 to i64, u2 to u64 | integers |
"""
SMALL = {"float8_": "f8", "float6_": "f6", "float4_": "f4"}


def short(kinds: tuple[str, ...]) -> str:
    """Types in a few letters."""
    names = []
    for kind in kinds:
        small = next((s for start, s in SMALL.items() if kind.startswith(start)), "")
        name = small or kind.replace("bfloat", "bf").replace("float", "f").replace("uint", "u").replace("int", "i")
        names.append(name if kind not in ("string", "map", "seq") else kind)
    return " ".join(dict.fromkeys(names))


def types(row: coverage.Row) -> str:
    """All types of a row: compiled, (host), not refused."""
    parts = [short(row.compiled)]
    parts += [f"({short(row.host)})"] if row.host else []
    parts += [f"not {short(row.refused)}"] if row.refused else []
    return " ".join(p for p in parts if p)


def render() -> str:
    """The page."""
    rows = coverage.rows()
    counts = ", ".join(f"{n} {way}" for way, n in coverage.summary(rows).items())
    lines = [HEAD.format(version=onnx.__version__, summary=counts)]
    lines += ["| operator | versions | how | types |", "|---|---|---|---|"]
    for (operator, how, kinds), group in groupby(rows, lambda r: (r.operator, r.how, types(r))):
        versions = ", ".join(str(r.since) for r in group)
        lines.append(f"| {operator} | {versions} | {how} | {kinds} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
