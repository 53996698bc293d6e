"""The file format: round trip, same bytes, and a clear error for each kind of damage."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_helpers import add_artifact, add_library, full_artifact

from warpbeam.runtime import Artifact, ArtifactError, KernelInfo, Manifest, Module, TensorSpec, artifact, load
from warpbeam.runtime.cpu import host_features, missing_features


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.wb"
    original = full_artifact()
    original.save(path)
    again = Artifact.load(path)
    assert again.manifest == original.manifest
    assert {n: (s.kind, bytes(s.data)) for n, s in again.sections.items()} == {
        n: (s.kind, bytes(s.data)) for n, s in original.sections.items()
    }
    assert path.read_bytes() == original.to_bytes() == again.to_bytes() == full_artifact().to_bytes()
    assert again.program() == original.program()
    assert Artifact.from_bytes(path.read_bytes()).to_bytes() == path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["model.wb"], "no temporary file is left"


def test_constants_are_mapped_and_aligned(tmp_path: Path) -> None:
    path = tmp_path / "model.wb"
    full_artifact().save(path)
    constants = Artifact.load(path).data("constants")
    assert constants is not None and np.frombuffer(constants, np.uint8).ctypes.data % 4096 == 0
    assert np.array_equal(np.frombuffer(constants, np.float32), np.arange(10_000, dtype=np.float32))


def test_saved_module_runs(tmp_path: Path) -> None:
    path = tmp_path / "model.wb"
    Module(add_artifact()).save(path)
    module = load(path)
    x = np.arange(16, dtype=np.float32)
    assert np.array_equal(module(x, x), 2 * x)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.wb"
    path.write_bytes(b"old")

    def no_space(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        full_artifact().save(path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_file_mode_follows_the_mask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        full_artifact().save(tmp_path / "model.wb")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.wb").stat().st_mode) == 0o640


def rebuilt(change: Callable[[dict[str, Any]], None]) -> bytes:
    """The artefact's file with a changed header and correct header checksum."""
    data = full_artifact().to_bytes()
    length = struct.unpack_from("<Q", data, 16)[0]
    base = -(-(64 + length) // 4096) * 4096
    header = json.loads(data[64 : 64 + length])
    change(header)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    new_base = -(-(64 + len(text)) // 4096) * 4096
    body = data[base:]
    head = artifact.HEAD.pack(artifact.MAGIC, 1, 0, 0, len(text), hashlib.sha256(text).digest(), new_base + len(body))
    return head + text + bytes(new_base - 64 - len(text)) + body


def section(header: dict[str, Any], index: int, **fields: Any) -> None:
    header["sections"][index].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: section(h, 1, offset=64), "overlaps"),
        (lambda h: section(h, 1, offset=1 << 40), "overlaps another or leaves a hole"),
        (lambda h: section(h, 0, size=-1), "overlaps"),
        (lambda h: section(h, 0, align=3), "overlaps"),
        (lambda h: section(h, 0, size=True), "wrong type"),
        (lambda h: section(h, 0, kind="cpu-exe"), "unknown kind"),
        (lambda h: section(h, 1, name="code"), "repeated name"),
        (lambda h: h["sections"].pop(), "do not fill the file"),
        (lambda h: h["sections"][0].pop("sha256"), "needs the fields"),
        (lambda h: section(h, 2, sha256="0" * 64), "is damaged"),
        (lambda h: h.update(more=1), "exactly the fields"),
        (lambda h: h.update(sections={}), "damaged section table"),
        (lambda h: h["manifest"].pop("entry"), "missing or unknown fields: entry"),
        (lambda h: h["manifest"].update(surprise=1), "missing or unknown fields: surprise"),
        (lambda h: h["manifest"].update(abi_version="1"), "integer"),
        (lambda h: h["manifest"]["inputs"][0].update(dtype="float33"), "float33"),
        (lambda h: h["manifest"]["inputs"][0].update(shape=[-1]), "negative"),
        (lambda h: h["manifest"]["inputs"][0].update(shape=[["add", "n", 1]]), "computed extent"),
        (lambda h: h["manifest"]["inputs"][0].update(shape=[["launch", 1]]), "unknown operator 'launch'"),
        (lambda h: h["manifest"]["inputs"][0].update(name="y"), "duplicate"),
        (lambda h: h["manifest"].update(inputs=3), "list"),
        (lambda h: h["manifest"].update(extra={"a": 1}), "strings"),
    ],
)
def test_forged_headers_are_refused(change: Callable[[dict[str, Any]], None], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Artifact.from_bytes(rebuilt(change))


def test_unchanged_rebuild_is_accepted() -> None:
    assert rebuilt(lambda h: None) == full_artifact().to_bytes()


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"X", "not a Warpbeam artefact"),
        (8, b"\2\0", "format version 2.0"),
        (10, b"\7\0", "format version 1.7"),
        (12, b"\2", "damaged header"),
        (16, b"\xff" * 8, "damaged header"),
        (24, b"\0", "damaged header"),
        (56, b"\0", "wrong length"),
        (70, b"\0", "damaged header"),
        (4095, b"\1", "gap"),
    ],
)
def test_damaged_heads_are_refused(at: int, value: bytes, message: str) -> None:
    data = bytearray(full_artifact().to_bytes())
    assert bytes(data[at : at + len(value)]) != value
    data[at : at + len(value)] = value
    with pytest.raises(ArtifactError, match=message):
        Artifact.from_bytes(bytes(data))


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    data = full_artifact().to_bytes()
    for at in range(0, len(data), 997):
        damaged = bytearray(data)
        damaged[at] ^= 0x20
        with pytest.raises(ArtifactError):
            Artifact.from_bytes(bytes(damaged))
    for cut in (0, 5, 64, 300, 5000, len(data) - 1):
        path = tmp_path / "cut.wb"
        path.write_bytes(data[:cut])
        with pytest.raises(ArtifactError):
            Artifact.load(path)
    with pytest.raises(ArtifactError, match="wrong length"):
        Artifact.from_bytes(data + b"\0")


def test_constants_hash_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "model.wb"
    data = bytearray(full_artifact().to_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="'constants' is damaged"):
        Artifact.load(path)
    assert Artifact.load(path, verify_constants=False).data("constants") is not None


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        Artifact.load(tmp_path / "nothing.wb")


def test_wrong_machine_is_refused_before_loading() -> None:
    good = add_artifact()
    with pytest.raises(ArtifactError, match="ABI version 9"):
        Module(replace(good, manifest=replace(good.manifest, abi_version=9)))
    with pytest.raises(ArtifactError, match=r"for z80-cpm(.|\n)*this machine is"):
        Module(replace(good, manifest=replace(good.manifest, target="z80-cpm")))
    with pytest.raises(ArtifactError, match="quantum"):
        Module(replace(good, manifest=replace(good.manifest, cpu_features=("+quantum",))))


def test_llvm_feature_names_are_understood() -> None:
    host = host_features()
    if host is None or "avx2" not in host:
        pytest.skip("needs an x86 Linux machine")
    assert missing_features(["+avx2", "sse4.1", "sse4.2", "sse3", "bmi", "lzcnt", "cx16"]) == []
    assert missing_features(["avx2", "sve"]) == ["sve"]


def test_manifest_keeps_everything() -> None:
    spec = TensorSpec("x", "bfloat16", ("n", 3, ("mul", "n", 2)))
    kernel = KernelInfo("k", "sym", ("mul", "n", 2), 7, ("a", "b"), ("n",))
    manifest = Manifest(
        "m", (), (spec,), kernels=(kernel,), cpu_features=("avx2",), precision="exact", extra={"z": "1"}
    )
    assert Manifest.from_data(json.loads(json.dumps(manifest.to_data()))) == manifest


def several() -> Artifact:
    """For a machine that does not exist, for one with a feature nobody has, and for this one."""
    full = full_artifact()
    nowhere = replace(full, manifest=replace(full.manifest, target="pdp11-unknown-unix"))
    future = replace(full, manifest=replace(full.manifest, cpu_features=("warp9",)))
    return Artifact.join({"pdp11": nowhere, "future": future, "here": full})


def test_a_file_for_several_machines_runs_what_fits(tmp_path: Path) -> None:
    several().save(tmp_path / "m.wb")
    data = (tmp_path / "m.wb").read_bytes()
    assert struct.unpack_from("<HH", data, 8) == (1, 2)
    again = Artifact.load(tmp_path / "m.wb")
    assert again.variants == ["future", "here"] and again.manifest.target.startswith("pdp11")
    assert again.variant("here") == full_artifact()
    if host_features() is not None:
        assert again.variant("future").manifest.cpu_features == ("warp9",)
    module = load(tmp_path / "m.wb")
    assert module.artifact.manifest == full_artifact().manifest
    x = np.arange(3, dtype=np.float32)
    assert np.array_equal(module(x, x), x + x)
    module.save(tmp_path / "again.wb")
    assert (tmp_path / "again.wb").read_bytes() == data, "a file for several stays one"


def test_the_constants_of_several_machines_are_stored_once() -> None:
    one, three = len(full_artifact().to_bytes()), len(several().to_bytes())
    assert three - one < 3 * len(add_library()) + 4 * artifact.PAGE


def test_a_file_for_other_machines_says_why_it_does_not_run(tmp_path: Path) -> None:
    full = full_artifact()
    away = replace(full, manifest=replace(full.manifest, target="pdp11-unknown-unix"))
    Artifact.join({"a": away, "b": away}).save(tmp_path / "m.wb")
    with pytest.raises(ArtifactError, match="pdp11"):
        load(tmp_path / "m.wb")


def test_unknown_and_damaged_variants_are_refused() -> None:
    with pytest.raises(ArtifactError, match="future, here"):
        several().variant("vax")
    sections = dict(several().sections)
    sections["manifest@here"] = replace(sections["manifest@here"], data=b"{}")
    with pytest.raises(ArtifactError, match="missing or unknown fields"):
        Artifact(several().manifest, sections).variant("here")
    sections["manifest@here"] = replace(sections["manifest@here"], data=b"[" * 100_000)
    with pytest.raises(ArtifactError, match="damaged"):
        Artifact(several().manifest, sections).variant("here")
