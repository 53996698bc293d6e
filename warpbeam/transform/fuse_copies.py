"""Fetches of rows that several groups read are done by each of these, and no longer by a kernel of their own.

What a kernel fetches by index (rows of a table) it writes only for others to read it: a reader that fetches the same
rows itself moves as many bytes. So where all readers can take the fetch, it becomes part of each: groups
of pointwise work that read each element once, and chains (`fuse_chains`) that make rows. The rows must be near when
they are fetched again: all of the table, or what is fetched of it, in the second-level cache. Rows from far away, in no
order, are worth a copy: each costs a wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from warpbeam.cost.tile_prior import cache_rate
from warpbeam.ir import dtype as dt
from warpbeam.relay.expr import Call, Expr
from warpbeam.sketch.base import product
from warpbeam.sketch.select import chained, schedulable
from warpbeam.sketch.structure import stages, strip_casts, variables
from warpbeam.te.tensor import ProducerLoad, loads

if TYPE_CHECKING:
    from warpbeam.target import Target
    from warpbeam.transform.fuse_ops import Fuser, Group


def join_copies(fuser: Fuser, target: Target) -> None:
    """Has all readers of such fetches do them; the groups of a function are otherwise complete."""
    for node in fuser.graph.order:
        readers = _readers(fuser, node)
        if len(readers) < 2 or not isinstance(node, Call) or not _fetches(fuser, node, target):
            continue
        if all(_takes(fuser, target, g, node) for g in readers):
            for g in readers:
                g.copies.append(node)
            fuser.spread.add(node)


def _readers(fuser: Fuser, node: Expr) -> list[Group]:
    """The groups that read a call that is a group by itself; none where others read it too."""
    if not isinstance(node, Call) or node not in fuser.groups or fuser.groups[node].root().size > 1:
        return []
    users = fuser.graph.users.get(node, [])
    calls = [u for u in users if isinstance(u, Call) and u in fuser.groups]
    if fuser.info(node).kind != "injective" or len(calls) < len(users):
        return []
    return list({id(g): g for g in (fuser.groups[u].root() for u in calls)}.values())


def _fetches(fuser: Fuser, node: Call, target: Target) -> bool:
    """Whether a call copies whole rows that an index in memory tells, and that stay near."""
    made = fuser.tensors([node])
    found = [] if made is None else stages(made[1])
    if len(found) != 1 or not found[0].op.axis or not isinstance(row := strip_casts(found[0].op.body[0]), ProducerLoad):
        return False
    last = found[0].op.axis[-1].var
    own = row.indices[-1] is last and not any(last in variables(i) for i in row.indices[:-1])
    near = min(product(row.tensor.shape), product([a.extent for a in found[0].op.axis])) * dt.nbytes(row.tensor.dtype)
    whole = row.tensor.shape[-1] == found[0].op.axis[-1].extent
    return own and whole and len(list(loads(found[0].op))) > 1 and cache_rate(near, target) <= 1.0 / target.l2_rate


def _takes(fuser: Fuser, target: Target, group: Group, node: Call) -> bool:
    """Whether a group can do a fetch that it reads."""
    from warpbeam.transform.fuse_ops import same_shape, shape_of

    if group.size + len(group.copies) >= fuser.limit or group.opaque or group.row is not None:
        return False
    if not group.anchor:
        users = [u for u in fuser.graph.users[node] if u in group.members]
        return all(hasattr(u.op, "joins") or same_shape(shape_of(u), shape_of(node)) for u in users)
    made = fuser.tensors([*group.members, *group.copies, node], {*group.copies, node})
    found = () if made is None else (*made[:2], target, made[2])
    return bool(found) and bool(chained(*found)) and bool(schedulable(*found))
