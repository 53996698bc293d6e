"""Products of bytes summed in int32, or of bfloat16 in float32, by the target's dot-product instruction: an option of
the tile sketch.

    acc[rows][vectors] += dot4(lhs[rows, 4 neighbours of k], rhs[vectors, 16 columns x 4 neighbours of k])

Found by meaning: the dtypes, a reduce axis along which the lhs lies contiguously, and a constant rhs, which is laid out
as [column panel][..k..][k // 4][column in panel][k % 4] (of bfloat16 two
neighbours instead of four). Which instructions there are says `tir.tensor_intrin`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import substitute
from warpbeam.sketch.base import Group, extent
from warpbeam.sketch.structure import Contraction, variables
from warpbeam.te.tensor import ComputeOp, PlaceholderOp, ProducerLoad
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.arith import linear, simplify
from warpbeam.tir.expr import Cast, Mul, Var, const, const_int
from warpbeam.tir.stmt import For
from warpbeam.tir.tensor_intrin.dots import DOTS

_GROUPS = {"int32": 4, "float32": 2}  # type of the sum -> neighbours that one instruction multiplies


@dataclass(frozen=True, slots=True)
class DotChoice:
    """The intrinsic, its neighbours per lane, lanes and latency, the reduce axis it runs along, and the dimensions of
    the rhs that this axis and the columns are.
    """

    intrin: str
    group: int
    lanes: int
    latency: int
    axis: Var
    along: int
    column: int


def find(group: Group, op: ComputeOp, roles: Contraction | None) -> DotChoice | None:
    """The instruction that does this contraction, if the target has one and the operands lie as it needs them."""
    result = op.body[0].dtype
    if roles is None or result not in _GROUPS or not _bare(op):
        return None
    have = set(group.target.required_features)
    named = [
        (name, d) for name, d in DOTS.items()
        if (d.a, d.b, d.result, d.group) == (roles.lhs.dtype, roles.rhs.dtype, result, _GROUPS[result])
        and set(d.requires) <= have
    ]  # fmt: skip
    rhs = roles.rhs.tensor.op
    if not named or not isinstance(rhs, PlaceholderOp) or rhs.name not in group.constants:
        return None
    name, facts = named[0]
    last, axis = op.axis[-1].var, roles.k[-1]
    size, columns = extent(op.reduce_axis[-1].extent), extent(op.axis[-1].extent)
    if size is None or size % facts.group or columns is None or columns < 2:
        return None
    found = [_only(roles.rhs.indices, v) for v in (axis, last)]
    if None in found or not _along(roles.lhs.indices, axis):
        return None
    return DotChoice(name, facts.group, facts.lanes, facts.latency, axis, found[0] or 0, found[1] or 0)


def _bare(op: ComputeOp) -> bool:
    """Whether each factor is an element widened to the sum's type and nothing else."""
    product: Any = op.body[0].source[0]
    if not isinstance(product, Mul):
        return False
    return all(isinstance(x, Cast) and isinstance(x.value, ProducerLoad) for x in (product.a, product.b))


def _along(indices: Any, axis: Var) -> bool:
    """Whether elements lie together along the axis: the last index, and no other, grows with it one by one."""
    if not indices or any(axis in variables(i) for i in indices[:-1]):
        return False
    form = linear(indices[-1], [axis])
    return form is not None and const_int(form[0].get(axis, 0)) == 1


def _only(indices: Any, var: Var) -> int | None:
    """The one dimension that is indexed by exactly this variable."""
    at = [k for k, i in enumerate(indices) if var in variables(i)]
    return at[0] if len(at) == 1 and indices[at[0]] is var else None


def layout(roles: Contraction, choice: DotChoice, panel: int, rest: list[int]) -> list[Any]:
    """The index map of the rhs; `rest`: its other dimensions, in the order of the loops."""
    column, along = f"i{choice.column}", f"i{choice.along}"
    middle = [f"i{k}" for k in rest if k != choice.along]
    head: list[Any] = [("//", column, panel), *middle, ("//", along, choice.group)]
    return [*head, ("%", column, panel), ("%", along, choice.group)]


def tensorize(group: Group, loops: list[str], choice: DotChoice) -> int:
    """Puts the instruction in place of the loops over neighbours (each around one over lanes); gives how many fit.

    Remainders take it with fewer lanes.
    """
    done = 0
    for name in [part for loop in loops for part in _even(group, loop)]:
        inner = group.sch.loop(name).body
        lanes = extent(inner.extent) if isinstance(inner, For) else None
        if lanes is None or lanes < 2:
            continue
        record: Any = choice.intrin
        if lanes != choice.lanes:
            record = replace(DOTS[choice.intrin], lanes=lanes).record(f"{choice.intrin}.v{lanes}")
        try:
            group.sch.tensorize(name, record)
        except ScheduleError:
            continue
        done += 1
    return done


def _even(group: Group, name: str) -> list[str]:
    """The loop over neighbours; where the loop around it is over vectors of which the last is shorter, the full ones'
    and the short one's apart.
    """
    loop = group.sch.loop(name)
    around = next(p.stmt for p in tree_of(group.sch.func).loop(name).ancestors() if isinstance(p.stmt, For))
    count = extent(around.extent)
    if not isinstance(loop.body, For) or extent(loop.body.extent) is not None or not count:
        return [name]
    lanes = [extent(simplify(substitute(loop.body.extent, {around.var: const(v)}))) for v in range(count)]
    full = next((v for v, n in enumerate(lanes) if n != lanes[0]), 0)
    if not full:
        return [name]
    _, _, new = group.sch.partition(around.var.name, full)
    return [name, new.get(name, name)]
