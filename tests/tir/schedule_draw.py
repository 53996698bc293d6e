"""One random step of a random schedule: most arguments are drawn where the step can apply, the others blindly."""

from __future__ import annotations

import contextlib
import functools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from warpbeam import te
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.te.create import create_prim_func
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import as_block, as_loop, binding_vars, carries, is_param, read, writers, written
from warpbeam.tir.analysis.tree import Place, Tree, tree_of
from warpbeam.tir.expr import Buffer, BufferLoad, Ramp, const_int
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import Block, BufferStore, For, SeqStmt
from warpbeam.tir.tensor_intrin import TensorIntrin

SPLITS = ([None, 2], [None, 3], [None, 4], [3, None], [None, 2, 2], [2, None, 3], [None, 8], [1, None])
SCOPES = ("global", "local", "shared")
THREADS = ("blockIdx.x", "blockIdx.y", "threadIdx.x", "threadIdx.y", "vthread")
GUIDED = 0.8  # of the draws look for a place where the step can apply


class Mismatch(AssertionError):
    """A result that differs from the unscheduled program's, or a refused step that changed something."""


@dataclass
class Draw:
    """Random choices of blocks, loops and buffers of the program as it is now; counts what is accepted."""

    s: Schedule
    rng: random.Random
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def call(self, name: str, *args: Any, **keys: Any) -> Any:
        """One primitive; ScheduleError where it is refused, after a look at whether it left the program alone."""
        before, steps = self.s.func, len(self.s.trace)
        label = "split_guard" if name == "split" and keys.get("guard") else name
        try:
            made = getattr(self.s, name)(*args, **keys)
        except ScheduleError:
            self.refused[label] += 1
            if self.s.func is not before or len(self.s.trace) != steps:
                raise Mismatch(f"a refused {name} changed the program") from None
            raise
        self.accepted[label] += 1
        return made

    # ------------------------------------------------------------------------------------------------------- choices

    @property
    def tree(self) -> Tree:
        return tree_of(self.s.func)

    def chance(self, part: float) -> bool:
        return self.rng.random() < part

    def pick(self, found: list[Any], blind: Callable[[], Any]) -> Any:
        """One of what was found, or, where there is nothing and now and then anyway, a blind choice."""
        return self.rng.choice(found) if found and self.chance(GUIDED) else blind()

    def block(self, wanted: Callable[[Place], bool] | None = None) -> str:
        found = [] if wanted is None else [n for n, p in self.tree.blocks.items() if wanted(p)]
        return self.pick(found, lambda: self.rng.choice(self.s.blocks()))

    def loop(self, block: str | None = None, wanted: Callable[[Place], bool] | None = None) -> str:
        if wanted is not None:
            found = [n for n, p in self.tree.loops.items() if wanted(p)]
            return self.pick(found, self.loop)
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
        return self.rng.choice(list(self.tree.buffers))

    def read_by(self, block: str) -> str:
        """A buffer that a block reads."""
        found = [b.name for b in read(self.s_block(block), own=False)]
        return self.pick(found, self.buffer)

    def s_block(self, name: str) -> Any:
        return as_block(self.tree.block(name))

    def own(self, p: Place) -> bool:
        """Whether a block has one result, which is no parameter."""
        made = written(as_block(p))
        return len(made) == 1 and not is_param(self.tree, made[0])

    def with_consumer(self, p: Place) -> bool:
        """Whether a block has one result of its own and a consumer inside the same loops."""
        mine = self.s.loops(as_block(p).name)
        users = self.s.get_consumers(as_block(p).name)
        return self.own(p) and bool(mine) and any(self.s.loops(u)[:1] == mine[:1] for u in users)

    def pairs(self, up: bool) -> list[tuple[str, str]]:
        """(producer, loop of a consumer), or with `up` (consumer, loop of a producer outside its reduction)."""
        found = []
        for name in self.s.blocks():
            others = self.s.get_producers(name) if up else self.s.get_consumers(name)
            for other in others[:1]:
                block, around = self.s_block(other), self.tree.block(other).loops()
                if up:
                    around = around[: next((k for k, f in enumerate(around) if carries(block, f.var)), None)]
                mine = self.s.loops(name)
                found += [(name, f.var.name) for f in around if f.var.name not in mine]
        return found


def reduces(p: Place) -> bool:
    return any(a.kind == "reduce" for a in as_block(p).axes)


def carrying(p: Place) -> bool:
    """Whether a loop carries a reduction only."""
    loop = as_loop(p)
    stmt: Any = loop.body
    while isinstance(stmt, For):
        stmt = stmt.body
    return isinstance(stmt, Block) and loop.var in binding_vars(stmt, "reduce") - binding_vars(stmt, "spatial")


# ---------------------------------------------------------------------------------------------------------- intrinsics


@functools.cache
def intrinsics() -> tuple[TensorIntrin, ...]:
    """Instructions over four floats, or four by three, that fit copies, maps and sums of products."""
    found = []
    maps: dict[str, tuple[int, Callable[..., Any]]] = {
        "copy4": (1, lambda a: a), "twice4": (1, lambda a: a * 2.0), "next4": (1, lambda a: a + 1.0),
        "relu4": (1, lambda a: e.maximum(a, e.const(0.0, a.dtype))), "add4": (2, lambda a, b: a + b),
        "minus4": (2, lambda a, b: a - b),
    }  # fmt: skip
    for name, (count, fn) in maps.items():
        ins = [te.placeholder((4,), name=f"A{k}") for k in range(count)]
        out = te.compute((4,), lambda i, fn=fn, ins=ins: fn(*[x[i] for x in ins]), name="B")
        meaning = create_prim_func(ins, [out], name)
        buffers = [Buffer(b.name, b.shape, b.dtype) for b in meaning.buffers]
        at = (Ramp(e.const(0), e.const(1), 4),)
        if name == "relu4":
            value = e.maximum(BufferLoad(buffers[0], at), e.const(0.0, "float32x4"))
        elif count == 1 and name != "copy4":
            number = e.Broadcast(e.const(2.0 if name == "twice4" else 1.0, "float32"), 4)
            load = BufferLoad(buffers[0], at)
            value = load * number if name == "twice4" else load + number
        else:
            value = fn(*[BufferLoad(b, at) for b in buffers[:-1]])
        found.append(TensorIntrin(name, meaning, tuple(buffers), BufferStore(buffers[-1], value, at)))
    return tuple(found)


TILES = ("fma.f32.1x4.v4", "fma.f32.2x4.v4", "fma.f32.3x4.v4", "fma.f32.1x8.v8", "fma.f32.1x2.v2", "fma.f32.1x6.v2")


def _tensorize(d: Draw) -> Any:
    """Four iterations of a loop, innermost, become an instruction."""
    lanes = [n for n, p in d.tree.loops.items() if _lanes(p)]
    if lanes and d.chance(0.7):
        loop = d.rng.choice(lanes)
        loop = d.call("split", loop, [None, 4])[1] if d.s.extent(loop) != 4 else loop
        below = d.tree.blocks_below(d.tree.loop(loop))
        if len(below) == 1:
            around = d.s.loops(as_block(below[0]).name)
            if around[-1] != loop and d.chance(0.8):
                d.call("reorder", *around[around.index(loop) + 1 :], loop)
    else:
        loop = d.loop()
    intrins = [*intrinsics(), *TILES]
    for intrin in d.rng.sample(intrins, len(intrins)):
        try:
            return d.call("tensorize", loop, intrin)
        except ScheduleError:
            d.refused["tensorize"] -= 1
    return d.call("tensorize", loop, "fma.f32.1x4.v4")


def _lanes(p: Place) -> bool:
    f = as_loop(p)
    count = const_int(f.extent)
    return f.kind == "serial" and count is not None and count % 4 == 0


# --------------------------------------------------------------------------------------------------------------- steps


def _cache_read(d: Draw) -> Any:
    block = d.block(lambda p: bool(read(as_block(p))))
    readers = [d.block()] if d.chance(0.1) else []
    return d.call("cache_read", block, d.read_by(block), d.rng.choice(SCOPES), readers)


def _layout(d: Draw) -> Any:
    maps: list[Callable[..., Any]] = [
        lambda *i: (i[-1] // 4, *i[:-1], i[-1] % 4),
        lambda *i: i[::-1],
        lambda *i: (*i[:-1], i[-1] // 3, i[-1] % 3),
        lambda *i: (*i[:-1], i[-1] + 2),
    ]
    return d.call("transform_layout", d.buffer(), d.rng.choice(maps))


def _pad(d: Draw) -> Any:
    block = d.block(lambda p: reduces(p) and as_block(p).init is not None)
    return d.call("pad_einsum", block, [d.rng.choice([1, 2, 4, 5]) for _ in d.s_block(block).axes])


def _rescale(d: Draw) -> Any:
    """Brings sums together with the maximum that their weights need, mostly where there are such."""
    powers = [
        n for n, p in d.tree.blocks.items() if getattr(getattr(as_block(p).body, "value", None), "op", "") == "exp"
    ]
    weights = d.pick(powers, d.block)
    sums = d.s.get_consumers(weights)
    top = d.pick([n for n in d.s.get_producers(weights) if reduces(d.tree.block(n))], d.block)
    return d.call("rescale", top, weights, sums if d.rng.random() < 0.9 else sums[:1])


def _skip(d: Draw) -> Any:
    """Skips what lies in a border, mostly for a sum that reads one."""

    def border(b: Buffer) -> bool:
        made = [as_block(p).body for p in writers(d.tree, b)]
        return any(isinstance(x, BufferStore) and getattr(x.value, "op", "") == "if_then_else" for x in made)

    found = [(n, b) for n, p in d.tree.blocks.items() if reduces(p) for b in read(as_block(p)) if border(b)]
    block, buffer = d.pick([(n, b.name) for n, b in found], lambda: (d.block(), d.buffer()))
    if d.s_block(block).init is not None:
        carrying = [n for n in d.s.loops(block) if carries(d.s_block(block), d.s.loop(n).var)]
        d.call("decompose_reduction", block, carrying[0] if carrying else d.loop(block))
    dims = sorted(d.rng.sample(range(4), d.rng.choice([1, 2])))
    loops = list(d.s.loops(block)) if d.rng.random() < 0.3 else []
    return d.call("skip_zeros", block, buffer, dims, *([d.rng.sample(loops, 1)] if loops else []))


def _merge(d: Draw) -> Any:
    found = []
    for a, p in d.tree.loops.items():
        for b, q in d.tree.loops.items():
            alike = p.parent is not None and q.parent is p.parent and q.index == p.index + 1
            if alike and const_int(as_loop(p).extent) == const_int(as_loop(q).extent):
                found.append([a, b])
    return d.call("merge", *d.pick(found, lambda: list(dict.fromkeys((d.loop(), d.loop())))))


def _tile(d: Draw) -> Any:
    """Two directly nested loops as tiles."""
    found = [[n, as_loop(p).body.var.name] for n, p in d.tree.loops.items()
             if isinstance(as_loop(p).body, For)]  # fmt: skip
    x, y = d.pick(found, lambda: [*d.nested(2), "", ""][:2])
    return d.call("tile", x, y, d.rng.choice([2, 3, 4]), d.rng.choice([2, 3, 4]))


def _stages(d: Draw, loop: str) -> tuple[int, ...]:
    body = as_loop(d.tree.loop(loop)).body
    stages = [0]
    for _ in range(len(body.stmts) - 1 if isinstance(body, SeqStmt) else d.rng.randrange(3)):
        stages.append(stages[-1] + (d.rng.random() < 0.6))
    return tuple(stages)


def _pipeline(d: Draw) -> Any:
    loop = d.loop(wanted=lambda p: isinstance(as_loop(p).body, SeqStmt) and as_loop(p).kind == "serial")
    return d.call("pipeline", loop, _stages(d, loop))


def _staged(d: Draw) -> Any:
    """A copy inside a loop of its consumer, and then something that wants one."""
    block = d.block(lambda p: bool(read(as_block(p))))
    copy = d.call("cache_read", block, d.read_by(block), d.rng.choice(SCOPES))
    loop = d.loop(block)
    d.call("compute_at", copy, loop, guard=d.chance(0.2))
    then = d.rng.choice(["double_buffer", "rolling_buffer", "pipeline", "pipeline", "storage_align", "fetch", "none"])
    if then == "pipeline":
        return d.call("pipeline", loop, _stages(d, loop))
    if then == "fetch":
        return d.call("prefetch", loop, d.read_by(copy), d.rng.randrange(3))
    if then == "storage_align":
        return d.call("storage_align", copy, 0, d.rng.choice([4, 8]), d.rng.randrange(2))
    return None if then == "none" else d.call(then, copy)


def _prefetch(d: Draw) -> Any:
    loop = d.loop()
    below = d.tree.blocks_below(d.tree.loop(loop)) if loop in d.tree.loops else []
    made = {b for p in below for b in written(as_block(p))}
    found = [b.name for p in below for b in read(as_block(p)) if b not in made]
    through = d.loop() if d.chance(0.4) else ""
    return d.call("prefetch", loop, d.pick(found, d.buffer), d.rng.randrange(3), through)


def _reverse_inline(d: Draw) -> Any:
    def wanted(p: Place) -> bool:
        makers = d.s.get_producers(as_block(p).name)
        return len(makers) == 1 and not reduces(p) and not reduces(d.tree.block(makers[0]))

    return d.call("reverse_compute_inline", d.block(wanted))


def _compute_at(d: Draw) -> Any:
    block, loop = d.pick(d.pairs(False), lambda: (d.block(), d.loop()))
    return d.call("compute_at", block, loop, guard=d.chance(0.4), relax=d.chance(0.3))


def _reverse_compute_at(d: Draw) -> Any:
    return d.call("reverse_compute_at", *d.pick(d.pairs(True), lambda: (d.block(), d.loop())))


def _decompose(d: Draw) -> Any:
    block = d.block(lambda p: as_block(p).init is not None)
    return d.call("decompose_reduction", block, d.loop(block))


def _clone(d: Draw) -> Any:
    block = d.block(lambda p: len(d.s.get_consumers(as_block(p).name)) > 1 and not reduces(p))
    return d.call("clone", block, d.pick(d.s.get_consumers(block), d.block))


def _unannotate(d: Draw) -> Any:
    if d.chance(0.3):
        d.call("annotate", d.loop(), "note", 1)
    return d.call("unannotate", d.loop(wanted=lambda p: "note" in as_loop(p).annotations), "note")


def _align(d: Draw) -> Any:
    block = d.block(d.own)
    dims = len(written(d.s_block(block))[0].shape)
    axis = d.rng.randrange(max(1, dims - 1))
    return d.call("storage_align", block, axis, d.rng.choice([4, 8, 16]), d.rng.randrange(3))


STEPS: dict[str, tuple[float, Callable[[Draw], Any]]] = {
    "split": (4, lambda d: d.call("split", d.loop(), d.rng.choice(SPLITS))),
    "split_guard": (3, lambda d: d.call("split", d.loop(), d.rng.choice(SPLITS), guard=True)),
    "fuse": (3, lambda d: d.call("fuse", *d.nested(2))),
    "reorder": (4, lambda d: d.call("reorder", *d.loops(d.rng.choice([2, 3])))),
    "tile": (0.8, _tile),
    "parallel": (1.5, lambda d: d.call("parallel", d.loop())),
    "vectorize": (1.5, lambda d: d.call("vectorize", d.loop())),
    "unroll": (1, lambda d: d.call("unroll", d.loop())),
    "bind": (1, lambda d: d.call("bind", d.loop(), d.rng.choice(THREADS))),
    "partition": (1.5, lambda d: d.call("partition", d.loop(), d.rng.randrange(5))),
    "merge": (1, _merge),
    "annotate": (0.4, lambda d: d.call("annotate", d.loop(), "note", d.rng.randrange(4))),
    "unannotate": (0.5, _unannotate),
    "pragma": (0.5, lambda d: d.call("pragma", d.loop(), "auto_unroll_max_step", d.rng.choice([0, 4, 16]))),
    "compute_inline": (1, lambda d: d.call("compute_inline", d.block(lambda p: d.own(p) and not reduces(p)))),
    "reverse_compute_inline": (1, _reverse_inline),
    "compute_at": (2.5, _compute_at),
    "compute_root": (0.7, lambda d: d.call("compute_root", d.block())),
    "reverse_compute_at": (2.5, _reverse_compute_at),
    "decompose_reduction": (1, _decompose),
    "rfactor": (1, lambda d: d.call("rfactor", d.loop(wanted=carrying), d.rng.randrange(2))),
    "cache_write": (1, lambda d: d.call("cache_write", d.block(), d.rng.choice(SCOPES))),
    "cache_read": (1, _cache_read),
    "staged": (1.5, _staged),
    "clone": (0.7, _clone),
    "set_scope": (0.5, lambda d: d.call("set_scope", d.block(d.own), d.rng.choice(SCOPES))),
    "storage_align": (0.4, _align),
    "transform_layout": (0.7, _layout),
    "double_buffer": (0.7, lambda d: d.call("double_buffer", d.block(d.with_consumer))),
    "rolling_buffer": (0.7, lambda d: d.call("rolling_buffer", d.block(d.with_consumer))),
    "prefetch": (0.5, _prefetch),
    "diagonal": (0.7, lambda d: d.call("diagonal", *[*d.nested(2), "", ""][:2])),
    "enter": (0.7, lambda d: d.call("enter", d.loop())),
    "alternate": (0.7, lambda d: d.call("alternate", *reversed([*d.nested(2), "", ""][:2]))),
    "pipeline": (0.7, _pipeline),
    "blockize": (0.4, lambda d: d.call("blockize", d.loop())),
    "loop_axes": (0.4, lambda d: d.call("loop_axes", d.block())),
    "pad_einsum": (1, _pad),
    "rescale": (1, _rescale),
    "skip_zeros": (1, _skip),
    "tensorize": (2, _tensorize),
}  # fmt: skip
PRIMITIVES = [name for name in STEPS if name != "staged"]  # what coverage counts


def step(d: Draw) -> None:
    """One draw; what is refused is skipped."""
    name = d.rng.choices(list(STEPS), [w for w, _ in STEPS.values()])[0]
    with contextlib.suppress(ScheduleError):
        STEPS[name][1](d)
