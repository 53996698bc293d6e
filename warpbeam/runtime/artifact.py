"""The artefact: a compiled model in one file.

    offset  bytes
    0       8       magic "WARPBEAM"
    8       2       format major version, little-endian as all numbers
    10      2       format minor version
    12      4       0
    16      8       length of the header text, at most 16 MiB
    24      32      SHA-256 of the header text
    56      8       file length
    64              header text: JSON, {"manifest": {...}, "sections": [{name, kind, offset, size, align, sha256}, ...]}
    H               sections, H = end of the header rounded up to 4096; offsets count from H

Sections follow each other in the order of the table; each starts at its predecessor's end rounded up to its alignment
(64, or 4096 for constants so that they can be mapped). Gaps are zero. The last section ends the file. So there are no
overlaps and no holes, and every byte of a file is either hashed or checked to be zero.

Versions: a reader refuses a major version other than its own. It reads minor versions up to its own; a newer minor
version is refused too, because it may hold instructions this reader cannot honour. A writer uses the lowest version
that can express the file: 1.0, or 1.1 if there is a section of a kind that 1.0 does not know.

Section kinds: `cpu-so` (ELF shared library), `constants`, `params` (initial mutable parameters), `program` (JSON, see
`program`), `relay` (text to rebuild the model for another machine), `data` (anything else); since 1.1 `objects`
(relocatable objects of the code and of its C interface: an archive, compressed with zlib), for `export_library`.
Code is never executed, nor mapped executable, before its hash has been checked. The same artefact gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .errors import ArtifactError
from .manifest import KernelInfo, Manifest, TensorSpec
from .program import Program

__all__ = ["Artifact", "KernelInfo", "Manifest", "Section", "TensorSpec"]

MAGIC = b"WARPBEAM"
VERSION = (1, 1)
HEAD = struct.Struct("<8sHHIQ32sQ")
PAGE = 4096
MAX_HEADER = 16 << 20
MAX_SECTIONS = 4096
KINDS = ("cpu-so", "constants", "params", "program", "relay", "data", "objects")
#: kinds by the minor version that brought them
_SINCE = {"objects": 1}
#: sections up to this size are read into memory and checked at once
SMALL = 64 << 20
_CHUNK = 1 << 20
_DAMAGED = "the file is damaged or was changed; compile the model again, or fetch the file again"

Data = bytes | bytearray | memoryview


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


@dataclass(frozen=True, slots=True)
class Section:
    """A named piece of an artefact."""

    name: str
    kind: str
    data: Data

    @property
    def align(self) -> int:
        """Alignment of its first byte in the file."""
        return PAGE if self.kind in ("constants", "params") else 64


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled model: a manifest and sections. Immutable; in memory or over a mapped file."""

    manifest: Manifest
    sections: Mapping[str, Section] = field(default_factory=dict)

    @staticmethod
    def build(
        manifest: Manifest,
        code: Data,
        constants: Data = b"",
        program: Program | None = None,
        relay: str = "",
        params: Data = b"",
        more: Mapping[str, Data] | None = None,
        objects: Data = b"",
    ) -> Artifact:
        """An artefact for the CPU.

        Args:
            code: an ELF shared library that exports `manifest.entry` and the symbols of `manifest.kernels`.
            constants: bytes that `ctx->constants` points at.
            program: the host side, for profiling and debugging.
            relay: text to rebuild the model from.
            params: initial bytes of the mutable parameters.
            more: further sections of kind `data`.
            objects: what `export_library` links.
        """
        sections = [Section("code", "cpu-so", code)]
        sections += [Section("program", "program", program.to_json().encode())] if program else []
        sections += [Section("relay", "relay", relay.encode())] if relay else []
        sections += [Section(name, "data", data) for name, data in sorted((more or {}).items())]
        sections += [Section("objects", "objects", objects)] if len(objects) else []
        sections += [Section("params", "params", params)] if len(params) else []
        sections += [Section("constants", "constants", constants)] if len(constants) else []
        return Artifact(manifest, {s.name: s for s in sections})

    def data(self, name: str) -> Data | None:
        """Bytes of a section; None if there is no such section."""
        section = self.sections.get(name)
        return None if section is None else section.data

    def program(self) -> Program | None:
        """The host side of the model, if the artefact holds it.

        Raises:
            ArtifactError: if the section is not a valid Program.
        """
        data = self.data("program")
        return None if data is None else Program.from_json(bytes(data))

    def chunks(self) -> Iterator[Data]:
        """The file's bytes, piece by piece."""
        table: list[dict[str, Any]] = []
        end = 0
        for section in self.sections.values():
            start = _up(end, section.align)
            end = start + len(section.data)
            digest = hashlib.sha256(section.data).hexdigest()
            table.append({"name": section.name, "kind": section.kind, "offset": start, "size": len(section.data),
                          "align": section.align, "sha256": digest})  # fmt: skip
        data = {"manifest": self.manifest.to_data(), "sections": table}
        header = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        if len(header) > MAX_HEADER:
            raise ArtifactError("the manifest is too large", why=f"{len(header)} bytes of at most {MAX_HEADER}")
        base = _up(HEAD.size + len(header), PAGE)
        minor = max((_SINCE.get(s.kind, 0) for s in self.sections.values()), default=0)
        yield HEAD.pack(MAGIC, VERSION[0], minor, 0, len(header), hashlib.sha256(header).digest(), base + end)
        yield header
        at = HEAD.size + len(header)
        for row, section in zip(table, self.sections.values(), strict=True):
            yield bytes(base + row["offset"] - at)
            yield section.data
            at = base + row["offset"] + row["size"]
        yield bytes(base + end - at)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return b"".join(self.chunks())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file: all of it or nothing, also when the machine fails in between."""
        target = Path(path)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in self.chunks():
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        _sync_folder(target.parent)

    @staticmethod
    def load(path: str | os.PathLike[str], verify_constants: bool = True) -> Artifact:
        """Opens a file; large sections are mapped, not read.

        Args:
            verify_constants: False skips the hash of mapped sections other than code, for files known to be good.

        Raises:
            ArtifactError: if the file is not an artefact, is damaged, or is of another version.
        """
        where = os.fspath(path)
        try:
            with open(path, "rb") as file:
                return _Reader(file, where, verify_constants).read()
        except OSError as error:
            raise ArtifactError("the file cannot be read", where, str(error)) from error

    @staticmethod
    def from_bytes(data: bytes) -> Artifact:
        """An artefact from the bytes of its file.

        Raises:
            ArtifactError: as `load` does.
        """
        import io

        return _Reader(io.BytesIO(data), "<bytes>", True, memoryview(data)).read()


class _Reader:
    def __init__(self, file: IO[bytes], where: str, verify: bool, view: memoryview | None = None) -> None:
        self.file = file
        self.where = where
        self.verify = verify
        self.view = view

    def fail(self, what: str, why: str = "", hint: str = _DAMAGED) -> ArtifactError:
        return ArtifactError(what, self.where, why, hint)

    def read(self) -> Artifact:
        size = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)
        head = self.file.read(HEAD.size)
        if len(head) < HEAD.size or head[:8] != MAGIC:
            raise self.fail("not a Warpbeam artefact", f"it starts with {head[:8]!r}", "compile a model and save it")
        _, major, minor, zero, length, digest, total = HEAD.unpack(head)
        if major != VERSION[0] or minor > VERSION[1]:
            raise self.fail(f"format version {major}.{minor}", f"this runtime reads 1.0 to {VERSION[0]}.{VERSION[1]}",
                            "use the runtime of the version that wrote it, or compile the model again")  # fmt: skip
        if zero or length > MAX_HEADER:
            raise self.fail("damaged header", f"length {length}, at most {MAX_HEADER} is allowed")
        if total != size:
            raise self.fail("the file has the wrong length", f"{size} bytes, its header says {total}")
        text = self.file.read(length)
        if hashlib.sha256(text).digest() != digest:
            raise self.fail("damaged header", "its checksum does not match")
        data = self.parse(text)
        base = _up(HEAD.size + length, PAGE)
        self.zeros(base - HEAD.size - length)
        rows = self.table(data["sections"], size - base)
        manifest = Manifest.from_data(data["manifest"])
        return Artifact(manifest, {row["name"]: self.section(row, base) for row in rows})

    def parse(self, text: bytes) -> dict[str, Any]:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.fail("the header is not valid JSON", str(error)) from error
        if not isinstance(data, dict) or data.keys() != {"manifest", "sections"}:
            raise self.fail("the header needs exactly the fields manifest and sections")
        return data

    def table(self, rows: Any, size: int) -> list[dict[str, Any]]:
        """Checks the section table: known kinds, no overlap, no hole, nothing behind the end."""
        types = {"name": str, "kind": str, "offset": int, "size": int, "align": int, "sha256": str}
        if not isinstance(rows, list) or len(rows) > MAX_SECTIONS:
            raise self.fail("damaged section table", f"at most {MAX_SECTIONS} sections are allowed")
        end = 0
        names: set[str] = set()
        for row in rows:
            if not isinstance(row, dict) or row.keys() != types.keys():
                raise self.fail("damaged section table", f"a section needs the fields {', '.join(types)}")
            if any(type(row[name]) is not kind for name, kind in types.items()):
                raise self.fail("damaged section table", f"a field of section {row['name']!r} has the wrong type")
            if row["kind"] not in KINDS or row["name"] in names:
                raise self.fail(f"section {row['name']!r} of kind {row['kind']!r}", "unknown kind or repeated name")
            if not _fits(row["name"], row["kind"]):
                raise self.fail(f"section {row['name']!r} of kind {row['kind']!r}", "the name belongs to another kind")
            if row["align"] not in (64, PAGE) or row["size"] < 0 or row["offset"] != _up(end, row["align"]):
                raise self.fail(f"section {row['name']!r} overlaps another or leaves a hole", f"offset {row['offset']}")
            names.add(row["name"])
            end = row["offset"] + row["size"]
        if end != size:
            raise self.fail("the sections do not fill the file", f"they end at {end}, the file at {size}")
        return rows

    def zeros(self, count: int) -> None:
        if any(self.file.read(count)):
            raise self.fail("there is data in a gap", "gaps between sections must be zero")

    def section(self, row: dict[str, Any], base: int) -> Section:
        start = base + row["offset"]
        self.zeros(start - self.file.tell())
        data: Data
        if self.view is not None:
            data = self.view[start : start + row["size"]]
        elif (row["kind"] in ("constants", "params") and row["size"]) or row["size"] > SMALL:
            aligned = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            length = start - aligned + row["size"]
            mapped = mmap.mmap(self.file.fileno(), length, access=mmap.ACCESS_READ, offset=aligned)
            data = memoryview(mapped)[start - aligned :]
        else:
            data = self.file.read(row["size"])
        self.file.seek(start + row["size"])
        skip = not self.verify and row["kind"] in ("constants", "params", "data")
        if not skip and self.digest(data) != row["sha256"]:
            raise self.fail(f"section {row['name']!r} is damaged", "its checksum does not match")
        return Section(row["name"], row["kind"], data)

    @staticmethod
    def digest(data: Data) -> str:
        state = hashlib.sha256()
        view = memoryview(data)
        for at in range(0, len(view), _CHUNK):
            state.update(view[at : at + _CHUNK])
        return state.hexdigest()


def _fits(name: str, kind: str) -> bool:
    """Whether a section of this kind may have this name: readers find sections by name."""
    fixed = {"constants", "params", "program", "relay", "objects"}
    if kind == "cpu-so":
        return name.startswith("code")
    return name == kind if kind in fixed else name not in fixed and not name.startswith("code")


def _umask() -> int:
    """The process's file mode mask, read without changing it where the system shows it."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration, ValueError):
        return 0o077


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; systems that cannot open folders do that by themselves."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
