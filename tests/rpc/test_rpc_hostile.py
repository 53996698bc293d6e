"""Peers that lie: damaged, cut and repeated messages in both directions, and malformed requests with a right MAC.

The server in C runs under the address, leak and undefined-behaviour sanitizers; their reports go to files.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile import Damaging, connected, library, mutated, opened, script

import warpbeam as tvm
from warpbeam import rpc
from warpbeam.runtime.rpc import wire

SAMPLE, SESSIONS = 60, 2000
#: messages that a client sends in `script`, with its greeting
MESSAGES = 16


@pytest.fixture(scope="module")
def code() -> bytes:
    return library()


@pytest.fixture(params=["python", "c"])
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[rpc.Server]:
    """A server of each kind. Afterwards it must still serve, and no sanitizer may have said anything."""
    program = [request.getfixturevalue("sanitized")] if request.param == "c" else []
    (tmp_path / "reports").mkdir()
    (tmp_path / "files").mkdir()
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
        monkeypatch.setenv(name, f"log_path={tmp_path}/reports/report")
    with rpc.Server(program=program, options=["--folder", str(tmp_path / "files"), "--max-sessions", "8"]) as server:
        yield server
        with rpc.connect(server.host, server.port, secret=server.secret, timeout=60) as remote:
            script(remote, library())
        until = time.monotonic() + 20
        while os.listdir(tmp_path / "files") and time.monotonic() < until:
            time.sleep(0.05)
        assert not os.listdir(tmp_path / "files")
    reports = [p.read_text()[:2000] for p in (tmp_path / "reports").iterdir()]
    assert not reports, reports[0]


def damaged(server: rpc.Server, code: bytes, seeds: range) -> int:
    """Runs a damaged session for each seed; how many of them failed, each as it should and soon."""
    failures = 0
    for seed in seeds:
        rng = random.Random(seed)
        sock = Damaging(connected(server), rng.randrange(MESSAGES), rng)
        start = time.monotonic()
        try:
            script(opened(server, sock), code)
        except (rpc.RPCError, wire.MalformedError, OSError):
            failures += 1
        finally:
            sock.close()
        assert time.monotonic() - start < 15, f"seed {seed} took too long"
    return failures


def test_the_script_has_so_many_messages(target: rpc.Server, code: bytes) -> None:
    sock = Damaging(connected(target), 1000, random.Random(0))
    remote = opened(target, sock)
    script(remote, code)
    remote.close()
    assert len(sock.history) in (MESSAGES, MESSAGES + 1, MESSAGES + 2)  # arrays that go, good-bye


def test_damaged_sessions(target: rpc.Server, code: bytes) -> None:
    """Whatever is damaged, the session ends in an error."""
    assert damaged(target, code, range(SAMPLE)) > 0.9 * SAMPLE


@pytest.mark.slow
def test_many_damaged_sessions(target: rpc.Server, code: bytes) -> None:
    assert damaged(target, code, range(SAMPLE, SESSIONS)) > 0.9 * (SESSIONS - SAMPLE)


def test_a_message_again(target: rpc.Server, code: bytes) -> None:
    """A right frame at the wrong time is no frame."""
    for victim in range(3, MESSAGES):
        sock = Damaging(connected(target), victim, random.Random(victim), replayed=True)
        with pytest.raises(rpc.RPCError, match="the session has ended"):
            script(opened(target, sock), code)
        sock.close()


def requests(code: bytes) -> list[bytes]:
    """Payloads of right requests; handles are small numbers."""

    def text(value: str) -> bytes:
        return wire.text(value)

    def tensor(handle: int, *shape: int) -> bytes:
        return struct.pack(f"<BIQBBHI{len(shape)}q", 7, handle, 0, 0, 32, 1, len(shape), *shape)

    both = struct.pack("<I", 2) + tensor(3, 6) + tensor(4, 6)
    bodies = {
        wire.Op.INFO: b"", wire.Op.LIST: b"", wire.Op.UPLOAD: text("g") + struct.pack("<QI", 0, 5) + b"abcde",
        wire.Op.DOWNLOAD: text("f.so") + struct.pack("<QI", 10, 100), wire.Op.LOAD: text("f.so"),
        wire.Op.ABOUT: struct.pack("<IQI", 1, 0, 100), wire.Op.FUNCTION: struct.pack("<I", 1) + text("doubled"),
        wire.Op.ALLOC: struct.pack("<Q", 24), wire.Op.COPY_TO: struct.pack("<IQI", 3, 4, 4) + b"1234",
        wire.Op.COPY_FROM: struct.pack("<IQI", 3, 4, 4), wire.Op.CALL: struct.pack("<II", 2, 0) + both,
        wire.Op.TIME: struct.pack("<IIIIIIIQ", 2, 1, 2, 0, 1, 0, 1, 64) + both, wire.Op.PARAMS: struct.pack("<I", 1),
        wire.Op.FREE: struct.pack("<II", 1, 9), wire.Op.REMOVE: text("g"),
    }  # fmt: skip
    return [bytes([op]) + body for op, body in bodies.items()]


def prepared(server: rpc.Server, code: bytes) -> wire.Channel:
    """A channel of a session with module 1, function 2 and buffers 3 and 4."""
    channel = wire.greet_server(connected(server), wire.checked_secret(server.secret), "", 60)
    for payload in (
        bytes([wire.Op.UPLOAD]) + wire.text("f.so") + struct.pack("<QI", 0, len(code)) + code,
        bytes([wire.Op.LOAD]) + wire.text("f.so"),
        bytes([wire.Op.FUNCTION]) + struct.pack("<I", 1) + wire.text("doubled"),
        bytes([wire.Op.ALLOC]) + struct.pack("<Q", 24), bytes([wire.Op.ALLOC]) + struct.pack("<Q", 24),
    ):  # fmt: skip
        channel.send(payload)
        reply = channel.receive(20)
        assert reply is not None and reply[0] == wire.Status.OK
    return channel


def harmless(payload: bytes) -> bool:
    """Whether a mutated request asks for no measurement of hours: numbers of calls are the client's to choose."""
    if payload[0] != wire.Op.TIME or len(payload) < 41:
        return payload[0] != wire.Op.BYE
    _, number, repeat, least, zeros, pause, _, flush = struct.unpack("<IIIIIIIQ", payload[1:37])
    return number < 1000 and repeat < 1000 and least < 10 and zeros < 1000 and pause < 10 and flush < 1 << 20


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_malformed_requests(target: rpc.Server, code: bytes, count: int) -> None:
    """Requests that are damaged before they get their MAC: each has an answer, and the session goes on."""
    rng = random.Random(count)
    valid = requests(code)
    channel = prepared(target, code)
    statuses = set()
    for _ in range(count):
        payload = mutated(rng.choice(valid), rng)[: wire.MAX_PAYLOAD]
        if not payload or not harmless(payload):
            continue
        channel.send(payload)
        reply = channel.receive(20)
        assert reply is not None, payload
        statuses.add(reply[0])
        assert reply[0] in list(wire.Status)
        if reply[0] == wire.Status.OK and payload[0] in (wire.Op.FREE, wire.Op.REMOVE, wire.Op.UPLOAD):
            channel.close()
            channel = prepared(target, code)
    channel.close()
    assert {wire.Status.OK, wire.Status.NOT_FOUND, wire.Status.BAD_REQUEST} <= statuses


@pytest.mark.parametrize("greeting", [
    b"", b"GET / HTTP/1.0\r\n\r\n", struct.pack("<I", 44), struct.pack("<I", 1 << 31),
    struct.pack("<I", 44) + bytes(44), struct.pack("<I4sHHI", 44, b"WBRP", 1, 60, 0) + bytes(32),
    struct.pack("<I4sHHI", 108, b"WBRP", 1, 0, 0) + bytes(96),
], ids=["nothing", "http", "cut", "long", "zeros", "key too long", "key too short"])  # fmt: skip
def test_strangers(target: rpc.Server, greeting: bytes) -> None:
    """Nobody is told anything who does not greet, and the connection ends."""
    with connected(target) as sock:
        sock.sendall(greeting)
        sock.shutdown(socket.SHUT_WR)
        try:
            assert sock.recv(100) == b""
        except ConnectionResetError:
            return  # it went without reading all


@pytest.mark.slow
def test_a_silent_stranger_is_sent_away(target: rpc.Server) -> None:
    with connected(target) as sock:
        start = time.monotonic()
        assert sock.recv(1) == b"" and time.monotonic() - start < wire.HELLO_SECONDS + 5


def test_another_version(target: rpc.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, connected(target) as sock:
        patch.setattr(wire, "VERSION", 9)
        with pytest.raises(rpc.RPCError, match="version 1 of the protocol"):
            opened(target, sock)


# ------------------------------------------------------------------------------------------------- hostile servers


def lying(answer: Callable[[socket.socket], None]) -> tuple[socket.socket, threading.Thread]:
    """The client's end of a connection to a server that does what `answer` does."""
    mine, its = socket.socketpair()

    def run() -> None:
        with its, contextlib.suppress(OSError):
            answer(its)

    thread = threading.Thread(target=run)
    thread.start()
    return mine, thread


@pytest.mark.parametrize("data", [
    b"", b"HTTP/1.0 400 Bad Request\r\n", struct.pack("<I", 40), struct.pack("<I", 0xFFFFFFFF),
    struct.pack("<I4sHH", 40, b"WBRP", 1, 7) + bytes(32), struct.pack("<I4sHH", 40, b"WBRQ", 1, 0) + bytes(32),
    struct.pack("<I4sHH", 40, b"WBRP", 1, 0) + bytes(32) + struct.pack("<II", 36, 0) + bytes(32),
    struct.pack("<I4sHH", 40, b"WBRP", 1, 0) + bytes(32) + struct.pack("<I", 35) + bytes(35),
], ids=["nothing", "http", "cut", "long", "odd status", "odd magic", "knows no secret", "short verdict"])  # fmt: skip
def test_servers_that_greet_badly(data: bytes) -> None:
    def answer(sock: socket.socket) -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass

    sock, thread = lying(answer)
    with pytest.raises((rpc.RPCError, wire.MalformedError)):
        wire.greet_server(sock, b"x" * 16, "", 0)
    sock.close()
    thread.join()


def test_connecting_to_what_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(rpc.RPCError, match="the server did not greet"):
            rpc.connect("127.0.0.1", port, secret="x" * 16, timeout=0.3)
        assert time.monotonic() - start < 10


class Deceived:
    """A socket for one client that damages what it receives, from a message on."""

    def __init__(self, sock: socket.socket, victim: int, rng: random.Random) -> None:
        self.sock, self.victim, self.rng, self.count = sock, victim, rng, 0
        self.settimeout, self.sendall, self.close = sock.settimeout, sock.sendall, sock.close

    def recv(self, size: int) -> bytes:
        data = self.sock.recv(size)
        self.count += 1
        if self.count - 1 != self.victim or not data:
            return data
        return mutated(data, self.rng)[:size]


def test_damaged_answers(target: rpc.Server, code: bytes) -> None:
    """The client ends in RPCError, soon, whatever comes back."""
    ended = 0
    for seed in range(30):
        rng = random.Random(seed)
        sock = Deceived(connected(target), rng.randrange(40), rng)
        start = time.monotonic()
        try:
            script(opened(target, sock, 0.3), code)
        except (rpc.RPCError, wire.MalformedError, OSError):
            ended += 1
        except tvm.TVMError as error:
            pytest.fail(f"seed {seed}: {error!r}")
        finally:
            sock.close()
        assert time.monotonic() - start < 10
    assert ended > 18
