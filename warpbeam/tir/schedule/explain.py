"""A scheduled program as a table for people: loops, working sets, the caches that hold them, operations, steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from warpbeam.ir.node import Attrs, Node
from warpbeam.target import Target, detect
from warpbeam.tir.analysis.footprint import Level, Touched, footprint, levels, walk
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import For, PrimFunc
from warpbeam.tir.text.printer import brief, shown

Cost = Callable[[Level, Target], "float | None"]
_GAP = "  "


def explain(func: PrimFunc, target: Target | None = None, trace: Sequence[Step] = (), cost: Cost | None = None) -> str:
    """The loop tree of a program. In a row: the loop or block, what one run of it touches (bytes of each buffer; at
    most, where that varies), the nearest cache that holds all its lines, and its floating operations.

    target: whose caches; by default the current target, else this machine. trace: steps to list at the end. cost: gives
    the predicted cycles of one run of a level, or None; they become a column.
    """
    machine = target or Target.current() or detect()
    roots = levels(func)
    title = ["program", "one run touches", "in all", "fits", "operations"] + (["cycles"] if cost else [])
    rows = [title]
    for level in walk(roots):
        row = [_GAP * level.depth + _head(level), _parts(level.touched), size_text(level.bytes)]
        row += [_home(level.lines(machine.line), machine), count_text(level.flops)]
        if cost is not None:
            cycles = cost(level, machine)
            row.append("?" if cycles is None else count_text(cycles))
        rows.append(row)
    lines = [*_summary(func, roots, machine), "", *_table(rows)]
    if trace:
        lines += ["", "steps", *(f"{k:>4}  {step_text(s)}" for k, s in enumerate(trace, 1))]
    return "\n".join(lines)


def _summary(func: PrimFunc, roots: Sequence[Level], target: Target) -> list[str]:
    flops = sum(level.flops for level in roots)
    params = [t for t in footprint(func.body) if any(t.buffer is p for p in func.params)]
    moved = [t.bytes for t in params]
    rate = ""
    if None not in moved and any(moved):
        rate = f", {flops / sum(b or 0 for b in moved):.3g} for each byte of its arguments"
    caches = ", ".join(f"{n} {size_text(b)}" for n, b in _caches(target)) or "no caches"
    return [f"{func.name}: {count_text(flops)} floating operations{rate}", f"{target.name}: {caches}"]


def _caches(target: Target) -> list[tuple[str, int]]:
    return [(n, b) for n, b in (("L1", target.l1), ("L2", target.l2), ("L3", target.l3)) if b]


def _home(size: int | None, target: Target) -> str:
    """The nearest memory that holds so many bytes."""
    if size is None:
        return "?"
    return next((name for name, room in _caches(target) if size <= room), "memory")


def _head(level: Level) -> str:
    s = level.stmt
    if isinstance(s, For):
        return brief(s).removesuffix(":").removeprefix("for ")
    where = "" if shown(s.predicate) == "True" else f" where {brief(s.predicate, 60)}"
    notes = f" {{{', '.join(f'{k}: {_value(v)}' for k, v in s.annotations.items())}}}" if s.annotations else ""
    return f"block {s.name}{where}{notes}"


def _parts(touched: Sequence[Touched]) -> str:
    return ", ".join(f"{_name(t)} {_amount(t)}" for t in touched)


def _name(t: Touched) -> str:
    return t.buffer.name if t.buffer.scope in ("", "global") else f"{t.buffer.name}@{t.buffer.scope}"


def _amount(t: Touched) -> str:
    return f"{brief(t.elements, 40)} elements" if t.bytes is None else size_text(t.bytes)


def size_text(size: int | None) -> str:
    """Bytes in the unit that fits: "512 B", "48 KiB", "1.5 MiB"."""
    if size is None:
        return "?"
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.4g} {unit}"


def count_text(count: float) -> str:
    """A count with a prefix: "96", "4.19 k", "2.15 G"."""
    for prefix in ("", " k", " M", " G", " T"):
        if count < 1000 or prefix == " T":
            break
        count /= 1000
    return f"{count:.3g}{prefix}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side; all but the first two and the cache's name to the right."""
    widths = [max(len(r[k]) for r in rows) for k in range(len(rows[0]))]
    left = {0, 1, 3}
    return [
        (_GAP.join(c.ljust(w) if k in left else c.rjust(w) for k, (c, w) in enumerate(zip(r, widths)))).rstrip()
        for r in rows
    ]


# --------------------------------------------------------------------------------------------------------------- steps


def step_text(step: Step) -> str:
    """A step as the call that would make it: `split("i", (None, 16))`."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(step).__name__).lower().replace("r_factor", "rfactor")
    given = []
    for f in fields(step):
        value = getattr(step, f.name)
        if f.default is MISSING and f.default_factory is MISSING:
            given.append(_value(value))
        elif value != f.default:
            given.append(f"{f.name}={_value(value)}")
    return f"{name}({', '.join(given)})"


def _value(v: Any) -> str:
    if isinstance(v, str):
        return f'"{v}"'
    if isinstance(v, tuple):
        return f"({', '.join(map(_value, v))}{',' if len(v) == 1 else ''})"
    if isinstance(v, Attrs):
        return f"{{{', '.join(f'{k}: {_value(x)}' for k, x in v.items())}}}"
    if v is None or isinstance(v, bool | int | float):
        return repr(v)
    if isinstance(v, Node) and not hasattr(v, "name"):
        return brief(v, 60)
    return str(getattr(v, "name", type(v).__name__))
