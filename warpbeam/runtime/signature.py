"""Signatures of artefacts: Ed25519 (RFC 8032), through the package `cryptography` (extra `sign`).

What is signed is the file's fixed head, which holds the SHA-256 of the header text and the file's length; the header
text holds the SHA-256 of every section, and gaps are zero. So a signature covers every byte of the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .errors import ArtifactError

MAGIC = b"WBSIGN01"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
#: bytes of magic, public key and signature at the end of a signed file
TRAILER_BYTES = len(MAGIC) + KEY_BYTES + SIGNATURE_BYTES
_CONTEXT = b"Warpbeam artefact, format 1\0"

#: a public key: 32 bytes, or the path of a PEM file
Key = bytes | str | os.PathLike[str]


def sign(head: bytes, key: Key) -> bytes:
    """The trailer of a file with this head.

    Args:
        key: the path of a PEM file with the private key, without a password.

    Raises:
        ArtifactError: if there is no such key, or `cryptography` is not installed.
    """
    private = _private(key)
    return MAGIC + _raw(private.public_key()) + bytes(private.sign(_CONTEXT + head))


def check(head: bytes, trailer: bytes, trusted: Sequence[bytes], where: str) -> bytes:
    """The public key that signed a file.

    Args:
        head: the file's head.
        trailer: its last bytes, empty if it says that it is not signed.
        trusted: raw public keys, of which one must have signed it.

    Raises:
        ArtifactError: if none has.
    """
    hint = "ask for a file signed by a key you trust"
    if len(trailer) != TRAILER_BYTES or not trailer.startswith(MAGIC):
        raise ArtifactError("the file is not signed", where, "a signature is required", hint)
    key, signature = trailer[len(MAGIC) : -SIGNATURE_BYTES], trailer[-SIGNATURE_BYTES:]
    if key not in trusted:
        raise ArtifactError("the file is signed by a key that is not trusted", where, f"key {fingerprint(key)}", hint)
    ed25519, invalid = _library()
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, _CONTEXT + head)
    except (invalid, ValueError) as error:
        raise ArtifactError(
            "the signature is wrong", where, "the file was changed after it was signed", hint
        ) from error
    return key


def claimed(path: str | os.PathLike[str]) -> bytes | None:
    """The public key that a file says it was signed with; None if it is not signed. Nothing is checked."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - TRAILER_BYTES, 0))
        trailer = file.read()
    return trailer[len(MAGIC) : -SIGNATURE_BYTES] if trailer.startswith(MAGIC) else None


def public_keys(trusted: Key | Iterable[Key]) -> tuple[bytes, ...]:
    """Raw public keys from keys and paths of PEM files.

    Raises:
        ArtifactError: if there is none, or one is no Ed25519 public key.
    """
    given = [trusted] if isinstance(trusted, bytes | str | os.PathLike) else list(trusted)
    if not given:
        raise ArtifactError("no key is trusted", hint="give at least one public key")
    return tuple(_public(key) for key in given)


def fingerprint(key: bytes) -> str:
    """A public key as people compare it: hexadecimal, in groups."""
    text = key.hex()
    return ":".join(text[at : at + 8] for at in range(0, len(text), 8))


def make_keys(private: str | os.PathLike[str], public: str | os.PathLike[str]) -> bytes:
    """Writes a new pair of keys as PEM files, the private one readable by its owner only. Gives the raw public key.

    Raises:
        ArtifactError: if one of the files exists already.
    """
    from .files import atomic

    for path in (private, public):
        if os.path.lexists(path):
            raise ArtifactError(f"{os.fspath(path)} exists", why="a key is never overwritten", hint="give another name")
    ed25519, _ = _library()
    key = ed25519.Ed25519PrivateKey.generate()
    with atomic(private, 0o600) as file:
        file.write(_pem(key))
    with atomic(public) as file:
        file.write(_pem(key.public_key()))
    return _raw(key.public_key())


def _library() -> tuple[Any, type[Exception]]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        hint = "pip install cryptography"
        raise ArtifactError("signatures need the package cryptography", why=str(error), hint=hint) from error
    return ed25519, InvalidSignature


def _read(key: str | os.PathLike[str], load: str, **options: Any) -> Any:
    _library()
    from cryptography.hazmat.primitives import serialization

    try:
        return getattr(serialization, load)(Path(key).read_bytes(), **options)
    except (OSError, ValueError, TypeError) as error:
        what = f"no usable key in {os.fspath(key)}"
        raise ArtifactError(what, why=str(error), hint="give a PEM file, see `warpbeam sign --help`") from error


def _private(key: Key) -> Any:
    ed25519, _ = _library()
    if isinstance(key, bytes):
        raise ArtifactError("a private key is given as bytes", hint="give the path of its PEM file")
    found = _read(key, "load_pem_private_key", password=None)
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        raise ArtifactError(f"{os.fspath(key)} holds no Ed25519 private key", why=f"it is a {type(found).__name__}")
    return found


def _public(key: Key) -> bytes:
    if isinstance(key, bytes):
        if len(key) != KEY_BYTES:
            raise ArtifactError(f"a public key of {len(key)} bytes", why=f"an Ed25519 key has {KEY_BYTES}")
        return key
    ed25519, _ = _library()
    found = _read(key, "load_pem_public_key")
    if not isinstance(found, ed25519.Ed25519PublicKey):
        raise ArtifactError(f"{os.fspath(key)} holds no Ed25519 public key", why=f"it is a {type(found).__name__}")
    return _raw(found)


def _raw(public: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return bytes(public.public_bytes(s.Encoding.Raw, s.PublicFormat.Raw))


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    if hasattr(key, "private_bytes"):
        return bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    return bytes(key.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
