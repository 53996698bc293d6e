"""Binders that a program uses where nothing binds them: its text declares them ahead."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Attrs, Node, children
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s

Used = dict[Any, None]  # an ordered set


def free_binders(func: s.PrimFunc) -> list[Any]:
    """Variables and buffers of `func` used outside the scope of any binding of theirs, in order of appearance."""
    found: dict[int, Used] = {}
    stack: list[tuple[Any, bool]] = [(func.body, False)]
    while stack:
        n, ready = stack.pop()
        if id(n) in found:
            continue
        if ready:
            found[id(n)] = _of(n, found)
        else:
            stack.append((n, True))
            stack.extend((c, False) for c in _below(n) if id(c) not in found)
    used: Used = dict(found[id(func.body)])
    for b in func.buffers:
        used.update(_shape(b))
    for n in _nodes(func.attrs):
        used.update(_plain(n))
    for b in list(used):
        used.update(_shape(b))
    params = set(func.params)
    return [b for b in used if b not in params]


def _nodes(value: Any) -> list[Node]:
    if isinstance(value, Node):
        return [value]
    inside = value.values() if isinstance(value, Attrs) else value if type(value) is tuple else ()
    return [n for v in inside for n in _nodes(v)]


def _below(n: Node) -> list[Node]:
    if isinstance(n, e.Buffer):
        return [d for d in (*n.shape, *n.strides, n.elem_offset) if isinstance(d, Node)]
    notes = [x for f in ("attrs", "annotations") if hasattr(n, f) for x in _nodes(getattr(n, f))]
    return [*children(n), *notes]


def _plain(root: Any) -> Used:
    """Binders below an expression."""
    out: Used = {}
    todo, seen = [root], set()
    while todo:
        n = todo.pop()
        if id(n) not in seen:
            seen.add(id(n))
            if isinstance(n, e.Var | e.Buffer):
                out[n] = None
            todo += reversed(_below(n))
    return out


def _shape(b: Any) -> Used:
    out: Used = {}
    if isinstance(b, e.Buffer):
        for d in (*b.shape, *b.strides, b.elem_offset):
            if isinstance(d, Node):
                out.update(_plain(d))
    return out


def _parts(n: Any) -> tuple[list[Any], list[Any], set[Any]]:
    """(parts outside of what n binds, parts inside, the binders)."""
    notes = [x for f in ("attrs", "annotations") if hasattr(n, f) for x in _nodes(getattr(n, f))]
    if isinstance(n, s.For):
        return [n.min, n.extent, *notes], [n.body], {n.var}
    if isinstance(n, s.LetStmt | e.Let):
        return [n.value], [n.body], {n.var}
    if isinstance(n, s.Allocate):
        return [*_shape(n.buffer), *notes], [n.body], {n.buffer}
    if isinstance(n, s.Block):
        outer = [*n.bindings, *(a.extent for a in n.axes), *notes]
        inner = [x for x in (n.predicate, n.init, n.body) if x is not None]
        return outer, inner, {a.var for a in n.axes}
    return _below(n), [], set()


def _of(n: Any, found: dict[int, Used]) -> Used:
    """Free binders of one node from those of its parts."""
    if isinstance(n, e.Var | e.Buffer):
        return {n: None}
    outer, inner, bound = _parts(n)
    out: Used = {}
    for x in outer:
        out.update(found[id(x)])
    for x in inner:
        out.update((b, None) for b in found[id(x)] if b not in bound)
    return out
