"""The disk cache of compiled objects and models: private, checksummed, bounded, written atomically.

Where: $WARPBEAM_CACHE_DIR, else $XDG_CACHE_HOME/warpbeam, else ~/.cache/warpbeam. A folder that others may write to is
not used. Entries are keyed by the package's sources, llvmlite's version, the machine and the text, so nothing
needs to be invalidated; the oldest are removed when the bound is exceeded.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from warpbeam.driver.identity import set_back, whole_key
from warpbeam.runtime.files import cache_root, private

#: subfolder of what is no copy of anything, and stays when the cache is trimmed or cleared
KEPT = "machine"
_MAGIC = b"wbc1"
_DEFAULT_LIMIT = 2 << 30


@functools.cache
def package_stamp() -> str:
    """A digest of this package's source files (by name, size and time) and of llvmlite's version. Once per process."""
    import llvmlite  # type: ignore[import-untyped]

    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(f"{llvmlite.__version__}".encode())
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        for name in sorted(files):
            if name.endswith((".py", ".toml", ".h")):
                info = os.stat(os.path.join(folder, name))
                digest.update(f"{os.path.relpath(folder, root)}/{name}:{info.st_size}:{info.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class Cache:
    """A cache folder. If it cannot be made or is not private, nothing is stored or found (with a warning)."""

    def __init__(self, root: str | os.PathLike[str] | None = None, limit: int | None = None) -> None:
        """Opens or makes the folder.

        Args:
            root: the folder; None: by environment.
            limit: bytes that may be used; None: $WARPBEAM_CACHE_BYTES or 2 GiB.
        """
        self.root = Path(root) if root is not None else cache_root()
        self.limit = limit if limit is not None else int(os.environ.get("WARPBEAM_CACHE_BYTES", _DEFAULT_LIMIT))
        self.usable = self._prepare()
        self._written = 0

    def _prepare(self) -> bool:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = self.root.stat()
        except OSError as error:
            warnings.warn(f"no disk cache: {self.root}: {error}", stacklevel=3)
            return False
        if not private(info):
            warnings.warn(
                f"no disk cache: {self.root} belongs to or is writable by others; code from there would be run. "
                "chmod 700 it, or set WARPBEAM_CACHE_DIR",
                stacklevel=3,
            )
            return False
        return True

    # ---------------------------------------------------------------------------------------------------------- objects

    def object_key(self, text: str, machine: dict[str, str], level: int) -> str:
        """The key of an object by what it is made of."""
        parts = (package_stamp(), str(sorted(machine.items())), str(level), text)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def get(self, key: str) -> bytes | None:
        """The stored bytes, if they are there and whole; a damaged entry is removed."""
        if not self.usable:
            return None
        path = self._path("objects", key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        payload = data[36:]
        if data[:4] != _MAGIC or hashlib.sha256(payload).digest() != data[4:36]:
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Stores bytes; a full disk is no error."""
        if self.usable:
            self._write(self._path("objects", key), _MAGIC + hashlib.sha256(payload).digest() + payload)

    # -------------------------------------------------------------------------------------------------------- artefacts

    def artifact_path(self, key: str) -> Path:
        """Where the artefact of a model is, if it is there. Artefacts carry checksums of their own."""
        return self._path("artifacts", key) if self.usable else self.root / "absent" / key

    def put_artifact(self, key: str, artifact: Any) -> None:
        """Stores an artefact, and that it is whole: its hashes were made from what was written."""
        if not self.usable:
            return
        path = self._path("artifacts", key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            artifact.save(path, durable=False)
            set_back(path)
            self.put(whole_key(path)[0], b"whole")
            self._count(path.stat().st_size)

    # ------------------------------------------------------------------------------------------------------------ files

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / key[2:]

    def _write(self, path: Path, data: bytes) -> None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                os.replace(temporary, path)
            except OSError:
                os.unlink(temporary)
                return
            self._count(len(data))

    def _count(self, size: int) -> None:
        """Looks at the whole folder at the first write of a process and then for every 64th part of the bound."""
        first = self._written == 0
        before = self._written * 64 // max(self.limit, 1)
        self._written += size
        if first or self._written * 64 // max(self.limit, 1) != before:
            self.trim()

    def entries(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of all entries, oldest first."""
        found = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [f for f in folders if f != KEPT]
            for name in files:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    info = path.stat()
                    found.append((info.st_mtime, info.st_size, path))
        return sorted(found)

    def trim(self) -> None:
        """Removes the entries used longest ago until the bound holds."""
        entries = self.entries()
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size

    def clear(self) -> None:
        """Removes all entries."""
        for _, _, path in self.entries():
            path.unlink(missing_ok=True)
