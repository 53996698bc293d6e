"""Traversal and rewriting of node graphs without recursion, and rules as data.

`post_order` visits every node once, children first. `rewrite` rebuilds bottom up. A `Rule` is pattern, replacement and
guard over pattern variables; a `RuleSet` indexes rules by root class and applies them to a fixed point.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from warpbeam.ir.node import Attrs, Node, NodeMemo, children, map_children

_MOST_ORIGINS = 64
_NOWHERE: frozenset[str] = frozenset()
_ORIGINS: NodeMemo[frozenset[str]] = NodeMemo()


def origins(node: Node) -> frozenset[str]:
    """Source places a node stems from (names of model nodes); a side table, never part of identity."""
    return _ORIGINS.get(node) or _NOWHERE


def add_origins(node: Node, places: Iterable[str]) -> None:
    """Notes source places of a node; of very many the first are kept, so that long chains stay cheap to fold."""
    found = frozenset(places)
    have = origins(node)
    if found <= have or len(have) >= _MOST_ORIGINS:
        return
    both = have | found
    _ORIGINS[node] = both if len(both) <= _MOST_ORIGINS else have | {*sorted(found - have)[: _MOST_ORIGINS - len(have)]}


def post_order(*roots: Node, enter: Callable[[Node], bool] | None = None) -> Iterator[Node]:
    """Every node below the roots once, children before parents; `enter(node)` False keeps a node's children out."""
    seen: set[Any] = set()
    stack: list[Any] = [*reversed(roots)]  # a node to visit, or None above one whose children are visited
    while stack:
        node = stack.pop()
        if node is None:
            yield stack.pop()
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        if enter is None or enter(node):
            try:
                below = node._below
            except AttributeError:
                below = children(node)
            if below:
                stack.append(node)
                stack.append(None)
                stack.extend(below[::-1])
                continue
        yield node


def rewrite(root: Node, fn: Callable[[Node], Node | None] | None, memo: dict[Node, Node] | None = None) -> Any:
    """Bottom-up rewrite: each node is rebuilt from its new children, then `fn` may replace it (None keeps it).

    Without `fn` only the memo replaces nodes.
    `memo` maps old nodes to new ones and may be shared between calls; entries put in beforehand are substitutions.
    """
    done: dict[int, Node] = {} if memo is None else {id(k): v for k, v in memo.items()}
    keep: list[Node] = []

    def new_child(child: Node) -> Node:
        return done[id(child)]

    stack: list[Any] = [root]  # a node to visit, or None above one whose children are visited
    while stack:
        node = stack.pop()
        if node is not None:
            if id(node) in done:
                continue
            missing = [c for c in children(node) if id(c) not in done]
            if missing:
                stack += (node, None, *missing)
                continue
        else:
            node = stack.pop()
            if id(node) in done:
                continue
        new = map_children(node, new_child)
        places = _ORIGINS.get(node)
        if places and new is not node:
            add_origins(new, places)  # `fn` may ask where it stems from
        if fn is not None:
            replaced = fn(new)
            if replaced is not None and replaced is not new:
                new = replaced
                if places:
                    add_origins(new, places)
        done[id(node)] = new
        keep.append(node)
        if memo is not None:
            memo[node] = new
    return done[id(root)]


def substitute(root: Node, mapping: dict[Any, Any]) -> Any:
    """`root` with each key node of `mapping` replaced by its value."""
    if not mapping:
        return root
    return rewrite(root, None, dict(mapping))


# ---------------------------------------------------------------------------------------------------------------- rules


@dataclass(frozen=True, slots=True, eq=False)
class PVar:
    """Pattern variable: matches any node (or field value) that passes `where`; the same variable must match equal
    things.
    """

    name: str
    where: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Pat:
    """Pattern of one node: class, then a pattern (PVar, Pat or literal) for each leading field."""

    cls: type[Node]
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """`pattern` becomes `build(**matches)` where `guard(**matches)` holds. Knows the file and line it stands in."""

    pattern: Pat
    build: Callable[..., Any]
    guard: Callable[..., bool] | None
    comment: str
    place: str


def rule(pattern: Pat, build: Callable[..., Any], guard: Callable[..., bool] | None = None, comment: str = "") -> Rule:
    """One rewrite rule; `comment` states the identity."""
    frame = sys._getframe(1)
    return Rule(pattern, build, guard, comment, f"{frame.f_code.co_filename}:{frame.f_lineno}")


def match(pattern: Any, value: Any, found: dict[str, Any]) -> bool:
    """Whether `value` has the form `pattern`; fills `found` with the pattern variables' matches."""
    if isinstance(pattern, PVar):
        if pattern.name in found:
            return found[pattern.name] is value
        if pattern.where is not None and not pattern.where(value):
            return False
        found[pattern.name] = value
        return True
    if isinstance(pattern, Pat):
        if type(value) is not pattern.cls:
            return False
        fields = pattern.cls._fields
        return all(match(p, getattr(value, f), found) for p, f in zip(pattern.args, fields, strict=False))
    if isinstance(pattern, tuple):
        return (
            type(value) is tuple
            and len(value) == len(pattern)
            and all(map(lambda p, v: match(p, v, found), pattern, value))
        )
    if isinstance(pattern, Node | Attrs):
        return pattern is value
    return type(pattern) is type(value) and bool(pattern == value)


@dataclass(slots=True)
class RuleSet:
    """Rules indexed by the class of their root; `apply` rewrites a graph to a fixed point, bottom up."""

    rules: list[Rule]
    limit: int = 64
    index: dict[type, list[Rule]] = field(init=False)

    def __post_init__(self) -> None:
        self.index = {}
        for r in self.rules:
            self.index.setdefault(r.pattern.cls, []).append(r)

    def step(self, node: Node) -> Node | None:
        """The first rule's result at this very node, or None."""
        for r in self.index.get(type(node), ()):
            found: dict[str, Any] = {}
            if match(r.pattern, node, found) and (r.guard is None or r.guard(**found)):
                new = r.build(**found)
                if new is not None and new is not node:
                    return new  # type: ignore[no-any-return]
        return None

    def at(self, node: Node) -> Node | None:
        """Applies rules at this node until none fits (at most `limit` times)."""
        current, changed = node, False
        for _ in range(self.limit):
            new = self.step(current)
            if new is None:
                break
            current, changed = new, True
        return current if changed else None

    def apply(self, root: Node, rounds: int = 8) -> Any:
        """Rewrites the whole graph, repeating until nothing changes (at most `rounds` sweeps)."""
        for _ in range(rounds):
            new = rewrite(root, self.at)
            if new is root:
                return root
            root = new
        return root
