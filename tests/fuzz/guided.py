"""One reader of untrusted bytes under atheris, which searches by coverage for an exception that is not ours.

    python tests/fuzz/guided.py TARGET FOLDER [libFuzzer's options, such as -max_total_time=60]

TARGET: a name in TARGETS. FOLDER: inputs to start from, to which those that reach new code are added; where it holds
none, some are made. The process ends with an error and leaves a file `crash-*` where a target raises something else
than it may, or `timeout-*` where it takes more than `-timeout` seconds.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["warpbeam"]):
    import warpbeam
    from warpbeam.frontend.onnx import import_model
    from warpbeam.relay_api import astext, parse
    from warpbeam.runtime.artifact import HEAD, Artifact
    from warpbeam.runtime.errors import WarpbeamError
    from warpbeam.runtime.rpc.serving import Serving
    from warpbeam.runtime.rpc.wire import Op, text

from warpbeam.testing.fuzz import mutate
from warpbeam.testing.fuzz.grow import grow


@dataclass(frozen=True)
class Target:
    """read: takes the bytes, raises nothing else than WarpbeamError. seeds: inputs to start from. damage: changes one,
    as libFuzzer does too.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], Iterator[bytes]]
    damage: Callable[[bytes, random.Random], bytes] | None = None


def _models() -> Iterator[bytes]:
    for index in range(12):
        yield grow(3, index).model.SerializeToString()


def _texts() -> Iterator[bytes]:
    for index in range(12):
        yield astext(import_model(grow(3, index).model).module).encode()


def _artefacts() -> Iterator[bytes]:
    for index in range(3):
        yield warpbeam.compile(grow(3, index).model, opt_level=1, cache=False).artifact.to_bytes()


def _relay(data: bytes) -> None:
    parse(data.decode("utf-8", "replace"))


def _artefact(data: bytes) -> None:
    """An artefact whose digest of the table is right, so that what stands in the table is looked at."""
    if len(data) >= HEAD.size:
        fields = list(HEAD.unpack_from(data))
        fields[5] = hashlib.sha256(data[HEAD.size : HEAD.size + min(fields[4], len(data))]).digest()
        data = HEAD.pack(*fields) + data[HEAD.size :]
    found = Artifact.from_bytes(data)
    assert found.manifest is not None
    found.program()


def _requests() -> Iterator[bytes]:
    """Conversations: each request after its length in two bytes."""
    upload = bytes([Op.UPLOAD]) + text("a.bin") + (3).to_bytes(8, "little") + b"abc"
    for some in ([upload], [bytes([op]) for op in Op], [upload, bytes([Op.LIST]), bytes([Op.LOAD]) + text("a.bin")],
                 [bytes([Op.ALLOC]) + (64).to_bytes(8, "little"), bytes([Op.COPY_TO]) + bytes(24)]):  # fmt: skip
        yield b"".join(len(r).to_bytes(2, "little") + r for r in some)


def _conversation(data: bytes) -> None:
    """What an authenticated client may send: every request is answered."""
    with tempfile.TemporaryDirectory() as folder:
        serving, at = Serving(folder, 1 << 20), 0
        while at + 2 <= len(data):
            size = int.from_bytes(data[at : at + 2], "little")
            assert isinstance(serving.answer(data[at + 2 : at + 2 + size]), bytes)
            at += 2 + size


TARGETS = {
    "onnx": Target(import_model, _models, mutate.mutant),
    "relay": Target(_relay, _texts),
    "artefact": Target(_artefact, _artefacts),
    "rpc": Target(_conversation, _requests),
}


def main() -> None:
    """Runs a target until libFuzzer's limits are reached."""
    target, folder = TARGETS[sys.argv[1]], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        for k, seed in enumerate(target.seeds()):
            (folder / f"seed-{k}").write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            target.read(data)
        except WarpbeamError:
            return

    def damage(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        assert target.damage is not None
        changed = atheris.Mutate(data, most) if rng.random() < 0.3 else target.damage(data, rng)
        return changed if len(changed) <= most else data

    ways = {"custom_mutator": damage} if target.damage is not None else {}
    atheris.Setup([sys.argv[0], *sys.argv[2:]], one, **ways)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
