"""Joins operators into groups that become one kernel each, so that intermediates stay in registers or cache.

What may join is decided from the structure of each operator's computation (`sketch.structure`), never from its name:

- elementwise work joins the contraction, window, norm or row reduction that feeds it, if shapes agree (epilogue);
- injective and elementwise work joins what consumes it (inlined);
- row reductions over the same rows and columns, with the elementwise work between them, become one pass over memory;
- two contractions with such reductions between join where the prior says so (`fuse_chains`);
- windows join the convolution that they are over where the prior says so (`fuse_windows`);
- rows that several groups fetch by index are fetched by each (`fuse_copies`).

A node joins its immediate post-dominator when every node on the paths between may join; by post-dominance no cycle
can arise.
A group has at most MAX_GROUP operators, or as many as "relay.FuseOps.max_depth" says. "relay.FuseOps.mode" is "regions"
(this), or "pairs": the rules of `fuse_pairs`, to compare with.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.node import Attrs, children
from warpbeam.ir.rewrite import origins, post_order
from warpbeam.ir.transform import PassContext
from warpbeam.relay.expr import Call, Constant, Expr, Function, If, Tuple, TupleGetItem, Var
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType
from warpbeam.sketch import structure
from warpbeam.target import Target
from warpbeam.te import tensor as te
from warpbeam.transform.fuse_chains import join_chains
from warpbeam.transform.fuse_copies import join_copies
from warpbeam.transform.fuse_windows import join_windows

MAX_GROUP = 24
MODE, DEPTH = "relay.FuseOps.mode", "relay.FuseOps.max_depth"
ELEM, INJ, ANCHOR, ROW, VIEW, OPAQUE = "elementwise", "injective", "anchor", "row", "view", "opaque"


@dataclass(frozen=True, slots=True)
class OpInfo:
    """How one call's computation is shaped: its kind, for row work the (rows, columns) it runs over, for it and norms
    how many reductions it is.
    """

    kind: str
    rows: tuple[Any, ...] = ()
    cols: tuple[Any, ...] = ()
    reductions: int = 0


def _analyse(call: Call) -> OpInfo:
    op = call.op
    if not isinstance(op, Op) or not op.pure or op.host or hasattr(op, "compute_prim") or call.attrs.get("extents"):
        return OpInfo(OPAQUE)
    if getattr(op, "view", False):
        return OpInfo(VIEW)
    if not isinstance(call.ty, TensorType) or not all(isinstance(a.ty, TensorType) for a in call.args):
        return OpInfo(OPAQUE)
    inputs = [te.placeholder(a.ty.shape, a.ty.dtype, f"p{i}") for i, a in enumerate(call.args)]
    result = op.compute(call.attrs, inputs, call.ty)
    outputs = list(result) if isinstance(result, list | tuple) else [result]
    stages = structure.stages(outputs)
    return _summarise(stages)


def _summarise(stages: list[structure.Stage]) -> OpInfo:
    kinds = [s.kind for s in stages]
    if not kinds:
        return OpInfo(OPAQUE)
    if all(k == "elementwise" for k in kinds):
        return OpInfo(ELEM)
    if all(k in ("elementwise", "injective") for k in kinds):
        return OpInfo(INJ)
    rows = {structure.row_key(s.op) for s in stages if s.kind == "row"}
    if len(rows) == 1 and all(k in ("elementwise", "row") for k in kinds):
        lead, cols = next(iter(rows))
        return OpInfo(ROW, lead, cols, kinds.count("row"))
    if any(k in ("contraction", "window") for k in kinds) and all(
        k in ("contraction", "window", "elementwise", "injective") for k in kinds
    ):
        return OpInfo(ANCHOR)
    if all(k in ("reduce", "elementwise") for k in kinds) and _spread(stages):
        return OpInfo(ANCHOR, reductions=kinds.count("reduce"))
    return OpInfo(OPAQUE)


def _spread(stages: list[structure.Stage]) -> bool:
    """Whether what reductions find is applied to all that they read: norms over other axes than the last."""
    return any(len(s.op.axis) < len(stages[-1].op.axis) for s in stages if s.kind == "reduce")


@dataclass(slots=True, eq=False)
class Group:
    """A set of calls under construction (a union-find node). copies: calls that it does, as other groups do."""

    size: int = 1
    anchor: bool = False
    opaque: bool = False
    injective: bool = False
    row: tuple[Any, ...] | None = None
    parent: Group | None = None
    members: list[Call] = field(default_factory=list)
    copies: list[Call] = field(default_factory=list)

    def root(self) -> Group:
        g = self
        while g.parent is not None:
            g = g.parent
        return g


class Graph:
    """Calls of a function body in order, with users and immediate post-dominators."""

    def __init__(self, body: Expr) -> None:
        self.order: list[Expr] = [
            n for n in post_order(body, enter=lambda n: not isinstance(n, Function)) if isinstance(n, Expr)
        ]
        self.index = {n: i for i, n in enumerate(self.order)}
        self.users: dict[Expr, list[Expr]] = {}
        for n in self.order:
            if isinstance(n, Function | Constant | Var):
                continue
            for c in dict.fromkeys(children(n)):
                if isinstance(c, Expr) and c in self.index:
                    self.users.setdefault(c, []).append(n)
        self.depth: dict[Expr, int] = {}
        self.ipdom: dict[Expr, Expr | None] = {}
        for n in reversed(self.order):
            self._dominate(n)

    def _dominate(self, node: Expr) -> None:
        users = self.users.get(node, [])
        dom: Expr | None = users[0] if users else None
        for u in users[1:]:
            dom = self._meet(dom, u)
        self.ipdom[node] = dom
        self.depth[node] = 0 if dom is None else self.depth[dom] + 1

    def _meet(self, a: Expr | None, b: Expr | None) -> Expr | None:
        while a is not b:
            if a is None or b is None:
                return None
            if self.depth[a] >= self.depth[b]:
                a = self.ipdom[a]
            else:
                b = self.ipdom[b]
        return a

    def between(self, node: Expr, dom: Expr, limit: int) -> list[Expr] | None:
        """Nodes on the paths from `node` to its post-dominator (both excluded), or None when more than `limit`."""
        seen: list[Expr] = []
        stack = list(self.users.get(node, []))
        known: set[Expr] = set()
        while stack:
            n = stack.pop()
            if n is dom or n in known:
                continue
            known.add(n)
            seen.append(n)
            if len(seen) > limit:
                return None
            stack.extend(self.users.get(n, []))
        return seen


def shape_of(expr: Expr) -> tuple[Any, ...]:
    return expr.ty.shape if isinstance(expr.ty, TensorType) else ()


def _in_rows(shape: tuple[Any, ...], rows: tuple[Any, ...], cols: tuple[Any, ...]) -> bool:
    """Whether a tensor shape is the rows, with all columns or one; dimensions of 1 count for nothing."""
    long, wide, high = (tuple(d for d in t if not (isinstance(d, int) and d == 1)) for t in (shape, rows + cols, rows))
    return same_shape(long, wide) or same_shape(long, high)


def same_shape(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return len(a) == len(b) and all(
        x is y or (isinstance(x, int) and isinstance(y, int) and x == y) for x, y in zip(a, b, strict=True)
    )


class Fuser:
    """Decides the groups of one function."""

    def __init__(self, body: Expr, target: Target | None = None) -> None:
        self.graph = Graph(body)
        self.target = target
        self.reasons: dict[Call, str] = {}  # why a call did not join a chain of contractions
        self.remarks: dict[Call, str] = {}  # how a chain is computed, where that is not as usual
        self.spread: set[Call] = set()  # calls that each reader does
        self.limit = int(PassContext.current().config.get(DEPTH, MAX_GROUP))
        self.groups: dict[Call, Group] = {}
        self.infos: dict[tuple[Any, ...], OpInfo] = {}
        for n in self.graph.order:
            if isinstance(n, Call) and isinstance(n.op, Op):
                info = self.info(n)
                row = (info.rows, info.cols) if info.kind == ROW else None
                self.groups[n] = Group(
                    anchor=info.kind == ANCHOR,
                    opaque=info.kind in (OPAQUE, VIEW),
                    injective=info.kind == INJ,
                    row=row,
                    members=[n],
                )

    def info(self, call: Call) -> OpInfo:
        """Kind of a call, from the te stages its operator computes; calls alike in operator and types share it."""
        key = (call.op, call.attrs, tuple(a.ty for a in call.args), call.ty)
        found = self.infos.get(key)
        if found is None:
            found = self.infos[key] = _analyse(call)
        return found

    def run(self) -> None:
        """Anchors take their epilogues first, then rows; chains of both join, then injective work its consumers."""
        for wanted in ((ANCHOR,), (ROW,), (ELEM, INJ)):
            if ELEM in wanted and self.target is not None:
                join_chains(self, self.target)
                join_windows(self, self.target)
            for node in self.graph.order:
                if node in self.groups and self.info(node).kind in wanted:
                    self._extend(node)
        if self.target is not None:
            join_copies(self, self.target)

    def _extend(self, node: Call) -> None:
        """Joins `node` with its post-dominator, and on, while it is allowed."""
        current: Expr = node
        for _ in range(self.limit):
            dom = self.graph.ipdom.get(current)
            if not isinstance(dom, Call) or dom not in self.groups:
                return
            if self.groups[dom].root() is not self.groups[node].root():
                path = self.graph.between(current, dom, self.limit)
                if path is None or self.obstacle(node, [*path, dom]):
                    return
                for n in [*path, dom]:
                    self.union(self.groups[node], self.groups[n])  # type: ignore[index]
            if self.info(node).kind not in (ANCHOR, ROW):
                return
            current = dom

    def obstacle(self, node: Call, others: list[Expr]) -> str:
        """Why the group of `node` may not join those of `others`, in words; nothing if it may."""
        mine = self.groups[node].root()
        joined = {id(mine): mine}
        for n in others:
            if n not in self.groups:
                return "what reads it is no operator"
            g = self.groups[n].root()  # type: ignore[index]
            joined[id(g)] = g
        parts = list(joined.values())
        if any(g.opaque for g in parts):
            return "one of them is no computation that can be joined: a view, several stages of its own, or a host call"
        size = sum(g.size for g in parts)
        if size > self.limit:
            return f"together they would be {size} operators, more than {self.limit}"
        anchors = sum(g.anchor for g in parts)
        rows = {g.row for g in parts if g.row is not None}
        if anchors > 1:
            return "each has a contraction or window of its own"
        if anchors and rows:
            return "a reduction over rows needs the whole result of the contraction or window"
        if len(rows) > 1:
            return "they reduce over different rows"
        return self._misfit(parts, rows, anchors, node)

    def _misfit(self, parts: list[Group], rows: set[Any], anchors: int, node: Call) -> str:
        """What about shapes keeps groups apart; nothing if they fit."""
        members = [m for g in parts for m in g.members]
        if rows:
            if any(g.injective for g in parts):
                return "elements move between rows"
            lead, cols = next(iter(rows))
            fits = all(_in_rows(shape_of(m), lead, cols) for m in members)
            return "" if fits else "a result is not of the shape of the rows that are reduced"
        if anchors:
            anchor = next(m for m in members if self.info(m).kind == ANCHOR)
            if any(m is not anchor and self.info(m).kind != ELEM for m in members):
                return "only elementwise work is done where a contraction or window stores its result"
            if not all(m is anchor or same_shape(shape_of(m), shape_of(anchor)) for m in members):
                return "the shape is not that of the contraction or window"
            return "" if self._after(anchor, members) else "it would have to be computed once per use within the sum"
        return "" if self._inlinable(members, node) else "several results read it, and each would compute it again"

    def _after(self, anchor: Call, members: list[Call]) -> bool:
        """Whether every member follows the anchor (epilogue only) or is elementwise work read by the epilogue."""
        return all(self.graph.index[m] >= self.graph.index[anchor] or not self._feeds(m, anchor) for m in members)

    def _feeds(self, m: Call, anchor: Call) -> bool:
        return any(a is m for a in anchor.args)

    def _inlinable(self, members: list[Call], node: Call) -> bool:
        """Injective groups: shapes may differ only through an injective member; values read twice are recomputed."""
        if not any(self.info(m).kind == INJ for m in members):
            return len({shape_of(m) for m in members}) == 1 or all(self.info(m).kind == ELEM for m in members)
        uses = self.graph.users.get(node, [])
        return len(uses) == 1

    def tensors(
        self, members: list[Call], copies: Iterable[Call] = ()
    ) -> tuple[list[te.Tensor], list[te.Tensor], frozenset[str]] | None:
        """(inputs, outputs, names of inputs that are known) of calls as a group, some of which others do for
        themselves; None if it has several results.
        """
        members = sorted(members, key=self.graph.index.__getitem__)
        fn, given, outs = group_function(members, self.graph, frozenset(copies))
        known = frozenset(p.name for p, a in zip(fn.params, given, strict=True) if isinstance(a, Constant))
        return (*group_tensors(fn), known) if len(outs) == 1 else None

    def alike(self, members: list[Call]) -> Any:
        """Equal for groups of calls that are alike but for the values that they read."""
        members = sorted(members, key=self.graph.index.__getitem__)
        number: dict[Expr, int] = {m: k for k, m in enumerate(members)}

        def seen(arg: Expr) -> Any:  # which member it is, or its type and whether it is known
            return number[arg] if arg in number else (arg.ty, isinstance(arg, Constant))

        return tuple((m.op, m.attrs, tuple(map(seen, m.args)), m.ty) for m in members)

    def union(self, a: Group, b: Group) -> None:
        a, b = a.root(), b.root()
        if a is b:
            return
        b.parent = a
        a.size += b.size
        a.anchor |= b.anchor
        a.injective |= b.injective
        a.row = a.row if a.row is not None else b.row
        a.members.extend(b.members)
        b.members = []


def fuse(func: Function, opt_level: int = 3, target: Target | None = None) -> Function:
    """`func` with each group of calls replaced by a call of a Function with attribute Primitive=1.

    target: see `fused`.
    """
    return _Rebuild(fused(func, opt_level, target)).function(func)


def in_regions() -> bool:
    """Whether the current PassContext asks for all rules, not for those of pairs only.

    Raises:
        CompileError: if it asks for rules that there are not.
    """
    mode = PassContext.current().config.get(MODE, "regions")
    if mode not in ("regions", "pairs"):
        raise CompileError(f"{MODE} is {mode!r}", hint='one of "regions", "pairs"')
    return mode == "regions"  # type: ignore[no-any-return]


def fused(func: Function, opt_level: int = 3, target: Target | None = None) -> Fuser:
    """The groups of a function, by the rules that the current PassContext asks for.

    target: the machine whose times decide whether contractions join; None: they do not.

    Raises:
        CompileError: if it asks for rules that there are not.
    """
    if not in_regions():
        from warpbeam.transform.fuse_pairs import PairFuser

        fuser: Fuser = PairFuser(func.body)
    else:
        fuser = Fuser(func.body, target)
    if opt_level >= 1:
        fuser.run()
    return fuser


class _Rebuild:
    """Replaces groups by calls of primitive functions."""

    def __init__(self, fuser: Fuser) -> None:
        self.graph = fuser.graph
        self.groups = fuser.groups
        self.spread = fuser.spread
        self.new: dict[Expr, Expr] = {}

    def function(self, func: Function) -> Function:
        last = self._last_member()
        for node in self.graph.order:
            if isinstance(node, Call) and node in self.groups:
                group = self.groups[node].root()
                if last[id(group)] is node and node not in self.spread:
                    self._emit(sorted([*group.members, *group.copies], key=self.graph.index.__getitem__))
            elif isinstance(node, Tuple):
                self.new[node] = Tuple(tuple(self._value(f) for f in node.fields))
            elif isinstance(node, TupleGetItem):
                self.new[node] = TupleGetItem(self._value(node.tuple_value), node.index)
            elif isinstance(node, Call):
                self.new[node] = Call(node.op, tuple(self._value(a) for a in node.args), node.attrs)
            elif isinstance(node, If):
                self.new[node] = If(*(self._value(x) for x in (node.cond, node.then, node.orelse)))
            else:
                self.new[node] = node
        return Function(func.params, self.new[func.body], func.ret_type, func.type_params, func.attrs)

    def _value(self, node: Expr) -> Expr:
        return self.new.get(node, node)

    def _last_member(self) -> dict[int, Call]:
        last: dict[int, Call] = {}
        for node in self.graph.order:
            if isinstance(node, Call) and node in self.groups:
                last[id(self.groups[node].root())] = node
        return last

    def _emit(self, members: list[Call]) -> None:
        fn, params, outs = group_function(members, self.graph, self.spread)
        call = Call(fn, tuple(self._value(a) for a in params))
        for k, o in enumerate(outs):
            self.new[o] = call if len(outs) == 1 else TupleGetItem(call, k)


def group_function(
    members: list[Call], graph: Graph, copies: Set[Call] = frozenset()
) -> tuple[Function, list[Expr], list[Call]]:
    """(a primitive function of these calls, what its parameters stand for, the calls that it gives the results of).

    members: in the order of the graph. copies: calls whose results are not given, as all that read them do them.
    """
    inside = set(members)
    params: dict[Expr, Var] = {}

    def local(arg: Expr) -> Expr:
        if arg in inside:
            return done[arg]
        if arg not in params:
            params[arg] = Var(f"p{len(params)}", arg.ty)
        return params[arg]

    done: dict[Expr, Expr] = {}
    for m in members:
        done[m] = Call(m.op, tuple(local(a) for a in m.args), m.attrs)
    outs = [m for m in members if m not in copies and _escapes(graph.users.get(m, []), inside)]
    body = done[outs[0]] if len(outs) == 1 else Tuple(tuple(done[o] for o in outs))
    names = sorted({name for m in members for name in origins(m)})
    fn = Function(tuple(params.values()), body, None, (), Attrs(Primitive=1, origins=tuple(names)))
    return fn, list(params), outs


def _escapes(users: list[Expr], inside: set[Call]) -> bool:
    return not users or any(u not in inside for u in users)


def group_inputs(fn: Function) -> list[te.Tensor]:
    """A placeholder for each parameter of a primitive function."""
    return [te.placeholder(p.ty.shape, p.ty.dtype, p.name) for p in fn.params]


def group_tensors(fn: Function) -> tuple[list[te.Tensor], list[te.Tensor]]:
    """(inputs, outputs) of a primitive function as tensor expressions."""
    inputs = group_inputs(fn)
    values: dict[Expr, Any] = dict(zip(fn.params, inputs, strict=True))
    for n in post_order(fn.body):
        if isinstance(n, Call):
            values[n] = n.op.compute(n.attrs, [values[a] for a in n.args], n.ty)
        elif isinstance(n, Tuple):
            values[n] = tuple(values[f] for f in n.fields)
        elif isinstance(n, TupleGetItem):
            values[n] = values[n.tuple_value][n.index]
    result = values[fn.body]
    return inputs, list(result) if isinstance(result, list | tuple) else [result]


def primitives(func: Function) -> Iterable[Function]:
    """The primitive functions called in a fused function, each once, in order."""
    seen = dict.fromkeys(n.op for n in post_order(func.body) if isinstance(n, Call) and isinstance(n.op, Function))
    return [f for f in seen if f.attrs.get("Primitive")]
