"""`contrib.download`: files from the network, kept in a cache folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.request
from pathlib import Path

__all__ = ["download", "download_testdata"]

_CACHE = "WARPBEAM_TEST_DATA"


def download(
    url: str, path: str | os.PathLike[str], overwrite: bool = False, size_compare: bool = False, retries: int = 3
) -> None:
    """Fetches a file unless it is there; all of it or nothing.

    Args:
        overwrite: fetch it also if it is there.
        size_compare: fetch it also if the server says another size.
        retries: how often to try in all.

    Raises:
        OSError: if it cannot be fetched.
    """
    target = Path(path)
    if target.is_file() and not overwrite and not (size_compare and _size(url) != target.stat().st_size):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(max(retries, 1)):
        handle, temporary = tempfile.mkstemp(dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=60) as source:
                shutil.copyfileobj(source, file)
            os.replace(temporary, target)
            return
        except OSError:
            os.unlink(temporary)
            if attempt + 1 >= max(retries, 1):
                raise


def _size(url: str) -> int:
    request = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(answer.headers.get("Content-Length", -1))


def download_testdata(url: str, relpath: str, module: str | list[str] | None = None, overwrite: bool = False) -> str:
    """Fetches a file into the cache folder (WARPBEAM_TEST_DATA, or ~/.cache/warpbeam/data) and gives its path."""
    root = Path(os.environ.get(_CACHE) or Path.home() / ".cache" / "warpbeam" / "data")
    parts = [module] if isinstance(module, str) else list(module or [])
    place = root.joinpath(*parts, relpath)
    download(url, place, overwrite)
    return str(place)
