"""Exported models: C and C++ programs load or link each form, and get what Module.run gives, bit for bit."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_helpers import branches, build, c_program, cnn, compiler, dynamic, execute, loop, tool

import warpbeam
from warpbeam.cli.main import main
from warpbeam.codegen.facade import Sizes, print_facade
from warpbeam.codegen.llvm import compile_text
from warpbeam.driver import export_c
from warpbeam.runtime import Artifact, LoadError, Manifest, Module, TensorSpec, elf, link_shared
from warpbeam.runtime.ar import read_archive, write_archive
from warpbeam.runtime.elf_object import merge, write_object
from warpbeam.runtime.errors import ArtifactError, LinkError, RunError
from warpbeam.runtime.export_model import FREESTANDING, HOSTED, c_name, export_model, pack_objects
from warpbeam.runtime.pool_ll import EXPORTS, pool_ir
from warpbeam.target import get
from warpbeam.testing.exported import run_exported

MODELS: dict[str, Any] = {"cnn": cnn, "dynamic": dynamic, "branches": branches, "loop": loop}
RNG = np.random.default_rng(3)


@functools.cache
def model(name: str) -> Module:
    return warpbeam.compile(MODELS[name](), cache=False, workers=1)


def inputs_of(name: str) -> dict[str, np.ndarray]:
    if name == "dynamic":
        return {"x": RNG.standard_normal((3, 7, 6)).astype(np.float32)}
    if name == "branches":
        return {"c": np.array(True), "x": RNG.standard_normal((4, 5)).astype(np.float32)}
    if name == "loop":
        return {"n": np.array(5), "s": RNG.standard_normal((3, 4)).astype(np.float32)}
    return {"x": RNG.standard_normal((1, 3, 12, 12)).astype(np.float32)}


@pytest.mark.parametrize("form", ["so", "a", "c", "so-freestanding", "c-freestanding"])
@pytest.mark.parametrize("name", MODELS)
def test_c_program(name: str, form: str, tmp_path: Path) -> None:
    compiler()
    kind, _, free = form.partition("-")
    module = model(name)
    done = module.export_library(tmp_path / f"{name}.{kind}", freestanding=bool(free))
    assert [f.name for f in done.files] == [f"{name}.{kind}", f"{name}.h", f"{name}.hpp"] and done.name == name
    text = c_program(module, name, inputs_of(name), bool(free), threads=form in ("so", "a"))
    (tmp_path / "main.c").write_text(text)
    library = f"./{name}.{kind}"
    if kind == "c":
        build("c", "-O2", "-ffp-contract=off", "-march=native", "-c", library, "-o", "model.o", folder=tmp_path)
        library = "model.o"
        outside = tool("nm", "-u", tmp_path / "model.o").split()
        # what a freestanding C compiler may call on its own account, and what create needs
        allowed = {"U", "memcpy", "memset", "memmove", "fma", "fmaf", "_GLOBAL_OFFSET_TABLE_", "malloc", "free"}
        assert set(outside) <= (allowed - {"malloc", "free"} if free else allowed)
    build("c", "-Wpedantic", "-O1", "main.c", library, "-lm", "-o", "main", folder=tmp_path)
    execute(tmp_path / "main")


def test_large_constants_of_c_source_are_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler()
    monkeypatch.setattr(export_c, "INLINE_BYTES", 0)
    module, inputs = model("cnn"), inputs_of("cnn")
    wanted = list(module.run(inputs).values())
    for got, want in zip(run_exported(module, "c", inputs, wanted, tmp_path), wanted, strict=True):
        assert got.tobytes() == want.tobytes()
    text = (tmp_path / "main.c").read_text()
    (tmp_path / "main.c").write_text(text.replace("  net_use_constants(constants);\n", ""))
    build("c", "-O1", "main.c", "net.c", "-lm", "-o", "without", folder=tmp_path)
    done = subprocess.run(["./without"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "the constants are missing: call net_use_constants first")


@pytest.mark.parametrize("name", ["cnn", "dynamic"])
def test_cpp_program(name: str, tmp_path: Path) -> None:
    compiler("c++")
    module = model(name)
    module.export_library(tmp_path / "net.so")
    (tmp_path / "free").mkdir()
    module.export_library(tmp_path / "free" / "net.a", freestanding=True)
    if name == "cnn":
        use = (
            "std::vector<float> x(NET_INPUT_0_SIZE, 0.5f), y(NET_OUTPUT_0_SIZE);\n"
            "  net::Model m; m.run(x.data(), y.data());"
        )
    else:
        use = (
            "std::vector<float> x(2 * 3 * 6, 0.5f), y(2 * 3 * 9), b(2 * 3 * 9);\n"
            "  int64_t in[] = {2, 3, 6}, first[] = {0, 0, 0}, second[] = {0, 0, 0};\n"
            "  wb_tensor tx = {x.data(), 1, 0, 3, 2, 32, 1, in, nullptr, 0};\n"
            "  wb_tensor ty = {y.data(), 1, 0, 3, 2, 32, 1, first, nullptr, 0};\n"
            "  wb_tensor tz = {b.data(), 1, 0, 3, 2, 32, 1, second, nullptr, 0};\n"
            "  net::Model m SCRATCH; m.shapes({&tx, &ty, &tz}); if (second[1] != 9 || second[2] != 3) return 3;\n"
            "  m.run(&tx, &ty, &tz);"
        )
    text = f"""#include "net.hpp"
#include <cstdio>
int main() {{
  {use}
  for (float v : y) std::printf("%a\\n", v);
  try {{ m.call({{}}); return 1; }} catch (const std::exception& e) {{ return e.what()[0] ? 0 : 2; }}
}}
"""
    shape = (1, 3, 12, 12) if name == "cnn" else (2, 3, 6)
    want = next(iter(module.run({"x": np.full(shape, 0.5, np.float32)}).values()))
    for folder, library, scratch in ((tmp_path, "./net.so", ""), (tmp_path / "free", "net.a", "(100000)")):
        (folder / "main.cpp").write_text(text.replace("SCRATCH", scratch))
        build("c++", "-Wpedantic", "-O1", "main.cpp", library, "-o", "main", folder=folder)
        got = [float.fromhex(v) for v in execute(folder / "main").split()]
        assert np.array_equal(np.float32(got), want.reshape(-1))


def test_the_library_needs_nothing(tmp_path: Path) -> None:
    module = model("cnn")
    module.export_library(tmp_path / "m.so")
    module.export_library(tmp_path / "f.so", freestanding=True)
    assert tool("nm", "-D", "-u", tmp_path / "m.so").split() == ["w", "pthread_create", "w", "pthread_join"]
    assert tool("nm", "-D", "-u", tmp_path / "f.so") == ""
    assert b"\x0f\x05" not in _text_of(tmp_path / "f.so")  # no system call
    assert "statically linked" in tool("ldd", tmp_path / "m.so")
    headers = tool("readelf", "-lW", tmp_path / "m.so")
    assert "RWE" not in headers and headers.count("LOAD") == 5
    constants = module.artifact.data("constants") or b""
    data = (tmp_path / "m.so").read_bytes()
    at = data.find(bytes(constants))
    assert at > 0 and at % 4096 == 0  # mapped as it is


def _text_of(path: Path) -> bytes:
    """The code of a library."""
    for line in tool("readelf", "-SW", path).splitlines():
        if ".text" in line:
            at, size = (int(word, 16) for word in line.split("]")[1].split()[3:5])
            return path.read_bytes()[at : at + size]
    raise AssertionError("no code")


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for form in ("so", "a", "c"):
            model("cnn").export_library(tmp_path / folder / f"m.{form}")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_two_models_in_one_program(tmp_path: Path) -> None:
    compiler()
    for form in ("a", "c"):
        for name in ("one", "two"):
            model("cnn").export_library(tmp_path / f"{name}.{form}")
        (tmp_path / "main.c").write_text(
            '#include "one.h"\n#include "two.h"\n#include <string.h>\nint main(void) {\n'
            "  static float x[ONE_INPUT_0_SIZE], y[ONE_OUTPUT_0_SIZE], z[TWO_OUTPUT_0_SIZE];\n"
            "  one_context* a = one_create(); two_context* b = two_create();\n"
            "  if (one_run(a, x, y) || two_run(b, x, z) || memcmp(y, z, sizeof y)) return 1;\n"
            "  one_destroy(a); two_destroy(b); return 0;\n}\n"
        )
        build("c", "main.c", f"one.{form}", f"two.{form}", "-lm", "-o", "main", folder=tmp_path)
        execute(tmp_path / "main")


def test_sixteen_threads_and_unloading(tmp_path: Path) -> None:
    """Each thread has a context; all share the pool; then the library is unloaded and loaded again, and again."""
    compiler()
    model("cnn").export_library(tmp_path / "m.so")
    x = np.full((1, 3, 12, 12), 0.25, np.float32)
    want = ", ".join(float(v).hex() + "f" for v in model("cnn").run({"x": x})["y"].reshape(-1))
    (tmp_path / "main.c").write_text(f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include "m.h"
static const float want[] = {{{want}}};
static m_context* (*create)(void);
static void (*destroy)(m_context*);
static int32_t (*run)(m_context*, const float*, float*);
static void* work(void* unused) {{
  float x[M_INPUT_0_SIZE], y[M_OUTPUT_0_SIZE];
  for (int i = 0; i < M_INPUT_0_SIZE; ++i) x[i] = 0.25f;
  for (int k = 0; k < 20; ++k) {{
    m_context* c = create();
    for (int i = 0; i < 20; ++i)
      if (run(c, x, y) || memcmp(y, want, sizeof y)) return &x == unused ? 0 : (void*)1;
    destroy(c);
  }}
  return 0;
}}
int main(void) {{
  for (int round = 0; round < 5; ++round) {{
    void* library = dlopen("./m.so", RTLD_NOW | RTLD_LOCAL);
    if (!library) return 1;
    *(void**)&create = dlsym(library, "m_create");
    *(void**)&destroy = dlsym(library, "m_destroy");
    *(void**)&run = dlsym(library, "m_run");
    pthread_t threads[16];
    for (int i = 0; i < 16; ++i) if (pthread_create(&threads[i], 0, work, 0)) return 2;
    int bad = 0;
    for (int i = 0; i < 16; ++i) {{ void* r; pthread_join(threads[i], &r); bad += r != 0; }}
    if (bad) return 3;
    dlclose(library);
  }}
  return 0;
}}
""")
    build("c", "-O1", "main.c", "-ldl", "-lpthread", "-o", "main", folder=tmp_path)
    execute(tmp_path / "main")


_STATE = """
define i32 @wb_entry(ptr %ctx, ptr %args, i32 %n) {
  %x.t = load ptr, ptr %args
  %y.p = getelementptr ptr, ptr %args, i32 1
  %y.t = load ptr, ptr %y.p
  %x = load ptr, ptr %x.t
  %y = load ptr, ptr %y.t
  %s.p = getelementptr i8, ptr %ctx, i64 32
  %s = load ptr, ptr %s.p
  %s1 = getelementptr i8, ptr %s, i64 64
  %a = load float, ptr %x
  %b = load float, ptr %s1
  %c = fadd float %a, %b
  store float %c, ptr %s1
  store float %c, ptr %y
  ret i32 0
}
"""


def test_mutable_parameters(tmp_path: Path) -> None:
    """Each context has parameters of its own, which start as they were when the model was exported."""
    compiler()
    target = get("native")
    one = TensorSpec("y", "float32", (1,))
    manifest = Manifest("state", (TensorSpec("x", "float32", (1,)),), (one,), target=target.triple,
                        params=(TensorSpec("sum", "float32", (1,), 64),))  # fmt: skip
    params = bytes(64) + np.float32(7).tobytes()
    objects = [compile_text(t, target) for t in (_STATE, pool_ir(target.triple))]
    sizes = Sizes(0, len(params))
    faces = {HOSTED: compile_text(print_facade(manifest, sizes, target), target),
             FREESTANDING: compile_text(print_facade(manifest, sizes, target, True), target)}  # fmt: skip
    module = Module(Artifact.build(manifest, link_shared(objects, ["wb_entry", *EXPORTS]), params=params,
                                   objects=pack_objects(objects[:1], objects[1], faces)))  # fmt: skip
    module.set_param("sum", np.array([3.5], np.float32))
    for form in ("so", "a"):
        module.export_library(tmp_path / f"m.{form}")
        (tmp_path / "main.c").write_text("""#include "m.h"
#include <stddef.h>
int main(void) {
  static _Alignas(64) unsigned char memory[M_CONTEXT_BYTES];
  float x = 1, y = 0;
  m_context *a = m_create(), *b = m_create_in(memory, sizeof memory);
  if (!a || !b || m_run(a, &x, &y) || y != 4.5f || m_run(a, &x, &y) || y != 5.5f) return 1;
  if (m_run(b, &x, &y) || y != 4.5f || *(float*)m_param(a, 0) != 5.5f || m_param(a, 1)) return 2;
  m_destroy(a);
  m_destroy(b);
  return m_create_in(memory, M_CONTEXT_BYTES - 1) != NULL;
}
""")
        build("c", "main.c", f"./m.{form}", "-o", "main", folder=tmp_path)
        execute(tmp_path / "main")


def test_a_saved_model_exports_without_the_compiler(tmp_path: Path) -> None:
    module = model("cnn")
    module.save(tmp_path / "m.wb")
    (tmp_path / "direct").mkdir()
    module.export_library(tmp_path / "direct/m.so")
    code = (
        "import sys, warpbeam.runtime as r\n"
        "m = r.load(sys.argv[1]); m.export_library(sys.argv[2])\n"
        "assert not {'llvmlite', 'onnx'} & set(sys.modules), 'the compiler was imported'\n"
        "try:\n    m.export_library('m.c')\nexcept r.LoadError as error:\n    assert 'warpbeam.load' in str(error)\n"
        "else:\n    raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.wb"), str(tmp_path / "m.so")], check=True)
    assert (tmp_path / "m.so").read_bytes() == (tmp_path / "direct/m.so").read_bytes()


def test_an_exported_library_is_a_module(tmp_path: Path) -> None:
    """It is mapped: the constants of the module are those of the library, and saving it is refused."""
    for name in MODELS:
        module, arrays = model(name), inputs_of(name)
        module.export_library(tmp_path / f"{name}.so")
        loaded = warpbeam.runtime.load_module(tmp_path / f"{name}.so")
        for key, value in module.run(arrays).items():
            assert np.array_equal(loaded.run(arrays)[key], value)
        assert warpbeam.load(tmp_path / f"{name}.so").inputs == module.inputs
        with pytest.raises(ArtifactError, match="exported library"):
            loaded.save(tmp_path / "again.wb")


def test_model_by_path(tmp_path: Path) -> None:
    module, arrays = model("dynamic"), inputs_of("dynamic")
    want = list(module.run(arrays).values())
    module.save(tmp_path / "m.wb")
    module.export_library(tmp_path / "m.so")
    for file in ("m.wb", "m.so"):
        loaded = warpbeam.runtime.Model(tmp_path / file)
        for given in (arrays, list(arrays.values()), arrays["x"]):
            assert all(np.array_equal(a, b) for a, b in zip(loaded.run(given), want, strict=True))
        assert loaded.get_input_names() == ["x"] and loaded.get_output_names() == ["y", "z"]
        assert loaded.get_output(1).shape == (3, 9, 7) and loaded.get_input("x").shape == (3, 7, 6)
        assert loaded.get_input_dtypes() == ["float32"] and loaded.get_version() == warpbeam.__version__
        with pytest.raises(RunError):
            loaded.run([])
    with pytest.raises(RunError, match="device"):
        warpbeam.runtime.Model(tmp_path / "m.wb", "gpu")


def test_a_model_for_another_processor_is_built_again(tmp_path: Path) -> None:
    """Its Relay text takes the weights from the constants section, out of the layouts of the kernels."""
    for name in MODELS:
        module, arrays = model(name), inputs_of(name)
        artifact = module.artifact
        foreign = dataclasses.replace(artifact.manifest, cpu_features=("+not-a-feature",))
        dataclasses.replace(artifact, manifest=foreign).save(tmp_path / "m.wb")
        with pytest.raises(ArtifactError, match="not-a-feature"):
            warpbeam.runtime.load(tmp_path / "m.wb")
        with pytest.warns(UserWarning, match="another processor"):
            again = warpbeam.load(tmp_path / "m.wb")
        for key, value in module.run(arrays).items():
            assert np.array_equal(again.run(arrays)[key], value)
        assert bytes(again.artifact.data("constants") or b"") == bytes(artifact.data("constants") or b"")
    with pytest.warns(UserWarning), pytest.MonkeyPatch.context() as patch:
        patch.setattr("warpbeam.driver.api.equipped", lambda module: module)
        warpbeam.load(tmp_path / "m.wb")


def test_weights_are_not_stored_twice() -> None:
    sections = model("cnn").artifact.sections
    weights = sum(a.size * 4 for a in (np.empty((8, 3, 3, 3)), np.empty((16, 8, 3, 3)), np.empty((16, 10))))
    assert "rebuild-data" not in sections and len(sections["constants"].data) < weights + 1024


def test_running_a_saved_model_imports_no_compiler(tmp_path: Path) -> None:
    model("cnn").save(tmp_path / "m.wb")
    np.save(tmp_path / "x.npy", inputs_of("cnn")["x"])
    code = (
        "import sys, numpy, warpbeam.runtime\n"
        "m = warpbeam.runtime.Model(sys.argv[1]); m.run(numpy.load(sys.argv[2]))\n"
        "ours = sorted(n for n in sys.modules if n.startswith('warpbeam.') and not n.startswith('warpbeam.runtime'))\n"
        "assert not ours, ours\n"
        "assert not {'llvmlite', 'onnx', 'ml_dtypes', 'rich'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code, str(tmp_path / "m.wb"),
                           str(tmp_path / "x.npy")], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "llvmlite" not in done.stderr and "onnx" not in done.stderr


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.wb"
    model("cnn").save(file)
    assert main(["inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "small cnn" in shown and "constants" in shown and "objects" in shown
    assert main(["inspect", str(file), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["runs_here"] and data["inputs"][0]["name"] == "x"
    assert main(["inspect", str(file), "--relay"]) == 0 and "nn.conv2d" in capsys.readouterr().out
    assert main(["inspect", str(file), "--program"]) == 0 and capsys.readouterr().out
    for form in ("so", "a", "c"):
        target = str(tmp_path / f"net.{form}")
        assert main(["export", str(file), "-o", target, "--name", "other", "--freestanding"]) == 0
        assert Path(target).exists() and "other_run" in (tmp_path / "net.h").read_text()
        assert "net.hpp" in capsys.readouterr().out
    file.write_bytes(file.read_bytes()[:-1])
    assert main(["inspect", str(file)]) == 1


def test_names_and_errors(tmp_path: Path) -> None:
    module = model("cnn")
    assert module.export_library(tmp_path / "libmy-net.so").name == "my_net"
    assert c_name("7seas") == "m7seas"
    for wrong in ({"name": "a-b"}, {"name": "wb"}, {"format": "dll"}):
        with pytest.raises(LoadError):
            module.export_library(tmp_path / "m.so", **wrong)  # type: ignore[arg-type]
    with pytest.raises(LoadError, match="cannot write"):
        module.export_library(tmp_path / "nowhere" / "m.so")
    old = Artifact(module.artifact.manifest, {k: s for k, s in module.artifact.sections.items() if k != "objects"})
    with pytest.raises(ArtifactError, match="compile the model again"):
        export_model(old, tmp_path / "m.so")


def test_archives_are_read_as_they_are_written() -> None:
    members = {"short.o": [b"abc"], "a name that is too long for the field.o": [b"12", b"34"], "empty": [b""]}
    data = b"".join(bytes(p) for p in write_archive(members, {"short.o": ["f"]}))
    assert read_archive(data) == {name: b"".join(pieces) for name, pieces in members.items()}
    for damaged in (b"no", data[:-10], data[:40] + b"x" + data[41:], data[:8] + data[9:]):
        try:
            read_archive(damaged)
        except LinkError:
            continue


def test_merged_objects_link_like_their_parts() -> None:
    target = get("native")
    texts = ["declare i32 @g(i32)\ndefine i32 @f(i32 %x) {\n %r = call i32 @g(i32 %x)\n ret i32 %r\n}",
             "@t = internal constant [2 x i32] [i32 3, i32 4]\ndefine i32 @g(i32 %i) {\n"
             " %p = getelementptr i32, ptr @t, i32 %i\n %v = load i32, ptr %p\n ret i32 %v\n}"]  # fmt: skip
    parts = [elf.parse_object(compile_text(t, target), f"o{k}") for k, t in enumerate(texts)]
    data = write_object(merge(parts, ["f"]))
    from warpbeam.runtime import Library

    library = Library(link_shared([data], ["f"]))
    assert [library.function("f")(i) for i in (0, 1)] == [3, 4]
    with pytest.raises(LinkError):
        link_shared([data], ["g"])  # became local
    with pytest.raises(LinkError, match="twice"):
        merge([parts[1], parts[1]])
