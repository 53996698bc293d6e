"""The commands: what they print, write and return."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import warpbeam
from warpbeam.cli import files, options
from warpbeam.cli.main import COMMANDS, build_parser, main
from warpbeam.runtime.errors import RunError

Run = Callable[..., tuple[int, str, str]]


# ------------------------------------------------------------------------------------------------------ the parser


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0 and name in capsys.readouterr().out


def test_no_command_prints_help(run: Run) -> None:
    code, out, _ = run()
    assert code == 2 and "commands:" in out


def test_unknown_option_is_exit_code_two() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "--nonsense"])
    assert stop.value.code == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"warpbeam {warpbeam.__version__}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x:[1,3,224,224]", {"x": (1, 3, 224, 224)}),
        ("x:[1, 3] y:[batch,8]", {"x": (1, 3), "y": ("batch", 8)}),
        ("a/b:0:[2],c:[]", {"a/b:0": (2,), "c": ()}),
    ],
)
def test_shapes(text: str, expected: dict[str, tuple[int | str, ...]]) -> None:
    assert options.shape_map(options.shapes(text)) == expected


@pytest.mark.parametrize("text", ["", "x", "x:1,2", "x:[1,2", "x:[1] rest"])
def test_bad_shapes_are_refused(text: str) -> None:
    parser, _ = build_parser("bench")
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["bench", "m.onnx", "--input-shapes", text])
    assert stop.value.code == 2


# ------------------------------------------------------------------------------------------------------------ files


def test_atomic_write_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.atomic(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_npz_round_trip(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    files.write_npz(path, {"x/y:0": np.arange(3), "file": np.float32(1)})
    back = files.read_npz(path)
    assert list(back) == ["x/y:0", "file"] and back["x/y:0"].tolist() == [0, 1, 2]


def test_npz_refuses_pickles_and_rubbish(tmp_path: Path) -> None:
    rubbish, pickled, single = (tmp_path / n for n in ("r.npz", "p.npz", "s.npy"))
    rubbish.write_bytes(b"not an archive")
    np.savez(pickled, x=np.array([{}], dtype=object))
    np.save(single, np.ones(2))
    for path in (rubbish, pickled, single, tmp_path / "absent.npz"):
        with pytest.raises(RunError):
            files.read_npz(str(path))


# --------------------------------------------------------------------------------------------------------- commands


def test_compile_says_what_it_made(run: Run, model: str, tmp_path: Path) -> None:
    output = tmp_path / "m.wb"
    code, out, err = run("compile", model, "-o", str(output))
    assert code == 0 and err == ""
    assert out.startswith(f"{output}: ") and "float32" in out
    assert output.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert warpbeam.load(output).inputs[0].name == "image"


def test_compile_json_and_pass_times(run: Run, model: str, tmp_path: Path) -> None:
    code, out, _ = run("compile", model, "-o", str(tmp_path / "m.wb"), "--print-pass-times", "--json")
    data = json.loads(out)
    assert code == 0 and not data["cached"]
    assert "FoldConstant" in [p["name"] for p in data["passes"]]
    assert all(isinstance(p["seconds"], float) for p in data["passes"]) and data["kernels"][0]["sketch"]


def test_compile_dumps_every_form(run: Run, model: str, tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    forms = ["--dump", "relay,fusion,tir,llvm,asm", "--dump-dir", str(folder)]
    code, _, _ = run("compile", model, "-o", str(tmp_path / "m.wb"), *forms)
    names = {p.suffix: p for p in sorted(folder.iterdir())}
    assert code == 0 and set(names) == {".relay", ".txt", ".tir", ".ll", ".s"}
    assert "groups; " in (folder / "groups.fusion.txt").read_text()
    assert "nn.conv2d" in (folder / "imported.relay").read_text()
    assert "define" in names[".ll"].read_text() and "ret" in names[".s"].read_text()


def test_compile_into_missing_folder(run: Run, model: str, tmp_path: Path) -> None:
    code, out, err = run("compile", model, "-o", str(tmp_path / "none" / "m.wb"))
    assert code == 1 and out == "" and "no such folder" in err


def test_run_reads_and_writes_npz(run: Run, artefact: str, tmp_path: Path) -> None:
    given, output = tmp_path / "in.npz", tmp_path / "out.npz"
    image = np.random.default_rng(5).standard_normal((1, 3, 64, 64)).astype(np.float32)
    np.savez(given, image=image)
    code, out, _ = run("run", artefact, "-i", str(given), "-o", str(output))
    assert code == 0 and "probabilities" in out
    expected = warpbeam.load(artefact)(image)
    assert np.array_equal(files.read_npz(str(output))["probabilities"], expected)


def test_run_fills(run: Run, artefact: str) -> None:
    means = []
    for fill in ("random", "zeros", "ones"):
        code, out, _ = run("run", artefact, "--fill", fill, "--json")
        data = json.loads(out)["outputs"][0]
        assert code == 0 and data["shape"] == "[1, 10]" and abs(float(data["mean"]) - 0.1) < 1e-5
        means.append(data["max"])
    assert len(set(means)) == 3


def test_run_refuses_unknown_inputs(run: Run, artefact: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", picture=np.ones(3))
    code, _, err = run("run", artefact, "-i", str(tmp_path / "in.npz"))
    assert code == 1 and "picture" in err and "image" in err


def test_bench(run: Run, artefact: str) -> None:
    code, out, _ = run("bench", artefact, "--repeat", "3", "--threads", "1", "--json")
    data = json.loads(out)
    assert code == 0 and data["threads"] == 1 and len(data["times"]) == 3
    assert 0 < data["min"] <= data["median"] <= data["max"]
    code, out, _ = run("bench", artefact, "--repeat", "2", "--number", "1")
    assert code == 0 and "inferences per second" in out


def test_profile(run: Run, model: str) -> None:
    code, out, _ = run("profile", model, "--repeat", "2", "--top", "2")
    assert code == 0 and "total" in out and " more" in out
    code, out, _ = run("profile", model, "--repeat", "1", "--json")
    kernels = json.loads(out)["kernels"]
    assert code == 0 and any("relu_2" in o for k in kernels for o in k["origins"])


def test_verify_passes(run: Run, model: str) -> None:
    code, out, _ = run("verify", model, "--seed", "3")
    assert code == 0 and "PASSED" in out and "interpreter" in out


def test_verify_tells_a_wrong_model(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is made to answer something else, so the compiled model differs."""
    from warpbeam.relay import interp

    exact = interp.evaluate
    monkeypatch.setattr(interp, "evaluate", lambda *a, **k: np.asarray(exact(*a, **k)) + 1)
    code, out, _ = run("verify", model, "--no-bisect")
    assert code == 1 and "DIFFERS" in out and "FAILED" in out


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Softmax over rows, a symbolic number of them."""
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"], axis=-1)], "rows", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("dynamic") / "rows.onnx"
    onnx.save(model, str(path))
    return str(path)


def test_dynamic_sizes(run: Run, dynamic: str, tmp_path: Path) -> None:
    artefact = str(tmp_path / "rows.wb")
    assert run("compile", dynamic, "-o", artefact)[0] == 0
    for words in (
        [dynamic, "--sizes", "batch=5"],
        [artefact, "--sizes", "batch=5"],
        [artefact, "--input-shapes", "x:[5,8]"],
        [dynamic, "--input-shapes", "x:[5,8]"],
    ):
        code, out, _ = run("run", *words, "--json")
        assert code == 0 and json.loads(out)["outputs"][0]["shape"] == "[5, 8]"
    assert run("verify", dynamic, "--sizes", "batch=7")[0] == 0
    code, _, err = run("run", artefact, "--input-shapes", "x:[5,9]")
    assert code == 1 and "axis 1 is 8, not 9" in err


def _windows(folder: Path, more: str = "") -> str:
    """Maxima over windows of 3 x 3 of maps of any size."""
    import onnx.parser

    text = f"""<ir_version: 8, opset_import: ["" : 17]> windows (float[batch, 1, height, width] x) =>
        (float[batch, 1, h, w] y) {{ y{"0" if more else ""} = MaxPool <kernel_shape = [3, 3]> (x) {more} }}"""
    path = folder / "windows.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return str(path)


def test_extents_that_fit_are_found(run: Run, tmp_path: Path) -> None:
    code, out, err = run("run", _windows(tmp_path), "--json")
    assert code == 0 and json.loads(out)["outputs"][0]["shape"] == "[1, 1, 6, 6]"
    assert err == "note: extents of 1 do not fit this model; taken: height=8,width=8 (--sizes says others)\n"
    code, out, err = run("run", _windows(tmp_path), "--json", "--sizes", "height=5,width=4")
    assert (code, err) == (0, "") and json.loads(out)["outputs"][0]["shape"] == "[1, 1, 3, 2]"


def test_verify_finds_extents_that_fit(run: Run, tmp_path: Path) -> None:
    code, out, err = run("verify", _windows(tmp_path), "--json")
    assert code == 0 and json.loads(out)["sizes"] == {"height": 8, "width": 8}
    assert "taken: height=8,width=8" in err
    maps = tmp_path / "maps.npz"
    np.savez(maps, x=np.ones((2, 1, 5, 4), np.float32))
    code, out, err = run("verify", _windows(tmp_path), "--json", "--inputs", str(maps))
    assert (code, err) == (0, "") and json.loads(out)["sizes"] == {}


def test_extents_that_do_not_fit_are_named(run: Run, tmp_path: Path) -> None:
    five = "c = Constant <value = float[1, 1, 5, 1] {0, 1, 2, 3, 4}> ()  s = Concat <axis = 3> (y0, c)  y = Relu (s)"
    model = _windows(tmp_path, five)
    assert run("run", model, "--sizes", "height=7,width=9")[0] == 0
    code, _, err = run("run", model, "--sizes", "batch=1")
    assert code == 1 and "--sizes height=1,width=1" in err


def test_opt_prints_and_reads_back(run: Run, model: str, tmp_path: Path) -> None:
    text = tmp_path / "o.relay"
    code, out, _ = run("opt", model, "--passes", "InferType,SimplifyInference")
    assert code == 0 and "def @main" in out and "batch_norm" not in out
    assert run("opt", model, "-o", str(text))[0] == 0
    code, out, _ = run("run", str(text), "--fill", "ones", "--no-cache", "--json")
    theirs = json.loads(run("run", model, "--fill", "ones", "--json")[1])
    assert code == 0 and abs(float(json.loads(out)["outputs"][0]["max"]) - float(theirs["outputs"][0]["max"])) < 1e-5


def test_opt_lists_and_refuses(run: Run, model: str) -> None:
    code, out, _ = run("opt", "--list")
    assert code == 0 and "FoldConstant" in out
    code, _, err = run("opt", model, "--passes", "Nothing")
    assert code == 1 and "Nothing" in err
    assert run("opt")[0] == 1


def test_doctor(run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    data = json.loads(out)
    assert code == 0 and data["healthy"] and data["versions"]["warpbeam"] == warpbeam.__version__
    assert all(c["ok"] for c in data["checks"])


def test_demo(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("demo", "-o", str(tmp_path / "d.onnx"))
    assert code == 0 and "PASSED" in out and (tmp_path / "d.onnx").exists()


def test_ops(run: Run, model: str) -> None:
    code, out, _ = run("ops", "--filter", "conv2d")
    assert code == 0 and "nn.conv2d" in out and "softmax" not in out
    code, out, _ = run("ops", "--onnx", "--json")
    assert code == 0 and {"Conv", "Relu"} <= {row["ONNX operator"] for row in json.loads(out)}
    conv = next(row for row in json.loads(out) if row["ONNX operator"] == "Conv")
    assert conv["how"] == "compiled" and "float32" in conv["types"].split() and not conv["refused types"]
    code, out, _ = run("ops", model, "--json")
    rows = {row["operator"]: row for row in json.loads(out)}
    assert rows["Conv"]["nodes"] == "12" and all(row["how"] == "compiled" for row in rows.values())


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x09" * 40, b"WARPBEAM" + b"\0" * 100])
def test_broken_models_are_one_readable_error(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    code, out, err = run("run", str(path))
    assert code == 1 and out == ""
    assert err.startswith("error: ") and "Traceback" not in err and "internal" not in err


def test_missing_model(run: Run) -> None:
    for command in ("compile", "run", "bench", "profile", "verify", "opt"):
        code, _, err = run(command, "nowhere.onnx")
        assert code == 1 and "does not exist" in err


def test_a_compiled_model_is_no_source(run: Run, artefact: str) -> None:
    for command in ("compile", "verify", "opt", "ops"):
        code, out, err = run(command, artefact)
        assert code == 1 and out == "" and "is a compiled model" in err


@pytest.mark.parametrize(
    "words",
    [["--seed", "-1"], ["--number", "-5"], ["--warmup", "-1"], ["--repeat", "0"], ["--repeat", "x"],
     ["--input-shapes", "x:[-1,4]"], ["--sizes", "n=x"]],
)  # fmt: skip
def test_values_that_make_no_sense_are_wrong_arguments(
    artefact: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", artefact, *words])
    assert stop.value.code == 2 and f"argument {words[0]}: " in capsys.readouterr().err


def test_unknown_sizes_and_passes_are_named(run: Run, artefact: str, dynamic: str) -> None:
    code, _, err = run("run", artefact, "--sizes", "q=3")
    assert code == 1 and "no extent is called q" in err and "fixed" in err
    code, _, err = run("run", dynamic, "--sizes", "q=3")
    assert code == 1 and "no extent is called q" in err and "the model's: " in err
    for option in ("--disable", "--print-after", "--passes"):
        code, out, err = run("opt", dynamic, option, "Nope")
        assert code == 1 and out == "" and "there is no pass 'Nope'" in err


def test_models_are_not_compiled_for_devices(run: Run, model: str) -> None:
    code, _, err = run("compile", model, "--target", "cuda", "-o", "never.wb")
    assert code == 1 and "target cuda is no CPU" in err and not Path("never.wb").exists()


def test_files_for_other_machines_are_exported_as_they_are(
    run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = str(tmp_path / "m.wb")
    for target, form, head in (("wasm32", "wasm", b"\0asm"), ("generic-aarch64", "so", b"\x7fELF")):
        assert run("compile", model, "--target", target, "-o", saved)[0] == 0
        code, out, err = run("export", saved, "-o", str(tmp_path / f"m.{form}"))
        assert code == 0 and f"m.{form}" in out and not err
        data = (tmp_path / f"m.{form}").read_bytes()
        assert data[:4] == head and (form == "wasm" or data[18:20] == b"\xb7\0")  # EM_AARCH64
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("export", model, "--target", "wasm32", "--json")
    assert code == 0 and json.loads(out)["files"][0].endswith(".wasm")


def test_machines_that_are_not_linked_for_have_c(run: Run, model: str, tmp_path: Path) -> None:
    code, _, err = run("export", model, "--target", "wasm32", "-o", str(tmp_path / "m.so"))
    assert code == 1 and "cannot export a model for wasm32-unknown-unknown as 'so'" in err
    code, _, err = run("export", model, "--target", "x86_64-windows", "-o", str(tmp_path / "m.so"))
    assert code == 1 and "x86_64-pc-windows-msvc is not linked here" in err and "that system's linker" in err
    code, out, _ = run("export", model, "--target", "c32", "-o", str(tmp_path / "m.c"))
    assert code == 0 and "m.c" in out and (tmp_path / "m.c").stat().st_size > 1000


def test_unknown_target(run: Run, model: str) -> None:
    code, _, err = run("compile", model, "--target", "abacus", "-o", "never.wb")
    assert code == 1 and "abacus" in err and not Path("never.wb").exists()


def test_debug_shows_the_traceback(run: Run) -> None:
    code, _, err = run("run", "nowhere.onnx", "--debug")
    assert code == 1 and "Traceback" in err


def test_interrupt(run: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(warpbeam.Module, "save", stop)
    code, _, err = run("compile", model, "-o", str(tmp_path / "m.wb"))
    assert code == 130 and "interrupted" in err and not list(tmp_path.iterdir())


HANGING = """
import signal, sys, time, warpbeam
from warpbeam.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it

def save(self, path):
    path.write_text("half of it")
    print("saving", flush=True)
    for _ in range(600):  # not one long sleep: a signal that comes just before it starts would wait for its end
        time.sleep(0.1)

warpbeam.Module.save = save
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_half_written(model: str, tmp_path: Path, number: int, code: int) -> None:
    command = [sys.executable, "-c", HANGING, "compile", model, "-o", str(tmp_path / "m.wb")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "saving\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err and not list(tmp_path.iterdir())
    assert process.returncode == code


def test_closed_pipe_is_quiet() -> None:
    command = f"{sys.executable} -m warpbeam ops --onnx | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and "ONNX" in done.stdout


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_lost_connection_is_not_asked_again() -> None:
    from types import SimpleNamespace

    from warpbeam.runtime.errors import RPCError
    from warpbeam.runtime.extents import that_fit

    asked: list[dict[str, int]] = []

    def lost(arrays: dict[str, int]) -> None:
        asked.append(arrays)
        raise RPCError("the connection ended")

    module = SimpleNamespace(inputs=[SimpleNamespace(shape=("batch", "width"))], run=lost)
    with pytest.raises(RPCError, match="the connection ended"):
        that_fit(module, dict, ["batch", "width"])
    assert asked == [{}]
