"""Whole models: Warpbeam and its peers, interleaved.

For instance:
    python -m benchmarks.run --models resnet50,bert --peers warpbeam,ort,ov,torch --threads 1,2 --json out.json
"""

from __future__ import annotations

import argparse
import sys

from .harness import Bench, Row
from .models import MODELS, describe, gflop, onnx_path
from .peers import PEERS
from .table import last_line, write


def names(text: str, known: dict[str, object], what: str) -> list[str]:
    """A comma separated list checked against a table; "all" is everything."""
    chosen = list(known) if text == "all" else [n for n in text.split(",") if n]
    for name in chosen:
        if name not in known:
            sys.exit(f"unknown {what} {name!r}; known: {', '.join(known)}")
    return chosen


def common_arguments(parser: argparse.ArgumentParser, peers: str) -> None:
    """The options that models and operators share."""
    parser.add_argument("--peers", default=peers, help=f"comma separated, of {', '.join(PEERS)}")
    parser.add_argument("--threads", default="2", help="comma separated thread counts")
    parser.add_argument("--repeat", type=int, default=6, help="rounds; in each round every peer gets one slice")
    parser.add_argument("--json", default="", help="write all results here")
    parser.add_argument("--md", default="", help="write the tables here")


def main() -> None:
    """Measure the chosen models and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet50,mobilenetv2,bert,vitb16", help="comma separated, or all")
    common_arguments(parser, "warpbeam,ort,ov,torch")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a slice")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16; peers without it stay in fp32")
    parser.add_argument("--no-peak", action="store_true", help="do not interleave the FMA peak loop")
    parser.add_argument("--list", action="store_true", help="print the models and their GFLOP, and stop")
    args = parser.parse_args()
    if args.list:
        print(describe())
        return
    models = names(args.models, dict(MODELS), "model")
    peers = names(args.peers, dict(PEERS), "peer")
    if not args.no_peak and "peak" not in peers:
        peers.append("peak")
    rows: list[Row] = []
    for threads in (int(t) for t in args.threads.split(",")):
        for name in models:
            spec = MODELS[name]
            path = onnx_path(spec)
            with Bench(peers, threads, args.precision) as bench:  # fresh processes: load time and memory are its own
                row = bench.measure(name, f"model:{name}", path, gflop(spec)[0] * 1e9, args.repeat, args.seconds)
            rows.append(row)
            print(last_line(row, peers, 1e3), file=sys.stderr, flush=True)
            write(rows, peers, args.json, args.md, 1e3, "ms")
    print(write(rows, peers, args.json, args.md, 1e3, "ms"))


if __name__ == "__main__":
    main()
