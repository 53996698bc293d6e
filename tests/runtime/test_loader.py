"""Loading code from memory."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from runtime_helpers import add_library, compile_ir

from warpbeam.runtime import Library, LoadError, link_shared, loader


def constant_library(value: int) -> bytes:
    return link_shared([compile_ir(f"define i32 @f() {{\n ret i32 {value}\n}}")], ["f"])


def test_libraries_with_reused_descriptors_are_different() -> None:
    libraries = [Library(constant_library(i)) for i in range(8)]
    assert [library.function("f")() for library in libraries] == list(range(8))


def test_no_descriptor_is_left_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    library = Library(constant_library(1))
    assert set(os.listdir("/proc/self/fd")) == before
    assert library.function("f")() == 1


def test_code_is_unmapped_with_its_last_reference() -> None:
    library = Library(constant_library(77), "wanderer")
    assert "wanderer" in Path("/proc/self/maps").read_text()
    del library
    gc.collect()
    assert "wanderer" not in Path("/proc/self/maps").read_text()


def test_temporary_file_when_there_is_no_memfd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(loader.tempfile, "tempdir", str(tmp_path))
    assert Library(constant_library(5)).function("f")() == 5
    assert list(tmp_path.iterdir()) == []


def test_missing_symbol_and_foreign_code_are_errors() -> None:
    library = Library(add_library(), "adder")
    assert "wb_entry" in library and "nothing" not in library
    with pytest.raises(LoadError, match="nothing"):
        library.address("nothing")
    with pytest.raises(LoadError, match="cannot be loaded"):
        Library(b"\x7fELF garbage", "garbage")
