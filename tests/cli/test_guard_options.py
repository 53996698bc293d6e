"""`--guard` and `doctor --measure` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from warpbeam.driver import calibrate
from warpbeam.target import detect
from warpbeam.target.host import measured, measured_path

Run = Callable[..., tuple[int, str, str]]
VALUES = {"fma_rate": 1.5, "l2_rate": 30.0, "l3_rate": 20.0, "memory_rate": 4.0, "fork_cycles": 3000}


def test_compile_says_what_was_measured_and_kept(run: Run, model: str, tmp_path: Path) -> None:
    out = str(tmp_path / "m.wb")
    code, text, _ = run("compile", model, "-o", out, "--guard=0.2", "--json", "--no-cache")
    assert code == 0
    rows = json.loads(text)["guard"]
    assert rows and all(row["variants"][row["kept"]]["out"] in ("", "slower") for row in rows)
    code, text, _ = run("compile", model, "-o", out, "--json", "--no-cache")
    assert code == 0 and json.loads(text)["guard"] == []


@pytest.mark.parametrize("words", [["--guard=0"], ["--guard", "soon"], ["-O5"]])
def test_wrong_budgets_and_levels_are_refused(run: Run, model: str, words: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run("compile", model, *words)
    assert error.value.code == 2


def test_doctor_measures_and_keeps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "measure", lambda target: VALUES)
    code, text, _ = run("doctor", "--measure", "--json")
    found = json.loads(text)
    assert code == 0 and found["measured"]["a parallel loop costs"] == "3000 cycles"
    assert found["measured"]["kept in"] == str(measured_path(detect()))
    assert measured(detect()) == VALUES
    measured_path(detect()).unlink()


def test_doctor_says_what_was_out_of_all_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "measure", lambda target: {**VALUES, "memory_rate": 0.0})
    code, _, err = run("doctor", "--measure")
    assert code == 1 and "memory_rate was measured as 0" in err
    assert not measured_path(detect()).exists()
