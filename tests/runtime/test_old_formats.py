"""Files that were written once are read for as long as the format's major version stays: the bytes are kept here."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path

import pytest

from warpbeam.runtime import Artifact
from warpbeam.runtime.shape_expr import evaluate

KEPT: dict[str, str] = json.loads((Path(__file__).parent / "golden" / "formats.json").read_text())
SECTIONS = {
    "code": b"code", "relay": b"def @main() { 0 }", "rebuild": b"{}", "constants": b"constant",
    "params": struct.pack("<2f", 1, 2),
}  # fmt: skip


@pytest.mark.parametrize("version", KEPT)
def test_every_version_is_read(version: str) -> None:
    data = zlib.decompress(base64.b64decode(KEPT[version]))
    assert struct.unpack_from("<HH", data, 8) == tuple(map(int, version.split(".")))
    found = Artifact.from_bytes(data)
    m = found.manifest
    assert (m.name, m.target, m.cpu_features, m.arena_bytes) == ("old", "x86_64-unknown-linux-gnu", ("avx2",), 64)
    assert evaluate(m.outputs[0].shape[0], {"n": 3}) == 6 and m.inputs[0].shape == ("n", 4)
    assert m.params[0].offset == 0 and m.kernels[0].origins == ("node",) and m.extra["constants_bytes"] == "8"
    assert {name: bytes(found.data(name) or b"") for name in SECTIONS} == SECTIONS
    program = found.program()
    assert program is not None and program.arena_bytes == 64 and len(program.body) == 2
    assert (found.data("objects") is None) == (version == "1.0")
    assert found.variants == (["second"] if version == "1.2" else [])
    if found.variants:
        other = found.variant("second")
        assert other.manifest.target.startswith("aarch64") and bytes(other.data("code") or b"") == b"other"
    assert found.to_bytes() == data  # and written as it was


def test_no_version_is_missing() -> None:
    from warpbeam.runtime.artifact import VERSION

    major, minor = VERSION
    assert set(KEPT) == {f"{major}.{k}" for k in range(minor + 1)}, "keep a file of the new version"
