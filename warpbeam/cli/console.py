"""What users see: results on stdout (tables, or one JSON document), progress on stderr and only on a terminal."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def emit_json(data: Any) -> None:
    """Prints one JSON document."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=_plain))


def table(rows: Sequence[Sequence[Any]], head: Sequence[str], title: str = "", left: Sequence[int] = (0,)) -> None:
    """Prints a table: framed on a terminal, plain columns elsewhere. `left`: columns that are words, not numbers."""
    cells = [[str(c) for c in row] for row in rows]
    if _decorated(sys.stdout):
        _rich_table(cells, head, title, left)
        return
    if title:
        print(title)
    widths = [max(len(row[c]) for row in [list(head), *cells]) for c in range(len(head))]
    for row in [list(head), *cells]:
        parts = [row[c].ljust(widths[c]) if c in left else row[c].rjust(widths[c]) for c in range(len(head))]
        print("  ".join(parts).rstrip())


def _decorated(stream: Any) -> bool:
    """Whether a stream takes colours and moving text: a terminal, and the package for it is installed."""
    return stream.isatty() and importlib.util.find_spec("rich") is not None


def _rich_table(cells: list[list[str]], head: Sequence[str], title: str, left: Sequence[int]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for c, name in enumerate(head):
        out.add_column(name, justify="left" if c in left else "right", overflow="fold")
    for row in cells:
        out.add_row(*(Text(cell) for cell in row))
    Console().print(out)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """A spinner on stderr while the block runs; nothing where stderr is not a terminal."""
    if not _decorated(sys.stderr):
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(what)):
        yield


def note(text: str) -> None:
    """Something worth knowing, on stderr: stdout is for results."""
    print(f"note: {text}", file=sys.stderr)


def seconds(value: float) -> str:
    """A duration with a fitting unit."""
    if value < 1e-3:
        return f"{value * 1e6:.2f} µs"
    return f"{value * 1e3:.3f} ms" if value < 1 else f"{value:.2f} s"


def size(count: float) -> str:
    """Bytes with a fitting unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def shape(extents: Sequence[Any]) -> str:
    """A shape in brackets; expressions of symbols as text."""
    from warpbeam.runtime.shape_expr import show

    return "[" + ", ".join(str(e) if isinstance(e, int) else show(e) for e in extents) + "]"


def _plain(value: Any) -> Any:
    """NumPy numbers and other leaves as JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, set | frozenset | tuple) else str(value)
