"""LLVM IR text to machine code. Imports nothing of this package, so that a compiling worker starts in no time."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def binding() -> Any:
    """llvmlite with all its targets initialised."""
    import llvmlite.binding as llvm  # type: ignore[import-untyped]

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm


def linked_here(triple: str) -> bool:
    """Whether our linkers read the objects that LLVM makes for a triple: ELF and WebAssembly."""
    return not any(word in triple for word in ("apple", "darwin", "macos", "windows", "mingw"))


def emit(text: str, machine: dict[str, str], level: int, assembly: bool = False) -> bytes:
    """Object bytes (or assembly text) of LLVM IR text.

    A fresh module and target machine per call; no IR passes, so LLVM's loop and SLP vectorisers never run.

    Args:
        text: the module.
        machine: "triple", "cpu", "features", "abi" in LLVM's words.
        level: code generation level, 0 to 3.

    Raises:
        RuntimeError: with LLVM's words, if it refuses the text or the machine.
    """
    llvm = binding()
    module = llvm.parse_assembly(text)
    module.verify()
    # A WebAssembly module has a memory of its own, so that its addresses are known when it is linked.
    reloc = "static" if machine["triple"].startswith("wasm") else "pic"
    options: dict[str, Any] = {"cpu": machine["cpu"], "features": machine["features"], "opt": level, "reloc": reloc}
    if machine["abi"]:
        options["abiname"] = machine["abi"]
    # RISC-V's "small" reaches the lowest 2 GiB only.
    code_model = "medium" if "riscv" in machine["triple"] else "small"
    made = llvm.Target.from_triple(machine["triple"]).create_target_machine(codemodel=code_model, **options)
    if assembly:
        return str(made.emit_assembly(module)).encode()
    return bytes(made.emit_object(module))
