"""Signed artefacts: made, checked, refused; and that no byte of a signed file can be changed."""

import random
import subprocess
import sys

import pytest
from runtime_helpers import full_artifact

from warpbeam.runtime import Artifact, ArtifactError
from warpbeam.runtime.signature import TRAILER_BYTES, claimed, fingerprint, make_keys, public_keys

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder / "a.pem", folder / "a.pub.pem")
    make_keys(folder / "b.pem", folder / "b.pub.pem")
    return folder


def test_a_signed_file_opens_for_those_who_trust_the_key(keys, tmp_path):
    path = tmp_path / "m.wb"
    full_artifact().save(path, keys / "a.pem")
    raw = public_keys(keys / "a.pub.pem")[0]
    for trusted in (keys / "a.pub.pem", raw, [keys / "b.pub.pem", raw]):
        assert Artifact.load(path, trusted=trusted).signer == raw
    assert Artifact.load(path).signer is None
    assert claimed(path) == raw
    assert Artifact.load(path).to_bytes() == full_artifact().to_bytes()


def test_it_is_refused_by_others_and_unsigned_files_by_all(keys, tmp_path):
    signed, plain = tmp_path / "s.wb", tmp_path / "p.wb"
    full_artifact().save(signed, keys / "a.pem")
    full_artifact().save(plain)
    assert claimed(plain) is None
    with pytest.raises(ArtifactError, match="key that is not trusted"):
        Artifact.load(signed, trusted=keys / "b.pub.pem")
    with pytest.raises(ArtifactError, match="not signed"):
        Artifact.load(plain, trusted=keys / "a.pub.pem")
    with pytest.raises(ArtifactError, match="no key is trusted"):
        Artifact.load(signed, trusted=[])


def test_skipping_hashes_is_not_possible_where_a_signature_is_asked_for(keys):
    data = bytearray(b"".join(full_artifact().chunks(keys / "a.pem")))
    data[-TRAILER_BYTES - 5] ^= 1  # in the constants
    with pytest.raises(ArtifactError, match="'constants' is damaged"):
        Artifact.from_bytes(bytes(data), trusted=keys / "a.pub.pem")


def test_a_forger_cannot_keep_the_signature(keys):
    """Another whole file under the old signature; the old head with other contents; signatures swapped."""
    first, second = (b"".join(full_artifact(name=n).chunks(keys / "a.pem")) for n in ("one", "two"))
    assert len(first) == len(second)
    forged = second[:-TRAILER_BYTES] + first[-TRAILER_BYTES:]
    with pytest.raises(ArtifactError, match="signature is wrong"):
        Artifact.from_bytes(forged, trusted=keys / "a.pub.pem")
    mixed = first[:64] + second[64:-TRAILER_BYTES] + first[-TRAILER_BYTES:]
    with pytest.raises(ArtifactError, match="damaged header"):
        Artifact.from_bytes(mixed, trusted=keys / "a.pub.pem")


def test_no_change_of_a_signed_file_goes_unnoticed(keys):
    data = b"".join(full_artifact().chunks(keys / "a.pem"))
    trusted = public_keys(keys / "a.pub.pem")
    generator = random.Random(7)
    places = [*range(0, 64), *range(len(data) - TRAILER_BYTES, len(data))]
    places += [generator.randrange(len(data)) for _ in range(300)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << generator.randrange(8)
        with pytest.raises(ArtifactError):
            Artifact.from_bytes(bytes(damaged), trusted)
    for size in (0, 10, 63, 64, len(data) - TRAILER_BYTES, len(data) - 1):
        with pytest.raises(ArtifactError):
            Artifact.from_bytes(data[:size], trusted)


def test_keys_are_private_and_never_overwritten(keys, tmp_path):
    assert (keys / "a.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(ArtifactError, match="exists"):
        make_keys(keys / "a.pem", tmp_path / "new.pub.pem")
    assert not (tmp_path / "new.pub.pem").exists()


def test_what_is_no_key_is_named(keys, tmp_path):
    (tmp_path / "text.pem").write_text("hello")
    for wrong in (tmp_path / "text.pem", tmp_path / "missing.pem", keys / "a.pem"):
        with pytest.raises(ArtifactError, match="no usable key"):
            public_keys(wrong)
    with pytest.raises(ArtifactError, match="31 bytes"):
        public_keys(bytes(31))
    with pytest.raises(ArtifactError, match="no usable key"):
        b"".join(full_artifact().chunks(keys / "a.pub.pem"))
    assert len(fingerprint(bytes(32))) == 64 + 7


def test_without_the_package_the_error_says_what_to_install(keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(ArtifactError, match="pip install cryptography"):
        public_keys(keys / "a.pub.pem")


def test_the_command_makes_keys_signs_and_checks(tmp_path):
    full_artifact().save(tmp_path / "m.wb")

    def warpbeam(*words):
        command = [sys.executable, "-m", "warpbeam", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert warpbeam("sign", "m.wb", "--new-keys", "k").returncode == 0
    raw = public_keys(tmp_path / "k.pub.pem")[0]
    assert claimed(tmp_path / "m.wb") == raw
    shown = warpbeam("inspect", "m.wb", "--trusted", "k.pub.pem")
    assert f"by {fingerprint(raw)}, checked" in shown.stdout
    assert "not checked" in warpbeam("inspect", "m.wb").stdout
    assert warpbeam("sign", "--new-keys", "other").returncode == 0
    refused = warpbeam("inspect", "m.wb", "--trusted", "other.pub.pem")
    assert refused.returncode == 1 and "not trusted" in refused.stderr
    assert warpbeam("sign").returncode == 1
