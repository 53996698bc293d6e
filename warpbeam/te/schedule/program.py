"""The unscheduled program of a te schedule, and where each stage stands in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from warpbeam.te.create import Names, _Creator
from warpbeam.te.schedule.errors import require
from warpbeam.te.schedule.roots import is_placeholder
from warpbeam.te.tensor import Tensor
from warpbeam.tir.expr import Buffer, Var
from warpbeam.tir.stmt import PrimFunc

if TYPE_CHECKING:
    from warpbeam.te.schedule.schedule import Schedule


def legal(name: str) -> str:
    """A name that every backend can print: `i.outer` becomes `i_outer`."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    return f"_{plain}" if plain[0].isdigit() else plain


class _LegalNames(Names):
    def fresh(self, base: str) -> str:
        return super().fresh(legal(base))


class Program(_Creator):
    """The naive program over the edited dataflow, with parameters in the order of the arguments."""

    def __init__(self, sch: Schedule, args: Sequence[Any], name: str, binds: Mapping[Tensor, Buffer] | None) -> None:
        self.sch = sch
        self.given = {sch.tensor(t): b for t, b in (binds or {}).items()}
        self.order_of_args: list[Any] = []
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        owner = {b: t for t, b in self.given.items()}
        for a in args:
            a = owner.get(a, a) if isinstance(a, Buffer) else a
            if isinstance(a, Tensor):
                t = sch.tensor(a) if a in sch else a
                (inputs if is_placeholder(t.op) else outputs).append(t)
                self.order_of_args.append(t)
            else:
                require(
                    isinstance(a, Buffer | Var),
                    f"an argument of {name} is a {type(a).__name__}",
                    hint="arguments are tensors, buffers and variables",
                )
                self.order_of_args.append(a)
        super().__init__(inputs, outputs, name)
        self.buffer_names, self.loop_names, self.block_names = _LegalNames(), _LegalNames(), _LegalNames()
        for b in (*self.given.values(), *(a for a in self.order_of_args if isinstance(a, Buffer))):
            self.buffer_names.fresh(b.name)

    def _buffer(self, t: Tensor) -> Buffer:
        bound = self.given.get(t)
        return super()._buffer(t) if bound is None else bound

    def function(self) -> PrimFunc:
        """The program; sizes that no argument names come last."""
        func = self.build()
        at = {t: self.buffers[t] for t in (*self.inputs, *self.outputs)}
        params: list[Any] = [at[a] if isinstance(a, Tensor) else a for a in self.order_of_args]
        known = set(params)
        params += [p for p in func.params if p not in known]
        return PrimFunc(func.name, params, func.body, func.attrs)
