"""Rows of results as Markdown and JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .harness import Result, Row


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": cores, "system": platform.system(), "python": sys.version.split()[0]}


def finish(outcomes: Sequence[Any], path: str) -> int:
    """Writes dataclasses with a field `ok` as JSON, if a path is given; gives the exit code, 0 where all are ok."""
    if path:
        data = {"machine": machine(), "cases": [asdict(o) for o in outcomes]}
        Path(path).write_text(json.dumps(data, indent=1) + "\n")
    return 0 if outcomes and all(o.ok for o in outcomes) else 1


def _time(value: float, unit: float) -> str:
    scaled = value * unit
    return f"{scaled:.3g}" if scaled < 10 else f"{scaled:.4g}" if scaled < 1000 else f"{scaled:.0f}"


def _cell(result: Result, best: bool, unit: float, precision: str) -> str:
    if result.error:
        return "failed"
    text = f"{_time(result.median, unit)} [{_time(result.p10, unit)}-{_time(result.p90, unit)}]"
    if result.precision != precision:
        text += f" {result.precision}"
    return f"**{text}**" if best else text


def geomean(values: list[float]) -> float:
    """Geometric mean; NaN of nothing."""
    return math.exp(sum(math.log(v) for v in values) / len(values)) if values else math.nan


def _line(row: Row, peers: list[str], unit: float) -> str:
    ok = [r.median for n, r in row.results.items() if not r.error and n != "peak"]
    fastest = min(ok, default=0.0)
    ratio, ours, best, peak = row.ratio(), row.results.get("warpbeam"), row.best_peer(), row.peak()
    shown = ours if ours and not ours.error else best
    precision = shown.precision if shown else ""  # that of a cell which does not say another
    cells = [_cell(row.results[p], row.results[p].median == fastest, unit, precision) for p in peers]
    rate = row.flops / shown.median if shown else 0.0
    percent = f"{100 * rate / peak:.0f} %" if peak and rate else "-"
    diffs = [r.rel_diff for n, r in row.results.items() if r.rel_diff is not None and n != "ort"]
    own = ours.rel_diff if ours and ours.rel_diff is not None else max(diffs, default=None)
    diff = f"{own:.0e}" if own is not None else "-"
    return "|".join(
        [
            "",
            row.name,
            f"{row.flops / 1e9:.3g}",
            precision,
            *cells,
            f"{ratio:.2f}" if ratio else "-",
            f"{rate / 1e9:.0f}" if rate else "-",
            percent,
            diff,
            f"{row.foreign:.1f}",
            "",
        ]
    )


def last_line(row: Row, peers: list[str], unit: float) -> str:
    """One finished row, for progress."""
    return _line(row, [p for p in peers if p != "peak"], unit)


def markdown(rows: list[Row], peers: list[str], unit: float = 1e3, label: str = "ms") -> str:
    """One table a thread count; then load times, memory and differences a peer."""
    shown, out = [p for p in peers if p != "peak"], []
    for threads in sorted({r.threads for r in rows}):
        group = [r for r in rows if r.threads == threads]
        out += [
            f"\n## {threads} thread(s), median [p10-p90] in {label}; fastest in bold\n",
            "|case|GFLOP|precision|"
            + "|".join(shown)
            + "|best peer / ours|GFLOP/s|of FMA peak|max rel diff|foreign load|",
            "|" + "-|" * (len(shown) + 8),
        ]
        out += [_line(r, shown, unit) for r in group]
        ratios = [v for v in (r.ratio() for r in group) if v]
        if ratios:
            out.append(
                f"\nGeometric mean of best peer / ours: {geomean(ratios):.3f} over {len(ratios)} cases, "
                f"worst {min(ratios):.3f}."
            )
        out += [
            "\nLoad s + first run s / peak MB / max rel diff to onnxruntime:\n",
            "|case|" + "|".join(shown) + "|",
            "|" + "-|" * (len(shown) + 1),
        ]
        out += ["|".join(["", r.name, *(_facts(r.results[p]) for p in shown), ""]) for r in group]
    return "\n".join(out).strip() + "\n"


def _facts(result: Result) -> str:
    if result.error:
        return result.error.replace("|", "/").replace("\n", " ")[:80]
    diff = "-" if result.rel_diff is None else f"{result.rel_diff:.0e}"
    return f"{result.load_s:.2f} + {result.first_s:.2f} / {result.rss / 1e6:.0f} / {diff}"


def write(rows: list[Row], peers: list[str], json_path: str, md_path: str, unit: float, label: str) -> str:
    """Write the requested files; returns the Markdown."""
    text = markdown(rows, peers, unit, label)
    versions = {p: r.results[p].version for r in rows for p in peers if p in r.results and r.results[p].version}
    if json_path:
        data = {"machine": machine(), "versions": versions, "rows": [r.to_json() for r in rows]}
        Path(json_path).write_text(json.dumps(data, indent=1) + "\n")
    if md_path:
        host = ", ".join(f"{k} {v}" for k, v in {**machine(), **versions}.items())
        Path(md_path).write_text(f"{host}\n\n{text}")
    return text
