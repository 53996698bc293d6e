"""Exported libraries: looked into without loading, cut short, of other machines; the C++ class; the page's examples."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export_helpers import build, cnn, execute

import warpbeam
from warpbeam import relay
from warpbeam.cli.main import main
from warpbeam.runtime import Model, Module, load_module
from warpbeam.runtime.errors import ArtifactError, LoadError
from warpbeam.runtime.exported import describe

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "export.md"


def library(folder: Path, name: str = "net.so") -> Module:
    module = warpbeam.compile(cnn())
    module.export_library(folder / name)
    return module


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library(tmp_path)
    path = str(tmp_path / "net.so")
    assert main(["inspect", path, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["prefix"] == "net_" and data["runs_here"] and data["inputs"][0]["shape"] == "[1, 3, 12, 12]"
    assert [s["name"] for s in data["sections"]] == ["constants"]
    assert main(["inspect", path]) == 0 and "prefix     net_" in capsys.readouterr().out
    assert main(["inspect", path, "--relay"]) == 1 and "no such text" in capsys.readouterr().err
    assert main(["run", path]) == 0 and "[1, 10]" in capsys.readouterr().out
    assert main(["compile", path]) == 1 and "is a compiled model" in capsys.readouterr().err


def test_a_library_of_another_machine_is_described_and_refused(tmp_path: Path) -> None:
    warpbeam.compile(cnn(), target="generic-aarch64").export_library(tmp_path / "net.so")
    found = describe(tmp_path / "net.so")
    assert found is not None and found[0].target.startswith("aarch64") and found[1]["name"] == "net"
    for load in (warpbeam.load, load_module, Model):
        with pytest.raises(ArtifactError, match="the code is for aarch64"):
            load(tmp_path / "net.so")


def test_a_library_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    """The system's loader maps what is not there, and the first touch of it ends the process."""
    library(tmp_path)
    data = (tmp_path / "net.so").read_bytes()
    cut = tmp_path / "cut.so"
    for size in (4, 40, 100, 600, 5000, len(data) // 2, len(data) - 4096, len(data) - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(ArtifactError, match="library is damaged"):
            warpbeam.load(cut)


def test_libraries_without_a_model_are_told_apart(tmp_path: Path) -> None:
    n = warpbeam.te.var("n")
    a = warpbeam.te.placeholder((n,), name="a")
    b = warpbeam.te.compute((n,), lambda i: a[i] + 1.0, name="b")
    warpbeam.build(warpbeam.te.create_schedule(b.op), [a, b]).export_library(str(tmp_path / "f.so"))
    assert describe(tmp_path / "f.so") is None
    assert not isinstance(load_module(tmp_path / "f.so"), Module)


def test_refusals(tmp_path: Path) -> None:
    module = library(tmp_path)
    for name in ("net.dll", "net.dylib"):
        with pytest.raises(LoadError, match="cannot export a model as"):
            module.export_library(tmp_path / name)
    with pytest.raises(LoadError, match="cannot be exported again"):
        warpbeam.load(tmp_path / "net.so").export_library(tmp_path / "again.a")


def test_warnings_of_commands_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "arm.wb"
    warpbeam.compile(cnn(), target="generic-aarch64").save(path)
    command = [sys.executable, "-m", "warpbeam", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PAGE.parents[2])
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("warning: ")


@pytest.mark.parametrize("form", ["so", "a", "c"])
def test_cpp_state_threads_and_a_name_of_the_c_library(form: str, tmp_path: Path) -> None:
    """The class of a model with state that is called `free`: it moves, shows parameters, throws what it should."""
    h, x = relay.var("h", shape=(2, 3)), relay.var("x", shape=(2, 3))
    new = relay.add(relay.multiply(h, relay.const(0.5)), x)
    module = warpbeam.compile(relay.Function([h, x], relay.Tuple([relay.exp(new), new])), state={"h": "output_1"})
    for folder, alone in ((tmp_path, False), (tmp_path / "alone", True)):
        folder.mkdir(exist_ok=True)
        module.set_param("h", np.zeros((2, 3), np.float32))
        module.export_library(folder / f"free.{form}", freestanding=alone)
        threads = "" if alone or form == "c" else "if (m.set_threads(1) != 1) return 5;"
        (folder / "main.cpp").write_text(f"""#include "free.hpp"
#include <cstdio>
#include <cstdlib>
#include <utility>
int main() {{
  const int shape[] = FREE_INPUT_0_SHAPE;
  if (shape[0] * shape[1] != FREE_INPUT_0_SIZE) return 2;
  float x[FREE_INPUT_0_SIZE], y[FREE_OUTPUT_0_SIZE];
  for (int i = 0; i < FREE_INPUT_0_SIZE; ++i) x[i] = 0.25f * i;
  free_::Model first;
  {threads.replace("m.", "first.")}
  first.run(x, y);
  free_::Model m = std::move(first);
  m.run(x, y);
  for (float v : y) std::printf("%a\\n", v);
  for (int i = 0; i < FREE_PARAM_0_SIZE; ++i) std::printf("%a\\n", m.param<float>(0)[i]);
  try {{ m.param<float>(1); return 3; }} catch (const std::out_of_range&) {{}}
  std::free(nullptr);
}}
""")
        if form == "c":
            build("c", "-O1", "-ffp-contract=off", "-c", "free.c", folder=folder)
        library = {"so": "./free.so", "a": "free.a", "c": "free.o"}[form]
        build("c++", "-Wpedantic", "-O1", "main.cpp", library, "-lm", "-o", "main", folder=folder)
        got = np.float32([float.fromhex(v) for v in execute(folder / "main").split()])
        given = np.arange(6, dtype=np.float32).reshape(2, 3) * np.float32(0.25)
        want = [module(given), module(given)][-1]
        assert np.array_equal(got, np.concatenate([want.reshape(-1), module.get_param("h").reshape(-1)]))


def test_the_examples_of_the_page(tmp_path: Path) -> None:
    """Every C and C++ example of the tutorial is compiled; the program runs."""
    library(tmp_path)
    (tmp_path / "any").mkdir()
    x = relay.var("x", shape=(relay.Any(), relay.Any(), 6))
    warpbeam.compile(relay.Function([x], relay.nn.softmax(x))).export_library(tmp_path / "any" / "net.so")
    found = re.findall(r"^```(c|cpp) no-run\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert [language for language, _ in found] == ["c", "c", "c", "cpp"]
    program, memory, sizes, cpp = (text for _, text in found)
    (tmp_path / "main.c").write_text(program)
    build("c", "-O1", "main.c", "./net.so", "-o", "main", folder=tmp_path)
    assert 0 < float(execute(tmp_path / "main")) < 1
    texts = {
        "memory.c": f'#include "net.h"\nint main(void) {{ {memory} return !context; }}\n',
        "cpp.cpp": f'#include "net.hpp"\n{cpp.splitlines()[0]}\nint main() {{ std::vector<float> x(NET_INPUT_0_SIZE), '
        f"y(NET_OUTPUT_0_SIZE);\n{cpp.partition(chr(10))[2]}\n return !(y[0] > 0); }}\n",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        language = "c++" if name.endswith("cpp") else "c"
        build(language, "-O1", name, "./net.so", "-o", f"{name}.main", folder=tmp_path)
        execute(tmp_path / f"{name}.main")
    (tmp_path / "any" / "main.c").write_text(
        '#include <stdlib.h>\n#include "net.h"\nstatic float data[3 * 17 * 6];\n'
        f"int main(void) {{ net_context* context = net_create();\n{sizes}\n"
        "return net_error(context)[0] || out[2] != 6; }\n"
    )
    build("c", "-O1", "main.c", "./net.so", "-o", "main", folder=tmp_path / "any")
    execute(tmp_path / "any" / "main")
