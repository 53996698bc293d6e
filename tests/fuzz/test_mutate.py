"""Damaged model files are refused by an error of ours, or computed as onnxruntime does.

Where atheris is installed, the readers of untrusted bytes are also searched guided by coverage.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import DecodeError

from warpbeam.testing.fuzz import mutate
from warpbeam.testing.fuzz.__main__ import main
from warpbeam.testing.fuzz.grow import grow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        onnx.save(grow(3, index).model, tmp_path / f"{index}.onnx")
    return tmp_path


def test_damage_repeats_and_is_of_many_kinds(folder: Path) -> None:
    paths = mutate.sources([str(folder)])
    found = [mutate.damaged(paths, 0, i) for i in range(60)]
    assert found == [mutate.damaged(paths, 0, i) for i in range(60)]
    readable = 0
    for data in found:
        try:
            onnx.load_from_string(data)
            readable += 1
        except DecodeError:
            pass
    assert 10 < readable < 60 and len(set(found)) > 50


def test_a_sample_of_damaged_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--mutate", str(folder), "--count", "60", "--seconds", "60", "--save", str(folder / "failures")]
    assert main(args) == 0, capsys.readouterr().out
    assert "60 damaged files of 6 models" in capsys.readouterr().out


@pytest.mark.slow
def test_many_damaged_files(folder: Path) -> None:
    assert main(["--mutate", str(folder), "--count", "2000", "--seed", "9", "--save", str(folder / "failures")]) == 0


GUIDED = Path(__file__).with_name("guided.py")


def guided(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process of its own, in a folder."""
    pytest.importorskip("atheris", reason="atheris is not installed")
    paths = os.pathsep.join([str(GUIDED.parent), str(GUIDED.parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *arguments, "-timeout=20", "-rss_limit_mb=4096"]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
                          timeout=300, errors="replace")  # fmt: skip


def searched(target: str, folder: Path, limit: str) -> None:
    done = guided([str(GUIDED), target, str(folder / "inputs"), limit], folder)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr and not list(folder.glob("crash-*"))


def test_a_search_of_the_importer_guided_by_coverage(tmp_path: Path) -> None:
    searched("onnx", tmp_path, "-runs=500")
    assert len(list((tmp_path / "inputs").iterdir())) > 12  # inputs that reached new code were kept


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "relay", "artefact", "rpc"])
def test_every_reader_of_bytes_searched_for_a_minute(target: str, tmp_path: Path) -> None:
    searched(target, tmp_path, "-max_total_time=60")


def test_the_search_finds_what_only_coverage_leads_to(tmp_path: Path) -> None:
    program = """if True:
        import sys, atheris, guided
        @atheris.instrument_func
        def read(data):
            if data[:1] == b"w":
                if data[1:2] == b"b":
                    if data[2:3] == b"!":
                        raise KeyError("foreign")
        guided.TARGETS["made"] = guided.Target(read, lambda: iter([b"...."]))
        guided.main()
    """
    done = guided(["-c", program, "made", "inputs", "-runs=2000000", "-seed=1"], tmp_path)
    assert done.returncode != 0 and "KeyError: 'foreign'" in done.stdout + done.stderr
    (found,) = tmp_path.glob("crash-*")
    assert found.read_bytes().startswith(b"wb!")
