"""Joins two contractions and the row reductions between them (attention) to one group, where that is faster.

Such a chain is found by how groups feed each other: a contraction with its epilogue feeds reductions over rows only,
and these feed another contraction only. Then what moves or scales the operands joins, one call at a time, and a
permutation of the result, as long as one kernel can do it all (`sketch.chain`). The prior decides whether it shall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warpbeam.relay.expr import Call, Expr
from warpbeam.sketch.select import chained

if TYPE_CHECKING:
    from warpbeam.target import Target
    from warpbeam.transform.fuse_ops import Fuser, Group


def join_chains(fuser: Fuser, target: Target) -> None:
    """Joins all chains of a function whose contractions and reductions have their epilogues already."""
    search = _Search(fuser, target)
    for node in fuser.graph.order:
        if isinstance(node, Call) and node in fuser.groups and fuser.groups[node].root().anchor:
            search.end(node)


class _Search:
    """Looks for chains that end in a contraction; alike ones are judged once."""

    def __init__(self, fuser: Fuser, target: Target) -> None:
        self.fuser, self.target = fuser, target
        self.judged: dict[Any, bool | None] = {}

    def end(self, node: Call) -> None:
        """Joins the chain of which `node` is the second contraction, if there is one and it pays."""
        members = self._core(node)
        if members is None:
            return
        first = members[0]
        if self._judge(members) is None:
            self.fuser.reasons[first] = "products, reductions and what lies between are not of a form that is joined"
            return
        members = self._with_result(self._with_operands(members))
        if not self._judge(members):
            self.fuser.reasons[first] = "one kernel for both products would be slower"
            return
        for m in members[1:]:
            self.fuser.union(self.fuser.groups[first], self.fuser.groups[m])

    def _core(self, node: Call) -> list[Call] | None:
        """The calls of the groups of both contractions and of the reductions between; None where there is no chain."""
        second = self._group(node)
        for arg in node.args:
            rows = self._group(arg)
            if rows is None or rows.row is None or rows.anchor or not self._only_for(rows, second):
                continue
            makers = {id(g): g for m in rows.members for a in m.args if (g := self._group(a)) and g.anchor}
            for first in makers.values():
                if first is not second and self._only_for(first, rows):
                    assert second is not None
                    return [*first.members, *rows.members, *second.members]
        return None

    def _group(self, node: Expr) -> Group | None:
        return self.fuser.groups[node].root() if isinstance(node, Call) and node in self.fuser.groups else None

    def _only_for(self, group: Group, reader: Group | None) -> bool:
        """Whether a group's results are read by another group alone."""
        users = [self.fuser.graph.users.get(m, []) for m in group.members]
        return all(users) and all(self._group(u) in (group, reader) for us in users for u in us)

    def _with_operands(self, members: list[Call]) -> list[Call]:
        """The chain with what computes operands of its contractions, for them alone."""
        anchors = [m for m in members if self.fuser.info(m).kind == "anchor"]
        todo: list[Expr] = [a for m in anchors for a in m.args]
        while todo:
            path = self._movers(todo.pop(), set(members))
            if path and self._judge([*members, *path]) is not None:
                members = [*members, *path]
                todo += [a for m in path for a in m.args]
        return members

    def _movers(self, node: Expr, inside: set[Call]) -> list[Call]:
        """A call of pointwise work that only calls inside read, with the views between; nothing if it is no such."""
        path: list[Call] = []
        while isinstance(node, Call) and node in self.fuser.groups and node not in inside:
            kind, alone = self.fuser.info(node).kind, self.fuser.groups[node].root().size == 1
            if not alone or not all(u in inside or u in path for u in self.fuser.graph.users.get(node, [])):
                return []
            path.append(node)
            if kind in ("elementwise", "injective"):
                return path
            if kind != "view":
                return []
            node = node.args[0]
        return []

    def _with_result(self, members: list[Call]) -> list[Call]:
        """The chain with a call that puts its result in another order."""
        inside = set(members)
        users = {u for m in members for u in self.fuser.graph.users.get(m, []) if u not in inside}
        reader = next(iter(users)) if len(users) == 1 else None
        if not isinstance(reader, Call) or reader not in self.fuser.groups:
            return members
        plain = self.fuser.info(reader).kind == "injective" and self.fuser.groups[reader].root().size == 1
        longer = [*members, reader]
        return longer if plain and self._judge(longer) is not None else members

    def _judge(self, members: list[Call]) -> bool | None:
        """Whether one kernel would be faster; None where none can do it."""
        from warpbeam.transform.fuse_ops import group_function, group_tensors

        if len(members) > self.fuser.limit:
            return None
        members = sorted(members, key=lambda m: self.fuser.graph.index[m])
        number = {m: k for k, m in enumerate(members)}
        key = tuple((m.op, m.attrs, tuple(number.get(a, a.ty) for a in m.args), m.ty) for m in members)  # type: ignore[call-overload]
        if key not in self.judged:
            fn, _, outs = group_function(members, self.fuser.graph)
            self.judged[key] = chained(*group_tensors(fn), self.target) if len(outs) == 1 else None
        return self.judged[key]
