"""The runtime as a package of its own: what is in its wheel, and that it runs models beside NumPy and nothing else."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import relay

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "packaging" / "runtime"
NAME = f"warpbeam_runtime-{warpbeam.__version__}"
#: bytes: ours on disk, and what is fetched to install it with NumPy
OWN, FETCHED = 2 << 20, 40 << 20
ABSENT = ("llvmlite", "onnx", "ml_dtypes", "rich", "cryptography")


def backend() -> Any:
    """The build backend as a module."""
    spec = importlib.util.spec_from_file_location("runtime_backend", PROJECT / "backend.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip builds it, without an index."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("needs pip")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", folder, PROJECT], check=True, cwd=folder)
    return folder / f"{NAME}-py3-none-any.whl"


class Place:
    """A fresh environment with the runtime and NumPy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))

    def run(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "WARPBEAM"))}
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        done = subprocess.run([self.python, *words], cwd=self.folder, env=env, capture_output=True, text=True)
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    def command(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """`warpbeam WORDS`."""
        return self.run(self.folder / "bin" / "warpbeam", *words, code=code)


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("place") / "env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made.folder], check=True)
    options = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check", "-q"]
    pip = [sys.executable, "-m", "pip", "--python", str(made.python), "install"]
    subprocess.run([*pip, *options, wheel], check=True)
    for name in ("numpy", "numpy.libs"):  # the one package that the runtime needs, as it is here
        there = Path(np.__file__).parents[1] / name
        if there.exists():
            (made.site / name).symlink_to(there)
    return made


def dynamic() -> Any:
    """Products of any number of rows and columns, whose result is a tuple in a tuple."""
    columns = relay.Any()
    x, w = relay.var("x", shape=(relay.Any(), columns)), relay.var("w", shape=(12, columns))
    y = relay.nn.dense(x, w)
    return relay.Function([x, w], relay.Tuple([relay.tanh(y), relay.Tuple([relay.nn.softmax(y)])]))


def state() -> Any:
    h, x = relay.var("h", shape=(4, 8)), relay.var("x", shape=(4, 8))
    new = relay.add(relay.multiply(h, relay.const(0.75)), relay.tanh(x))
    return relay.Function([h, x], relay.Tuple([relay.exp(new), new]))


SCRIPT = """
import importlib.util, json, sys
from pathlib import Path
import numpy as np
import warpbeam
from warpbeam import runtime
from warpbeam.contrib import graph_executor
from warpbeam.runtime.vm import VirtualMachine

folder = Path(sys.argv[1])
given = dict(np.load(folder / "in.npz"))
got = {}

def keep(name, value):
    parts = value if isinstance(value, tuple | list) else [value]
    for i, part in enumerate(parts):
        if isinstance(part, tuple | list):
            keep(f"{name}.{i}", part)
        else:
            got[f"{name}.{i}"] = part.numpy() if hasattr(part, "numpy") else np.asarray(part)

for file in ("dynamic.wb", "dynamic.so"):
    module = warpbeam.load(folder / file)
    for k in range(3):
        x, w = given[f"x{k}"], given[f"w{k}"]
        keep(f"dynamic{k}", module(x, w))
        keep(f"dynamic{k}.model", runtime.Model(folder / file).run([x, w]))
        keep(f"dynamic{k}.vm", VirtualMachine(module, warpbeam.cpu()).invoke("main", x, w=w))
        graph = graph_executor.GraphModule(module["default"](warpbeam.cpu()))
        graph.run(x=runtime.from_dlpack(x), w=w)
        keep(f"dynamic{k}.graph", [graph.get_output(i) for i in range(2)])
profile = warpbeam.load(folder / "dynamic.wb").profile({"x": given["x0"], "w": given["w0"]}, 2)
assert profile.total_us > 0 and len(profile.kernels) >= 2
module = warpbeam.load(folder / "state.wb")
for k in range(3):
    keep(f"state{k}", module(given[f"s{k}"]))
keep("kept", module.get_param("h"))
np.savez(folder / "out.npz", **got)
found = [n for n in sys.argv[2].split() if importlib.util.find_spec(n)]
print(json.dumps({"importable": found, "compiler": warpbeam.HAS_COMPILER,
                  "ours": sorted({n.split(".")[1] for n in sys.modules if n.startswith("warpbeam.")})}))
"""


def test_models_run_bit_for_bit(place: Place, tmp_path: Path) -> None:
    """A model of symbolic sizes and one with state, through every face that the runtime has."""
    modules = {"dynamic": warpbeam.compile(dynamic()), "state": warpbeam.compile(state(), state={"h": "output_1"})}
    for name, module in modules.items():
        module.save(tmp_path / f"{name}.wb")
    modules["dynamic"].export_library(tmp_path / "dynamic.so")
    rng = np.random.default_rng(0)
    sizes = ((3, 5), (1, 1), (17, 33))
    given = {f"x{k}": rng.standard_normal(s).astype(np.float32) for k, s in enumerate(sizes)}
    given |= {f"w{k}": rng.standard_normal((12, s[1])).astype(np.float32) for k, s in enumerate(sizes)}
    given |= {f"s{k}": rng.standard_normal((4, 8)).astype(np.float32) for k in range(3)}
    np.savez(tmp_path / "in.npz", **given)
    facts = json.loads(place.run("-c", SCRIPT, tmp_path, " ".join(ABSENT)).stdout)
    assert facts["importable"] == [] and facts["compiler"] is False
    assert set(facts["ours"]) <= {"runtime", "contrib"}
    got = dict(np.load(tmp_path / "out.npz"))
    want = {}
    for k in range(3):
        a, b = modules["dynamic"](given[f"x{k}"], given[f"w{k}"])
        for way in ("", ".model", ".graph"):
            want |= {f"dynamic{k}{way}.0": a, f"dynamic{k}{way}.1": b}
        want |= {f"dynamic{k}.vm.0": a, f"dynamic{k}.vm.1.0": b}
        want[f"state{k}.0"] = modules["state"](given[f"s{k}"])
    want["kept.0"] = modules["state"].get_param("h")
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype and got[name].tobytes() == array.tobytes(), name


def test_commands(place: Place, tmp_path: Path) -> None:
    model = tmp_path / "net.wb"
    module = warpbeam.compile(dynamic(), name="net")
    module.save(model)
    sizes = ("--sizes", "any=3,any_1=4")
    for words in (("run", model, *sizes), ("bench", model, *sizes, "--repeat", "2"), ("profile", model, *sizes)):
        assert "net" in place.command(*words, "--json").stdout
    assert "objects" in place.command("inspect", model).stdout
    for form in ("so", "a"):
        place.command("export", model, "-o", tmp_path / f"net.{form}")
    assert "output_0" in place.command("run", tmp_path / "net.so", *sizes).stdout
    place.command("rpc-server", "--write-c", tmp_path / "server")
    assert (tmp_path / "server" / "server.c").exists() and (tmp_path / "server" / "warpbeam.h").exists()
    assert "warpbeam-runtime" in place.command("doctor").stdout
    assert "compile a model to a file (not installed)" in " ".join(place.command("--help").stdout.split())


@pytest.mark.parametrize("words", [("compile", "x.onnx"), ("run", "x.relay"), ("demo",), ("micro", "x.onnx")])
def test_what_is_not_there_says_so(place: Place, words: tuple[str, ...]) -> None:
    (place.folder / "x.relay").write_text("def @main(%x: Tensor[(1), float32]) { exp(%x) }")
    error = place.command(*words, code=1).stderr
    assert error.startswith("error: the compiler is not installed") and "pip install warpbeam" in error


def test_names_that_are_not_there_say_so(place: Place) -> None:
    code = """
import warpbeam
from warpbeam.error import NotInstalledError, WarpbeamError
assert issubclass(NotInstalledError, ImportError) and issubclass(NotInstalledError, WarpbeamError)
for statement in ("warpbeam.compile", "warpbeam.te", "warpbeam.relay", "import warpbeam.tir.op", "warpbeam.IRModule",
                  "from warpbeam import topi", "from warpbeam.contrib import cc", "import warpbeam.relay.vm"):
    try:
        exec(statement)
    except NotInstalledError as error:
        assert "pip install warpbeam" in str(error)
    else:
        raise AssertionError(statement)
assert not hasattr(warpbeam, "nothing")
"""
    place.run("-c", code)


def test_every_module_can_be_imported(place: Place) -> None:
    files = [p for p in backend().files() if p.suffix == ".py" and p.name != "__main__.py"]
    names = [".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in files]
    assert len(names) > 60
    place.run("-W", "error", "-c", f"import importlib\nfor name in {names}:\n    importlib.import_module(name)")


def test_a_session_with_it(place: Place, tmp_path: Path) -> None:
    """The runtime alone serves: a model is sent there, run and measured."""
    module = warpbeam.compile(state(), name="steps")
    module.save(tmp_path / "m.wb")
    inputs = module.random_inputs()
    secret = tmp_path / "secret"
    secret.write_text("twenty words or more")
    command = [place.python, "-m", "warpbeam", "rpc-server", "--port", "0", "--secret-file", secret]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().rpartition(":")[2])
            with warpbeam.rpc.connect("127.0.0.1", port, secret=secret.read_bytes()) as remote:
                remote.upload(tmp_path / "m.wb")
                there = remote.load_module("m.wb")
                for name, array in there.run(inputs).items():
                    assert array.tobytes() == module.run(inputs)[name].tobytes()
        finally:
            server.terminate()


def test_both_at_once_is_diagnosed(place: Place) -> None:
    about = place.site / "warpbeam-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: warpbeam\nVersion: 0.1.0\n")
    try:
        assert "pip uninstall warpbeam-runtime" in place.command("doctor", code=1).stdout
    finally:
        shutil.rmtree(about)


def test_the_wheel_holds_files_of_the_tree(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    own = {name: data for name, data in members.items() if name.startswith("warpbeam/")}
    for name, data in own.items():
        assert (ROOT / name).read_bytes() == data
    here = ROOT / "warpbeam"
    kinds = (".py", ".h", ".c")
    runtime = {p.relative_to(ROOT).as_posix() for p in (here / "runtime").rglob("*") if p.suffix in kinds}
    assert runtime <= own.keys() and not any(n.startswith(("warpbeam/driver", "warpbeam/relay")) for n in own)
    about = members[f"{NAME}.dist-info/METADATA"].decode()
    needs = [line for line in about.splitlines() if line.startswith("Requires-Dist") and "extra" not in line]
    assert needs == ["Requires-Dist: numpy>=1.26"] and f"Version: {warpbeam.__version__}\n" in about
    rows = [line.split(",") for line in members[f"{NAME}.dist-info/RECORD"].decode().splitlines()]
    assert {row[0] for row in rows} == members.keys()
    for name, digest, size in rows[:-1]:
        found = base64.urlsafe_b64encode(hashlib.sha256(members[name]).digest()).decode().rstrip("=")
        assert digest == f"sha256={found}" and int(size) == len(members[name])
    again = tmp_path / backend().build_wheel(str(tmp_path))
    assert again.read_bytes() == wheel.read_bytes()


def test_the_source_distribution_builds_the_same(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / backend().build_sdist(str(tmp_path))) as archive:
        archive.extractall(tmp_path, filter="data")
    code = "import backend; print(backend.build_wheel('.'))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / NAME, check=True, capture_output=True)
    assert (tmp_path / NAME / wheel.name).read_bytes() == wheel.read_bytes()


def size_of(folder: Path, skip: Callable[[Path], bool] = lambda p: False) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not skip(p))


def test_size_of_ours(place: Place, wheel: Path) -> None:
    assert size_of(place.site / "warpbeam") < OWN and wheel.stat().st_size < OWN / 4


@pytest.mark.slow
def test_size_with_numpy(wheel: Path, tmp_path: Path) -> None:
    """What is fetched: our wheel, and NumPy's, packed anew from what is installed here."""
    packed = tmp_path / "numpy.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("numpy", "numpy.libs"):
            for path in (Path(np.__file__).parents[1] / name).rglob("*"):
                if path.is_file() and path.suffix != ".pyc":
                    archive.write(path, path.relative_to(Path(np.__file__).parents[1]))
    assert 10 << 20 < wheel.stat().st_size + packed.stat().st_size < FETCHED
