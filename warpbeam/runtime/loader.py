"""Loading machine code that is in memory into this process."""

from __future__ import annotations

import ctypes
import itertools
import os
import tempfile
import weakref

from .errors import LoadError

_counter = itertools.count()


class Library:
    """A loaded shared library.

    The code stays mapped until `close`, or until the process ends: dropping the last reference unmaps it, unless `pin`
    was called.
    """

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "module") -> None:
        """Maps the library.

        Args:
            data: bytes of an ELF shared library whose integrity the caller has verified.
            name: for messages and `/proc/self/maps`.

        Raises:
            LoadError: if the system's loader refuses it.
        """
        self._take(_open(data, name), name)

    @staticmethod
    def of_file(path: str | os.PathLike[str]) -> Library:
        """Maps a shared library that is a file.

        Raises:
            LoadError: if the system's loader refuses it.
        """
        where = os.path.abspath(path)  # a name without a slash would be searched for
        made = Library.__new__(Library)
        try:
            made._take(ctypes.CDLL(where), os.path.basename(where))
        except OSError as error:
            hint = "is it a shared library for this machine?"
            raise LoadError("the library cannot be loaded", where=where, why=str(error), hint=hint) from error
        return made

    def _take(self, cdll: ctypes.CDLL, name: str) -> None:
        self.name = name
        self._cdll = cdll
        self._finalizer = weakref.finalize(self, _close, cdll._handle)
        self._finalizer.atexit = False

    def __contains__(self, symbol: str) -> bool:
        try:
            self._cdll[symbol]
        except AttributeError:
            return False
        return True

    def address(self, symbol: str) -> int:
        """The address of an exported symbol.

        Raises:
            LoadError: if it is not exported.
        """
        try:
            return ctypes.cast(self._cdll[symbol], ctypes.c_void_p).value or 0
        except AttributeError as error:
            raise LoadError(f"no symbol {symbol!r}", where=self.name, why="the code does not export it") from error

    def function(self, symbol: str) -> ctypes._FuncPointer:
        """An exported function returning int32, without declared argument types: pass ctypes values only."""
        self.address(symbol)
        function = self._cdll[symbol]
        function.restype = ctypes.c_int32
        return function

    def pin(self) -> None:
        """Keeps the code mapped for the life of the process."""
        self._finalizer.detach()

    def close(self) -> None:
        """Unmaps the code; its functions must not be called any more."""
        self._finalizer()


def _open(data: bytes | bytearray | memoryview, name: str) -> ctypes.CDLL:
    try:
        if hasattr(os, "memfd_create"):
            return _open_memfd(data, name)
        return _open_file(data)
    except OSError as error:
        hint = "was it built for another machine? rebuild it from the embedded Relay text"
        raise LoadError("the code cannot be loaded", where=name, why=str(error), hint=hint) from error


def _open_memfd(data: bytes | bytearray | memoryview, name: str) -> ctypes.CDLL:
    try:
        fd = os.memfd_create(f"warpbeam:{name}"[:200], os.MFD_CLOEXEC)
    except (OSError, ValueError):
        return _open_file(data)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        # The loader takes a path it has seen before for the library it has loaded before, and descriptor numbers come
        # back. So each path is spelled differently: the bits of a counter written as "/" and "./".
        spelling = f"{next(_counter):b}".replace("0", "/").replace("1", "./")
        try:
            return ctypes.CDLL(f"/proc/self/fd/{spelling}{fd}", mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            if os.path.exists("/proc/self/fd"):
                raise
            first = error
    try:
        return _open_file(data)
    except OSError:
        raise first from None


def _open_file(data: bytes | bytearray | memoryview) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="warpbeam-") as folder:  # made with mode 0700
        path = os.path.join(folder, f"code{next(_counter)}.so")
        with open(path, "xb") as file:
            file.write(data)
        return ctypes.CDLL(path)


def _close(handle: int) -> None:
    import _ctypes

    close = getattr(_ctypes, "dlclose", None)
    if close is not None:
        close(handle)
