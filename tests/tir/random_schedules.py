"""Random schedules: every accepted sequence of steps keeps the result, bit for bit; illegal calls are refused.

    python -m random_schedules --count 20000 --seed 0 --llvm --jobs 2        (in tests/tir)
    python -m random_schedules --illegal 5000

Prints what was covered, and for each failure the program, the seed and the steps up to the first that went wrong.
"""

from __future__ import annotations

import argparse
import random
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
sys.path.insert(0, str(Path(__file__).parent.parent / "codegen"))

import schedule_illegal as illegal_calls
import schedule_programs as programs

from warpbeam.ir.diagnostics import LowerError, ScheduleError
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import Var, const, const_int
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import Schedule, apply_layout
from warpbeam.tir.stmt import For, PrimFunc
from warpbeam.tir.transform import lower

SPLITS = ([None, 2], [None, 3], [None, 4], [3, None], [None, 2, 2], [2, None, 3], [None, 8], [1, None])
SCOPES = ("global", "local", "shared")
THREADS = ("blockIdx.x", "blockIdx.y", "threadIdx.x", "threadIdx.y", "vthread")


@dataclass
class Draw:
    """One random choice of arguments: blocks, loops and buffers of the program as it is now."""

    s: Schedule
    rng: random.Random

    def block(self) -> str:
        return self.rng.choice(self.s.blocks())

    def loop(self, block: str | None = None) -> str:
        loops = self.s.loops(block or self.block())
        return self.rng.choice(loops) if loops else "no loop"

    def loops(self, count: int) -> list[str]:
        """Some loops around one block, in any order."""
        around = self.s.loops(self.block())
        return self.rng.sample(around, min(count, len(around)))

    def nested(self, count: int) -> list[str]:
        around = self.s.loops(self.block())
        k = self.rng.randrange(max(1, len(around)))
        return around[k : k + count]

    def buffer(self) -> str:
        return self.rng.choice(illegal_calls.buffer_names(self.s))

    def chance(self, part: float) -> bool:
        return self.rng.random() < part


def _cache_read(d: Draw) -> Any:
    block = d.block()
    readers = [d.block()] if d.chance(0.2) else []
    return d.s.cache_read(block, d.buffer(), d.rng.choice(SCOPES), readers)


def _layout(d: Draw) -> Any:
    maps: list[Callable[..., Any]] = [
        lambda *i: (i[-1] // 4, *i[:-1], i[-1] % 4),
        lambda *i: i[::-1],
        lambda *i: (*i[:-1], i[-1] // 3, i[-1] % 3),
        lambda *i: (*i[:-1], i[-1] + 2),
    ]
    return d.s.transform_layout(d.buffer(), d.rng.choice(maps))


def _pad(d: Draw) -> Any:
    block = d.block()
    return d.s.pad_einsum(block, [d.rng.choice([1, 2, 4]) for _ in d.s.block(block).axes])


STEPS: dict[str, tuple[float, Callable[[Draw], Any]]] = {
    "split": (4, lambda d: d.s.split(d.loop(), d.rng.choice(SPLITS))),
    "split_guard": (3, lambda d: d.s.split(d.loop(), d.rng.choice(SPLITS), guard=True)),
    "fuse": (3, lambda d: d.s.fuse(*d.nested(2))),
    "reorder": (4, lambda d: d.s.reorder(*d.loops(d.rng.choice([2, 3])))),
    "tile": (1, lambda d: d.s.tile(*[*d.nested(2), "", ""][:2], 2, 3)),
    "parallel": (1.5, lambda d: d.s.parallel(d.loop())),
    "vectorize": (1.5, lambda d: d.s.vectorize(d.loop())),
    "unroll": (1, lambda d: d.s.unroll(d.loop())),
    "bind": (1, lambda d: d.s.bind(d.loop(), d.rng.choice(THREADS))),
    "partition": (1.5, lambda d: d.s.partition(d.loop(), d.rng.randrange(5))),
    "merge": (1, lambda d: d.s.merge(*dict.fromkeys((d.loop(), d.loop())))),
    "annotate": (0.3, lambda d: d.s.annotate(d.loop(), "note", d.rng.randrange(4))),
    "unannotate": (0.3, lambda d: d.s.unannotate(d.loop(), "note")),
    "pragma": (0.5, lambda d: d.s.pragma(d.loop(), "auto_unroll_max_step", d.rng.choice([0, 4, 16]))),
    "compute_inline": (1, lambda d: d.s.compute_inline(d.block())),
    "reverse_compute_inline": (1, lambda d: d.s.reverse_compute_inline(d.block())),
    "compute_at": (3, lambda d: d.s.compute_at(d.block(), d.loop(), guard=d.chance(0.4), relax=d.chance(0.3))),
    "compute_root": (0.7, lambda d: d.s.compute_root(d.block())),
    "reverse_compute_at": (3, lambda d: d.s.reverse_compute_at(d.block(), d.loop())),
    "decompose_reduction": (1, lambda d: (lambda b: d.s.decompose_reduction(b, d.loop(b)))(d.block())),
    "rfactor": (1, lambda d: d.s.rfactor(d.loop(), d.rng.randrange(2))),
    "cache_write": (1, lambda d: d.s.cache_write(d.block(), d.rng.choice(SCOPES))),
    "cache_read": (1.5, _cache_read),
    "clone": (0.7, lambda d: d.s.clone(d.block(), d.block())),
    "set_scope": (0.5, lambda d: d.s.set_scope(d.block(), d.rng.choice(SCOPES))),
    "storage_align": (0.3, lambda d: d.s.storage_align(d.block(), 0, d.rng.choice([4, 8]), d.rng.randrange(2))),
    "transform_layout": (0.7, _layout),
    "double_buffer": (0.7, lambda d: d.s.double_buffer(d.block())),
    "rolling_buffer": (0.7, lambda d: d.s.rolling_buffer(d.block())),
    "prefetch": (0.5, lambda d: d.s.prefetch(d.loop(), d.buffer(), d.rng.randrange(3))),
    "pipeline": (0.7, lambda d: d.s.pipeline(d.loop(), d.rng.choice([(0, 1), (0, 0, 1), (0, 1, 1), (0, 1, 2)]))),
    "blockize": (0.4, lambda d: d.s.blockize(d.loop())),
    "pad_einsum": (0.5, lambda d: _pad(d)),
}  # fmt: skip


@dataclass
class Tally:
    """What a run has covered."""

    sequences: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    not_lowered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.sequences += other.sequences
        self.accepted += other.accepted
        self.refused += other.refused
        self.not_lowered += other.not_lowered
        self.failures += other.failures

    def text(self) -> str:
        lines = [f"{self.sequences} sequences, {sum(self.accepted.values())} steps accepted, "
                 f"{sum(self.refused.values())} refused, {len(self.failures)} failures"]  # fmt: skip
        for name in STEPS:
            lines.append(f"  {name:24} {self.accepted[name]:7} accepted {self.refused[name]:7} refused")
        lines += [f"  not lowered: {count:5} {why}" for why, count in self.not_lowered.most_common()]
        return "\n".join(lines + self.failures)


class Mismatch(AssertionError):
    """A result that differs from the unscheduled program's."""


def compare(name: str, func: PrimFunc, execute: Callable[..., Any], layouts: Any, where: str) -> None:
    """Runs a program on all cases of a computation; Mismatch where an element differs."""
    ref = programs.program(name)
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


def _fixed(layout: Any, sizes: dict[str, int]) -> dict[str, Any]:
    """A layout with numbers for the sizes."""
    return {**layout, **{key: tuple(_number(d, sizes) for d in layout[key]) for key in ("shape", "packed")}}


def sequence(name: str, seed: int, length: int = 14) -> tuple[Schedule, Tally]:
    """Applies random steps; steps that are refused must leave the program alone and are skipped."""
    rng = random.Random(f"{name} {seed}")
    s, tally = Schedule(programs.program(name)), Tally(sequences=1)
    d = Draw(s, rng)
    names, weights = list(STEPS), [w for w, _ in STEPS.values()]
    for _ in range(length):
        before, steps = s.func, len(s.trace)
        step = rng.choices(names, weights)[0]
        try:
            STEPS[step][1](d)
            tally.accepted[step] += 1
        except ScheduleError:
            tally.refused[step] += 1
            if s.func is not before or len(s.trace) != steps:
                raise Mismatch(f"a refused {step} changed the program") from None
        if len(s.loop_names()) > 120:
            break
    return s, tally


def attempt(name: str, seed: int, llvm: bool) -> Tally:
    """One sequence, compared on the interpreter, lowered, and through LLVM."""
    s: Schedule | None = None
    tally = Tally(sequences=1)
    try:
        s, tally = sequence(name, seed)
        layouts = s.func.attrs.get("layouts", {})
        func = s.func
        compare(name, func, lambda *a: run(func, *a), layouts, "scheduled")
        try:
            lowered = lower(_on_host(func))
            native = _compiled(lowered) if llvm else None
        except LowerError as refused:
            tally.not_lowered["…" + str(refused).splitlines()[0][-48:]] += 1
            return tally
        compare(name, lowered, lambda *a: run(lowered, *a), layouts, "lowered")
        if native is not None:
            compare(name, lowered, native, layouts, "LLVM")
    except Exception as wrong:
        kind = f"{type(wrong).__name__}: {str(wrong).splitlines()[0] if str(wrong) else ''}"
        detail = "" if isinstance(wrong, Mismatch) else "".join(traceback.format_exc().splitlines(True)[-6:])
        tally.failures.append(f"FAILED {name} seed {seed}: {kind}\n{detail}{first_wrong(name, s)}")
    return tally


def _on_host(func: PrimFunc) -> PrimFunc:
    """The program with loops over hardware axes as plain loops, which is what they mean."""

    def plain(n: Any) -> Any:
        return n.replace(kind="serial", thread="") if isinstance(n, For) and n.kind == "thread_binding" else None

    body = rewrite(func.body, plain)
    return PrimFunc(func.name, func.params, body, func.attrs)


def _compiled(lowered: PrimFunc) -> Callable[..., Any]:
    from cg_native import build

    kernel = build(lowered)
    spare = int(lowered.attrs.get("workspace", 0))
    sizes = [p for p in lowered.params if isinstance(p, Var)]
    space = lowered.buffers[len(lowered.buffers) - spare :]

    def call(*args: Any) -> None:
        arrays = [np.ascontiguousarray(a) for a in args if isinstance(a, np.ndarray)]
        numbers = [a for a in args if not isinstance(a, np.ndarray)]
        at = {v.name: n for v, n in zip(sizes, numbers, strict=True)}
        work = [np.full([_number(d, at) for d in b.shape], 99).astype(b.dtype) for b in space]
        kernel(*arrays, *work, *numbers)
        for given, used in zip(args, arrays, strict=False):
            if used is not given:
                given[...] = used

    return call


def _number(dim: Any, sizes: dict[str, int]) -> Any:
    if isinstance(dim, int):
        return dim
    at = {v: const(sizes[v.name]) for v in free_vars(dim)}
    return const_int(simplify(substitute(dim, at)))


def first_wrong(name: str, s: Schedule | None) -> str:
    """The steps of a schedule up to the first after which the interpreter gives something else."""
    if s is None:
        return ""
    func = programs.program(name)
    lines = []
    for step in s.trace:
        func = step.apply(func)
        lines.append(f"    {step}")
        try:
            compare(name, func, lambda *a, f=func: run(f, *a), func.attrs.get("layouts", {}), "")
        except Exception:
            return "\n".join([*lines, "    ^ the first after which the result differs"])
    return "\n".join(lines)


def _many(args: tuple[list[tuple[str, int]], bool]) -> Tally:
    total = Tally()
    for name, seed in args[0]:
        total.add(attempt(name, seed, args[1]))
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--program", choices=list(programs.PROGRAMS))
    parser.add_argument("--illegal", type=int, default=0, help="this many illegal calls instead")
    parser.add_argument("--llvm", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--stop", type=int, default=5, help="stop after so many failures")
    parser.add_argument("--seconds", type=float, default=1e9)
    args = parser.parse_args()
    start = time.perf_counter()
    if args.illegal:
        text, bad = illegal_calls.run_many(args.illegal, args.seed)
        print(text, f"({time.perf_counter() - start:.0f} s)")
        return bad
    names = [args.program] if args.program else list(programs.PROGRAMS)
    work = [(names[k % len(names)], args.seed + k // len(names)) for k in range(args.count)]
    chunks = [(work[k : k + 24], args.llvm) for k in range(0, len(work), 24)]
    total = Tally()
    pool = ProcessPoolExecutor(args.jobs) if args.jobs > 1 else None
    for part in pool.map(_many, chunks) if pool else map(_many, chunks):
        total.add(part)
        if len(total.failures) >= args.stop or time.perf_counter() - start > args.seconds:
            break
    if pool:
        pool.shutdown(cancel_futures=True)
    print(total.text(), f"\n{time.perf_counter() - start:.0f} s, seed {args.seed}")
    return len(total.failures)


if __name__ == "__main__":
    sys.exit(main())
