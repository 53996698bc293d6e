"""The unscheduled program of a te schedule, and where each stage stands in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from warpbeam.te.create import Conversion, Names, _Creator
from warpbeam.te.schedule.errors import ScheduleValueError, require
from warpbeam.te.schedule.roots import is_placeholder, outputs_of
from warpbeam.te.tensor import Tensor
from warpbeam.tir.expr import Buffer, Var

if TYPE_CHECKING:
    from warpbeam.te.schedule.schedule import Schedule


def legal(name: str) -> str:
    """A name that every backend can print: `i.outer` becomes `i_outer`."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    return f"_{plain}" if plain[0].isdigit() else plain


class _LegalNames(Names):
    def fresh(self, base: str) -> str:
        return super().fresh(legal(base))


def naive_program(sch: Schedule, args: Sequence[Any], name: str, binds: Mapping[Tensor, Buffer] | None) -> Conversion:
    """The program over the edited dataflow: parameters in the order of `args`, every stage in loops of its own."""
    given = {_now(sch, t): b for t, b in (binds or {}).items()}
    listed = [_now(sch, a) if isinstance(a, Tensor) else a for a in args]
    owner = {b: t for t, b in given.items()}
    inputs: dict[Tensor, None] = {}
    outputs: dict[Tensor, None] = {}
    for a in listed:
        require(
            isinstance(a, Tensor | Buffer | Var),
            f"an argument of {name} is a {type(a).__name__}",
            hint="arguments are tensors, buffers and variables",
        )
        t = owner.get(a) if isinstance(a, Buffer) else a
        if isinstance(t, Tensor):
            (inputs if is_placeholder(t.op) else outputs)[t] = None
    for op in sch.outputs:
        outputs.update(dict.fromkeys(outputs_of(sch[op].op)))
    states = {t for s in sch.stages for t in getattr(s.op, "state_placeholder", ())}
    for s in sch.stages:
        if is_placeholder(s.op) and s.op.output(0) not in inputs and s.op.output(0) not in states:
            raise ScheduleValueError(
                f"placeholder {s.op.name} is read by {name} but is not among its arguments",
                hint=f"the arguments are {[getattr(a, 'name', a) for a in args]}",
            )
    inside = {t for t in outputs if not sch[t].is_output}  # parameters only in the end, see steps.Expose
    listed = [a for a in listed if (owner.get(a) if isinstance(a, Buffer) else a) not in inside]
    creator = _Creator(list(inputs), [t for t in outputs if t not in inside], name, given)
    creator.buffer_names, creator.loop_names, creator.block_names = _LegalNames(), _LegalNames(), _LegalNames()
    func = creator.build(listed)
    return Conversion(func, creator.block_of, creator.loops_of, creator.buffers)


def expected_params(
    sch: Schedule, args: Sequence[Any], buffers: Mapping[Tensor, Buffer], binds: Mapping[Tensor, Buffer] | None
) -> tuple[list[Any], dict[Tensor, Any]]:
    """The parameters in the order of `args`, and which of them are intermediate tensors."""
    owner = {b: _now(sch, t) for t, b in (binds or {}).items()}
    params: list[Any] = []
    inner: dict[Tensor, Any] = {}
    for a in args:
        t = owner.get(a) if isinstance(a, Buffer) else _now(sch, a) if isinstance(a, Tensor) else None
        params.append(a if t is None else buffers.get(t) or a)
        if isinstance(t, Tensor) and t in sch and not is_placeholder(t.op) and not sch[t].is_output:
            inner[t] = params[-1]
    return params, inner


def _now(sch: Schedule, t: Tensor) -> Tensor:
    """The tensor in the edited dataflow."""
    return sch.tensor(t) if t in sch else t
