"""Moves what lies inside the branches of an If into functions of the module, so that each function is a straight line.

    def @main(x, c) { y = exp(x); if c { y + 1 } else { log(x) } }
->  def @main(x, c) { y = exp(x); if c { @main_then(y) } else { @main_else(x) } }

Only what no path outside the branches needs moves; the rest is computed before and captured. A branch that calls the
function it stands in (a loop written as tail recursion) keeps that call; what its arguments need moves.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.names import fresh_name
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.ir.transform import module_pass
from warpbeam.relay.expr import Call, Constant, Expr, Function, GlobalVar, If, IRModule, Tuple, TupleGetItem, Var
from warpbeam.relay.op import Op
from warpbeam.relay.types import FuncType


@module_pass(opt_level=0, name="LiftBranches")
class LiftBranches:
    """Branches become calls of functions."""

    def transform_module(self, mod: IRModule, ctx: Any) -> IRModule:
        if not any(isinstance(f, Function) and has_branches(f.body) for f in mod.functions.values()):
            return mod
        out = IRModule({}, mod.types)
        work = list(mod.functions.items())
        names = {g.name for g in mod.functions}
        while work:
            gv, fn = work.pop(0)
            if isinstance(fn, Function) and has_branches(fn.body):
                lifter = _Lifter(gv, fn, names)
                fn = lifter.run()
                work += lifter.made
            out[gv] = fn
        return out


def has_branches(body: Node) -> bool:
    """Whether an If stands in the body outside of nested functions."""
    return any(isinstance(n, If) for n in post_order(body, enter=lambda n: not isinstance(n, Function)))


def always(root: Node) -> set[Node]:
    """The nodes that are needed whichever branches are taken."""
    seen: set[Node] = set()
    stack: list[Node] = [root]
    while stack:
        n = stack.pop()
        if n not in seen:
            seen.add(n)
            stack += [n.cond] if isinstance(n, If) else [] if isinstance(n, Function) else children(n)
    return seen


class _Lifter:
    """Lifts the outermost branches of one function; nested ones are lifted when the new functions are visited."""

    def __init__(self, gv: GlobalVar, fn: Function, names: set[str]) -> None:
        self.gv, self.fn, self.names = gv, fn, names
        self.outside = always(fn.body)
        self.memo: dict[Node, Node] = {}
        self.made: list[tuple[GlobalVar, Function]] = []

    def run(self) -> Function:
        """The function with every branch a call."""
        stack = [n for n in self.outside if isinstance(n, If)]
        while stack:
            node = stack[-1]
            if node in self.memo:
                stack.pop()
                continue
            needed = [node.cond, *self._captured(node.then), *self._captured(node.orelse)]
            waiting = [n for root in needed for n in always(root) if isinstance(n, If) and n not in self.memo]
            if waiting:
                stack += waiting
                continue
            then, orelse = self._branch(node.then, "then"), self._branch(node.orelse, "else")
            self.memo[node] = If(self._new(node.cond), then, orelse)
        body = self._new(self.fn.body)
        return self.fn if body is self.fn.body else self.fn.replace(body=body)

    def _new(self, node: Any) -> Any:
        return rewrite(node, None, self.memo)

    def _captured(self, root: Expr) -> list[Expr]:
        """What a branch uses of the outside, in order of first use."""
        found: dict[Expr, None] = {}
        for n in self._inside(root):
            parts = children(n) if n is not root or not self._given(root) else [root]
            found.update(dict.fromkeys(c for c in parts if isinstance(c, Expr) and self._given(c)))
        return list(found)

    def _inside(self, root: Expr) -> list[Node]:
        return list(post_order(root, enter=lambda n: not self._given(n) and not isinstance(n, Function)))

    def _given(self, node: Node) -> bool:
        """Whether a node is a value from outside the branch; constants and names stand wherever they are used."""
        if isinstance(node, Constant | GlobalVar | Function | Op) or not isinstance(node, Expr):
            return False
        return isinstance(node, Var) or node in self.outside

    def _branch(self, root: Expr, what: str) -> Expr:
        if isinstance(root, Call) and root.op is self.gv:
            own = list(dict.fromkeys(a for a in root.args if not self._given(a) and not isinstance(a, Constant)))
            moved: dict[Expr, Expr] = {}
            if own:
                step = self._lifted(Tuple(tuple(own)), "step")
                moved = {a: TupleGetItem(step, k) for k, a in enumerate(own)}
            return Call(self.gv, tuple(moved.get(a) or self._new(a) for a in root.args), root.attrs)
        if isinstance(root, Constant) or self._given(root) or _is_call_of(root, self._given):
            return self._new(root)  # type: ignore[no-any-return]
        return self._lifted(root, what)

    def _lifted(self, root: Expr, what: str) -> Expr:
        captured = self._captured(root)
        params = tuple(Var(f"p{i}", c.ty) for i, c in enumerate(captured))
        body: Any = substitute(root, dict(zip(captured, params, strict=True)))
        fn = Function(params, body)
        name = fresh_name(f"{self.gv.name}_{what}", self.names)
        gv = GlobalVar(name, FuncType(tuple(p.ty for p in params), body.ty))
        self.made.append((gv, fn))
        return Call(gv, tuple(self._new(c) for c in captured))


def _is_call_of(node: Expr, given: Any) -> bool:
    """Whether a node is already a call of a named function on values from outside."""
    return isinstance(node, Call) and isinstance(node.op, GlobalVar) and all(given(a) for a in node.args)
