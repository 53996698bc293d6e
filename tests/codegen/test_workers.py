"""Compiling workers and the disk cache."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

import pytest

from warpbeam import target
from warpbeam.driver.cache import Cache, package_stamp
from warpbeam.driver.workers import Compiler
from warpbeam.ir.diagnostics import CompileError
from warpbeam.runtime.pool_ll import pool_ir

CRASH = """
define i32 @x() {
  %a = call <vscale x 4 x i32> @llvm.stepvector.nxv4i32()
  %b = extractelement <vscale x 4 x i32> %a, i32 1
  ret i32 %b
}
declare <vscale x 4 x i32> @llvm.stepvector.nxv4i32()
"""
NATIVE = target.get("native")
TEXTS = [(f"k{i}", f"define i32 @k{i}() {{ ret i32 {i} }}") for i in range(6)]


def test_same_objects_whatever_the_number_of_workers() -> None:
    results = []
    for workers in (0, 1, 2):
        with Compiler(NATIVE, workers=workers) as compiler:
            results.append(compiler.map([*TEXTS, ("pool", pool_ir(NATIVE.triple))]))
    assert results[0] == results[1] == results[2]
    assert len(set(results[0])) == len(TEXTS) + 1


def test_faults_name_the_kernel_and_do_no_harm() -> None:
    with Compiler(NATIVE, workers=1) as compiler:
        with pytest.raises(CompileError, match=r"(?s)kernel 'bad'.*does.?n.t match"):
            compiler.submit("bad", "define i32 @x() { ret i64 0 }").result(60)
        with pytest.raises(CompileError, match=r"(?s)crashed on kernel 'worse'.*scalable"):
            compiler.submit("worse", CRASH).result(60)
        compiler.seconds = 0.0005
        with pytest.raises(CompileError, match="'slow' took more than"):
            compiler.submit("slow", pool_ir(NATIVE.triple)).result(60)
        compiler.seconds = 60
        assert compiler.submit(*TEXTS[0]).result(60)


def test_cache_returns_what_was_stored_and_drops_what_is_damaged(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
    with Compiler(NATIVE, cache, workers=0) as compiler:
        first = compiler.submit(*TEXTS[0]).result()
    (entry,) = [p for _, _, p in cache.entries()]
    with Compiler(NATIVE, cache, workers=0) as compiler:
        assert compiler.submit("k0", TEXTS[0][1]).result() == first
    data = bytearray(entry.read_bytes())
    data[-1] ^= 1
    entry.write_bytes(data)
    key = cache.object_key(TEXTS[0][1], compiler.machine, 1)
    assert cache.get(key) is None
    assert not entry.exists()


def test_cache_keys_tell_machines_and_levels_apart(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    machine = {"triple": "a", "cpu": "b", "features": "", "abi": ""}
    keys = {cache.object_key("t", machine, 1), cache.object_key("t", machine, 2), cache.object_key("u", machine, 1)}
    keys.add(cache.object_key("t", {**machine, "cpu": "c"}, 1))
    assert len(keys) == 4
    assert package_stamp() == package_stamp() and len(package_stamp()) == 64


def test_cache_is_bounded_and_forgets_the_oldest(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", limit=1000)
    for i in range(20):
        cache.put(f"{i:064x}", bytes(200))
        entry = cache._path("objects", f"{i:064x}")
        if entry.exists():
            os.utime(entry, (i, i))
    cache.trim()
    assert sum(size for _, size, _ in cache.entries()) <= 1000
    assert cache.get(f"{19:064x}") is not None
    assert cache.get(f"{0:064x}") is None


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_of_others_is_not_used(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.warns(UserWarning, match="chmod 700"):
        cache = Cache(folder)
    cache.put("0" * 64, b"x")
    assert cache.get("0" * 64) is None and not cache.entries()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Cache(tmp_path / "own")


def test_environment_names_the_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WARPBEAM_CACHE_DIR", str(tmp_path / "mine"))
    assert Cache().root == tmp_path / "mine"
    monkeypatch.delenv("WARPBEAM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Cache().root == tmp_path / "warpbeam"
