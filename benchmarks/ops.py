"""Operators and small subgraphs: Warpbeam and its peers, interleaved, with the share of the measured FMA peak.

For instance:
    python -m benchmarks.ops --cases gemmw,conv --threads 1
    python -m benchmarks.ops --cases C2D,TBS --batch 1 --peers ort,ov
"""

from __future__ import annotations

import argparse
import sys

from .harness import Bench, Row
from .models import gflop, onnx_path
from .models.cases import CASES
from .peers import PEERS
from .run import common_arguments, names
from .table import last_line, write


def select(prefixes: str, batch: str) -> list[str]:
    """Case names that start with one of the prefixes; Ansor's cases only at the chosen batch sizes."""
    wanted, tails = prefixes.split(","), tuple(f"_b{b}" for b in batch.split(","))
    chosen = [n for n in CASES if prefixes == "all" or any(n == p or n.startswith(p + "_") for p in wanted)]
    chosen = [n for n in chosen if n.endswith(tails) or not n.endswith(("_b1", "_b16"))]
    if not chosen:
        sys.exit(f"no case matches {prefixes!r}; families: {', '.join(sorted({n.split('_')[0] for n in CASES}))}")
    return chosen


def main() -> None:
    """Measure the chosen cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="gemmw,conv", help="comma separated families or names, or all")
    parser.add_argument("--batch", default="1", help="batch sizes of Ansor's cases: 1, 16 or 1,16")
    common_arguments(parser, "warpbeam,ort,ov")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a slice")
    parser.add_argument("--list", action="store_true", help="print the cases and their MFLOP, and stop")
    args = parser.parse_args()
    chosen = select(args.cases, args.batch)
    if args.list:
        for name in chosen:
            print(f"{name:24s} {gflop(CASES[name])[0] * 1e3:10.1f} MFLOP")
        return
    peers = [p for p in names(args.peers, dict(PEERS), "peer") if p != "peak"] + ["peak"]
    rows: list[Row] = []
    for threads in (int(t) for t in args.threads.split(",")):
        with Bench(peers, threads) as bench:
            for name in chosen:
                spec = CASES[name]
                flops = gflop(spec)[0] * 1e9
                rows.append(bench.measure(name, f"op:{name}", onnx_path(spec), flops, args.repeat, args.seconds))
                print(last_line(rows[-1], peers, 1e6), file=sys.stderr, flush=True)
                write(rows, peers, args.json, args.md, 1e6, "us")
    print(write(rows, peers, args.json, args.md, 1e6, "us"))


if __name__ == "__main__":
    main()
