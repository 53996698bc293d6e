"""Kernel by kernel beside onnxruntime's own profile: where a model's time goes, and where we lose.

    python -m benchmarks.layers [--models resnet50,bert] [--threads 1] [--repeat 20] [--top 12]

A kernel stands beside the nodes of onnxruntime that compute what it was made of, by name: what onnxruntime fuses keeps
the name of a node or of a tensor that it made. Nodes without such a name (changes of layout, fusions it names itself)
are summed by operator. Both run after each other with as many threads; profiling costs either a microsecond or so for
each kernel. Below each table stands what each moves: bytes are those of operands and results, each whole, once per
call; memory-bound are onnxruntime's nodes that are no product, and our kernels by `benchmarks.stitching`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .models import MODELS, load_inputs, onnx_path
from .run import names
from .stitching import kernel_calls, memory_bound

_PRODUCTS = ("Conv", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Attention")
_ENDING = re.compile(r"(_kernel_time|_output_\d+|_nchwc|_token_\d+|/\w*Fusion\w*|_\w+Transformer)+$")


@dataclass
class Node:
    """One node of onnxruntime: seconds are the median over runs; bytes of inputs, constants and results."""

    name: str
    operator: str
    microseconds: float
    bytes: int


def peer_nodes(path: Path, inputs: dict[str, np.ndarray], threads: int, repeat: int) -> list[Node]:
    """What onnxruntime's profile says of a model's nodes, in the order in which they run."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_profiling, options.log_severity_level = True, 3
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(repeat + 1):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    return read_profile(events, repeat)


def read_profile(events: Iterable[dict[str, Any]], repeat: int) -> list[Node]:
    """The nodes of a profile's last `repeat` runs."""
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found.setdefault(f"{event['name']} {event['args']['node_index']}", []).append(event)
    nodes = []
    for several in found.values():
        last = several[-1]
        size = sum(int(last["args"].get(k, 0)) for k in ("activation_size", "parameter_size", "output_size"))
        took = statistics.median(e["dur"] for e in several[-repeat:])
        nodes.append(Node(_ENDING.sub("", last["name"]), last["args"]["op_name"], took, size))
    return nodes


def beside(kernels: list[Any], nodes: list[Node]) -> tuple[dict[int, list[Node]], list[Node]]:
    """(for each kernel, by its place, the nodes that compute what it was made of; those of no kernel)."""
    place = {origin: k for k, kernel in enumerate(kernels) for origin in kernel.origins}
    found: dict[int, list[Node]] = {}
    rest = []
    for node in nodes:
        at = place.get(node.name)
        if at is None:
            rest.append(node)
        else:
            found.setdefault(at, []).append(node)
    return found, rest


def report(model: str, threads: int, repeat: int, top: int) -> str:
    """The table of a model."""
    import warpbeam

    path = onnx_path(MODELS[model])
    inputs = load_inputs(path)
    nodes = peer_nodes(path, inputs, threads, repeat)
    module = warpbeam.compile(str(path), cache=False)
    module.num_threads = threads
    profile = module.profile(inputs, repeat)
    kernels = sorted(profile.kernels, key=lambda k: -k.median_us)
    found, rest = beside(kernels, nodes)
    out = [f"## {model}, {threads} thread(s), fp32", "", "|kernel of|calls|us|% of roof|onnxruntime us|theirs / ours|"]
    out.append("|-|-|-|-|-|-|")
    for k, kernel in enumerate(kernels[:top]):
        theirs = sum(n.microseconds for n in found.get(k, []))
        ratio = f"{theirs / kernel.median_us:.2f}" if theirs else "-"
        roof = "-" if not kernel.roof else f"{100 * kernel.roof:.0f}"
        what = ", ".join(kernel.origins[:2]) or kernel.name
        out.append(f"|{what}|{kernel.calls}|{kernel.median_us:.0f}|{roof}|{theirs:.0f}|{ratio}|")
    behind = [k for k, ns in found.items() if sum(n.microseconds for n in ns) < 0.95 * kernels[k].median_us]
    lost = sum(kernels[k].median_us - sum(n.microseconds for n in found[k]) for k in behind)
    apart: Counter[str] = Counter()
    for node in rest:
        apart[node.operator] += round(node.microseconds)
    unnamed = ", ".join(f"{name} {us} us" for name, us in apart.most_common(8)) or "none"
    out += [
        "",
        f"Of {len(kernels)} kernels, {len(behind)} take more than their nodes do: {lost:.0f} us together. "
        f"Nodes of no kernel by name: {unnamed}.",
        "",
        _totals(module, profile.total_us, nodes),
    ]
    return "\n".join(out)


def _totals(module: Any, ours: float, nodes: list[Node]) -> str:
    """Kernels, those that are memory-bound, and bytes, of both."""
    calls = kernel_calls(module)
    bound = memory_bound(calls)
    theirs = [n for n in nodes if not any(p in n.operator for p in _PRODUCTS)]
    rows = [
        ("ours", len(calls), len(bound), sum(int(k.bytes) for k in calls), sum(int(k.bytes) for k in bound), ours),
        (
            "onnxruntime",
            len(nodes),
            len(theirs),
            sum(n.bytes for n in nodes),
            sum(n.bytes for n in theirs),
            sum(n.microseconds for n in nodes),
        ),
    ]
    lines = ["||kernels|memory-bound|MB moved|by memory-bound|ms|", "|-|-|-|-|-|-|"]
    lines += [f"|{w}|{n}|{b}|{m / 1e6:.1f}|{by / 1e6:.1f}|{us / 1e3:.3f}|" for w, n, b, m, by, us in rows]
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet50,bert", help="comma separated, or all")
    parser.add_argument("--threads", default="1", help="comma separated thread counts")
    parser.add_argument("--repeat", type=int, default=20, help="runs")
    parser.add_argument("--top", type=int, default=12, help="rows of a table")
    args = parser.parse_args()
    for model in names(args.models, dict(MODELS), "model"):
        for threads in (int(t) for t in args.threads.split(",")):
            print(report(model, threads, args.repeat, args.top), flush=True)


if __name__ == "__main__":
    main()
