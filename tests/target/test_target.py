"""Targets: inheritance, text round trip, detection, and errors that teach."""

from __future__ import annotations

import subprocess
import sys

import pytest

from warpbeam import target
from warpbeam.target.host import cache_sizes


@pytest.mark.parametrize("name", target.names())
def test_text_round_trip_keeps_value_and_key(name: str) -> None:
    t = target.get(name)
    again = target.get(t.to_text())
    assert again == t
    assert again.key == t.key


def test_like_inherits_and_adds_merge() -> None:
    t = target.get("sapphirerapids")
    assert t.vector_bits == 512 and t.fma and t.fp16_convert and t.l2 == 2 << 20
    assert t.intrinsic("dot4.uint8.int8.x16") and t.intrinsic("dot2.bfloat16.bfloat16.x16")
    mine = target.get({"like": "znver4", "name": "mine", "cores": 6})
    assert (mine.name, mine.cores, mine.cpu) == ("mine", 6, "znver4")
    assert mine.key != target.get("znver4").key


def test_native_describes_this_machine() -> None:
    t = target.get("native")
    assert t.cores >= 1 and t.l1 > 0 and t.cpu
    assert target.get(t.to_text()) == t
    assert t.lanes("float32") == t.vector_bits // 32


def test_cache_sizes_reads_kernel_files(tmp_path) -> None:
    files = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M")]
    for i, (level, kind, size) in enumerate(files):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for file, text in zip(("level", "type", "size", "coherency_line_size"), (level, kind, size, "64")):
            (folder / file).write_text(text + "\n")
    assert cache_sizes(tmp_path) == {"l1": 48 << 10, "line": 64, "l2": 2 << 20}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("no-such-cpu", "built in"),
        ({"like": "nothing"}, "no such target"),
        ({"like": "znver4", "vector_bit": 3}, "unknown field"),
        ({"like": "znver4", "vector_bits": "512"}, "must be int"),
        ({"like": "znver4", "vector_bits": 96}, "power of two"),
        ("[a\n", "TOML"),
    ],
)
def test_errors_say_what_to_do(spec, words) -> None:
    with pytest.raises(target.TargetError, match=words):
        target.get(spec)


def test_import_does_not_load_llvm() -> None:
    code = "import sys, warpbeam.target as t; t.get('znver4'); sys.exit('llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_other_names_of_machines() -> None:
    """Each alias names a target of the machine it speaks of, and no target of its own."""
    from warpbeam.target.target import _tables

    assert target.get("aarch64-linux-gnu") == target.get("generic-aarch64")
    assert target.get("x86-64-v3").name == "generic-x86-64-v3"
    assert target.get("armv7-linux-gnueabihf").pointer_bits == 32
    assert target.get("riscv64v-linux-gnu").name == "generic-riscv64v"
    machines = {"arm64": "aarch64", "arm": "armv7", "riscv64v": "riscv64", "x86": "x86_64"}
    for alias, name in _tables()["alias"].items():
        machine = alias.partition("-")[0]
        assert target.get(name).triple.partition("-")[0] == machines.get(machine, machine)
        assert alias not in target.names() and target.parse(alias) == target.get(name)
    with pytest.raises(target.TargetError, match="did you mean aarch64-linux-gnu"):
        target.get("aarch64-linux-gnux")
    for table in ("alias", "feature"):
        with pytest.raises(target.TargetError, match="unknown target"):
            target.get(table)
