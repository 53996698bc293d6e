"""`RPCSession`: files, modules, functions and arrays at one end, which is this process or another machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ..errors import FunctionError, RPCError
from ..ndarray import Device
from ..packed import PackedFunc
from . import wire
from .here import Here


class End(Protocol):
    """Where a session's files and functions are."""

    @property
    def info(self) -> dict[str, Any]:
        """What is there."""

    def write(self, name: str, data: bytes) -> None:
        """Makes a file."""

    def read(self, name: str) -> bytes:
        """A file's content."""

    def remove(self, name: str) -> None:
        """Removes a file."""

    def names(self) -> list[str]:
        """The files' names in order."""

    def load(self, name: str) -> Any:
        """The module in a file."""

    def function(self, name: str) -> PackedFunc:
        """A registered function."""

    def device(self, kind: str | int, number: int) -> Device:
        """A device there."""

    def close(self) -> None:
        """Gives back what the session holds."""


class RPCSession:
    """A session with a machine that keeps files and arrays and runs code; `connect` and `LocalSession` make them."""

    def __init__(self, end: End) -> None:
        self._end = end

    @property
    def info(self) -> dict[str, Any]:
        """What the other end is: "server", "machine" (as in LLVM triples), "cores", "features", "max_bytes", …"""
        return dict(self._end.info)

    def upload(self, data: Any, target: str | None = None) -> None:
        """Copies a file into the session, under its own name or `target`; bytes need a `target`.

        Raises:
            FunctionError: (a ValueError) if bytes have no name, or the name leads out of the session's folder.
            RPCError: if the session has ended.
        """
        if isinstance(data, bytes | bytearray):
            if not target:
                raise FunctionError("upload of bytes without a name", hint='session.upload(data, target="lib.tar")')
            content = bytes(data)
        else:
            content, target = Path(data).read_bytes(), target or os.path.basename(data)
        self._end.write(target, content)

    def download(self, path: str) -> bytearray:
        """The content of a file of the session; FunctionError if there is none."""
        return bytearray(self._end.read(path))

    def remove(self, path: str) -> None:
        """Removes a file of the session; FunctionError if there is none."""
        self._end.remove(path)

    def listdir(self, path: str = "") -> str:
        """The names of the session's files, with commas between them."""
        prefix = path.strip("/") + "/" if path.strip("./") else ""
        return ",".join(n.removeprefix(prefix) for n in self._end.names() if n.startswith(prefix))

    def load_module(self, path: str) -> Any:
        """The module in an uploaded file: compiled functions, or a model (`module["default"](session.cpu())`).

        Raises:
            LoadError: if the file is no module, or not for that machine.
            FunctionError: if there is no such file.
        """
        return self._end.load(path)

    def get_function(self, name: str) -> PackedFunc:
        """A function that is registered at the other end; FunctionError if there is none."""
        return self._end.function(name)

    def device(self, dev_type: str | int, dev_id: int = 0) -> Device:
        """A device of that machine: arrays made for it live there."""
        return self._end.device(dev_type, dev_id)

    context = device

    def cpu(self, dev_id: int = 0) -> Device:
        """The processor."""
        return self.device("cpu", dev_id)

    def cuda(self, dev_id: int = 0) -> Device:
        """An NVIDIA GPU."""
        return self.device("cuda", dev_id)

    gpu = cuda

    def cl(self, dev_id: int = 0) -> Device:
        """An OpenCL device."""
        return self.device("opencl", dev_id)

    opencl = cl

    def hexagon(self, dev_id: int = 0) -> Device:
        """A Hexagon processor."""
        return self.device("hexagon", dev_id)

    def ext_dev(self, dev_id: int = 0) -> Device:
        """An accelerator of another kind."""
        return self.device("ext_dev", dev_id)

    def close(self) -> None:
        """Ends the session; its files and arrays are gone."""
        self._end.close()

    def __enter__(self) -> RPCSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class LocalSession(RPCSession):
    """A session with this process: a folder of its own for files, this machine's devices and functions."""

    def __init__(self) -> None:
        super().__init__(Here())


def connect(
    url: str, port: int, key: str = "", session_timeout: int = 0, secret: str | bytes | None = None,
    timeout: float = 300.0, leave: Callable[[], object] = lambda: None,
) -> RPCSession:  # fmt: skip
    """Opens a session with a device server.

    Args:
        url: its name or address.
        key: if given, the server must have been started with it.
        session_timeout: seconds after which the server ends the session, whatever runs; 0: never.
        secret: what both ends know; by default the environment variable WARPBEAM_RPC_SECRET. It is not sent.
        timeout: seconds to wait for an answer, besides the time that a measurement must take.
        leave: called once when the session has ended.

    Raises:
        RPCError: if nobody answers, or the other end does not know the secret.
    """
    from .there import There

    channel = opened_channel(url, port, key, session_timeout, wire.checked_secret(secret), timeout)
    return RPCSession(There(channel, f"{url}:{port}", timeout, leave))


def opened_channel(url: str, port: int, key: str, session_timeout: int, secret: bytes, timeout: float) -> wire.Channel:
    """A connection to a server that has been greeted; errors as of `connect`."""
    where = f"{url}:{port}"
    try:
        sock = socket.create_connection((url, port), timeout=min(timeout, 30.0))
    except (OSError, OverflowError) as error:
        raise RPCError("no server answers", where, str(error), "start one there: warpbeam rpc-server") from error
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return wire.greet_server(sock, secret, key, session_timeout, min(timeout, 30.0))
    except (OSError, wire.MalformedError) as error:
        sock.close()
        raise RPCError("the server did not greet", where, str(error) or type(error).__name__,
                       "is it a Warpbeam server, and not busy with others?") from error  # fmt: skip
    except RPCError as error:
        sock.close()
        raise RPCError(error.what, where, error.why, error.hint) from None
