"""External tensor data: read only from regular files inside the model's own folder.

The location comes from the file and is not trusted: no absolute path, no way out of the folder, no symbolic links on
the way (each component is opened with O_NOFOLLOW relative to its parent), a regular file with one link, a range within
its size.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
from collections.abc import Mapping

import numpy as np

from warpbeam.ir.diagnostics import ImportModelError

_NUMBER = re.compile(r"[0-9]{1,19}\Z")


class ExternalData:
    """Reads external data of one model. folder: where the model file lies, None if it came without one."""

    def __init__(self, folder: str | None) -> None:
        self.folder = None if folder is None else os.path.realpath(folder)
        self._open: dict[str, np.ndarray] = {}

    def read(self, entries: Mapping[str, str], need: int, tensor: str) -> np.ndarray:
        """The bytes of one tensor: `need` bytes as its type and shape say."""
        offset = _number(entries.get("offset", "0"), "offset", tensor)
        length = _number(entries["length"], "length", tensor) if "length" in entries else need
        if length != need:
            raise ImportModelError(
                f"external data of {tensor!r} has {length} bytes, its shape and type need {need}", where=tensor
            )
        data = self._map(entries.get("location", ""), tensor)
        if offset > data.size or need > data.size - offset:
            raise ImportModelError(
                f"external data of {tensor!r} lies at {offset}..{offset + need}, the file has {data.size} bytes"
            )
        piece = data[offset : offset + need]
        checksum = entries.get("checksum", "")
        if checksum and hashlib.sha1(piece, usedforsecurity=False).hexdigest() != checksum.lower():
            raise ImportModelError(f"external data of {tensor!r} does not have the checksum that the model states")
        return piece

    def _map(self, location: str, tensor: str) -> np.ndarray:
        found = self._open.get(location)
        if found is None:
            found = self._open[location] = _map_file(self._descriptor(location, tensor))
        return found

    def _descriptor(self, location: str, tensor: str) -> int:
        if self.folder is None:
            raise ImportModelError(
                f"tensor {tensor!r} is stored in another file, but the model has no folder",
                hint="give the path of the model file instead of its bytes",
            )
        parts = location.replace("\\", "/").split("/")
        if not location or "\0" in location or location.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise _outside(location, tensor)
        parts = [p for p in parts if p not in ("", ".")]
        whole = os.path.join(self.folder, *parts)
        if not parts or os.path.commonpath([os.path.realpath(whole), self.folder]) != self.folder:
            raise _outside(location, tensor)
        return _open_below(self.folder, parts, location, tensor)


def _outside(location: str, tensor: str) -> ImportModelError:
    return ImportModelError(
        f"external data of {tensor!r} points at {location[:80]!r}, which is not a file in the model's folder",
        why="a model may only read data that lies beside it",
    )


def _open_below(folder: str, parts: list[str], location: str, tensor: str) -> int:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    at = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        for k, part in enumerate(parts):
            extra = getattr(os, "O_DIRECTORY", 0) if k < len(parts) - 1 else 0
            new = os.open(part, flags | extra, dir_fd=at)
            os.close(at)
            at = new
        info = os.fstat(at)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            raise ImportModelError(
                f"external data of {tensor!r} is not a regular file with one link", where=location[:80]
            )
        return at
    except OSError as e:
        os.close(at)
        raise ImportModelError(
            f"external data of {tensor!r} cannot be opened ({e.strerror})", where=location[:80]
        ) from None
    except ImportModelError:
        os.close(at)
        raise


def _map_file(descriptor: int) -> np.ndarray:
    try:
        if os.fstat(descriptor).st_size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8)
    finally:
        os.close(descriptor)


def _number(value: str, what: str, tensor: str) -> int:
    if not _NUMBER.match(value):
        raise ImportModelError(f"external data of {tensor!r} has {what} {value[:40]!r}, not a number of bytes")
    return int(value)
