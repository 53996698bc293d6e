"""What a reduced model must still do: end badly, be wrong, be refused, or make a command fail as before."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

import warpbeam
from warpbeam.driver.verify import difference, outputs_of
from warpbeam.frontend.onnx import import_model
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.relay import interp
from warpbeam.testing.fuzz import crew
from warpbeam.testing.reduce import Arrays, Check

MEMORY = 6 << 30


def check_of(text: str, opt_level: int = 3, seconds: float = 60.0) -> Check:
    """The check that a word or a shell command names.

    Args:
        text: "crash": a signal, a time-out or an exception that is no error of ours; "refused": an error of ours that
            says what it said at first, names and numbers aside; "wrong": other outputs than the interpreter's; else a
            shell command, which gets the model's path for `{}` (or as its last word), and must end with the exit code
            with which it ended at first. Zero at first is no failure.
    """
    if text not in ("crash", "refused", "wrong"):
        return _commanded(text, seconds)
    first: list[str] = []

    def check(model: ModelProto, inputs: Arrays) -> bool:
        kind, detail = outcome(model, inputs, opt_level, seconds)
        if kind != text:
            return False
        if not first:
            first.append(detail)
        return text == "wrong" or detail == first[0]

    return check


def outcome(model: ModelProto, inputs: Arrays, opt_level: int, seconds: float) -> tuple[str, str]:
    """("ok" | "crash" | "refused" | "wrong", what exactly), found in a process of its own."""
    work: Callable[[Any, Any], tuple[str, str]] = lambda task, note: _try(task, inputs, opt_level)  # noqa: E731
    done = next(iter(crew.run_all([model], work, 1, seconds, MEMORY)))
    if done.kind == "done":
        return done.value  # type: ignore[no-any-return]
    if done.kind == "raised":
        return "crash", done.value.strip().splitlines()[-1].split(":")[0]
    return "crash", done.kind


def _try(model: ModelProto, inputs: Arrays, opt_level: int) -> tuple[str, str]:
    try:
        module = warpbeam.compile(model, opt_level=opt_level, workers=1, cache=False)
        given = {i.name: inputs[i.name] for i in module.inputs}
        got = module.run(given)
        found = import_model(model)
        want = outputs_of(interp.evaluate(found.module, [inputs[n] for n in found.inputs], dtype="float64"))
    except WarpbeamError as e:
        return "refused", type(e).__name__ + re.sub(r"'[^']*'|[\d, ()*/+-]+|\bn\d+\b", "", str(e).split("\n")[0])
    for name, expected in zip(found.outputs, want, strict=True):
        if not np.all(np.isfinite(expected.astype(np.float64))):
            continue
        worst = difference(name, "interpreter", got[name], expected)
        if not worst.passed:
            return "wrong", name
    return "ok", ""


def _commanded(command: str, seconds: float) -> Check:
    first: list[int] = []

    def check(model: ModelProto, inputs: Arrays) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
            np.savez(Path(folder) / "inputs.npz", **inputs)
            line = command.replace("{}", str(path)) if "{}" in command else f"{command} {path}"
            try:
                code = subprocess.run(line, shell=True, capture_output=True, timeout=seconds).returncode
            except subprocess.TimeoutExpired:
                code = -1
        first.append(code)
        return code != 0 and code == first[0]

    return check
