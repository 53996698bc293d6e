"""Joins contractions that follow each other to one group, where that is faster: attention, perceptrons.

Such a chain is found by how groups feed each other: a contraction with its epilogue feeds another contraction only, or
reductions over rows that do. Then what computes the operands joins, one call at a time, and a permutation of the
result, as long as one kernel can do it all (`sketch.chain`); also where there is but one contraction. The prior decides
whether it shall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warpbeam.relay.expr import Call, Expr
from warpbeam.sketch.base import product
from warpbeam.sketch.select import chained, schedulable

if TYPE_CHECKING:
    from warpbeam.target import Target
    from warpbeam.transform.fuse_ops import Fuser, Group


def join_chains(fuser: Fuser, target: Target) -> None:
    """Joins all chains of a function whose contractions and reductions have their epilogues already."""
    search = _Search(fuser, target)
    calls = [n for n in fuser.graph.order if isinstance(n, Call) and n in fuser.groups]
    ends = [n for n in calls if fuser.info(n).kind == "anchor"]
    joined = {id(fuser.groups[n].root()) for n in [n for n in ends if search.end(n, True)]}
    for node in ends:
        if id(fuser.groups[node].root()) not in joined:
            search.end(node, False)


class _Search:
    """Looks for chains that end in a contraction; alike ones are judged once."""

    def __init__(self, fuser: Fuser, target: Target) -> None:
        self.fuser, self.target = fuser, target
        self.judged: dict[Any, bool | None] = {}
        self.scheduled: dict[Any, str] = {}

    def end(self, node: Call, several: bool) -> bool:
        """Joins the chain that ends in the group of a contraction, if there is one and it pays: `several` contractions,
        or what computes the operands of this one.
        """
        group = self._group(node)
        assert group is not None
        before = self._before(group) if several else []
        members = [*before, *group.members]
        if several and not before:
            return False
        if before and self._judge(members) is None:
            self._refuse(
                before, "products, reductions and what lies between are not of a form that is joined, or fit no buffer"
            )
            return False
        members = self._with_result(self._with_operands(members))
        others = [m for m in members if self._group(m) is not group]
        if all(hasattr(m.op, "boxes") for m in others):  # a cut may cost nothing where it is
            return False
        way = self._way(members) if self._judge(members) else ""
        if way == "online":
            self.fuser.remarks[node] = "rows are taken in parts, as whole ones do not fit a buffer"
        if way:
            for m in others:
                self.fuser.union(self.fuser.groups[node], self.fuser.groups[m])
            return True
        self._refuse(others, "one kernel for all of it would be slower")
        return False

    def _refuse(self, calls: list[Call], why: str) -> None:
        self.fuser.reasons.update(dict.fromkeys(calls, why))

    def _before(self, group: Group) -> list[Call]:
        """The calls of the groups that feed the left operand of a group's contraction, and it alone: another
        contraction with its epilogue, and reductions between. Nothing where there is no chain.
        """
        for arg in (a for m in group.members if self.fuser.info(m).kind == "anchor" for a in m.args):
            maker = self._group(arg)
            if maker is None or maker is group or not self._only_for(maker, group):
                continue
            if maker.anchor:
                return maker.members
            for first in (g for m in maker.members for a in m.args if (g := self._group(a)) is not None):
                if maker.row is not None and first.anchor and first is not group and self._only_for(first, maker):
                    return [*first.members, *maker.members]
        return []

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
            if self._made_in_place(node):
                return []
            path.append(node)
            if kind in ("elementwise", "injective"):
                return path
            if kind != "view":
                return []
            node = node.args[0]
        return []

    def _made_in_place(self, node: Call) -> bool:
        """Whether a call joins tensors of which half or more come from kernels that can write them where they go."""
        if not hasattr(node.op, "joins"):
            return False
        sizes = [(product(a.ty.shape), self._group(a)) for a in node.args]
        heavy = sum(n for n, g in sizes if g is not None and (g.anchor or g.row is not None or g.opaque))
        return 2 * heavy >= sum(n for n, _ in sizes)

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
        if len(members) > self.fuser.limit:
            return None
        key = self.fuser.alike(members)
        if key not in self.judged:
            made = self.fuser.tensors(members)
            self.judged[key] = None if made is None else chained(*made[:2], self.target, made[2])
        return self.judged[key]

    def _way(self, members: list[Call]) -> str:
        """The sketch that can schedule the kernel that would be faster; "" if none can."""
        key = self.fuser.alike(members)
        if key not in self.scheduled:
            made = self.fuser.tensors(members)
            self.scheduled[key] = "" if made is None else schedulable(*made[:2], self.target, made[2])
        return self.scheduled[key]
