"""What deploying costs and whether it holds: sizes, start-up, C programs, threads, forks, loading again and again.

    python -m benchmarks.deploy [--only sizes,start,programs,threads,fork,reload,damage] [--seconds 60] [--json OUT]

Prints a line for each figure with its bar; the exit code is 1 when one is missed. Needs gcc for `programs`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import warpbeam
from warpbeam.testing.exported import run_exported

from .cheap import Check
from .harness import ROOT, installed
from .models import MODELS, load_inputs, onnx_path

SO_BAR, OPEN_BAR, START_BAR, LEAK_BAR = 400e3, 0.050, 0.150, 1e6
RELOADS, MUTATIONS = 10_000, 5_000

_START = """
import sys
import time
import numpy
start = time.perf_counter()
from warpbeam import runtime
module = runtime.load(sys.argv[1])
inputs = module.random_inputs()
module.run(inputs)
print(time.perf_counter() - start, [m for m in ("llvmlite", "onnx") if m in sys.modules])
"""
_OPEN = """
import sys
import time
import numpy
from warpbeam import runtime
start = time.perf_counter()
module = runtime.open_model(sys.argv[1])
print(time.perf_counter() - start)
"""


def fresh(text: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", text, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=installed(), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def compiled(name: str) -> tuple[Any, dict[str, np.ndarray]]:
    """A benchmark model and its inputs."""
    path = onnx_path(MODELS[name])
    return warpbeam.compile(str(path)), load_inputs(path)


def sizes(folder: Path, seconds: float) -> Iterator[Check]:
    """The library of ResNet-50 without its weights; opening a library of 400 MB."""
    module, _ = compiled("resnet50")
    done = module.export_library(folder / "resnet50.so")
    yield Check("ResNet-50 .so minus weights", done.bytes - done.constants, SO_BAR, "bytes")
    module, _ = compiled("bert")
    done = module.export_library(folder / "bert.so")
    times = [float(fresh(_OPEN, str(folder / "bert.so"))) for _ in range(5)]
    yield Check(f"BERT .so of {done.bytes / 1e6:.0f} MB, opening", sorted(times)[2], OPEN_BAR, "s")


def start(folder: Path, seconds: float) -> Iterator[Check]:
    """Load and first run of MobileNetV2 in a fresh interpreter, without numpy's import; what is imported."""
    module, _ = compiled("mobilenetv2")
    module.save(folder / "mobilenetv2.wb")
    found = [fresh(_START, str(folder / "mobilenetv2.wb")).split(maxsplit=1) for _ in range(9)]
    yield Check("MobileNetV2, load + first run", sorted(float(t) for t, _ in found)[4], START_BAR, "s")
    yield Check("compilers imported by the runtime", sum(names != "[]" for _, names in found), 0.5, "times")


def programs(folder: Path, seconds: float) -> Iterator[Check]:
    """ResNet-50, BERT, a model of any size and one with state from C: other bits than `Module.run`, needed files."""
    for name in ("resnet50", "bert"):
        module, inputs = compiled(name)
        wanted = list(module.run(inputs).values())
        yield from _forms(name, module, inputs, wanted, folder)
    module = warpbeam.compile(_any_size())
    inputs = {"x": np.random.default_rng(0).standard_normal((3, 17, 64)).astype(np.float32)}
    yield from _forms("any size", module, inputs, list(module.run(inputs).values()), folder)
    carried = warpbeam.compile(_step())
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    first = carried.run({"x": x, "h": np.zeros((2, 8), np.float32)})
    yield from _forms("state", warpbeam.compile(_step(), state={"h": "h_next"}), {"x": x}, [first["y"]], folder)


def _forms(name: str, module: Any, inputs: Any, wanted: list[np.ndarray], folder: Path) -> Iterator[Check]:
    for form in ("so", "a", "c"):
        place = folder / f"{name.replace(' ', '_')}_{form}"
        place.mkdir()
        found = run_exported(module, form, inputs, wanted, place)
        wrong = sum(a.tobytes() != b.tobytes() for a, b in zip(found, wanted, strict=True))
        yield Check(f"{name}, C program with .{form}: outputs with other bits", wrong, 0.5, "")
        if form == "so":
            text = subprocess.run(["readelf", "-d", "net.so"], cwd=place, capture_output=True, text=True).stdout
            yield Check(f"{name}, libraries that net.so needs", text.count("NEEDED"), 0.5, "")
        shutil.rmtree(place)


def _any_size() -> Any:
    from onnx import TensorProto, helper, numpy_helper

    w = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    shape = ["batch", "rows", 64]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["y"], axis=-1)]
    graph = helper.make_graph(nodes, "rows", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _step() -> Any:
    from onnx import TensorProto, helper, numpy_helper

    w = np.random.default_rng(2).standard_normal((8, 8)).astype(np.float32)
    info = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 8]) for n in ("x", "h", "h_next", "y")}
    nodes = [helper.make_node("MatMul", ["h", "w"], ["hw"]), helper.make_node("Add", ["x", "hw"], ["s"]),
             helper.make_node("Tanh", ["s"], ["h_next"]), helper.make_node("Exp", ["h_next"], ["y"])]  # fmt: skip
    graph = helper.make_graph(nodes, "step", [info["x"], info["h"]], [info["h_next"], info["y"]],
                              [numpy_helper.from_array(w, "w")])  # fmt: skip
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def threads(folder: Path, seconds: float) -> Iterator[Check]:
    """16 threads on one module, then 8 modules at once: wrong results, and calls."""
    module, inputs = compiled("mobilenetv2")
    path = str(folder / "m.wb")
    module.save(path)
    for label, modules, per in (("16 threads, one module", [module], 16),
                                ("8 modules at once", [warpbeam.load(path) for _ in range(8)], 2)):  # fmt: skip
        calls, wrong = _hammer(modules, per, inputs, seconds)
        yield Check(f"{label}, {seconds:.0f} s, {calls} calls: wrong results", wrong, 0.5, "")


def _hammer(modules: list[Any], per: int, inputs: Any, seconds: float) -> tuple[int, int]:
    want = {k: v.tobytes() for k, v in modules[0].run(inputs).items()}
    end = time.monotonic() + seconds
    counts: list[tuple[int, int]] = []

    def work(module: Any) -> None:
        calls = wrong = 0
        while time.monotonic() < end:
            got = module.run(inputs)
            calls += 1
            wrong += any(got[k].tobytes() != v for k, v in want.items())
        counts.append((calls, wrong))

    workers = [threading.Thread(target=work, args=(m,)) for m in modules for _ in range(per)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(seconds + 120)
    stuck = sum(w.is_alive() for w in workers)
    return sum(c for c, _ in counts), sum(w for _, w in counts) + stuck


def fork(folder: Path, seconds: float) -> Iterator[Check]:
    """Children made by fork() while the pool's threads exist: how many of 50 fail."""
    module, inputs = compiled("mobilenetv2")
    want = {k: v.tobytes() for k, v in module.run(inputs).items()}
    failed = 0
    for _ in range(50):
        child = os.fork()
        if child == 0:
            got = module.run(inputs)
            os._exit(int(any(got[k].tobytes() != v for k, v in want.items())))
        end, status = time.monotonic() + 60, None
        while status is None and time.monotonic() < end:
            pid, code = os.waitpid(child, os.WNOHANG)
            status = code if pid else None
            time.sleep(0.005)
        if status is None:
            os.kill(child, 9)
            os.waitpid(child, 0)
        failed += status != 0
    yield Check("forked children that fail, of 50", failed, 0.5, "")


def reload(folder: Path, seconds: float) -> Iterator[Check]:
    """Resident bytes that 10,000 times load, run and drop leave behind."""
    small = warpbeam.compile(_step())
    small.save(folder / "small.wb")
    small.export_library(folder / "small.so")
    inputs = small.random_inputs()
    for file in ("small.wb", "small.so"):

        def once(path: Path = folder / file) -> None:
            warpbeam.runtime.open_model(path).run(inputs)

        for _ in range(500):
            once()
        before = _resident()
        for _ in range(RELOADS):
            once()
        yield Check(f"{file}, {RELOADS} times loaded: bytes kept", max(_resident() - before, 0), LEAK_BAR, "bytes")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def damage(folder: Path, seconds: float) -> Iterator[Check]:
    """Damaged files: those that crash, or give another answer than before or an error of ours."""
    tool = ROOT / "tests" / "driver" / "mutate_artifact.py"
    model, other = warpbeam.compile(_step()), warpbeam.compile(_any_size(), shapes={"x": (1, 3, 64)})
    model.save(folder / "a.wb")
    other.save(folder / "b.wb")
    inputs = model.random_inputs(1)
    np.savez(folder / "in.npz", **inputs)
    np.savez(folder / "out.npz", **model.run(inputs))
    files = [str(folder / f) for f in ("a.wb", "b.wb", "in.npz", "out.npz")]
    bad = refused = right = 0
    for seed in range(MUTATIONS // 500):
        command = [sys.executable, str(tool), *files, str(9000 + seed), "500"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            bad += 1
            print(done.stdout[-500:], done.stderr[-200:], sep="\n")
        else:
            a, b = map(int, done.stdout.split())
            refused, right = refused + a, right + b
    yield Check(f"{MUTATIONS} damaged files ({refused} refused, {right} right): runs that fail", bad, 0.5, "")


CHECKS: dict[str, Callable[[Path, float], Iterator[Check]]] = {
    f.__name__: f for f in (sizes, start, programs, threads, fork, reload, damage)
}


def main() -> int:
    """Runs the checks that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default=",".join(CHECKS), help="which checks")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each thread check")
    parser.add_argument("--json", metavar="OUT")
    args = parser.parse_args()
    rows = []
    print("|figure|measured|bar|met|\n|-|-|-|-|")
    for name in args.only.split(","):
        with tempfile.TemporaryDirectory(prefix="warpbeam-deploy-") as folder:
            for check in CHECKS[name](Path(folder), args.seconds):
                print(check.line(), flush=True)
                rows.append(check)
    if args.json:
        data = [{"name": c.name, "value": c.value, "limit": c.limit, "ok": c.ok} for c in rows]
        Path(args.json).write_text(json.dumps(data, indent=1))
    return 0 if all(c.ok for c in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
