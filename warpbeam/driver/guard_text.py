"""What measuring decided, as lines of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The report's lines."""
    for row in rows:
        if "kernel" not in row:
            yield f"guard {row['target']}: nothing was measured, {row['out']}"
            continue
        how = "from the cache" if row["cached"] else f"{row['seconds']:.2f} s"
        yield f"guard {row['kernel']} {', '.join(row['nodes'][:3])} ({how})"
        for k, v in enumerate(row["variants"]):
            mark = "kept" if k == row["kept"] else ""
            cycles = "-" if v["predicted_cycles"] is None else f"{v['predicted_cycles'] / 1e3:.0f}k cycles"
            taken = "not measured" if v["median_us"] is None else f"{v['median_us']:.1f} µs ({v['measurements']} times)"
            note = f"; {v['out']}" if v["out"] else ""
            yield f"  {mark:<5}{v['variant']}: predicted {cycles}, measured {taken}{note}"
