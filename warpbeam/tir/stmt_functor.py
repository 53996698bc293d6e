"""Walks over statements and expressions, for passes written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warpbeam.ir import rewrite as rw
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Node
from warpbeam.tir.expr import as_expr
from warpbeam.tir.stmt import IterVar


def post_order_visit(stmt: Node, fvisit: Callable[[Any], Any]) -> None:
    """Calls `fvisit` once for every node, children before parents."""
    for node in rw.post_order(stmt):
        fvisit(node)


def pre_order_visit(stmt: Node, fvisit: Callable[[Any], Any]) -> None:
    """Calls `fvisit` once for every node, parents first; where it returns False the children are left out."""
    from warpbeam.ir.node import children

    seen: set[int] = set()
    todo = [stmt]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if fvisit(node) is not False:
            todo.extend(reversed(children(node)))


def substitute(node: Node, vmap: Mapping[Any, Any]) -> Any:
    """`node` with variables (or axes) replaced by expressions, numbers or other variables."""
    mapping = {(k.var if isinstance(k, IterVar) else k): as_expr(v) for k, v in vmap.items()}
    return rw.substitute(node, mapping)


def ir_transform(
    stmt: Node,
    preorder: Callable[[Any], Any] | None,
    postorder: Callable[[Any], Any] | None,
    only_enable: Sequence[str] | None = None,
) -> Any:
    """Rewrites a statement.

    preorder: called before a node's children; what it returns takes the node's place and is not entered, None goes on.
    postorder: called with the node whose children are rewritten; None keeps it. only_enable: class names such as
    "tir.For", to which both are limited.
    """
    names = None if only_enable is None else {n.rsplit(".", 1)[-1] for n in only_enable}

    def chosen(node: Any) -> bool:
        return names is None or type(node).__name__ in names

    memo: dict[Any, Any] = {}
    if preorder is not None:

        def enter(node: Any) -> bool:
            if node in memo:
                return False
            if chosen(node):
                new = preorder(node)
                if new is not None:
                    memo[node] = _checked(new)
                    return False
            return True

        for _ in rw.post_order(stmt, enter=enter):
            pass

    def leave(node: Any) -> Any:
        new = postorder(node) if postorder is not None and chosen(node) else None
        return None if new is None else _checked(new)

    return rw.rewrite(stmt, leave, memo)


def _checked(new: Any) -> Node:
    if not isinstance(new, Node):
        raise IRError(f"a transformation returned {type(new).__name__}", hint="return a node, or None to keep it")
    return new
