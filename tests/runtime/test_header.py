"""The C header: what it declares is what the ctypes structures and the pool's text assume, in C and in C++."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runtime_helpers import add_library

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
    lines.append(f'{keyword}(WB_EITHER_WAY == {abi.EITHER_WAY}, "values");')
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


C_HOST = r"""
#include "warpbeam.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

static int32_t no_arena(wb_ctx* ctx, int64_t bytes) { return ctx->arena_bytes >= bytes ? 0 : 1; }

int main(int argc, char** argv) {
  void* code = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (!code) return 1;
  wb_entry_fn entry = (wb_entry_fn)dlsym(code, "wb_entry");
  void* (*create)(int32_t, void*, int32_t) = (void* (*)(int32_t, void*, int32_t))dlsym(code, "wb_pool_create");
  float x[3] = {1, 2, 3}, y[3] = {10, 20, 30}, z[3] = {0, 0, 0};
  int64_t shape[1] = {3};
  wb_tensor t[3] = {{x, 1, 0, 1, 2, 32, 1, shape, NULL, 0}, {y, 1, 0, 1, 2, 32, 1, shape, NULL, 0},
                    {z, 1, 0, 1, 2, 32, 1, shape, NULL, 0}};
  wb_tensor* args[3] = {&t[0], &t[1], &t[2]};
  wb_ctx ctx = {.abi_version = WB_ABI_VERSION, .reserve = no_arena};
  ctx.pool = create(2, (void*)pthread_create, 1000);
  ctx.parallel_for = (int32_t (*)(wb_ctx*, wb_loop_fn, void*, int64_t))dlsym(code, "wb_pool_parallel_for");
  int32_t status = entry(&ctx, args, 3);
  printf("%d %g %g %g\n", status, z[0], z[1], z[2]);
  return 0;
}
"""


def test_a_c_program_can_host_the_code(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    source, program, code = tmp_path / "host.c", tmp_path / "host", tmp_path / "add.so"
    source.write_text(C_HOST)
    code.write_bytes(add_library())
    include = str(HEADER_PATH.parent)
    subprocess.run([gcc, "-std=gnu11", "-I", include, str(source), "-o", str(program), "-ldl", "-pthread"], check=True)
    result = subprocess.run([str(program), str(code)], capture_output=True, text=True, check=True)
    assert result.stdout == "0 11 22 33\n"
