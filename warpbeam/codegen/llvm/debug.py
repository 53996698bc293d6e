"""Lines of the program's text behind its instructions, as LLVM's debug locations.

Statements are interned, so an equal statement at two places is one object: its line is found by following the walk of
the printer of code through the list of lines, not by looking the statement up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from warpbeam.tir import stmt as S
from warpbeam.tir.text.printer import numbered

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.emitter import Emitter

_UNIT, _FILE, _FLAG, _TYPE, _TYPES, _FIRST = range(6)


class DebugInfo:
    """The metadata of one module: a line table and nothing else."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: dict[str, int] = {}

    def add(self, node: str) -> int:
        """The number of a metadata node."""
        return self.nodes.setdefault(node, _FIRST + len(self.nodes))

    def text(self) -> list[str]:
        """Lines for the end of the module."""
        unit = 'language: DW_LANG_C99, producer: "warpbeam", isOptimized: true, runtimeVersion: 0'
        return [
            f"!llvm.dbg.cu = !{{!{_UNIT}}}",
            f"!llvm.module.flags = !{{!{_FLAG}}}",
            f"!{_UNIT} = distinct !DICompileUnit({unit}, file: !{_FILE}, emissionKind: LineTablesOnly)",
            f'!{_FILE} = !DIFile(filename: "{self.name}.tir", directory: "")',
            f'!{_FLAG} = !{{i32 2, !"Debug Info Version", i32 3}}',
            f"!{_TYPE} = !DISubroutineType(types: !{_TYPES})",
            f"!{_TYPES} = !{{}}",
            *(f"!{number} = {node}" for node, number in self.nodes.items()),
        ]


class Lines:
    """Which line of the text is being printed; sets the mark behind instructions.

    entries: (line, statement, index behind the statement's own part) for each printed statement in order.
    """

    def __init__(self, info: DebugInfo, func: S.PrimFunc) -> None:
        self.info = info
        places = numbered(func)[1]
        self.entries = [(line, stmt, _end(places, k)) for k, (line, _, stmt) in enumerate(places)]
        self.window = (0, len(places))
        self.behind: tuple[int, int] | None = None  # the window behind the statement that is being visited
        self.line = 1
        self.function = 0

    def share(self, printer: Emitter, name: str) -> str:
        """Lines of another function printed from the same text, at the place reached; gives its ` !dbg !n`."""
        lines = Lines.__new__(Lines)
        lines.info, lines.entries, lines.window, lines.line = self.info, self.entries, self.window, self.line
        lines.behind = None
        words = f'name: "{name}", file: !{_FILE}, line: {self.line}, type: !{_TYPE}, unit: !{_UNIT}'
        lines.function = self.info.add(f"distinct !DISubprogram({words}, spFlags: DISPFlagDefinition)")
        printer.lines = lines  # type: ignore[attr-defined]
        lines._set(printer)
        return f" !dbg !{lines.function}"

    def enter(self, printer: Emitter, stmt: S.Stmt) -> None:
        """Goes to the next place of a statement among those directly inside here; stays where it is not printed."""
        at, end = self.window
        while at < end:
            line, found, behind = self.entries[at]
            if found is stmt:
                self.window, self.line, self.behind = (at + 1, behind), line, self.behind or (behind, end)
                self._set(printer)
                return
            at = behind

    @contextmanager
    def visit(self, printer: Emitter) -> Iterator[None]:
        """Around one statement: what follows goes on behind it."""
        saved, self.behind, line = self.behind, None, self.line
        yield
        self.window = self.behind or self.window
        self.behind, self.line = saved, line
        self._set(printer)

    def _set(self, printer: Emitter) -> None:
        number = self.info.add(f"!DILocation(line: {self.line}, column: 0, scope: !{self.function})")
        printer.mark = f", !dbg !{number}"


def _end(places: list[tuple[int, int, S.Stmt]], k: int) -> int:
    """Index of the first place behind what statement k holds: bindings hold what follows at the same depth too."""
    _, depth, stmt = places[k]
    least = depth if isinstance(stmt, S.LetStmt | S.Allocate) else depth + 1
    end = k + 1
    while end < len(places) and places[end][1] >= least:
        end += 1
    return end
