"""What a stage's loops and result are to be besides their order: threads, vectors, pragmas, memory."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from warpbeam.te.schedule import axis as ax
from warpbeam.te.schedule.axis import IterVarAttr, iter_type, kind_name, name_of
from warpbeam.te.schedule.errors import require
from warpbeam.te.schedule.roots import is_scan
from warpbeam.te.tensor import Tensor
from warpbeam.tir.expr import as_expr, const_int, land

if TYPE_CHECKING:
    from warpbeam.te.schedule.stage import Stage

_VECTORIZABLE = (ax.DATA_PAR, ax.OPAQUE, ax.UNROLLED, ax.VECTORIZED, ax.TENSORIZED, ax.PARALLELIZED)


class Annotations:
    """The primitives of a stage that change no loop structure."""

    op: Any
    scope: str
    is_output: bool
    all_iter_vars: list[Any]
    leaf_iter_vars: list[Any]
    iter_var_attrs: dict[Any, IterVarAttr]
    env_thread_axes: list[Any]
    store_predicate: Any
    double_buffer_on: bool
    rolling_buffer_on: bool

    if TYPE_CHECKING:

        def leaf(self, axis: Any) -> int: ...

    def attr(self, axis: Any) -> IterVarAttr:
        """What is noted for an axis; a new entry where there is nothing yet."""
        found = self.iter_var_attrs.get(axis)
        if found is None:
            found = self.iter_var_attrs[axis] = IterVarAttr(iter_type(axis))
        return found

    def _any_axis(self, axis: Any) -> None:
        require(
            any(a is axis for a in self.all_iter_vars),
            f"Operate on iter var {name_of(axis)} that is not part of the schedule",
        )

    # ---------------------------------------------------------------------------------------------------- kinds of loop

    def bind(self, ivar: Any, thread_ivar: Any) -> None:
        """Runs a loop on a hardware axis made by te.thread_axis."""
        require(iter_type(ivar) in (ax.DATA_PAR, ax.COMM_REDUCE), f"Cannot bind {kind_name(ivar)} to thread")
        require(
            iter_type(thread_ivar) == ax.THREAD_INDEX,
            f"Cannot rebase by {kind_name(thread_ivar)}, only thread axis is allowed so far",
            hint='make one with te.thread_axis("threadIdx.x")',
        )
        self.leaf(ivar)
        attr = self.attr(ivar)
        if attr.bind_thread is not None:
            warnings.warn(
                f"axis {name_of(ivar)} was bound to {name_of(attr.bind_thread)}, now to {name_of(thread_ivar)}",
                stacklevel=2,
            )
        attr.bind_thread = thread_ivar

    def vectorize(self, var: Any) -> None:
        """Iterations become the lanes of vectors."""
        require(iter_type(var) in _VECTORIZABLE, f"Cannot vectorize on {kind_name(var)}")
        self._set_kind(var, ax.VECTORIZED)

    def unroll(self, var: Any) -> None:
        """The loop's body once per iteration."""
        self._set_kind(var, ax.UNROLLED)

    def parallel(self, var: Any) -> None:
        """Iterations run on the threads of the pool."""
        self._set_kind(var, ax.PARALLELIZED)

    def _set_kind(self, axis: Any, kind: int) -> None:
        self.leaf(axis)
        self.attr(axis).iter_type = kind

    def tensorize(self, var: Any, tensor_intrin: Any) -> None:
        """The loops from `var` inwards are done by a tensor intrinsic (te.decl_tensor_intrin)."""
        self.leaf(var)
        attr = self.attr(var)
        attr.iter_type, attr.tensor_intrin = ax.TENSORIZED, tensor_intrin

    def pragma(self, var: Any, pragma_type: str, pragma_value: Any = None) -> None:
        """A hint on a loop: auto_unroll_max_step, unroll_explicit, import_c, import_llvm, …; "unroll" and "vectorize"
        are the primitives of that name."""
        if pragma_type == "unroll":
            self.unroll(var)
        elif pragma_type == "vectorize":
            self.vectorize(var)
        else:
            self.leaf(var)
            attr = self.attr(var)
            attr.pragma_keys.append(str(pragma_type))
            attr.pragma_values.append(pragma_value)

    def prefetch(self, tensor: Tensor, var: Any, offset: Any) -> None:
        """Brings what iteration `var + offset` will read of a tensor towards the cache."""
        require(isinstance(tensor, Tensor), "prefetch takes a tensor, an axis and a distance in iterations")
        self._any_axis(var)
        attr = self.attr(var)
        attr.prefetch_data.append(tensor)
        attr.prefetch_offset.append(offset)

    # ----------------------------------------------------------------------------------------------------------- memory

    def set_scope(self, scope: str) -> Stage:
        """The memory of the result: "global", "shared", "local", "warp", or one of the target's own."""
        require(isinstance(scope, str), f"a storage scope is a name, got {scope!r}")
        self.scope = scope
        return self  # type: ignore[return-value]

    def storage_align(self, axis: Any, factor: int, offset: int) -> None:
        """The distance of two elements along an axis of the result becomes factor * k + offset."""
        self._any_axis(axis)
        number = const_int(factor)
        require(number is not None and number > 0, f"storage_align by {factor}", hint="the factor is a positive number")
        attr = self.attr(axis)
        attr.dim_align_factor, attr.dim_align_offset = int(number or 1), int(const_int(offset) or 0)

    def double_buffer(self) -> None:
        """Two copies of the result: one is filled while the other is read."""
        require(not self.is_output, "Cannot apply double buffer on output", hint="use cache_write and buffer the cache")
        self.double_buffer_on = True

    def rolling_buffer(self) -> None:
        """Keeps of the result what the next iteration still needs, as a window that rolls over the buffer."""
        require(not self.is_output, "Cannot apply rolling buffer on output")
        self.rolling_buffer_on = True

    def env_threads(self, threads: Any) -> None:
        """Launches threads around a whole scan."""
        axes = list(threads) if isinstance(threads, list | tuple) else [threads]
        require(is_scan(self.op), "env_threads is only valid for composite ops such as ScanOp")
        require(not self.env_thread_axes, "Already set env_threads")
        for t in axes:
            require(iter_type(t) == ax.THREAD_INDEX, f"Cannot launch {name_of(t)}, which is no thread axis")
        self.env_thread_axes = axes
        self.leaf_iter_vars[:0] = axes
        self.all_iter_vars.extend(axes)

    def set_store_predicate(self, predicate: Any) -> None:
        """Stores the result only where a condition on thread axes holds."""
        cond = predicate() if callable(predicate) and not hasattr(predicate, "dtype") else predicate
        self.store_predicate = land(as_expr(cond, "bool"))
