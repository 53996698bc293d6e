"""Limits of what a compilation may take, in Python and on the command line."""

import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import warpbeam
from warpbeam.cli.main import main
from warpbeam.driver.workers import Compiler
from warpbeam.ir.diagnostics import CompileError, WarpbeamError


def model(body: str, result: str = "float[64, 64]") -> Any:
    head = '<ir_version: 10, opset_import: ["" : 21]>'
    return onnx.parser.parse_model(f"{head} g (float[64, 64] x) => ({result} y) {{ {body} }}")


TWICE = "a = Transpose(x)  b = Mul(a, x)  c = MatMul(b, b)  y = MatMul(b, c)"  # it needs 16 KiB each for b and c


def test_a_model_that_needs_more_memory_is_refused() -> None:
    x = np.eye(64, dtype=np.float32)
    np.testing.assert_array_equal(warpbeam.compile(model(TWICE), max_memory=1 << 20).run({"x": x})["y"], x)
    warpbeam.compile(model(TWICE))
    for _ in range(2):  # what was compiled without the limit is in the cache
        with pytest.raises(CompileError, match=r"the model needs \d+ bytes"):
            warpbeam.compile(model(TWICE), max_memory=1 << 14)


def test_a_tensor_that_needs_more_memory_is_refused_before_it_is_made() -> None:
    body = "s = Constant <value_ints = [4096, 64, 64]> ()  e = Expand(x, s)  y = ReduceMax <keepdims = 0> (e)"
    with pytest.raises(WarpbeamError, match="its result needs 67108864 bytes, the limit is 1048576"):
        warpbeam.compile(model(body, "float"), max_memory=1 << 20, cache=False)


def test_compiling_ends_when_its_time_is_over() -> None:
    with pytest.raises(CompileError, match="compiling takes more than 1e-06 s") as error:
        warpbeam.compile(model("y = Sin(x)"), max_compile_seconds=1e-6, cache=False)
    assert "max_compile_seconds" in str(error.value)
    warpbeam.compile(model("y = Sin(x)"), max_compile_seconds=1000, cache=False)


def test_machine_code_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compiler, "submit", lambda *a, **k: Future())  # never done
    began = time.monotonic()
    with pytest.raises(CompileError, match="compiling takes more than 2 s") as error:
        warpbeam.compile(model("y = Sin(x)"), max_compile_seconds=2, cache=False)
    assert "machine code" in str(error.value) and time.monotonic() - began < 60


@pytest.mark.parametrize("limits", [{"max_memory": 0}, {"max_compile_seconds": -1.0}, {"max_memory": True}])
def test_limits_are_numbers_above_zero(limits: dict[str, Any]) -> None:
    with pytest.raises(CompileError, match=f"{next(iter(limits))}="):
        warpbeam.compile(model("y = Abs(x)"), **limits)


def test_the_command_line_has_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = str(tmp_path / "m.onnx"), str(tmp_path / "m.wb")
    onnx.save(model(TWICE), path)

    def run(*options: str) -> int:
        return main(["compile", path, "-o", out, "--no-cache", *options])

    assert run("--max-memory", "1M", "--max-compile-seconds", "600") == 0
    assert run("--max-memory", "16K") == 1
    assert "the limit is 16384" in capsys.readouterr().err
    assert run("--max-compile-seconds", "0.000001") == 1
    assert "compiling takes more than" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--max-memory", "2 GB")
