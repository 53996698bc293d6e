"""One cache and one small model for all tests of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from warpbeam.cli import demo_model
from warpbeam.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARPBEAM_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demonstration's network as a file."""
    path = tmp_path_factory.mktemp("model") / "demo.onnx"
    path.write_bytes(demo_model.build(0).SerializeToString())
    return str(path)


@pytest.fixture(scope="session")
def artefact(model: str) -> str:
    """The same, compiled."""
    path = str(Path(model).with_suffix(".wb"))
    assert main(["compile", model, "-o", path]) == 0
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return call
