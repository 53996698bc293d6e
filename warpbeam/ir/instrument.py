"""Instruments: objects that watch passes run, time them, print what they do, or refuse them.

An instrument defines any of these methods: enter_pass_ctx(), exit_pass_ctx(), should_run(mod, info) -> bool,
run_before_pass(mod, info), run_after_pass(mod, info).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from warpbeam.ir.transform import PassInfo


class PassInstrument:
    """Base with hooks that do nothing; by default every pass may run."""

    def enter_pass_ctx(self) -> None:
        """The context was entered."""

    def exit_pass_ctx(self) -> None:
        """The context was left."""

    def should_run(self, mod: Any, info: PassInfo) -> bool:
        return True

    def run_before_pass(self, mod: Any, info: PassInfo) -> None:
        """A pass is about to run on `mod`."""

    def run_after_pass(self, mod: Any, info: PassInfo) -> None:
        """A pass has produced `mod`."""


def pass_instrument(cls: type) -> type:
    """Class decorator that makes a class with some of the hooks a full instrument."""
    return cls if issubclass(cls, PassInstrument) else type(cls.__name__, (cls, PassInstrument), {})


@dataclass(slots=True)
class _Timed:
    name: str
    start: float
    seconds: float = 0.0
    inner: list[_Timed] = field(default_factory=list)


class PassTimingInstrument(PassInstrument):
    """Measures each pass, nested passes within their parent. Read `render()` before the context is left."""

    def __init__(self) -> None:
        self.roots: list[_Timed] = []
        self._open: list[_Timed] = []

    def enter_pass_ctx(self) -> None:
        self.roots, self._open = [], []

    def run_before_pass(self, mod: Any, info: PassInfo) -> None:
        entry = _Timed(info.name, time.perf_counter())
        (self._open[-1].inner if self._open else self.roots).append(entry)
        self._open.append(entry)

    def run_after_pass(self, mod: Any, info: PassInfo) -> None:
        entry = self._open.pop()
        entry.seconds = time.perf_counter() - entry.start

    def rows(self) -> list[tuple[int, str, float]]:
        """(depth, pass, seconds) in the order in which passes began."""
        out: list[tuple[int, str, float]] = []
        todo = [(0, t) for t in reversed(self.roots)]
        while todo:
            depth, entry = todo.pop()
            out.append((depth, entry.name, entry.seconds))
            todo.extend((depth + 1, t) for t in reversed(entry.inner))
        return out

    def render(self) -> str:
        """A table of milliseconds per pass and percent of the whole."""
        total = sum(t.seconds for t in self.roots) or 1.0
        lines = [
            f"{'  ' * depth}{name}: {seconds * 1e3:.3f} ms ({100 * seconds / total:.1f} %)"
            for depth, name, seconds in self.rows()
        ]
        return "\n".join(lines)


class PassPrintingInstrument(PassInstrument):
    """Prints the module before or after the named passes."""

    def __init__(
        self,
        print_before_pass_names: Iterable[str] = (),
        print_after_pass_names: Iterable[str] = (),
        stream: TextIO | None = None,
        show: Callable[[Any], str] = str,
    ) -> None:
        self.before = frozenset(print_before_pass_names)
        self.after = frozenset(print_after_pass_names)
        self.stream = stream
        self.show = show

    def _print(self, when: str, mod: Any, info: PassInfo) -> None:
        print(f"// {when} {info.name}\n{self.show(mod)}", file=self.stream or sys.stdout)

    def run_before_pass(self, mod: Any, info: PassInfo) -> None:
        if info.name in self.before:
            self._print("before", mod, info)

    def run_after_pass(self, mod: Any, info: PassInfo) -> None:
        if info.name in self.after:
            self._print("after", mod, info)


class PrintBeforeAll(PassPrintingInstrument):
    """Prints the module before every pass."""

    def __init__(self, stream: TextIO | None = None, show: Callable[[Any], str] = str) -> None:
        super().__init__((), (), stream, show)

    def run_before_pass(self, mod: Any, info: PassInfo) -> None:
        self._print("before", mod, info)


class PrintAfterAll(PassPrintingInstrument):
    """Prints the module after every pass."""

    def __init__(self, stream: TextIO | None = None, show: Callable[[Any], str] = str) -> None:
        super().__init__((), (), stream, show)

    def run_after_pass(self, mod: Any, info: PassInfo) -> None:
        self._print("after", mod, info)


class DumpIR(PassInstrument):
    """Writes the module after every pass to `folder/NNN_pass.txt`."""

    def __init__(self, dump_dir: str | Path, refresh: bool = False, show: Callable[[Any], str] = str) -> None:
        self.folder = Path(dump_dir)
        self.show = show
        self.count = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        if refresh:
            for old in self.folder.glob("[0-9][0-9][0-9]_*.txt"):
                old.unlink()

    def run_after_pass(self, mod: Any, info: PassInfo) -> None:
        (self.folder / f"{self.count:03d}_{info.name}.txt").write_text(self.show(mod), encoding="utf-8")
        self.count += 1
