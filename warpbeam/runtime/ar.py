"""Archives of the Unix kind (`ar`, .a): what system linkers take. With the symbol table in front that they look for."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from .errors import LinkError

MAGIC = b"!<arch>\n"
_HEAD = struct.Struct("16s12s6s6s8s10s2s")
_BIG = 1 << 32

Piece = bytes | bytearray | memoryview


def write_archive(
    members: Mapping[str, Sequence[Piece]], symbols: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Piece]:
    """The archive's bytes, piece by piece; the same members give the same bytes.

    Args:
        members: by name, pieces of their contents.
        symbols: by member, the global symbols it defines; given, a symbol table is written.
    """
    long = b"".join(f"{name}/\n".encode() for name in members if len(name) > 15)
    yield MAGIC
    sizes = {name: sum(memoryview(p).nbytes for p in pieces) for name, pieces in members.items()}
    if symbols is not None:
        yield from _table(sizes, symbols, long)
    if long:
        yield _head("//", len(long))
        yield long + b"\n" * (len(long) % 2)
    for name, pieces in members.items():
        yield _head(name + "/" if len(name) <= 15 else f"/{long.index(f'{name}/'.encode())}", sizes[name])
        yield from pieces
        yield b"\n" * (sizes[name] % 2)


def _table(sizes: Mapping[str, int], symbols: Mapping[str, Sequence[str]], long: bytes) -> Iterator[bytes]:
    """The member "/": number of symbols, offset of the member that defines each, their names; big-endian."""
    rows = [(name, symbol) for name in sizes for symbol in symbols.get(name, ())]
    strings = b"".join(symbol.encode() + b"\0" for _, symbol in rows)
    wide = sum(sizes.values()) + len(strings) + (1 << 20) >= _BIG
    word, title = (">Q", "/SYM64/") if wide else (">I", "/")
    size = struct.calcsize(word) * (1 + len(rows)) + len(strings)
    at = len(MAGIC) + _HEAD.size + size + size % 2 + (_HEAD.size + len(long) + len(long) % 2 if long else 0)
    places = {}
    for name, bytes_ in sizes.items():
        places[name] = at
        at += _HEAD.size + bytes_ + bytes_ % 2
    numbers = [len(rows), *(places[name] for name, _ in rows)]
    yield _head(title, size)
    yield b"".join(struct.pack(word, n) for n in numbers) + strings + b"\n" * (size % 2)


def _head(name: str, size: int) -> bytes:
    if size >= 10**10:
        raise LinkError("an archive member is too large", why=f"{size} bytes of at most {10**10 - 1}")
    fields = name, "0", "0", "0", "644", str(size)
    widths = 16, 12, 6, 6, 8, 10
    return b"".join(f.encode().ljust(w) for f, w in zip(fields, widths, strict=True)) + b"`\n"


def read_archive(data: bytes) -> dict[str, bytes]:
    """The members by name.

    Raises:
        LinkError: if it is no archive, or a damaged one.
    """
    if data[:8] != MAGIC:
        raise LinkError("not an archive of objects", why=f"it starts with {data[:8]!r}")
    at, names, members = 8, b"", {}
    while at < len(data):
        head = data[at : at + _HEAD.size]
        if len(head) < _HEAD.size or head[58:] != b"`\n" or not head[48:58].strip().isdigit():
            raise LinkError("damaged archive of objects", why=f"no member starts at byte {at}")
        name, size = head[:16].rstrip(), int(head[48:58])
        body = data[at + _HEAD.size : at + _HEAD.size + size]
        if len(body) < size:
            raise LinkError("damaged archive of objects", why="it ends in the middle of a member")
        if name == b"//":
            names = body
        elif name not in (b"/", b"/SYM64/"):
            if name[:1] == b"/" and name[1:].isdigit():
                name = names[int(name[1:]) :].partition(b"\n")[0]
            members[name.rstrip(b"/").decode("utf-8", "replace")] = body
        at += _HEAD.size + size + size % 2
    return members
