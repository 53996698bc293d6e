"""The C header: what it declares is what the ctypes structures and the pool's text assume, in C and in C++."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from warpbeam.runtime import HEADER_PATH, abi
from warpbeam.runtime.pool_ll import EXPORTS


@pytest.mark.parametrize(("compiler", "flags"), [("gcc", ["-std=c11"]), ("g++", ["-std=c++11", "-x", "c++"])])
def test_layouts_agree(compiler: str, flags: list[str], tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    keyword = "_Static_assert" if compiler == "gcc" else "static_assert"
    lines = ['#include "warpbeam.h"']
    for name, structure in (("wb_tensor", abi.Tensor), ("wb_ctx", abi.Context)):
        lines.append(f'{keyword}(sizeof({name}) == {ctypes.sizeof(structure)}, "size");')
        for field, _ in structure._fields_:
            lines.append(f'{keyword}(offsetof({name}, {field}) == {getattr(structure, field).offset}, "{field}");')
    lines.append(f'{keyword}(WB_ABI_VERSION == {abi.ABI_VERSION} && WB_QUERY_SHAPES == {abi.QUERY_SHAPES}, "values");')
    source = tmp_path / "layout.c"
    source.write_text("\n".join(lines) + "\n")
    command = [compiler, *flags, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I", HEADER_PATH.parent]
    subprocess.run([*map(str, command), str(source)], check=True)


def test_header_declares_the_pool() -> None:
    text = HEADER_PATH.read_text()
    assert all(f" {name}(" in text or f"*{name}(" in text for name in EXPORTS)


def test_the_floor_stands_alone() -> None:
    code = (
        "import sys, warpbeam.runtime\n"
        "ours = [m for m in sys.modules if m.startswith('warpbeam.') and not m.startswith('warpbeam.runtime')]\n"
        "assert not ours, ours\n"
        "assert not {'llvmlite', 'onnx', 'ml_dtypes', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
