"""Executes every example of the README and the documentation, page by page, from top to bottom.

A `python` fence is executed; in an `sh` fence the lines that start with `warpbeam` are, in this process. `no-run` after
the language excludes a fence; `setup="..."` names a command line to run first; a `text output` fence is what the
example before it prints. The examples of one page share one folder and one set of variables.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from warpbeam.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)\)")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A fenced block: where it is, its language, words after the language, its text."""

    line: int
    language: str
    notes: str
    text: str


def snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        yield Snippet(text.count("\n", 0, found.start()) + 1, found[1], found[2], found[3])


def commands(snippet: Snippet) -> list[str]:
    """The command lines of a snippet that are ours."""
    setup = re.search(r'setup="([^"]*)"', snippet.notes)
    lines = [setup[1]] if setup else []
    if snippet.language == "sh":
        lines += [line for line in snippet.text.splitlines() if line.startswith("warpbeam ")]
    return lines


def execute(snippet: Snippet, page: Path, variables: dict[str, Any]) -> str:
    """Runs one snippet; gives what its Python code printed."""
    for line in commands(snippet):
        code = main(shlex.split(line)[1:])
        assert code == 0, f"{page.name}:{snippet.line}: {line} gave exit code {code}"
    printed = io.StringIO()
    if snippet.language == "python":
        place = "\n" * snippet.line + snippet.text  # so that tracebacks show the page's line numbers
        with contextlib.redirect_stdout(printed):
            exec(compile(place, str(page), "exec"), variables)
    return printed.getvalue()


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all pages, private to this run."""
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARPBEAM_CACHE_DIR", str(folder))
        yield folder


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    found = [s for s in snippets(page) if "no-run" not in s.notes]
    if not any(commands(s) or s.language == "python" for s in found):
        return
    monkeypatch.chdir(tmp_path)
    variables: dict[str, Any] = {"__name__": "page"}
    printed = ""
    for snippet in found:
        if snippet.language == "text" and "output" in snippet.notes:
            assert printed.strip() == snippet.text.strip(), f"{page.name}:{snippet.line}"
        else:
            printed = execute(snippet, page, variables)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links(page: Path) -> None:
    """Relative links lead to files."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    lost = [t for t in _LINK.findall(text) if "://" not in t and not (page.parent / t).exists()]
    assert not lost


def test_readme_test_command_is_found() -> None:
    """The script of the continuous integration takes its command from the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("<!-- test -->")[2].partition("<!-- end -->")[0]
    assert "pytest" in block and block.count("```") == 2
    assert os.access(ROOT / ".ci" / "run", os.X_OK) and os.access(ROOT / "scripts" / "check", os.X_OK)


def test_every_option_is_documented() -> None:
    from warpbeam.cli.main import COMMANDS, build_parser

    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    lacking = []
    for name in COMMANDS:
        parser, _ = build_parser(name)
        choices = next(a.choices for a in parser._actions if isinstance(a.choices, dict))
        for action in choices[name]._actions:
            longest = max(action.option_strings, key=len, default="")
            if longest not in ("", "--help") and f"`{longest}" not in page and f" {longest}" not in page:
                lacking.append(f"{name} {longest}")
        if f"## {name}\n" not in page:
            lacking.append(name)
    assert not lacking
