"""No message without a test: every place that raises is reached by a case, or by a test that elsewhere.txt names.

Its lines are `file: message | tests/…::test`: that test, run with message_record.py, reached the place. Where this
test fails, a message was added or changed: add a case to a test_messages_*.py (or a line, if another test has it),
or make the message an assertion where nobody can get it.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import message_sites
import test_messages_build
import test_messages_te
import test_messages_tir
import test_messages_topi

TESTS = Path(__file__).parents[1]


def _elsewhere() -> dict[str, str]:
    rows = (Path(__file__).parent / "elsewhere.txt").read_text(encoding="utf-8").splitlines()
    return dict(row.rsplit(" | ", 1) for row in rows)  # type: ignore[misc]


def _reached() -> set[tuple[str, int]]:
    """Lines of our files that the cases' errors come from."""
    lines: set[tuple[str, int]] = set()
    for table in (test_messages_te, test_messages_tir, test_messages_topi, test_messages_build):
        for _, program in table.CASES:
            try:
                program()
            except Exception as error:
                lines |= message_sites.hit(error)
    return lines


def test_every_message_has_a_test() -> None:
    reached, elsewhere = _reached(), _elsewhere()
    lacking = [
        str(s)
        for s in message_sites.sites()
        if str(s) not in elsewhere and not any(f == s.file and s.first <= line <= s.last for f, line in reached)
    ]
    assert not lacking


def test_the_tests_elsewhere_exist() -> None:
    """And the places they are named for: nothing stale is listed."""
    places = {str(s) for s in message_sites.sites()}
    found: dict[str, set[str]] = {}
    for place, test in _elsewhere().items():
        file, _, name = test.partition("::")
        path = TESTS.parent / file
        if file not in found:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found[file] = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        assert re.sub(r"\[.*", "", name) in found[file], test
        assert place in places, place


def test_the_tests_elsewhere_reach_their_places() -> None:
    rows = _elsewhere()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "message_record", "-p", "no:cacheprovider"]
    tests = sorted(set(rows.values()))
    made = subprocess.run([*command, *tests], cwd=TESTS.parent, env=env, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    seen = {line.removeprefix("MESSAGE ") for line in made.stdout.splitlines() if line.startswith("MESSAGE ")}
    rest = [row for row in (" | ".join(r) for r in rows.items()) if row not in seen]
    assert [row for row in rest if not any(line.startswith(f"{row}[") for line in seen)] == []  # of parametrized tests


def test_the_inventory_sees_what_it_should() -> None:
    texts = [s.text for s in message_sites.sites()]
    assert len(texts) > 350
    assert "Cannot split by {}" in texts and "there is no buffer {}" in texts  # require(…) and raise …
