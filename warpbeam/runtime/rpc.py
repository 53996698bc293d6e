"""`warpbeam.rpc`: the session of classic scripts that run on another machine, here on this one.

remote = rpc.LocalSession()
remote.upload("lib.tar")
f = remote.load_module("lib.tar")
f(tvm.nd.array(x, remote.cpu()), tvm.nd.array(y, remote.cpu()))
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from .errors import FunctionError
from .export import load_module
from .ndarray import Device, device
from .packed import PackedFunc, get_global_func

__all__ = ["LocalSession"]


class LocalSession:
    """A session with this process: a folder of its own for files, this machine's devices and functions."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="warpbeam-rpc-")
        self._finalizer = weakref.finalize(self, shutil.rmtree, self._folder, True)

    def _place(self, name: str) -> Path:
        place = Path(os.path.realpath(os.path.join(self._folder, name)))
        if not place.is_relative_to(os.path.realpath(self._folder)):
            raise FunctionError(f"{name!r} lies outside of the session's folder", hint="give a name without '..'")
        return place

    def _existing(self, name: str) -> Path:
        place = self._place(name)
        if not place.is_file():
            raise FunctionError(f"the session has no file {name!r}", hint="upload it first")
        return place

    def upload(self, data: Any, target: str | None = None) -> None:
        """Copies a file into the session, under its own name or `target`; bytes need a `target`.

        Raises:
            FunctionError: (a ValueError) if bytes have no name, or the name leads out of the session's folder.
        """
        if isinstance(data, bytes | bytearray):
            if not target:
                raise FunctionError("upload of bytes without a name", hint='session.upload(data, target="lib.tar")')
            content = bytes(data)
        else:
            content, target = Path(data).read_bytes(), target or os.path.basename(data)
        place = self._place(target)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def download(self, path: str) -> bytearray:
        """The content of a file of the session; FunctionError if there is none."""
        return bytearray(self._existing(path).read_bytes())

    def remove(self, path: str) -> None:
        """Removes a file of the session; FunctionError if there is none."""
        self._existing(path).unlink()

    def load_module(self, path: str) -> Any:
        """The module in an uploaded file; raises as `runtime.load_module`, and FunctionError if there is no file."""
        return load_module(self._existing(path))

    def get_function(self, name: str) -> PackedFunc:
        """A registered function by name; FunctionError if there is none."""
        found = get_global_func(name)
        assert found is not None  # it raises
        return found

    def device(self, dev_type: str | int, dev_id: int = 0) -> Device:
        """A device of this machine."""
        return device(dev_type, dev_id)

    context = device

    def cpu(self, dev_id: int = 0) -> Device:
        """The processor."""
        return device("cpu", dev_id)

    def cuda(self, dev_id: int = 0) -> Device:
        """An NVIDIA GPU."""
        return device("cuda", dev_id)

    gpu = cuda

    def cl(self, dev_id: int = 0) -> Device:
        """An OpenCL device."""
        return device("opencl", dev_id)

    opencl = cl

    def __enter__(self) -> LocalSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self._finalizer()
