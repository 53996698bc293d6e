"""A tracker: it knows the devices of a farm, and lends each to one client at a time.

    warpbeam rpc-tracker --device board=192.168.1.20:9090 --device board=192.168.1.21:9090 --secret-file secret

    tracker = rpc.connect_tracker("192.168.1.2", 9190, secret="...")
    remote = tracker.request("board")       # a session with one of them; closing it gives the device back

The devices' servers need not know of it. The protocol is that of sessions: the same greeting, the same frames.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import RPCError
from .session import RPCSession, connect, opened_channel
from .wire import Channel, MalformedError, Reader, Status, checked_secret, greet_client, text

REQUEST, RELEASE, SUMMARY = 1, 2, 3
#: seconds for which a device that did not answer is not lent
REST_SECONDS = 5.0
MAX_CONNECTIONS, MAX_PATIENCE = 256, 86_400.0


@dataclass(slots=True)
class Row:
    """A device. lease: of the client that has it, 0: free. until: when the lease ends, or its rest; 0: no such time."""

    key: str
    host: str
    port: int
    lease: int = 0
    until: float = 0.0


@dataclass
class Tracker:
    """Lends devices. One thread for each client."""

    devices: list[Row]
    secret: bytes
    _change: threading.Condition = field(default_factory=threading.Condition)
    _leases: Any = field(default_factory=lambda: itertools.count(1))
    #: who waits: key, and what they sort by; the greatest priority first, then who came first
    _waiting: list[tuple[str, tuple[int, int]]] = field(default_factory=list)

    def lend(self, key: str, priority: int, patience: float, lasting: float) -> tuple[Row, int] | None:
        """A free device of a key and its lease, or None if there is none within `patience` seconds."""
        deadline = time.monotonic() + patience
        with self._change:
            mine = key, (-priority, next(self._leases))
            self._waiting.append(mine)
            try:
                while True:
                    now = time.monotonic()
                    free = next((d for d in self.devices if d.key == key and self._is_free(d, now)), None)
                    if free is not None and mine == min(w for w in self._waiting if w[0] == key):
                        free.lease = next(self._leases)
                        free.until = now + lasting if lasting else 0.0
                        return free, free.lease
                    if now >= deadline:
                        return None
                    self._change.wait(min(deadline - now, 0.5))
            finally:
                self._waiting.remove(mine)
                self._change.notify_all()

    def _is_free(self, device: Row, now: float) -> bool:
        if device.until and now >= device.until:
            device.lease, device.until = 0, 0.0
        return not device.lease and not device.until

    def give_back(self, lease: int, failed: bool = False) -> None:
        """Ends a lease; a device that did not answer rests."""
        with self._change:
            for device in self.devices:
                if device.lease == lease:
                    device.lease = 0
                    device.until = time.monotonic() + REST_SECONDS if failed else 0.0
            self._change.notify_all()

    def summary(self) -> list[dict[str, Any]]:
        """The devices: key, host, port, whether each is free."""
        with self._change:
            now = time.monotonic()
            return [{"key": d.key, "host": d.host, "port": d.port, "free": self._is_free(d, now)} for d in self.devices]

    # ----------------------------------------------------------------------------------------------------- serving

    def run(self, host: str, port: int, ready: Callable[[int], None]) -> None:
        """Serves until the process ends; `ready` is told the port.

        Raises:
            RPCError: if it cannot listen there.
        """
        try:
            listener = socket.create_server((host, port), backlog=64)
        except (OSError, OverflowError) as error:
            raise RPCError("cannot listen", f"{host}:{port}", str(error)) from error
        places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        with listener:
            ready(listener.getsockname()[1])
            while True:
                sock = listener.accept()[0]
                places.acquire()
                threading.Thread(target=self._client, args=(sock, places), daemon=True).start()

    def _client(self, sock: socket.socket, places: threading.BoundedSemaphore) -> None:
        """One client from its greeting to its end; its leases end with it."""
        held: set[int] = set()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            known = greet_client(sock, self.secret, "")
            while known is not None:
                payload = known[0].receive(MAX_PATIENCE)
                if payload is None:
                    break
                known[0].send(self._answer(payload, held))
        except (OSError, MalformedError):
            pass  # whoever it was hears nothing more
        finally:
            sock.close()
            for lease in held:
                self.give_back(lease)
            places.release()

    def _answer(self, payload: bytes, held: set[int]) -> bytes:
        reader = Reader(payload)
        op = reader.get("B")
        if op == SUMMARY:
            return bytes([Status.OK]) + text(json.dumps(self.summary()))
        if op == RELEASE:
            lease, failed = reader.get("I"), reader.get("B")
            if lease in held:
                held.discard(lease)
                self.give_back(lease, bool(failed))
            return bytes([Status.OK])
        if op != REQUEST:
            raise MalformedError("unknown operation")
        key, priority, patience, lasting = reader.text(64), reader.get("i"), reader.get("d"), reader.get("I")
        if not any(d.key == key for d in self.devices):
            known = ", ".join(sorted({d.key for d in self.devices})) or "none"
            return bytes([Status.NOT_FOUND]) + text(f"the tracker has no device {key!r}; its keys: {known}")
        found = self.lend(key, priority, patience if 0 <= patience < MAX_PATIENCE else MAX_PATIENCE, lasting)
        if found is None:
            return bytes([Status.FAILED]) + text(f"no device {key!r} became free within {patience:g} seconds")
        held.add(found[1])
        return bytes([Status.OK]) + struct.pack("<IH", found[1], found[0].port) + text(found[0].host)


class TrackerSession:
    """A client of a tracker. Each device that it borrows has a connection to the tracker, with which the lease ends."""

    def __init__(self, url: str, port: int, secret: bytes) -> None:
        self._place = url, port
        self._where = f"{url}:{port}"
        self._secret = secret
        self._channel = self._open()
        self._lock = threading.Lock()

    def _open(self) -> Channel:
        return opened_channel(*self._place, "", 0, self._secret, 30.0)

    def _ask(self, channel: Channel, payload: bytes, seconds: float = 0.0) -> Reader:
        try:
            channel.send(payload)
            reply = channel.receive(seconds + 30.0)
            if reply is None:
                raise ConnectionError("it has closed the connection")
        except (OSError, MalformedError) as error:
            channel.close()
            raise RPCError("the tracker does not answer", self._where, str(error), "connect again") from error
        reader = Reader(reply, RPCError)
        if reader.get("B") != Status.OK:
            raise RPCError(reader.text(), self._where)
        return reader

    def request(
        self, key: str, priority: int = 1, session_timeout: int = 0, max_retry: int = 5, timeout: float = 300.0
    ) -> RPCSession:
        """A session with a device of a key, as soon as one is free; closing the session gives it back.

        Args:
            priority: who asks with a greater one is served first.
            session_timeout: seconds after which the session ends and the device is free again; 0: never.
            max_retry: how many devices that do not answer are passed over.
            timeout: seconds to wait for a free device, and for answers of the session.

        Raises:
            RPCError: if there is no such key, none becomes free in time, or none answers.
        """
        question = bytes([REQUEST]) + text(key) + struct.pack("<idI", priority, timeout, session_timeout)
        channel = self._open()
        try:
            for attempt in itertools.count(1):
                reply = self._ask(channel, question, timeout)
                lease, port, host = reply.get("I"), reply.get("H"), reply.text()
                try:
                    return connect(host, port, "", session_timeout, self._secret, timeout, channel.close)
                except RPCError:
                    self._ask(channel, struct.pack("<BIB", RELEASE, lease, True))
                    if attempt >= max_retry:
                        raise
        except BaseException:
            channel.close()
            raise
        raise AssertionError("not reached")

    def request_and_run(
        self, key: str, func: Callable[[RPCSession], Any], priority: int = 1, session_timeout: int = 0,
        max_retry: int = 2,
    ) -> Any:  # fmt: skip
        """What `func` gives for a session; where the session breaks, another device tries, `max_retry` times in all."""
        for attempt in itertools.count(1):
            try:
                with self.request(key, priority, session_timeout) as remote:
                    return func(remote)
            except RPCError:
                if attempt >= max_retry:
                    raise
        raise AssertionError("not reached")

    def summary(self) -> list[dict[str, Any]]:
        """The devices: "key", "host", "port", "free"."""
        with self._lock:
            reply = self._ask(self._channel, bytes([SUMMARY]))
        rows: list[dict[str, Any]] = json.loads(reply.text())
        return rows

    def text_summary(self) -> str:
        """The devices as a table."""
        rows = [(d["key"], f"{d['host']}:{d['port']}", "free" if d["free"] else "busy") for d in self.summary()]
        return "\n".join(f"{key:<20} {where:<28} {state}" for key, where, state in [("key", "device", "state"), *rows])

    def close(self) -> None:
        """Ends the connection; sessions that it has opened go on."""
        self._channel.close()

    def __enter__(self) -> TrackerSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def connect_tracker(url: str, port: int, secret: str | bytes | None = None) -> TrackerSession:
    """A client of a tracker; it has the devices' secret, by default the environment variable WARPBEAM_RPC_SECRET.

    Raises:
        RPCError: if nobody answers, or the other end does not know the secret.
    """
    return TrackerSession(url, port, checked_secret(secret))


def parse_devices(words: Sequence[str]) -> list[Row]:
    """Devices written as KEY=HOST:PORT.

    Raises:
        RPCError: for what is none.
    """
    rows = []
    for word in words:
        key, _, where = word.partition("=")
        host, _, port = where.rpartition(":")
        if not key or not host or not port.isdecimal() or not 0 < int(port) < 65536 or len(key.encode()) > 64:
            raise RPCError(f"{word!r} is no device", hint="write KEY=HOST:PORT, such as board=192.168.1.20:9090")
        rows.append(Row(key, host, int(port)))
    return rows
