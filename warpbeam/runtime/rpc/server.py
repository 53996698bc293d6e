"""`rpc.Server`: a server of sessions in a process of its own, for as long as the object lives."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import weakref
from collections.abc import Sequence

from ..errors import RPCError
from .wire import SECRET_VARIABLE


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
        try:
            self.process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise RPCError("the server cannot be started", command[0], str(error.strerror)) from error
        self._finalizer = weakref.finalize(self, _end, self.process)
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self.process.kill()
            raise RPCError("the server does not start", command[0], self.process.stderr.read().strip()[-1000:])
        self.host, _, number = line.removeprefix("listening on ").strip().rpartition(":")
        self.port = int(number)

    def terminate(self) -> None:
        """Ends the server and its sessions."""
        self._finalizer()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.terminate()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
