"""`rpc.Server`: a server of sessions in a process of its own, for as long as the object lives."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from typing import IO

from ..errors import RPCError
from .wire import SECRET_VARIABLE

#: how long a server may take until it listens
START_SECONDS = 60.0


class Server:
    """Starts a server and ends it with `terminate`, or at the end of a `with` block.

    Attributes:
        host, port: where it listens. secret: what clients must know.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, key: str = "", secret: str = "",
                 program: Sequence[str] = (), options: Sequence[str] = ()) -> None:  # fmt: skip
        """Starts it and waits until it listens.

        Args:
            port: 0: any that is free.
            secret: a new one if empty.
            program: the command of another server, such as the one in C; by default Python's.
            options: more words for its command line.

        Raises:
            RPCError: if it does not start.
        """
        self.secret = secret or secrets.token_hex(16)
        command = list(program) or [sys.executable, "-m", "warpbeam.exec.rpc_server"]
        command += ["--host", host, "--port", str(port), *(["--key", key] if key else []), *options]
        environment = {**os.environ, SECRET_VARIABLE: self.secret}
        said = tempfile.TemporaryFile()  # noqa: SIM115 (the server's for as long as it lives)
        try:
            self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
        except OSError as error:
            said.close()
            raise RPCError("the server cannot be started", command[0], str(error.strerror)) from error
        self._finalizer = weakref.finalize(self, _end, self.process, said)
        impatience = threading.Timer(START_SECONDS, self.process.kill)
        impatience.start()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        impatience.cancel()
        if not line.startswith("listening on "):
            self.process.kill()
            self.process.wait()
            said.seek(0)
            why = said.read().decode("utf-8", "replace").strip()[-1000:]
            self.terminate()
            raise RPCError("the server does not start", command[0], why)
        self.host, _, number = line.removeprefix("listening on ").strip().rpartition(":")
        self.port = int(number)

    def terminate(self) -> None:
        """Ends the server and its sessions."""
        self._finalizer()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.terminate()


def _end(process: subprocess.Popen[str], said: IO[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    said.close()
