"""How a permuted layout passes through operators: one table for ConvertLayout.

A value is held as (node, perm): `node` is the old value with its dimensions in the order `perm`. A rule gets the pass
and a call and returns the call's value in a permuted layout, or None where operands must be in their plain order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from warpbeam.op.base import Elementwise, Reduce
from warpbeam.relay.expr import Constant, Expr
from warpbeam.topi.index import regroup
from warpbeam.transform.graph import call, constant, op_name, same_call
from warpbeam.transform.simplify_rules import VIEWS, axes_of

if TYPE_CHECKING:
    from warpbeam.transform.convert_layout import Converter

Perm = tuple[int, ...] | None


class Value(NamedTuple):
    """A new node and the order of dimensions it is in (None: plain)."""

    node: Expr
    perm: Perm


LayoutRule = Callable[["Converter", Any], "Value | None"]


def channels_last(ndim: int) -> tuple[int, ...]:
    """N C spatial… -> N spatial… C."""
    return (0, *range(2, ndim), 1)


def tidy(perm: tuple[int, ...]) -> Perm:
    """None for the identity."""
    return None if perm == tuple(range(len(perm))) else perm


def is_one(d: Any) -> bool:
    return isinstance(d, int) and d == 1


# ------------------------------------------------------------------------------------------- operators that have a wish


def _is_plain(layout: str, ndim: int) -> bool:
    return layout in ("", "NC" + "DHW"[5 - ndim :])


def _last(ndim: int) -> str:
    return "N" + "DHW"[5 - ndim :] + "C"


def conv(cv: Converter, n: Any) -> Value | None:
    """Convolution: data channels last, a constant kernel as spatial…, input, output channels. One that is as fast over
    plain maps only goes along with data that has its channels last, and one that reads few maps takes them as they are.
    """
    ndim = n.ty.ndim
    layouts = n.attrs["data_layout"], n.attrs["out_layout"]
    if not all(_is_plain(x, ndim) for x in layouts) or not cv.wanted(n):
        return None
    perm = channels_last(ndim)
    there = cv.perm(n.args[0]) == perm or cv.turned(n.args[0], perm)
    if cv.only is None and not there and cv.keeps_plain(n, _last(ndim)):
        return None
    plain = cv.reads_plain(n)
    x, w = cv.get(n.args[0], None if plain else perm), cv.get(n.args[1], None)
    kernel = n.attrs["kernel_layout"]
    if isinstance(w, Constant):
        wish = "DHW"[5 - ndim :] + "IO"
        w = cv.transposed(w, tuple(kernel.index(c) for c in wish))
        kernel = wish
    data, out = (n.attrs["data_layout"], _last(ndim)) if plain else (_last(ndim), "")
    return Value(same_call(n, x, w, data_layout=data, kernel_layout=kernel, out_layout=out), perm)


def pool(cv: Converter, n: Any) -> Value | None:
    """Window pooling: channels last, wherever it stands."""
    if not _is_plain(n.attrs["layout"], n.ty.ndim) or not cv.wanted(n):
        return None
    perm = channels_last(n.ty.ndim)
    return Value(same_call(n, cv.get(n.args[0], perm), layout=_last(n.ty.ndim)), perm)


def follow_layout(cv: Converter, n: Any) -> Value | None:
    """Global pooling, depth to space, …: channels last where the operand is."""
    perm = channels_last(n.ty.ndim)
    if cv.perm(n.args[0]) != perm or not _is_plain(n.attrs["layout"], n.ty.ndim):
        return None
    return Value(same_call(n, cv.get(n.args[0], perm), layout=_last(n.ty.ndim)), perm)


# --------------------------------------------------------------------------------------------- operators that go along


def broadcast(cv: Converter, n: Any) -> Value | None:
    """Elementwise work: the layout of its largest permuted operand; the others are brought to it."""
    ndim = n.ty.ndim
    perm = cv.common_perm(n, ndim)
    if perm is None:
        return None
    return Value(same_call(n, *(_operand(cv, a, ndim, perm) for a in n.args)), perm)


def _operand(cv: Converter, a: Expr, ndim: int, perm: tuple[int, ...]) -> Expr:
    """A broadcast operand in the layout `perm` of `ndim` dimensions."""
    rank = a.ty.ndim
    if rank == ndim:
        return _trimmed(cv.get(a, perm))
    x: Expr = cv.get(a, None)
    if rank == 0 or all(is_one(d) for d in a.ty.shape):
        return x
    shape = (*[1] * (ndim - rank), *a.ty.shape)
    x = constant(x.numpy().reshape(shape)) if isinstance(x, Constant) else call("reshape", x, newshape=shape)
    return _trimmed(cv.transposed(x, perm))


def _trimmed(x: Expr) -> Expr:
    """A constant without leading dimensions of 1, which broadcasting adds again."""
    if not isinstance(x, Constant):
        return x
    shape = list(x.numpy().shape)
    while len(shape) > 1 and shape[0] == 1:
        shape.pop(0)
    return x if len(shape) == x.numpy().ndim else constant(x.numpy().reshape(shape))


def reduce(cv: Converter, n: Any) -> Value | None:
    """Reduction: the same axes where they now are; without keepdims the rest keeps its order."""
    x, perm = n.args[0], cv.perm(n.args[0])
    if perm is None:
        return None
    ndim = x.ty.ndim
    axes = n.op.axes(n.attrs, ndim)
    new = same_call(n, cv.get(x, perm), axis=tuple(sorted(perm.index(a) for a in axes)), exclude=False)
    if n.attrs["keepdims"]:
        return Value(new, perm)
    rest = [d for d in range(ndim) if d not in axes]
    return Value(new, tidy(tuple(rest.index(d) for d in perm if d not in axes)))


def along_axis(cv: Converter, n: Any) -> Value | None:
    """Work along one axis or several: the axis where it now is."""
    perm = cv.perm(n.args[0])
    axis = n.attrs["axis"]
    if perm is None or axis is None:
        return None
    ndim = len(perm)
    new: Any = perm.index(axis % ndim) if isinstance(axis, int) else tuple(perm.index(a % ndim) for a in axis)
    others = (cv.get(a, None) for a in n.args[1:])
    return Value(same_call(n, cv.get(n.args[0], perm), *others, axis=new), perm)


def normalise(cv: Converter, n: Any) -> Value | None:
    """Instance, group, batch norm along a channel axis: only where the batch stays in front."""
    perm = cv.perm(n.args[0])
    return along_axis(cv, n) if perm is not None and perm[0] == 0 else None


def concatenate(cv: Converter, n: Any) -> Value | None:
    """Concatenation along the axis where it now is; all operands in one layout."""
    perm = cv.common_perm(n, n.ty.ndim)
    if perm is None:
        return None
    axis = perm.index(n.attrs["axis"] % n.ty.ndim)
    return Value(same_call(n, *(cv.get(a, perm) for a in n.args), axis=axis), perm)


def strided_slice(cv: Converter, n: Any) -> Value | None:
    """Slices of the axes where they now are."""
    perm = cv.perm(n.args[0])
    if perm is None:
        return None
    given = n.attrs["axes"]
    axes = range(len(n.attrs["begin"])) if given is None else (a % len(perm) for a in given)
    return Value(same_call(n, cv.get(n.args[0], perm), axes=tuple(perm.index(a) for a in axes)), perm)


def pad(cv: Converter, n: Any) -> Value | None:
    """Borders of the axes where they now are."""
    perm = cv.perm(n.args[0])
    if perm is None:
        return None
    widths = tuple(n.attrs["pad_width"][a] for a in perm)
    return Value(same_call(n, cv.get(n.args[0], perm), cv.get(n.args[1], None), pad_width=widths), perm)


def resize(cv: Converter, n: Any) -> Value | None:
    """Resizing of the axes where they now are."""
    perm = cv.perm(n.args[0])
    if perm is None:
        return None
    axes = tuple(perm.index(a % len(perm)) for a in n.attrs["axes"])
    return Value(same_call(n, cv.get(n.args[0], perm), axes=axes), perm)


def per_axis(attr: str) -> LayoutRule:
    """Operators with one attribute entry per axis and an unchanged number of axes."""

    def rule(cv: Converter, n: Any) -> Value | None:
        perm = cv.perm(n.args[0])
        entries = n.attrs[attr]
        if perm is None or len(entries) != len(perm) or n.ty.ndim != len(perm):
            return None
        return Value(same_call(n, cv.get(n.args[0], perm), **{attr: tuple(entries[a] for a in perm)}), perm)

    return rule


def transpose(cv: Converter, n: Any) -> Value | None:
    """A transpose of a permuted value is another view of the same node: it disappears."""
    perm = cv.perm(n.args[0])
    if perm is None:
        return None
    axes = axes_of(n)  # new dimension k is old dimension axes[k]
    return Value(cv.get(n.args[0], perm), tidy(tuple(axes.index(a) for a in perm)))


def view(cv: Converter, n: Any) -> Value | None:
    """A reshape that only splits and joins dimensions that lie together in the permuted order."""
    x, perm = n.args[0], cv.perm(n.args[0])
    if perm is None:
        return None
    source, target = x.ty.shape, n.ty.shape
    real = [d for d in perm if not is_one(source[d])]
    placed: list[tuple[int, list[int]]] = []
    last = -1
    for old, new in regroup(source, target):
        own = [d for d in old if not is_one(source[d])]
        spots = [real.index(d) for d in own]
        if spots != list(range(spots[0], spots[0] + len(spots))) if spots else False:
            return None
        last = spots[0] if spots else last
        placed.append((last, list(new)))
    placed.sort(key=lambda entry: entry[0])
    order = tuple(d for _, dims in placed for d in dims)
    new_node = call("reshape", cv.get(x, perm), newshape=tuple(target[d] for d in order))
    return Value(new_node, tidy(order))


_NAMED: dict[str, LayoutRule] = {
    **{f"nn.conv{n}d{t}": conv for n in (1, 2, 3) for t in ("", "_transpose")},
    **{f"nn.{k}_pool{n}d": pool for k in ("max", "avg", "lp") for n in (1, 2, 3)},
    **{f"nn.global_{k}_pool{n}d": follow_layout for k in ("max", "avg", "lp") for n in (1, 2, 3)},
    **dict.fromkeys(("nn.depth_to_space", "nn.space_to_depth"), follow_layout),
    **dict.fromkeys(VIEWS, view),
    **dict.fromkeys(("nn.softmax", "nn.log_softmax", "nn.hardmax", "nn.lp_normalize", "nn.l2_normalize"), along_axis),
    **dict.fromkeys(("nn.lrn", "nn.prelu", "nn.bias_add", "split", "reverse"), along_axis),
    **dict.fromkeys(("nn.batch_norm", "nn.instance_norm", "nn.group_norm"), normalise),
    "nn.leaky_relu": broadcast,
    "where": broadcast,
    "concatenate": concatenate,
    "strided_slice": strided_slice,
    "nn.pad": pad,
    "image.resize": resize,
    "tile": per_axis("reps"),
    "broadcast_to": per_axis("shape"),
    "transpose": transpose,
}


def rule_for(n: Any) -> LayoutRule | None:
    """The rule of a call: by its operator's name, else by its category."""
    found = _NAMED.get(op_name(n))
    if found is not None:
        return found
    if isinstance(n.op, Elementwise):
        return broadcast
    return reduce if isinstance(n.op, Reduce) else None
