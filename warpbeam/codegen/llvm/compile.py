"""LLVM IR text to object bytes and assembly. The only place that loads LLVM."""

from __future__ import annotations

import functools
from typing import Any

from warpbeam.ir.diagnostics import CompileError
from warpbeam.target import Target


@functools.cache
def _llvm() -> Any:
    """llvmlite with all targets initialised and LLVM's own vectorisers off."""
    import llvmlite.binding as llvm  # type: ignore[import-untyped]

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm


def llvm_version() -> str:
    """llvmlite's version and LLVM's, for cache keys."""
    import llvmlite

    return f"{llvmlite.__version__}/{'.'.join(map(str, _llvm().llvm_version_info))}"


def _machine(target: Target, level: int) -> Any:
    llvm = _llvm()
    options: dict[str, Any] = {"cpu": target.cpu, "features": target.features, "opt": level, "reloc": "pic"}
    if target.abi:
        options["abiname"] = target.abi
    code_model = "small" if "riscv" not in target.triple else "medium"
    found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(codemodel=code_model, **options)


def _module(text: str, name: str) -> Any:
    llvm = _llvm()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError(
            f"LLVM refuses the text of kernel {name!r}",
            why=str(error).strip(),
            hint="this is a fault of the code generator; please report it with the kernel",
        ) from error
    return module


def compile_text(text: str, target: Target, level: int = 1, name: str = "") -> bytes:
    """Object bytes of LLVM IR text: parse, verify, generate code at `level`; no IR passes.

    Raises:
        CompileError: if LLVM refuses the text.
    """
    module = _module(text, name)
    return bytes(_machine(target, level).emit_object(module))


def assembly_text(text: str, target: Target, level: int = 1, name: str = "") -> str:
    """Assembly of LLVM IR text, for people and tests."""
    module = _module(text, name)
    return str(_machine(target, level).emit_assembly(module))
