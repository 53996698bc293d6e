"""Constants of the cost model that were measured on a machine: kept by machine, checked, and only used where asked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from warpbeam.cost.tile_prior import Shape, choose
from warpbeam.driver import calibrate
from warpbeam.driver.cache import Cache
from warpbeam.target import Target, TargetError, get, host
from warpbeam.target.host import detect

GOOD = {"fma_rate": 1.9, "l2_rate": 51.5, "l3_rate": 20.25, "memory_rate": 4.5, "fork_cycles": 5200}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WARPBEAM_CACHE_DIR", str(tmp_path))
    detect.cache_clear()
    yield tmp_path
    detect.cache_clear()


def test_tests_do_not_depend_on_what_was_measured() -> None:
    assert os.environ[host.VARIABLE] == "0"


def test_the_native_target_uses_what_was_kept_unless_told_not_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = detect()
    host.keep_measured(plain, GOOD)
    assert detect() is plain
    detect.cache_clear()
    assert detect() == plain, "the variable is set to 0"
    monkeypatch.delenv(host.VARIABLE)
    detect.cache_clear()
    assert detect() == plain.replace(**GOOD)
    assert detect().key != plain.key, "what was compiled before is not taken for what would be now"
    assert get(detect().to_text()) == detect()


def test_another_machine_does_not_use_it(folder: Path) -> None:
    host.keep_measured(detect(), GOOD)
    assert host.measured(detect()) == GOOD
    assert host.measured(detect().replace(cores=detect().cores + 1)) == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", json.dumps({**GOOD, "l2_rate": -1}), json.dumps({**GOOD, "fma_rate": "x"}),
             json.dumps({**GOOD, "memory_rate": float("nan")}), json.dumps({**GOOD, "fork_cycles": None})],
)  # fmt: skip
def test_damaged_files_are_as_none(folder: Path, text: str) -> None:
    host.keep_measured(detect(), GOOD).write_text(text)
    assert host.measured(detect()) == {}


def test_values_out_of_all_reason_are_not_kept(folder: Path) -> None:
    with pytest.raises(TargetError, match="l2_rate was measured as 0"):
        host.keep_measured(detect(), {**GOOD, "l2_rate": 0.0})
    assert not host.measured_path(detect()).exists()


def test_clearing_the_cache_keeps_what_was_measured(folder: Path) -> None:
    folder.chmod(0o700)
    path = host.keep_measured(detect(), GOOD)
    store = Cache(folder)
    store.put("ab" * 32, b"x")
    store.clear()
    assert path.exists() and store.get("ab" * 32) is None


def test_the_prior_follows_the_constants() -> None:
    """A machine on which a parallel loop costs more than the work has none."""
    target = get("generic-x86-64-v4").replace(cores=4)
    shape = Shape(rows=(64,), columns=256, reduce=64, outer=1, lanes=16, broadcast=True, packed=True)
    assert choose(shape, target).parallel == "first"
    assert choose(shape, target.replace(fork_cycles=1_000_000)).parallel == "none"
    assert choose(shape, target.replace(fma_rate=1.0)).cycles > choose(shape, target).cycles


def test_measuring_divides_by_cycles() -> None:
    """With a clock that counts readings every loop takes the same time: rates are ratios of what the loops do."""
    ticks = iter(range(1 << 30))
    found = calibrate.measure(get("native").replace(l2=1 << 16, l3=1 << 18, cores=1), lambda: float(next(ticks)))
    cycles = calibrate._STEPS * calibrate._CHAIN
    assert found["l2_rate"] == round((1 << 15) / cycles, 2)
    assert found["fork_cycles"] == get("native").fork_cycles
    assert set(found) == set(host.MEASURED)


def test_what_is_known_of_the_processor_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later processes find what LLVM says of it on disk; what is damaged, of another version of LLVM, or where others
    may write is not used."""
    import llvmlite
    import llvmlite.binding as llvm

    asked: list[int] = []
    name = llvm.get_host_cpu_name
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: (asked.append(1), name())[1])

    def detected() -> tuple[Target, int]:
        asked.clear()
        detect.cache_clear()
        return detect(), len(asked)

    folder.chmod(0o700)
    first, _ = detected()
    assert detected() == (first, 1) and not (folder / "machine").exists(), "detecting writes nothing"
    host.keep_processor()
    assert detected() == (first, 0)
    (kept,) = (folder / "machine").glob("llvm-*.json")
    good = kept.read_text()
    for text in ("{", "[1, 2, 3]", '["a", "b", {"avx": 3}]', "[[]]", "{}", '["", "", {}]', "[" * 100_000):
        kept.write_text(text)
        assert detected() == (first, 1)
    kept.write_text(good)
    folder.chmod(0o770)
    assert detected() == (first, 1)
    folder.chmod(0o700)
    assert detected() == (first, 0)
    monkeypatch.setattr(llvmlite, "__version__", "0.0")
    assert detected() == (first, 1)


@pytest.mark.skipif(host.platform.machine() != "x86_64", reason="of x86-64 processors")
@pytest.mark.parametrize("cpu,rate", [("znver4", 1.0), ("znver5", 2.0), ("a processor without a name", 2.0)])
def test_a_processor_of_a_known_name_multiplies_as_it_does(
    cpu: str, rate: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triple, _, flags = host._processor()
    monkeypatch.setattr(host, "_processor", lambda: (triple, cpu, flags))
    assert detect().fma_rate == rate


@pytest.mark.skipif(host.platform.machine() != "x86_64", reason="of x86-64 processors")
def test_a_rate_is_of_vectors_of_its_width(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a system switches the longer vectors off, the shorter ones run at full rate."""
    triple, _, flags = host._processor()
    shorter = {name: on and not name.startswith("avx512") for name, on in flags.items()}
    monkeypatch.setattr(host, "_processor", lambda: (triple, "znver4", shorter))
    assert (detect().vector_bits, detect().fma_rate) == (min(256, detect().vector_bits), 2.0)
