"""The device server built from its C source, and servers to connect to."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from warpbeam import rpc
from warpbeam.runtime.rpc import write_server_source

Build = Callable[..., str]


@pytest.fixture(scope="session")
def build_server(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles the device server, once for each compiler and set of options; a warning is a failure."""
    folder = tmp_path_factory.mktemp("server")
    write_server_source(folder)

    def build(compiler: str = "gcc", *options: str) -> str:
        if shutil.which(compiler) is None:
            pytest.skip(f"needs {compiler}")
        program = folder / "-".join(["server", compiler, *options]).replace(",", "").replace("=", "")
        if not program.exists():
            warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow"]
            words = [compiler, "-std=c11", "-O2", *warnings, *options, "server.c", "-o", program.name,
                     "-pthread", "-ldl", "-lm"]  # fmt: skip
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0 and not done.stderr, done.stderr[:3000]
        return str(program)

    return build


@pytest.fixture(scope="session")
def sanitized(build_server: Build, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The server under the address and undefined-behaviour sanitizers; skips where gcc has none."""
    place = tmp_path_factory.mktemp("probe")
    (place / "a.c").write_text("int main(void) { return 0; }\n")
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if shutil.which("gcc") is None or subprocess.run(["gcc", *flags, "a.c"], cwd=place, capture_output=True).returncode:
        pytest.skip("needs gcc with sanitizers")
    return build_server("gcc", "-g", *flags)


@pytest.fixture(scope="session", params=["python", "c"])
def program(request: pytest.FixtureRequest, build_server: Build) -> list[str]:
    """The command of a server of each kind; empty: Python's."""
    return [build_server()] if request.param == "c" else []


@pytest.fixture(scope="session")
def lasting_server(program: list[str]) -> Iterator[rpc.Server]:
    """A server of each kind that many tests use one after the other."""
    with rpc.Server(program=program) as made:
        yield made


@pytest.fixture
def remote(lasting_server: rpc.Server) -> Iterator[rpc.RPCSession]:
    """A session with a server of each kind."""
    with rpc.connect(lasting_server.host, lasting_server.port, secret=lasting_server.secret, timeout=60) as made:
        yield made


@pytest.fixture
def server(program: list[str], tmp_path: Path) -> Iterator[rpc.Server]:
    """A server of each kind for one test; its sessions' files are in `files`."""
    (tmp_path / "files").mkdir()
    with rpc.Server(key="box", program=program, options=["--folder", str(tmp_path / "files")]) as made:
        yield made


@pytest.fixture(scope="module")
def arm(build_server: Callable[..., str]) -> Iterator[rpc.Server]:
    """The server in C on an emulated processor."""
    emulator = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
    if shutil.which(emulator[0]) is None:
        pytest.skip(f"needs {emulator[0]}")
    with rpc.Server(program=[*emulator, build_server("aarch64-linux-gnu-gcc")]) as server:
        yield server
