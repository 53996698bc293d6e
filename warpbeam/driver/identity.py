"""What identifies a model file: its contents and those of the files it refers to.

Large files are hashed once: the digest is kept in the cache under the file's path, size, times and inode. A file that
was changed less than a moment ago is not trusted to change its time at the next change, and is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
from pathlib import Path
from typing import Any

_LARGE = 16 << 20
_SETTLED_NS = 2_000_000_000
_CHUNK = 1 << 22


def file_key(path: Path) -> tuple[str, bool]:
    """(a key of the file's state as the system sees it, whether that state is old enough to be trusted)."""
    info = path.stat()
    parts = (os.path.abspath(path), info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev)
    key = hashlib.sha256(("file" + repr(parts)).encode()).hexdigest()
    return key, time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) > _SETTLED_NS


def whole_key(path: Path) -> tuple[str, bool]:
    """The key under which the cache notes that a file was found whole in this state, and whether the state is old
    enough to be trusted. Files that are not written through may be there in part when the machine starts again.
    """
    key, settled = file_key(path)
    return key + machine_start(), settled


def set_back(path: Path) -> None:
    """Makes a file that was just written look older than it is, so that its state can be trusted at once: whoever
    changes it from now on changes its time too, however coarse the system's clock is.
    """
    info = path.stat()
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns - _SETTLED_NS))


def machine_start() -> str:
    """A name of the time since the machine was started last; "" where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def model_digest(path: Path, cache: Any) -> str:
    """A text that changes with the contents of a model file and the state of its external data files.

    Raises:
        OSError: if the file cannot be read.
    """
    digest, others = _contents(path, cache)
    return f"{digest}:{[(name, _state(path.parent / name)) for name in others]}"


def _state(path: Path) -> str:
    """The key of an external data file's state; "" for what is none, which the importer refuses with its reason."""
    try:
        return file_key(path)[0] if path.is_file() else ""
    except OSError:
        return ""


def _contents(path: Path, cache: Any) -> tuple[str, list[str]]:
    """Digest of the file and names of its external data files, from the cache if they are known."""
    large = path.stat().st_size >= _LARGE
    key, settled = file_key(path) if large else ("", False)
    known = cache.get(key) if large and settled else None
    if known is not None:
        digest, others = json.loads(known)
        return digest, others
    digest, others = _read(path)
    if large and settled and file_key(path)[0] == key:
        cache.put(key, json.dumps([digest, others]).encode())
    return digest, others


def _read(path: Path) -> tuple[str, list[str]]:
    state = hashlib.sha256()
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return state.hexdigest(), []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            with memoryview(data) as view:
                for at in range(0, len(view), _CHUNK):
                    with view[at : at + _CHUNK] as piece:
                        state.update(piece)
            external = data.find(b"location") >= 0  # the key under which a tensor names its file
    return state.hexdigest(), _external(path) if external else []


def _external(path: Path) -> list[str]:
    """Names of the external data files that a model's tensors refer to; nothing for what is no model."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    try:
        model = onnx.load_model(os.fspath(path), load_external_data=False)
    except (DecodeError, ValueError):
        return []
    entries = (e for t in _get_all_tensors(model) if uses_external_data(t) for e in t.external_data)
    return sorted({e.value for e in entries if e.key == "location"})
