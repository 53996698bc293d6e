"""The fusion that operator-level compilers do, to compare with: an operator joins what it is read by, pair by pair.

Operators are elementwise (broadcasting included), injective, reductions, anchors (contractions and windows) or opaque.
- An anchor takes the elementwise work of its own shape that follows it.
- Elementwise work joins injective work or a reduction that reads it, through elementwise and injective work only.
- Injective work joins injective work, after the former have been tried everywhere.
- Reductions take nothing that follows; softmax and normalisations, which are several stages, stay alone.

Reference: T. Chen et al., "TVM: An Automated End-to-End Optimizing Compiler for Deep Learning", OSDI (2018), 3.
"""

from __future__ import annotations

from warpbeam.relay.expr import Call, Expr
from warpbeam.transform.fuse_ops import ANCHOR, ELEM, INJ, OPAQUE, ROW, VIEW, Fuser, Group, same_shape, shape_of

_RANK = {ELEM: 0, INJ: 1, ROW: 2, ANCHOR: 3, VIEW: 4, OPAQUE: 4}


class PairFuser(Fuser):
    """Groups by the rules above; `run` and `obstacle` are its own."""

    def run(self) -> None:
        """Anchors and elementwise work first, injective work after them."""
        for kinds in ((ANCHOR, ELEM), (INJ,)):
            for node in self.graph.order:
                if node in self.groups:
                    self._try(node, kinds)  # type: ignore[arg-type]

    def _try(self, node: Call, kinds: tuple[str, ...]) -> None:
        dom = self.graph.ipdom.get(node)
        if not isinstance(dom, Call) or dom not in self.groups or self._kind(self.groups[node]) not in kinds:
            return
        if self.groups[dom].root() is self.groups[node].root():
            return
        path = self.graph.between(node, dom, self.limit)
        if path is not None and not self.obstacle(node, [*path, dom]):
            for n in [*path, dom]:
                self.union(self.groups[node], self.groups[n])  # type: ignore[index]

    def _kind(self, group: Group) -> str:
        """The kind of a whole group: that of its least fusible member."""
        return max((self._kind_of(m) for m in group.root().members), key=lambda k: _RANK[k])

    def _kind_of(self, call: Call) -> str:
        info = self.info(call)
        return OPAQUE if info.reductions > 1 else info.kind

    def obstacle(self, node: Call, others: list[Expr]) -> str:
        """Why the group of `node` may not join its dominator, the last of `others`, over the rest of them."""
        if any(n not in self.groups for n in others):
            return "what reads it is no operator"
        groups = {id(g): g for g in (self.groups[n].root() for n in (node, *others))}  # type: ignore[index]
        size = sum(g.size for g in groups.values())
        if size > self.limit:
            return f"together they would be {size} operators, more than {self.limit}"
        kind = self._kind(self.groups[node])
        between = [self._kind(self.groups[n]) for n in others[:-1]]  # type: ignore[index]
        last = self._kind(self.groups[others[-1]])  # type: ignore[index]
        if kind == ANCHOR:
            fits = all(k == ELEM for k in (*between, last))
            same = all(same_shape(shape_of(node), shape_of(n)) for n in others)
            return "" if fits and same else "an anchor only takes elementwise work of its own shape"
        if kind == ELEM:
            fits = all(k in (ELEM, INJ) for k in between) and last in (ELEM, INJ, ROW)
            return "" if fits else "elementwise work only joins injective work or a reduction"
        if kind == INJ:
            return "" if all(k in (ELEM, INJ) for k in (*between, last)) else "injective work only joins its like"
        return "nothing joins a reduction, or work of several stages, from behind"
