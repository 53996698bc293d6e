"""The artefact: a compiled model in one file.

    offset  bytes
    0       8       magic "WARPBEAM"
    8       2       format major version, little-endian as all numbers
    10      2       format minor version
    12      4       flags: 1 = signed, the others 0
    16      8       length of the header text, at most 16 MiB
    24      32      SHA-256 of the header text
    56      8       file length
    64              header text: JSON, {"manifest": {...}, "sections": [{name, kind, offset, size, align, sha256}, ...]}
    H               sections, H = end of the header rounded up to 4096; offsets count from H

Sections follow each other in the order of the table; each starts at its predecessor's end rounded up to its alignment
(64, or 4096 for constants so that they can be mapped). Gaps are zero. The last section ends the file, or is followed by
the signature (`signature`). So there are no overlaps and no holes, and every byte is hashed or checked to be zero.

One file may hold the model for several machines. The first is described by the header's manifest. Another, named M, has
a section `manifest@M` (JSON) and whichever of `code@M`, `program@M` and `objects@M` differ; it shares the rest, the
constants above all. `Artifact.variant` gives one of them as an artefact of its own.

Versions: a reader refuses a major version other than its own. It reads minor versions up to its own; a newer minor
version is refused too, because it may hold instructions this reader cannot honour. A writer uses the lowest version
that can express the file: 1.0; 1.1 with a section of a kind that 1.0 does not know; 1.2 for several machines or signed.

Section kinds: `cpu-so` (ELF shared library), `constants`, `params` (initial mutable parameters), `program` (JSON, see
`program`), `relay` (text to rebuild the model for another machine), `data` (anything else); since 1.1 `objects`
(relocatable objects of the code and of its C interface: an archive, compressed with zlib), for `export_library`; since
1.2 `manifest`.
Code is never executed, nor mapped executable, before its hash has been checked. The same artefact gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any

from . import signature
from .errors import ArtifactError
from .files import atomic
from .manifest import KernelInfo, Manifest, TensorSpec

if TYPE_CHECKING:
    from .program import Program

__all__ = ["Artifact", "KernelInfo", "Manifest", "Section", "TensorSpec"]

MAGIC = b"WARPBEAM"
VERSION = (1, 2)
HEAD = struct.Struct("<8sHHIQ32sQ")
PAGE = 4096
MAX_HEADER = 16 << 20
MAX_SECTIONS = 4096
KINDS = ("cpu-so", "constants", "params", "program", "relay", "data", "objects", "manifest")
#: kinds by the minor version that brought them
_SINCE = {"objects": 1, "manifest": 2}
_SIGNED = 1
#: kinds that a machine of a file for several may have of its own
_OWN = ("cpu-so", "program", "objects", "manifest")
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
    #: raw public key of a file's signature that was checked when the file was opened
    signer: bytes | None = None

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
            code: an ELF shared library that exports `manifest.entry` and the symbols of `manifest.kernels`; empty for
                a model that only its source can be made of.
            constants: bytes that `ctx->constants` points at.
            program: the host side, for profiling and debugging.
            relay: text to rebuild the model from.
            params: initial bytes of the mutable parameters.
            more: further sections of kind `data`.
            objects: what `export_library` links.
        """
        sections = [Section("code", "cpu-so", code)] if len(code) else []
        sections += [Section("program", "program", program.to_json().encode())] if program else []
        sections += [Section("relay", "relay", relay.encode())] if relay else []
        sections += [Section(name, "data", data) for name, data in sorted((more or {}).items())]
        sections += [Section("objects", "objects", objects)] if len(objects) else []
        sections += [Section("params", "params", params)] if len(params) else []
        sections += [Section("constants", "constants", constants)] if len(constants) else []
        return Artifact(manifest, {s.name: s for s in sections})

    @staticmethod
    def join(artifacts: Mapping[str, Artifact]) -> Artifact:
        """One artefact for several machines; they share the sections of the first that are not code.

        Args:
            artifacts: by the machine's name, the preferred first; all of them over the same constants and parameters.
        """
        first, *others = artifacts.values()
        sections = dict(first.sections)
        for name, other in zip(list(artifacts)[1:], others, strict=True):
            text = json.dumps(other.manifest.to_data(), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            own = {s.name: s for s in other.sections.values() if s.kind in _OWN}
            own["manifest"] = Section("manifest", "manifest", text.encode())
            sections |= {f"{n}@{name}": replace(s, name=f"{n}@{name}") for n, s in own.items()}
        order = sorted(sections.values(), key=lambda s: s.kind in ("constants", "params"))  # pages last, as in `build`
        return Artifact(first.manifest, {s.name: s for s in order})

    @property
    def variants(self) -> list[str]:
        """Names of the further machines that the file serves, in order of preference; the first has no name."""
        return [s.name.partition("@")[2] for s in self.sections.values() if s.kind == "manifest"]

    def variant(self, name: str) -> Artifact:
        """The artefact for one machine.

        Raises:
            ArtifactError: if the file does not serve it, or its manifest is damaged.
        """
        section = self.sections.get(f"manifest@{name}")
        if section is None:
            raise ArtifactError(f"no variant {name!r}", self.manifest.name, f"there are {', '.join(self.variants)}")
        try:
            manifest = Manifest.from_data(json.loads(bytes(section.data)))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"section {section.name!r} is damaged", self.manifest.name, str(error)) from error
        sections: dict[str, Section] = {}
        for own in self.sections.values():
            plain, _, machine = own.name.partition("@")
            if own.kind not in _OWN or (machine == name and own.kind != "manifest"):
                sections[plain] = replace(own, name=plain)
        return Artifact(manifest, sections, self.signer)

    def chosen(self, fits: Callable[[Manifest], bool]) -> Artifact:
        """The artefact for the first machine that fits; for the first of all if none does."""
        first = replace(self, sections={n: s for n, s in self.sections.items() if "@" not in n})
        if fits(self.manifest):
            return first
        return next((v for v in map(self.variant, self.variants) if fits(v.manifest)), first)

    def data(self, name: str) -> Data | None:
        """Bytes of a section; None if there is no such section."""
        section = self.sections.get(name)
        return None if section is None else section.data

    def program(self) -> Program | None:
        """The host side of the model, if the artefact holds it.

        Raises:
            ArtifactError: if the section is not a valid Program.
        """
        from .program import Program

        data = self.data("program")
        return None if data is None else Program.from_json(bytes(data))

    def chunks(self, key: signature.Key | None = None) -> Iterator[Data]:
        """The file's bytes, piece by piece; signed if there is a private key."""
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
        signed = key is not None
        minor = max((_SINCE.get(s.kind, 0) for s in self.sections.values()), default=0)
        total = base + end + (signature.TRAILER_BYTES if signed else 0)
        head = HEAD.pack(MAGIC, VERSION[0], max(minor, 2 * signed), _SIGNED * signed, len(header),
                         hashlib.sha256(header).digest(), total)  # fmt: skip
        yield head
        yield header
        at = HEAD.size + len(header)
        for row, section in zip(table, self.sections.values(), strict=True):
            yield bytes(base + row["offset"] - at)
            yield section.data
            at = base + row["offset"] + row["size"]
        yield bytes(base + end - at)
        if key is not None:
            yield signature.sign(head, key)

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return b"".join(self.chunks())

    def save(self, path: str | os.PathLike[str], key: signature.Key | None = None, durable: bool = True) -> None:
        """Writes the file: all of it or nothing, also when the machine fails in between.

        Args:
            key: PEM file of the private key that signs it.
            durable: False: it may be damaged when the machine fails soon after, as its hashes then tell.
        """
        with atomic(path, durable=durable) as file:
            for chunk in self.chunks(key):
                file.write(chunk)

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        verify_constants: bool = True,
        trusted: signature.Key | Iterable[signature.Key] | None = None,
    ) -> Artifact:
        """Opens a file; large sections are mapped, not read.

        Args:
            verify_constants: False skips the hash of mapped sections other than code, for files known to be good.
            trusted: public keys (PEM files, or 32 bytes each). If given, a file that none of them signed is refused
                before anything else in it is read, and all its hashes are checked.

        Raises:
            ArtifactError: if the file is not an artefact, is damaged, of another version, or not signed as required.
        """
        where = os.fspath(path)
        try:
            with open(path, "rb") as file:
                keys = None if trusted is None else signature.public_keys(trusted)
                return _Reader(file, where, verify_constants or trusted is not None, keys).read()
        except OSError as error:
            raise ArtifactError("the file cannot be read", where, str(error)) from error

    @staticmethod
    def from_bytes(data: bytes, trusted: signature.Key | Iterable[signature.Key] | None = None) -> Artifact:
        """An artefact from the bytes of its file.

        Raises:
            ArtifactError: as `load` does.
        """
        import io

        keys = None if trusted is None else signature.public_keys(trusted)
        return _Reader(io.BytesIO(data), "<bytes>", True, keys, memoryview(data)).read()


class _Reader:
    def __init__(
        self, file: IO[bytes], where: str, verify: bool, trusted: tuple[bytes, ...] | None,
        view: memoryview | None = None,
    ) -> None:  # fmt: skip
        self.file = file
        self.where = where
        self.verify = verify
        self.trusted = trusted
        self.view = view

    def fail(self, what: str, why: str = "", hint: str = _DAMAGED) -> ArtifactError:
        return ArtifactError(what, self.where, why, hint)

    def read(self) -> Artifact:
        size = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)
        head = self.file.read(HEAD.size)
        if len(head) < HEAD.size or head[:8] != MAGIC:
            raise self.fail("not a Warpbeam artefact", f"it starts with {head[:8]!r}", "compile a model and save it")
        _, major, minor, flags, length, digest, total = HEAD.unpack(head)
        if major != VERSION[0] or minor > VERSION[1]:
            raise self.fail(f"format version {major}.{minor}", f"this runtime reads 1.0 to {VERSION[0]}.{VERSION[1]}",
                            "use the runtime of the version that wrote it, or compile the model again")  # fmt: skip
        if flags & ~_SIGNED or length > MAX_HEADER:
            raise self.fail("damaged header", f"length {length}, at most {MAX_HEADER} is allowed")
        if total != size:
            raise self.fail("the file has the wrong length", f"{size} bytes, its header says {total}")
        end = size - (signature.TRAILER_BYTES if flags & _SIGNED else 0)
        signer = self.signer(head, end, size)
        text = self.file.read(length)
        if hashlib.sha256(text).digest() != digest:
            raise self.fail("damaged header", "its checksum does not match")
        data = self.parse(text)
        base = _up(HEAD.size + length, PAGE)
        self.zeros(base - HEAD.size - length)
        rows = self.table(data["sections"], end - base)
        manifest = Manifest.from_data(data["manifest"])
        return Artifact(manifest, {row["name"]: self.section(row, base) for row in rows}, signer)

    def signer(self, head: bytes, end: int, size: int) -> bytes | None:
        """Checks who signed the file, if that matters; leaves the position behind the head."""
        if end < HEAD.size:
            raise self.fail("damaged header", "the file is shorter than its signature")
        self.file.seek(end)
        trailer = self.file.read(size - end)
        self.file.seek(HEAD.size)
        if trailer and not trailer.startswith(signature.MAGIC):
            raise self.fail("the signature is damaged")
        return None if self.trusted is None else signature.check(head, trailer, self.trusted, self.where)

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
    plain, at, machine = name.partition("@")
    if at:
        fixed = {"cpu-so": "code"}.get(kind, kind)
        return kind in _OWN and plain == fixed and bool(machine)
    if kind == "cpu-so":
        return name == "code"
    fixed_names = {"constants", "params", "program", "relay", "objects"}
    return name == kind if kind in fixed_names else kind == "data" and name not in {*fixed_names, "code", "manifest"}
