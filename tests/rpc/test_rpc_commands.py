"""`run`, `bench` and `verify` on another machine: `--remote`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from warpbeam import rpc
from warpbeam.cli import demo_model
from warpbeam.cli.main import main
from warpbeam.runtime.rpc.server import Server

Capture = pytest.CaptureFixture[str]
Words = list[str | Path]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's network."""
    path = tmp_path_factory.mktemp("model") / "demo.onnx"
    path.write_bytes(demo_model.build(0).SerializeToString())
    return path


def options(server: rpc.Server, folder: Path) -> Words:
    secret = folder / "secret"
    secret.write_text(server.secret)
    return ["--remote", f"{server.host}:{server.port}", "--secret-file", secret]


def run(capsys: Capture, *words: str | Path, code: int = 0) -> tuple[str, str]:
    got = main([str(w) for w in words])
    out, err = capsys.readouterr()
    assert got == code, err
    return out, err


def test_models_and_files_run_there(lasting_server: rpc.Server, model: Path, tmp_path: Path, capsys: Capture) -> None:
    """An ONNX file, a compiled file and a library give there what they give here, with either server."""
    there = options(lasting_server, tmp_path)
    run(capsys, "compile", model, "-o", tmp_path / "m.wb")
    run(capsys, "export", tmp_path / "m.wb", "-o", tmp_path / "m.so")
    run(capsys, "run", model, "-o", tmp_path / "here.npz")
    want = dict(np.load(tmp_path / "here.npz"))
    for source in (model, tmp_path / "m.wb", tmp_path / "m.so"):
        run(capsys, "run", source, *there, "-o", tmp_path / "there.npz")
        found = dict(np.load(tmp_path / "there.npz"))
        assert found.keys() == want.keys() and all(found[n].tobytes() == want[n].tobytes() for n in want)
    out, _ = run(capsys, "bench", tmp_path / "m.wb", *there, "--repeat", "3", "--threads", "1", "--json")
    data = json.loads(out)
    assert data["threads"] == 1 and len(data["times"]) == 3
    assert f"on {lasting_server.host}" in run(capsys, "bench", model, *there, "--repeat", "2")[0]
    assert "PASSED" in run(capsys, "verify", model, *there)[0]


def test_variants_are_measured_there(
    lasting_server: rpc.Server, model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`compile --remote` measures on the device; so do commands that run there, where they guard."""
    monkeypatch.setenv("WARPBEAM_CACHE_DIR", str(tmp_path / "cache"))
    there = options(lasting_server, tmp_path)
    out, _ = run(capsys, "compile", model, "-o", tmp_path / "m.wb", *there, "--guard=0.2", "--explain")
    assert "kept" in out
    assert "[1, 10]" in run(capsys, "run", tmp_path / "m.wb", *there)[0]
    assert "PASSED" in run(capsys, "verify", model, *there, "--guard=0.2")[0]
    run(capsys, "compile", model, "-o", tmp_path / "n.wb", "--remote", "127.0.0.1:9", *there[2:], "--no-cache", code=1)


def test_signatures_are_checked_here(lasting_server: rpc.Server, model: Path, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("cryptography")
    there = options(lasting_server, tmp_path)
    path, keys = tmp_path / "m.wb", tmp_path / "k"
    run(capsys, "compile", model, "-o", path)
    run(capsys, "sign", path, "--new-keys", keys, "-o", tmp_path / "signed.wb")
    run(capsys, "run", tmp_path / "signed.wb", "--trusted", f"{keys}.pub.pem", *there)
    assert "not signed" in run(capsys, "run", path, "--trusted", f"{keys}.pub.pem", *there, code=1)[1]


def test_a_tracker_lends_the_server(lasting_server: rpc.Server, model: Path, tmp_path: Path, capsys: Capture) -> None:
    there = options(lasting_server, tmp_path)
    device = f"--device=board={lasting_server.host}:{lasting_server.port}"
    command = [sys.executable, "-m", "warpbeam.exec.rpc_tracker"]
    with Server(secret=lasting_server.secret, program=command, options=[device]) as tracker:
        there[1] = f"{tracker.host}:{tracker.port}"
        assert "[1, 10]" in run(capsys, "run", model, *there, "--tracker", "--key", "board")[0]
        assert "--key" in run(capsys, "run", model, *there, "--tracker", code=1)[1]


def test_mistakes(lasting_server: rpc.Server, model: Path, tmp_path: Path, capsys: Capture) -> None:
    there = options(lasting_server, tmp_path)
    (tmp_path / "other").write_text("sixteen bytes or more")
    assert "secret" in run(capsys, "run", model, *there[:3], tmp_path / "other", code=1)[1]
    missing = tmp_path / "nothing"
    run(capsys, "run", model, *there[:3], missing, code=1)
    assert not missing.exists()
    run(capsys, "run", model, "--remote", "127.0.0.1:9", *there[2:], code=1)
    for words in ("nowhere", "host:0", ":80", "host:http"):
        with pytest.raises(SystemExit) as caught:
            main(["run", str(model), "--remote", words])
        assert caught.value.code == 2 and "cannot read" in capsys.readouterr().err
    run(capsys, "compile", model, "-o", tmp_path / "arm.wb", "--target", "generic-aarch64")
    assert "aarch64" in run(capsys, "run", tmp_path / "arm.wb", *there, code=1)[1]


def test_another_processor(arm: rpc.Server, model: Path, tmp_path: Path, capsys: Capture) -> None:
    """A model is compiled here for a processor, verified and timed there; a file for it as well."""
    there = [*options(arm, tmp_path), "--target", "generic-aarch64"]
    out, _ = run(capsys, "verify", model, *there)
    assert "PASSED" in out and "generic-aarch64" in out
    run(capsys, "compile", model, "-o", tmp_path / "arm.wb", "--target", "generic-aarch64")
    assert "[1, 10]" in run(capsys, "run", tmp_path / "arm.wb", *there[:4])[0]
    assert json.loads(run(capsys, "bench", model, *there, "--repeat", "2", "--json")[0])["median"] > 0
