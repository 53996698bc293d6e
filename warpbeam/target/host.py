"""The target that describes this very machine."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

from warpbeam.runtime.files import atomic, cache_root, private
from warpbeam.target.target import Target, TargetError, features, from_dict, named, names

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: (processor features that must all be there, target to start from), best first, by machine
_BASES: dict[str, list[tuple[tuple[str, ...], str]]] = {
    "x86_64": [
        (("avx512f", "avx512bw", "avx512dq", "avx512vl"), "generic-x86-64-v4"),
        (("avx2", "fma", "f16c"), "generic-x86-64-v3"),
        (("sse4.1",), "generic-x86-64-v2"),
        ((), "generic-cpu"),
    ],
    "aarch64": [((), "generic-aarch64")],
    "riscv64": [(("v",), "generic-riscv64v"), ((), "generic-riscv64")],
    "armv7l": [((), "generic-armv7")],
}
#: features that code generation uses when LLVM is told of them
_USED = ("avx", "bmi", "f16c", "fma", "gfni", "lzcnt", "movbe", "neon", "dotprod", "i8mm", "popcnt", "sse", "ssse",
         "sve")  # fmt: skip
#: rows of the system's description that differ from core to core, or from time to time
_VARYING = ("processor", "cpu mhz", "bogomips", "apicid", "initial apicid", "core id", "physical id", "siblings",
            "cpu cores", "clock")  # fmt: skip
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def cache_sizes(folder: Path = _CACHES) -> dict[str, int]:
    """Bytes of the data caches of the first core, from the kernel: keys l1, l2, l3, line; absent = unknown."""
    found: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size, line = ((index / n).read_text().strip() for n in _FILES)
        except OSError:
            continue
        if kind in ("Data", "Unified") and level in ("1", "2", "3"):
            count = int(size[:-1]) * _UNITS[size[-1]] if size[-1:] in _UNITS else int(size)
            found[f"l{level}"] = count
            found["line"] = int(line)
    return found


#: environment variable: "0" = what was measured is not used
VARIABLE = "WARPBEAM_MEASURED"
#: fields of a target that can be measured: (type, least, most)
MEASURED: dict[str, tuple[Any, float, float]] = {
    "fma_rate": (float, 0.1, 16.0),
    "l2_rate": (float, 1.0, 1024.0),
    "l3_rate": (float, 0.5, 512.0),
    "memory_rate": (float, 0.1, 256.0),
    "fork_cycles": (int, 100, 1_000_000),
}
_FILES = ("level", "type", "size", "coherency_line_size")


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@functools.cache
def detect() -> Target:
    """The target of this machine: LLVM's name and feature list of the processor, caches, cores; what is known of a
    processor of that name.

    Raises:
        TargetError: on machines that no built-in target describes.
    """
    machine = platform.machine().lower()
    machine = _MACHINES.get(machine, machine)
    if machine not in _BASES:
        raise TargetError(f"no target describes this machine ({machine})", hint="describe one with like=")
    triple, cpu, flags = _processor()
    have = {name for name, on in flags.items() if on}
    base = next(name for need, name in _BASES[machine] if have.issuperset(need))
    data: dict[str, Any] = {
        "name": "native",
        "like": base,
        "triple": triple,
        "cpu": cpu,
        "features": ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(flags.items())),
        "adds": sorted(have.intersection(features())),
        "requires": " ".join(sorted(n for n in have if n.startswith(_USED))),
        "cores": usable_cores(),
        **cache_sizes(),
    }
    plain = from_dict(data)
    known = named(cpu) if cpu in names() else plain
    if known.vector_bits == plain.vector_bits:
        plain = plain.replace(fma_rate=known.fma_rate)
    return plain.replace(**measured(plain)) if os.environ.get(VARIABLE) != "0" else plain


Processor = tuple[str, str, dict[str, bool]]


def _processor() -> Processor:
    """LLVM's triple, name and features of this processor, from disk where they were kept: loading LLVM takes longer
    than all else when a model comes from the cache.
    """
    path = _known_path()
    try:
        if path is not None and private(path.parent.parent.stat()):
            triple, cpu, flags = json.loads(path.read_text(encoding="utf-8"))
            if triple and cpu and all(type(on) is bool for on in flags.values()):
                return str(triple), str(cpu), flags
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        pass  # it was not there, or is damaged
    return _asked()


def _asked() -> Processor:
    import llvmlite.binding as llvm  # type: ignore[import-untyped]

    return llvm.get_default_triple(), llvm.get_host_cpu_name(), dict(llvm.get_host_cpu_features())


def keep_processor() -> None:
    """Keeps what LLVM says of this processor in the cache folder, for processes that start later."""
    path = _known_path()
    if path is None or path.exists():
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic(path, durable=False) as file:
            file.write(json.dumps(_asked()).encode())


def _known_path() -> Path | None:
    """Where LLVM's description of this processor is kept, by its own; None where the system does not describe it."""
    import llvmlite

    rows = []
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if not line.strip() and rows:
                    break  # the first core's
                if name.strip().lower() not in _VARYING:
                    rows.append((name.strip(), value.strip()))
    except OSError:
        return None
    about = llvmlite.__version__, platform.machine(), platform.system(), rows
    return cache_root() / "machine" / f"llvm-{hashlib.sha256(repr(about).encode()).hexdigest()[:24]}.json"


# ---------------------------------------------------------------------------------------------------- what was measured


def measured_path(target: Target) -> Path:
    """Where the constants are that were measured on this machine; by what is known of it without measuring."""
    about = [target.triple, target.cpu, target.features, target.l1, target.l2, target.l3, target.cores]
    return cache_root() / "machine" / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:24]}.json"


def measured(target: Target) -> dict[str, Any]:
    """Fields of a target that were measured on this machine; empty if none were, or the file is no good."""
    try:
        found = json.loads(measured_path(target).read_text(encoding="utf-8"))
        values = {name: kind(found[name]) for name, (kind, _, _) in MEASURED.items()}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return {}
    good = all(low <= values[name] <= high for name, (_, low, high) in MEASURED.items())
    return values if good else {}


def keep_measured(target: Target, values: dict[str, Any]) -> Path:
    """Keeps measured fields for this machine; `detect` uses them in processes that start later.

    Raises:
        TargetError: if a value is out of all reason.
        OSError: if the file cannot be written.
    """
    for name, (_, low, high) in MEASURED.items():
        if not low <= values[name] <= high:
            raise TargetError(f"{name} was measured as {values[name]:.3g}", why=f"it is between {low} and {high}",
                              hint="measure again on a machine that is not busy")  # fmt: skip
    path = measured_path(target)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write(json.dumps(values, indent=1).encode())
    return path
