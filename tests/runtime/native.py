"""Test helpers: machine code from LLVM IR text or C, and small finished artefacts."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import llvmlite.binding as llvm
import pytest


@functools.cache
def _initialise() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@functools.cache
def compile_ir(text: str, triple: str = "", opt: int = 1) -> bytes:
    """Object bytes of LLVM IR text, position-independent, small code model."""
    _initialise()
    triple = triple or llvm.get_default_triple()
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_triple(triple).create_target_machine(opt=opt, reloc="pic", codemodel="small")
    return bytes(machine.emit_object(module))


def compile_c(text: str, folder: Path, *flags: str) -> bytes:
    """Object bytes of a C source; skips the test if there is no gcc."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    source, target = folder / "source.c", folder / "source.o"
    source.write_text(text)
    subprocess.run([gcc, "-c", "-O2", "-fPIC", *flags, str(source), "-o", str(target)], check=True)
    return target.read_bytes()
