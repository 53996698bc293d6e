"""Random schedules: every accepted sequence of steps keeps the result, bit for bit; illegal calls are refused.

    python -m random_schedules --count 20000 --seed 0 --llvm --c 4 --jobs 2        (in tests/tir)
    python -m random_schedules --illegal 5000

Prints what was covered, and for each failure the program, the seed and the steps up to the first that went wrong.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import random
import re
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import schedule_illegal as illegal_calls
import schedule_native as native
import schedule_programs as programs
from schedule_draw import PRIMITIVES, Draw, Mismatch, step

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import rewrite
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import Schedule, apply_layout
from warpbeam.tir.stmt import For, PrimFunc
from warpbeam.tir.transform import lower


@dataclass
class Tally:
    """What a run has covered."""

    sequences: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    not_lowered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    through_c: int = 0

    def add(self, other: Tally) -> None:
        self.sequences += other.sequences
        self.accepted += other.accepted
        self.refused += other.refused
        self.not_lowered += other.not_lowered
        self.failures += other.failures
        self.through_c += other.through_c

    def text(self) -> str:
        lines = [f"{self.sequences} sequences, {sum(self.accepted.values())} steps accepted, "
                 f"{sum(self.refused.values())} refused, {len(self.failures)} failures",
                 f"  through C, with LLVM's and the interpreter's bits: {self.through_c}"]  # fmt: skip
        for name in PRIMITIVES:
            lines.append(f"  {name:24} {self.accepted[name]:7} accepted {self.refused[name]:7} refused")
        lines += [f"  not lowered: {count:5} {why}" for why, count in self.not_lowered.most_common()]
        return "\n".join(lines + self.failures)


def compare(name: str, func: PrimFunc, execute: Callable[..., Any], layouts: Any, where: str) -> list[list[bytes]]:
    """Runs a program on all cases of a computation; Mismatch where an element differs. Gives the arrays' bytes."""
    ref = programs.program(name)
    left = []
    for case in range(programs.cases(name)):
        sizes, args, want = programs.reference(name, case)
        got = [a.copy() for a in args]
        outs = range(len(got) - programs.outputs(name), len(got))
        for k in outs:
            got[k][...] = -77
        fixed = {b.name: _fixed(layouts[b.name], sizes) for b in ref.buffers if b.name in layouts}
        for k, b in enumerate(ref.buffers):
            if b.name in fixed:
                got[k] = apply_layout(got[k], fixed[b.name])
        execute(*got, *sizes.values())
        for k in outs:
            b, w, g = ref.buffers[k], want[k], got[k]
            if b.name in fixed:
                there = apply_layout(np.ones_like(w), fixed[b.name]) == 1
                g, w = g[there], apply_layout(w, fixed[b.name])[there]
            if not np.array_equal(g, w):
                raise Mismatch(f"{where}: {b.name} differs in {np.count_nonzero(g != w)} of {w.size} elements {sizes}")
        left.append([a.tobytes() for a in got])
    return left


def _fixed(layout: Any, sizes: dict[str, int]) -> dict[str, Any]:
    """A layout with numbers for the sizes."""
    return {**layout, **{key: tuple(native.number(d, sizes) for d in layout[key]) for key in ("shape", "packed")}}


def sequence(name: str, seed: int, length: int = 14) -> tuple[Schedule, Tally]:
    """Applies random steps; steps that are refused must leave the program alone and are skipped."""
    s, tally = Schedule(programs.program(name)), Tally(sequences=1)
    d = Draw(s, random.Random(f"{name} {seed}"), tally.accepted, tally.refused)
    for _ in range(length):
        step(d)
        if len(s.loop_names()) > 70:
            break
    return s, tally


@dataclass
class Pending:
    """A lowered program that waits for C, and the bytes of all arrays after it ran through LLVM, case by case."""

    name: str
    seed: int
    lowered: PrimFunc
    layouts: Any
    wanted: list[list[bytes]]


def attempt(name: str, seed: int, llvm: bool, later: list[Pending] | None = None) -> Tally:
    """One sequence, compared on the interpreter, lowered, and through LLVM; what then waits for C goes to `later`."""
    s: Schedule | None = None
    tally = Tally(sequences=1)
    try:
        s, tally = sequence(name, seed)
        layouts = s.func.attrs.get("layouts", {})
        func = s.func
        compare(name, func, lambda *a: run(func, *a), layouts, "scheduled")
        try:
            lowered = lower(on_host(func))
            compiled = native.by_llvm(lowered) if llvm else None
        except LowerError as refused:
            if not any(words in str(refused) for words in MAY_NOT_LOWER):
                raise
            tally.not_lowered[re.sub(r"'\w+'|\d+|(?<=buffer )\w+", "_", str(refused).splitlines()[0])] += 1
            return tally
        wanted = compare(name, lowered, lambda *a: run(lowered, *a), layouts, "lowered")
        if compiled is not None and compare(name, lowered, compiled, layouts, "LLVM") != wanted:
            raise Mismatch("LLVM: other bits than the interpreter's")
        if later is not None:
            later.append(Pending(name, seed, lowered, layouts, wanted))
    except Exception as wrong:
        tally.failures.append(_failure(name, seed, wrong, first_wrong(name, s)))
    return tally


MAY_NOT_LOWER = ("has no constant size",)  # a symbolic number of rows in memory that is a machine's


def _failure(name: str, seed: int, wrong: Exception, more: str) -> str:
    kind = f"{type(wrong).__name__}: {str(wrong).splitlines()[0] if str(wrong) else ''}"
    detail = "" if isinstance(wrong, Mismatch) else "".join(traceback.format_exc().splitlines(True)[-6:])
    return f"FAILED {name} seed {seed}: {kind}\n{detail}{more}"


def through_c(pending: list[Pending]) -> list[str]:
    """Compiles all programs with gcc at once and compares bit for bit; gives the failures."""
    if not pending:
        return []
    try:
        calls = native.by_c([p.lowered for p in pending])
    except subprocess.CalledProcessError as refused:
        if len(pending) > 1:
            half = len(pending) // 2
            return through_c(pending[:half]) + through_c(pending[half:])
        return [f"FAILED {pending[0].name} seed {pending[0].seed}: gcc: {refused.stderr[:1500]}"]
    failures = []
    for p, call in zip(pending, calls, strict=True):
        try:
            if compare(p.name, p.lowered, call, p.layouts, "C") != p.wanted:
                raise Mismatch("C: other bits than the interpreter's and LLVM's")
        except Exception as wrong:
            failures.append(_failure(p.name, p.seed, wrong, ""))
    return failures


def on_host(func: PrimFunc) -> PrimFunc:
    """The program with loops over hardware axes as plain loops, which is what they mean."""

    def plain(n: Any) -> Any:
        return n.replace(kind="serial", thread="") if isinstance(n, For) and n.kind == "thread_binding" else None

    body = rewrite(func.body, plain)
    return PrimFunc(func.name, func.params, body, func.attrs)


def first_wrong(name: str, s: Schedule | None) -> str:
    """The steps of a schedule up to the first after which the interpreter gives something else."""
    if s is None:
        return ""
    func = programs.program(name)
    lines = []
    for each in s.trace:
        func = each.apply(func)
        lines.append(f"    {each}")
        try:
            compare(name, func, lambda *a, f=func: run(f, *a), func.attrs.get("layouts", {}), "")
        except Exception:
            return "\n".join([*lines, "    ^ the first after which the result differs"])
    return "\n".join(lines)


def _many(chunk: Chunk) -> Tally:
    gc.set_threshold(200_000)  # programs are trees that stay: looking through them for cycles takes a tenth of the time
    work, llvm, every = chunk
    total = Tally()
    later: list[Pending] = []
    for name, seed in work:
        total.add(attempt(name, seed, llvm, later if every and seed % every == 0 else None))
    total.through_c += len(later)
    total.failures += through_c(later)
    return total


Chunk = tuple[list[tuple[str, int]], bool, int]  # (program, seed), whether through LLVM, every so many seeds through C


def isolated(chunk: Chunk) -> Tally:
    """`_many` in a process of its own; where that dies, the halves of the work tell on which program."""
    here, there = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=lambda: there.send(_many(chunk)))
    worker.start()
    there.close()
    try:
        return here.recv()  # type: ignore[no-any-return]
    except EOFError:
        worker.join()
        work, *how = chunk
        if len(work) == 1:
            (name, seed), code = work[0], worker.exitcode
            return Tally(1, failures=[f"FAILED {name} seed {seed}: the process ended with {code}"])
        total = Tally()
        for part in (work[: len(work) // 2], work[len(work) // 2 :]):
            total.add(isolated((part, *how)))  # type: ignore[arg-type]
        return total
    finally:
        worker.join()


def run_many(
    count: int,
    seed: int,
    llvm: bool,
    every: int,
    jobs: int,
    names: list[str] | None = None,
    stop: int = 5,
    seconds: float = 1e9,
) -> Tally:
    """Random sequences over all programs in turn, in `jobs` processes; ends early after `stop` failures."""
    start = time.perf_counter()
    names = names or list(programs.PROGRAMS)
    work = [(names[k % len(names)], seed + k // len(names)) for k in range(count)]
    size = 192 if count >= 192 * jobs else 48
    chunks = [(work[k : k + size], llvm, every) for k in range(0, len(work), size)]
    total = Tally()
    pool = ProcessPoolExecutor(jobs) if jobs > 1 else None
    for part in pool.map(isolated, chunks) if pool else map(isolated, chunks):
        total.add(part)
        if len(total.failures) >= stop or time.perf_counter() - start > seconds:
            break
    if pool:
        pool.shutdown(cancel_futures=True)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--program", choices=list(programs.PROGRAMS))
    parser.add_argument("--illegal", type=int, default=0, help="this many illegal calls instead")
    parser.add_argument("--llvm", action="store_true")
    parser.add_argument("--c", type=int, default=0, nargs="?", const=1, metavar="N",
                        help="every N-th seed through C and gcc, too, bit for bit")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--stop", type=int, default=5, help="stop after so many failures")
    parser.add_argument("--seconds", type=float, default=1e9)
    args = parser.parse_args()
    start = time.perf_counter()
    if args.illegal:
        text, bad = illegal_calls.run_many(args.illegal, args.seed)
        print(text, f"({time.perf_counter() - start:.0f} s)")
        return bad
    names = [args.program] if args.program else None
    total = run_many(args.count, args.seed, args.llvm, args.c, args.jobs, names, args.stop, args.seconds)
    print(total.text(), f"\n{time.perf_counter() - start:.0f} s, seed {args.seed}")
    return len(total.failures)


if __name__ == "__main__":
    sys.exit(main())
