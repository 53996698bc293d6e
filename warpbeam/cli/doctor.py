"""`warpbeam doctor`: does this installation work, and what does it consist of?"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from warpbeam import HAS_COMPILER
from warpbeam.cli import console, options

REQUIRED = ("numpy", "llvmlite", "ml_dtypes", "onnx", "rich") if HAS_COMPILER else ("numpy",)
EXTRAS = {
    "onnxruntime": "a second oracle for verify",
    "torch": "a peer in the benchmarks",
    "openvino": "a peer in the benchmarks",
    "pytest": "the tests",
    "hypothesis": "the tests",
} if HAS_COMPILER else {
    "ml_dtypes": "bfloat16 and types below 16 bits",
    "cryptography": "signatures",
    "rich": "tables on terminals",
}  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument(
        "--measure", action="store_true",
        help="measure what the cost model assumes of this machine, and keep it for later compilations",
    )  # fmt: skip
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Prints facts and checks; exit code 1 if a check fails."""
    facts = {"versions": versions(), "machine": machine() if HAS_COMPILER else here(), "extras": extras()}
    if HAS_COMPILER:
        facts["cache"] = cache()
    if args.measure:
        facts["measured"] = measure()
    checks = [_check(name, fn) for name, fn in CHECKS.items()]
    healthy = all(ok for _, ok, _ in checks)
    if args.json:
        rows = [{"check": n, "ok": ok, "detail": text} for n, ok, text in checks]
        console.emit_json(facts | {"checks": rows, "healthy": healthy})
        return 0 if healthy else 1
    for title, pairs in facts.items():
        console.table(list(pairs.items()), (title, ""), left=(0, 1))
        print()
    console.table([(n, "ok" if ok else "FAILED", text) for n, ok, text in checks], ("check", "", ""), left=(0, 1, 2))
    return 0 if healthy else 1


def versions() -> dict[str, str]:
    """Ours and those of what we need."""
    from warpbeam import __version__

    found = {"warpbeam": __version__, "python": f"{platform.python_implementation()} {platform.python_version()}"}
    for name in REQUIRED:
        found[name] = _version(name) or "MISSING"
    if not HAS_COMPILER:
        return found | {"compiler": "not installed: this is the runtime alone"}
    try:
        import llvmlite.binding as llvm  # type: ignore[import-untyped]

        found["LLVM"] = ".".join(map(str, llvm.llvm_version_info))
    except ImportError:
        found["LLVM"] = "MISSING"
    return found


def machine() -> dict[str, str]:
    """The target that was detected."""
    from warpbeam.target import detect
    from warpbeam.target.host import VARIABLE, measured

    t = detect()
    caches = " / ".join(console.size(n) if n else "none" for n in (t.l1, t.l2, t.l3))
    vectors = f"{t.vector_registers} registers of {t.vector_bits} bits" + (", fused multiply-add" if t.fma else "")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": t.cpu,
        "vectors": vectors,
        "caches": caches,
        "cores": str(t.cores),
        "preferred layout": t.prefer_layout,
        **_constants(vars(t)),
        "these constants": "measured" if measured(t) and os.environ.get(VARIABLE) != "0" else "assumed (--measure)",
    }


def here() -> dict[str, str]:
    """What the runtime knows of this machine."""
    from warpbeam.runtime.cpu import host_features, host_machine

    features = host_features()
    return {"system": f"{platform.system()} {host_machine()}",
            "processor features": "unknown" if features is None else str(len(features))}  # fmt: skip


def measure() -> dict[str, str]:
    """Measures the constants of the cost model and keeps them."""
    from warpbeam.driver.calibrate import measure as measure_constants
    from warpbeam.target import detect
    from warpbeam.target.host import keep_measured

    with console.progress("measuring"):
        values = measure_constants(detect())
    return {**_constants(values), "kept in": str(keep_measured(detect(), values))}


def _constants(values: Mapping[str, float]) -> dict[str, str]:
    return {
        "multiply-adds per cycle": f"{values['fma_rate']:.2f} vectors",
        "bytes per cycle from L2, L3, memory": " / ".join(f"{values[k]:.1f}" for k in _RATES),
        "a parallel loop costs": f"{values['fork_cycles']} cycles",
    }


_RATES = ("l2_rate", "l3_rate", "memory_rate")


def cache() -> dict[str, str]:
    """Where compiled models are kept, and how much there is."""
    from warpbeam.runtime.files import cache_root

    folder = cache_root()
    files = [f for f in folder.rglob("*") if f.is_file()] if folder.is_dir() else []
    return {"folder": str(folder), "files": str(len(files)), "size": console.size(sum(f.stat().st_size for f in files))}


def extras() -> dict[str, str]:
    """Optional packages: their version, or what they would give."""
    return {name: _version(name) or f"absent ({what})" for name, what in EXTRAS.items()}


def compile_and_run() -> str:
    """Compiles a graph of two operators without any cache, runs it, compares it with NumPy."""
    import numpy as np

    import warpbeam
    from warpbeam import op
    from warpbeam.relay.expr import Function, var

    x, y = var("x", shape=(5, 33)), var("y", shape=(5, 33))
    start = time.perf_counter()
    module = warpbeam.compile(Function((x, y), op.get("tanh")(op.get("add")(x, y))), cache=False, workers=1)
    seconds = time.perf_counter() - start
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((5, 33)).astype(np.float32) for _ in range(2))
    error = float(np.abs(module(a, b) - np.tanh(a.astype(np.float64) + b)).max())
    if not error < 1e-6:
        raise AssertionError(f"the result is wrong by {error:g}")
    return f"compiled in {console.seconds(seconds)}, largest error {error:.1e}"


def worker_pool() -> str:
    """Starts the thread pool."""
    from warpbeam import runtime

    return f"{runtime.get_num_threads()} threads"


def cache_usable() -> str:
    """Whether the cache folder is ours alone and takes files."""
    from warpbeam.driver.cache import Cache

    store = Cache()
    if not store.usable:
        raise OSError(f"{store.root} is not usable; models are compiled anew each time")
    return f"{store.root} is private and writable"


def one_installation() -> str:
    """Whether each of our files belongs to one package only."""
    found = [name for name in ("warpbeam", "warpbeam-runtime") if _version(name)]
    if len(found) > 1:
        raise RuntimeError("warpbeam and warpbeam-runtime are both installed, and removing one breaks the other: "
                           "pip uninstall warpbeam-runtime, then pip install --force-reinstall warpbeam")  # fmt: skip
    return found[0] if found else "from a folder"


CHECKS: dict[str, Callable[[], str]] = {"one installation": one_installation, "threads": worker_pool} | (
    {"compile and run": compile_and_run, "cache": cache_usable} if HAS_COMPILER else {}
)


def _check(name: str, function: Callable[[], str]) -> tuple[str, bool, str]:
    try:
        return name, True, function()
    except Exception as error:  # a doctor reports whatever is wrong
        return name, False, f"{type(error).__name__}: {error}"


def _version(name: str) -> Any:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
