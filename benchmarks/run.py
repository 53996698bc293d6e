"""Whole models: Warpbeam and its peers, interleaved.

For instance:
    python -m benchmarks.run --models resnet50,bert --peers warpbeam,ort,ov,torch --threads 1,2 --json out.json
    python -m benchmarks.run --files lstm.onnx,gru.onnx --peers warpbeam,ort --threads 1,2
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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


def cases(models: list[str], files: str) -> list[tuple[str, str, Path, float]]:
    """(name, reference, file, floating-point operations) of the chosen models; files have their inputs beside them."""
    if files:
        paths = [Path(f) for f in files.split(",") if f]
        for path in paths:
            for needed in (path, path.with_suffix(".npz")):
                if not needed.exists():
                    sys.exit(f"{needed} is missing: a model needs an .npz of its inputs by name beside it")
        return [(path.stem, "", path, 0.0) for path in paths]
    return [(n, f"model:{n}", onnx_path(MODELS[n]), gflop(MODELS[n])[0] * 1e9) for n in models]


def main() -> None:
    """Measure the chosen models and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet50,mobilenetv2,bert,vitb16", help="comma separated, or all")
    parser.add_argument("--files", default="", help="ONNX files instead, comma separated; inputs: x.npz beside x.onnx")
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
        for name, ref, path, flops in cases(models, args.files):
            with Bench(peers, threads, args.precision) as bench:  # fresh processes: load time and memory are its own
                row = bench.measure(name, ref, path, flops, args.repeat, args.seconds)
            rows.append(row)
            print(last_line(row, peers, 1e3), file=sys.stderr, flush=True)
            write(rows, peers, args.json, args.md, 1e3, "ms")
    print(write(rows, peers, args.json, args.md, 1e3, "ms"))


if __name__ == "__main__":
    main()
