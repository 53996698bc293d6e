"""A tracker lends each device to one client at a time."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from warpbeam import rpc
from warpbeam.runtime.rpc import tracker as tracking
from warpbeam.runtime.rpc.server import Server

SECRET = "a secret of the whole farm"
COMMAND = [sys.executable, "-m", "warpbeam.exec.rpc_tracker"]


@pytest.fixture(scope="module")
def farm() -> Iterator[list[rpc.Server]]:
    """Two devices."""
    with rpc.Server(secret=SECRET) as first, rpc.Server(secret=SECRET) as second:
        yield [first, second]


@pytest.fixture
def place(farm: list[rpc.Server]) -> Iterator[Server]:
    """A tracker of them under one key, and of a device that is not there under another."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = probe.getsockname()[1]
    options = [f"--device=board=127.0.0.1:{d.port}" for d in farm]
    options += [f"--device=half=127.0.0.1:{nobody}", f"--device=half=127.0.0.1:{farm[0].port}",
                f"--device=gone=127.0.0.1:{nobody}"]  # fmt: skip
    with Server(secret=SECRET, program=COMMAND, options=options) as made:
        yield made


@pytest.fixture
def tracker(place: Server) -> Iterator[rpc.TrackerSession]:
    with rpc.connect_tracker(place.host, place.port, secret=SECRET) as made:
        yield made


def free(tracker: rpc.TrackerSession, key: str = "board") -> int:
    return sum(d["free"] for d in tracker.summary() if d["key"] == key)


def soon_free(tracker: rpc.TrackerSession, count: int) -> bool:
    """Whether so many devices are free within some seconds: the tracker sees connections end a little later."""
    until = time.monotonic() + 10
    while free(tracker) != count and time.monotonic() < until:
        time.sleep(0.02)
    return free(tracker) == count


def test_devices_are_lent_and_given_back(tracker: rpc.TrackerSession, farm: list[rpc.Server]) -> None:
    assert free(tracker) == 2
    first = tracker.request("board")
    second = tracker.request("board", session_timeout=100)
    first.upload(b"1", "x")
    assert second.listdir() == "" and free(tracker) == 0
    assert tracker.text_summary().count("busy") == 2
    with pytest.raises(rpc.RPCError, match=r"no device 'board' became free within 0\.2 seconds"):
        tracker.request("board", timeout=0.2)
    first.close()
    assert soon_free(tracker, 1)
    del second
    assert soon_free(tracker, 2)


def test_who_waits_gets_the_next(tracker: rpc.TrackerSession) -> None:
    """The greater priority first."""
    taken = [tracker.request("board"), tracker.request("board")]
    order: list[int] = []

    def wait(priority: int) -> None:
        with tracker.request("board", priority):
            order.append(priority)
            time.sleep(0.3)

    threads = [threading.Thread(target=wait, args=(p,)) for p in (1, 5)]
    for thread in threads:
        thread.start()
        time.sleep(0.4)
    taken[0].close()
    for thread in threads:
        thread.join()
    assert order == [5, 1]
    taken[1].close()


def test_a_client_that_dies_holds_nothing(tracker: rpc.TrackerSession, place: Server) -> None:
    program = f"""
import os
from warpbeam import rpc
tracker = rpc.connect_tracker({place.host!r}, {place.port}, secret={SECRET!r})
kept = [tracker.request("board"), tracker.request("board")]
print(sum(d["free"] for d in tracker.summary() if d["key"] == "board"), flush=True)
os._exit(0)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "0\n"
    assert soon_free(tracker, 2)


def test_a_session_is_closed_while_another_thread_waits(tracker: rpc.TrackerSession) -> None:
    taken = [tracker.request("board"), tracker.request("board")]
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(tracker.request("board", timeout=30).listdir()))
    thread.start()
    time.sleep(0.3)
    assert not found
    taken[0].close()
    thread.join(20)
    assert found == [""]
    taken[1].close()


def test_a_lease_that_ends_by_itself(tracker: rpc.TrackerSession) -> None:
    sessions = [tracker.request("board", session_timeout=1) for _ in range(2)]
    with tracker.request("board", timeout=20) as remote:
        assert remote.listdir() == ""
    with pytest.raises(rpc.RPCError):
        sessions[0].listdir()
        sessions[1].listdir()


def test_devices_that_do_not_answer(tracker: rpc.TrackerSession) -> None:
    with tracker.request("half") as remote:
        assert remote.listdir() == ""
    with pytest.raises(rpc.RPCError, match="no server answers"):
        tracker.request("gone", max_retry=1)
    with pytest.raises(rpc.RPCError, match="has no device 'other'; its keys: board, gone, half"):
        tracker.request("other")


def test_a_function_tries_again(tracker: rpc.TrackerSession) -> None:
    calls: list[int] = []

    def once(remote: rpc.RPCSession) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise rpc.RPCError("the session has ended")
        return remote.listdir()

    assert tracker.request_and_run("board", once) == "" and len(calls) == 2 and soon_free(tracker, 2)
    with pytest.raises(rpc.RPCError, match="never"):
        tracker.request_and_run("board", lambda remote: (_ for _ in ()).throw(rpc.RPCError("never")))


def test_strangers(place: Server) -> None:
    with pytest.raises(rpc.RPCError, match="denies access"):
        rpc.connect_tracker(place.host, place.port, secret=SECRET + "!")
    with socket.create_connection((place.host, place.port)) as sock:
        sock.sendall(bytes(100))
        sock.settimeout(20)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            return


@pytest.mark.parametrize("word", ["board", "=h:1", "k=h", "k=:1", "k=h:0", "k=h:70000", "k=h:x"])
def test_words_that_are_no_device(word: str) -> None:
    with pytest.raises(rpc.RPCError, match="is no device"):
        tracking.parse_devices([word])


def test_a_tracker_that_ends(farm: list[rpc.Server]) -> None:
    option = f"--device=board=127.0.0.1:{farm[0].port}"
    with Server(secret=SECRET, program=COMMAND, options=[option]) as place:
        tracker = rpc.connect_tracker(place.host, place.port, secret=SECRET)
        remote = tracker.request("board")
        place.terminate()
        assert remote.listdir() == ""  # the session is with the device
        with pytest.raises(rpc.RPCError, match="the tracker does not answer"):
            tracker.summary()
        remote.close()
