"""Writing files: all of it or nothing, also when the process or the machine fails in between."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic(path: str | os.PathLike[str], mode: int = 0o666, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file opened for writing that becomes `path` when the block ends well, and vanishes when it does not.

    Args:
        path: what to write; a file that stands there is replaced.
        mode: permissions before the process's mask is applied.
        durable: wait until it is on the disk, so that a machine that fails later has it whole. False: for what can be
            made again and is checked when it is read.

    Raises:
        OSError: if the folder does not exist or cannot be written.
    """
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(temporary, mode & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    if durable:
        _sync_folder(target.parent)


def _umask() -> int:
    """The process's file mode mask, read without changing it where the system shows it."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration, ValueError):
        return 0o077


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; systems that cannot open folders do that by themselves."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def private(folder: os.stat_result) -> bool:
    """Whether a folder belongs to this process's user, and nobody else may write to it."""
    return not ((hasattr(os, "getuid") and folder.st_uid != os.getuid()) or stat.S_IMODE(folder.st_mode) & 0o022)


def cache_root() -> Path:
    """The folder for what may be kept between processes: $WARPBEAM_CACHE_DIR, else $XDG_CACHE_HOME/warpbeam, else
    ~/.cache/warpbeam.
    """
    own = os.environ.get("WARPBEAM_CACHE_DIR")
    if own:
        return Path(own)
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "warpbeam"
