"""Damaged model files are refused by an error of ours, or computed as onnxruntime does; atheris where installed."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest

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
        except Exception:  # protobuf says in its own words that it cannot be read
            pass
    assert 10 < readable < 60 and len(set(found)) > 50


def test_a_sample_of_damaged_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--mutate", str(folder), "--count", "60", "--seconds", "60", "--save", str(folder / "failures")]
    assert main(args) == 0, capsys.readouterr().out
    assert "60 damaged files of 6 models" in capsys.readouterr().out


@pytest.mark.slow
def test_many_damaged_files(folder: Path) -> None:
    assert main(["--mutate", str(folder), "--count", "2000", "--seed", "9", "--save", str(folder / "failures")]) == 0


@pytest.mark.slow
def test_the_importer_under_atheris() -> None:
    """The importer on bytes that a coverage-guided search makes; any foreign exception ends it."""
    atheris = pytest.importorskip("atheris")
    from warpbeam.frontend.onnx import import_model
    from warpbeam.ir.diagnostics import WarpbeamError

    rng = random.Random(0)
    seeds = [grow(3, i).model.SerializeToString() for i in range(6)]
    for _ in range(500):
        provider = atheris.FuzzedDataProvider(mutate.mutant(rng.choice(seeds), rng))
        try:
            import_model(provider.ConsumeBytes(1 << 20))
        except WarpbeamError:
            continue
