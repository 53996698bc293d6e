"""`python -m warpbeam.testing.fuzz`: random models, or damaged files of given models."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from warpbeam.testing.fuzz import crew, judge
from warpbeam.testing.fuzz.grow import grow

MEMORY = 6 << 30  # of a worker that compiles random models


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 0 where nothing is wrong, 1 where something is."""
    parser = argparse.ArgumentParser("python -m warpbeam.testing.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="models, or damaged files (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="a seed and an index give the same model always")
    parser.add_argument("--first", type=int, default=0, metavar="INDEX", help="index of the first (default: 0)")
    parser.add_argument("--levels", default="0,3,4", help="optimisation levels (default: 0,3,4)")
    parser.add_argument("--c", action="store_true", help="also as C source under gcc's sanitizers")
    parser.add_argument("--mutate", nargs="+", metavar="PATH", help="damage these model files, or those in folders")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default: 1)")
    parser.add_argument("--seconds", type=float, help="limit of one model (default: 120; damaged files: 10)")
    parser.add_argument("--save", default="fuzz-failures", metavar="FOLDER", help="where failing models are written")
    parser.add_argument("--generate", metavar="FOLDER", help="only write the models")
    args = parser.parse_args(argv)
    if args.mutate:
        from warpbeam.testing.fuzz.mutate import main as mutate

        return mutate(args)
    indices = range(args.first, args.first + args.count)
    if args.generate:
        return _generate(Path(args.generate), args.seed, indices)
    return _random(args, indices)


def _generate(folder: Path, seed: int, indices: range) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        onnx.save(grow(seed, index).model, folder / f"{seed}-{index}.onnx")
    return 0


def _work(args: argparse.Namespace, beside: bool, index: int, note: Any) -> judge.Verdict:
    return judge.judge(args.seed, index, [int(n) for n in args.levels.split(",")], args.c, note, beside)


def _outcomes(args: argparse.Namespace, indices: range) -> Iterator[crew.Outcome]:
    """What becomes of each model. One that onnxruntime does not survive is judged by exact arithmetic alone."""
    memory = 0 if args.c else MEMORY  # a sanitizer reserves terabytes of addresses
    limits = args.jobs, args.seconds or 120, memory
    again = []
    for done in crew.run_all(indices, partial(_work, args, True), *limits):
        if done.kind == "crash" and done.stage == judge.PEER:
            print(f"onnxruntime crashes on model {done.task}: {done.value}", flush=True)
            again.append(done.task)
        else:
            yield done
    yield from crew.run_all(again, partial(_work, args, False), *limits)


def _random(args: argparse.Namespace, indices: range) -> int:
    began, ops, dropped, kinds = time.monotonic(), Counter[str](), Counter[str](), Counter[str]()
    sizes = 0
    with crew.economical(), contextlib.suppress(KeyboardInterrupt):  # what was done by then is told
        judge.warm()
        for done in _outcomes(args, indices):
            failures = [] if done.kind == "done" else [f"{done.kind} in {done.stage}: {crew.brief(done.value)}"]
            disputed: list[str] = []
            if done.kind == "done":
                failures, disputed = done.value.failures, done.value.disputed
                ops.update(done.value.ops)
                dropped.update(done.value.dropped)
                sizes += done.value.sizes
            kinds["failed" if failures else "disputed" if disputed else "passed"] += 1
            if failures or disputed:
                path = _saved(Path(args.save), args.seed, done.task, "failed" if failures else "disputed")
                for text in failures or disputed:
                    print(f"{'FAILED' if failures else 'disputed'} {path}: {text}", flush=True)
    print(f"operators kept: {', '.join(f'{n} {c}' for n, c in ops.most_common())}")
    print(f"{len(ops)} operators, {sum(ops.values())} nodes")
    print(f"candidates dropped: {', '.join(f'{n} {c}' for n, c in dropped.most_common())}")
    counts = ", ".join(f"{kinds[k]} {k}" for k in ("passed", "disputed", "failed"))
    took = time.monotonic() - began
    if sum(kinds.values()) < len(indices):
        print(f"stopped after {sum(kinds.values())} of {len(indices)} models")
    print(f"seed {args.seed}, models {indices.start} to {indices.stop - 1}, levels {args.levels}: {counts};"
          f" {sizes} runs at other sizes; {took:.0f} s")  # fmt: skip
    return 1 if kinds["failed"] else 0


def _saved(folder: Path, seed: int, index: int, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{seed}-{index}.onnx"
    onnx.save(grow(seed, index).model, path)
    return path


if __name__ == "__main__":
    sys.exit(main())
