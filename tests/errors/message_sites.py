"""Where the schedule packages, the te language, topi and calls of compiled functions raise, read from their source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import warpbeam

ROOT = Path(warpbeam.__file__).parent
FILES = [
    *sorted(ROOT.glob("te/**/*.py")), *sorted(ROOT.glob("tir/schedule/*.py")), *sorted(ROOT.glob("topi/**/*.py")),
    ROOT / "driver" / "te_build.py", ROOT / "runtime" / "function_call.py",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """One place that raises: lines first..last of a file. text: its message, with {} for what is put in."""

    file: str
    first: int
    last: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


def sites() -> list[Site]:
    """Every `raise Error("…")` and `require(condition, "…")`; the function `require` itself is none."""
    return [s for path in FILES for s in _of(path)]


def _of(path: Path) -> Iterator[Site]:
    file = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call):
            continue
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if isinstance(node, ast.Raise) and name != "AttributeError":
            message = call.args[0] if call.args else None
        elif not isinstance(node, ast.Raise) and name == "require" and len(call.args) > 1:
            message = call.args[1]
        else:
            continue
        if file != "te/schedule/errors.py":
            yield Site(file, node.lineno, node.end_lineno or node.lineno, _text(message, call))


def _text(message: ast.expr | None, call: ast.Call) -> str:
    if isinstance(message, ast.Constant):
        return str(message.value)
    if isinstance(message, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in message.values)
    return ast.unparse(call)


def hit(error: BaseException) -> set[tuple[str, int]]:
    """The lines of our files that an error went through, with those of the errors it came from."""
    found: set[tuple[str, int]] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        e = todo.pop()
        if e is None:
            continue
        todo += [e.__cause__, e.__context__]
        trace = e.__traceback__
        while trace is not None:
            path = Path(trace.tb_frame.f_code.co_filename)
            if path.is_relative_to(ROOT):
                found.add((str(path.relative_to(ROOT)), trace.tb_lineno))
            trace = trace.tb_next
    return found
