"""Files of modules of compiled functions: writing without a compiler, and reading (`load_module`)."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import elf
from .errors import FunctionError, LoadError
from .linker import link_shared

if TYPE_CHECKING:
    from .function_module import FunctionModule
    from .module import Module

_LIBRARIES = (".so", ".dylib", ".dll")


def save(module: FunctionModule, path: Path, fmt: str) -> None:
    """`FunctionModule.save`."""
    kind = (fmt or path.suffix.lstrip(".")).lower()
    kind = {"asm": "s", "obj": "o"}.get(kind, kind)
    if kind == "o":
        data = module.sources.object_bytes()
        if data is None:
            raise _cannot(module, kind, "it was loaded, or holds sources only")
        path.write_bytes(data)
    elif f".{kind}" in _LIBRARIES or kind == "tar":
        export_library(module, path, None, None, None, {})
    else:
        text = module.sources.text(kind)
        if text is None:
            raise _cannot(module, kind, f"its formats: {', '.join(['o', 'so', 'tar', *module.sources.texts])}")
        path.write_text(text, encoding="utf-8")


def _cannot(module: FunctionModule, kind: str, why: str) -> FunctionError:
    return FunctionError(f"a module of type {module.type_key} cannot be saved as .{kind}", why=why)


def export_library(
    module: FunctionModule, path: Path, fcompile: Any, addons: Sequence[Any] | None, workspace_dir: Any,
    options: dict[str, Any],
) -> None:  # fmt: skip
    """`FunctionModule.export_library`."""
    if fcompile is not None:
        _compile(module, path, fcompile, addons, workspace_dir, options)
        return
    if options or addons:
        given = ", ".join([*options, *(["addons"] if addons else [])])
        raise FunctionError(f"export_library: {given} given without fcompile", hint="only a linker can use them")
    if path.suffix in (".o", ".obj"):
        save(module, path, "o")
    elif path.suffix == ".tar" and (module.code is not None or module.sources.object is not None):
        path.write_bytes(_archive({"lib0.o": module.sources.object_bytes(), "lib0.so": module.code}))
    elif module.code is None:
        why = "it holds sources only"
        if module.sources.object is not None:
            where = module.about.get("triple")
            why = f"there is no linker here for {where}: export a .tar or .o for that system's, or give fcompile"
        raise _cannot(module, path.suffix.lstrip("."), why)
    elif path.suffix in _LIBRARIES:
        path.write_bytes(module.code)
        path.chmod(0o755)
    else:
        raise FunctionError(f"cannot export to {path.name}", hint="give a name that ends with .so, .o or .tar")


def _compile(
    module: FunctionModule, path: Path, fcompile: Any, addons: Sequence[Any] | None, workspace_dir: Any,
    options: dict[str, Any],
) -> None:  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="warpbeam-") as temporary:
        folder = Path(workspace_dir or temporary)
        place = folder / "lib0.o"
        data = module.sources.object_bytes()
        if data is None:
            raise _cannot(module, "o", "it was loaded, or holds sources only")
        place.write_bytes(data)
        fcompile(str(path), [str(place), *map(str, addons or ())], **options)


def _archive(members: dict[str, bytes | None]) -> bytes:
    """A tar file; the same members give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in sorted(members.items()):
            if data is not None:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                info.mode = 0o644
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def load_module(path: str | os.PathLike[str], fmt: str = "") -> FunctionModule | Module:
    """Loads what `export_library` or `save` wrote: .so, .tar, .o, or a compiled model. The content says which it is.

    Raises:
        LoadError: if it is none of these, or its code cannot be loaded here.
        ArtifactError: if it is a model and damaged.
    """
    from .artifact import MAGIC
    from .exported import load_exported
    from .function_module import FunctionModule
    from .module import load

    try:
        with open(path, "rb") as file:
            head = file.read(512)
            if head[:8] == MAGIC:
                return load(path)
            if head[:4] == b"\x7fELF" and head[16:18] == b"\x03\0":
                with contextlib.suppress(LoadError):  # it is tried as what it is below
                    exported = load_exported(path)
                    if exported is not None:
                        return exported
            data = head + file.read()
    except OSError as error:
        raise LoadError("the file cannot be read", os.fspath(path), str(error)) from error
    name = Path(path).name
    if head[:4] != b"\x7fELF":
        data = _from_archive(data, os.fspath(path))
    if len(data) > 18 and int.from_bytes(data[16:18], "little") == elf.ET_REL:
        data = link_object(data, name)
    return FunctionModule(data, "library", name=name)


def _from_archive(data: bytes, where: str) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            members = {m.name: m for m in tar.getmembers() if m.isfile()}
            chosen = next((n for n in sorted(members) if n.endswith(".so")), None)
            chosen = chosen or next((n for n in sorted(members) if n.endswith(".o")), None)
            file = tar.extractfile(members[chosen]) if chosen else None
            if file is not None:
                return file.read()
    except tarfile.TarError as error:
        raise LoadError(
            "not a module", where, f"neither ELF nor tar: {error}", "load what export_library wrote"
        ) from None
    raise LoadError("the archive holds no library", where, hint="load what export_library wrote")


def link_object(data: bytes, name: str) -> bytes:
    """A shared library of one object that `save` wrote: all its global functions and tables are exported."""
    parsed = elf.parse_object(data, name)
    exports = [s.name for s in parsed.symbols if s.bind == elf.STB_GLOBAL and s.section != elf.SHN_UNDEF and s.name]
    return link_shared([data], exports)
