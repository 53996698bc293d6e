"""Does this processor have the features that a piece of code needs?"""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterable
from pathlib import Path

#: LLVM's name of a feature -> Linux's, where they differ by more than punctuation
_LINUX_NAMES = {
    "sse3": "pni", "lzcnt": "abm", "bmi": "bmi1", "sahf": "lahflm", "prfchw": "3dnowprefetch", "pclmul": "pclmulqdq",
    "rdrnd": "rdrand", "sha": "shani", "crc32": "sse42", "cmov": "cmov", "x87": "fpu", "mmx": "mmx", "64bit": "lm",
    "neon": "asimd", "fullfp16": "fphp", "dotprod": "asimddp", "fparmv8": "fp", "rdm": "asimdrdm", "lse": "atomics",
    "avx512vpopcntdq": "avx512vpopcntdq",
}  # fmt: skip


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(".", "").replace("-", "").lstrip("+")


_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "armv7l": "armv7", "i686": "i386", "i586": "i386"}


@functools.cache
def host_machine() -> str:
    """This machine's architecture by the name LLVM triples use."""
    name = platform.machine().lower()
    return _MACHINES.get(name, name)


def _system(triple: str) -> str:
    """The system of a triple by Python's name, where it is one whose code no other runs; else empty."""
    rows = {"darwin": ("apple", "darwin", "macos"), "windows": ("windows", "mingw")}
    return next((system for system, words in rows.items() if any(word in triple for word in words)), "")


def runs_here(triple: str, here: str | None = None) -> bool:
    """Whether code for an LLVM triple may run on this machine, or on one of architecture `here`.

    An empty triple or architecture says nothing and passes.
    """
    machine = triple.partition("-")[0].lower()
    if here is None and _system(triple) not in ("", platform.system().lower()):
        return False
    here = host_machine() if here is None else here
    return not machine or not here or _MACHINES.get(machine, machine) == here


@functools.cache
def host_features() -> frozenset[str] | None:
    """Features of this processor by Linux's names without punctuation; None if the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return plain_features(value)
    return None


def plain_features(text: str) -> frozenset[str] | None:
    """Features as Linux lists them, without punctuation; None for an empty list, which says nothing."""
    return frozenset(_plain(flag) for flag in text.split()) or None


def missing_features(needed: Iterable[str], have: frozenset[str] | None = None) -> list[str]:
    """Those of the LLVM feature names `needed` that a processor lacks; none if nobody tells.

    have: what `plain_features` gives for it; by default this processor's.
    """
    have = host_features() if have is None else have
    if have is None:
        return []
    return [name for name in needed if not {_plain(name), _LINUX_NAMES.get(_plain(name), "?")} & have]
