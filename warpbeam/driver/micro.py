"""Projects for small devices without an operating system: a model as C source with all it takes to build and run it."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from warpbeam.driver import micro_text as texts
from warpbeam.ir.diagnostics import CompileError
from warpbeam.runtime.compiled import CompiledModel
from warpbeam.runtime.export_header import context_bytes
from warpbeam.runtime.export_model import c_name

#: bytes of the data memory that are kept for the stack
STACK = 16 << 10


@dataclass(frozen=True, slots=True)
class Board:
    """A board: flags of its compiler, its memories as (first address, bytes), the emulator's command."""

    name: str
    about: str
    flags: str
    fpu: bool
    code: tuple[int, int]
    data: tuple[int, int]
    large: tuple[int, int]
    emulator: str


@dataclass(frozen=True, slots=True)
class Project:
    """What was written. Bytes of weights and of scratch memory, and which memory each is in."""

    folder: Path
    files: tuple[Path, ...]
    constants: int
    context: int
    constants_in: str
    context_in: str


@functools.cache
def boards() -> dict[str, Board]:
    """The boards that are known, by name."""
    text = (Path(__file__).parent / "boards.toml").read_text(encoding="utf-8")
    pairs = ("code", "data", "large")
    return {
        name: Board(name, **{k: tuple(v) if k in pairs else v for k, v in row.items()})
        for name, row in tomllib.loads(text).items()
    }


def make_project(
    model: CompiledModel, folder: Path, board: str, inputs: Mapping[str, Any] | None = None, name: str = ""
) -> Project:
    """Writes a project for a board.

    Args:
        model: compiled for the target "c32", with shapes that are numbers.
        folder: is made; it must not exist, or be empty.
        board: see `boards`.
        inputs: arrays that the example program runs on; zeros if None.
        name: prefix of the C functions; by default the model's name.

    Raises:
        CompileError: if the board is unknown, the folder has contents, extents are symbolic, or the board's memories
            are too small.
    """
    found = boards().get(board)
    if found is None:
        raise CompileError(f"unknown board {board!r}", hint=f"boards: {', '.join(boards())}")
    specs = [*model.inputs, *model.outputs]
    if any(not isinstance(e, int) for s in specs for e in s.shape):
        raise CompileError("the model's sizes are not all known", model.name, "a small device has fixed memory",
                           "give --input-shapes")  # fmt: skip
    if folder.is_dir() and any(folder.iterdir()):
        raise CompileError(f"{folder} is not empty", why="nothing is overwritten", hint="give a new folder")
    name = name or c_name(model.name)
    folder.mkdir(parents=True, exist_ok=True)
    exported = model.export_library(folder / f"{name}.c", name=name, freestanding=True)
    context = context_bytes(model.artifact.manifest, len(model.artifact.data("params") or b""))
    if context is None:
        raise CompileError("the model's scratch memory is not known", model.name, "its sizes depend on the data")
    places = _places(found, exported.constants, context, model.name)
    own = dict(inputs or {})
    arrays = {s.name: np.ascontiguousarray(own.get(s.name, _zeros(s))) for s in model.inputs}
    values = {
        "name": name, "upper": name.upper(), "board": board, "about": found.about, "flags": found.flags,
        "emulator": found.emulator, "code": found.code, "data": found.data, "large": found.large, "stack": STACK,
        "fpu": texts.FPU if found.fpu else "", "constants": exported.constants, "context": context,
        "weights_place": _PLACES[places[0]], "arena_place": _PLACES[places[1]],
        "large_input": f"{name}.o(.rodata.{name}_constants_data) *(.rodata.{name}_constants_data)"
        if places[0] == "large" else "",
        "arena_memory": places[1].upper(), **_program(model, name),
    }  # fmt: skip
    made = {"startup.c": texts.STARTUP, "memory.ld": texts.MEMORY, "Makefile": texts.MAKEFILE, "main.c": texts.MAIN,
            "README.md": texts.README}  # fmt: skip
    for file, text in made.items():
        (folder / file).write_text(text.format(**values), encoding="utf-8")
    (folder / "inputs.h").write_text(_inputs(arrays), encoding="utf-8")
    files = (*exported.files, *(folder / f for f in (*made, "inputs.h")))
    return Project(folder, files, exported.constants, context, *places)


_PLACES = {"code": "code memory", "data": "data memory", "large": "large memory"}
#: bytes of code memory that are left for code
_CODE = 256 << 10


def _places(board: Board, constants: int, context: int, model: str) -> tuple[str, str]:
    """Which memories hold the weights and the scratch memory: the fast ones where they have room."""
    weights = "code" if constants + _CODE <= board.code[1] else "large"
    arena = "data" if context + 2 * STACK <= board.data[1] else "large"
    need = (constants if weights == "large" else 0) + (context if arena == "large" else 0)
    if need > board.large[1]:
        raise CompileError(f"the model does not fit on {board.name}", model,
                           f"weights {constants} bytes, scratch memory {context} bytes; its memories have "
                           f"{board.code[1]}, {board.data[1]} and {board.large[1]}",
                           "quantise it, or take a smaller one")  # fmt: skip
    return weights, arena


def _zeros(spec: Any) -> np.ndarray:
    from warpbeam.runtime.abi import numpy_dtype

    return np.zeros(spec.shape, numpy_dtype(spec.dtype))


def _program(model: CompiledModel, name: str) -> dict[str, str]:
    """The parts of the example program that depend on the model."""
    sizes = [_zeros(s).nbytes for s in model.outputs]
    outputs = [f"static _Alignas(64) unsigned char output_{k}[{max(size, 1)}];" for k, size in enumerate(sizes)]
    arguments = [f"(const void*)input_{k}" for k in range(len(model.inputs))]
    arguments += [f"(void*)output_{k}" for k in range(len(sizes))]
    prints = [f'  print_words("output {k}\\n", output_{k}, {size});' for k, size in enumerate(sizes)]
    return {"outputs": "\n".join(outputs), "arguments": ", ".join(arguments), "prints": "\n".join(prints)}


def _inputs(arrays: Mapping[str, np.ndarray]) -> str:
    """A header with the bytes of arrays."""
    lines = ["/* The arrays that the example runs on. */"]
    for k, (name, array) in enumerate(arrays.items()):
        data = array.tobytes() or b"\0"
        rows = [", ".join(map(str, data[at : at + 24])) for at in range(0, len(data), 24)]
        text = ",\n    ".join(rows)
        label = f"{name!r}: {array.dtype}{list(array.shape)}".replace("*/", "* /")
        lines += [
            f"/* {label} */",
            f"static const _Alignas(64) unsigned char input_{k}[{len(data)}] = {{",
            f"    {text}}};",
        ]
    return "\n".join([*lines, ""])
