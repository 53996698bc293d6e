"""OpenCL C back end: text of kernels. `build` goes from a scheduled program to host, device functions and text."""

from __future__ import annotations

from collections.abc import Sequence

from warpbeam.codegen.c.device import print_device
from warpbeam.codegen.opencl.dialect import DEVICE
from warpbeam.target import Target
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform.gpu import lower_gpu

__all__ = ["build", "print_kernels"]


def print_kernels(funcs: PrimFunc | Sequence[PrimFunc], target: Target) -> str:
    """The OpenCL C file of device functions."""
    return print_device([funcs] if isinstance(funcs, PrimFunc) else funcs, target, DEVICE)


def build(func: PrimFunc, target: Target) -> tuple[PrimFunc, list[PrimFunc], str]:
    """(host function that launches, device functions, OpenCL C text) of a scheduled program.

    Raises:
        LowerError: if loops are not bound to threads, or the target cannot run the kernels.
    """
    host, devices = lower_gpu(func, target)
    return host, devices, print_kernels(devices, target)
