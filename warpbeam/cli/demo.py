"""`warpbeam demo`: the main job on a network that needs no download."""

from __future__ import annotations

import argparse
import time
from typing import Any

from warpbeam.cli import console, options


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    parser.add_argument("-o", "--output", metavar="FILE.onnx", help="write the network here, to try other commands on")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor write the cache on disk")
    options.add_threads(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Builds, compiles, verifies, times; exit code 1 if the result is wrong."""
    from warpbeam.cli import demo_model, files

    model = demo_model.build(args.seed)
    data = model.SerializeToString(deterministic=True)
    if args.output:
        files.write_with(args.output, lambda path: path.write_bytes(data))
    with console.progress("compiling, verifying, measuring"):
        facts = _work(data, args)
    if args.json:
        console.emit_json(facts)
    else:
        _show(facts, len(model.graph.node))
    return 0 if facts["passed"] else 1


def _work(data: bytes, args: argparse.Namespace) -> dict[str, Any]:
    import warpbeam
    from warpbeam.cli.bench import facts
    from warpbeam.driver.verify import verify

    cache = not args.no_cache
    start = time.perf_counter()
    module = warpbeam.compile(data, threads=args.threads, cache=cache, name="demo_cnn")
    compiled = time.perf_counter() - start
    result = verify(data, module=module)
    measured = facts(module, module.benchmark(repeat=15))
    flops = sum(f for k in module.artifact.manifest.kernels if isinstance(f := k.flops, int))
    worst = {d.against: d.relative for d in result.differences}
    return {
        "model": "demo_cnn", "passed": result.passed, "findings": result.findings, "errors": worst,
        "tolerance": result.differences[0].tolerance, "compile_seconds": compiled,
        "kernels": len(module.artifact.manifest.kernels), "kernel_flops": flops, "benchmark": measured,
    }  # fmt: skip


def _show(facts: dict[str, Any], nodes: int) -> None:
    measured = facts["benchmark"]
    rows = [
        ("network", f"{nodes} ONNX nodes, random weights"),
        ("kernels", f"{facts['kernels']} different ones, {measured['precision']}"),
        ("compile", console.seconds(facts["compile_seconds"])),
    ]
    for oracle, error in facts["errors"].items():
        name = "interpreter (float64)" if oracle == "interpreter" else oracle
        rows.append((f"error against {name}", f"{error:.1e} of the largest output (allowed: {facts['tolerance']:g})"))
    rows.append(("one inference", f"{console.seconds(measured['median'])} median, {measured['threads']} threads"))
    rows.append(("inferences per second", f"{measured['per_second']:.0f}"))
    rows.append(("verdict", "PASSED" if facts["passed"] else "FAILED"))
    console.table(rows, ("demo", ""), left=(0, 1))
    for finding in facts["findings"]:
        print(f"found: {finding}")
