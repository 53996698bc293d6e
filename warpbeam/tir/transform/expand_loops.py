"""Unrolls and vectorizes in one walk, because the copies of an unrolled nest share most of their vector expressions.

Both replace a loop variable, by numbers or by a ramp; what is equal in several copies is built once. A vectorized loop
whose body cannot run in lanes (a lazy choice or a branch that differs between lanes, a store that is not contiguous)
becomes a serial loop. Where an extent is `min(c, x)`, both cases are written: c lanes, or a short serial loop.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import children
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.expr import IntImm, PrimExpr, Ramp, Var
from warpbeam.tir.stmt import (
    Allocate,
    AssertStmt,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    PrimFunc,
    SeqStmt,
    Stmt,
    While,
    seq,
)
from warpbeam.tir.transform.lanes import NotVectorizable, build, is_vector, neighbours, widen
from warpbeam.tir.transform.mutate import peel, wrap
from warpbeam.tir.transform.setting import Setting

MAX_UNROLL = 4096  # iterations of one loop
MAX_COPIES = 1 << 16  # of bodies of unrolled loops in one program: compilers take a fifth of a millisecond for each


def expand_loops(
    func: PrimFunc, at: Setting | None = None, kinds: tuple[str, ...] = ("unrolled", "vectorized")
) -> PrimFunc:
    """The program without unrolled and vectorized loops (or without those of the given kinds).

    Config "tir.disable_vectorize": vectorized loops become serial ones.
    """
    allocs, body = peel(func.body)
    vectors, across = at is None or not at.flag("tir.disable_vectorize"), at is not None and at.kind == "llvm"
    expander = Expander(body, kinds, vectors, across)
    if not expander.names:
        return func
    return PrimFunc(func.name, func.params, wrap(allocs, expander.stmt(body) or SeqStmt(())), func.attrs)


class Expander:
    """The walk: `env` maps variables of expanded loops to numbers or ramps, `memo` keeps what was built with them.

    across: vectors are also stored over the ends of rows, where lanes are neighbours in memory all the same.
    """

    def __init__(
        self,
        body: Stmt,
        kinds: tuple[str, ...] = ("unrolled", "vectorized"),
        vectors: bool = True,
        across: bool = False,
    ) -> None:
        self.kinds, self.vectors, self.across = kinds, vectors, across
        self.room = MAX_COPIES
        self.env: dict[Var, PrimExpr] = {}
        self.names: set[Var] = set()
        self.deps: dict[Any, tuple[Var, ...]] = {}
        self.below: dict[Any, tuple[Any, ...]] = {}
        self.memo: dict[Any, Any] = {}
        self.lane: Var | None = None  # variable of the vectorized loop that is being walked
        self.lanes = 1
        stack: list[Any] = [body]
        lets: list[Var] = []
        while stack:
            s = stack.pop()
            if isinstance(s, For) and s.kind in kinds:
                self.names.add(s.var)
            elif isinstance(s, LetStmt):
                lets.append(s.var)
            stack.extend(kids(s))
        if self.names:
            self.names.update(lets)

    # ------------------------------------------------------------------------------------------------------ expressions

    def _deps(self, root: Any) -> tuple[Var, ...]:
        found = self.deps.get(root)
        if found is not None:
            return found
        deps = self.deps
        for n in post_order(root, enter=lambda n: n not in deps):
            if n in deps:
                continue
            if isinstance(n, Var):
                deps[n] = (n,) if n in self.names else ()
                continue
            below = self.below[n] = children(n)
            found = ()
            for c in below:
                theirs = deps[c]
                if theirs and theirs is not found:
                    found = theirs if not found else tuple(dict.fromkeys((*found, *theirs)))
            deps[n] = found
        return deps[root]

    def ev(self, root: Any) -> Any:
        """An expression with the environment put in; vectors where it depends on the lane."""
        if not self._deps(root):
            return root
        env, memo, deps = self.env, self.memo, self.deps
        if type(root) is Var:
            return env.get(root, root)
        hit = memo.get((root, *[env.get(v, v) for v in deps[root]]))
        if hit is not None:
            return hit
        done: dict[Any, Any] = {}
        stack = [root]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            waiting = []
            for c in self.below[node]:
                if c in done:
                    continue
                mine = deps[c]
                if not mine:
                    done[c] = c
                elif type(c) is Var:
                    done[c] = env.get(c, c)
                else:
                    hit = memo.get((c, *[env.get(v, v) for v in mine]))
                    if hit is None:
                        waiting.append(c)
                    else:
                        done[c] = hit
            if waiting:
                stack += waiting
                continue
            stack.pop()
            memo[(node, *[env.get(v, v) for v in deps[node]])] = done[node] = build(node, done, self)
        return done[root]

    def scalars(self, node: Any) -> list[Any]:
        """The value of an expression in each lane."""
        assert self.lane is not None
        ramp = self.env[self.lane]
        assert isinstance(ramp, Ramp)
        found = []
        try:
            for k in range(ramp.count):
                self.env[self.lane] = e.add(ramp.base, k)
                found.append(self.ev(node))
        finally:
            self.env[self.lane] = ramp
        return found

    def scalar(self, node: Any) -> Any:
        """An expression that must not depend on the lane."""
        value = self.ev(node)
        if is_vector(value):
            raise NotVectorizable
        return value

    # ------------------------------------------------------------------------------------------------------- statements

    def stmt(self, s: Any) -> Stmt | None:
        rule = _RULES.get(type(s))
        if rule is None:
            raise LowerError(f"a {type(s).__name__} cannot be lowered here")
        return rule(self, s)  # type: ignore[no-any-return]

    def seq(self, s: SeqStmt) -> Stmt | None:
        new = [n for n in (self.stmt(c) for c in s.stmts) if n is not None]
        return seq(*new) if new else None

    def loop(self, s: For) -> Stmt | None:
        low, extent = self.scalar(s.min), self.scalar(s.extent)
        count = e.const_int(extent)
        if count is not None and count <= 0:
            return None
        if s.kind not in self.kinds:
            return self.plain(s, low, extent, s.kind)
        if s.kind == "vectorized" and (self.lane is not None or not self.vectors):
            return self.plain(s, low, extent)
        if count is None:
            return self.either(s, low, extent)
        return self.copies(s, low, count) if s.kind == "unrolled" or count == 1 else self.vector(s, low, count)

    def plain(self, s: For, low: PrimExpr, extent: PrimExpr, kind: str = "serial") -> Stmt | None:
        body = self.stmt(s.body)
        return None if body is None else For(s.var, low, extent, kind, body, s.annotations, s.thread)

    def copies(self, s: For, low: PrimExpr, count: int) -> Stmt | None:
        if count > MAX_UNROLL:
            raise LowerError(f"loop {s.var.name} of {count} iterations is too long to unroll", hint="split it first")
        self.room -= count
        if self.room < 0:
            raise LowerError(
                f"unrolling makes more than {MAX_COPIES} copies of loop bodies, the last ones of {s.var.name}",
                hint="unroll the inner loops only, or split them and unroll the inner parts",
            )
        made: list[Stmt] = []
        for k in range(count):
            self.env[s.var] = e.add(low, k)
            body = self.stmt(s.body)
            if body is not None:
                made.append(body)
        del self.env[s.var]
        return seq(*made) if made else None

    def vector(self, s: For, low: PrimExpr, count: int) -> Stmt | None:
        self.env[s.var] = Ramp(low, e.const(1, s.var.dtype), count)
        self.lane, self.lanes = s.var, count
        try:
            return self.stmt(s.body)
        except NotVectorizable:
            body = None
        finally:
            del self.env[s.var]
            self.lane, self.lanes = None, 1
        return self.plain(s, low, e.const(count, s.var.dtype)) or body

    def either(self, s: For, low: PrimExpr, extent: PrimExpr) -> Stmt | None:
        """A loop of min(c, x) iterations: expanded for c, serial for the rest; serial where there is no such c."""
        sides = e.flattened(extent, e.Min)
        limits = [x for x in sides if isinstance(x, IntImm)]
        if not limits:
            return self.plain(s, low, extent)
        full = min(limits, key=lambda x: x.value)
        others = [x for x in sides if not isinstance(x, IntImm)]
        rest = others[0]
        for x in others[1:]:
            rest = e.minimum(rest, x)
        whole = self.copies(s, low, full.value) if s.kind == "unrolled" else self.vector(s, low, full.value)
        short = self.plain(s, low, extent if len(limits) > 1 else rest)
        if whole is None or short is None:
            return None
        return IfThenElse(rest >= full, whole, short)

    def branch(self, s: IfThenElse) -> Stmt | None:
        cond = self.scalar(s.cond)
        if isinstance(cond, IntImm):
            return self.stmt(s.then) if cond.value else None if s.orelse is None else self.stmt(s.orelse)
        then = self.stmt(s.then)
        orelse = None if s.orelse is None else self.stmt(s.orelse)
        if then is None:
            return None if orelse is None else IfThenElse(e.lnot(cond), orelse)
        return IfThenElse(cond, then, orelse)

    def let(self, s: LetStmt) -> Stmt | None:
        value = self.ev(s.value)
        if not is_vector(value):
            body = self.stmt(s.body)
            return None if body is None else LetStmt(s.var, value, body)
        var = Var(s.var.name, value.dtype)
        self.env[s.var] = var
        try:
            body = self.stmt(s.body)
        finally:
            del self.env[s.var]
        return None if body is None else LetStmt(var, value, body)

    def allocate(self, s: Allocate) -> Stmt | None:
        if self.lane is not None:
            raise NotVectorizable
        body = self.stmt(s.body)
        return None if body is None else Allocate(s.buffer, body, s.annotations)

    def store(self, s: BufferStore) -> Stmt:
        index = [self.ev(i) for i in s.indices]
        value = self.ev(s.value)
        wide = [k for k, i in enumerate(index) if is_vector(i)]
        if all(dt.lanes(i.dtype) == dt.lanes(old.dtype) for i, old in zip(index, s.indices, strict=True)):
            if not wide and is_vector(value):
                raise NotVectorizable
            return BufferStore(s.buffer, value, index)
        if wide == [len(index) - 1] and isinstance(index[-1], Ramp):
            return BufferStore(s.buffer, widen(value, index[-1].count), index)
        if not self.across or not neighbours(s.buffer, index, self.lanes):
            raise NotVectorizable
        return BufferStore(s.buffer, widen(value, self.lanes), index)

    def evaluate(self, s: Evaluate) -> Stmt:
        return Evaluate(self.scalar(s.value))

    def check(self, s: AssertStmt) -> Stmt:
        return AssertStmt(self.scalar(s.cond), s.message)

    def loop_while(self, s: While) -> Stmt:
        if self.lane is not None:
            raise NotVectorizable
        return While(self.ev(s.cond), self.stmt(s.body) or SeqStmt(()))


_RULES: dict[type, Any] = {
    SeqStmt: Expander.seq,
    For: Expander.loop,
    BufferStore: Expander.store,
    IfThenElse: Expander.branch,
    LetStmt: Expander.let,
    Allocate: Expander.allocate,
    While: Expander.loop_while,
    Evaluate: Expander.evaluate,
    AssertStmt: Expander.check,
}
