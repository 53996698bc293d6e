"""Models as one relocatable object: ELF ones are linked by the system's compiler and executed; of Mach-O and COFF the
headers, symbols and data are read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_helpers import cnn, compiler

import warpbeam
from warpbeam.runtime import LoadError
from warpbeam.runtime.errors import ArtifactError
from warpbeam.runtime.wasm import link_module
from warpbeam.testing.exported import run_exported
from warpbeam.testing.wasm import Instance

#: what the C run-time library of Visual C++ defines for every program with floating point, and for large frames
_WINDOWS = {"_fltused", "__chkstk"}


@dataclass
class Symbol:
    name: str
    defined: bool
    shared: bool


def mach_o(data: bytes) -> tuple[int, list[Symbol]]:
    """Processor and symbols; "Mach-O Runtime Architecture": mach_header_64, LC_SYMTAB (2), nlist_64."""
    magic, cpu, _, kind, count, _, _, _ = struct.unpack_from("<8I", data)
    assert (magic, kind) == (0xFEEDFACF, 1)  # 64 bits, MH_OBJECT
    at, systems, symbols = 32, [], []
    for _ in range(count):
        command, size = struct.unpack_from("<2I", data, at)
        if command == 2:
            table, number, strings, _ = struct.unpack_from("<4I", data, at + 8)
            for k in range(number):
                name, flags, section, _, _ = struct.unpack_from("<IBBHQ", data, table + 16 * k)
                text = data[strings + name : data.index(0, strings + name)].decode()
                symbols.append(Symbol(text.removeprefix("_"), section != 0, flags & 0x11 == 1))
        systems += [struct.unpack_from("<I", data, at + 8)[0]] if command == 0x32 else []  # LC_BUILD_VERSION
        at += size
    assert systems == [1]  # macOS
    return cpu, symbols


def coff(data: bytes) -> tuple[int, list[Symbol]]:
    """Machine and symbols; "PE Format": file header, symbol records of 18 bytes and what follows them."""
    machine, _, _, table, number, optional, _ = struct.unpack_from("<HHIIIHH", data)
    assert optional == 0

    def rows() -> Iterator[Symbol]:
        k = 0
        while k < number:
            name, _, section, _, storage, more = struct.unpack_from("<8sIhHBB", data, table + 18 * k)
            if name[:4] == bytes(4):
                at = table + 18 * number + int.from_bytes(name[4:], "little")
                name = data[at : data.index(0, at)]
            yield Symbol(name.rstrip(b"\0").decode(), section != 0, storage == 2)  # IMAGE_SYM_CLASS_EXTERNAL
            k += 1 + more

    return machine, list(rows())


def interface(header: str) -> set[str]:
    """The functions that a header declares."""
    words = (line.partition("(")[0].split()[-1].lstrip("*") for line in header.splitlines() if line.endswith(");"))
    return {w for w in words if w.startswith("net_")}


CASES = [
    ("aarch64-apple-darwin", "o", mach_o, 0x0100000C), ("x86_64-apple-darwin", "o", mach_o, 0x01000007),
    ("x86_64-windows", "obj", coff, 0x8664),
]  # fmt: skip


@pytest.mark.parametrize(("target", "form", "parse", "machine"), CASES, ids=[c[0] for c in CASES])
def test_the_object_holds_the_model(target: str, form: str, parse: Any, machine: int, tmp_path: Path) -> None:
    model = warpbeam.compile(cnn(), target=target, cache=False)
    done = model.export_library(tmp_path / f"net.{form}", name="net")
    assert [f.name for f in done.files] == [f"net.{form}", "net.h", "net.hpp"] and done.constants > 5000
    data = done.files[0].read_bytes()
    found, symbols = parse(data)
    assert found == machine
    declared = interface((tmp_path / "net.h").read_text())
    assert len(declared) > 15 and {"net_run", "net_create_in", "net_context_bytes"} <= declared
    assert {s.name for s in symbols if s.defined and s.shared} >= declared
    pooled = ("@feat", "__real@", "__xmm@")  # Visual C++'s names of literals, which linkers merge
    assert all(s.name.startswith(("net_", *pooled)) for s in symbols if s.defined and s.shared)
    assert {s.name for s in symbols if not s.defined} <= (_WINDOWS if parse is coff else set())
    assert bytes(model.artifact.data("constants")) in data


@pytest.mark.parametrize("target", [c[0] for c in CASES])
def test_linking_is_left_to_the_system(target: str, tmp_path: Path) -> None:
    model = warpbeam.compile(cnn(), target=target, cache=False)
    for form in ("so", "a", "wasm"):
        with pytest.raises(LoadError, match="is not linked here") as error:
            model.export_library(tmp_path / f"net.{form}")
        assert "that system's linker" in str(error.value)
    with pytest.raises(ArtifactError, match="cannot be saved"):
        model.save(tmp_path / "net.wb")
    with pytest.raises(warpbeam.TVMError, match="has no machine code"):
        model.run({})


def test_an_elf_object_computes_what_the_module_does(tmp_path: Path) -> None:
    compiler()
    module = warpbeam.compile(cnn(), cache=False)
    inputs = module.random_inputs()
    wanted = module.run(inputs)
    found = run_exported(module, "o", inputs, list(wanted.values()), tmp_path, freestanding=True)
    assert np.array_equal(found[0], next(iter(wanted.values())))


def test_a_webassembly_object_links(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime")
    network = cnn()
    model = warpbeam.compile(network, target="wasm32", cache=False)
    model.export_library(tmp_path / "net.o", name="net")
    names = ("net_context_bytes", "net_create_in", "net_run")
    module = b"".join(link_module([(tmp_path / "net.o").read_bytes()], {n: n for n in names}))
    inputs = model.random_inputs()
    wanted = warpbeam.compile(network, cache=False).run(inputs)["y"]
    instance = Instance(module)
    size = instance.call("context_bytes")
    context = instance.call("create_in", instance.place(size), size)
    x, y = instance.place(inputs["x"].tobytes()), instance.place(wanted.nbytes)
    assert instance.call("run", context, x, y) == 0
    found = np.frombuffer(instance.read(y, wanted.nbytes), np.float32).reshape(wanted.shape)
    # both sum up to 27, 72 and 16 products and 36 averages, each within half a unit of its largest term
    assert np.abs(found - wanted).max() <= 2 * (27 + 72 + 36 + 16) * 2.0**-24 * np.abs(wanted).max()


def test_text_that_looks_like_a_symbol(tmp_path: Path) -> None:
    """The interface's prefix is a name, not a text to replace."""
    compiler()
    module = warpbeam.compile(cnn(), cache=False, name="of wbm_ things")
    module.export_library(tmp_path / "net.o")
    assert b"of wbm_ things" in (tmp_path / "net.o").read_bytes()


def test_names_and_kinds_are_checked(tmp_path: Path) -> None:
    module = warpbeam.compile(cnn(), cache=False)
    with pytest.raises(LoadError, match="no C identifier"):
        module.export_library(tmp_path / "net.o", name="a b")
    with pytest.raises(warpbeam.TVMError, match="no object code for target c"):
        warpbeam.compile(cnn(), target="c", cache=False).export_library(tmp_path / "net.o")
