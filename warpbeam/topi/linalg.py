"""Products of tensors over chosen axes."""

from __future__ import annotations

from typing import Any

from warpbeam.te import tensor as te
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller, agree, norm_axis
from warpbeam.topi.nn.common import sum_stage
from warpbeam.topi.nn.products import matmul as nn_matmul


def matmul(a: te.Tensor, b: te.Tensor, transp_a: bool = False, transp_b: bool = False) -> Any:
    """The product of two matrices (or stacks of them), each transposed first if asked for."""
    return nn_matmul(a, b, None, None, transp_a, transp_b)


def tensordot(a: te.Tensor, b: te.Tensor, axes: Any = 2) -> Any:
    """Sum of products over `axes`: a number of a's last and b's first axes, or (axes of a, axes of b)."""
    who = Caller("tensordot")
    if isinstance(axes, int):
        left, right = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        given = [[v] if isinstance(v, int) else list(v) for v in axes]
        left, right = [norm_axis(who, v, a.ndim) for v in given[0]], [norm_axis(who, v, b.ndim) for v in given[1]]
    if len(left) != len(right):
        raise who.error(f"{len(left)} axes of a, {len(right)} of b")
    for i, j in zip(left, right, strict=True):
        agree(who, a.shape[i], b.shape[j], f"axis {i} of a and axis {j} of b")
    ks = [te.reduce_axis(a.shape[i], f"k{n}") for n, i in enumerate(left)]
    free_a = [d for d in range(a.ndim) if d not in left]
    free_b = [d for d in range(b.ndim) if d not in right]

    def body(convert: Any, *idx: Any) -> Any:
        at_a = dict(zip(left, (k.var for k in ks), strict=True))
        at_b = dict(zip(right, (k.var for k in ks), strict=True))
        at_a.update(zip(free_a, idx, strict=False))
        at_b.update(zip(free_b, idx[len(free_a) :], strict=True))
        return convert(a[tuple(at_a[d] for d in range(a.ndim))]) * convert(b[tuple(at_b[d] for d in range(b.ndim))])

    shape = [a.shape[d] for d in free_a] + [b.shape[d] for d in free_b]
    if not ks:
        return te.compute(shape, lambda *i: body(lambda v: v, *i), name="tensordot", tag=tag.BROADCAST)
    return sum_stage(shape, ks, body, a.dtype, "tensordot", tag.MATMUL)


def einsum(subscripts: str, *operand: te.Tensor) -> Any:
    """Einstein's summation: letters that the result does not name are summed; no ellipsis."""
    who = Caller("einsum")
    given, _, result = subscripts.replace(" ", "").partition("->")
    terms = given.split(",")
    if "." in subscripts or len(terms) != len(operand):
        raise who.error(f"subscripts {subscripts!r} for {len(operand)} operands", "one term per operand, no ellipsis")
    if "->" not in subscripts:
        letters = "".join(terms)
        result = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    sizes: dict[str, Any] = {}
    for term, x in zip(terms, operand, strict=True):
        if len(term) != x.ndim:
            raise who.error(f"term {term!r} for {x.ndim} dimensions")
        for c, size in zip(term, x.shape, strict=True):
            sizes[c] = agree(who, sizes.get(c, size), size, f"sizes of {c!r}")
    if not set(result) <= set(sizes) or len(set(result)) != len(result):
        raise who.error(f"result {result!r} of terms {given!r}")
    ks = {c: te.reduce_axis(sizes[c], f"k{c}") for c in dict.fromkeys("".join(terms)) if c not in result}

    def body(convert: Any, *idx: Any) -> Any:
        at = {**{c: k.var for c, k in ks.items()}, **dict(zip(result, idx, strict=True))}
        out: Any = None
        for term, x in zip(terms, operand, strict=True):
            value = convert(x[tuple(at[c] for c in term)])
            out = value if out is None else out * value
        return out

    shape = [dims.dim(sizes[c]) for c in result]
    if not ks:
        return te.compute(shape, lambda *i: body(lambda v: v, *i), name="einsum", tag=tag.BROADCAST)
    return sum_stage(shape, list(ks.values()), body, operand[0].dtype, "einsum", tag.MATMUL)
