"""Run by test_mutations in a process of its own: changes an artefact at random, loads it, and runs it if that succeeds.

    python mutate_artifact.py FILE OTHER INPUT.npz EXPECTED.npz SEED COUNT

Every change must give an error of ours or the right answer. Prints the number of each, or the change that broke this.
"""

from __future__ import annotations

import hashlib
import random
import resource
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np

from warpbeam.runtime import Artifact, Module, WarpbeamError
from warpbeam.runtime.artifact import HEAD


def flip(data: bytearray, other: bytes, rng: random.Random) -> None:
    """A few bits anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_front(data: bytearray, other: bytes, rng: random.Random) -> None:
    """A byte of the fixed head or of the table behind it."""
    data[rng.randrange(rng.choice((HEAD.size, 4096)))] = rng.randrange(256)


def cut(data: bytearray, other: bytes, rng: random.Random) -> None:
    """The end is missing."""
    del data[rng.randrange(len(data)) :]


def grow(data: bytearray, other: bytes, rng: random.Random) -> None:
    """Something stands behind the end."""
    data += rng.randbytes(rng.choice((1, 64, 4096)))


def move(data: bytearray, other: bytes, rng: random.Random) -> None:
    """A piece stands where another did."""
    size = rng.choice((1, 64, 4096))
    a, b = rng.randrange(len(data)), rng.randrange(len(data))
    piece = bytes(data[a : a + size])
    data[b : b + len(piece)] = piece


def swap(data: bytearray, other: bytes, rng: random.Random) -> None:
    """Two sections of the same file change places."""
    rows = list(Artifact.from_bytes(bytes(data)).sections.values())
    first, second = rng.sample(rows, 2)
    a, b = bytes(first.data), bytes(second.data)
    at, to = data.find(a), data.find(b)
    size = min(len(a), len(b))
    data[at : at + size], data[to : to + size] = b[:size], a[:size]


def foreign(data: bytearray, other: bytes, rng: random.Random) -> None:
    """A section, the table, or half of the file of another model."""
    rows = list(Artifact.from_bytes(bytes(data)).sections)
    theirs = Artifact.from_bytes(other).sections
    name = rng.choice([n for n in rows if n in theirs])
    if rng.random() < 0.3:
        at = rng.randrange(1, len(data))
        data[at:] = other[at:]
        return
    old, new = bytes(Artifact.from_bytes(bytes(data)).sections[name].data), bytes(theirs[name].data)
    at = data.find(old)
    data[at : at + len(old)] = new[: len(old)].ljust(len(old), b"\0")


def header(data: bytearray, other: bytes, rng: random.Random) -> None:
    """A byte of the header's text, with a checksum that fits again."""
    fields = list(HEAD.unpack(data[: HEAD.size]))
    length = fields[4]
    at = HEAD.size + rng.randrange(length)
    data[at] = rng.choice(b'0123456789"[]{},:-abcxyz \\')
    fields[5] = hashlib.sha256(data[HEAD.size : HEAD.size + length]).digest()
    data[: HEAD.size] = HEAD.pack(*fields)


def version(data: bytearray, other: bytes, rng: random.Random) -> None:
    """Another version of the format."""
    struct.pack_into("<HH", data, 8, rng.randrange(4), rng.randrange(6))


CHANGES = (flip, flip_front, cut, grow, move, swap, foreign, header, version)


def attempt(data: bytes, by_path: bool, folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """What the changed model computes; None if it was refused."""
    try:
        if by_path:
            (folder / "m.wb").write_bytes(data)
            module = Module(Artifact.load(folder / "m.wb"))
        else:
            module = Module(Artifact.from_bytes(data))
        return module.run(arrays)
    except WarpbeamError:
        return None


def main() -> int:
    """Runs the changes of one seed."""
    file, other, given, expected, seed, count = sys.argv[1:7]
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
    rng = random.Random(int(seed))
    original, foreigner = Path(file).read_bytes(), Path(other).read_bytes()
    arrays, want = dict(np.load(given)), dict(np.load(expected))
    refused = right = 0
    with tempfile.TemporaryDirectory() as folder:
        for k in range(int(count)):
            change = CHANGES[k % len(CHANGES)]
            data = bytearray(original)
            change(data, foreigner, rng)
            print(f"{k} {change.__name__}", file=sys.stderr, flush=True)  # the last line names what crashed
            got = attempt(bytes(data), k % 4 == 0, Path(folder), arrays)
            if got is None:
                refused += 1
            elif all(np.array_equal(a, b) for a, b in zip(got.values(), want.values(), strict=True)):
                right += 1
            else:
                print(f"change {k} ({change.__name__}) gave a wrong answer: {list(got)}")
                return 1
    print(refused, right)
    return 0


if __name__ == "__main__":
    sys.exit(main())
