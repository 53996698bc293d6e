"""Loading a model from a shared library that `Module.export_library` wrote: it is mapped, and nothing is copied."""

from __future__ import annotations

import ctypes
import json
import os

from .artifact import Artifact, Section
from .errors import ArtifactError, LoadError
from .export_model import ABOUT, PARAMS
from .loader import Library
from .manifest import Manifest
from .module import Module


def load_exported(path: str | os.PathLike[str]) -> Module | None:
    """The model in a shared library; None if the library holds none. A library carries no checksum: trust its source.

    Raises:
        LoadError: if the library cannot be loaded.
        ArtifactError: if the model is for another processor or version.
    """
    library = Library.of_file(path)
    if ABOUT not in library:
        library.close()
        return None
    where = os.fspath(path)
    try:
        about = json.loads(ctypes.string_at(library.address(ABOUT)))
        manifest = Manifest.from_data(about["manifest"])
        prefix, constants, params = str(about["name"]), int(about["constants"]), int(about["params"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError("the library's description of its model is damaged", where, str(error)) from error
    sections = {}
    if constants:
        ask = library.function(f"{prefix}_constants")
        ask.restype = ctypes.c_void_p
        sections["constants"] = Section("constants", "constants", _view(int(ask() or 0), constants))
    if params:
        sections["params"] = Section("params", "params", _view(library.address(PARAMS), params))
    return Module(Artifact(manifest, sections), library)


def _view(address: int, size: int) -> memoryview:
    if not address:
        raise LoadError("the library's constants are not there")
    return memoryview((ctypes.c_uint8 * size).from_address(address)).cast("B").toreadonly()
