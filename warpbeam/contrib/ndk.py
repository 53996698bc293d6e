"""`contrib.ndk`: linking with the compiler of the Android NDK, which the environment variable TVM_NDK_CC names."""

from __future__ import annotations

import os
from collections.abc import Sequence

from warpbeam.contrib import cc

__all__ = ["create_shared"]


def create_shared(output: str, objects: Sequence[str] | str, options: Sequence[str] | None = None) -> None:
    """Links object files into a shared library for Android; for `export_library(path, fcompile=ndk.create_shared)`.

    Raises:
        RuntimeError: if TVM_NDK_CC is not set.
        CompileError: if the compiler is not there, or fails.
    """
    if "TVM_NDK_CC" not in os.environ:
        raise RuntimeError("Require environment variable TVM_NDK_CC to be the NDK standalone compiler")
    cc.create_shared(output, objects, options, os.environ["TVM_NDK_CC"])


create_shared.output_format = "so"  # type: ignore[attr-defined]
