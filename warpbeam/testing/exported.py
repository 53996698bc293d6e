"""Running an exported model from a C program, here or on another machine under an emulator."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from warpbeam.runtime.abi import DLPACK_TYPES
from warpbeam.runtime.compiled import CompiledModel

Array = npt.NDArray[Any]

_MAIN = """\
#include <stdio.h>
#include "net.h"
{buffers}
static int file(const char* name, void* data, size_t size, int out) {{
  FILE* f = fopen(name, out ? "wb" : "rb");
  size_t n = f ? (out ? fwrite(data, 1, size, f) : fread(data, 1, size, f)) : 0;
  return !f || n != size || fclose(f);
}}
{constants}int main(void) {{
{reads}
{given}  net_context* c = {create};
  if (!c) return 1;
  if (net_run(c, {arguments})) {{
    fputs(net_error(c), stderr);
    return 2;
  }}
{writes}
{destroy}  return 0;
}}
"""

_GIVEN = """\
  if (file("net.bin", constants, {size}, 0)) return 3;
  net_use_constants(constants);
"""


def run_exported(
    model: CompiledModel,
    form: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[Array],
    folder: Path,
    compiler: Sequence[str] = ("gcc", "-march=native"),
    emulator: Sequence[str] = (),
    freestanding: bool = False,
) -> list[Array]:
    """What a C program around an exported model computes.

    Args:
        model: compiled for the machine that runs the program.
        form: "so", "a" or "c".
        inputs: arrays by the inputs' names.
        outputs: arrays of the outputs' shapes and types, in order.
        folder: where everything is written.
        compiler: the C compiler and options of its own.
        emulator: what runs the program, with its arguments.
        freestanding: the model's memory is the program's; its sizes must be numbers.

    Raises:
        RuntimeError: with what was printed, if the program is not built or fails.
    """
    model.export_library(folder / f"net.{form}", name="net", freestanding=freestanding)
    arrays = [*(np.asarray(inputs[s.name], order="C") for s in model.inputs), *outputs]
    first, static = len(model.inputs), _static(model)
    results = list(enumerate(arrays))[first:]
    for k, array in enumerate(arrays[:first]):
        array.tofile(folder / f"i{k}")
    lines = [f"static _Alignas(64) unsigned char a{k}[{max(a.nbytes, 1)}];" for k, a in enumerate(arrays)]
    if not static:
        lines += [_tensor(k, array) for k, array in enumerate(arrays)]
    if freestanding:
        lines.append("static _Alignas(64) unsigned char memory[NET_CONTEXT_BYTES];")
    beside = folder / "net.bin"
    held = beside.stat().st_size if form == "c" and beside.exists() else 0
    text = _MAIN.format(
        constants=f"static _Alignas(64) unsigned char constants[{held}];\n" if held else "",
        given=_GIVEN.format(size=held) if held else "",
        create="net_create_in(memory, sizeof memory)" if freestanding else "net_create()",
        destroy="" if freestanding else "  net_destroy(c);\n",
        buffers="\n".join(lines),
        reads="\n".join(f'  if (file("i{k}", a{k}, {arrays[k].nbytes}, 0)) return 3;' for k in range(first)),
        arguments=", ".join(f"(void*)a{k}" if static else f"&t{k}" for k in range(len(arrays))),
        writes="\n".join(
            f'  if (file("o{k}", a{k}, {a.nbytes}, 1)) return 3;' for k, a in enumerate(arrays) if k >= first
        ),
    )
    (folder / "main.c").write_text(text, encoding="utf-8")
    flags = ["-O2", "-std=c11", "-ffp-contract=off", "main.c", f"./net.{form}", "-o", "main", "-lm", "-lpthread"]
    _run([*compiler, *flags], folder)
    program = "main.exe" if (folder / "main.exe").exists() else "main"  # compilers for Windows add the ending
    _run([*emulator, f"./{program}"], folder)
    return [np.fromfile(folder / f"o{k}", a.dtype).reshape(a.shape) for k, a in results]


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} gave {done.returncode}: {done.stderr[:3000]}")


def _static(model: CompiledModel) -> bool:
    return all(isinstance(e, int) for s in (*model.inputs, *model.outputs) for e in s.shape)


def _tensor(number: int, array: Array) -> str:
    """The C descriptor of an array."""
    code, bits = DLPACK_TYPES[str(array.dtype)]
    shape = ", ".join(map(str, array.shape)) or "0"
    return (
        f"static int64_t s{number}[] = {{{shape}}};\n"
        f"static wb_tensor t{number} = {{a{number}, 1, 0, {array.ndim}, {code}, {bits}, 1, s{number}, 0, 0}};"
    )
