"""A plugin of pytest that notes which tests reach which message:

    python -m pytest -p message_record tests/tir tests/topi …        (with tests/errors on the path)

Its last lines are in the form of elsewhere.txt: places, each with a test that reaches it, the first test first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import message_sites

from warpbeam.ir.diagnostics import WarpbeamError

reached: dict[tuple[str, int], dict[str, None]] = {}  # (file, line) -> tests, in the order in which they ran


def _note(lines: set[tuple[str, int]]) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
    for place in lines:
        if test:
            reached.setdefault(place, {})[test] = None


def pytest_configure(config: Any) -> None:
    """Watches every error of ours where it is made."""
    make = WarpbeamError.__init__

    def making(self: WarpbeamError, *args: Any, **keys: Any) -> None:
        frame = sys._getframe(1)
        lines = set()
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(message_sites.ROOT):
                lines.add((str(path.relative_to(message_sites.ROOT)), frame.f_lineno))
            frame = frame.f_back  # type: ignore[assignment]
        _note(lines)
        make(self, *args, **keys)

    WarpbeamError.__init__ = making  # type: ignore[method-assign]


def pytest_runtest_makereport(item: Any, call: Any) -> None:
    """And other errors that tests expect, while their traces are there."""
    if call.excinfo is not None:
        _note(message_sites.hit(call.excinfo.value))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for site in message_sites.sites():
        at = [tests for (file, line), tests in reached.items() if file == site.file and site.first <= line <= site.last]
        for test in dict.fromkeys(t for tests in at for t in tests):
            terminalreporter.write_line(f"MESSAGE {site} | {test}")
