"""Einsum as transposes, sums and matrix products: operands are contracted from left to right."""

from __future__ import annotations

from typing import Any

from warpbeam.frontend.onnx.build import Result, rank_of, reshape, shape_of, transpose
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.op import get
from warpbeam.relay.expr import Expr
from warpbeam.topi import dims

Labels = tuple[str, ...]


def parse(node: NodeView, ranks: list[int]) -> tuple[list[Labels], Labels]:
    """Labels of each operand and of the result; those under an ellipsis are ".0", ".1", … from the right."""
    equation = node.attr("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise node.error(f"the equation has {len(terms)} terms for {len(ranks)} inputs")
    operands = [_labels(node, t, rank) for t, rank in zip(terms, ranks, strict=True)]
    widest = max((sum(c[0] == "." for c in o) for o in operands), default=0)
    dots = tuple(f".{k}" for k in reversed(range(widest)))
    if not arrow:
        every = [c for o in operands for c in o if c[0] != "."]
        return operands, dots + tuple(sorted(c for c in set(every) if every.count(c) == 1))
    head, ellipsis, tail = right.partition("...")
    letters = head + tail
    known = {c for o in operands for c in o}
    if len(set(letters)) != len(letters) or not all(c.isalpha() and c in known for c in letters):
        raise node.error(f"the result {right[:40]!r} of the equation repeats a label or has one that no input has")
    return operands, tuple(head) + (dots if ellipsis else ()) + tuple(tail)


def _labels(node: NodeView, term: str, rank: int) -> Labels:
    head, ellipsis, tail = term.partition("...")
    if not all(c.isascii() and c.isalpha() for c in head + tail):
        raise node.error(f"the term {term[:40]!r} of the equation")
    hidden = rank - len(head) - len(tail)
    if hidden < 0 or (hidden and not ellipsis):
        raise node.error(f"the term {term[:40]!r} does not fit an input with {rank} dimensions")
    return tuple(head) + tuple(f".{k}" for k in reversed(range(hidden))) + tuple(tail)


def einsum(node: NodeView, *inputs: Expr) -> Result:
    """Any Einsum equation, with ellipses and repeated labels."""
    operands, result = parse(node, [rank_of(x) for x in inputs])
    sizes: dict[str, Any] = {}
    for x, labels in zip(inputs, operands, strict=True):
        for c, d in zip(labels, shape_of(x), strict=True):
            have = sizes.setdefault(c, d)
            if isinstance(have, int) and have == 1:
                sizes[c] = d
            elif not (isinstance(d, int) and d == 1) and dims.same(have, d) is False:
                raise node.error(f"label {c!r} has sizes {dims.text(have)} and {dims.text(d)}")
    value, labels = _single(node, inputs[0], operands[0])
    for k in range(1, len(inputs)):
        other, names = _single(node, inputs[k], operands[k])
        needed = set(result).union(*operands[k + 1 :])
        value, labels = _pair(value, labels, other, names, needed, sizes)
    value, labels = _summed(value, labels, set(result))
    value = transpose(value, [labels.index(c) for c in result if c in labels])
    return _spread(value, [c for c in result if c in labels], result, sizes)


def _spread(value: Expr, labels: list[str], result: Labels, sizes: dict[str, Any]) -> Expr:
    """Labels that got lost because they had size 1 come back."""
    shape = tuple(sizes[c] for c in result)
    value = reshape(value, tuple(shape_of(value)[labels.index(c)] if c in labels else 1 for c in result))
    return value if shape_of(value) == shape else get("broadcast_to")(value, shape=shape)  # type: ignore[no-any-return]


def _single(node: NodeView, x: Expr, labels: Labels) -> tuple[Expr, Labels]:
    """One operand with repeated labels replaced by the diagonal."""
    while len(set(labels)) < len(labels):
        c = next(c for c in labels if labels.count(c) > 1)
        i = labels.index(c)
        j = labels.index(c, i + 1)
        rest = [k for k in range(len(labels)) if k not in (i, j)]
        x = transpose(x, [*rest, i, j])
        shape = shape_of(x)
        n = shape[-1]
        if not dims.same(shape[-2], n):
            raise node.error(f"label {c!r} has sizes {dims.text(shape[-2])} and {dims.text(n)}")
        if not isinstance(n, int):
            raise node.unsupported("the diagonal of a symbolic dimension")
        flat = reshape(x, (*shape[:-2], n * n))
        x = get("strided_slice")(flat, begin=(0,), end=(n * n,), strides=(n + 1,), axes=(len(rest),))
        labels = (*[labels[k] for k in rest], c)
    return x, labels


def _summed(x: Expr, labels: Labels, keep: set[str]) -> tuple[Expr, Labels]:
    """Labels outside `keep` summed away."""
    axes = tuple(k for k, c in enumerate(labels) if c not in keep)
    if not axes:
        return x, labels
    return get("sum")(x, axis=axes), tuple(c for c in labels if c in keep)


def _pair(a: Expr, la: Labels, b: Expr, lb: Labels, needed: set[str], sizes: dict[str, Any]) -> tuple[Expr, Labels]:
    """Two operands contracted over what nobody needs later."""
    a, la = _summed(a, la, needed | set(lb))
    b, lb = _summed(b, lb, needed | set(la))
    both = [c for c in la if c in lb]
    over = [c for c in both if c not in needed]
    batch = [c for c in both if c in needed]
    own_a, own_b = [c for c in la if c not in lb], [c for c in lb if c not in la]
    a = _full(transpose(a, [la.index(c) for c in (*batch, *own_a, *over)]), (*batch, *own_a, *over), both, sizes)
    b = _full(transpose(b, [lb.index(c) for c in (*batch, *over, *own_b)]), (*batch, *over, *own_b), both, sizes)
    at = len(batch)
    sa, sb = shape_of(a), shape_of(b)
    if not over:
        a = reshape(a, (*sa, *[1] * len(own_b)))
        b = reshape(b, (*sb[:at], *[1] * len(own_a), *sb[at:]))
        return get("multiply")(a, b), (*batch, *own_a, *own_b)
    m, k, n = (dims.prod(v) for v in (sa[at : at + len(own_a)], sa[at + len(own_a) :], sb[at + len(over) :]))
    left, right = reshape(a, (*sa[:at], m, k)), reshape(b, (*sb[:at], k, n))
    out = get("nn.matmul")(left, right)
    shape = (*sa[:at], *sa[at : at + len(own_a)], *sb[at + len(over) :])
    return reshape(out, shape), (*batch, *own_a, *own_b)


def _full(x: Expr, labels: tuple[str, ...], both: list[str], sizes: dict[str, Any]) -> Expr:
    """Shared labels of size 1 broadcast to their full size."""
    want = tuple(sizes[c] if c in both else d for c, d in zip(labels, shape_of(x), strict=True))
    same = all(a is b or a == b for a, b in zip(want, shape_of(x), strict=True))
    return x if same else get("broadcast_to")(x, shape=want)  # type: ignore[no-any-return]


TABLE: dict[str, dict[int, Any]] = {"Einsum": {12: einsum}}
