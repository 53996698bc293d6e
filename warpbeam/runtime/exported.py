"""Loading a model from a shared library that `Module.export_library` wrote: it is mapped, and nothing is copied."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
from typing import Any

from . import elf
from .artifact import Artifact, Section
from .errors import ArtifactError, LinkError, LoadError
from .export_model import ABOUT, PARAMS
from .loader import Library
from .manifest import Manifest
from .module import Module, check_machine


def load_exported(path: str | os.PathLike[str]) -> Module | None:
    """The model in a shared library; None if the library holds none. A library carries no checksum: trust its source.

    Raises:
        LoadError: if the library cannot be loaded.
        ArtifactError: if the file is cut short, or the model is for another processor or version.
    """
    found = describe(path)
    if found is None:
        return None
    manifest, facts = found
    check_machine(manifest)  # the system's loader would only say that it cannot
    library = Library.of_file(path)
    prefix, constants, params = facts["name"], facts["constants"], facts["params"]
    sections = {}
    if constants:
        ask = library.function(f"{prefix}_constants")
        ask.restype = ctypes.c_void_p
        sections["constants"] = Section("constants", "constants", _view(int(ask() or 0), constants))
    if params:
        sections["params"] = Section("params", "params", _view(library.address(PARAMS), params))
    return Module(Artifact(manifest, sections), library)


def describe(path: str | os.PathLike[str]) -> tuple[Manifest, dict[str, Any]] | None:
    """What a model's shared library says of itself, without loading it: the manifest, and the prefix of its functions
    and the bytes of its constants and parameters as `name`, `constants`, `params`. None if it holds no model.

    Raises:
        ArtifactError: if the file cannot be read, is no library, or its description is damaged.
    """
    where = os.fspath(path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            text = elf.exported_data(data, ABOUT, where)
    except (OSError, ValueError) as error:
        raise ArtifactError("the library cannot be read", where, str(error)) from error
    except LinkError as error:
        raise ArtifactError("the library is damaged", where, f"{error.what}: {error.why}",
                            "export it again, or fetch it again") from error  # fmt: skip
    return None if text is None else _described(text.rstrip(b"\0"), where)


def _described(text: bytes, where: str) -> tuple[Manifest, dict[str, Any]]:
    try:
        about = json.loads(text)
        manifest = Manifest.from_data(about["manifest"])
        return manifest, {"name": str(about["name"])} | {k: int(about[k]) for k in ("constants", "params")}
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError("the library's description of its model is damaged", where, str(error)) from error


def _view(address: int, size: int) -> memoryview:
    if not address:
        raise LoadError("the library's constants are not there")
    return memoryview((ctypes.c_uint8 * size).from_address(address)).cast("B").toreadonly()
