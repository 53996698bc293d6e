"""The machine's fp32 multiply-add peak: `python -m benchmarks.peak [--threads 1,2]` prints GFLOP/s."""

from __future__ import annotations

import argparse

from warpbeam.driver.roof import FmaPeak

__all__ = ["FmaPeak"]


def main() -> None:
    """Print the peak for each requested thread count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1", help="comma separated")
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    for threads in (int(t) for t in args.threads.split(",")):
        print(f"{threads} thread(s): {FmaPeak(threads).measure(args.seconds):.1f} GFLOP/s fp32")


if __name__ == "__main__":
    main()
