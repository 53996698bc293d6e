"""The end of a session that is this process: a folder for files, this machine's code and functions."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import weakref
from pathlib import Path
from typing import Any

from ..abi import ABI_VERSION
from ..cpu import host_features, host_machine
from ..errors import FunctionError
from ..export import load_module
from ..ndarray import Device, device
from ..packed import PackedFunc, get_global_func


class Here:
    """Files in a folder of its own (or in `folder`), this machine's devices and functions."""

    def __init__(self, folder: str = "") -> None:
        self._folder = os.path.realpath(folder or tempfile.mkdtemp(prefix="warpbeam-rpc-"))
        self._finalizer = weakref.finalize(self, shutil.rmtree, self._folder, True)

    @property
    def info(self) -> dict[str, Any]:
        """What this machine is."""
        return {
            "server": "python", "abi": ABI_VERSION, "machine": host_machine(), "cores": os.cpu_count() or 1,
            "pointer_bits": struct.calcsize("P") * 8, "loads": True,
            "features": " ".join(sorted(host_features() or ())),
        }  # fmt: skip

    def _place(self, name: str) -> Path:
        place = Path(os.path.realpath(os.path.join(self._folder, name)))
        if not place.is_relative_to(self._folder) or str(place) == self._folder:
            raise FunctionError(f"{name!r} lies outside of the session's folder", hint="give a name without '..'")
        return place

    def _existing(self, name: str) -> Path:
        place = self._place(name)
        if not place.is_file():
            raise FunctionError(f"the session has no file {name!r}", hint="upload it first")
        return place

    def write(self, name: str, data: bytes, offset: int = 0) -> None:
        """Makes a file, or writes more of it."""
        place = self._place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        if offset == 0 and place.is_file():
            place.unlink()  # a library may be mapped from it
        with open(place, "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)

    def size(self, name: str) -> int:
        """Bytes of a file; 0 if there is none."""
        place = self._place(name)
        return place.stat().st_size if place.is_file() else 0

    def read(self, name: str) -> bytes:
        """A file's content."""
        return self._existing(name).read_bytes()

    def read_part(self, name: str, offset: int, count: int) -> bytes:
        """Some bytes of a file."""
        with open(self._existing(name), "rb") as file:
            file.seek(offset)
            return file.read(count)

    def remove(self, name: str) -> None:
        """Removes a file."""
        self._existing(name).unlink()

    def names(self) -> list[str]:
        """The files' names in order."""
        root = Path(self._folder)
        return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())

    def load(self, name: str) -> Any:
        """The module in a file; raises as `runtime.load_module`."""
        return load_module(self._existing(name))

    def function(self, name: str) -> PackedFunc:
        """A registered function."""
        found = get_global_func(name)
        assert found is not None  # it raises
        return found

    def device(self, kind: str | int, number: int = 0) -> Device:
        """A device of this machine."""
        return device(kind, number)

    def close(self) -> None:
        """Removes the folder."""
        self._finalizer()
