"""The loops of one stage while it is lowered: its relations replayed, its annotations set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from warpbeam.ir.rewrite import substitute
from warpbeam.te.schedule import axis as ax
from warpbeam.te.schedule.errors import ScheduleValueError
from warpbeam.te.schedule.inverse import LoopOverMap
from warpbeam.te.schedule.program import legal
from warpbeam.te.schedule.roots import is_scan
from warpbeam.te.schedule.stage import Stage
from warpbeam.te.schedule.steps import AroundLoop, Note, StoreWhere
from warpbeam.tir.analysis.access import as_block, binding_vars, free_vars, written
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.expr import PrimExpr, Var, const_int
from warpbeam.tir.schedule.layout import to_plain

if TYPE_CHECKING:
    from warpbeam.te.schedule.lower import Walk

_KINDS = {ax.VECTORIZED: "vectorize", ax.UNROLLED: "unroll", ax.PARALLELIZED: "parallel"}


class Loops:
    """`names` maps each axis that is a loop now to the loop's name; `extents` holds every axis that ever was one."""

    def __init__(self, walk: Walk, stage: Stage, names: dict[Any, str], block: str) -> None:
        self.sch, self.stage, self.block, self.threads = walk.sch, stage, block, walk.threads
        self.names = dict(names)
        self._unshare(walk.time_loops)
        self.extents: dict[Any, PrimExpr] = {a: self.sch.loop(n).extent for a, n in self.names.items()}

    def _unshare(self, time_loops: set[str]) -> None:
        """A loop of one iteration for the time of a scan's update, where relations use it: its own is the scan's."""
        self.fixed: set[Any] = set()  # axes that are led by a loop of another stage
        if is_scan(self.stage.op):
            return
        for axis, loop in list(self.names.items()):
            if loop in time_loops and not self._used(axis):
                self.fixed.add(axis)
            elif loop in time_loops:
                inner = [n for n in self.names.values() if n != loop]
                first = min(inner, key=self.sch.loops(self.block).index, default=self.block)
                self.names[axis] = self.sch.step(AroundLoop(first, legal(axis.var.name)))

    def _used(self, axis: Any) -> bool:
        """Whether a relation of the stage takes the axis, or a reordering moves it from its place in front."""
        for r in self.stage.history:
            if isinstance(r, ax.Split) and r.parent is axis:
                return True
            if isinstance(r, ax.Fuse) and (r.outer is axis or r.inner is axis):
                return True
            if isinstance(r, ax.Order) and any(a is axis for a in r.leaves[1:]):
                return True
        return False

    def replay(self) -> None:
        """Splits, fusions and reorderings in the order of their calls."""
        for r in self.stage.history:
            if isinstance(r, ax.Split):
                self._split(r)
            elif isinstance(r, ax.Fuse):
                made = self.sch.fuse(self.names.pop(r.outer), self.names.pop(r.inner), name=legal(r.fused.var.name))
                self._add(r.fused, made)
            elif isinstance(r, ax.Singleton):
                own = [n for a, n in self.names.items() if a not in self.fixed]
                first = min(own, key=self.sch.loops(self.block).index, default=self.block)
                self._add(r.iter, self.sch.step(AroundLoop(first, legal(r.iter.var.name))))
            elif isinstance(r, ax.Order):
                self.sch.reorder(*[self.names[a] for a in r.leaves if a in self.names and a not in self.fixed])
            else:
                self._transform(r)

    def _add(self, axis: Any, loop: str) -> None:
        self.names[axis] = loop
        self.extents[axis] = self.sch.loop(loop).extent

    def _split(self, r: ax.Split) -> None:
        loop = self.names.pop(r.parent)
        given = r.factor if r.nparts is None else r.nparts
        size = const_int(given)
        if size is None:
            raise ScheduleValueError(
                f"split of {r.parent.var.name} by {given}", why="the number of iterations must be known here",
                hint="split by a number; the other loop takes the symbolic extent",
            )  # fmt: skip
        extent = self.sch.extent(loop)
        if extent is not None and 0 < extent < size and not self._threaded(r.outer if r.factor is None else r.inner):
            size = extent
        factors = (None, size) if r.nparts is None else (size, None)
        names = (legal(r.outer.var.name), legal(r.inner.var.name))
        outer, inner = self.sch.split(loop, factors, names, guard=True)
        self._add(r.outer, outer)
        self._add(r.inner, inner)

    def _threaded(self, axis: Any) -> bool:
        """Whether an axis, or one that is made of it, is bound to a thread: then its extent is the thread's."""
        made = {axis}
        for r in self.stage.relations:
            if isinstance(r, ax.Split) and r.parent in made:
                made |= {r.outer, r.inner}
            elif isinstance(r, ax.Fuse) and (r.outer in made or r.inner in made):
                made.add(r.fused)
        attrs = self.stage.iter_var_attrs
        return any(a in attrs and attrs[a].bind_thread is not None for a in made)

    def _transform(self, r: ax.Transform) -> None:
        """The results in the new layout, and loops over its dimensions in place of those over the old ones."""
        names = tuple(self.names.pop(a) for a in r.original)
        if list(names) != sorted(names, key=self.sch.loops(self.block).index):
            self.sch.reorder(*names)
        arguments = tuple(a.var for a in r.original)
        plain = tuple(to_plain(v, list(arguments)) for v in r.index_map)
        for buffer in written(self.sch.block(self.block)):
            self.sch.transform_layout(buffer.name, plain)
        if self.stage.layout:
            self.sch.step(Note(self.block, "axis_separators", self.stage.layout))
        step = LoopOverMap(names, tuple(legal(a.var.name) for a in r.new), arguments, tuple(r.index_map))
        for axis, loop in zip(r.new, self.sch.step(step), strict=True):
            self._add(axis, loop)

    # ------------------------------------------------------------------------------------------------------ annotations

    def annotate(self) -> None:
        """Threads, kinds of loops, pragmas, and the condition of the stores."""
        for axis, loop in self.names.items():
            attr = self.stage.iter_var_attrs.get(axis)
            if attr is None:
                continue
            if attr.bind_thread is not None:
                self.sch.bind(loop, attr.bind_thread.thread_tag)
            elif attr.iter_type in _KINDS:
                getattr(self.sch, _KINDS[attr.iter_type])(loop)
            for key, value in zip(attr.pragma_keys, attr.pragma_values, strict=True):
                self.sch.annotate(loop, f"pragma_{key}", _plain(value))
        if self.stage.store_predicate is not None:
            self._store_predicate(self.stage.store_predicate)

    def _store_predicate(self, cond: PrimExpr) -> None:
        """The condition over the loops that the threads are; on those that reduce, a note for the device."""
        place = tree_of(self.sch.func).block(self.block)
        at: dict[Any, Any] = {}
        for f in place.loops():
            if f.thread:
                at.update(dict.fromkeys(self.threads.get(f.thread, ()), f.var))
        at.update({a.var: self.sch.loop(n).var for a, n in self.names.items()})
        cond = substitute(cond, at)
        block = as_block(place)
        inside = {f.var for f in place.loops()} | {p for p in self.sch.func.params if isinstance(p, Var)}
        strange = [v.name for v in free_vars(cond) if v not in inside]
        if strange:
            raise ScheduleValueError(f"the store predicate of {self.stage!r} depends on {strange}, which are no loops")
        if free_vars(cond) & binding_vars(block, "reduce"):
            self.sch.step(Note(self.block, "store_predicate", cond))
        else:
            self.sch.step(StoreWhere(self.block, cond))


def thread_vars(stages: Sequence[Stage]) -> dict[str, list[Var]]:
    """The variables of all thread axes that a schedule uses, by their tag."""
    found: dict[str, list[Var]] = {}
    for stage in stages:
        bound = [a.bind_thread for a in stage.iter_var_attrs.values() if a.bind_thread is not None]
        for t in (*bound, *stage.env_thread_axes):
            found.setdefault(t.thread_tag, []).append(t.var)
    return found


def _plain(value: Any) -> Any:
    """A pragma's value as a Python number or text; True for none."""
    if value is None:
        return True
    number = const_int(value) if not isinstance(value, str) else None
    return getattr(value, "value", value) if number is None else number
