"""LLVM IR text to object bytes and assembly, with our errors."""

from __future__ import annotations

from warpbeam.codegen import machine
from warpbeam.ir.diagnostics import CompileError
from warpbeam.target import Target


def machine_of(target: Target) -> dict[str, str]:
    """What LLVM must know of a target."""
    return {"triple": target.triple, "cpu": target.cpu, "features": target.features, "abi": target.abi}


def refused(name: str, words: str) -> CompileError:
    """The error for a text that LLVM does not take."""
    return CompileError(
        f"LLVM refuses the text of kernel {name!r}",
        why=words.strip(),
        hint="this is a fault of the code generator; please report it with the kernel",
    )


def _emit(text: str, target: Target, level: int, name: str, assembly: bool) -> bytes:
    try:
        return machine.emit(text, machine_of(target), level, assembly)
    except RuntimeError as error:
        raise refused(name, str(error)) from error


def compile_text(text: str, target: Target, level: int = 1, name: str = "") -> bytes:
    """Object bytes of LLVM IR text: parse, verify, generate code at `level`; no IR passes.

    Raises:
        CompileError: if LLVM refuses the text.
    """
    return _emit(text, target, level, name, False)


def assembly_text(text: str, target: Target, level: int = 1, name: str = "") -> str:
    """Assembly of LLVM IR text, for people and tests.

    Raises:
        CompileError: if LLVM refuses the text.
    """
    return _emit(text, target, level, name, True).decode()
