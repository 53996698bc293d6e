"""Exporting a model for other programs: a shared library, a static archive or a WebAssembly module, and the headers.

No compiler takes part: an artefact keeps the objects of its code and of its C interface; they get the model's name, are
linked with the constants, and are written.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import elf, elf_object, wasm
from .ar import read_archive, write_archive
from .artifact import Artifact
from .elf import Object, Section, Symbol
from .elf_writer import Blob
from .errors import ArtifactError, LoadError
from .export_header import c_header, cpp_header
from .files import atomic
from .linker import link_parsed
from .pool_ll import EXPORTS as POOL_SYMBOLS
from .wasm_object import LOCAL, SYM_FUNCTION, UNDEFINED, is_wasm
from .wasm_object import parse_object as parse_wasm

MODEL, HOSTED, FREESTANDING = "model.o", "hosted.o", "freestanding.o"
#: prefix of the C interface until it gets the model's name; what the code calls the model's data
PREFIX, CONSTANTS, PARAMS, ABOUT = "wbm_", "wb_model_constants", "wb_model_params", "wb_model"
IMPORTS = ("pthread_create", "pthread_join")
FORMATS = {".so": "so", ".a": "a", ".wasm": "wasm"}

Piece = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the library first, then its headers. `bytes` of the library, `constants` of these."""

    files: tuple[Path, ...]
    name: str
    bytes: int
    constants: int


def pack_objects(kernels: Sequence[bytes], pool: bytes, facades: Mapping[str, bytes]) -> bytes:
    """The section `objects` of an artefact.

    Args:
        kernels: objects of the kernels and the entry.
        pool: object of the thread pool.
        facades: objects of the C interface by variant, HOSTED and FREESTANDING.
    """
    if is_wasm(pool):  # linked as they are; the freestanding variant needs no pool
        members = {f"{k:05}.{MODEL}": data for k, data in enumerate(kernels)} | dict(facades)
    else:
        members = {MODEL: _merged(kernels, MODEL)}
        for name, data in facades.items():
            members[name] = _merged([data, pool] if name == HOSTED else [data], name)
    archive = b"".join(write_archive({name: [data] for name, data in members.items()}))
    return zlib.compress(archive, 6)


def _merged(objects: Sequence[bytes], name: str) -> bytes:
    parsed = [elf.parse_object(data, f"{name} {i}") for i, data in enumerate(objects)]
    return elf_object.write_object(elf_object.merge(parsed, name=name))


def c_name(text: str) -> str:
    """A C identifier made of a model's or file's name."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name and not name[0].isdigit() else f"m{name}"


def model_name(name: str, path: Path) -> str:
    """The prefix of an exported model's functions; by default what the file is called.

    Raises:
        LoadError: if it is no C identifier, or taken.
    """
    name = name or c_name(path.stem.removeprefix("lib"))
    if c_name(name) != name:
        raise LoadError(f"{name!r} is no C identifier", hint=f"give another name, such as {c_name(name)!r}")
    if name == "wb":
        raise LoadError("the name 'wb' is taken by the runtime", hint="give another name")
    return name


def export_model(artifact: Artifact, path: Path, fmt: str = "", name: str = "", freestanding: bool = False) -> Exported:
    """Writes a library and its headers.

    Args:
        artifact: the model, with the values of mutable parameters that the library is to start with.
        path: the file; headers get its name with .h and .hpp.
        fmt: "so", "a" or, for WebAssembly, "wasm"; by default what the file's name says.
        name: prefix of the C functions; by default the file's name without "lib".
        freestanding: without system calls and threads.

    Raises:
        ArtifactError: if the artefact holds no objects.
        LoadError: if the name or format makes no sense.
    """
    foreign = path.suffix[1:] if path.suffix.lower() in (".dll", ".dylib") else ""
    kind = fmt or foreign or FORMATS.get(path.suffix, "so")
    if kind not in ("so", "a", "wasm"):
        raise LoadError(f"cannot export a model as {kind!r}",
                        hint='formats are "so", "a", "wasm" and, with the compiler, "o" and "c"')  # fmt: skip
    name = model_name(name, path)
    if "code" not in artifact.sections and "relay" not in artifact.sections:
        raise LoadError("an exported library cannot be exported again", artifact.manifest.name,
                        "it holds no objects to link", "export the compiled file that it was made of")  # fmt: skip
    if "code" not in artifact.sections:
        what = f"a model for {artifact.manifest.target or 'a C compiler'} is not linked here"
        raise LoadError(what, artifact.manifest.name, f"{kind!r} needs a linker for it",
                        'export "o" and link it with that system\'s linker, or C source')  # fmt: skip
    members = _members(artifact)
    webs = [data for data in members.values() if is_wasm(data)]
    if (kind == "wasm") != bool(webs):
        raise LoadError(f"cannot export a model for {artifact.manifest.target} as {kind!r}",
                        hint='"wasm" goes with the target wasm32, "so" and "a" with the others')  # fmt: skip
    if webs:
        return _export_wasm(artifact, webs, path, name)
    objects = _objects(artifact, members, freestanding)
    constants = memoryview(artifact.data("constants") or b"").cast("B")
    params = artifact.data("params")
    if params:
        objects.append(_data(objects[0], PARAMS, bytes(params)))
    pieces = (_shared if kind == "so" else _archive)(artifact, objects, name, constants, freestanding)
    size = write_pieces(path, pieces, 0o777 if kind == "so" else 0o666)
    header, cpp = path.with_suffix(".h"), path.with_suffix(".hpp")
    write_pieces(
        header, [c_header(artifact.manifest, name, freestanding, "object", params=len(params or b"")).encode()]
    )
    write_pieces(cpp, [cpp_header(artifact.manifest, name, header.name, freestanding).encode()])
    return Exported((path, header, cpp), name, size, constants.nbytes)


def _members(artifact: Artifact) -> dict[str, bytes]:
    """The objects in an artefact by name."""
    data = artifact.data("objects")
    what = artifact.manifest.name
    if data is None:
        raise ArtifactError("the artefact holds no objects to link", what, "it was made by an older version",
                            "compile the model again")  # fmt: skip
    try:
        return read_archive(zlib.decompress(data))
    except zlib.error as error:
        raise ArtifactError("the section objects is damaged", what, str(error), "compile the model again") from error


def _objects(artifact: Artifact, members: Mapping[str, bytes], freestanding: bool) -> list[Object]:
    variant = FREESTANDING if freestanding else HOSTED
    if variant not in members:
        raise ArtifactError(f"there is no hosted variant for {artifact.manifest.target}", artifact.manifest.name,
                            hint="export it freestanding")  # fmt: skip
    return [elf.parse_object(members[n], n) for n in (MODEL, variant)]


def _export_wasm(artifact: Artifact, objects: Sequence[bytes], path: Path, name: str) -> Exported:
    """Writes a WebAssembly module and its header. It is freestanding: its memory is its embedder's to grow."""
    symbols = [s for k, o in enumerate(objects) for s in parse_wasm(o, f"object {k}").symbols]
    public = [
        s.name
        for s in symbols
        if s.kind == SYM_FUNCTION and s.name.startswith(PREFIX) and not s.flags & (LOCAL | UNDEFINED)
    ]
    exports = {f"{name}_{f.removeprefix(PREFIX)}": f for f in public}
    constants = memoryview(artifact.data("constants") or b"").cast("B")
    params = bytes(artifact.data("params") or b"")
    given: dict[str, Piece] = {CONSTANTS: constants, PARAMS: params}
    pieces = wasm.link_module(
        objects, exports, {k: v for k, v in given.items() if len(v)}, {ABOUT: _about(artifact, name)}
    )
    size = write_pieces(path, pieces)
    header = path.with_suffix(".h")
    write_pieces(header, [c_header(artifact.manifest, name, True, "object", params=len(params)).encode()])
    return Exported((path, header), name, size, constants.nbytes)


def _data(like: Object, symbol: str, data: bytes) -> Object:
    """Read-only data as an object."""
    section = Section(f".rodata.{symbol}", elf.SHT_PROGBITS, elf.SHF_ALLOC, data, len(data), 64)
    symbols = [Symbol("", 0, 0, 0, 0, 0), Symbol(symbol, elf.STB_GLOBAL, elf.STT_OBJECT, 1, 0, len(data))]
    return Object(symbol, like.machine, [Section("", 0, 0, b"", 0, 1), section], symbols, like.flags)


def _named(name: str) -> dict[str, str]:
    return {CONSTANTS: f"{name}_constants_data", PARAMS: f"{name}_params_data"}


def _shared(
    artifact: Artifact, objects: list[Object], name: str, constants: memoryview, freestanding: bool
) -> Iterable[Piece]:
    """A shared library. It describes itself under the name `wb_model`, so that `load_module` reads it."""
    params = len(artifact.data("params") or b"")
    objects.append(_data(objects[0], ABOUT, _about(artifact, name) + b"\0"))
    for obj in objects:
        elf_object.rename(obj, lambda s: name + "_" + s.removeprefix(PREFIX) if s.startswith(PREFIX) else s)
    own = [s for obj in objects for s in elf_object.defined(obj) if s.startswith(f"{name}_")]
    exports = [*own, artifact.manifest.entry, ABOUT, *([PARAMS] if params else [])]
    exports += [] if freestanding else POOL_SYMBOLS
    blob = Blob(CONSTANTS, constants) if constants.nbytes else None
    return link_parsed(objects, exports, imports=() if freestanding else IMPORTS, blob=blob)


def _about(artifact: Artifact, name: str) -> bytes:
    """What an exported model says of itself, as JSON."""
    sizes = {kind: memoryview(artifact.data(kind) or b"").nbytes for kind in ("constants", "params")}
    data = {"name": name, **sizes, "manifest": artifact.manifest.to_data()}
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def _archive(
    artifact: Artifact, objects: list[Object], name: str, constants: memoryview, freestanding: bool
) -> Iterable[Piece]:
    """A static archive: the code with the model's functions as its only global symbols, and the constants."""
    own = _named(name)
    merged = elf_object.merge(objects, [s for obj in objects for s in elf_object.defined(obj) if s.startswith(PREFIX)])
    elf_object.rename(merged, lambda s: name + "_" + s.removeprefix(PREFIX) if s.startswith(PREFIX) else own.get(s, s))
    members: dict[str, Sequence[Piece]] = {f"{name}.o": [elf_object.write_object(merged)]}
    symbols = {f"{name}.o": elf_object.defined(merged)}
    if constants.nbytes:
        members[f"{name}_constants.o"] = elf_object.data_object(merged, own[CONSTANTS], constants)
        symbols[f"{name}_constants.o"] = [own[CONSTANTS]]
    return write_archive(members, symbols)


def write_pieces(path: Path, pieces: Iterable[Piece], mode: int = 0o666) -> int:
    """Writes a file: all of it or nothing. Gives its size."""
    size = 0
    try:
        with atomic(path, mode) as file:
            for piece in pieces:
                size += file.write(piece)
    except OSError as error:
        raise LoadError(f"cannot write {path.name}", str(path.parent), str(error.strerror)) from error
    return size
