"""Equality and hashes of programs up to the identity of binders: the same in every process, for caches and tests.

Two programs are equal if their nodes match one to one, binders (variables, buffers, operations) numbered in the order
in which they appear. Every field counts except binders' names and uids. Nothing depends on Python's hash seed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Attrs, Binder, Node


def structural_hash(root: Any, names: bool = False) -> str:
    """Hex digest (32 digits) of a node or a tuple of nodes; with `names`, binders' names count too."""
    digest = hashlib.blake2b(digest_size=16)
    for line in _lines(root, names):
        digest.update(line.encode())
    return digest.hexdigest()


def structural_equal(a: Any, b: Any, names: bool = False) -> bool:
    """Whether two nodes (or tuples of nodes) are the same program up to the identity of binders."""
    if a is b:
        return True
    left, right = _lines(a, names), _lines(b, names)
    for x in left:
        if x != next(right, None):
            return False
    return next(right, None) is None


def _lines(root: Any, names: bool) -> Iterator[str]:
    """One line per distinct node, children first; nodes refer to each other by line number."""
    number: dict[int, int] = {}
    seen: set[int] = set()
    roots = root if isinstance(root, tuple) else (root,)
    stack: list[tuple[Any, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        n, ready = stack.pop()
        if id(n) in number:
            continue
        if not ready:
            if id(n) in seen:
                raise IRError(f"a {type(n).__name__} contains itself")
            below = nodes_in(_fields(n, names))
            if any(id(c) not in number for c in below):
                seen.add(id(n))
                stack.append((n, True))
                stack.extend((c, False) for c in reversed(below) if id(c) not in number)
                continue
        number[id(n)] = len(number)
        fields = ",".join(_text(v, number) for v in _fields(n, names))
        yield f"{type(n).__name__}({fields})\n"
    yield " ".join(str(number[id(r)]) for r in roots)


def _fields(n: Node, names: bool) -> list[Any]:
    """Field values that count: all, but for a binder's name and what a class declares a label."""
    cls = type(n)
    if not names and (isinstance(n, Binder) or cls._labels):
        return [getattr(n, f) for f in cls._fields if f not in (cls._labels or ("name",))]
    return [getattr(n, f) for f in cls._fields]


def nodes_in(values: Sequence[Any]) -> list[Node]:
    """The nodes among field values, those inside tuples and Attrs included, in order."""
    found: list[Node] = []
    todo = list(reversed(values))
    while todo:
        v = todo.pop()
        if isinstance(v, Node):
            found.append(v)
        elif type(v) is tuple:
            todo.extend(reversed(v))
        elif isinstance(v, Attrs):
            todo.extend(reversed(list(v.values())))
    return found


def _text(value: Any, number: dict[int, int]) -> str:
    if isinstance(value, Node):
        return f"#{number[id(value)]}"
    if type(value) is tuple:
        return "(" + ",".join(_text(v, number) for v in value) + ")"
    if isinstance(value, Attrs):
        return "{" + ",".join(f"{k!r}:{_text(v, number)}" for k, v in value.items()) + "}"
    if value is None or isinstance(value, bool | int | str | bytes):
        return repr(value)
    if isinstance(value, float):
        return "f" + struct.pack(">d", value).hex()
    digest = getattr(value, "digest", None)
    if digest is not None:
        return f"<{digest() if callable(digest) else digest}>"
    raise IRError(
        f"a field of type {type(value).__name__} cannot be hashed",
        hint="use nodes, numbers, strings, tuples and dicts in fields and attributes",
    )
