"""Sockets that damage what passes, and a session's script to run over them."""

from __future__ import annotations

import random
import socket
from typing import Any

import numpy as np

import warpbeam as tvm
from warpbeam import rpc, te
from warpbeam.runtime.rpc import wire
from warpbeam.runtime.rpc.there import There

LENGTHS = [0, 1, 31, 0x7FFF_FFFF, 0xFFFF_FFFF, wire.MAX_PAYLOAD, wire.MAX_PAYLOAD + 1, 44, 40]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes that differ from `data`: bits, lengths, ends and repetitions."""
    out = bytearray(data)
    kind = rng.randrange(7)
    at = rng.randrange(len(out))
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(1, 9))
    elif kind == 2:
        out[:4] = rng.choice(LENGTHS).to_bytes(4, "little")
    elif kind == 3:
        del out[at:]
    elif kind == 4:
        out += rng.randbytes(rng.randrange(1, 100))
    elif kind == 5:
        out += bytes(out)
    else:
        out = bytearray(rng.randbytes(rng.randrange(0, 3000)))
    return bytes(out)


class Damaging:
    """A socket for one client that damages one of the messages it sends, and then says no more.

    history: what was sent. replayed: the message is sent as one before it was.
    """

    def __init__(self, sock: socket.socket, victim: int, rng: random.Random, replayed: bool = False) -> None:
        self.sock = sock
        self.victim = victim
        self.rng = rng
        self.replayed = replayed
        self.history: list[bytes] = []
        self.settimeout, self.recv, self.close = sock.settimeout, sock.recv, sock.close

    def sendall(self, data: bytes) -> None:
        if len(self.history) == self.victim:
            earlier = self.rng.choice(self.history) if self.replayed else mutated(data, self.rng)
            self.history.append(data)
            self.sock.sendall(earlier)
            self.sock.shutdown(socket.SHUT_WR)
        else:
            self.history.append(data)
            self.sock.sendall(data)


def opened(server: rpc.Server, sock: Any, timeout: float = 20.0) -> rpc.RPCSession:
    """A session over a socket."""
    channel = wire.greet_server(sock, wire.checked_secret(server.secret), "", 0)
    return rpc.RPCSession(There(channel, "hostile", timeout))


def connected(server: rpc.Server) -> socket.socket:
    """A connection without a greeting."""
    return socket.create_connection((server.host, server.port), timeout=20)


def library() -> bytes:
    """A small module of one function."""
    a = te.placeholder((te.var("n"),), name="A", dtype="int32")
    b = te.compute(a.shape, lambda i: a[i] * 2, name="B")
    code = tvm.build(te.create_schedule(b.op), [a, b], name="doubled").code
    assert code is not None
    return code


def script(remote: rpc.RPCSession, code: bytes) -> None:
    """One of everything: 2 messages of greeting, then requests."""
    remote.upload(code, target="f.so")
    g = remote.load_module("f.so")
    x = tvm.nd.array(np.arange(6, dtype="int32"), remote.cpu())
    y = tvm.nd.empty((6,), "int32", remote.cpu())
    g(x, y)
    assert y.numpy().tolist() == [0, 2, 4, 6, 8, 10]
    g.time_evaluator("doubled", number=1, repeat=2)(x, y)
    remote.listdir()
    remote.remove("f.so")
