"""What compiling costs: wall clock from an empty cache and from a filled one, memory, call overhead, scaling.

    python -m benchmarks.cheap [--only compile,call,chain] [--models resnet50,bert,mobilenetv2] [--json OUT]

Every compile runs in a fresh Python process; its wall clock includes the interpreter's start, the imports and one
inference; the package's bytecode lies ready, as after pip install. Memory is the highest sum of the resident sets of
that process and all its descendants, sampled from /proc (pages shared between them count once each). The exit code is
1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .harness import ROOT, installed
from .models import MODELS, load_inputs, onnx_path
from .run import names

COLD_BAR = {"resnet50": 5.0, "bert": 8.0, "mobilenetv2": 4.0}
WARM_BAR, MEMORY_FACTOR, MEMORY_PLUS, CALL_BAR, CHAIN_BAR = 0.5, 4.0, 500e6, 5e-6, 1.3


@dataclass
class Check:
    """One measured number and its bar (`limit` 0: none)."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def ok(self) -> bool:
        """Whether the number is within its bar."""
        return not self.limit or self.value <= self.limit

    def line(self) -> str:
        """A table row."""
        limit = f"{self.limit:.4g} {self.unit}" if self.limit else "-"
        return f"|{self.name}|{self.value:.4g} {self.unit}|{limit}|{'yes' if self.ok else 'NO'}|"


def tree_rss(root: int) -> int:
    """Resident bytes of process `root` and all its descendants now."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(entry)] = int(fields[1])
    members, grew = {root}, True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in members} - members
        members, grew = members | more, bool(more)
    total = 0
    for pid in members:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return total * os.sysconf("SC_PAGE_SIZE")


def child(arguments: list[str], cache: str, timeout: float = 600.0) -> tuple[float, int, dict[str, Any]]:
    """Run `python -m benchmarks.cheap --child …` -> (wall seconds, peak tree bytes, what it reported)."""
    env = dict(installed(), WARPBEAM_CACHE=cache, WARPBEAM_CACHE_DIR=cache, XDG_CACHE_HOME=cache)
    highest, done = [0], threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cheap", "--child", *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE
    )

    def watch() -> None:
        while not done.wait(0.01):
            highest[0] = max(highest[0], tree_rss(process.pid))

    if Path("/proc/self/statm").exists():
        threading.Thread(target=watch, daemon=True).start()
    try:
        text, _ = process.communicate(timeout=timeout)
    finally:
        done.set()
        process.kill()
    wall = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"the measured process failed with {process.returncode}: {' '.join(arguments)}")
    return wall, highest[0], json.loads(text.decode().strip().splitlines()[-1])


def chain_model(nodes: int) -> bytes:
    """A chain of `nodes` elementwise operators over 16 floats, each with its own constant."""
    from onnx import TensorProto, helper, numpy_helper

    kinds, body, constants = ("Add", "Mul", "Relu", "Tanh"), [], []
    for i in range(nodes):
        kind, source, target = kinds[i % 4], f"t{i}", f"t{i + 1}"
        if kind in ("Add", "Mul"):
            constants.append(numpy_helper.from_array(np.full(16, 0.5 + i / nodes, np.float32), f"c{i}"))
            body.append(helper.make_node(kind, [source, f"c{i}"], [target], name=f"n{i}"))
        else:
            body.append(helper.make_node(kind, [source], [target], name=f"n{i}"))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [16]) for n in ("t0", f"t{nodes}")]
    graph = helper.make_graph(body, "chain", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def add_model() -> bytes:
    """y = a + b over 16 floats."""
    from onnx import TensorProto, helper

    a, b, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [16]) for n in "aby")
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "add", [a, b], [y])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def child_main(kind: str, argument: str) -> None:
    """The measured process: no imports of ours that a user's program would not make."""
    start = time.perf_counter()
    import warpbeam

    imported = time.perf_counter()
    if kind == "model":
        module = warpbeam.compile(argument)
        compiled = time.perf_counter()
        module.run(load_inputs(Path(argument)))
        report = {"import": imported - start, "compile": compiled - imported, "run": time.perf_counter() - compiled}
    elif kind == "chain":
        data = chain_model(int(argument))
        begin = time.perf_counter()
        warpbeam.compile(data, cache=False)
        report = {"per_node": (time.perf_counter() - begin) / int(argument)}
    else:
        module = warpbeam.compile(add_model())
        inputs = {"a": np.ones(16, np.float32), "b": np.ones(16, np.float32)}
        out, run, times = dict(module.run(inputs)), module.run, []
        for _ in range(200):
            begin = time.perf_counter_ns()
            for _ in range(200):
                run(inputs, out=out)
            times.append((time.perf_counter_ns() - begin) / 200e9)
        report = {"call": float(np.median(times))}
    print(json.dumps(report))


def compile_checks(models: list[str]) -> list[Check]:
    """Cold and warm wall clock and peak memory of each model."""
    checks = []
    for name in models:
        path = onnx_path(MODELS[name])
        with tempfile.TemporaryDirectory(prefix="wb-cheap-") as cache:
            wall, rss, report = child(["model", str(path)], cache)
            checks.append(Check(f"{name}: empty cache, process wall", wall, COLD_BAR.get(name, 0.0), "s"))
            checks.append(Check(f"{name}: of that, compile()", report["compile"], 0.0, "s"))
            limit = (MEMORY_FACTOR * path.stat().st_size + MEMORY_PLUS) / 1e6
            checks.append(Check(f"{name}: peak memory of the process tree", rss / 1e6, limit, "MB"))
            warm = [child(["model", str(path)], cache) for _ in range(3)]
            wall, rss, report = min(warm, key=lambda w: w[0])
            checks.append(Check(f"{name}: from cache, process wall", wall, WARM_BAR, "s"))
            checks.append(Check(f"{name}: from cache, compile()", report["compile"], 0.0, "s"))
            checks.append(Check(f"{name}: from cache, peak memory", rss / 1e6, limit, "MB"))
    return checks


def call_checks() -> list[Check]:
    """The smallest useful call."""
    with tempfile.TemporaryDirectory(prefix="wb-cheap-") as cache:
        took = child(["call", ""], cache)[2]["call"]
    return [Check("16-float add through Module.run(out=)", took * 1e6, CALL_BAR * 1e6, "us")]


def chain_checks() -> list[Check]:
    """Compile time a node at two lengths."""
    with tempfile.TemporaryDirectory(prefix="wb-cheap-") as cache:
        short, long = (child(["chain", str(n)], cache)[2]["per_node"] for n in (2000, 20000))
    return [
        Check("chain of 2,000 nodes, compile a node", short * 1e6, 0.0, "us"),
        Check("chain of 20,000 nodes, compile a node", long * 1e6, 0.0, "us"),
        Check("ratio 20,000 / 2,000", long / short, CHAIN_BAR, "x"),
    ]


def main() -> None:
    """Measure, print the table, exit by the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="compile,call,chain", help="comma separated parts")
    parser.add_argument("--models", default="resnet50,bert,mobilenetv2")
    parser.add_argument("--json", default="")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child_main(*args.child)
        return
    parts = {
        "compile": lambda: compile_checks(names(args.models, dict(MODELS), "model")),
        "call": call_checks,
        "chain": chain_checks,
    }
    checks: list[Check] = []
    print("|what|measured|bar|ok|\n|-|-|-|-|")
    for part in names(args.only, dict(parts), "part"):
        found = parts[part]()
        checks += found
        print("\n".join(c.line() for c in found), flush=True)
    if args.json:
        rows = [{"name": c.name, "value": c.value, "limit": c.limit, "unit": c.unit, "ok": c.ok} for c in checks]
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(0 if all(c.ok for c in checks) else 1)


if __name__ == "__main__":
    main()
