"""Exporting a model as C11 source: one file and its header, of the same loop programs that the machine code is made of.

The kernels are scheduled once more from the model's Relay text and printed in C. Compiled with -ffp-contract=off, the
results are those of the machine code, bit for bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from warpbeam.codegen import host
from warpbeam.codegen.c import facade
from warpbeam.codegen.c.kernel import KernelPrinter
from warpbeam.codegen.c.prelude import prelude
from warpbeam.driver import embed
from warpbeam.driver.kernels import KernelSet
from warpbeam.driver.plan import Planner
from warpbeam.driver.state import bind, ports_of
from warpbeam.runtime.artifact import Artifact
from warpbeam.runtime.export_header import c_header, cpp_header
from warpbeam.runtime.export_model import Exported, c_name, write_pieces

#: constants up to this size become part of the source
INLINE_BYTES = 64 << 20
_WORDS = 1 << 16
_BIN = """/* The constants are in {file}: map it, or read it to memory aligned to 64 bytes, and say where it is
 * before the first call. */
void {name}_use_constants(const void* data);
"""


def export_c(artifact: Artifact, path: Path, name: str = "", freestanding: bool = False) -> Exported:
    """Writes PATH (.c) and its headers; constants of more than 64 MiB go to a file .bin that the program brings.

    Args:
        artifact: the model; it must hold its Relay text.
        name: prefix of the C functions; by default the file's name.
        freestanding: without malloc: contexts live in the caller's memory only.

    Raises:
        CompileError: if the artefact does not hold the model's Relay text.
        LowerError: if a kernel cannot be said in C.
    """
    name = name or c_name(path.stem)
    mod, target = embed.restored(artifact)
    manifest = artifact.manifest
    kernels = KernelSet(target)
    ports = ports_of(manifest)
    planner = Planner(mod, kernels, ports.inputs, ports.outputs)
    program, _, _ = bind(planner.build(), ports.state)
    constants = np.frombuffer(memoryview(planner.constants.blob()), np.uint8)
    params = bytes(artifact.data("params") or b"")
    external = constants.nbytes > INLINE_BYTES
    printed = dataclasses.replace(target, kind="c", threads=False)
    entry = host.print_entry(program, printed, f"{name}_entry").removeprefix(prelude(printed))
    files = [path, path.with_suffix(".h"), path.with_suffix(".hpp")]

    def pieces() -> Iterator[bytes]:
        include = f'#include "{files[1].name}"'
        yield (
            prelude(printed)
            .replace('#include "warpbeam.h"', include + ("" if freestanding else "\n#include <stdlib.h>"))
            .encode()
        )
        yield "\n".join(f"#define {k} {name}_{k}" for k in kernels.kernels).encode() + b"\n"
        for kernel in kernels.kernels.values():
            yield KernelPrinter(kernel.func, printed).text().encode() + b"\n"
        yield entry.encode()
        if not external:
            yield from _array(f"{name}_constants_data", constants)
        if params:
            yield from _array(f"{name}_params_data", np.frombuffer(params, np.uint8))
        yield facade.print_facade(manifest, name, f"{name}_entry", len(params), external, not freestanding).encode()

    size = write_pieces(path, pieces())
    extra = ""
    if external:
        files.append(path.with_suffix(".bin"))
        write_pieces(files[-1], [memoryview(constants)])
        extra = _BIN.format(file=files[-1].name, name=name)
    header = c_header(manifest, name, freestanding, "c", extra, len(params))
    write_pieces(files[1], [header.encode()])
    write_pieces(files[2], [cpp_header(manifest, name, files[1].name, freestanding, "c").encode()])
    return Exported(tuple(files), name, size, constants.nbytes)


def _array(name: str, data: np.ndarray) -> Iterator[bytes]:
    """Bytes as an aligned array of 64-bit words."""
    padded = data if data.nbytes % 8 == 0 else np.concatenate([data, np.zeros(-data.nbytes % 8, np.uint8)])
    words = padded.view("<u8") if padded.nbytes else np.zeros(1, "<u8")
    yield f"\nstatic const _Alignas(64) uint64_t {name}[{words.size}] = {{\n".encode()
    for at in range(0, words.size, _WORDS):
        part = words[at : at + _WORDS].tolist()
        rows = (",".join(map(hex, part[k : k + 8])) for k in range(0, len(part), 8))
        yield (",\n".join(rows) + ",\n").encode()
    yield b"};\n"
