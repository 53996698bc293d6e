"""C back end: `print_kernel` makes a C11 file of a lowered loop program."""

from __future__ import annotations

from warpbeam.codegen.c.kernel import print_kernel, print_kernels

__all__ = ["print_kernel", "print_kernels"]
