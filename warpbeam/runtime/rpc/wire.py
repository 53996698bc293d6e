"""The protocol of sessions: who may come in, frames that carry proof of their origin, and their numbers and texts.

`device/server.c` describes it; both ends in Python share this file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import struct
import time
from enum import IntEnum
from typing import Any

from ..errors import RPCError

VERSION = 1
MAX_PAYLOAD = 1 << 20
#: bytes of files and buffers in one frame
CHUNK = MAX_PAYLOAD // 2
MAX_KEY, NONCE, MAC = 64, 32, 32
MAX_AXES, MAX_NAME, MAX_FILES = 64, 255, 256
#: seconds for the greeting, and for a frame once it has begun
HELLO_SECONDS, FRAME_SECONDS = 5.0, 60.0
MIN_SECRET = 16
SECRET_VARIABLE = "WARPBEAM_RPC_SECRET"
_MAGIC = b"WBRP"
_HELLO, _CHALLENGE = struct.Struct("<4sHHI32s"), struct.Struct("<4sHH32s")
_WELCOME, _BAD_VERSION, _DENIED, _OTHER_KEY = range(4)


class Op(IntEnum):
    """Operations; `device/server.c` says what each takes and gives."""

    INFO, UPLOAD, DOWNLOAD, REMOVE, LIST, LOAD, ABOUT, FUNCTION = range(1, 9)
    FREE, ALLOC, COPY_TO, COPY_FROM, CALL, TIME, PARAMS, BYE = range(9, 17)


class Status(IntEnum):
    """How a request ended."""

    OK, FAILED, NOT_FOUND, TOO_LARGE, UNSUPPORTED, NOT_LOADABLE, BAD_REQUEST, CALL_FAILED = range(8)


class MalformedError(Exception):
    """A message ends too early, or holds what cannot be."""


class Reader:
    """Reads a payload from front to back; raises `error` where it makes no sense."""

    def __init__(self, data: bytes, error: type[Exception] = MalformedError) -> None:
        self.data = memoryview(data)
        self.error = error

    def take(self, size: int) -> memoryview:
        """The next bytes."""
        if size > len(self.data):
            raise self.error("the message ends too early")
        found, self.data = self.data[:size], self.data[size:]
        return found

    def get(self, fmt: str) -> Any:
        """The next number, by its letter of `struct`."""
        return struct.unpack("<" + fmt, self.take(struct.calcsize("<" + fmt)))[0]

    def text(self, limit: int = MAX_PAYLOAD) -> str:
        """The next text: its size, then UTF-8 without NUL."""
        size = self.get("I")
        if size > limit:
            raise self.error("a text is too long")
        try:
            found = bytes(self.take(size)).decode()
        except UnicodeDecodeError as error:
            raise self.error("a text is not UTF-8") from error
        if "\0" in found:
            raise self.error("a text holds NUL")
        return found

    def end(self) -> None:
        """Checks that nothing is left."""
        if len(self.data):
            raise self.error("the message is too long")


def text(value: str) -> bytes:
    """A text as it is sent."""
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def checked_secret(secret: str | bytes | None) -> bytes:
    """The secret given, or the environment's.

    Raises:
        RPCError: if there is none, or it is short.
    """
    given = secret if secret is not None else os.environ.get(SECRET_VARIABLE, "")
    data = (given.encode() if isinstance(given, str) else bytes(given)).rstrip(b" \t\r\n")
    if len(data) < MIN_SECRET:
        what = "there is no secret" if not data else f"the secret has {len(data)} bytes"
        raise RPCError(what, why=f"both ends must know one of at least {MIN_SECRET} bytes",
                       hint=f"pass secret=..., or set {SECRET_VARIABLE}")  # fmt: skip
    return data


class Channel:
    """A connection whose frames carry a MAC; made by one of the greetings."""

    def __init__(self, sock: socket.socket, out_key: bytes, in_key: bytes) -> None:
        self.sock = sock
        self._keys = out_key, in_key
        self._counts = [0, 0]

    def _mac(self, side: int, head: bytes, payload: bytes) -> bytes:
        message = struct.pack("<Q", self._counts[side]) + head + payload
        self._counts[side] += 1
        return hmac.digest(self._keys[side], message, hashlib.sha256)

    def send(self, payload: bytes) -> None:
        """Sends a frame; OSError if that fails."""
        assert 0 < len(payload) <= MAX_PAYLOAD
        head = struct.pack("<I", len(payload))
        self.sock.settimeout(FRAME_SECONDS)
        self.sock.sendall(head + payload + self._mac(0, head, payload))

    def receive(self, seconds: float) -> bytes | None:
        """The next frame's payload; None if the peer has closed the connection between frames.

        Raises:
            TimeoutError: if it does not begin within `seconds`.
            MalformedError: if it is cut off, too long, or not from the peer.
            OSError: if the connection broke.
        """
        head = exactly(self.sock, 1, time.monotonic() + seconds, True)
        if not head:
            return None
        deadline = time.monotonic() + min(FRAME_SECONDS, seconds)
        head += exactly(self.sock, 3, deadline)
        size = struct.unpack("<I", head)[0]
        if not 0 < size <= MAX_PAYLOAD:
            raise MalformedError(f"a frame of {size} bytes")
        data = exactly(self.sock, size + MAC, deadline)
        payload = data[:size]
        if not hmac.compare_digest(self._mac(1, head, payload), data[size:]):
            raise MalformedError("a frame that the peer did not send so: its MAC is wrong")
        return payload

    def close(self) -> None:
        """Ends the connection."""
        self.sock.close()


def exactly(sock: socket.socket, size: int, deadline: float, may_end: bool = False) -> bytes:
    """So many bytes; empty if `may_end` and the connection was closed before the first."""
    parts = []
    while size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        sock.settimeout(left)
        part = sock.recv(min(size, 1 << 20))
        if not part:
            if may_end:
                return b""
            raise MalformedError("the connection was closed in the middle of a message")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _plain(sock: socket.socket, least: int, most: int, deadline: float) -> bytes:
    size = struct.unpack("<I", exactly(sock, 4, deadline))[0]
    if not least <= size <= most:
        raise MalformedError("the peer speaks another protocol")
    return exactly(sock, size, deadline)


def _send_plain(sock: socket.socket, data: bytes, deadline: float) -> None:
    sock.settimeout(max(deadline - time.monotonic(), 1e-3))
    sock.sendall(struct.pack("<I", len(data)) + data)


def _derive(secret: bytes, label: str, said: bytes) -> bytes:
    return hmac.digest(secret, b"wbrpc " + label.encode() + b"\0" + said, hashlib.sha256)


def greet_server(
    sock: socket.socket, secret: bytes, key: str, session_timeout: int, seconds: float = HELLO_SECONDS
) -> Channel:
    """The client's side: proves that it knows the secret, and has the server prove it.

    Raises:
        RPCError: if the server refuses, or does not know the secret either.
        TimeoutError, MalformedError, OSError: as `Channel.receive`.
    """
    label = key.encode()
    if len(label) > MAX_KEY:
        raise RPCError(f"the key has {len(label)} bytes", hint=f"at most {MAX_KEY}")
    deadline = time.monotonic() + seconds
    hello = _HELLO.pack(_MAGIC, VERSION, len(label), session_timeout, secrets.token_bytes(NONCE)) + label
    _send_plain(sock, hello, deadline)
    challenge = _plain(sock, _CHALLENGE.size, _CHALLENGE.size, deadline)
    magic, version, status, _ = _CHALLENGE.unpack(challenge)
    if magic != _MAGIC or status not in (_WELCOME, _BAD_VERSION):
        raise MalformedError("the peer speaks another protocol")
    if status == _BAD_VERSION or version != VERSION:
        raise RPCError(f"the server speaks version {version} of the protocol", why=f"this is version {VERSION}",
                       hint="use the server that came with this package")  # fmt: skip
    said = hello + challenge
    _send_plain(sock, _derive(secret, "client", said), deadline)
    verdict = _plain(sock, 4 + MAC, 4 + MAC, deadline)
    (status,) = struct.unpack("<I", verdict[:4])
    if status == _DENIED:
        raise RPCError("the server denies access", why="it has another secret", hint="give both ends the same one")
    if not hmac.compare_digest(verdict[4:], _derive(secret, "server", said + verdict[:4])):
        raise RPCError("the server does not know the secret", why="it is not the one that was started with it")
    if status == _OTHER_KEY:
        raise RPCError(f"the server's key is not {key!r}", hint="connect with its key, or without one")
    return Channel(sock, _derive(secret, "c2s", said), _derive(secret, "s2c", said))


def greet_client(sock: socket.socket, secret: bytes, key: str) -> tuple[Channel, int] | None:
    """The server's side: lets a client in that knows the secret; None if it does not.

    Returns:
        The channel, and for how many seconds the session may last (0: any).
    """
    deadline = time.monotonic() + HELLO_SECONDS
    hello = _plain(sock, _HELLO.size, _HELLO.size + MAX_KEY, deadline)
    magic, version, size, lasting, _ = _HELLO.unpack(hello[: _HELLO.size])
    if magic != _MAGIC or _HELLO.size + size != len(hello):
        return None
    status = _WELCOME if version == VERSION else _BAD_VERSION
    challenge = _CHALLENGE.pack(_MAGIC, VERSION, status, secrets.token_bytes(NONCE))
    _send_plain(sock, challenge, deadline)
    if status:
        return None
    said = hello + challenge
    proof = _plain(sock, MAC, MAC, deadline)
    if not hmac.compare_digest(proof, _derive(secret, "client", said)):
        _send_plain(sock, struct.pack("<I", _DENIED) + bytes(MAC), deadline)
        return None
    given = hello[_HELLO.size :]
    verdict = struct.pack("<I", _OTHER_KEY if given and given != key.encode() else _WELCOME)
    _send_plain(sock, verdict + _derive(secret, "server", said + verdict), deadline)
    if verdict[0] != _WELCOME:
        return None
    return Channel(sock, _derive(secret, "s2c", said), _derive(secret, "c2s", said)), lasting
