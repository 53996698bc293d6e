"""What fusion joined, what not, and why: per group its operators and the bytes that never reach memory, per pair of
groups that stayed apart the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import origins
from warpbeam.relay.expr import Call, Expr, Function
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType
from warpbeam.target import Target
from warpbeam.transform.fuse_ops import VIEW, Fuser, fused


@dataclass(frozen=True, slots=True)
class Joined:
    """A group: its operators in order, source nodes, and bytes of results that nothing outside reads; None where a
    size is symbolic. `apart`: (number of a group that reads it, reason why it did not join). `remark`: how it is
    computed, where that is not as usual.
    """

    number: int
    operators: tuple[str, ...]
    nodes: tuple[str, ...]
    kept: int | None
    apart: tuple[tuple[int, str], ...]
    remark: str = ""


def explain(func: Function, opt_level: int = 3, target: Target | None = None) -> list[Joined]:
    """The groups of a function before fusion, in the order in which they run; views are left out."""
    fuser = fused(func, opt_level, target)
    members: dict[int, list[Call]] = {}
    for n in fuser.graph.order:
        if isinstance(n, Call) and n in fuser.groups and fuser.info(n).kind != VIEW and n not in fuser.spread:
            members.setdefault(id(fuser.groups[n].root()), []).append(n)
    order = sorted(members, key=lambda g: fuser.graph.index[members[g][-1]])
    number = {g: k for k, g in enumerate(order)}
    for g, calls in members.items():
        copies = next(fuser.groups[c].root().copies for c in calls)
        members[g] = sorted([*copies, *calls], key=fuser.graph.index.__getitem__)
    return [_joined(fuser, number, members[g], k) for k, g in enumerate(order)]


def _joined(fuser: Fuser, number: dict[int, int], calls: list[Call], k: int) -> Joined:
    inside = set(calls)
    kept: int | None = 0
    apart: dict[tuple[int, str], None] = {}
    for c in calls:
        users = fuser.graph.users.get(c, [])
        if c in fuser.spread or (users and all(u in inside for u in users)):
            size = _bytes(c.ty)
            kept = None if kept is None or size is None else kept + size
            continue
        for reader in _readers(fuser, users):
            there = number.get(id(fuser.groups[reader].root()))
            if there is not None and there != k:
                apart[there, _reason(fuser, c, reader)] = None
        if not users or not all(isinstance(u, Call) for u in users):
            apart[-1, "the caller reads it"] = None
    names = tuple(c.op.name for c in calls if isinstance(c.op, Op))
    nodes = tuple(sorted({name for c in calls for name in origins(c)}))
    remark = next((fuser.remarks[c] for c in calls if c in fuser.remarks), "")
    return Joined(k, names, nodes, kept, tuple(sorted(apart)), remark)


def _readers(fuser: Fuser, users: list[Expr]) -> Iterator[Call]:
    """Operators among the users, those behind views included."""
    todo = list(users)
    while todo:
        u = todo.pop()
        if not isinstance(u, Call) or u not in fuser.groups:
            continue
        if fuser.info(u).kind == VIEW:
            todo += fuser.graph.users.get(u, [])
        else:
            yield u


def _reason(fuser: Fuser, node: Call, reader: Call) -> str:
    if reader not in fuser.graph.users.get(node, []):
        return "it is read through a view of another shape"
    dom = fuser.graph.ipdom.get(node)
    if dom is None:
        return "the caller reads it too, or its readers never meet"
    if dom is not reader and not isinstance(dom, Call):
        return "its readers only meet in the results"
    path = fuser.graph.between(node, dom, fuser.limit)
    if path is None:
        return f"its readers meet more than {fuser.limit} operators later"
    why = _chain_reason(fuser, node) or fuser.obstacle(node, [*path, dom])
    if why and dom is not reader:
        return f"with it all other readers, and what lies between, would have to join: {why}"
    return why or "its group was full or closed when it was looked at"


def _chain_reason(fuser: Fuser, node: Call) -> str:
    """Why the node's group did not join a chain of contractions, if there is one."""
    return next((fuser.reasons[m] for m in fuser.groups[node].root().members if m in fuser.reasons), "")


def _bytes(ty: Any) -> int | None:
    if not isinstance(ty, TensorType) or not all(isinstance(d, int) for d in ty.shape):
        return None
    return int(prod(ty.shape) * dt.nbytes(ty.dtype))


def to_text(groups: list[Joined]) -> str:
    """Lines for a terminal."""
    lines = []
    for g in groups:
        kept = "" if g.kept == 0 else f"; {g.kept / 1e3:.1f} kB stay out of memory" if g.kept else "; sizes vary"
        nodes = ", ".join(g.nodes[:3]) + (f" and {len(g.nodes) - 3} more" if len(g.nodes) > 3 else "")
        lines.append(f"{g.number}: {' + '.join(g.operators)}{kept}" + (f"  [{nodes}]" if nodes else ""))
        if g.remark:
            lines.append(f"     {g.remark}")
        for there, why in g.apart:
            goal = "" if there < 0 else f" -> {there} ({groups[there].operators[0]})"
            lines.append(f"     apart{goal}: {why}")
    joined = sum(len(g.operators) for g in groups)
    total = sum(g.kept or 0 for g in groups)
    lines.append(f"{joined} operators in {len(groups)} groups; {total / 1e6:.3f} MB of results stay out of memory")
    return "\n".join(lines)
