"""One operation of a schedule: what its loops are to be, and where it is computed.

Nothing here touches a program. A stage keeps what was asked for, in order, and `lower` does it later, consumers first:
so a producer's splits act on whatever extents its consumers turn out to need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.te.schedule import axis as ax
from warpbeam.te.schedule.annotate import Annotations
from warpbeam.te.schedule.axis import Axis, IterVarAttr, iter_type, kind_name, name_of
from warpbeam.te.schedule.errors import require
from warpbeam.te.schedule.inverse import inverse
from warpbeam.te.schedule.relayout import AXIS_SEPARATOR, final_indices
from warpbeam.te.schedule.roots import root_axes
from warpbeam.te.tensor import ComputeOp
from warpbeam.tir.expr import as_expr, const_int

GROUP_ROOT, INLINE, SCOPE, SCAN_UPDATE = 1, 2, 4, 5  # the numbers of the classic API (3 is not used)
_SPLITTABLE = (ax.DATA_PAR, ax.COMM_REDUCE, ax.ORDERED)
_REORDERABLE = (ax.DATA_PAR, ax.COMM_REDUCE, ax.THREAD_INDEX)


class Stage(Annotations):
    """The schedule of one operation (or, with op None, of a group of stages).

    `leaf_iter_vars` are its loops, outer to inner; `relations` say how they came from `op.axis` and `op.reduce_axis`.
    """

    def __init__(self, op: Any) -> None:
        self.op = op
        self.origin_op = op
        self.scope = ""
        self.is_output = False
        self.group: Stage | None = None
        self.num_child_stages = 0
        self.attach_type = GROUP_ROOT
        self.attach_stage: Stage | None = None
        self.attach_ivar: Any = None
        self.env_thread_axes: list[Any] = []
        self.store_predicate: Any = None
        self.double_buffer_on = False
        self.rolling_buffer_on = False
        self.layout: tuple[int, ...] = ()  # where transform_layout put axis separators
        self.reset(op)

    def reset(self, op: Any) -> None:
        """Another operation, whose axes nothing was done to yet."""
        self.op = op
        self.all_iter_vars: list[Any] = [] if op is None else root_axes(op)
        self.leaf_iter_vars: list[Any] = list(self.all_iter_vars)
        self.relations: list[ax.Relation] = []
        self.history: list[ax.Relation | ax.Order] = []  # relations and reorderings, in the order of their calls
        self.iter_var_attrs: dict[Any, IterVarAttr] = {}

    def __repr__(self) -> str:
        return f"stage({'group' if self.op is None else self.op.name})"

    @property
    def is_scheduled(self) -> bool:
        """Whether anything was asked of the stage's loops or place."""
        return bool(self.relations) or self.attach_type != GROUP_ROOT or bool(self.history)

    # ------------------------------------------------------------------------------------------------------------ axes

    def leaf(self, axis: Any) -> int:
        """The position of an axis among the leaves."""
        for k, leaf in enumerate(self.leaf_iter_vars):
            if leaf is axis:
                return k
        name = name_of(axis)
        gone = any(a is axis for a in self.all_iter_vars)
        require(
            False,
            f"Operate on iter var {name} that {'has already been split' if gone else 'is not part of the schedule'}",
            hint=f"the loops of {self!r} are {[name_of(a) for a in self.leaf_iter_vars]}",
        )
        return -1

    def _relate(self, relation: ax.Relation, new: Sequence[Axis]) -> None:
        self.relations.append(relation)
        self.history.append(relation)
        self.all_iter_vars.extend(new)

    def split(
        self, parent: Any, factor: Any = None, nparts: Any = None, disable_predication: bool = False
    ) -> tuple[Axis, Axis]:
        """Two nested loops in place of one; gives (outer, inner).

        factor: iterations of the inner loop; the outer has ceildiv(extent, factor). nparts: iterations of the outer
        one. Where the extent is no multiple the iterations beyond it are skipped under a `likely` condition; with
        disable_predication the caller answers for there being none.
        """
        require(factor is None or nparts is None, "Do not need to provide both outer and nparts")
        require(factor is not None or nparts is not None, "Either nparts or factor need to be provided")
        size = const_int(factor if nparts is None else nparts)
        require(size is None or size > 0, f"Cannot split by {size}", hint="use a positive number of iterations")
        require(iter_type(parent) in _SPLITTABLE, f"Cannot split on {kind_name(parent)}")
        at = self.leaf(parent)
        outer = ax.new_axis(f"{parent.var.name}.outer", iter_type(parent))
        inner = ax.new_axis(f"{parent.var.name}.inner", iter_type(parent))
        self.leaf_iter_vars[at : at + 1] = [outer, inner]
        self._relate(ax.Split(parent, outer, inner, factor, nparts, not disable_predication), (outer, inner))
        return outer, inner

    def fuse(self, *args: Any) -> Any:
        """One loop in place of consecutive nested ones; of no axes, an axis of one iteration in front of all others."""
        axes = list(args[0]) if len(args) == 1 and isinstance(args[0], list | tuple) else list(args)
        if not axes:
            single = Axis("singleton", "spatial", 1)
            self.leaf_iter_vars.insert(0, single)
            self._relate(ax.Singleton(single), (single,))
            return single
        self._check_fuse(axes)
        fused = axes[0]
        for axis in axes[1:]:
            fused = self._fuse(fused, axis)
        return fused

    def _check_fuse(self, axes: list[Any]) -> None:
        for a in axes:
            require(iter_type(a) in _SPLITTABLE, f"Cannot fuse {kind_name(a)}")
        places = [self.leaf(a) for a in axes]
        low = high = places[0]
        for p in places[1:]:
            require(
                p in (high + 1, low - 1),
                "Can only fuse iterations that are consecutive between each other",
                hint=f"reorder them first; the loops are {[name_of(a) for a in self.leaf_iter_vars]}",
            )
            low, high = min(low, p), max(high, p)

    def _fuse(self, outer: Any, inner: Any) -> Axis:
        at, below = self.leaf(outer), self.leaf(inner)
        if below + 1 == at:
            outer, inner, at = inner, outer, below
        kind = max(iter_type(outer), iter_type(inner))
        fused = ax.new_axis(f"{outer.var.name}.{inner.var.name}.fused", kind)
        self.leaf_iter_vars[at : at + 2] = [fused]
        self._relate(ax.Fuse(outer, inner, fused), (fused,))
        return fused

    def reorder(self, *args: Any) -> None:
        """The given loops in this order, at the places that they have among the others."""
        for a in args:
            require(iter_type(a) in _REORDERABLE, f"Cannot reorder IterVar({kind_name(a)})")
        places = [self.leaf(a) for a in args]
        require(len(set(places)) == len(places), "Same axis can not appear more than once")
        leaves = list(self.leaf_iter_vars)
        for at, axis in zip(sorted(places), args, strict=True):
            leaves[at] = axis
        self.leaf_iter_vars = leaves
        self.history.append(ax.Order(list(leaves)))

    def tile(self, x_parent: Any, y_parent: Any, x_factor: Any, y_factor: Any) -> tuple[Axis, Axis, Axis, Axis]:
        """Splits two loops and gives (x_outer, y_outer, x_inner, y_inner), nested in this order."""
        self.leaf(x_parent), self.leaf(y_parent)
        require(x_parent is not y_parent, "Same axis can not appear more than once")
        for size in (x_factor, y_factor):
            n = const_int(size)
            require(n is None or n > 0, f"Cannot split by {n}", hint="use a positive number of iterations")
        for a in (x_parent, y_parent):
            require(iter_type(a) in _SPLITTABLE, f"Cannot split on {kind_name(a)}")
        x_outer, x_inner = self.split(x_parent, x_factor)
        y_outer, y_inner = self.split(y_parent, y_factor)
        self.reorder(x_outer, y_outer, x_inner, y_inner)
        return x_outer, y_outer, x_inner, y_inner

    def transform_layout(self, mapping_function: Callable[..., Any]) -> list[Axis]:
        """Stores the result by an index map and loops over the new dimensions; gives the new axes.

        The map takes one index per dimension of the result and returns the new ones, te.AXIS_SEPARATOR among them where
        dimensions end that flatten into one of physical memory. It must be invertible. Of an output it changes the
        parameter: callers pass an array of the new shape.
        """
        require(isinstance(self.op, ComputeOp), "Can only transform the layout of a ComputeOp")
        spatial = list(self.op.axis)
        indices = final_indices(mapping_function, spatial)
        places = [self.leaf(a) for a in spatial]
        require(
            bool(places) and sorted(places) == list(range(min(places), min(places) + len(places))),
            "Cannot transform the layout where the axes of the result are not consecutive loops",
            hint="transform the layout before splitting and reordering",
        )
        values = tuple(i for i in indices if i is not AXIS_SEPARATOR)
        new = [Axis(f"axis{k}") for k in range(len(values))]
        inverse(values, {a.var: as_expr(a.extent) for a in spatial}, [a.var for a in new])
        self.leaf_iter_vars[min(places) : min(places) + len(places)] = new
        self.layout = tuple(i - k for k, i in enumerate(j for j, v in enumerate(indices) if v is AXIS_SEPARATOR))
        self._relate(ax.Transform(spatial, new, values), new)
        return new

    # ----------------------------------------------------------------------------------------------------------- place

    def compute_at(self, parent: Stage, scope: Any) -> Stage:
        """Computes the stage inside a loop of another: in each iteration the part that this iteration needs."""
        require(isinstance(parent, Stage), "compute_at takes a stage and one of its axes", hint="use s[C], not C")
        require(self.attach_type != SCAN_UPDATE, "Cannot specify compute_at for scan updates")
        if self.group is not None:
            around = parent.group
            while around is not None and around is not self.group:
                around = around.group
            require(around is self.group, "Can only assign compute_at to stages within the same group")
        require(
            any(a is scope for a in parent.leaf_iter_vars),
            f"Cannot find the axis {name_of(scope)} in parent's leaf_iter_vars",
            hint=f"the loops of {parent!r} are {[name_of(a) for a in parent.leaf_iter_vars]}",
        )
        require(parent is not self, f"Cannot compute {self!r} inside itself")
        self.attach_type, self.attach_stage, self.attach_ivar = SCOPE, parent, scope
        return self

    def compute_inline(self) -> Stage:
        """The stage's expression takes the place of every read of its result."""
        require(self.attach_type != SCAN_UPDATE, "Cannot specify compute_at for scan updates")
        self.attach_type, self.attach_stage, self.attach_ivar = INLINE, None, None
        return self

    def compute_root(self) -> Stage:
        """The stage's own loops at the root of its group; how every stage starts."""
        require(self.attach_type != SCAN_UPDATE, "Cannot specify compute_at for scan updates")
        self.attach_type, self.attach_stage, self.attach_ivar = GROUP_ROOT, None, None
        return self

    def attach_spec(self) -> Stage:
        """The stage or group whose attachment decides where this one is computed."""
        spec: Stage = self
        while spec.attach_type == GROUP_ROOT and spec.group is not None:
            spec = spec.group
        return spec
