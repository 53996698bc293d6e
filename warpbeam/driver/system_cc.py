"""The system's C compiler, where there is one: for the target "c", C code of pragmas, and linking on request."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from warpbeam.ir.diagnostics import CompileError
from warpbeam.runtime.abi import HEADER_PATH
from warpbeam.target import Target

#: what kernels need: results that do not depend on the compiler
FLAGS = ("-std=c11", "-O2", "-ffp-contract=off", "-fPIC")
_SECONDS = 300


@functools.cache
def compiler(language: str = "c") -> str | None:
    """The path of a compiler: $CC (or $CXX), cc, gcc, clang; None if there is none."""
    names = ("CC", "cc", "gcc", "clang") if language == "c" else ("CXX", "c++", "g++", "clang++")
    given = os.environ.get(names[0])
    return next((found for name in filter(None, (given, *names[1:])) if (found := shutil.which(name))), None)


def missing(name: str = "") -> CompileError:
    """The error where a compiler is needed and there is none."""
    why = f"{name} was not found" if name else "neither cc, gcc nor clang was found"
    return CompileError("there is no C compiler on this machine", why=why,
                        hint='install one or set CC; the target "llvm" needs none')  # fmt: skip


def run(arguments: Sequence[str | Path], language: str = "c", program: str | None = None) -> None:
    """Runs the compiler, or `program` instead.

    Raises:
        CompileError: if there is none, or it fails, with its words.
    """
    path = shutil.which(program) if program else compiler(language)
    if path is None:
        raise missing(program or "")
    command = [path, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError("the C compiler cannot be run", path, str(error)) from error
    if done.returncode:
        raise CompileError("the C compiler refuses the code", path, done.stderr.strip()[:4000])


def is_cpp(text: str) -> bool:
    """Whether a text is C++ that gives its functions to C."""
    return 'extern "C"' in text and "__cplusplus" not in text


def _compile(text: str, mode: str, flags: Sequence[str] = FLAGS) -> bytes:
    """One file compiled: `mode` is -c or -S."""
    cpp = is_cpp(text)
    with tempfile.TemporaryDirectory(prefix="warpbeam-") as folder:
        source, out = Path(folder, "part.cpp" if cpp else "part.c"), Path(folder, "out")
        source.write_text(text, encoding="utf-8")
        if cpp:
            flags = ["-std=c++17", "-fno-exceptions", "-fno-rtti", *(f for f in flags if not f.startswith("-std"))]
        run([*flags, mode, "-I", HEADER_PATH.parent, "-o", out, source], "c++" if cpp else "c")
        return out.read_bytes()


def shared_of_c(parts: Sequence[str]) -> bytes:
    """A shared library of C (or C++) files that use warpbeam.h."""
    with tempfile.TemporaryDirectory(prefix="warpbeam-") as folder:
        objects = [Path(folder, f"part{k}.o") for k in range(len(parts))]
        for path, text in zip(objects, parts, strict=True):
            path.write_bytes(_compile(text, "-c"))
        out = Path(folder, "out.so")
        run(["-shared", "-o", out, *objects, "-lm"])
        return out.read_bytes()


def object_of_c(text: str, target: Target) -> bytes:
    """A relocatable object of a C or C++ file, without library calls, for a target like the compiler's own machine.

    Raises:
        CompileError: also if the target is another machine.
    """
    from warpbeam.runtime.cpu import runs_here

    if not runs_here(target.triple):
        raise CompileError(f"C code cannot be compiled for {target.triple} here", hint="import LLVM IR instead")
    flags = [*FLAGS, "-fno-builtin", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"]
    return _compile(text, "-c", flags)


def assembly_of_c(text: str) -> str:
    """The compiler's assembly of a C file."""
    return _compile(text, "-S").decode()
