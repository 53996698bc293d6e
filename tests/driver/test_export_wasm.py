"""WebAssembly modules of models under wasmtime: sizes known at run time, state, and what a module says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_helpers import branches, cnn, dynamic, loop
from test_state import STATE, carried, recurrent, steps

import warpbeam
from warpbeam.runtime import Artifact, LoadError, RunError
from warpbeam.runtime.compiled import CompiledModel
from warpbeam.runtime.wasm_object import Reader
from warpbeam.testing.wasm import Instance, run_wasm

wasmtime = pytest.importorskip("wasmtime", reason="needs wasmtime")


def near(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Equal but for the order of sums of at most 200 terms and functions within 4 units in the last place."""
    return bool(np.abs(found - wanted).max() <= 2 * 204 * 2.0**-24 * np.abs(wanted).max())


@pytest.mark.parametrize("make", [dynamic, branches, loop])
def test_models_with_control_flow_and_unknown_sizes(make: Any, tmp_path: Path) -> None:
    network = make()
    here = warpbeam.compile(network, cache=False)
    inputs = here.random_inputs(batch=3, rows=17)
    if "n" in inputs:
        inputs["n"] = np.array(5, np.int64)
    wanted = list(here.run(inputs).values())
    model = warpbeam.compile(network, target="wasm32", cache=False)
    found = run_wasm(model, inputs, wanted, tmp_path, scratch=1 << 16)
    assert all(near(f, w) for f, w in zip(found, wanted, strict=True))


def test_a_failure_says_why(tmp_path: Path) -> None:
    model = warpbeam.compile(dynamic(), target="wasm32", cache=False)
    wrong = {"x": np.zeros((2, 3, 7), np.float32)}  # 6 columns are wanted
    outputs = [np.zeros((2, 3, 9), np.float32), np.zeros((2, 9, 3), np.float32)]
    with pytest.raises(RuntimeError, match="x"):
        run_wasm(model, wrong, outputs, tmp_path, scratch=1 << 16)


def test_vectors_are_used_and_nothing_is_imported(tmp_path: Path) -> None:
    model = warpbeam.compile(cnn(), target="wasm32", cache=False)
    done = model.export_library(tmp_path / "libnet.wasm")
    data = done.files[0].read_bytes()
    assert [f.name for f in done.files] == ["libnet.wasm", "libnet.h"] and done.name == "net"
    instance = Instance(data)
    assert instance.imports == []
    assert {"memory", "__heap_base", "__indirect_function_table", "net_run", "net_entry"} <= set(instance.exports)
    assert not [n for n in instance.exports if n.startswith(("wb_", "wbm_"))]
    config = wasmtime.Config()
    config.wasm_relaxed_simd = config.wasm_simd = False
    with pytest.raises(wasmtime.WasmtimeError, match="SIMD"):
        wasmtime.Module(wasmtime.Engine(config), data)


def test_a_module_describes_itself(tmp_path: Path) -> None:
    model = warpbeam.compile(cnn(), target="wasm32", cache=False)
    data = model.export_library(tmp_path / "net.wasm").files[0].read_bytes()
    reader, found = Reader(data, 8), {}
    while reader.at < reader.end:
        kind, size = reader.byte(), reader.number()
        part = Reader(data, reader.at, reader.at + size)
        reader.at = part.end
        if kind == 0:
            title = part.text()
            found[title] = part.data[part.at : part.end]
    about = json.loads(found["wb_model"])
    assert about["name"] == "net" and about["constants"] > 5000
    assert [i["name"] for i in about["manifest"]["inputs"]] == ["x"]
    header = (tmp_path / "net.h").read_text()
    assert "NET_CONTEXT_BYTES" in header and "net_create_in" in header and "net_destroy" not in header


def test_a_compiled_file_exports_without_the_compiler(tmp_path: Path) -> None:
    model = warpbeam.compile(cnn(), target="wasm32", cache=False)
    model.save(tmp_path / "net.wb")
    first = model.export_library(tmp_path / "a.wasm", name="net").files[0].read_bytes()
    again = CompiledModel(Artifact.load(tmp_path / "net.wb"))
    assert again.export_library(tmp_path / "b.wasm", name="net").files[0].read_bytes() == first
    with pytest.raises(RunError, match="compiled for wasm32"):
        again.run({})
    with pytest.raises(LoadError, match="as 'a'"):
        again.export_library(tmp_path / "net.a")
    with pytest.raises(LoadError, match="as 'wasm'"):
        warpbeam.compile(cnn(), cache=False).export_library(tmp_path / "net.wasm")


def test_state_stays_in_a_context(tmp_path: Path) -> None:
    model = warpbeam.compile(recurrent(), target="wasm32", cache=False, state=STATE)
    model.export_library(tmp_path / "net.wasm")
    instance = Instance((tmp_path / "net.wasm").read_bytes())
    size = instance.call("context_bytes")
    first, second = (instance.call("create_in", instance.place(size), size) for _ in range(2))

    def step(context: int, value: np.ndarray) -> np.ndarray:
        x, y = instance.place(value.tobytes()), instance.place(32)
        assert instance.call("run", context, x, y) == 0
        return np.frombuffer(instance.read(y, 32), np.float32).reshape(2, 4)

    xs = steps(4)
    wanted = carried(xs)
    assert near(step(first, xs[0]), wanted[0])
    for x, want in zip(xs, wanted, strict=True):  # the other context starts at zero
        assert near(step(second, x), want)
    assert near(step(first, xs[1]), wanted[1])
    names = [instance.read(instance.call("param_name", k), 1) for k in range(instance.call("num_params"))]
    count = instance.call("param", second, names.index(b"n"))
    assert int.from_bytes(instance.read(count, 8), "little") == 4
