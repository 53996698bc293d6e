"""One file for several machines, and models for machines other than this one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import warpbeam
from warpbeam import op
from warpbeam.ir.diagnostics import CompileError
from warpbeam.relay.expr import Function, IRModule, const, var
from warpbeam.runtime import Artifact, CompiledModel, Module, RunError
from warpbeam.runtime.compiled import fits_here


def network() -> IRModule:
    rng = np.random.default_rng(0)
    x = var("x", shape=(1, 6, 9, 9))
    w = const(rng.standard_normal((20, 6, 3, 3)).astype(np.float32))
    y = op.get("nn.relu")(op.get("nn.conv2d")(x, w, padding=(1, 1, 1, 1)))
    dense = const(rng.standard_normal((5, 20 * 81)).astype(np.float32))
    flat = op.get("reshape")(y, newshape=(1, 20 * 81))
    return IRModule.from_expr(Function((x,), op.get("nn.softmax")(op.get("nn.dense")(flat, dense))))


LEVELS = ["generic-x86-64-v4", "generic-x86-64-v3", "generic-x86-64-v2", "generic-aarch64"]


@pytest.fixture(scope="module")
def several() -> Artifact:
    model = warpbeam.compile(network(), target=LEVELS, cache=False)
    whole: Artifact = model.whole
    return whole


def test_each_level_gives_the_same_answer(several: Artifact) -> None:
    assert several.variants == LEVELS[1:]
    x = np.random.default_rng(1).standard_normal((1, 6, 9, 9)).astype(np.float32)
    wanted = warpbeam.compile(network(), cache=False)(x)
    parts = [several.chosen(lambda m: True), *map(several.variant, several.variants)]
    ran = 0
    for part in filter(lambda p: fits_here(p.manifest), parts):
        assert np.abs(Module(part)(x) - wanted).max() <= 4 * (6 * 9 + 20 * 81) * 2.0**-24
        ran += 1
    assert ran >= 1, "none of the levels runs on the machine that tests"


def test_the_first_that_fits_is_taken_and_weights_are_shared(several: Artifact, tmp_path: Path) -> None:
    several.save(tmp_path / "m.wb")
    module = warpbeam.load(tmp_path / "m.wb")
    parts = [several.chosen(lambda m: True), *map(several.variant, several.variants)]
    first = next(p for p in parts if fits_here(p.manifest))
    assert module.artifact.manifest == first.manifest
    assert [s.kind for s in several.sections.values()].count("constants") == 1
    for part in parts:
        assert part.data("constants") is several.data("constants")


def test_a_model_for_another_machine_is_saved_and_exported_but_not_run(tmp_path: Path) -> None:
    away = "generic-aarch64" if fits_here(warpbeam.compile(network()).artifact.manifest) else LEVELS[0]
    model = warpbeam.compile(network(), target=away, cache=False)
    if isinstance(model, Module):
        pytest.skip("this machine is that machine")
    assert type(model) is CompiledModel and model.inputs[0].shape == (1, 6, 9, 9)
    with pytest.raises(RunError, match="compiled for aarch64"):
        model(np.zeros((1, 6, 9, 9), np.float32))
    with pytest.raises(RunError, match="this machine is"):
        model.run({})
    done = model.export_library(tmp_path / "net.so")
    assert done.files[0].read_bytes()[18:20] == b"\xb7\0"  # EM_AARCH64
    model.save(tmp_path / "m.wb")
    x = np.ones((1, 6, 9, 9), np.float32)
    with pytest.warns(UserWarning, match="another processor"):
        again = warpbeam.load(tmp_path / "m.wb")
    assert np.abs(again(x) - warpbeam.compile(network())(x)).max() <= 4 * (6 * 9 + 20 * 81) * 2.0**-24


def test_targets_are_distinct_and_there_is_one() -> None:
    with pytest.raises(CompileError, match="each machine can be there once"):
        warpbeam.compile(network(), target=["generic-aarch64", "generic-aarch64"])
    with pytest.raises(CompileError, match="no target"):
        warpbeam.compile(network(), target=[])
