"""Convolution by 3 taps with fewer products (S. Winograd; A. Lavin, S. Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016): F(m x m, 3 x 3) computes tiles of m x m results from (m + 2) x (m + 2) inputs d and taps g as

    A^T [ sum over input channels of (G g G^T) * (B^T d B) ] A

with (m + 2)^2 products per channel in place of 9 m^2: 2.25 times fewer for m = 2, 4 times for m = 4.

The sums over channels are (m + 2)^2 independent matrix products. To first order in the unit roundoff u, the error of a
result is at most

    (C + n) u |A^T| [ sum of (|G| |g| |G^T|) * (|B^T| |d| |B|) ] |A|

C roundings come from the sum over C channels, n from the transforms: both products with B^T and both with A^T round
once per addition and once where a factor is no power of two, and the weights, transformed in float64, round once. For
m = 2 that is n = 2 + 4 + 1 = 7, and with all |d| <= D and |g| <= W the bound is at most 81 C (C + 7) u D W; that of the
plain sum is 9 C (9 C) u D W: the same constant. For m = 4 the constant is some hundred times larger.

Along one dimension F(m, 3) has m + 2 products in place of 3 m: 1.5 times fewer for m = 2, twice for m = 4. The matrices
of the other dimension are then (1), and the bound is the same with what they lose, which is nothing:

    (C + n) u [ sum of (|g| |G^T|) * (|d| |B|) ] |A|

n = 1 + 2 + 1 = 4 for m = 2, at most 9 C (C + 4) u D W where the plain sum has 3 C (3 C) u D W.

With stride 2 a dimension is a convolution by the taps g0, g2 of the even inputs, for which three products give two
results, and one by g1 of the odd ones, which two do:

    y0 = (d0 - d2) g0 + d2 (g0 + g2) + d1 g1        y1 = d2 (g0 + g2) + (d4 - d2) g2 + d3 g1

25 products per channel in place of 36; the bound holds with the same n.

With dilation d a dimension is d convolutions without, of every d-th element: a tile's inputs and results lie d apart.
Tiles that begin side by side, one of each of the d, are neighbours.

In groups each has planes of its own channels: the sums of each are the bound's, over as many channels as it has.

Over three dimensions tiles lie in the inner two. The taps of the outer one, any number K of them, are summed together
with the channels: C stands for K C then, and a transformed plane serves the K results around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir.expr import EQ, Min, PrimExpr, Select, as_expr, cast, const
from warpbeam.topi import dims
from warpbeam.topi.common import TopiError, accumulation, convert_stage, rounded
from warpbeam.topi.nn.common import Layout, arrange, pad_stage, reduce_vars, tuple_of

TAPS = 3
Matrix = tuple[tuple[float, ...], ...]

# (B^T, G, A^T) by m and stride; with stride 1 of the points 0, 1, -1, (2, -2,) infinity.
_MATRICES: dict[tuple[int, int], tuple[Matrix, Matrix, Matrix]] = {
    (2, 1): (
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    (2, 2): (
        ((1, 0, -1, 0, 0), (0, 0, 1, 0, 0), (0, 0, -1, 0, 1), (0, 1, 0, 0, 0), (0, 0, 0, 1, 0)),
        ((1, 0, 0), (1, 0, 1), (0, 0, 1), (0, 1, 0), (0, 1, 0)),
        ((1, 1, 0, 1, 0), (0, 1, 1, 0, 1)),
    ),
    (4, 1): (
        (
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        (
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}
_ALONE: Matrix = ((1,),)  # one tap, one result
TILES = tuple(_MATRICES)  # (m, stride)
_TOGETHER = 8  # tiles of open maps that are multiplied together


def matrices(tile: int, stride: int = 1) -> tuple[Matrix, Matrix, Matrix]:
    """(B^T, G, A^T) of F(tile, 3) with a stride, along one dimension; with a tile of 1 those of one tap, whatever the
    stride is. Raises TopiError for others than `TILES`.
    """
    if tile == 1:
        return _ALONE, _ALONE, _ALONE
    found = _MATRICES.get((tile, stride))
    if found is None:
        known = ", ".join(f"{m} with stride {s}" for m, s in TILES)
        raise TopiError(f"there is no F({tile}, 3) with stride {stride} here", hint=f"tile sizes are {known}")
    return found


def taps_of(tiles: Sequence[int]) -> tuple[int, ...]:
    """The taps that tiles are for: 3 along a dimension, or 1 where the tile has one result."""
    return tuple(1 if t == 1 else TAPS for t in tiles)


def _mixed(row: Sequence[float], value: Callable[[int], PrimExpr]) -> PrimExpr:
    """The sum of row[k] * value(k), without what is 0."""
    total: PrimExpr | None = None
    for k, c in sorted(enumerate(row), key=lambda entry: entry[1] <= 0):  # begins with a positive one
        if c == 0:
            continue
        v = value(k)
        term = v if abs(c) == 1 else v * const(abs(c), v.dtype)
        if total is None:
            total = term if c > 0 else const(0, v.dtype) - term
        else:
            total = total + term if c > 0 else total - term
    return const(0, value(0).dtype) if total is None else total


def _row(matrix: Matrix, index: Any, value: Callable[[int], PrimExpr]) -> PrimExpr:
    """Row `index` of a matrix times a vector; schedules unroll the index, so that one sum remains."""
    out = _mixed(matrix[-1], value)
    for k in range(len(matrix) - 2, -1, -1):
        out = Select(EQ(as_expr(index), as_expr(k)), _mixed(matrix[k], value), out)
    return out


def winograd_weight(
    w: te.Tensor, tiles: int | Sequence[int], kernel: Layout, stride: int = 1, groups: int = 1
) -> te.Tensor:
    """G g G^T of a kernel (O, I, [[K,] 3,] 3) in a layout: [rows of G, rows of G, [K,] I, O] in the kernel's dtype; of
    several groups [rows of G, rows of G, groups, [K,] I, O / groups]. tiles: of rows and of columns, one number for
    both or two.
    """
    (high, across), inner = (matrices(t, stride)[1] for t in tuple_of(tiles, 2)), accumulation(w.dtype)
    rest = [c for c in "DIO" if c in kernel]
    kept = [w.shape[kernel[c]] for c in rest]
    if groups > 1:
        kept = [groups, *kept[:-1], dims.exact_div(kept[-1], groups)]

    def tap(others: Sequence[Any], y: int, x: Any) -> PrimExpr:
        if groups > 1:
            others = (*others[1:-1], others[0] * kept[-1] + others[-1])
        at = dict(zip(rest, others, strict=True))
        return cast(inner, w[arrange(kernel, {**at, "H": as_expr(y), "W": as_expr(x)})])

    rows = te.compute(
        (len(high), len(across[0]), *kept), lambda a, x, *t: _row(high, a, lambda y: tap(t, y, x)), name="weight_rows"
    )
    out = te.compute(
        (len(high), len(across), *kept),
        lambda a, b, *t: _row(across, b, lambda x: rows[(a, as_expr(x), *t)]),
        name="weight_planes",
    )
    return convert_stage(out, w.dtype, "weight_cast")


def winograd(
    x: te.Tensor,
    u: te.Tensor,
    tiles: int | Sequence[int],
    maps: tuple[Layout, Layout],
    begins: Sequence[Any],
    shape: Sequence[Any],
    stride: int = 1,
    plane_dtype: str = "",
    out_dtype: str = "",
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> te.Tensor:
    """The convolution of x by transformed weights u [rows of G, rows of G, [groups,] [K,] I, O], as te stages.

    tiles: results of a tile along rows and along columns (one number for both or two), 1 where there is one tap. maps:
    letter (N, C, [[D,] H,] W) -> axis of data and result. begins: zeros before the data in each spatial dimension.
    shape: the result's; zeros behind the data go as far as it needs. stride: of dimensions with taps. plane_dtype: what
    transformed data is rounded to, by default nothing. out_dtype: the result's, by default that of x. dilation: of rows
    and of columns of known extent, with stride 1. groups: more than one over one or two dimensions of known extent.
    """
    data, out = maps
    walks = tuple(_Walk(t, 1 if t == 1 else stride, d) for t, d in zip(tuple_of(tiles, 2), dilation, strict=True))
    counts = [walk.count(shape[out[c]]) for c, walk in zip("HW", walks, strict=True) if c in out]
    reach = [walk.reach(n) for walk, n in zip(walks[-len(counts) :], counts, strict=True)]
    padded = _padded(x, u, maps, begins, shape, reach)
    deep = "D" in data
    lead = (x.shape[data["N"]], *([padded.shape[data["D"]]] if deep else []))
    spots, origin, spot = _spots(lead, counts)
    inputs, outputs = (dims.exact_div(n, groups) for n in (x.shape[data["C"]], shape[out["C"]]))
    spots = spots if groups == 1 else (groups, *spots)
    planes = _planes(padded, data, walks, (*spots, inputs), origin, groups, plane_dtype)
    places = (lead[0], shape[out["D"]], *counts) if deep else spots
    products = _products(planes, u, (*(w.size for w in walks), *places, outputs), deep)
    y = _result(products, walks, out, shape, spot, groups)
    return convert_stage(y, out_dtype or x.dtype, "winograd_cast")


def _planes(
    padded: te.Tensor,
    data: Layout,
    walks: tuple[_Walk, _Walk],
    shape: Sequence[Any],
    origin: Callable[..., Any],
    groups: int,
    plane_dtype: str,
) -> te.Tensor:
    """B^T d B of each tile d of the padded data: [rows of B^T, rows of B^T, *shape], the shape [groups, …tiles, C]
    without an axis for a single group.
    """
    high, across = walks
    inner = accumulation(padded.dtype)

    def element(outer: Sequence[Any], h: Any, w: Any, c: Any) -> PrimExpr:
        place = dict(zip("ND", outer, strict=False))
        return cast(inner, padded[arrange(data, {**place, "H": h, "W": w, "C": c})])

    def row(*idx: Any) -> PrimExpr:
        *at_tile, i, s, c = idx
        if groups > 1:
            group, *at_tile = at_tile
            c = group * shape[-1] + c
        *outer, p, q = origin(at_tile)
        left = across.input(q, s)
        return _row(high.matrices[0], i, lambda r: element(outer, high.input(p, r), left, c))

    rows = te.compute((*shape[:-1], high.size, across.size, shape[-1]), row, name="data_rows")

    def plane(i: Any, j: Any, *t: Any) -> PrimExpr:
        mixed = _row(across.matrices[0], j, lambda s: rows[(*t[:-1], i, as_expr(s), t[-1])])
        return rounded(mixed, plane_dtype or inner)

    return te.compute((high.size, across.size, *shape), plane, name="data_planes")


def _result(
    products: te.Tensor,
    walks: tuple[_Walk, _Walk],
    out: Layout,
    shape: Sequence[Any],
    spot: Callable[..., Any],
    groups: int,
) -> te.Tensor:
    """A^T [products] A, each result from its place in its tile."""
    high, across = walks
    places, made = products.shape[2:-1], products.shape[-1]
    back = te.compute(
        (high.tile, across.size, *places, made),
        lambda a, j, *t: _row(high.matrices[2], a, lambda i: products[(as_expr(i), j, *t)]),
        name="result_rows",
    )

    def result(*idx: Any) -> PrimExpr:
        at = {c: idx[axis] for c, axis in out.items()}
        h, w, o = at.get("H", as_expr(0)), at["W"], at["C"]
        where = spot(*(at[c] for c in "ND" if c in at), high.place(h), across.place(w))
        spot_of = (*where, o) if groups == 1 else (o // made, *where, o % made)
        return _row(across.matrices[2], across.rest(w), lambda j: back[(high.rest(h), as_expr(j), *spot_of)])

    return te.compute(tuple(shape), result, name="winograd")


@dataclass(frozen=True, slots=True)
class _Walk:
    """How tiles lie along a dimension: results of one, and the convolution's stride and dilation."""

    tile: int
    stride: int
    dilation: int

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix]:
        return matrices(self.tile, self.stride)

    @property
    def size(self) -> int:
        """Inputs of a tile."""
        return len(self.matrices[0])

    def count(self, extent: Any) -> Any:
        """Tiles for an extent of results, as many for each convolution of a dilated one."""
        whole = self.tile * self.dilation
        return dims.dim((extent + whole - 1) // whole * self.dilation)

    def reach(self, count: Any) -> Any:
        """Inputs that so many tiles read, borders included."""
        return dims.dim(((count // self.dilation - 1) * self.tile * self.stride + self.size) * self.dilation)

    def input(self, tile: Any, k: Any) -> Any:
        """Where a tile's k-th input is; tiles of one convolution are tile * stride of its inputs apart."""
        step, apart = self.tile * self.stride, self.dilation
        begin = tile * step if apart == 1 else tile // apart * (step * apart) + tile % apart
        return begin + k * apart

    def place(self, position: Any) -> Any:
        """The tile that a result is in."""
        tile, apart = self.tile, self.dilation
        return position // tile if apart == 1 else position // (tile * apart) * apart + position % apart

    def rest(self, position: Any) -> Any:
        """Which of its tile's results it is."""
        return (position if self.dilation == 1 else position // self.dilation) % self.tile


def _padded(
    x: te.Tensor,
    u: te.Tensor,
    maps: tuple[Layout, Layout],
    begins: Sequence[Any],
    shape: Sequence[Any],
    reach: Sequence[Any],
) -> te.Tensor:
    """The data with zeros around it, as far as whole tiles `reach` in (rows and) columns, and taps in front and behind;
    without what no tap reaches.
    """
    data, out = maps
    before, after = [0] * x.ndim, [0] * x.ndim
    needed = dict(zip("HW"[-len(reach) :], reach, strict=True))
    if "D" in data:
        needed["D"] = shape[out["D"]] + u.shape[2] - 1
    for c, begin in zip([c for c in "DHW" if c in data], begins, strict=True):
        before[data[c]] = begin
        after[data[c]] = dims.dim(needed[c] - begin - x.shape[data[c]])
    return pad_stage(x, before, after, 0)  # type: ignore[no-any-return]


def _products(planes: te.Tensor, u: te.Tensor, shape: Sequence[Any], deep: bool) -> te.Tensor:
    """The sums over channels, and over the taps in front and behind, of each plane."""
    inner = accumulation(planes.dtype)
    if not deep:
        k, own = te.reduce_axis(u.shape[-2], "ic"), u.ndim - 4
        return te.compute(
            tuple(shape),
            lambda i, j, *t: te.sum(
                cast(inner, planes[(i, j, *t[:-1], k.var)]) * cast(inner, u[(i, j, *t[:own], k.var, t[-1])]), axis=k
            ),
            name="products",
        )
    axes, (tap, channel) = reduce_vars(u.shape[2:4], ("kd", "ic"))

    def product(i: Any, j: Any, n: Any, d: Any, p: Any, q: Any, o: Any) -> PrimExpr:
        taken = cast(inner, planes[i, j, n, d + tap, p, q, channel])
        return te.sum(taken * cast(inner, u[i, j, tap, channel, o]), axis=axes)

    return te.compute(tuple(shape), product, name="products")


def _spots(lead: Sequence[Any], tiles: Sequence[Any]) -> tuple[Sequence[Any], Callable[..., Any], Callable[..., Any]]:
    """The axes over tiles, what (image, [depth,] row, column) of tiles a spot on them is, and which spot those are. Of
    one dimension the row is always 0.

    Where only the run tells how many tiles there are, one axis has them all, and a few more that make a multiple of
    `_TOGETHER`: blocks of it are whole, and do not depend on how wide a map is.
    """
    if all(isinstance(d, int) for d in tiles):
        if len(tiles) == 1:
            return (*lead, *tiles), lambda spot: (spot[0], 0, spot[1]), lambda n, p, q: (n, q)
        return (*lead, *tiles), lambda spot: spot, lambda *place: place
    (batch,), (high, wide) = lead, (1, *tiles)[-2:]

    def origin(spot: Sequence[Any]) -> Any:
        image = Min(spot[0] // (high * wide), as_expr(batch - 1))
        return image, spot[0] // wide % high, spot[0] % wide

    count = dims.dim((batch * high * wide + _TOGETHER - 1) // _TOGETHER * _TOGETHER)
    return (count,), origin, lambda n, p, q: ((n * high + p) * wide + q,)


__all__ = ["TAPS", "TILES", "matrices", "taps_of", "winograd", "winograd_weight"]
