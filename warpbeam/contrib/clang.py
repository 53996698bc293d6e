"""`contrib.clang`: C code for the pragma import_llvm."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from warpbeam.driver import system_cc

__all__ = ["create_llvm", "find_clang"]


def find_clang(required: bool = True) -> list[str]:
    """Paths of clang on this machine.

    Raises:
        CompileError: if there is none and it is required.
    """
    found = [path for name in ("clang", "clang-20", "clang-19", "clang-18") if (path := shutil.which(name))]
    if required and not found:
        raise system_cc.missing("clang")
    return found


def create_llvm(
    inputs: Sequence[str] | str, output: str | None = None, options: Sequence[str] | None = None, cc: str | None = None
) -> str:
    """LLVM IR of C code (or of a file) for `pragma(…, "import_llvm", …)`.

    Without clang, the C code itself is given back, and written to `output`: the pragma takes C too, and any C compiler
    then makes an object of it.

    Raises:
        CompileError: if clang refuses the code.
    """
    given = [inputs] if isinstance(inputs, str) else list(inputs)
    clang = cc or next(iter(find_clang(required=False)), None)
    with tempfile.TemporaryDirectory(prefix="warpbeam-") as folder:
        texts = [Path(t).read_text() if "\n" not in t and len(t) < 4096 and Path(t).is_file() else t for t in given]
        text = "\n".join(texts)
        if clang is not None:
            source = Path(folder, "input.cc" if system_cc.is_cpp(text) else "input.c")
            result = Path(folder, "output.ll")
            source.write_text(text, encoding="utf-8")
            system_cc.run(["-S", "-emit-llvm", "-O3", *(options or ()), source, "-o", result], program=clang)
            text = result.read_text(encoding="utf-8")
    if output:
        Path(output).write_text(text, encoding="utf-8")
    return text
