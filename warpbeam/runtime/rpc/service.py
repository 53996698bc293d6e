"""Listening for sessions: a process for each connection, so that code that crashes ends only its own session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass

from ..errors import RPCError
from .serving import serve_channel
from .wire import MalformedError, greet_client


@dataclass(frozen=True, slots=True)
class Service:
    """What a server is started with.

    max_bytes: of a session's files, and of its arrays. idle: seconds without a request that end a session.
    """

    secret: bytes
    host: str = "127.0.0.1"
    port: int = 9090
    key: str = ""
    max_bytes: int = 1 << 30
    idle: float = 3600.0
    max_sessions: int = 4
    folder: str = ""
    silent: bool = False

    def run(self) -> None:
        """Serves until the process is told to end.

        Raises:
            RPCError: if it cannot listen there.
        """
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((self.host, self.port), family=family, backlog=64)
        except (OSError, OverflowError) as error:
            raise RPCError("cannot listen", f"{self.host}:{self.port}", str(error)) from error
        with listener:
            if not self.silent:
                print(f"listening on {self.host}:{listener.getsockname()[1]}", flush=True)
            if hasattr(os, "fork"):
                self._fork_each(listener)
            else:
                self._thread_each(listener)

    def _folder(self) -> str:
        return tempfile.mkdtemp(prefix="warpbeam-rpc-", dir=self.folder or None)

    def _fork_each(self, listener: socket.socket) -> None:
        children: dict[int, str] = {}
        listener.settimeout(0.2)
        try:
            while True:
                _reap(children)
                if len(children) >= self.max_sessions:  # others wait in the queue of the socket
                    time.sleep(0.02)
                    continue
                try:
                    sock = listener.accept()[0]
                except TimeoutError:
                    continue
                folder = self._folder()
                pid = os.fork()
                if pid == 0:
                    self._child(listener, sock, folder)
                sock.close()
                children[pid] = folder
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            _reap(children, wait=True)

    def _child(self, listener: socket.socket, sock: socket.socket, folder: str) -> None:
        """The process of one connection; does not return."""
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            listener.close()
            self.converse(sock, folder)
        except BaseException as error:  # a session's trouble is not the server's
            print(f"a session ended: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(0)

    def _thread_each(self, listener: socket.socket) -> None:
        places = threading.BoundedSemaphore(self.max_sessions)

        def one(sock: socket.socket) -> None:
            with places:
                self.converse(sock, self._folder())

        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    def converse(self, sock: socket.socket, folder: str) -> None:
        """One connection from its hello to its end."""
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            try:
                known = greet_client(sock, self.secret, self.key)
            except (OSError, MalformedError):
                known = None
            if known is None:
                shutil.rmtree(folder, ignore_errors=True)
                return
            channel, lasting = known
            if lasting and hasattr(signal, "alarm"):
                signal.alarm(lasting)
            serve_channel(channel, folder, self.max_bytes, self.idle)


def _reap(children: dict[int, str], wait: bool = False) -> None:
    """Removes the folders of sessions that have ended."""
    for pid, folder in list(children.items()):
        if os.waitpid(pid, 0 if wait else os.WNOHANG)[0]:
            shutil.rmtree(folder, ignore_errors=True)
            del children[pid]
