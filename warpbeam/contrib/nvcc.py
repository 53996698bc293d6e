"""`contrib.nvcc`: NVIDIA's compiler, and what a GPU's architecture can do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warpbeam.driver import system_cc
from warpbeam.target import Target

__all__ = ["compile_cuda", "find_cuda_path", "get_cuda_version", "get_target_compute_version", "have_bf16",
           "have_fp16", "have_int8", "have_tensorcore", "parse_compute_version"]  # fmt: skip


def find_cuda_path() -> str:
    """The folder of the CUDA toolkit: $CUDA_PATH, or where nvcc lies; CompileError if there is none."""
    given, nvcc = os.environ.get("CUDA_PATH"), shutil.which("nvcc")
    if given:
        return given
    if nvcc is None:
        raise system_cc.missing("nvcc")
    return str(Path(os.path.realpath(nvcc)).parent.parent)


def get_cuda_version(cuda_path: str | None = None) -> tuple[int, ...]:
    """(major, minor) of the CUDA toolkit; CompileError if there is none."""
    program = str(Path(cuda_path or find_cuda_path(), "bin", "nvcc"))
    text = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"release (\d+)\.(\d+)", text)
    return tuple(int(g) for g in found.groups()) if found else (0, 0)


def compile_cuda(
    code: str, target_format: str = "ptx", arch: Any = None, options: Sequence[str] | str | None = None,
    path_target: str | None = None,
) -> bytes:  # fmt: skip
    """CUDA text compiled by nvcc to "ptx", "cubin" or "fatbin"; also written to `path_target`.

    Raises:
        CompileError: if nvcc is missing, or refuses the code.
        ValueError: for another format.
    """
    if target_format not in ("ptx", "cubin", "fatbin"):
        raise ValueError("target_format must be in ptx, cubin, fatbin")
    current = Target.current()
    arch = arch or (current.arch if current is not None else "") or "sm_70"
    flags = list(arch) if isinstance(arch, list) else [f"-arch={arch}"]
    more = [options] if isinstance(options, str) else list(options or ())
    with tempfile.TemporaryDirectory(prefix="warpbeam-") as folder:
        source, result = Path(folder, "kernel.cu"), Path(folder, f"kernel.{target_format}")
        source.write_text(code, encoding="utf-8")
        system_cc.run([f"--{target_format}", "-O3", *flags, *more, source, "-o", result], program="nvcc")
        data = result.read_bytes()
    if path_target:
        Path(path_target).write_bytes(data)
    return data


def parse_compute_version(compute_version: str) -> tuple[int, int]:
    """(major, minor) of "7.5"; ValueError for other texts."""
    major, _, minor = compute_version.partition(".")
    return int(major), int(minor or 0)


def get_target_compute_version(target: Any = None) -> str:
    """The compute capability "7.5" of a target, by default the current one, from its -arch.

    Raises:
        ValueError: if the target does not say it.
    """
    arch = getattr(target or Target.current(), "arch", "")
    if not arch.startswith("sm_"):
        raise ValueError("No CUDA architecture was specified: give it in the target, cuda -arch=sm_75")
    digits = re.sub(r"\D", "", arch)
    return f"{digits[:-1]}.{digits[-1]}"


def _at_least(compute_version: str | None, least: tuple[int, int]) -> bool:
    return compute_version is not None and parse_compute_version(compute_version) >= least


def have_fp16(compute_version: str | None) -> bool:
    """Whether such a GPU computes in float16; False without a GPU (None)."""
    return _at_least(compute_version, (5, 3))


def have_int8(compute_version: str | None) -> bool:
    """Whether such a GPU has products of int8; False without a GPU (None)."""
    return _at_least(compute_version, (6, 1))


def have_tensorcore(compute_version: str | None = None, target: Any = None) -> bool:
    """Whether such a GPU has matrix units; by default that of the target. False without a GPU."""
    if compute_version is None:
        try:
            compute_version = get_target_compute_version(target)
        except ValueError:
            return False
    return _at_least(compute_version, (7, 0))


def have_bf16(compute_version: str | None) -> bool:
    """Whether such a GPU computes in bfloat16; False without a GPU (None)."""
    return _at_least(compute_version, (8, 0))
