"""Chooses how each convolution by 3x3 taps, by Kx3x3 over three dimensions, or by 3 along one, is computed: as the
plain sum, or by Winograd's tiles with fewer products.

Legal: the same stride of 1 or 2 for rows and columns (1 where there is one tap), float32, constant weights, known
channels, channels last, over three dimensions known maps with stride 1 in front and one group, known maps where there
are more groups or one dimension of taps, and where taps are dilated known maps with stride 1. The cost model predicts
both on the target, with weights coming from memory (in a whole model they do) and open maps of a likely size;
Winograd's is taken where it is clearly faster. What was decided, and what the other would have cost, goes out as events
of stage "choice"; of tiles that lose digits also the errors, measured with the weights at hand.

Where another precision is asked for, products of pairs of short numbers are compared: sums of transformed data are
rounded too, so tiles of 2x2 are all that is considered. `ToMixedPrecision` does the rounding later.

Config "warpbeam.accuracy": "exact" keeps plain sums; "fast" also considers tiles of 4x4, which lose a digit or two.
Config "warpbeam.convolutions": {what `signature` says: tile} decides for some convolutions, as far as it is legal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins, post_order
from warpbeam.ir.transform import Event, PassContext, function_pass
from warpbeam.op.nn_conv import ConvNd
from warpbeam.op.nn_winograd import WinogradNd, tiles_of
from warpbeam.relay.expr import Call, Constant, Expr, Function, Var
from warpbeam.relay.types import TensorType
from warpbeam.sketch.base import supposed
from warpbeam.sketch.select import predict, schedule
from warpbeam.target import Target, get
from warpbeam.te import tensor as te
from warpbeam.topi.nn.common import Layout, spatial_letters
from warpbeam.topi.nn.winograd import TAPS, TILES, taps_of
from warpbeam.topi.nn.winograd_error import measured_errors
from warpbeam.transform.graph import call, constant, rewrite_function, same_call
from warpbeam.transform.to_mixed_precision import parse, takes_pairs

ACCURACY = "warpbeam.accuracy"
DECIDED = "warpbeam.convolutions"
_TILES = {"exact": (), "default": (2,), "fast": (2, 4)}
_BATCH = 4
_SHORT_TILES = (2,)
_LEAST = 4  # rows and columns that an open map is taken to have
_CLEARLY = 0.95  # of the plain sum's time at most
_WEIGHT, _CONV = (f"nn.contrib_conv{{nd}}d_winograd_{w}" for w in ("weight_transform", "without_weight_transform"))


@dataclass(frozen=True, slots=True)
class Choice:
    """How a convolution is computed, and the predicted cycles of each way that is legal."""

    chosen: str
    cycles: dict[str, float]


def check_accuracy(accuracy: Any) -> str:
    """The accuracy if there is such a one. Raises IRError."""
    if not isinstance(accuracy, str) or accuracy not in _TILES:
        raise IRError(f"accuracy {accuracy!r}", hint=f"it is one of {', '.join(_TILES)}")
    return accuracy


def name_of(tile: int, node: Call) -> str:
    """What reports call a way: "direct" (0), "winograd F(2x2,3x3)", or of one dimension "winograd F(2,3)"."""
    if not tile:
        return "direct"
    taps = _taps(node)[-node.op.nd :]
    sizes = "x".join(str(1 if n == 1 else tile) for n in taps)
    return f"winograd F({sizes},{'x'.join(map(str, taps))})"


@function_pass(opt_level=3, name="ChooseConvolution", required=["InferType"])
class ChooseConvolution:
    """3x3 convolutions by tiles where that is predicted to be faster on `target` (by default this machine).

    precision: that which the function will have after `ToMixedPrecision`; by default that of float32.
    """

    def __init__(self, target: Target | None = None, precision: Any = "fp32") -> None:
        self.target = get("native") if target is None else target
        self.request = parse(precision)
        self.known: dict[Any, tuple[int, Choice]] = {}
        self.weights: dict[Any, Expr] = {}
        self.errors: dict[Any, dict[str, float]] = {}

    def transform_function(self, fn: Function, mod: Any, ctx: PassContext) -> Function:
        accuracy = check_accuracy(ctx.config.get(ACCURACY, "default"))
        if not _TILES[accuracy] or self.target.device != "cpu":
            return fn
        return rewrite_function(fn, lambda n: self._visit(n, accuracy, ctx))

    def _visit(self, node: Node, accuracy: str, ctx: PassContext) -> Expr | None:
        if not isinstance(node, Call) or not _legal(node):
            return None
        computed = self._computed(node)
        if computed is None:
            return None
        x, w = node.args
        tiles = _offered(computed, accuracy)
        key = (node.attrs, x.ty, w.ty)
        if key not in self.known:
            self.known[key] = _decided(choose(computed, tiles, self.target), node, tiles, ctx)
        tile, choice = self.known[key]
        names = tuple(origins(node))
        told: dict[str, Any] = {"chosen": choice.chosen, "cycles": choice.cycles}
        key = (w, tile, _stride(node), node.attrs["groups"], node.attrs["kernel_layout"])
        if tile and tile not in _TILES["default"]:
            if key not in self.errors:
                self.errors[key] = dict(
                    zip((name_of(tile, node), name_of(0, node)), _measured(node, tile), strict=True)
                )
            told["errors"] = self.errors[key]
        ctx.emit(Event("choice", names[0] if names else "", data=told))
        if not tile:
            return None
        if key not in self.weights:
            transform = _weights(node, tile)
            self.weights[key] = constant(transform.op.numpy(transform.attrs, w.numpy()))
        new = _tiled(node, self.weights[key], tile)
        add_origins(new, names)
        return new

    def _computed(self, node: Call) -> Call | None:
        """The convolution in the types that it will be computed in; None if tiles are not for those."""
        if self.request.name == "fp32":
            return node
        if not takes_pairs(node, self.request, self.target):
            return None
        x, w = (Var(n, TensorType(a.ty.shape, self.request.dtype)) for n, a in zip("xw", node.args, strict=True))
        return same_call(node, x, w, out_dtype="float32")


def _legal(node: Call) -> bool:
    """Whether a call is a convolution that tiles can compute, as fast sketches need it."""
    return isinstance(node.op, ConvNd) and isinstance(node.args[1], Constant) and _fits(node)


def _fits(node: Call) -> bool:
    """Whether a convolution is such that tiles can compute it, whatever its weights are."""
    types = (*(a.ty for a in node.args), node.ty)
    if not all(isinstance(t, TensorType) and t.dtype == "float32" for t in types):
        return False
    x, w, _ = types
    data, kernel, out = node.op.maps(node.attrs)
    moves = node.op.windows(node.attrs)
    borders = (*moves.begins, *moves.ends)
    taps = _taps(node)
    tapped = [c for c, n in zip("HW", taps, strict=True) if n == TAPS]
    steps = dict(zip("DHW"[-len(moves.strides) :], moves.strides, strict=True))
    plain = {*moves.strides[:-2], *moves.dilation[:-2]} <= {1} and data == out and data["C"] == len(x.shape) - 1
    plain = plain and set(taps) <= {1, TAPS} and len(tapped) >= (2 if node.op.nd == 3 else 1)
    plain = plain and len({steps[c] for c in tapped}) == 1 and all(steps[c] == 1 for c in steps if c not in tapped)
    known = all(isinstance(p, int) and p >= 0 for p in borders)
    channels = [t.shape[m["C"]] for t, m in ((x, data), (node.ty, out))]
    if "D" in data:
        known = known and all(isinstance(t.shape[m[c]], int) for t, m in ((x, data), (node.ty, out)) for c in "DHW")
        known = known and isinstance(w.shape[kernel["D"]], int) and node.ty.shape[out["D"]] != 1
    whole = all(isinstance(t.shape[m[c]], int) for t, m in ((x, data), (node.ty, out)) for c in "HW" if c in m)
    if len(tapped) == 1:
        plain = plain and whole
    if _dilation(node) != (1, 1):
        plain = plain and _stride(node) == 1 and whole
    if node.attrs["groups"] > 1:
        plain = plain and whole and "D" not in data and w.shape[kernel["I"]] > 1
    small = any(isinstance(node.ty.shape[out[c]], int) and node.ty.shape[out[c]] <= 2 for c in tapped)
    known = known and all(isinstance(c, int) for c in channels)
    return plain and known and not small


def _taps(node: Call) -> tuple[Any, Any]:
    """Those along rows and along columns; of one dimension one row."""
    if isinstance(node.op, WinogradNd):
        high, across = taps_of(tiles_of(node.op.nd, node.attrs))
        return high, across
    kernel = node.op.maps(node.attrs)[1]
    return node.args[1].ty.shape[kernel["H"]] if "H" in kernel else 1, node.args[1].ty.shape[kernel["W"]]


def _sizes(node: Call, tile: int) -> int | tuple[int, ...]:
    """The attribute for tiles of `tile` results along each dimension that has taps."""
    taps = _taps(node)
    return tile if set(taps) == {TAPS} else tuple(1 if n == 1 else tile for n in taps)


def _weights(node: Call, tile: int) -> Call:
    """The transform of a convolution's weights."""
    name, kernel = _WEIGHT.format(nd=node.op.nd), node.attrs["kernel_layout"]
    attrs = {"tile_size": _sizes(node, tile), "stride": _stride(node), "kernel_layout": kernel}
    attrs.update(groups=node.attrs["groups"])
    return call(name, node.args[1], **attrs)


def _stride(node: Call) -> int:
    """That of rows and columns, where there are taps."""
    return int(max(node.op.windows(node.attrs).strides[-2:]))


def _dilation(node: Call) -> tuple[int, int]:
    """That of rows and columns, 1 where there is one tap."""
    spread = (1, *node.op.windows(node.attrs).dilation)[-2:]
    high, across = (1 if n == 1 else int(d) for n, d in zip(_taps(node), spread, strict=True))
    return high, across


def _measured(node: Call, tile: int) -> tuple[float, float]:
    """Errors on normal data of a convolution by tiles and of the plain sum; outer taps are summed with the channels."""
    kernel = node.op.maps(node.attrs)[1]
    taps = node.args[1].numpy().transpose([kernel[c] for c in "HWDIO" if c in kernel])
    return measured_errors(taps.reshape(*_taps(node), -1, taps.shape[-1]), tile, _stride(node))


def _offered(node: Call, accuracy: str) -> tuple[int, ...]:
    """The tiles by which a convolution may be computed, in the types that it has."""
    short = _SHORT_TILES if node.attrs["groups"] == 1 and set(_taps(node)) == {TAPS} else ()
    tiles = _TILES[accuracy] if node.args[0].ty.dtype == "float32" else short
    return tuple(t for t in tiles if t in _TILES[accuracy] and (t, _stride(node)) in TILES)


def _tiled(node: Call, weights: Expr, tile: int) -> Call:
    """The convolution by tiles of `tile` results per dimension."""
    name, data = _CONV.format(nd=node.op.nd), node.attrs["data_layout"]
    attrs = {"tile_size": _sizes(node, tile), "stride": _stride(node), "padding": _borders(node), "data_layout": data}
    attrs.update(dilation=_dilation(node), groups=node.attrs["groups"])
    if node.args[0].ty.dtype != node.ty.dtype:
        attrs.update(plane_dtype=node.args[0].ty.dtype, out_dtype=node.ty.dtype)
    return call(name, node.args[0], weights, **attrs)


def _borders(node: Call) -> tuple[Any, ...]:
    """Zeros before the data in each dimension, then behind it."""
    moves = node.op.windows(node.attrs)
    return (*moves.begins, *moves.ends)


def signature(node: Call) -> str:
    """What a convolution by 3 taps computes, the same for each way to do it: shapes, strides, borders, layout."""
    shapes = [[d if isinstance(d, int) else "?" for d in ty.shape] for ty in (node.args[0].ty, node.ty)]
    spread = _dilation(node)
    apart = "" if spread == (1, 1) else f" {spread}"
    apart += "" if node.attrs["groups"] == 1 else f" in {node.attrs['groups']}"
    apart += "" if set(_taps(node)) == {TAPS} else f" by {_taps(node)}"
    return f"{shapes[0]} -> {shapes[1]} {_stride(node)}{apart} {_borders(node)} {node.attrs['data_layout']}"


def _decided(found: tuple[int, Choice], node: Call, tiles: tuple[int, ...], ctx: PassContext) -> tuple[int, Choice]:
    """The choice, or what the config has decided instead."""
    tile = ctx.config.get(DECIDED, {}).get(signature(node))
    if tile is None or tile not in (0, *tiles):
        return found
    return tile, Choice(name_of(tile, node), found[1].cycles)


@dataclass(frozen=True, slots=True)
class Other:
    """A fused group with another way to compute its convolution: `tile` (0: the plain sum) instead of `own`, what
    reports call it, and `signature` for the config, and the group. The parameter of the weights has another type, and
    keeps its place.
    """

    tile: int
    own: int
    name: str
    signature: str
    group: Function


def others(fn: Function, accuracy: str) -> list[Other]:
    """Other ways to compute the one convolution of a fused group that are legal with `accuracy`."""
    calls = [n for n in post_order(fn.body) if isinstance(n, Call)]
    found = [n for n in calls if isinstance(n.op, WinogradNd) or (isinstance(n.op, ConvNd) and _fits(n))]
    if len(found) != 1 or found[0].args[1] not in fn.params:
        return []
    node = found[0]
    x, w = node.args
    if sum(a is w for n in calls for a in n.args) != 1:
        return []
    own = max(tiles_of(node.op.nd, node.attrs)) if isinstance(node.op, WinogradNd) else 0
    letters = spatial_letters(node.op.nd)
    made = []
    for tile in (0, *_offered(node, accuracy)):
        if tile == own:
            continue
        groups = node.attrs["groups"]
        kept = w.ty.shape[2:] if groups == 1 else (*w.ty.shape[3:-1], groups * w.ty.shape[-1])
        shape = (*_taps(node)[-node.op.nd :], *kept) if own else w.ty.shape
        taps = Var(w.name, TensorType(shape, w.ty.dtype))
        layout = f"{letters[-2:]}{letters[:-2]}IO" if own else node.attrs["kernel_layout"]
        attrs = {"padding": _borders(node), "data_layout": node.attrs["data_layout"], "kernel_layout": layout}
        moves = node.op.windows(node.attrs)
        attrs.update(strides=moves.strides, dilation=moves.dilation, groups=groups, out_dtype=node.attrs["out_dtype"])
        plain = call(f"nn.conv{node.op.nd}d", x, taps, **attrs)
        param, new = taps, plain
        if tile:
            param = Var(w.name, _weights(plain, tile).ty)
            new = _tiled(plain, param, tile)
        group = rewrite_function(fn, lambda n, new=new: new if n is node else None)  # type: ignore[misc]
        params = tuple(param if p is w else p for p in fn.params)
        made.append(Other(tile, own, name_of(tile, node), signature(node), group.replace(params=params)))
    return made


def choose(node: Call, tiles: tuple[int, ...], target: Target) -> tuple[int, Choice]:
    """(tile, 0 for the plain sum; the choice with all predictions)."""
    cycles = {0: _cycles(node, target)}
    for tile in tiles:
        cycles[tile] = _cycles(_tiled(node, _weights(node, tile), tile), target)
    known = {t: c for t, c in cycles.items() if c is not None}
    best = min(known, key=lambda t: (known[t], t), default=0)
    if 0 not in known or known[best] > _CLEARLY * known[0]:
        best = 0
    if best and not _schedulable(_tiled(node, _weights(node, best), best), target):
        best = 0
    return best, Choice(name_of(best, node), {name_of(t, node): c for t, c in known.items()})


def _schedulable(node: Call, target: Target) -> bool:
    """Whether a convolution by tiles gets its sketch. Over maps of open sizes not all blocks can be told apart, and the
    plain sum is faster than plain loops.
    """
    data, *_ = node.op.maps(node.attrs)
    if all(isinstance(node.args[0].ty.shape[data[c]], int) for c in data if c not in "NC"):
        return True
    inputs = [te.placeholder(a.ty.shape, a.ty.dtype, f"p{i}") for i, a in enumerate(node.args)]
    result = node.op.compute(node.attrs, inputs, node.ty)
    return schedule(inputs, [result], target, frozenset({inputs[1].op.name})).sketch == "winograd"


def predicted(node: Call, target: Target) -> float | None:
    """Cycles that the cost model predicts of a convolution with constant weights, by tiles where these would be chosen
    and the current config allows them.
    """
    accuracy = check_accuracy(PassContext.current().config.get(ACCURACY, "default"))
    tiles = _offered(node, accuracy) if isinstance(node.op, ConvNd) and _fits(node) else ()
    choice = choose(node, tiles, target)[1]
    return choice.cycles.get(choice.chosen)


def _cycles(node: Call, target: Target) -> float | None:
    """Cycles that the cost model predicts of one call with constant weights."""
    data, *_, out = node.op.maps(node.attrs)
    shapes = [_supposed(node.args[0].ty.shape, data), node.args[1].ty.shape]
    inputs = [te.placeholder(s, a.ty.dtype, f"p{i}") for i, (s, a) in enumerate(zip(shapes, node.args, strict=True))]
    result = node.op.compute(node.attrs, inputs, TensorType(_supposed(node.ty.shape, out), node.ty.dtype))
    return predict(inputs, [result], target, frozenset({inputs[1].op.name}))


def _supposed(shape: Any, at: Layout) -> tuple[int, ...]:
    """A shape with an open batch taken to be of `_BATCH` and open maps of what they may be, for all ways alike."""
    return tuple(
        d if isinstance(d, int) else _BATCH if k == at["N"] else max(_LEAST, supposed(d)) for k, d in enumerate(shape)
    )
