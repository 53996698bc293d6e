"""Calls that no schedule may accept, drawn at random for whatever the program looks like by then."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import schedule_programs as programs

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.analysis.access import as_block, binding_vars, is_param, read, readers, written
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import SeqStmt

Call = Callable[[], Any]


def buffer_names(s: Schedule) -> list[str]:
    return list(tree_of(s.func).buffers)


def _wide(s: Schedule) -> list[str]:
    """Buffers with more than one element in the last dimension."""
    return [n for n, b in tree_of(s.func).buffers.items() if b.shape[-1] != 1]


def _pick(rng: random.Random, found: list[Any]) -> Any:
    return rng.choice(found) if found else None


def _reduce_loops(s: Schedule) -> list[str]:
    tree = tree_of(s.func)
    return [
        f.var.name for p in tree.blocks.values() for f in p.loops()
        if f.var in binding_vars(as_block(p), "reduce") and s.extent(f.var.name) != 1
    ]  # fmt: skip


def _ordered_loops(s: Schedule) -> list[str]:
    tree = tree_of(s.func)
    return [
        f.var.name for p in tree.blocks.values() for f in p.loops() if f.var in binding_vars(as_block(p), "ordered")
    ]


def _outputs(s: Schedule) -> list[str]:
    tree = tree_of(s.func)
    return [n for n, p in tree.blocks.items() if any(is_param(tree, b) for b in written(as_block(p)))]


def _at_once(s: Schedule, rng: random.Random, loops: list[str]) -> Call | None:
    loop, how = _pick(rng, loops), rng.choice(["parallel", "vectorize", "bind"])
    if loop is None:
        return None
    return (lambda: s.bind(loop, "blockIdx.x")) if how == "bind" else (lambda: getattr(s, how)(loop))


def _outside_consumer(s: Schedule, rng: random.Random) -> Call | None:
    """compute_at inside a loop that not all readers are in."""
    tree = tree_of(s.func)
    found = []
    for name, p in tree.blocks.items():
        for b in written(as_block(p)):
            users = [q for q in readers(tree, b) if q is not p]
            found += [(name, k) for k, t in tree.loops.items() if users and not all(q.within(t) for q in users)
                      and not p.within(t)]  # fmt: skip
    picked = _pick(rng, found)
    return None if picked is None else lambda: s.compute_at(*picked)


def _place_output(s: Schedule, rng: random.Random) -> Call | None:
    found = [(b, n) for b in _outputs(s) for n in s.loop_names() if n not in s.loops(b)]
    picked = _pick(rng, found)
    return None if picked is None else lambda: s.compute_at(*picked)


def _unread(s: Schedule, rng: random.Random) -> Call | None:
    tree = tree_of(s.func)
    found = [(n, b) for n, p in tree.blocks.items() for b in tree.buffers
             if b not in {x.name for x in read(as_block(p), own=True)}]  # fmt: skip
    picked = _pick(rng, found)
    return None if picked is None else lambda: s.cache_read(picked[0], picked[1], "global")


def _not_nested(s: Schedule, rng: random.Random) -> Call | None:
    tree = tree_of(s.func)
    a, b = rng.choice(list(tree.loops)), rng.choice(list(tree.loops))
    if tree.loops[b].parent is tree.loops[a]:
        return None
    return lambda: s.fuse(a, b)


def _reductions(s: Schedule) -> list[str]:
    return [n for n, p in tree_of(s.func).blocks.items() if any(a.kind == "reduce" for a in as_block(p).axes)]


def _spatial_only(s: Schedule) -> list[str]:
    carrying = set(_reduce_loops(s))
    tree = tree_of(s.func)
    small = {
        f.var.name for p in tree.blocks.values() for f in p.loops() if f.var in binding_vars(as_block(p), "reduce")
    }
    return [n for n in tree.loops if n not in carrying | small]


def _block_call(s: Schedule, rng: random.Random, names: list[str], call: Callable[[str], Any]) -> Call | None:
    name = _pick(rng, names)
    return None if name is None else lambda: call(name)


KINDS: dict[str, Callable[[Schedule, random.Random], Call | None]] = {
    "reduction at once": lambda s, r: _at_once(s, r, _reduce_loops(s)),
    "ordered at once": lambda s, r: _at_once(s, r, _ordered_loops(s)),
    "inline a reduction": lambda s, r: _block_call(s, r, _reductions(s), s.compute_inline),
    "inline an output": lambda s, r: _block_call(s, r, _outputs(s), s.compute_inline),
    "place an output": lambda s, r: _place_output(s, r),
    "leave a consumer out": _outside_consumer,
    "cache what is not read": _unread,
    "fuse what is not nested": _not_nested,
    "rfactor a spatial loop": lambda s, r: _block_call(s, r, _spatial_only(s), s.rfactor),
    "decompose no reduction": lambda s, r: _block_call(
        s, r, [b for b in s.blocks() if b not in _reductions(s)], lambda b: s.decompose_reduction(b, s.loops(b)[0])
    ),
    "split by nothing": lambda s, r: lambda: s.split(r.choice(s.loop_names()), r.choice([[], [0, None], [None, None]])),
    "split too small": lambda s, r: _too_small(s, r),
    "no such loop": lambda s, r: lambda: s.unroll("nowhere"),
    "no such block": lambda s, r: lambda: s.compute_inline("nobody"),
    "no such scope": lambda s, r: lambda: s.cache_write(r.choice(s.blocks()), "moon"),
    "a loop twice": lambda s, r: _block_call(s, r, s.loop_names(), lambda n: s.reorder(n, n)),
    "partition outside": lambda s, r: _block_call(s, r, s.loop_names(), lambda n: s.partition(n, 100_000)),
    "layout not injective": lambda s, r: _block_call(
        s, r, _wide(s), lambda b: s.transform_layout(b, lambda *i: (*i[:-1], i[-1] // 2))
    ),
    "scope of a parameter": lambda s, r: _block_call(s, r, _outputs(s), lambda b: s.set_scope(b, "shared")),
    "double buffer an output": lambda s, r: _block_call(s, r, _outputs(s), s.double_buffer),
    "rolling output": lambda s, r: _block_call(s, r, _outputs(s), s.rolling_buffer),
    "pipeline of a wrong length": lambda s, r: _block_call(s, r, s.loop_names(), lambda n: s.pipeline(n, (0,) * 17)),
    "clone for a stranger": lambda s, r: _block_call(s, r, s.blocks(), lambda b: s.clone(b, b)),
    "compute_root of an output": lambda s, r: lambda: s.compute_root("nobody"),
    "merge a loop with itself": lambda s, r: _block_call(s, r, s.loop_names(), lambda n: s.merge(n, n)),
    "no such note": lambda s, r: _block_call(s, r, s.loop_names(), lambda n: s.unannotate(n, "nothing")),
    "align the last axis": lambda s, r: _block_call(s, r, s.blocks(), lambda b: s.storage_align(b, 17, 8)),
    "split a fast loop": lambda s, r: _block_call(
        s, r, [n for n in s.loop_names() if s.loop(n).kind != "serial"], lambda n: s.split(n, [None, 2])
    ),
    "unknown pragma": lambda s, r: _block_call(s, r, s.loop_names(), lambda n: s.pragma(n, "magic", 1)),
    "tensorize by integers": lambda s, r: _block_call(s, r, s.loop_names(), lambda n: s.tensorize(n, INTEGERS)),
    "stages that start late": lambda s, r: _block_call(s, r, s.loop_names(), lambda n: s.pipeline(n, _late(s, n))),
    "fetch what nothing touches": lambda s, r: _fetch(s, r),
    "place where it is already": lambda s, r: _block_call(
        s, r, [b for b in s.blocks() if s.loops(b)], lambda b: s.reverse_compute_at(b, s.loops(b)[0])
    ),
    "pad what is no einsum": lambda s, r: _block_call(s, r, s.blocks(), lambda b: s.pad_einsum(b, [2] * 17)),
}


INTEGERS = "avx512vnni.u8s8s32"  # no program here has bytes


def _late(s: Schedule, loop: str) -> tuple[int, ...]:
    body = s.loop(loop).body
    return (1,) * (len(body.stmts) if isinstance(body, SeqStmt) else 1)


def _fetch(s: Schedule, rng: random.Random) -> Call | None:
    tree = tree_of(s.func)
    found = [
        (n, b)
        for n, p in tree.loops.items()
        for b in tree.buffers
        if all(b not in {x.name for x in (*read(as_block(q)), *written(as_block(q)))} for q in tree.blocks_below(p))
    ]
    picked = _pick(rng, found)
    return None if picked is None else lambda: s.prefetch(*picked)


def _too_small(s: Schedule, rng: random.Random) -> Call | None:
    found = [n for n in s.loop_names() if (s.extent(n) or 0) > 6]
    return _block_call(s, rng, found, lambda n: s.split(n, [2, 3]))


def run_many(count: int, seed: int) -> tuple[str, int]:
    """Draws illegal calls on partly scheduled programs; gives a report and the number that were accepted."""
    from random_schedules import sequence

    tally: Counter[str] = Counter()
    accepted: list[str] = []
    rng = random.Random(seed)
    names = list(programs.PROGRAMS)
    k = 0
    while sum(tally.values()) < count:
        name = names[k % len(names)]
        s, _ = sequence(name, seed + k, length=rng.choice([0, 0, 3, 6]))
        k += 1
        for kind in rng.sample(list(KINDS), 16):
            call = KINDS[kind](s, rng)
            if call is None:
                continue
            before = s.func
            tally[kind] += 1
            try:
                call()
            except ScheduleError as refused:
                if s.func is not before or not str(refused):
                    accepted.append(f"{name} {seed + k - 1}: {kind}: changed the program")
            else:
                accepted.append(f"{name} {seed + k - 1}: {kind}: {s.trace[-1] if s.trace else ''}")
                s.func = before
                s.trace.pop()
    lines = [f"{sum(tally.values())} illegal calls, {len(accepted)} accepted", *accepted[:20]]
    lines += [f"  {kind:28} {tally[kind]:6}" for kind in KINDS]
    return "\n".join(lines), len(accepted)
