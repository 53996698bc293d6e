"""`contrib.utils`: temporary folders."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path


class TempDirectory:
    """A folder that goes with its last reference, or with the process."""

    def __init__(self, custom_path: str | None = None, keep_for_debug: bool = False) -> None:
        """custom_path: a folder to use instead, which is made if it is missing and kept."""
        if custom_path:
            os.makedirs(custom_path, exist_ok=True)
        self.temp_dir = custom_path or tempfile.mkdtemp(prefix="warpbeam-")
        self._finalizer = None
        if not custom_path and not keep_for_debug:
            self._finalizer = weakref.finalize(self, shutil.rmtree, self.temp_dir, True)

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.temp_dir)

    def relpath(self, name: str) -> str:
        """The path of a file in it."""
        return os.path.join(self.temp_dir, name)

    def listdir(self) -> list[str]:
        """Names of the files in it."""
        return os.listdir(self.temp_dir)

    def remove(self) -> None:
        """Removes it now."""
        if self._finalizer is not None:
            self._finalizer()

    def __truediv__(self, other: str) -> Path:
        return self.path / other

    def __enter__(self) -> TempDirectory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def tempdir(custom_path: str | None = None, keep_for_debug: bool = False) -> TempDirectory:
    """A new temporary folder."""
    return TempDirectory(custom_path, keep_for_debug)
