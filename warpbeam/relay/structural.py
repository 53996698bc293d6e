"""Equality and hash of Relay programs up to the names of variables, and a message that says where two differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from warpbeam.ir.diagnostics import VerifyError
from warpbeam.ir.node import Attrs, Binder, Node
from warpbeam.ir.structural import nodes_in
from warpbeam.relay.expr import ConstData, Constructor, Expr, GlobalVar, IRModule
from warpbeam.relay.types import GlobalTypeVar

__all__ = ["assert_structural_equal", "structural_equal", "structural_hash"]

_GLOBAL = (GlobalVar, GlobalTypeVar, Constructor)
Row = tuple[Any, ...]


def structural_equal(a: IRModule | Node, b: IRModule | Node) -> bool:
    """Whether two programs are the same up to the names of local variables, sizes and type variables."""
    return a is b or _difference(a, b) is None


def assert_structural_equal(a: IRModule | Node, b: IRModule | Node) -> None:
    """Raises VerifyError with the first difference and both texts."""
    found = None if a is b else _difference(a, b)
    if found is not None:
        from warpbeam.relay.text import to_text

        texts = [to_text(p, "elide") if isinstance(p, IRModule | Expr) else repr(p) for p in (a, b)]
        raise VerifyError(
            f"the programs differ: {found[0]} against {found[1]}\n{texts[0]}\n--- against ---\n{texts[1]}"
        )


def structural_hash(program: IRModule | Node) -> str:
    """A digest that is equal for structurally equal programs, and the same in every process."""
    h = hashlib.sha256()
    for row in _rows(program):
        h.update(repr(row).encode())
    return h.hexdigest()


def _difference(a: IRModule | Node, b: IRModule | Node) -> tuple[Row, Row] | None:
    ra, rb = _rows(a), _rows(b)
    while True:
        x, y = next(ra, ()), next(rb, ())
        if repr(x) != repr(y):
            return x, y
        if not x:
            return None


def _rows(program: IRModule | Node) -> Iterator[Row]:
    """One row per node, children first: class, then fields, nodes by their number. Equal rows mean equal programs."""
    roots = _roots(program) if isinstance(program, IRModule) else [("", program)]
    number: dict[int, int] = {}
    for name, root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, done = stack.pop()
            if id(node) in number:
                continue
            parts = _parts(node)
            if not done:
                stack.append((node, True))
                below = nodes_in(parts)
                stack.extend((n, False) for n in reversed(below) if id(n) not in number)
                continue
            number[id(node)] = len(number)
            yield (type(node).__name__, *(_shown(p, number) for p in parts))
        yield ("root", name, number[id(root)])


def _roots(mod: IRModule) -> list[tuple[str, Node]]:
    out: list[tuple[str, Node]] = [(t.name, mod.types[t]) for t in sorted(mod.types, key=lambda t: t.name)]
    return out + [(g.name, mod.functions[g]) for g in sorted(mod.functions, key=lambda g: g.name)]


def _parts(node: Node) -> list[Any]:
    """Field values that make a node what it is: all but the names of local binders."""
    if isinstance(node, GlobalVar | GlobalTypeVar):
        return [node.name]
    if isinstance(node, Constructor):
        return [node.name, node.belongs_to, node.tag]
    fields = type(node)._fields
    skip = "name" if isinstance(node, Binder) else None
    values = [getattr(node, f) for f in fields if f != skip]
    name = getattr(type(node), "name", None)
    return [*values, name] if not fields and isinstance(name, str) else values


def _shown(value: Any, number: dict[int, int]) -> Any:
    if isinstance(value, Node):
        return ("#", number[id(value)])
    if isinstance(value, ConstData):
        array = value.array
        content = tuple(array.reshape(-1).tolist()) if array.dtype == object else value.digest
        return ("data", str(array.dtype), array.shape, content)
    if type(value) is tuple:
        return tuple(_shown(v, number) for v in value)
    if isinstance(value, Attrs):
        return tuple((k, _shown(v, number)) for k, v in value.items())
    return value
