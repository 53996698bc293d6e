"""Damaged artefacts: an error of ours or the right answer, never a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_helpers import cnn, dynamic

import warpbeam

SCRIPT = Path(__file__).with_name("mutate_artifact.py")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A model, another one, inputs of the first and what it computes of them."""
    folder = tmp_path_factory.mktemp("mutations")
    module = warpbeam.compile(dynamic(), cache=False, workers=1)
    module.save(folder / "m.wb")
    warpbeam.compile(cnn(), cache=False, workers=1).save(folder / "other.wb")
    arrays = module.random_inputs(batch=2, rows=3)
    np.savez(folder / "in.npz", **arrays)
    np.savez(folder / "out.npz", **module.run(arrays))
    return [str(folder / name) for name in ("m.wb", "other.wb", "in.npz", "out.npz")]


def mutate(files: list[str], seed: int, count: int) -> tuple[int, int]:
    """How many changed files were refused, and how many gave the right answer."""
    done = subprocess.run([sys.executable, str(SCRIPT), *files, str(seed), str(count)], capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"
    refused, right = map(int, done.stdout.split())
    assert refused + right == count
    return refused, right


def test_two_hundred_damaged_files(files: list[str]) -> None:
    refused, _ = mutate(files, 1, 200)
    assert refused > 150


@pytest.mark.slow
def test_five_thousand_damaged_files(files: list[str]) -> None:
    for seed in range(5):
        mutate(files, 100 + seed, 1000)
