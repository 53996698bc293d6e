"""`contrib.tar`: archives, also as `fcompile` of `export_library`."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence

__all__ = ["tar", "untar"]


def tar(output: str, files: Sequence[str] | str, options: object = None) -> None:
    """Writes an archive of files by their base names; the same files give the same bytes."""
    with tarfile.open(output, "w") as archive:
        for path in [files] if isinstance(files, str) else files:
            info = archive.gettarinfo(path, os.path.basename(path))
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            with open(path, "rb") as file:
                archive.addfile(info, file)


tar.output_format = "tar"  # type: ignore[attr-defined]


def untar(tar_file: str, directory: str) -> None:
    """Unpacks an archive; members that would land outside of the folder are refused."""
    with tarfile.open(tar_file) as archive:
        archive.extractall(directory, filter="data")
