"""`contrib.cc`: linking with the system's C compiler, for those who want its libraries in.

`export_library` needs none of this.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.driver import system_cc

__all__ = ["create_executable", "create_shared", "cross_compiler", "get_cc"]


def get_cc() -> str | None:
    """The path of the C++ compiler, else the C compiler; None if there is none."""
    return system_cc.compiler("c++") or system_cc.compiler()


def _link(mode: Sequence[str], output: str, objects: Any, options: Sequence[str] | None, cc: str | None) -> None:
    files = [objects] if isinstance(objects, str) else list(objects)
    system_cc.run([*mode, "-o", output, *files, *(options or ())], program=cc)


def create_shared(
    output: str, objects: Sequence[str] | str, options: Sequence[str] | None = None, cc: str | None = None
) -> None:
    """Links object files into a shared library.

    Raises:
        CompileError: if there is no compiler, or it fails.
    """
    _link(["-shared", "-fPIC"], output, objects, options, cc)


create_shared.output_format = "so"  # type: ignore[attr-defined]


def create_executable(
    output: str, objects: Sequence[str] | str, options: Sequence[str] | None = None, cc: str | None = None
) -> None:
    """Links object files into a program.

    Raises:
        CompileError: if there is no compiler, or it fails.
    """
    _link([], output, objects, options, cc)


def cross_compiler(
    compile_func: str | Callable[..., None], options: Sequence[str] | None = None, output_format: str | None = None,
    get_target_triple: Callable[[], str] | None = None, add_files: Sequence[str] | None = None,
) -> Callable[..., None]:  # fmt: skip
    """A function for `export_library(path, fcompile=…)` that links with a compiler of your choice.

    Args:
        compile_func: the compiler's name, or a function like `create_shared`.
        options: given to every call, before those of the call.
        output_format, get_target_triple: kept as attributes of the result.
        add_files: linked in too.
    """
    base, extra = list(options or ()), list(add_files or ())

    def link(outputs: str, objects: Any, options: Sequence[str] | None = None, **more: Any) -> None:
        files = ([objects] if isinstance(objects, str) else list(objects)) + extra
        if isinstance(compile_func, str):
            create_shared(outputs, files, [*base, *(options or ())], compile_func)
        else:
            compile_func(outputs, files, options=[*base, *(options or ())], **more)

    link.output_format = output_format or getattr(compile_func, "output_format", "so")  # type: ignore[attr-defined]
    link.get_target_triple = get_target_triple  # type: ignore[attr-defined]
    return link


def get_target_by_dump_machine(compiler: str) -> Callable[[], str | None]:
    """A function that asks a compiler for the triple of its machine."""

    def ask() -> str | None:
        import subprocess

        try:
            done = subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True, timeout=30, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() or None

    return ask


def is_file(path: str) -> bool:
    """Whether a file is there."""
    return os.path.isfile(path)
