"""LLVM back end: `print_kernel` makes IR text, `compile_text` makes object bytes of it."""

from __future__ import annotations

from warpbeam.codegen.llvm.compile import assembly_text, compile_text
from warpbeam.codegen.llvm.kernel import print_kernel, print_kernels

__all__ = ["assembly_text", "compile_text", "print_kernel", "print_kernels"]
